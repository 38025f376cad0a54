/** Near-and-far attention beside the kernels: what it costs, which rows are held near, where centroids come from. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import { findCentroids } from "../../src/centroids.ts";
import { Inputs } from "../../src/inputs.ts";
import { BLOCK_ROWS, FAR_FIELDS, type NearFarPlan, nearRows } from "../../src/near_far.ts";
import { nearFarFlops, windowPairs } from "../../src/near_far_flops.ts";
import { clustersFor, exactRowsOf } from "../../src/near_far_sizes.ts";
import { type FrameMemory, frameRows, NearReader, type Reach, reachOf } from "../../src/near_rows.ts";
import { RandomStream } from "../../src/random.ts";
import type { FloatArray, TensorSource, Tile } from "../../src/tensor.ts";
import { memoryTensor } from "./memory_tensor.ts";

const SETTINGS = { seed: 20200930 };

/** Pairs (i, j) that hold. */
function pairsWhere(queryRows: number, keyRows: number, holds: (i: number, j: number) => boolean): number {
  let pairs = 0;
  for (let i = 0; i < queryRows; i++) for (let j = 0; j < keyRows; j++) if (holds(i, j)) pairs++;
  return pairs;
}

const rowCounts = fc.integer({ min: 0, max: 40 });

test("pairs of a window are those counted one by one", () => {
  fc.assert(
    fc.property(rowCounts, rowCounts, fc.integer({ min: 0, max: 50 }), (queryRows, keyRows, window) => {
      const both = pairsWhere(queryRows, keyRows, (i, j) => Math.abs(i - j) < window);
      expect(windowPairs(window, false, queryRows, keyRows)).toBe(both);
      const causal = pairsWhere(keyRows, keyRows, (i, j) => i - j >= 0 && i - j < window);
      expect(windowPairs(window, true, keyRows, keyRows)).toBe(causal);
    }),
    SETTINGS,
  );
});

test("arithmetic: what near pairs cost comes on top of the far field, and is counted pair by pair", () => {
  const shapes = fc.record({
    keyRows: fc.integer({ min: 1, max: 150 }),
    window: fc.integer({ min: 0, max: 60 }),
    exactRows: fc.integer({ min: 0, max: 150 }),
    causal: fc.boolean(),
    far: fc.constantFrom(...FAR_FIELDS),
    headDim: fc.integer({ min: 1, max: 9 }),
    valueDim: fc.integer({ min: 1, max: 9 }),
  });
  fc.assert(
    fc.property(shapes, ({ keyRows, window, exactRows, causal, far, headDim, valueDim }) => {
      const sizes = { queryRows: keyRows, keyRows, heads: 4, kvHeads: 2, headDim, valueDim };
      const clusters = far === "clusters" ? 5 : 0;
      const none = { window: 0, heavy: 0, far, clusters, top: 0, causal: false };
      const exact = exactRowsOf({ far, clusters, exactRows }, keyRows, causal);
      const pairs = pairsWhere(keyRows, keyRows, (i, j) => {
        return causal ? j <= i && (i < exact || i - j < window) : Math.abs(i - j) < window;
      });
      const cost = nearFarFlops({ ...none, window, exactRows, causal }, sizes) - nearFarFlops(none, sizes);
      expect(cost).toBe(4 * pairs * (2 * (headDim + valueDim) + 2));
    }),
    SETTINGS,
  );
});

test("arithmetic by hand: one head, d = 3, d_v = 2, 10 rows", () => {
  const sizes = { queryRows: 10, keyRows: 10, heads: 1, kvHeads: 1, headDim: 3, valueDim: 2 };
  const work = { window: 0, heavy: 0, clusters: 0, top: 0, causal: false } as const;
  expect(nearFarFlops({ ...work, far: "none" }, sizes)).toBe(0);
  // x·Σ(y − c)vᵀ and x·Σ(y − c): 2·3·(2 + 1) per query, as much per key.
  expect(nearFarFlops({ ...work, far: "taylor1" }, sizes)).toBe(10 * 18 + 10 * 18);
  // 6 products of coordinates, each with 3 sums.
  expect(nearFarFlops({ ...work, far: "hermite2" }, sizes)).toBe(20 * (18 + 6 + 2 * 6 * 3));
  // 4 heavy keys: 12 operations for each of 40 pairs, scores of 3·3 for each key.
  expect(nearFarFlops({ ...work, far: "none", heavy: 4 }, sizes)).toBe(40 * 12 + 10 * 9);
  // 2 clusters, one of them near: half of all pairs.
  const clusters = 10 * (4 * 3 * 2 + 2 * 2 * 3) + 10 * (2 * 3 * 2 + 4 * 3 + 2);
  expect(nearFarFlops({ ...work, far: "clusters", clusters: 2, top: 1 }, sizes)).toBe(clusters + 50 * 12);
  // More of anything than there are keys is all keys.
  const all = nearFarFlops({ ...work, far: "none", heavy: 10 }, sizes);
  expect(nearFarFlops({ ...work, far: "none", heavy: 99 }, sizes)).toBe(all);
  const ten = nearFarFlops({ ...work, far: "clusters", clusters: 10 }, sizes);
  expect(nearFarFlops({ ...work, far: "clusters", clusters: 999 }, sizes)).toBe(ten);
});

