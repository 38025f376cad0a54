/** Checksums of bytes that are read in place, in any order. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { crc32 } from "node:zlib";
import { CheckedSource, joinedCrc } from "../../src/formats/checked.ts";
import { memoryBytes } from "../../src/formats/memory.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { npyHeader } from "../../src/formats/npy.ts";
import { random } from "./fuzz/random.ts";
import { folder, rejection } from "./support.ts";
import { joined, zipOf } from "./torch_made.ts";

const BYTES = Uint8Array.from({ length: 1000 }, (_, i) => (i * i) % 251);
const [START, END] = [37, 963];
const SUM = crc32(BYTES.subarray(START, END));
const DAMAGED = "its checksum does not match, the file is damaged";

/** Reads of all bytes in a random order and of random lengths, some of them twice. */
function pieces(seed: number): [number, number][] {
  const pick = random(seed);
  const all: [number, number][] = [];
  for (let at = START; at < END;) {
    const end = Math.min(END, at + 1 + pick(120));
    all.push([at, end]);
    at = end;
  }
  for (let i = all.length - 1; i > 0; i--) {
    const j = pick(i + 1);
    [all[i], all[j]] = [all[j], all[i]];
  }
  // Some once more, and with their neighbours.
  return all.flatMap(([at, end]) => pick(3) === 0 ? [[at, end], [at - pick(40), end + pick(40)]] : [[at, end]]);
}

async function readAll(source: CheckedSource, order: [number, number][]): Promise<void> {
  for (const [at, end] of order) await source.read(new Uint8Array(end - at), at);
}

describe("bytes with a checksum", () => {
  test("CRCs of neighbours are joined to that of both", () => {
    for (const cut of [0, 1, 8, 500, 999, 1000]) {
      const [a, b] = [BYTES.subarray(0, cut), BYTES.subarray(cut)];
      expect(joinedCrc(crc32(a), crc32(b), b.length)).toBe(crc32(BYTES));
    }
    const zeros = new Uint8Array(70_000);
    expect(joinedCrc(crc32(BYTES), crc32(zeros), zeros.length)).toBe(crc32(joined(BYTES, zeros)));
  });

  test("whole ones are read in any order; a changed bit is found by whoever reads all", async () => {
    for (let seed = 0; seed < 40; seed++) {
      const open = (sum: number) => new CheckedSource(memoryBytes(BYTES), START, END - START, sum, "it");
      await readAll(open(SUM), pieces(seed));
      const damaged = open(SUM ^ 1);
      expect((await rejection(readAll(damaged, pieces(seed)))).message).toContain(DAMAGED);
      expect((await rejection(damaged.read(new Uint8Array(1), START))).message).toContain(DAMAGED);
    }
  });

  test("who reads a part is not told, nor by bytes around them", async () => {
    const source = new CheckedSource(memoryBytes(BYTES), START, END - START, SUM ^ 1, "it");
    await readAll(source, [[START, END - 1], [100, 200], [END, 1000], [0, START], [0, 60], [40, 40]]);
    expect((await rejection(source.read(new Uint8Array(1000), 0))).message).toContain(DAMAGED);
  });
});

test("a number behind a header that claims fewer of them counts, and so does a name that is not the directory's", async () => {
  await using dir = folder();
  const path = dir.file("x.npz");
  const values = new Uint8Array(Float32Array.from({ length: 24 }, (_, i) => i).buffer);
  const good = zipOf([{ name: "q.npy", data: joined(npyHeader("f32", [6, 4]), values) }]);
  const read = async (bytes: Uint8Array) => {
    writeFileSync(path, bytes);
    await using container = await openContainer(path);
    return await container.readAll("q", "f64");
  };
  expect((await read(good)).data.length).toBe(24);
  const fewer = Buffer.from(good);
  fewer.write("(3, 4)", fewer.indexOf("(6, 4)"), "latin1");
  expect((await rejection(read(fewer))).message).toContain(DAMAGED);
  const renamed = Buffer.from(good);
  renamed.write("k", renamed.indexOf("q.npy"), "latin1");
  expect((await rejection(read(renamed))).message).toContain("its header has another name than the directory");
});

test("a stored member of an .npz with a changed number is refused, as numpy refuses it", async () => {
  await using dir = folder();
  const values = new Uint8Array(Float32Array.from({ length: 6 * 4 }, (_, i) => i).buffer);
  const bytes = zipOf([{ name: "q.npy", data: joined(npyHeader("f32", [3, 2, 4]), values) }]);
  const path = dir.file("x.npz");
  writeFileSync(path, bytes);
  const read = async () => {
    await using container = await openContainer(path);
    // Rows of three heads lie apart: tiles read them in turn.
    const tensor = await container.open("q", {});
    for await (const _ of tensor.tiles(1)) { /* the reading is the test */ }
  };
  await read();
  bytes[bytes.length - 22 - 51 - 9] ^= 1;
  writeFileSync(path, bytes);
  expect((await rejection(read())).message).toContain(`Cannot read tensor "q" in "${path}": ${DAMAGED}`);
});
