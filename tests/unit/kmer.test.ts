import { describe, expect, test } from "bun:test";
import { KMER_WIDTH, KmerSource, parseKmer } from "../../src/formats/kmer.ts";
import type { Residues } from "../../src/formats/fasta.ts";
import type { Tile } from "../../src/tensor.ts";

function residues(...sequences: string[]): Residues {
  const text = new TextEncoder().encode(sequences.join(""));
  let start = 0;
  const records = sequences.map((sequence, i) => {
    const record = { name: `r${i}`, start, length: sequence.length };
    start += sequence.length;
    return record;
  });
  return {
    path: "test",
    format: "fasta",
    length: text.length,
    records,
    read: async (into, at) => into.set(text.subarray(at, at + into.length)),
    async [Symbol.asyncDispose]() {},
  };
}

const options = { k: 4, window: 6, heads: 2, seed: 0 };

async function rows(source: KmerSource, tileRows: number): Promise<Float32Array> {
  const cols = source.info.heads * source.info.width;
  const all = new Float32Array(source.info.rows * cols);
  for await (const tile of source.tiles(tileRows) as AsyncIterable<Tile>) all.set(tile.data, tile.start * cols);
  return all;
}

/** A sequence with planted structure: two halves of different composition, and one repeat. */
function sequence(length: number): string {
  let state = 7;
  const next = () => (state = Math.imul(state, 1103515245) + 12345 >>> 0) / 2 ** 32;
  const letters = Array.from(
    { length },
    (_, i) => i < length / 2 ? "ACGT"[Math.floor(4 * next())] : "AATT"[Math.floor(4 * next())],
  );
  return letters.join("");
}

test("cutting into tiles changes no bit", async () => {
  const source = await KmerSource.open("test", residues(sequence(301), sequence(40)), options);
  const whole = await rows(source, 1000);
  for (const tileRows of [1, 7, 64, 300]) expect(await rows(source, tileRows)).toEqual(whole);
});

test("a slice of rows is the same rows", async () => {
  const text = residues(sequence(200));
  const whole = await rows(await KmerSource.open("test", text, options), 64);
  const slice = await rows(await KmerSource.open("test", text, options, { start: 50, end: 90 }), 64);
  expect(slice).toEqual(whole.slice(50 * 2 * KMER_WIDTH, 90 * 2 * KMER_WIDTH));
});

test("every row of a head has the same norm, and heads differ", async () => {
  const data = await rows(await KmerSource.open("test", residues(sequence(100)), options), 64);
  const norm = (at: number) => Math.hypot(...data.subarray(at, at + KMER_WIDTH));
  for (let at = 0; at < data.length; at += KMER_WIDTH) expect(norm(at)).toBeCloseTo(4, 5); // √2 · 64^{1/4}
  expect(data.slice(0, 64)).not.toEqual(data.slice(64, 128));
});

test("equal words far apart give equal rows; other composition gives distant ones", async () => {
  const motif = "ACGTTGCAACGGTTCA";
  const data = await rows(
    await KmerSource.open("test", residues(motif + sequence(200) + motif + "A".repeat(40)), { ...options, heads: 1 }),
    64,
  );
  const row = (i: number) => data.subarray(i * 64, i * 64 + 64);
  const dot = (i: number, j: number) => row(i).reduce((sum, value, c) => sum + value * row(j)[c], 0) / 16;
  expect(dot(5, 216 + 5)).toBeGreaterThan(0.99);
  expect(dot(5, 250)).toBeLessThan(0.5);
});

test("words do not cross records", async () => {
  const joined = await rows(await KmerSource.open("test", residues("ACGTACGTAC", "GGGTTTCCCA"), options), 64);
  const swapped = await rows(await KmerSource.open("test", residues("GGGTTTCCCA", "ACGTACGTAC"), options), 64);
  expect(joined.slice(0, 10 * 128)).toEqual(swapped.slice(10 * 128));
});

test("seeds change the vectors, unknown letters count as nothing", async () => {
  const a = await rows(await KmerSource.open("test", residues(sequence(50)), options), 64);
  const b = await rows(await KmerSource.open("test", residues(sequence(50)), { ...options, seed: 1 }), 64);
  expect(a).not.toEqual(b);
  const unknown = await rows(await KmerSource.open("test", residues("ACGT".repeat(40) + "N".repeat(40)), options), 64);
  expect(unknown.slice(-128)).toEqual(new Float32Array(128));
});

describe("parseKmer", () => {
  test("reads K and WINDOW", () => {
    expect(parseKmer("kmer:6")).toEqual({ k: 6, window: 16 });
    expect(parseKmer("kmer:3:32")).toEqual({ k: 3, window: 32 });
  });
  test.each(["kmer", "kmer:0", "kmer:13", "kmer:6:0", "onehot", "kmer:6:x"])("refuses %s", (text) => {
    expect(() => parseKmer(text)).toThrow("expected kmer:K");
  });
});
