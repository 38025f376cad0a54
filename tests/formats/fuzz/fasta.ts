/** FASTA and text, plain and gzip (src/formats/fasta.ts): the letters and records that a reading by whole lines finds. */
import { gunzipSync, gzipSync } from "node:zlib";
import { openResidues } from "../../../src/formats/fasta.ts";
import { joined } from "../torch_made.ts";
import { type Kind, refusedOr, requireEqual } from "./case.ts";
import { one, type Pick } from "./random.ts";

const latin1 = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");

const TEXTS: Readonly<Record<string, string>> = {
  "two records": ">one first\nACGTNacgtn\nGGG--CC*\n>two\nTTTT\n",
  "protein": ">sp|P1|X\r\nMKVLAAGIV\r\nWYHHK*\r\n;comment\r\n>empty\r\n>last\r\nMM\r\n",
  "text": "ACGT ACGT\nNNNN 10\nacgt\n",
  "one line": `>x\n${"ACGTTGCA".repeat(300)}`,
};

/** Things that lines are made to hold. */
const PIECES = [
  ">",
  "\n>",
  ">\n",
  "\r",
  "\r\n",
  "\n\n",
  ";",
  "\n;c\n",
  "\0",
  "\x1b[2J",
  "\xff",
  "\xc3\xa9",
  " ",
  "*",
  "-",
  ".",
  "@",
  "\x0c",
];

function lines(bytes: Uint8Array, pick: Pick): Uint8Array {
  let copy = bytes;
  for (let left = 1 + pick(4); left > 0; left--) {
    const at = pick(copy.length + 1);
    const piece = pick(20) === 0 ? one(pick, PIECES).repeat(30_000) : one(pick, PIECES);
    copy = joined(copy.subarray(0, at), piece, copy.subarray(at + pick(4) * pick(2)));
  }
  return copy;
}

/** Of gzip the text inside, packed again: once, in two members, or with something behind. */
function aimed(bytes: Uint8Array, pick: Pick): Uint8Array {
  if (bytes[0] !== 0x1f) return lines(bytes, pick);
  const text = lines(new Uint8Array(gunzipSync(bytes)), pick);
  const cut = pick(text.length + 1);
  return one(pick, [
    () => new Uint8Array(gzipSync(text)),
    () => joined(new Uint8Array(gzipSync(text.subarray(0, cut))), new Uint8Array(gzipSync(text.subarray(cut)))),
    () => joined(new Uint8Array(gzipSync(text)), one(pick, ["\0", "x", "\x1f\x8b", "\0".repeat(600)])),
    () => new Uint8Array(gzipSync(joined(text, "A".repeat(5_000_000)))),
  ])();
}

/** Letters and records of plain bytes, line by line; null where a byte is none of a text. */
function linesOf(bytes: Uint8Array): { letters: string; records: [name: string, length: number][] } | null {
  let letters = "";
  const records: [string, number][] = [];
  let fasta = false;
  for (const line of latin1(bytes).split(/[\r\n]/)) {
    if (line.startsWith(">") && (fasta || letters === "")) {
      fasta = true;
      records.push([line.slice(1, 1001).trim().split(/\s+/)[0], 0]);
      continue;
    }
    if (line.startsWith(";") && (fasta || letters === "")) continue;
    // deno-lint-ignore no-control-regex
    if (/[\x00-\x08\x0e-\x1a]/.test(line)) return null;
    const own = line.replace(/[^A-Za-z]/g, "").toUpperCase();
    letters += own;
    if (records.length > 0) records.at(-1)![1] += own.length;
  }
  return { letters, records: records.length > 0 ? records : [["", letters.length]] };
}

async function judge(path: string, bytes: Uint8Array, step: (name: string) => void): Promise<string> {
  step("read");
  const found = await refusedOr(path, async () => {
    await using residues = await openResidues(path);
    const letters = new Uint8Array(residues.length);
    await residues.read(letters, 0);
    return { letters: latin1(letters), records: residues.records.map(({ name, length }) => [name, length]) };
  });
  let plain: Uint8Array | null = bytes;
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    try {
      plain = new Uint8Array(gunzipSync(bytes, { maxOutputLength: 2 ** 24 }));
    } catch {
      plain = null; // damaged, or more than is wanted here
    }
  }
  const wanted = plain && linesOf(plain);
  if (!found) {
    if (wanted && wanted.letters !== "") throw new Error("is refused, and holds letters");
    return "refused";
  }
  if (plain) requireEqual("the file", found, wanted);
  return plain ? "read" : "read, not compared";
}

const bases = Object.entries(TEXTS).flatMap(([name, text]) => {
  const bytes = joined(text);
  return [{ name, bytes }, { name: `${name}, gzip`, bytes: new Uint8Array(gzipSync(bytes)) }];
});

export const fasta: Kind = { file: "fuzz.fa", bases, aimed, forged: null, judge };
