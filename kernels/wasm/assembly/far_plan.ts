/**
 * Numbers of a near-and-far plan behind those of plan.ts (src/backends/wasm_far_plan.ts writes them), and where moments stand.
 *
 * Moments of one key head, float32. Taylor: reference (d), n, Σωy' (d), Σωv (a value line), Σωy'vᵀ (d lines), then of order 2
 * Σωy'_k y'_l and Σωy'_k y'_l v (a number and a line per pair k ≤ l, k-major). Clusters: n (C), Σωy' and Σωy'² (C rows of d), Σωv (C lines),
 * y' = y − centroid. Rows of d and of C are padded to 4 numbers.
 */
import * as plan from "./plan";

// @ts-ignore: decorator
@inline
function int(p: usize, at: usize): i32 {
  return load<i32>(p + (at << 2));
}

export const NO_FAR: i32 = 0;
export const TAYLOR1: i32 = 1;
export const TAYLOR2: i32 = 2;
export const HERMITE2: i32 = 3;
export const CLUSTERS: i32 = 4;

/** One of the kinds above. */
export function kind(p: usize): i32 {
  return int(p, 26);
}
/** Logit scale S. */
export function scale(p: usize): f32 {
  return load<f32>(p, 108);
}
export function window(p: usize): i32 {
  return int(p, 28);
}
export function causal(p: usize): bool {
  return int(p, 29) != 0;
}
/** Causal rows below it are exact softmax. */
export function exactRows(p: usize): i32 {
  return int(p, 30);
}
/** C, and C padded to 4. */
export function clusters(p: usize): i32 {
  return int(p, 31);
}
export function paddedClusters(p: usize): i32 {
  return (int(p, 31) + 3) & ~3;
}
/** Centroids of a key head: `C` rows of padded d. */
export function centroids(p: usize, head: i32): usize {
  return <usize> int(p, 32) + <usize> (head * clusters(p)) * rowBytes(p);
}
/** The same as a table (below), and ‖c‖²/2 of each (huge for padding). */
export function centroidTable(p: usize, head: i32): usize {
  return <usize> int(p, 33) + <usize> head * tableBytes(p);
}
export function halfNorms(p: usize, head: i32): usize {
  return <usize> int(p, 34) + <usize> (head * paddedClusters(p)) * 4;
}
/** H. */
export function heavy(p: usize): i32 {
  return int(p, 35);
}
/** Largest ½ xᵀΣx of a cluster, and largest variance of logits for hermite2. */
export function quadraticLimit(p: usize): f32 {
  return load<f32>(p, 144);
}
export function hermiteLimit(p: usize): f32 {
  return load<f32>(p, 148);
}

/** Clusters per query whose keys are all taken exactly. */
export function top(p: usize): i32 {
  return int(p, 38);
}

/** Most rows of a tile of queries, a multiple of 64. */
export function tileRows(p: usize): i32 {
  return int(p, 39);
}

/** Bytes of d numbers padded to 4. */
export function rowBytes(p: usize): usize {
  return <usize> ((plan.headDim(p) + 3) & ~3) << 2;
}
/** A table of numbers per cluster and coordinate, as products read it: for each 64 coordinates, a line of 64 numbers per padded cluster. */
export function tableBytes(p: usize): usize {
  return <usize> ((plan.headDim(p) + 63) / 64 * paddedClusters(p)) << 8;
}
/** Second moments. */
export function pairs(p: usize): i32 {
  const d = plan.headDim(p);
  return d * (d + 1) / 2;
}
export function ofOrder2(p: usize): bool {
  return kind(p) == TAYLOR2 || kind(p) == HERMITE2;
}

/** Taylor moments: where each stands. */
export function count(_p: usize, state: usize): usize {
  return state + rowBytes(_p);
}
export function first(p: usize, state: usize): usize {
  return count(p, state) + 16;
}
export function values(p: usize, state: usize): usize {
  return first(p, state) + rowBytes(p);
}
/** d lines, and one for an odd d. */
export function firstValues(p: usize, state: usize): usize {
  return values(p, state) + plan.valueLine(p);
}
export function second(p: usize, state: usize): usize {
  return firstValues(p, state) + <usize> (plan.headDim(p) + 1) * plan.valueLine(p);
}
/** A line per pair, and one more. */
export function secondValues(p: usize, state: usize): usize {
  return second(p, state) + (<usize> ((pairs(p) + 3) & ~3) << 2);
}

/** Clusters' moments. */
export function clusterFirst(p: usize, state: usize): usize {
  return state + (<usize> paddedClusters(p) << 2);
}
export function clusterSecond(p: usize, state: usize): usize {
  return clusterFirst(p, state) + <usize> clusters(p) * rowBytes(p);
}
export function clusterValues(p: usize, state: usize): usize {
  return clusterSecond(p, state) + <usize> clusters(p) * rowBytes(p);
}

/** Bytes of one key head's moments. */
export function farBytes(p: usize): usize {
  const line = plan.valueLine(p);
  if (kind(p) == NO_FAR) return 16;
  if (kind(p) == CLUSTERS) return clusterValues(p, 0) + <usize> clusters(p) * line;
  return ofOrder2(p) ? secondValues(p, 0) + <usize> (pairs(p) + 1) * line : second(p, 0);
}
