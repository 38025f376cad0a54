/**
 * Moments of the far field over rows of keys (src/near_far.ts; far_plan.ts tells where they stand), and the nearest centroid of a key.
 * Keys lie transposed in blocks of 64, as in all passes: Σωy'vᵀ is a product, and so are the distances to all centroids.
 */
import * as far from "./far_plan";
import { BLOCK, LINE, packTransposed, packValues } from "./pack";
import * as plan from "./plan";
import { Add, madd, product, Rows, Set } from "./product";
import { ACCUMULATE, begin, FEATURES, mark, PACK } from "./profile";
import { lines } from "./state";
import { sumOf } from "./exponential";

/** All moments zero; Taylor: about `reference` (padded d numbers), which is copied. */
export function clearFar(p: usize, state: usize, reference: usize): void {
  memory.fill(state, 0, far.farBytes(p));
  if (far.kind(p) != far.CLUSTERS && far.kind(p) != far.NO_FAR) memory.copy(state, reference, far.rowBytes(p));
}

/** Bytes of scratch memory for `farSums`, and for `assignRows`. */
export function farScratch(p: usize): usize {
  const d = plan.headDim(p);
  const sums = lines(2 * d + 5) + <usize> BLOCK * plan.valueLine(p);
  return max(sums, lines(d + 2 + BLOCK));
}

/** Weights of a block as 64 numbers: ω, 1 where there are none, 0 from row n on. `weights`: of the block's first row, or 0. */
export function packWeights(weights: usize, n: i32, out: usize): void {
  memory.fill(out, 0, LINE);
  for (let j = 0; j < n; j++) {
    const at = <usize> j << 2;
    store<f32>(out + at, weights ? load<f32>(weights + at) : 1);
  }
}

/** Clears keys (d lines) and values (64 lines) of weight 0, whatever they hold. */
export function clearWeightless(x: usize, d: i32, values: usize, line: usize, omega: usize, n: i32): void {
  for (let j = 0; j < n; j++) {
    if (load<f32>(omega + (<usize> j << 2)) > 0) continue;
    memory.fill(values + <usize> j * line, 0, line);
    for (let l = 0; l < d; l++) store<f32>(x + lines(l) + (<usize> j << 2), 0);
  }
}

/** Adds rows `from … to − 1` of one key head to moments. `weights`: one ω per row, or 0; `ids`: clusters of the tile's rows. */
export function farSums(
  p: usize,
  head: i32,
  k: usize,
  v: usize,
  weights: usize,
  ids: usize,
  from: i32,
  to: i32,
  state: usize,
  scratch: usize,
): void {
  begin();
  k += <usize> (head * plan.headDim(p)) << 2;
  v += <usize> (head * plan.valueDim(p)) << 2;
  for (let row = from; row < to; row += BLOCK) {
    const keys = k + <usize> row * plan.keyStep(p), values = v + <usize> row * plan.valueStep(p);
    const at = <usize> row << 2;
    addKeys(p, head, keys, values, weights ? weights + at : 0, ids + at, min(BLOCK, to - row), state, scratch);
  }
}

/** Adds up to 64 rows; all addresses are those of the first. `ids`: with clusters, that of each row. */
export function addKeys(
  p: usize,
  head: i32,
  keys: usize,
  rows: usize,
  weights: usize,
  ids: usize,
  n: i32,
  state: usize,
  scratch: usize,
): void {
  if (far.kind(p) == far.NO_FAR) return;
  const d = plan.headDim(p), line = plan.valueLine(p);
  const x = scratch, products = x + lines(d + 2), omega = products + lines(d + 2), values = omega + LINE;
  const clustered = far.kind(p) == far.CLUSTERS;
  if (!clustered) packTransposed(keys, plan.keyStep(p), n, d, x);
  packValues(rows, plan.valueStep(p), n, plan.valueDim(p), plan.paddedValueDim(p), values);
  packWeights(weights, n, omega);
  if (weights) {
    clearWeightless(x, clustered ? 0 : d, values, line, omega, n);
    for (let j = 0; j < n; j++) scaleLine(values + <usize> j * line, line, load<f32>(omega + (<usize> j << 2)));
  }
  mark(PACK);
  if (clustered) {
    for (let j = 0; j < n; j++) {
      const at = <usize> j << 2;
      const weight = load<f32>(omega + at), row = values + <usize> j * line;
      if (weight > 0) addToCluster(p, head, load<i32>(ids + at), keys, row, weight, state);
      keys += plan.keyStep(p);
    }
    mark(ACCUMULATE);
    return;
  }
  const reference = state, first = far.first(p, state);
  for (let l = 0; l < d; l++) {
    const center = f32x4.splat(load<f32>(reference + (<usize> l << 2)));
    for (let at = x + lines(l), end = at + LINE; at < end; at += 16) v128.store(at, f32x4.sub(v128.load(at), center));
    const sum = first + (<usize> l << 2);
    store<f32>(sum, load<f32>(sum) + weighted(x + lines(l), omega));
  }
  const count = far.count(p, state);
  let total = f32x4.splat(0);
  for (let i: usize = 0; i < LINE; i += 16) total = f32x4.add(total, v128.load(omega + i));
  store<f32>(count, load<f32>(count) + sumOf(total));
  for (let j = 0; j < n; j++) addLine(far.values(p, state), values + <usize> j * line, line);
  const padded = plan.paddedValueDim(p);
  memory.fill(x + lines(d), 0, LINE); // products take an even number of rows
  product<Rows, Add>(x, 4, values, line, far.firstValues(p, state), line, (d + 1) & ~1, padded, n);
  mark(ACCUMULATE);
  if (!far.ofOrder2(p)) return;
  let pair = 0;
  for (let a = 0; a < d; a++) {
    const some = d - a;
    for (let b = 0; b < some; b++) {
      multiply(x + lines(a), x + lines(a + b), products + lines(b));
      const sum = far.second(p, state) + (<usize> (pair + b) << 2);
      store<f32>(sum, load<f32>(sum) + weighted(products + lines(b), omega));
    }
    memory.fill(products + lines(some), 0, LINE);
    const to = far.secondValues(p, state) + <usize> pair * line;
    product<Rows, Add>(products, 4, values, line, to, line, (some + 1) & ~1, padded, n);
    pair += some;
  }
  mark(ACCUMULATE);
}

