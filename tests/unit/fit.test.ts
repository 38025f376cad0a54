/** Where fitted numbers come from: which rows, what is refused, and that neither tiles nor masks go astray. */
import { expect, test } from "bun:test";
import { type Attention, parametersFor, transformFor } from "../../src/attention.ts";
import { UsageError } from "../../src/errors.ts";
import type { FitWish } from "../../src/fitted.ts";
import { fitInputs, parseSource, planFit, rangesOf, readsAhead, sourceText } from "../../src/fit.ts";
import { Inputs } from "../../src/inputs.ts";
import { RandomStream } from "../../src/random.ts";
import type { TensorSource } from "../../src/tensor.ts";
import { type MemoryTensor, memoryTensor } from "./memory_tensor.ts";

const attention = (changes: Partial<Attention> = {}): Attention => ({
  features: "hyp-sderf",
  numFeatures: 16,
  projection: "orthogonal",
  norms: "chi",
  seed: 1,
  causal: false,
  scale: null,
  given: null,
  compat: "exact",
  ...changes,
});
const planned = (changes: Partial<Attention>, fitting: FitWish, layered = false) =>
  planFit(attention({ ...changes, fitting }), layered);
const AUTO: FitWish = { params: null, centre: "auto" };
const given = { path: "w.npy", matrices: 1, headDim: 4, data: new Float64Array(32) };

/** Seeded normal numbers as a tensor in memory that remembers which rows were read. */
const memory = (rows: number, heads: number, width: number, seed: number): MemoryTensor =>
  memoryTensor(new RandomStream(seed).normals(rows * heads * width), heads, width);

test("sources are read as they are written, and nothing else is", () => {
  for (const text of ["fixed", "file", "prefix:7", "sample:4096"]) expect(sourceText(parseSource(text))).toBe(text);
  for (const text of ["", "sample", "sample:0", "prefix:-1", "prefix:1.5", "rows:3", "sample:1e3"]) {
    expect(() => parseSource(text)).toThrow(UsageError);
  }
});

test("a sample is whole pieces from the first rows to the last, a prefix the first rows, none of them beyond the end", () => {
  expect(rangesOf({ kind: "file" }, 500)).toEqual([{ start: 0, end: 500 }]);
  expect(rangesOf({ kind: "prefix", rows: 100 }, 500)).toEqual([{ start: 0, end: 100 }]);
  expect(rangesOf({ kind: "prefix", rows: 100 }, 50)).toEqual([{ start: 0, end: 50 }]);
  for (const [rows, total] of [[128, 1000], [100, 1000], [1, 9], [64, 65], [4096, 1e6], [4096, 5000], [300, 320]]) {
    const ranges = rangesOf({ kind: "sample", rows }, total);
    let last = 0, all = 0;
    for (const { start, end } of ranges) {
      expect(start).toBeGreaterThanOrEqual(last);
      expect(end).toBeGreaterThan(start);
      last = end;
      all += end - start;
    }
    expect(last).toBeLessThanOrEqual(total);
    expect(all === rows || all === total).toBe(true);
    if (ranges.length > 1) expect([ranges[0].start, total - last < 64]).toEqual([0, true]);
  }
});

test("defaults: a sample both ways round, a prefix for causal fitted maps, nothing for given projections", () => {
  expect(planned({}, AUTO)).toEqual({ source: { kind: "sample", rows: 4096 }, centred: true });
  expect(planned({ features: "positive" }, AUTO)?.centred).toBe(true);
  expect(planned({ features: "positive" }, AUTO, true)).toBeNull(); // a checkpoint's layer
  expect(planned({ features: "positive" }, { ...AUTO, centre: "off" })).toBeNull();
  expect(planned({ features: "positive", causal: true }, AUTO)).toBeNull();
  expect(planned({ causal: true }, AUTO)).toEqual({
    source: { kind: "prefix", rows: 1024 },
    centred: false,
  });
  expect(planned({ features: "positive", given }, AUTO)).toBeNull();
  expect(planned({ given }, AUTO)).toEqual({ source: { kind: "fixed" }, centred: false });
  expect(planned({ features: "positive", given }, { ...AUTO, centre: "on" })?.centred).toBe(true);
  for (const features of ["relu", "elu", "cosformer", "softmax"]) {
    expect(planned({ features }, AUTO)).toBeNull();
  }
  expect(planned({ features: "positive", compat: "google" }, AUTO)).toBeNull();
  expect(readsAhead(planned({}, AUTO))).toBe(true);
  expect(readsAhead(planned({}, { ...AUTO, params: { kind: "fixed" } }))).toBe(false);
});

