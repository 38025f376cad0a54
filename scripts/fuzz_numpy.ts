/**
 * Compares what is read of damaged files with what numpy reads: `bun scripts/fuzz_numpy.ts [COUNT] [SEED] [FIRST]` (5000 1 0), files of
 * .npy, .npz, .safetensors and FASTA in turn. PYTHON names the interpreter (python3). Where both read, shapes and numbers must be equal bit for
 * bit as float64; where one refuses, its reasons are counted. Exits 1 when something differs. Each file is judged in this process: first
 * see that none crashes it (scripts/fuzz.ts).
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import process from "node:process";
import { InputError } from "../src/errors.ts";
import { openResidues } from "../src/formats/fasta.ts";
import { openContainer } from "../src/formats/mod.ts";
import { caseOf } from "../tests/formats/fuzz/cases.ts";

/** Kind and bytes of an element, shape, SHA-256 of all elements as float64: null where they are no numbers, "large" where they are many. */
type Described = readonly [dtype: string, shape: readonly number[] | null, hash: string | null];
type Answer = { readonly arrays: Record<string, Described> } | { readonly refused: string };

const LARGEST = 1_000_000;
const MOST_TENSORS = 40;

/** numpy's letter for a type of ours, and bytes. */
const letterOf = (dtype: string): string =>
  dtype === "bf16" ? dtype : dtype === "bool" ? "b1" : `${dtype[0]}${Number(dtype.slice(1)) / 8}`;

function hashOf(numbers: Float64Array): string {
  const bits = new BigUint64Array(numbers.buffer, numbers.byteOffset, numbers.length);
  for (let i = 0; i < numbers.length; i++) if (Number.isNaN(numbers[i])) bits[i] = 0x7ff8n << 48n;
  return createHash("sha256").update(new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength)).digest("hex");
}

async function refusedOr<T>(act: () => Promise<T>): Promise<T | string> {
  try {
    return await act();
  } catch (error) {
    if (error instanceof InputError) return error.message;
    throw error;
  }
}

/** What the program reads of a file; null for the formats that numpy does not know. */
async function ownReading(kind: string, path: string): Promise<Answer | null> {
  const found = await refusedOr(async () => {
    if (kind === "fasta") {
      await using residues = await openResidues(path);
      const letters = new Uint8Array(residues.length);
      await residues.read(letters, 0);
      const hash = letters.length > LARGEST ? "large" : hashOf(Float64Array.from(letters));
      return { "": ["u1", [letters.length], hash] as Described };
    }
    await using container = await openContainer(path);
    if (container.format === "torch") return null;
    const arrays: [string, Described][] = [];
    for (const { name, shape, dtype } of container.contents.tensors.slice(0, MOST_TENSORS)) {
      const count = shape.reduce((a, b) => a * b, 1);
      const read = await refusedOr(async () => {
        return count > LARGEST ? "large" : hashOf((await container.readAll(name, "f64")).data as Float64Array);
      });
      const hash = /^([0-9a-f]{64}|large)$/.test(read);
      arrays.push([name, hash ? [letterOf(dtype!), shape, read] : [`refused ${read}`, null, null]]);
    }
    return Object.fromEntries(arrays);
  });
  if (found === null) return null;
  if (typeof found === "string") return { refused: found };
  // Listed, and nothing of it can be read.
  const listed = Object.values(found as Record<string, Described>);
  if (listed.length > 0 && listed.every(([, , hash]) => hash === null)) return { refused: listed[0][0] };
  return { arrays: found };
}

/** One interpreter for all files. */
class Numpy {
  readonly #process = spawn(process.env.PYTHON ?? "python3", [
    fileURLToPath(new URL("fuzz_numpy.py", import.meta.url).href),
  ], { stdio: ["pipe", "pipe", "inherit"] });
  readonly #lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();

  async next<T>(): Promise<T> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("python3 with numpy ended early");
    return JSON.parse(value) as T;
  }

  async ask(kind: string, path: string): Promise<Answer> {
    this.#process.stdin.write(`${kind} ${path}\n`);
    return await this.next<Answer>();
  }

  end(): void {
    this.#process.stdin.end();
  }
}

/** A reason without what differs from file to file. */
const general = (reason: string): string =>
  reason.replace(/"[^"]*"|'[^']*'|b'.*'/g, "…").replace(/-?\d[\d, ]*/g, "# ").replace(/\s+/g, " ").slice(0, 110);

const [count = 5000, seed = 1, first = 0] = process.argv.slice(2).map(Number);
const folder = mkdtempSync(join(tmpdir(), "performer-fuzz-"));
const numpy = new Numpy();
const versions = await numpy.next<{ numpy: string; python: string }>();
const tally = new Map<string, number>();
const add = (what: string) => void tally.set(what, (tally.get(what) ?? 0) + 1);
const bugs: string[] = [];
let compared = 0;
for (let index = first, done = 0; done < count; index++) {
  const kind = ["tensors", "tensors", "tensors", "state", "fasta"][index % 5];
  const { what, how, file, bytes } = caseOf(seed, index, { only: kind, largest: 5000 });
  if (kind === "tensors" && how !== "hostile" && !/\.(npy|npz|safetensors)$/.test(what)) continue;
  const path = join(folder, file);
  writeFileSync(path, bytes);
  const own = await ownReading(kind, path);
  if (own === null) continue;
  done++;
  const other = await numpy.ask(kind, path);
  const place = `${kind} ${index} of seed ${seed} (${what}, ${how})`;
  const format = kind === "tensors"
    ? `${how === "hostile" ? "" : "."}${how === "hostile" ? how : what.split(".").at(-1)}`
    : kind;
  if ("refused" in own && "refused" in other) add(`${format}: both refuse`);
  else if ("refused" in own) {
    const arrays = "arrays" in other ? Object.values(other.arrays) : [];
    const numbers = arrays.some(([, , hash]) => hash !== null);
    add(`${format}: only numpy reads${numbers ? "" : " (nothing that is a number)"}: ${general(own.refused)}`);
  } else if ("refused" in other) {
    add(`${format}: only we read: ${general(other.refused)}`);
  } else {
    for (const name of new Set([...Object.keys(own.arrays), ...Object.keys(other.arrays)])) {
      const [mine, theirs] = [own.arrays[name], other.arrays[name]];
      const [refused, foreign] = [mine, theirs].map((one) => one === undefined || one[2] === null);
      if (refused && foreign) add(`${format}: array that neither reads`);
      else if (refused) add(`${format}: array that only numpy reads: ${general(mine?.[0] ?? "not listed")}`);
      else if (foreign) add(`${format}: array that only we read: ${general(theirs?.[0] ?? "not listed")}`);
      else if (JSON.stringify(mine) !== JSON.stringify(theirs)) {
        bugs.push(`${place}, "${name}": ${mine}, numpy has ${theirs}`);
      } else {
        add(`${format}: array that both read, equal`);
        compared++;
      }
    }
  }
}
numpy.end();
rmSync(folder, { recursive: true });
for (const [what, times] of [...tally].sort()) console.log(`${String(times).padStart(6)}  ${what}`);
for (const bug of bugs) console.log(bug);
console.log(
  `${count} files, numpy ${versions.numpy} (Python ${versions.python}): ${compared} arrays equal, ${bugs.length} differ`,
);
process.exitCode = bugs.length > 0 ? 1 : 0;
