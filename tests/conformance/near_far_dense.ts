/** Near-and-far attention by its definition: every pair's weight, no moments, no blocks but those of the definition; and how far one may be off. */
import type { Backend, KeyRows } from "../../src/backend.ts";
import { BLOCK_ROWS, HERMITE_LIMIT, type NearFarPlan, nearRows, QUADRATIC_LIMIT } from "../../src/near_far.ts";
import type { Tile } from "../../src/tensor.ts";
import type { Reference } from "./dense.ts";
import { cuts, type Problem, rowsOf } from "./harness.ts";

export type NearFar = Partial<Pick<NearFarPlan, "window" | "heavy" | "far" | "exactRows">> & {
  readonly clusters?: number;
  readonly top?: number;
};

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a, (x, l) => x * b[l]).reduce((s, x) => s + x, 0);

/** Numbers of one head of a row. */
const cellOf = (tile: Tile, row: number, head: number, width: number) =>
  tile.data.subarray(row * tile.cols + head * width, row * tile.cols + (head + 1) * width);

/** A plan for the problem; centroids are its first keys, the centre is a fixed point. */
export function nearFarPlan(problem: Problem, settings: NearFar, tileRows: number): NearFarPlan {
  const { k, heads, kvHeads, headDim, valueDim, causal, scale } = problem;
  const { window = 0, heavy = 0, far = "none", exactRows = 0, clusters: count = 4, top = 0 } = settings;
  const centroids = Array.from({ length: kvHeads }, (_, head) => {
    return Array.from({ length: count }, (_, g) => Array.from(cellOf(k, (g * 7) % k.rows, head, headDim)));
  }).flat(2);
  return {
    heads,
    kvHeads,
    headDim,
    valueDim,
    causal,
    tileRows: Math.max(BLOCK_ROWS, Math.ceil(tileRows / BLOCK_ROWS) * BLOCK_ROWS),
    scale,
    window,
    heavy,
    far,
    exactRows,
    centre: Float64Array.from({ length: kvHeads * headDim }, (_, l) => 0.1 * (l % 3)),
    clusters: far === "clusters" ? { count, centroids: Float64Array.from(centroids), top } : null,
  };
}

/** The run loop: whole blocks of rows, with the rows near the queries beside them. */
export async function runNearFar(backend: Backend, problem: Problem, plan: NearFarPlan): Promise<Float64Array> {
  const { q, k, v, weights, causal, heads, valueDim } = problem;
  await using session = await backend.prepareNearFar!(plan);
  const out = new Float64Array(q.rows * heads * valueDim);
  const rows = (from: number, to: number): KeyRows => {
    return { k: rowsOf(k, from, to), v: rowsOf(v, from, to), weights: weights?.slice(from, to) };
  };
  const absorb = async (from: number, to: number) => {
    const own = rows(from, to);
    await session.absorb(own.k, own.v, own.weights);
  };
  if (!causal) { for (const cut of cuts(k.rows, plan.tileRows)) await absorb(...cut); }
  for (const [from, to] of cuts(q.rows, plan.tileRows)) {
    const near = nearRows(plan, from, to, k.rows);
    const some = causal || plan.window > 0 ? rows(Math.min(near.start, k.rows), near.end) : null;
    out.set((await session.emit(rowsOf(q, from, to), some)).data, from * heads * valueDim);
    if (causal) await absorb(from, to);
  }
  return out;
}

/** Rows of the heavy keys that row `i` has near, of the keys `seen` by the far state. */
function heavyRows(plan: NearFarPlan, keys: Float32Array[], omega: number[], head: number, seen: number): number[] {
  const { heavy, causal, headDim: d, centre } = plan;
  const scores = keys.slice(0, seen).map((key, j) => {
    let from: ArrayLike<number> = centre.subarray(head * d, (head + 1) * d);
    if (causal) {
      const before = keys.slice(0, j - j % BLOCK_ROWS);
      const weight = before.reduce((sum, _, b) => sum + omega[b], 0);
      from = Array.from({ length: d }, (_, l) => {
        return weight > 0 ? before.reduce((sum, other, b) => sum + omega[b] * other[l], 0) / weight : 0;
      });
    }
    return { j, score: Array.from(key).reduce((sum, x, l) => sum + (x - from[l]) ** 2, 0) };
  });
  return scores.filter(({ j }) => omega[j] > 0).sort((a, b) => b.score - a.score || a.j - b.j).slice(0, heavy)
    .map(({ j }) => j);
}

interface ClusterStatistics {
  readonly n: number;
  readonly mean: number[];
  readonly variance: number[];
}

/** Weighted mean and variance of each cluster's keys. */
function clusterStatistics(count: number, of: number[], keys: Float32Array[], omega: number[], seen: number) {
  return Array.from({ length: count }, (_, g): ClusterStatistics => {
    const mine = keys.slice(0, seen).map((_, j) => j).filter((j) => of[j] === g && omega[j] > 0);
    const n = mine.reduce((sum, j) => sum + omega[j], 0);
    const average = (f: (j: number, l: number) => number) =>
      Array.from(keys[0], (_, l) => mine.reduce((sum, j) => sum + omega[j] * f(j, l), 0) / n);
    const mean = average((j, l) => keys[j][l]);
    return { n, mean, variance: average((j, l) => (keys[j][l] - mean[l]) ** 2) };
  });
}

/** A function of the keys seen, evaluated once for each number of them. */
function perBlock<T>(of: (seen: number) => T): (seen: number) => T {
  const known = new Map<number, T>();
  return (seen) => {
    const value = known.has(seen) ? known.get(seen)! : of(seen);
    known.set(seen, value);
    return value;
  };
}