/** Σ_j ω_j x_j of a line. */
function weighted(x: usize, omega: usize): f32 {
  let sum = f32x4.splat(0);
  for (let i: usize = 0; i < LINE; i += 16) sum = f32x4.add(sum, f32x4.mul(v128.load(x + i), v128.load(omega + i)));
  return sumOf(sum);
}

/** out = a · b, lines. */
export function multiply(a: usize, b: usize, out: usize): void {
  for (let i: usize = 0; i < LINE; i += 16) v128.store(out + i, f32x4.mul(v128.load(a + i), v128.load(b + i)));
}

export function scaleLine(at: usize, bytes: usize, factor: f32): void {
  const f = f32x4.splat(factor);
  for (const end = at + bytes; at < end; at += 16) v128.store(at, f32x4.mul(v128.load(at), f));
}

export function addLine(to: usize, from: usize, bytes: usize): void {
  for (const end = from + bytes; from < end; from += 16, to += 16) {
    v128.store(to, f32x4.add(v128.load(to), v128.load(from)));
  }
}

/** A key joins cluster g: `x` is its row of the tile, `row` holds ω v. */
function addToCluster(p: usize, head: i32, g: i32, x: usize, row: usize, weight: f32, state: usize): void {
  const line = plan.valueLine(p);
  const at = <usize> g * far.rowBytes(p);
  const centroid = far.centroids(p, head) + at;
  const first = far.clusterFirst(p, state) + at, second = far.clusterSecond(p, state) + at;
  const n = state + (<usize> g << 2);
  store<f32>(n, load<f32>(n) + weight);
  const bytes = <usize> plan.headDim(p) << 2, whole = bytes & ~15;
  const omega = f32x4.splat(weight);
  let o: usize = 0;
  for (; o < whole; o += 16) {
    const y = f32x4.sub(v128.load(x + o), v128.load(centroid + o));
    const wy = f32x4.mul(omega, y);
    v128.store(first + o, f32x4.add(v128.load(first + o), wy));
    v128.store(second + o, madd(v128.load(second + o), wy, y));
  }
  for (; o < bytes; o += 4) {
    const y = load<f32>(x + o) - load<f32>(centroid + o);
    store<f32>(first + o, load<f32>(first + o) + weight * y);
    store<f32>(second + o, load<f32>(second + o) + weight * y * y);
  }
  addLine(far.clusterValues(p, state) + <usize> g * line, row, line);
}

/** One line for each of `some` clusters from `g` on: its row of a table times 64 keys or queries (d lines `x`). */
export function tableProduct(p: usize, table: usize, g: i32, some: i32, x: usize, out: usize): void {
  const d = plan.headDim(p), all = far.paddedClusters(p), M = (some + 1) & ~1;
  product<Rows, Set>(table + lines(g), 4, x, LINE, out, LINE, M, BLOCK, min(d, BLOCK));
  for (let l = BLOCK; l < d; l += BLOCK) {
    const part = table + lines(l / BLOCK * all + g);
    product<Rows, Add>(part, 4, x + lines(l), LINE, out, LINE, M, BLOCK, min(d - l, BLOCK));
  }
}

/** The nearest centroid of 64 keys (d lines `x`): argmax of k·c − ‖c‖²/2, the first of equals. `scores`: 65 lines of scratch. */
export function assign(p: usize, head: i32, x: usize, ids: usize, scores: usize): void {
  const count = far.clusters(p), halves = far.halfNorms(p, head), tops = scores + lines(BLOCK);
  memory.fill(ids, 0, LINE);
  for (let i: usize = 0; i < LINE; i += 16) v128.store(tops + i, f32x4.splat(-f32.MAX_VALUE));
  for (let first = 0; first < count; first += BLOCK) {
    const some = min(BLOCK, count - first);
    tableProduct(p, far.centroidTable(p, head), first, some, x, scores);
    for (let i: usize = 0; i < LINE; i += 16) {
      let best = v128.load(tops + i), chosen = v128.load(ids + i);
      for (let g = 0; g < some; g++) {
        const score = f32x4.sub(v128.load(scores + lines(g) + i), v128.load32_splat(halves + (<usize> (first + g) << 2)));
        const better = f32x4.gt(score, best);
        best = v128.bitselect(score, best, better);
        chosen = v128.bitselect(i32x4.splat(first + g), chosen, better);
      }
      v128.store(tops + i, best);
      v128.store(ids + i, chosen);
    }
  }
}

/** Clusters of rows `from … to − 1` of a tile, `ids`: one int32 per row of it. */
export function assignRows(p: usize, head: i32, k: usize, from: i32, to: i32, ids: usize, scratch: usize): void {
  begin();
  const d = plan.headDim(p);
  const x = scratch, chosen = x + lines(d), scores = chosen + LINE;
  k += <usize> (head * d) << 2;
  for (let row = from; row < to; row += BLOCK) {
    const n = min(BLOCK, to - row);
    packTransposed(k + <usize> row * plan.keyStep(p), plan.keyStep(p), n, d, x);
    mark(PACK);
    assign(p, head, x, chosen, scores);
    memory.copy(ids + (<usize> row << 2), chosen, <usize> n << 2);
    mark(FEATURES);
  }
}