test("causal centroids make whole blocks of their prefix exact, never more rows than there are", () => {
  const clusters = { far: "clusters", clusters: 33 } as const;
  expect(exactRowsOf(clusters, 1000, true)).toBe(Math.ceil(33 * 4 / BLOCK_ROWS) * BLOCK_ROWS);
  expect(exactRowsOf({ ...clusters, exactRows: 500 }, 1000, true)).toBe(500);
  expect(exactRowsOf(clusters, 100, true)).toBe(100);
  expect(exactRowsOf(clusters, 1000, false)).toBe(0);
  expect(exactRowsOf({ far: "taylor1", clusters: 0, exactRows: 70 }, 1000, true)).toBe(70);
  expect(exactRowsOf({ far: "taylor1", clusters: 0 }, 1000, true)).toBe(0);
  expect([clustersFor(8, 3), clustersFor(8, 0), clustersFor(8, 100)]).toEqual([3, 1, 8]);
});

/** Rows `start … end − 1` of a matrix. */
const slice = (data: ArrayLike<number>, cols: number, start: number, end: number) =>
  Array.from(data).slice(start * cols, Math.max(start, end) * cols);

/** Frames as a run has them, filled with NaN. */
function framesFor(tileRows: number, reach: Reach): FrameMemory {
  const made = new Map<TensorSource, FloatArray[]>();
  return {
    frames(source) {
      const { rows, heads, width } = source.info;
      const length = frameRows(Math.min(tileRows, rows), reach) * heads * width;
      const own = made.get(source) ?? Array.from({ length: 3 }, () => new Float64Array(length).fill(NaN));
      made.set(source, own);
      return own;
    },
  };
}

const nearPlan = (tileRows: number, near: { window: number; exactRows: number; causal: boolean }): NearFarPlan => ({
  ...near,
  ...{ tileRows, heads: 2, kvHeads: 2, headDim: 2, valueDim: 3, scale: 1, heavy: 0, far: "none" },
  ...{ centre: new Float64Array(4), clusters: null, decay: null },
});

/** Causal: the queries of tiles whose keys and values are theirs. */
async function* inStep(reader: NearReader): AsyncGenerator<Tile> {
  for (let tiles = await reader.next(); tiles; tiles = await reader.next()) {
    expect([tiles.k.start, tiles.k.rows, tiles.v.rows]).toEqual([tiles.q!.start, tiles.q!.rows, tiles.q!.rows]);
    yield tiles.q!;
  }
}

