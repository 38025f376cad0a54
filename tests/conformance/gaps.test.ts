/** Rows with NaN or infinity where they are no error: one law on every backend, for every kind of attention. */
import { expect, test } from "bun:test";
import type { Attention } from "../../src/attention.ts";
import type { Backend } from "../../src/backend.ts";
import { type GapPolicy, Gaps } from "../../src/gaps.ts";
import { Inputs } from "../../src/inputs.ts";
import { RandomStream } from "../../src/random.ts";
import { attend } from "../../src/run.ts";
import type { TensorSource, Tile } from "../../src/tensor.ts";
import { memoryTensor } from "../unit/memory_tensor.ts";
import { PLAIN } from "../plain_attention.ts";
import { describeBackends } from "./backends.ts";

const [ROWS, HEADS, KV_HEADS, WIDTH] = [90, 4, 2, 4];

const BASE: Attention = { ...PLAIN, numFeatures: 8 };
const NEAR = { window: 8, heavy: 4, far: "taylor1", clusters: null, top: 0 } as const;
const ways: [string, Partial<Attention>][] = [
  ["random features", {}],
  ["causal", { causal: true }],
  ["softmax", { features: "softmax" }],
  ["softmax causal", { features: "softmax", causal: true }],
];
const nearWays: [string, Partial<Attention>][] = [
  ["near and far", { features: "taylor1", nearFar: NEAR as unknown as Attention["nearFar"] }],
  ["near and far causal", { features: "taylor1", nearFar: NEAR as unknown as Attention["nearFar"], causal: true }],
];

type Holes = readonly (readonly [row: number, head: number, value: number])[];

/** Normal numbers with `holes` in their first column. */
function numbers(seed: number, heads: number, holes: Holes): Float64Array {
  const data = Float64Array.from(new RandomStream(seed, 5).normals(ROWS * heads * WIDTH), Math.fround);
  for (const [row, head, value] of holes) data[(row * heads + head) * WIDTH] = value;
  return data;
}

interface Tensors {
  readonly q: Holes;
  readonly k: Holes;
  readonly v: Holes;
  readonly weights?: readonly number[];
  /** One tensor for all three. */
  readonly same?: Holes;
}

function inputsOf({ q, k, v, weights, same }: Tensors, gaps: Gaps | null): Inputs {
  const tensor = (seed: number, heads: number, holes: Holes) =>
    memoryTensor(numbers(seed, heads, holes), heads, WIDTH, true);
  const mask = weights ? memoryTensor(weights, 1, 1) : null;
  if (same) {
    const all = tensor(1, HEADS, same);
    return new Inputs(all, all, all, mask, gaps);
  }
  return new Inputs(tensor(1, HEADS, q), tensor(2, KV_HEADS, k), tensor(3, KV_HEADS, v), mask, gaps);
}