/** The definition of src/near_far.ts, pair by pair. */
export function denseNearFar(problem: Problem, plan: NearFarPlan): Reference {
  const { q, k, v, weights, heads, kvHeads, headDim, valueDim, causal, scale } = problem;
  const { window, far, exactRows, clusters } = plan;
  const out = new Float64Array(q.rows * heads * valueDim);
  const condition = new Float64Array(q.rows * heads).fill(1);
  const omega = Array.from({ length: k.rows }, (_, j) => weights?.[j] ?? 1);
  let exponent = 0;
  for (let head = 0; head < heads; head++) {
    const kv = Math.floor(head * kvHeads / heads);
    const keys = Array.from({ length: k.rows }, (_, j) => cellOf(k, j, kv, headDim) as Float32Array);
    const values = Array.from({ length: k.rows }, (_, j) => cellOf(v, j, kv, valueDim));
    const centroids = Array.from({ length: clusters?.count ?? 0 }, (_, g) => {
      return clusters!.centroids.subarray(
        (kv * clusters!.count + g) * headDim,
        (kv * clusters!.count + g + 1) * headDim,
      );
    });
    const clusterOf = keys.map((key) => {
      const distances = centroids.map((c) => Array.from(key).reduce((sum, x, l) => sum + (x - c[l]) ** 2, 0));
      return distances.indexOf(Math.min(...distances));
    });
    // What the rows of a block share.
    const heavyOf = perBlock((seen) => plan.heavy > 0 ? heavyRows(plan, keys, omega, kv, seen) : []);
    const statisticsOf = perBlock((seen) => clusterStatistics(clusters!.count, clusterOf, keys, omega, seen));
    for (let i = 0; i < q.rows; i++) {
      const x = Array.from(cellOf(q, i, head, headDim), (value) => scale * value);
      const visible = keys.map((_, j) => j).filter((j) => omega[j] > 0 && (!causal || j <= i));
      const block = causal ? i - i % BLOCK_ROWS : k.rows;
      if (visible.length === 0) continue;
      const near = new Set(visible.filter((j) => (causal ? i - j < window && j <= i : Math.abs(i - j) < window)));
      if (causal && i < exactRows) visible.forEach((j) => near.add(j));
      for (const j of heavyOf(block)) near.add(j);
      const logits = keys.map((key) => dot(x, key));
      const weight = visible.reduce((sum, j) => sum + omega[j], 0);
      const mean = visible.reduce((sum, j) => sum + omega[j] * logits[j], 0) / weight;
      const variance = visible.reduce((sum, j) => sum + omega[j] * (logits[j] - mean) ** 2, 0) / weight;
      const reach = Math.max(...visible.map((j) => Math.sqrt(dot(x, x)) * Math.sqrt(dot(keys[j], keys[j]))));
      exponent = Math.max(exponent, 2 * reach);
      // ln K̂ where it is an exponential, K̂ itself where it is a polynomial of t.
      let estimate: (j: number) => number | null = () => 0;
      let shift = 0, size = 0;
      const logs: number[] = [];
      if (far === "clusters") {
        const statistics = statisticsOf(block);
        statistics.forEach(({ n, mean: centre, variance: spread }, g) => {
          const quadratic = spread.reduce((sum, s, l) => sum + 0.5 * x[l] * x[l] * s, 0);
          logs[g] = n > 0 ? dot(x, centre) + Math.min(quadratic, QUADRATIC_LIMIT) : -Infinity;
        });
        const order = logs.map((log, g) => ({ g, mass: log + Math.log(statistics[g].n) }))
          .filter(({ mass }) => mass > -Infinity).sort((a, b) => b.mass - a.mass || a.g - b.g);
        const chosen = order.slice(0, clusters!.top).map(({ g }) => g);
        for (const j of visible) if (j < block && chosen.includes(clusterOf[j])) near.add(j);
        for (const j of visible) if (j >= block) near.add(j);
        estimate = (j) => j >= block ? 0 : null;
      } else if (far !== "none") {
        shift = mean;
        const second = far === "taylor1" ? 0 : 0.5;
        const constant = far === "hermite2" && variance <= HERMITE_LIMIT ? 1 - variance / 2 : 1;
        estimate = (j) => constant + (logits[j] - mean) + second * (logits[j] - mean) ** 2;
        for (const j of visible) {
          const [t, s] = [Math.abs(logits[j]), Math.abs(mean)];
          size += omega[j] * (1 + variance / 2 + t + s + second * (t + s) ** 2);
        }
      }
      const exact = causal && i < exactRows;
      const kernel = (j: number) => exact ? 0 : estimate(j) ?? Math.exp(logs[clusterOf[j]]);
      let total = 0;
      const at = (i * heads + head) * valueDim;
      for (const j of visible) {
        const factor = near.has(j) ? Math.exp(logits[j] - shift) : kernel(j);
        total += omega[j] * factor;
        size += omega[j] * (Math.abs(factor) + (exact ? 0 : Math.abs(kernel(j))));
        for (let c = 0; c < valueDim; c++) out[at + c] += omega[j] * factor * values[j][c];
      }
      if (total === 0) continue;
      for (let c = 0; c < valueDim; c++) out[at + c] /= total;
      condition[i * heads + head] = Math.max(1, size / Math.abs(total));
    }
  }
  const reach = Array.from(v.data).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return { out, condition, reach, rounding: { exponent, terms: k.rows + headDim * headDim } };
}