test("rows near each tile are those of the definition, whatever the sizes, and every row is read once", async () => {
  const cases = fc.record({
    rows: fc.integer({ min: 1, max: 60 }),
    queries: fc.integer({ min: 1, max: 80 }),
    tileRows: fc.integer({ min: 1, max: 23 }),
    window: fc.integer({ min: 0, max: 70 }),
    exactRows: fc.nat(50),
    causal: fc.boolean(),
    weighted: fc.boolean(),
    same: fc.boolean(),
    lends: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ rows, queries, tileRows, window, exactRows, causal, weighted, same, lends }) => {
      const numbers = (cols: number) => Float64Array.from({ length: rows * cols }, (_, i) => i + cols / 10);
      const [k, v, w] = [numbers(4), same ? numbers(4) : numbers(6), numbers(1)];
      const keys = memoryTensor(k, 2, 2, lends), weights = memoryTensor(w, 1, 1, lends);
      const values = same ? keys : memoryTensor(v, 2, 3, lends);
      const asked = causal || same ? rows : queries;
      const q = Float64Array.from({ length: asked * 4 }, (_, i) => -i);
      const inputs = new Inputs(same ? keys : memoryTensor(q, 2, 2), keys, values, weighted ? weights : null);
      const plan = nearPlan(tileRows, { window, exactRows: causal ? exactRows : 0, causal });
      const reach = reachOf(plan);
      expect(reach === null).toBe(window === 0 && !causal);
      if (!reach) return;
      const others = { for: () => undefined };
      const memory = framesFor(tileRows, reach);
      await using reader = new NearReader(inputs, plan, reach, "f64", memory, causal ? others : null);
      const passing = causal ? inStep(reader) : reader.queries(others);
      let start = 0;
      for await (const tile of passing) {
        const end = Math.min(start + tileRows, asked);
        expect([tile.start, tile.rows]).toEqual([start, end - start]);
        expect(Array.from(tile.data)).toEqual(slice(same ? k : q, 4, start, end));
        const near = reader.near(start, end);
        const wanted = nearRows(plan, start, end, rows);
        expect([near.k.rows, near.v.rows]).toEqual(Array(2).fill(Math.max(0, wanted.end - wanted.start)));
        if (near.k.rows > 0) expect(near.k.start).toBe(wanted.start);
        expect(Array.from(near.k.data)).toEqual(slice(k, 4, wanted.start, wanted.end));
        expect(Array.from(near.v.data)).toEqual(slice(v, same ? 4 : 6, wanted.start, wanted.end));
        expect(near.k.data === near.v.data).toBe(same);
        if (weighted) expect(Array.from(near.weights!)).toEqual(slice(w, 1, wanted.start, wanted.end));
        else expect(near.weights).toBeUndefined();
        start = end;
      }
      expect(start).toBe(asked);
      const tiles = Math.ceil(asked / tileRows);
      const most = Math.min(rows, tiles * tileRows + reach.ahead);
      expect(Array.from(keys.reads)).toEqual(Array.from({ length: rows }, (_, i) => i < most ? 1 : 0));
    }),
    SETTINGS,
  );
});

const scalar = async () => (await openFirst(parseBackendList("scalar"))).backend;

test("centroids of clear clusters are the means of their keys, whatever the other head holds", async () => {
  await using backend = await scalar();
  const random = new RandomStream(5);
  const d = 3, rows = 240, groups = 4, noise = 0.05;
  const data = Float64Array.from({ length: rows * 2 * d }, (_, at) => {
    const row = Math.floor(at / (2 * d)), head = Math.floor(at / d) % 2, l = at % d;
    return (head === 0 ? 10 * ((row + l) % groups) : l) + noise * random.normal();
  });
  const keys = { start: 0, rows, cols: 2 * d, data };
  // Four times as many centroids as clusters: a start at random leaves none out.
  const found = await findCentroids(backend, keys, undefined, { heads: 2, count: 16, seed: 1 });
  for (let row = 0; row < rows; row++) {
    const key = data.subarray(row * 2 * d, row * 2 * d + d);
    const distances = Array.from({ length: 16 }, (_, g) => key.reduce((s, x, l) => s + (x - found[g * d + l]) ** 2, 0));
    expect(Math.min(...distances)).toBeLessThan(25 * d * noise ** 2); // 5 standard deviations; clusters are 10 apart
  }
  for (let i = 0; i < 16 * d; i++) expect(Math.abs(found[16 * d + i] - i % d)).toBeLessThan(5 * noise);
  expect(await findCentroids(backend, keys, undefined, { heads: 2, count: 16, seed: 1 })).toEqual(found);
});

test("one cluster is the weighted mean; keys of no weight count nothing; few keys are their own centroids", async () => {
  await using backend = await scalar();
  const keys: Tile = { start: 0, rows: 3, cols: 2, data: Float64Array.of(0, 4, 1e30, -1e30, 8, 0) };
  const one = { heads: 1, count: 1, seed: 0 };
  expect(Array.from(await findCentroids(backend, keys, Float64Array.of(3, 0, 1), one))).toEqual([2, 3]);
  const own = await findCentroids(backend, keys, Float64Array.of(3, 0, 1), { ...one, count: 5 });
  const rows = new Set(Array.from({ length: 5 }, (_, g) => `${own[2 * g]},${own[2 * g + 1]}`));
  expect([...rows].sort()).toEqual(["0,4", "8,0"]);
  const none = await findCentroids(backend, keys, new Float64Array(3), { ...one, count: 2 });
  expect(Array.from(none)).toEqual([0, 0, 0, 0]);
});