/** All outputs, and the report. */
async function run(backend: Backend, attention: Partial<Attention>, inputs: Inputs) {
  const data = new Float64Array(ROWS * HEADS * WIDTH);
  const sink = {
    path: "memory",
    dtype: "f32",
    shape: [ROWS, HEADS * WIDTH],
    write: async (tile: Tile) => data.set(tile.data.subarray(0, tile.rows * tile.cols), tile.start * tile.cols),
    finish: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
  const report = await attend({
    inputs,
    attention: { ...BASE, ...attention },
    backend,
    refused: [],
    tileRows: 16,
    check: ROWS,
    redraws: 0,
    sink,
    encoding: null,
    peakBytes: () => 0,
  });
  return { data, report };
}

/** Indices of outputs (row, head) that are NaN in all their columns; fails where only some are. */
function undefinedOnes(data: Float64Array): number[] {
  return Array.from({ length: ROWS * HEADS }, (_, cell) => cell).filter((cell) => {
    const own = data.subarray(cell * WIDTH, (cell + 1) * WIDTH);
    const count = own.filter(Number.isNaN).length;
    expect(count === 0 || count === WIDTH).toBe(true);
    return count > 0;
  });
}

const [Q, K, V]: Holes[] = [[[5, 1, NaN], [70, 0, Infinity]], [[20, 0, -Infinity]], [[33, 1, NaN], [33, 0, NaN]]];
const rowsOf = (holes: Holes) => [...new Set(holes.map(([row]) => row))];

describeBackends("rows that are not finite", (backend, slow) => {
  const all = backend.prepareNearFar ? [...ways, ...nearWays] : ways;
  const some = slow ? all.slice(0, 2) : all;

  for (const [name, attention] of some) {
    test(`skip, ${name}: keys are masked, queries answered with 0`, async () => {
      const given = await run(backend, attention, inputsOf({ q: Q, k: K, v: V }, new Gaps("skip")));
      // The same by hand: such keys have weight 0, and rows that hold such a number are 0.
      const masked = rowsOf([...K, ...V]);
      const clear = (holes: Holes, heads: number): Holes =>
        rowsOf(holes).flatMap((row) => Array.from({ length: heads }, (_, head) => [row, head, 0] as const));
      const weights = Array.from({ length: ROWS }, (_, i) => masked.includes(i) ? 0 : 1);
      const source = (seed: number, heads: number, holes: Holes): TensorSource => {
        const data = numbers(seed, heads, clear(holes, heads));
        for (const row of rowsOf(holes)) data.fill(0, row * heads * WIDTH, (row + 1) * heads * WIDTH);
        return memoryTensor(data, heads, WIDTH, true);
      };
      const [q, k, v] = [source(1, HEADS, Q), source(2, KV_HEADS, K), source(3, KV_HEADS, V)];
      const wanted = await run(backend, attention, new Inputs(q, k, v, memoryTensor(weights, 1, 1, true)));
      for (const row of rowsOf(Q)) wanted.data.fill(0, row * HEADS * WIDTH, (row + 1) * HEADS * WIDTH);
      expect([...given.data]).toEqual([...wanted.data]);
      expect(given.report.input.gaps).toEqual({ policy: "skip", queryRows: 2, keyRows: 2 });
      expect(given.report.attention.masked).toBe(false);
      expect(given.report.warnings.some(({ code }) => code === "gaps")).toBe(true);
      const { error } = given.report;
      if (error) expect([error.rowsChecked, Number.isFinite(error.relativeL2.value)]).toEqual([ROWS - 2, true]);
    });

    test(`propagate, ${name}: NaN is where a NaN is seen, and nowhere else`, async () => {
      const given = await run(backend, attention, inputsOf({ q: Q, k: K, v: [] }, new Gaps("propagate")));
      const seen = (row: number, head: number) =>
        Q.some(([r, h]) => r === row && h === head) ||
        K.some(([r, h]) => h === Math.floor(head / 2) && (!attention.causal || row >= r));
      const wanted = Array.from({ length: ROWS * HEADS }, (_, cell) => cell)
        .filter((cell) => seen(Math.floor(cell / HEADS), cell % HEADS));
      expect(undefinedOnes(given.data)).toEqual(wanted);
      // What sees none is what it is without them: heads of one key head are fitted together, the other is not touched.
      const clean = await run(backend, attention, inputsOf({ q: [], k: [], v: [] }, null));
      // Heads 2 and 3 have key head 1, which holds none.
      for (let cell = 2; cell < ROWS * HEADS; cell += HEADS) {
        for (let c = cell * WIDTH; c < (cell + 1) * WIDTH; c++) expect(given.data[c]).toBe(clean.data[c]);
      }
    });
  }

  for (const policy of ["skip", "propagate"] as GapPolicy[]) {
    test(`${policy}: inputs without such rows come out as they do without a policy`, async () => {
      const tensors = { q: [], k: [], v: [] };
      const [given, plain] = [
        await run(backend, {}, inputsOf(tensors, new Gaps(policy))),
        await run(backend, {}, inputsOf(tensors, null)),
      ];
      for (let i = 0; i < plain.data.length; i++) expect(Math.abs(given.data[i] - plain.data[i])).toBeLessThan(1e-5);
      expect(given.report.input.gaps).toEqual({ policy, queryRows: 0, keyRows: 0 });
      expect(given.report.warnings.some(({ code }) => code === "gaps")).toBe(false);
    });
  }

  test("one tensor that plays all roles", async () => {
    const same: Holes = [[40, 2, NaN]];
    const skipped = await run(backend, { causal: true }, inputsOf({ q: [], k: [], v: [], same }, new Gaps("skip")));
    expect(skipped.data.every(Number.isFinite)).toBe(true);
    const zero = Array.from({ length: ROWS }, (_, i) => i)
      .filter((row) => skipped.data.subarray(row * 16, (row + 1) * 16).every((value) => value === 0));
    expect(zero).toEqual([40]);
    const spread = await run(backend, { causal: true }, inputsOf({ q: [], k: [], v: [], same }, new Gaps("propagate")));
    const wanted = Array.from({ length: ROWS - 40 }, (_, i) => (40 + i) * HEADS + 2);
    expect(undefinedOnes(spread.data)).toEqual(wanted);
  });

  test("propagate: a masked key is seen by nobody", async () => {
    const weights = Array.from({ length: ROWS }, (_, i) => i === 20 ? 0 : 1);
    const { data } = await run(backend, {}, inputsOf({ q: [], k: K, v: [], weights }, new Gaps("propagate")));
    expect(data.every(Number.isFinite)).toBe(true);
  });
});