test("contradictions are refused with the way out", () => {
  const fixed: FitWish = { params: { kind: "fixed" }, centre: "on" };
  expect(() => planned({}, fixed)).toThrow(/comes from data, use sample:N/);
  expect(() => planned({ causal: true }, fixed)).toThrow(/use prefix:N/);
  expect(() => planned({ features: "relu" }, { ...AUTO, centre: "on" })).toThrow(/--features relu/);
  expect(() => planned({ compat: "google", features: "positive" }, { ...AUTO, params: { kind: "file" } }))
    .toThrow(/--compat google/);
});

test("the rows of the plan are read, and no others; masked keys do not count", async () => {
  const [q, k] = [memory(700, 4, 4, 1), memory(900, 2, 4, 2)];
  const inputs = new Inputs(q, k, k, null);
  const sizes = { queryRows: 700, keyRows: 900, heads: 4, kvHeads: 2, headDim: 4, valueDim: 4 };
  const plan = { source: parseSource("sample:128"), centred: true };
  const fit = (await fitInputs(attention(), sizes, plan, inputs, { precision: "f64" }))!;
  expect(fit.rows).toBe(128);
  expect(fit.heads.length).toBe(2);
  const rowsOf = (total: number) =>
    rangesOf(plan.source, total).flatMap(({ start, end }) => Array.from({ length: end - start }, (_, i) => start + i));
  const readOf = ({ reads }: MemoryTensor) => [...reads.keys()].filter((row) => reads[row] > 0);
  expect(readOf(k)).toEqual(rowsOf(900));
  expect(readOf(q)).toEqual(rowsOf(700));
  // A mask that leaves only the rows of a smaller file is that file.
  const weights: TensorSource = {
    ...memory(900, 1, 1, 3),
    async *tiles(tileRows, { range = { start: 0, end: 900 } } = {}) {
      for (let start = range.start; start < range.end; start += tileRows) {
        const rows = Math.min(tileRows, range.end - start);
        yield { start, rows, cols: 1, data: Float64Array.from({ length: rows }, (_, i) => start + i < 50 ? 1 : 0) };
      }
    },
  };
  const all = { source: parseSource("file"), centred: true };
  const masked = await fitInputs(attention(), sizes, all, new Inputs(q, k, k, weights), { precision: "f64" });
  const cut = {
    ...k,
    info: { ...k.info, rows: 50 },
    tiles: (rows: number, options = {}) => k.tiles(rows, { range: { start: 0, end: 50 }, ...options }),
  };
  const small = await fitInputs(attention(), { ...sizes, keyRows: 50 }, all, new Inputs(q, cut, cut, null), {
    precision: "f64",
  });
  expect(masked!.heads).toEqual(small!.heads);
});

test("without rows to look at nothing is fitted, and fixed numbers do not need any", async () => {
  const none = memory(0, 1, 4, 1);
  const sizes = { queryRows: 0, keyRows: 0, heads: 1, kvHeads: 1, headDim: 4, valueDim: 4 };
  const plan = planned({}, AUTO)!;
  const fit = await fitInputs(attention(), sizes, plan, new Inputs(none, none, none, null), { precision: "f32" });
  expect(fit).toMatchObject({ source: "fixed", rows: 0, centred: false });
  expect(transformFor(attention(), sizes, fit)).toBeNull();
  const [a, b] = [parametersFor(attention(), sizes, 0, fit), parametersFor(attention(), sizes)];
  expect([a.weights, a.bias]).toEqual([b.weights, b.bias]);
  const plain = attention({ features: "positive" });
  expect(await fitInputs(plain, sizes, plan, new Inputs(none, none, none, null), { precision: "f32" })).toBeNull();
});

test("smreg is positive with norms √d whatever norms are asked for; a given projection serves fitted heads", () => {
  const sizes = { queryRows: 9, keyRows: 9, heads: 2, kvHeads: 2, headDim: 4, valueDim: 4 };
  const smreg = parametersFor(attention({ features: "smreg" }), sizes);
  expect(smreg.weights).toEqual(parametersFor(attention({ features: "positive", norms: "sqrtd" }), sizes).weights);
  const W = { ...given, data: Float64Array.from(new RandomStream(4).normals(32), Math.fround) };
  const p = parametersFor(attention({ features: "oprf", given: W }), sizes);
  expect([p.matrices, p.projections]).toEqual([1, 8]);
  const ratio = p.weights[0] / W.data[0];
  p.weights.forEach((w, i) => expect(Math.abs(w / W.data[i] / ratio - 1)).toBeLessThan(2 ** -22));
  expect(ratio).toBeGreaterThan(1); // √(1 − 4A), A < 0
});
