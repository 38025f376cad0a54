/** k-means (Lloyd) on a sample of keys, per key head: the fixed centroids of a clustered far field. */
import type { Backend } from "./backend.ts";
import { breather } from "./in_flight.ts";
import { RandomStream } from "./random.ts";
import { type FloatArray, floats, type Tile } from "./tensor.ts";

/** Rounds of Lloyd's algorithm: the error of the far field changes by less than 2 % after them. */
const ROUNDS = 8;

/**
 * `heads × count × d` centroids of the sample's keys. Assignments are dense layers of the backend, argmax of k·c − ‖c‖²/2.
 * A cluster that loses all its keys starts again at a key drawn at random. Deterministic from `seed`.
 * @param weights one ω ≥ 0 per row; rows with 0 are left out
 */
export async function findCentroids(
  backend: Backend,
  keys: Tile,
  weights: FloatArray | undefined,
  options: { readonly heads: number; readonly count: number; readonly seed: number; readonly signal?: AbortSignal },
): Promise<Float64Array> {
  const { heads, count, seed, signal } = options;
  const breathe = breather(signal);
  const d = keys.cols / heads;
  const found = new Float64Array(heads * count * d);
  const seen = Array.from({ length: keys.rows }, (_, i) => i).filter((i) => !weights || weights[i] > 0);
  for (let head = 0; head < heads; head++) {
    const rows = floats(backend.limits.precision, seen.length * d);
    seen.forEach((row, i) => {
      const at = row * keys.cols + head * d;
      rows.set(keys.data.subarray(at, at + d), i * d);
    });
    const omega = seen.map((row) => weights?.[row] ?? 1);
    const random = new RandomStream(seed, 0xc1057e2 + head);
    found.set(await lloyd(backend, rows, omega, d, count, random, breathe), head * count * d);
  }
  return found;
}

async function lloyd(
  backend: Backend,
  rows: FloatArray,
  weights: readonly number[],
  d: number,
  count: number,
  random: RandomStream,
  breathe: () => Promise<void> | void,
): Promise<Float64Array> {
  const n = weights.length;
  const centroids = new Float64Array(count * d);
  if (n === 0) return centroids;
  const put = (g: number, row: number) => centroids.set(rows.subarray(row * d, (row + 1) * d), g * d);
  const order = Array.from({ length: n }, (_, i) => i);
  for (let g = 0; g < Math.min(count, n); g++) {
    const other = g + random.below(n - g);
    [order[g], order[other]] = [order[other], order[g]];
  }
  for (let g = 0; g < count; g++) put(g, order[g % n]);
  const sums = new Float64Array(count * d);
  const totals = new Float64Array(count);
  for (let round = 0; round < ROUNDS; round++) {
    const nearest = await assign(backend, rows, n, d, centroids, count, breathe);
    sums.fill(0);
    totals.fill(0);
    for (let i = 0; i < n; i++) {
      const g = nearest[i];
      totals[g] += weights[i];
      for (let l = 0; l < d; l++) sums[g * d + l] += weights[i] * rows[i * d + l];
    }
    for (let g = 0; g < count; g++) {
      if (totals[g] === 0) put(g, random.below(n));
      else for (let l = 0; l < d; l++) centroids[g * d + l] = sums[g * d + l] / totals[g];
    }
  }
  return centroids;
}

/** The nearest centroid of each row. */
async function assign(
  backend: Backend,
  rows: FloatArray,
  n: number,
  d: number,
  centroids: Float64Array,
  count: number,
  breathe: () => Promise<void> | void,
): Promise<Int32Array> {
  const bias = floats(backend.limits.precision, count);
  for (let g = 0; g < count; g++) {
    for (let l = 0; l < d; l++) bias[g] -= 0.5 * centroids[g * d + l] ** 2;
  }
  const weight = floats(backend.limits.precision, count * d);
  weight.set(centroids);
  const tileRows = 1024;
  const plan = { inputs: d, outputs: count, weight, bias, activation: "none", tileRows } as const;
  await using layer = await backend.prepareLinear(plan);
  const nearest = new Int32Array(n);
  for (let start = 0; start < n; start += tileRows) {
    const size = Math.min(tileRows, n - start);
    const { data } = await layer.run({
      start,
      rows: size,
      cols: d,
      data: rows.subarray(start * d, (start + size) * d),
    });
    for (let i = 0; i < size; i++) {
      let best = 0;
      for (let g = 1; g < count; g++) if (data[i * count + g] > data[i * count + best]) best = g;
      nearest[start + i] = best;
    }
    await breathe();
  }
  return nearest;
}
