/** The library as a script uses it: tensors, attention in one call, files, errors in words. */
import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import {
  attend,
  attendTo,
  load,
  loadAll,
  normal,
  openBackend,
  relativeError,
  reportText,
  save,
  softmaxAttention,
  tensor,
  type Tile,
} from "../../mod.ts";
import { npyBytes, readNpyBytes, scratch, wave } from "../cli/process.ts";

const folder = scratch();
afterAll(() => folder.remove());
const backend = "scalar";

/** softmax(q kᵀ/√d) v of one head, as written in a textbook. */
function textbook(q: number[][], k: number[][], v: number[][], seen: (i: number, j: number) => number): number[][] {
  return q.map((row, i) => {
    const weights = k.map((key, j) => {
      return seen(i, j) * Math.exp(row.reduce((sum, x, c) => sum + x * key[c], 0) / Math.sqrt(row.length));
    });
    const total = weights.reduce((a, b) => a + b, 0);
    return v[0].map((_, c) => weights.reduce((sum, w, j) => sum + w * v[j][c], 0) / total);
  });
}

const made = (rows: number, cols: number, seed: number) =>
  Array.from({ length: rows }, (_, i) => Array.from({ length: cols }, (_, c) => wave(seed * 7919 + i * cols + c)));

describe("tensors", () => {
  test("arrays, flat numbers and files of the same rows are the same attention", async () => {
    const rows = made(40, 6, 1);
    const flat = tensor(Float32Array.from(rows.flat()), [40, 6]);
    await save(folder.path("x.npy"), flat);
    await using file = await load(folder.path("x.npy"));
    const outputs = await Promise.all(
      [rows, flat, file].map(async (x) => (await attend(x, { backend, check: 0 })).output),
    );
    expect(relativeError(outputs[0], outputs[1])).toBeLessThan(1e-6); // float64 rows against float32 ones
    expect(relativeError(outputs[2], outputs[1])).toBe(0);
    expect(outputs[0].shape).toEqual([40, 6]);
  });

  test("shapes mean what they mean in files", async () => {
    const numbers = Float32Array.from({ length: 2 * 5 * 3 }, (_, i) => i);
    const heads = tensor(numbers, [2, 5, 3]);
    expect(heads.info).toMatchObject({ rows: 5, heads: 2, width: 3 });
    expect(heads.toRows()[1]).toEqual([3, 4, 5, 18, 19, 20]);
    const flipped = tensor(numbers, [2, 5, 3], { layout: "lhd" });
    expect(flipped.info).toMatchObject({ rows: 2, heads: 5, width: 3 });
    const split = await tensor(numbers, [5, 6]).view({ heads: 2 });
    expect(split.info).toMatchObject({ rows: 5, heads: 2, width: 3 });
    expect(split.data).toBe(numbers);
    const some = await heads.view({ rows: [1, 3] });
    expect(some.shape).toEqual([2, 2, 3]);
    expect([...some.data]).toEqual([3, 4, 5, 6, 7, 8, 18, 19, 20, 21, 22, 23]);
    const batch = tensor(Float32Array.from({ length: 2 * 3 * 4 * 2 }, (_, i) => i), [2, 3, 4, 2]);
    expect([...(await batch.read()).data]).toEqual([...batch.data]);
    expect(String(split)).toBe("Tensor [5, 6] f32 · 2 × 3 · in memory");
  });

  test("`normal` is seeded and has the spread that was asked for", () => {
    const x = normal([4000, 4], { seed: 3, sd: 0.5, mean: 1 });
    expect([...normal([4000, 4], { seed: 3, sd: 0.5, mean: 1 }).data]).toEqual([...x.data]);
    const numbers = Array.from(x.data);
    const mean = numbers.reduce((a, b) => a + b, 0) / numbers.length;
    const sd = Math.sqrt(numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0) / numbers.length);
    expect(mean).toBeCloseTo(1, 1);
    expect(sd).toBeCloseTo(0.5, 1);
    expect(normal([2, 2], { seed: 4 }).data[0]).not.toBe(x.data[0]);
  });

  test("what cannot be a tensor is refused in words", async () => {
    expect(() => tensor([1, 2, 3], [2, 2])).toThrow("it takes 4 numbers, there are 3");
    await expect(attend([[1, 2], [3]])).rejects.toThrow("one row has 1 numbers, another 2");
    // deno-lint-ignore no-explicit-any
    await expect(attend(new Float32Array(8) as any)).rejects.toThrow("use tensor(data, [rows, columns])");
    const x = normal([8, 4]);
    // deno-lint-ignore no-explicit-any
    await expect((attend as any)(x, x)).rejects.toThrow("give values as well");
    await expect(attend(x, { heads: 3 })).rejects.toThrow("in 3 heads");
    await expect(attend(x, { mask: [1, 0] })).rejects.toThrow("one for each of 8 key rows");
    await expect(x.view({ rows: [0, 9] })).rejects.toThrow("Cannot take rows 0:9");
    await expect(attend(x, { features: "hyperbolc" })).rejects.toThrow('Unknown feature map "hyperbolc"');
    await expect(attend(x, { features: "positive", window: 4 })).rejects.toThrow("random features are no far field");
  });
});

