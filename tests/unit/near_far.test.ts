/** Near-and-far attention beside the kernels: what it costs, which rows are held near, where centroids come from. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import { findCentroids } from "../../src/centroids.ts";
import { Inputs } from "../../src/inputs.ts";
import { BLOCK_ROWS, FAR_FIELDS, nearRows } from "../../src/near_far.ts";
import { nearFarFlops, windowPairs } from "../../src/near_far_flops.ts";
import { sampleFor } from "../../src/fit_near_far.ts";
import { clustersFor, exactRowsOf } from "../../src/near_far_sizes.ts";
import { NearReader, NearRows } from "../../src/near_rows.ts";
import { RandomStream } from "../../src/random.ts";
import type { FloatArray, Tile } from "../../src/tensor.ts";
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

test("the prefix of causal centroids grows with the length: an eighth of the clusters' arithmetic, up to 8192 rows or 16 per cluster", () => {
  const rowsFor = (clusters: number, keyRows: number) => exactRowsOf({ far: "clusters", clusters }, keyRows, true);
  const blocks = (rows: number) => Math.ceil(rows / BLOCK_ROWS) * BLOCK_ROWS;
  expect(rowsFor(64, 1000)).toBe(256); // 4 rows for each centroid
  expect(rowsFor(64, 1e5)).toBe(blocks(Math.sqrt(64 * 1e5 / 2)));
  expect(rowsFor(256, 1e6)).toBe(8192);
  expect(rowsFor(1024, 1e6)).toBe(16 * 1024);
  const work = { window: 0, heavy: 0, far: "none", clusters: 0, top: 0, causal: true } as const;
  const sizes = { queryRows: 1e6, keyRows: 1e6, heads: 1, kvHeads: 1, headDim: 64, valueDim: 64 };
  const prefix = nearFarFlops({ ...work, exactRows: rowsFor(64, 1e6) }, sizes);
  const clusters = nearFarFlops({ ...work, far: "clusters", clusters: 64, causal: false }, sizes);
  // Blocks and the correction of near pairs add less than a tenth to the eighth.
  expect(prefix / clusters).toBeGreaterThan(1 / 8 * 0.9);
  expect(prefix / clusters).toBeLessThan(1 / 8 * 1.1);
});

/** Rows `start … end − 1` of a matrix. */
const slice = (data: ArrayLike<number>, cols: number, start: number, end: number) =>
  Array.from(data).slice(start * cols, Math.max(start, end) * cols);

const fresh = { next: (_: "k" | "v", length: number): FloatArray => new Float64Array(length) };

test("rows held near are the slices asked for, whatever the tiles, and every row is read once", async () => {
  const cases = fc.record({
    rows: fc.integer({ min: 1, max: 60 }),
    tileRows: fc.integer({ min: 1, max: 23 }),
    steps: fc.array(fc.tuple(fc.nat(12), fc.nat(20)), { minLength: 1, maxLength: 12 }),
    weighted: fc.boolean(),
    same: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ rows, tileRows, steps, weighted, same }) => {
      const numbers = (cols: number) => Float64Array.from({ length: rows * cols }, (_, i) => i + cols / 10);
      const [k, v, w] = [numbers(4), same ? numbers(4) : numbers(6), numbers(1)];
      const keys = memoryTensor(k, 2, 2), weights = memoryTensor(w, 1, 1);
      const values = same ? keys : memoryTensor(v, 2, 3);
      const inputs = new Inputs(keys, keys, values, weighted ? weights : null);
      await using reader = new NearReader(inputs, tileRows, "f64", fresh);
      let start = 0, end = 0;
      for (const [forward, length] of steps) {
        start = Math.min(rows, start + forward);
        end = Math.min(rows, Math.max(end, start + length));
        const near = await reader.rows(start, end);
        expect([near.k.start, near.k.rows, near.v.rows]).toEqual([start, end - start, end - start]);
        expect(Array.from(near.k.data)).toEqual(slice(k, 4, start, end));
        expect(Array.from(near.v.data)).toEqual(slice(v, same ? 4 : 6, start, end));
        expect(near.k.data === near.v.data).toBe(same);
        if (weighted) expect(Array.from(near.weights!)).toEqual(slice(w, 1, start, end));
        else expect(near.weights).toBeUndefined();
      }
      // No further than the last tile that was needed.
      const most = Math.min(rows, Math.ceil(end / tileRows) * tileRows);
      expect(Array.from(keys.reads)).toEqual(Array.from({ length: rows }, (_, i) => i < most ? 1 : 0));
    }),
    SETTINGS,
  );
});

test("queries beyond the last key have no key near", async () => {
  const keys = memoryTensor(new Float64Array(20), 1, 2);
  await using reader = new NearReader(new Inputs(keys, keys, keys, null), 4, "f64", fresh);
  const { start, end } = nearRows({ window: 3, exactRows: 0, causal: false }, 30, 40, 10);
  expect((await reader.rows(start, end)).k.rows).toBe(0);
});

test("rows that have passed keep what they held when tiles come in sizes of their own", () => {
  const held = new NearRows(fresh);
  const sizes = [3, 1, 7, 2, 5];
  let at = 0;
  for (const rows of sizes) {
    const tile: Tile = {
      start: at,
      rows,
      cols: 2,
      data: Float64Array.from({ length: rows * 2 }, (_, i) => at * 2 + i),
    };
    held.push({ k: tile, v: tile });
    tile.data.fill(NaN); // tiles are lent
    at += rows;
    const from = Math.max(0, at - 6);
    expect(Array.from(held.take(from, at).k.data)).toEqual(
      Array.from({ length: (at - from) * 2 }, (_, i) => from * 2 + i),
    );
  }
  expect(held.end).toBe(at);
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

test("centroids are fitted to a share of a long input, within a bound of memory", () => {
  expect(sampleFor(64, 1000, 64)).toBe(1000);
  expect(sampleFor(64, 30_000, 64)).toBe(4096);
  expect(sampleFor(1024, 30_000, 64)).toBe(16 * 1024);
  expect(sampleFor(64, 320_000, 64)).toBe(20_000);
  expect(sampleFor(64, 1e9, 64)).toBe(65_536);
  expect(sampleFor(64, 1e9, 32 * 128)).toBe(2 ** 25 / (32 * 128));
  expect(sampleFor(0, 1e9, 64)).toBe(4096); // the mean key alone
});