describe("attention", () => {
  const [q, k, v] = [made(30, 8, 1), made(30, 8, 2), made(30, 8, 3)];

  test("exact attention is the textbook's, causal and masked", async () => {
    const all = await softmaxAttention(q, k, v, { backend });
    expect(relativeError(all, textbook(q, k, v, () => 1))).toBeLessThan(1e-12);
    const causal = await softmaxAttention({ q, k, v }, { backend, causal: true });
    expect(relativeError(causal, textbook(q, k, v, (i, j) => j <= i ? 1 : 0))).toBeLessThan(1e-12);
    const mask = k.map((_, j) => j % 3);
    const masked = await softmaxAttention(q, k, v, { backend, mask });
    expect(relativeError(masked, textbook(q, k, v, (_, j) => mask[j]))).toBeLessThan(1e-12);
  });

  test("the report holds the error that one measures oneself, and it falls with m", async () => {
    const exact = await softmaxAttention(q, k, v, { backend });
    const errors = [];
    for (const numFeatures of [16, 1024]) {
      const { output, report } = await attend(q, k, v, { backend, numFeatures });
      expect(report.error?.relativeL2.value).toBeCloseTo(relativeError(output, exact), 10);
      expect(report.attention.numFeatures).toBe(numFeatures);
      errors.push(relativeError(output, exact));
    }
    expect(errors[1]).toBeLessThan(errors[0] / 2);
    const text = reportText((await attend(q, k, v, { backend })).report);
    expect(text).toContain("uniform baseline");
  });

  test("a head of many is what that head is alone", async () => {
    const x = normal([50, 12], { seed: 5 });
    const { output } = await attend(x, { backend, heads: 3, features: "softmax" });
    const head = tensor(Float32Array.from({ length: 200 }, (_, i) => x.data[(i >> 2) * 12 + 4 + i % 4]), [50, 4]);
    const alone = await softmaxAttention(head, { backend });
    expect(relativeError(output.toRows().map((row) => row.slice(4, 8)), alone)).toBeLessThan(1e-12);
  });

  test("near keys, shrinkage, decay and the choice by trials", async () => {
    const x = normal([200, 16], { seed: 6 });
    const near = await attend(x, { backend, window: 16 });
    expect(near.report.attention.nearFar).toMatchObject({ window: 16, far: "taylor1" });
    const clusters = await attend(x, { backend, far: "clusters", clusters: 8, top: 2 });
    expect(clusters.report.attention.nearFar).toMatchObject({ clusters: 8, top: 2 });
    const shrunk = await attend(x, { backend, features: "positive", numFeatures: 8, shrink: "auto" });
    expect(shrunk.report.attention.shrink!.length).toBe(1);
    const auto = await attend(x, { backend, features: "auto" });
    expect(auto.report.attention.chosen).toBe(true);
    const decayed = await softmaxAttention(x, { backend, causal: true, decay: 50 });
    expect(relativeError(decayed, x)).toBeLessThan(1e-6); // nothing but the row itself is left
    await expect(attend(x, { backend, decay: 1 })).rejects.toThrow("without --causal");
  });

  test("outputs go to a file, a sink or a function without being kept", async () => {
    const x = normal([2, 70, 4], { seed: 7 });
    const { output } = await attend(x, { backend, tileRows: 16, check: 0 });
    const path = folder.path("out.npy");
    const report = await attendTo(path, x, { backend, tileRows: 16, check: 0 });
    expect(report.output).toMatchObject({ path, shape: [2, 70, 4] });
    const written = readNpyBytes(new Uint8Array(readFileSync(path)));
    expect(written.shape).toEqual([2, 70, 4]);
    expect(relativeError(written.data, output)).toBeLessThan(1e-6); // float32 in the file
    const tiles: number[] = [];
    await attendTo((tile: Tile) => void tiles.push(tile.start, tile.rows), { q: x, k: x, v: x }, {
      backend,
      tileRows: 16,
    });
    expect(tiles).toEqual([0, 16, 16, 16, 32, 16, 48, 16, 64, 6]);
  });

  test("an open backend serves many calls, and says its name", async () => {
    await using wasm = await openBackend("wasm", { threads: 1 });
    expect(wasm.name).toBe("wasm");
    const x = normal([100, 8], { seed: 8, sd: 0.5 });
    const first = await attend(x, { backend: wasm });
    const second = await attend(x, { backend: wasm });
    expect(relativeError(first.output, second.output)).toBe(0);
    expect(relativeError(first.output, (await attend(x, { backend })).output)).toBeLessThan(1e-5);
    expect(first.output.data).toBeInstanceOf(Float32Array);
  });
});

describe("files", () => {
  test("members of an archive, and errors that name them", async () => {
    await using set = await loadAll("tests/fixtures/all.safetensors");
    expect(Object.keys(set).length).toBeGreaterThan(3);
    await expect(load("tests/fixtures/all.safetensors")).rejects.toThrow("give { name } or use loadAll");
    await expect(load("tests/fixtures/nothing.npy")).rejects.toThrow("nothing.npy");
    const path = folder.path("grid.npy");
    writeFileSync(path, npyBytes([6, 4], (i) => i));
    await using grid = await load(path, { rows: [2, 5], heads: 2 });
    expect(grid.shape).toEqual([3, 4]);
    expect(() => grid.data).toThrow("read()");
    expect([...(await grid.read()).data]).toEqual(Array.from({ length: 12 }, (_, i) => 8 + i));
    expect([...(await (await grid.view({ rows: [1, 2] })).read()).data]).toEqual([12, 13, 14, 15]);
  });

  test("a sequence as rows", async () => {
    await using genome = await load("examples/data/lambda_virus.fa", { encode: "kmer:6", rows: [0, 512] });
    expect(genome.info).toMatchObject({ rows: 512, heads: 1, width: 64 });
    expect((await attend(genome, { backend, check: 32 })).report.error!.skill).toBeGreaterThan(0.5);
  });
});
