/**
 * Near-and-far attention (src/near_far.ts) of blocks of 64 queries: the far field gives each row its first sums, then the near keys pass,
 * packed 64 at a time, in groups of up to 256 whose logits lie in cache together: t, the row's largest, w = ω(e^{t−M} − K̂e^{−M}), sums += wᵀV.
 * Queries lie in lanes, so a key's K̂ is a polynomial of its own line or the line of its cluster: no gathers.
 *
 * A row is divided by e^M; what was summed before is rescaled when a group raises M (one group is the rule: 254 keys at w = 64, H = 64).
 *
 * Versions:
 *   1          parts of 32 keys, each its own product into the sums, M raised part by part; clusters' means transposed number by number for
 *              each causal block, keys assigned for the sums, again beside the queries, and in causal passes once more.
 *   2  (this)  parts of 16 keys × 16 queries (of the window's square 13 % are wasted at w = 64, 27 % at w = 32, before 26 % and 52 %), sums in
 *              runs of up to 64 keys, M raised once per group; clusters pass 64 at a time (far_fields.ts), keys are assigned once.
 *              Wanted: 1.3 times the rows per second of positive features, r = 256. Measured, 32,768 rows × 8 heads, d = d_v = 64, two
 *              threads on two cores that had other work, medians of 4 runs in turns with positive features, Bun 2 × 4 / Deno 6 × 2, relaxed:
 *                taylor1, w = 64, H = 64: 1.60 / 1.55 (causal 1.71 / 1.75); 128 clusters, w = 32: 1.42 / 1.36 (causal 1.42 / 1.38)
 *              One thread, least of 9 runs, ms per 1,000 rows × 8 heads on Bun, keys' pass included (pack, products of logits and far field,
 *              weights, sums, quotients): taylor1 1.0, 7.9, 2.7, 6.8, 0.2; clusters 1.0, 17.4, 1.1, 2.4, 0.2; positive features 1.1, 12.5,
 *              4.9, 12.6, 0.2. Not tried: packing each key once; now each block of queries packs those near it.
 *   Lessons: the main thread is a third worker on two cores. 2 MB of fresh memory per tile for its float64 sums cost 6 ms, more than the tile's
 *              keys; with memory used again 0.3 ms.
 */
import { exp2, LOG2E } from "./exponential";
import { addKeys, assign, clearWeightless, farScratch, packWeights, scaleLine } from "./far_keys";
import { clusterField, clusterScratch, deriveClusters, deriveJoined, taylorField, taylorScratch } from "./far_fields";
import * as far from "./far_plan";
import { BLOCK, LINE, NONE, packTransposed, packValues } from "./pack";
import * as plan from "./plan";
import { Columns, product, Set } from "./product";
import { ACCUMULATE, begin, EMIT, EXP, FEATURES, mark, PACK } from "./profile";
import { addParts } from "./near_sums";
import {
  CONSTANT,
  FAR,
  FIRST,
  HEAVY,
  LAST,
  maskPart,
  OWN,
  OWN_EXACT,
  PART_BYTES,
  partFrom,
  partKeys,
  partLine,
  partTo,
  ROW_LINES,
  SHIFT,
  TOP,
  TOTAL,
  weigh,
  WINDOW,
  writePart,
} from "./near_weights";
import { addTop, beginTop, putAside, topScratch, writeTop } from "./near_top";
import { lines } from "./state";

/** Keys whose logits lie in memory together, and keys that share one range of queries. */
const GROUP: i32 = 256;
const PART: i32 = 16;

/** What the parts of one call share. */
let P: usize = 0;
let X: usize = 0;
let R: usize = 0;
let ACC: usize = 0;
let LOGITS: usize = 0;
let VALUES: usize = 0;
let OMEGA: usize = 0;
let IDS: usize = 0;
let KEYS: usize = 0;
let SUMS: usize = 0;
let FIELD: usize = 0;
let PARTS: usize = 0;
let HEAVY_KEYS: usize = 0;
let HEAVY_VALUES: usize = 0;
let HEAVY_OMEGA: usize = 0;
let HEAVY_ROWS: usize = 0;
let HEAVY_IDS: usize = 0;
let parts: i32 = 0;
let used: i32 = 0;

function heavyBlocks(p: usize): i32 {
  return (far.heavy(p) + BLOCK - 1) / BLOCK;
}

function fieldBytes(p: usize): usize {
  return far.kind(p) == far.CLUSTERS ? clusterScratch(p) : taylorScratch(p);
}

/** Bytes of scratch memory for `nearFar`. */
export function nearFarScratch(p: usize): usize {
  const d = plan.headDim(p), wide = plan.valueLine(p);
  const heavy = heavyBlocks(p);
  return lines(d) + lines(ROW_LINES) + <usize> BLOCK * wide + lines(GROUP) + <usize> GROUP * wide + 2 * <usize> (GROUP << 2) +
    lines(d) + far.farBytes(p) + 16 + fieldBytes(p) + <usize> (2 * GROUP / PART + 8) * PART_BYTES +
    <usize> heavy * (lines(d) + <usize> BLOCK * wide + 3 * LINE) + farScratch(p) + lines(far.paddedClusters(p)) + 16 + topScratch(p);
}

/**
 * Outputs of one head for blocks `fromBlock … toBlock − 1` of a tile of queries whose row 0 is row `start`.
 * `k`, `v`, `weights` (or 0): rows near them, the first being row `nearStart`; `ids`: with clusters, the cluster of each of those rows.
 * `directory`: 0, or where the keys of each cluster lie (near_top.ts); their pairs are added to the int32 at `counter`. `heavy`: `count` records of (block, slot, row, ω, k, v), by block: what a slot holds from that block on. `moments`: one key head's.
 */
export function nearFar(
  p: usize,
  head: i32,
  keyHead: i32,
  q: usize,
  rows: i32,
  start: i32,
  fromBlock: i32,
  toBlock: i32,
  k: usize,
  v: usize,
  weights: usize,
  ids: usize,
  nearStart: i32,
  nearRows: i32,
  heavy: usize,
  count: i32,
  moments: usize,
  directory: usize,
  out: usize,
  denominators: usize,
  counter: usize,
  scratch: usize,
): void {
  begin();
  const d = plan.headDim(p), wide = plan.valueLine(p), clustered = far.kind(p) == far.CLUSTERS;
  const causal = far.causal(p);
  P = p;
  X = scratch;
  R = X + lines(d);
  ACC = R + lines(ROW_LINES);
  LOGITS = ACC + <usize> BLOCK * wide;
  VALUES = LOGITS + lines(GROUP);
  OMEGA = VALUES + <usize> GROUP * wide;
  IDS = OMEGA + <usize> (GROUP << 2);
  KEYS = IDS + <usize> (GROUP << 2);
  SUMS = KEYS + lines(d);
  FIELD = (SUMS + far.farBytes(p) + 15) & ~15;
  PARTS = FIELD + fieldBytes(p);
  HEAVY_KEYS = PARTS + <usize> (2 * GROUP / PART + 8) * PART_BYTES;
  HEAVY_VALUES = HEAVY_KEYS + <usize> heavyBlocks(p) * lines(d);
  HEAVY_OMEGA = HEAVY_VALUES + <usize> (heavyBlocks(p) * BLOCK) * wide;
  HEAVY_ROWS = HEAVY_OMEGA + <usize> heavyBlocks(p) * LINE;
  HEAVY_IDS = HEAVY_ROWS + <usize> heavyBlocks(p) * LINE;
  const rest = HEAVY_IDS + <usize> heavyBlocks(p) * LINE;
  memory.fill(HEAVY_KEYS, 0, rest - HEAVY_KEYS);
  let sums = moments;
  if (causal && far.kind(p) != far.NO_FAR) {
    memory.copy(SUMS, moments, far.farBytes(p));
    sums = SUMS;
  }
  q += <usize> (head * d) << 2;
  k += <usize> (keyHead * d) << 2;
  v += <usize> (keyHead * plan.valueDim(p)) << 2;
  for (let row = 0; causal && row < fromBlock * BLOCK; row += BLOCK) {
    join(keyHead, start + row - nearStart, BLOCK, k, v, weights, ids, sums, rest); // what an earlier piece of the rows has passed
  }
  if (clustered) deriveClusters(p, keyHead, sums, FIELD);
  const recordBytes = <usize> (4 + d + plan.valueDim(p)) << 2;
  if (directory) beginTop(p, (rest + farScratch(p) + lines(far.paddedClusters(p)) + 15) & ~15);
  let records = heavy;
  const end = heavy + <usize> count * recordBytes;
  for (let block = fromBlock; block < toBlock; block++) {
    const row = block * BLOCK, n = min(BLOCK, rows - row), first = start + row;
    packTransposed(q + <usize> row * plan.queryStep(p), plan.queryStep(p), n, d, X);
    scaleLine(X, lines(d), far.scale(p));
    records = takeHeavy(records, end, block, keyHead, rest);
    poseRows(first);
    parts = 0;
    used = 0;
    mark(PACK);
    // The block's own keys come first where the far field must know them.
    const own = causal && far.kind(p) != far.NO_FAR;
    if (own) addRows(clustered ? OWN_EXACT : OWN, first, n, k, v, weights, ids, nearStart);
    if (clustered) clusterField(p, sums, X, FIELD, R + TOP, R + TOTAL, ACC);
    else if (far.kind(p) != far.NO_FAR) {
      taylorField(p, sums, X, FIELD, R, own ? LOGITS : 0, OMEGA, n, ACC);
    } else {
      memory.fill(ACC, 0, <usize> BLOCK * wide);
    }
    if (causal && first < far.exactRows(p)) forgetExact(first);
    mark(FEATURES);
    const exact = causal && first < far.exactRows(p);
    const window = far.window(p);
    const low = max(exact ? 0 : first - max(window, 0) + 1, nearStart);
    const high = causal ? (own ? first - 1 : first + n - 1) : first + n - 1 + window - 1;
    if (window > 0 || exact) {
      for (let at = low, stop = min(high + 1, nearStart + nearRows); at < stop; at += BLOCK) {
        addRows(WINDOW, at, min(BLOCK, stop - at), k, v, weights, ids, nearStart);
      }
    }
    for (let slots = 0; slots < far.heavy(p); slots += BLOCK) addHeavy(slots, min(BLOCK, far.heavy(p) - slots));
    flush();
    if (directory) putAside(block - fromBlock, R, FIELD, sums, ACC, HEAVY_ROWS, HEAVY_OMEGA);
    else writeRows(n, outputs(out, head, row), denominators + (<usize> (row * plan.heads(p) + head) << 2));
    mark(EMIT);
    if (causal && block + 1 < toBlock && far.kind(p) != far.NO_FAR) {
      const at = first - nearStart;
      join(keyHead, at, n, k, v, weights, ids, sums, rest);
      if (clustered) deriveJoined(p, keyHead, ids + (<usize> at << 2), n, sums, FIELD, rest);
      mark(ACCUMULATE);
    }
  }  if (directory == 0) return;
  const row = fromBlock * BLOCK, n = min(toBlock * BLOCK, rows) - row;
  atomic.add<i32>(counter, addTop(n, start + row, q + <usize> row * plan.queryStep(p), directory));
  mark(EXP);
  writeTop(n, outputs(out, head, row), denominators + (<usize> (row * plan.heads(p) + head) << 2));
  mark(EMIT);
}

/** Where the output of a row of a tile begins. */
function outputs(out: usize, head: i32, row: i32): usize {
  return out + <usize> row * plan.outputStep(P) + (<usize> (head * plan.valueDim(P)) << 2);
}

/** Adds `n` ≤ 64 of the near rows, from `at` on, to a causal state. */
function join(
  keyHead: i32,
  at: i32,
  n: i32,
  k: usize,
  v: usize,
  weights: usize,
  ids: usize,
  sums: usize,
  scratch: usize,
): void {
  const keys = k + <usize> at * plan.keyStep(P), values = v + <usize> at * plan.valueStep(P), column = <usize> at << 2;
  addKeys(P, keyHead, keys, values, weights ? weights + column : 0, ids + column, n, sums, scratch);
}

/** Lines that say what each row has near, and that it has seen nothing yet. */
function poseRows(first: i32): void {
  const window = far.window(P), causal = far.causal(P), exactRows = far.exactRows(P);
  for (let i: i32 = 0; i < BLOCK; i++) {
    const row = first + i, at = <usize> i << 2;
    store<i32>(R + FIRST + at, causal && row < exactRows ? 0 : row - window + 1);
    store<i32>(R + LAST + at, causal ? row : row + window - 1);
    store<f32>(R + TOP + at, NONE);
    store<f32>(R + TOTAL + at, 0);
    store<f32>(R + SHIFT + at, 0);
    store<f32>(R + CONSTANT + at, 1);
    store<f32>(R + FAR + at, 0);
    }
}

/** Rows below `exactRows` have no far field. */
function forgetExact(first: i32): void {
  const some = min(BLOCK, far.exactRows(P) - first), wide = plan.valueLine(P);
  for (let i = 0; i < some; i++) {
    const at = <usize> i << 2;
    store<f32>(R + TOP + at, NONE);
    store<f32>(R + TOTAL + at, 0);
    store<f32>(R + FAR + at, 0);
    memory.fill(ACC + <usize> i * wide, 0, wide);
    if (far.kind(P) != far.CLUSTERS) continue;
    for (let g = 0; g < far.clusters(P); g++) store<f32>(FIELD + lines(g) + at, 0);
  }
}

/** Reads records up to a block into their slots; returns the next one. */
function takeHeavy(record: usize, end: usize, block: i32, keyHead: i32, scratch: usize): usize {
  const d = plan.headDim(P), dv = plan.valueDim(P), wide = plan.valueLine(P);
  let changed = false;
  while (record < end && load<i32>(record) <= block) {
    const slot = load<i32>(record, 4);
    const column = <usize> (slot & (BLOCK - 1)) << 2, part = slot / BLOCK;
    store<i32>(HEAVY_ROWS + (<usize> slot << 2), load<i32>(record, 8));
    store<f32>(HEAVY_OMEGA + (<usize> slot << 2), load<f32>(record, 12));
    const keys = HEAVY_KEYS + <usize> part * lines(d) + column;
    for (let l = 0; l < d; l++) store<f32>(keys + lines(l), load<f32>(record + 16 + (<usize> l << 2)));
    memory.copy(HEAVY_VALUES + <usize> slot * wide, record + 16 + (<usize> d << 2), <usize> dv << 2);
    record += <usize> (4 + d + dv) << 2;
    changed = true;
  }
  if (changed && far.kind(P) == far.CLUSTERS) {
    for (let part = 0; part < heavyBlocks(P); part++) {
      assign(P, keyHead, HEAVY_KEYS + <usize> part * lines(d), HEAVY_IDS + lines(part), scratch);
    }
  }
  return record;
}

/** Packs rows of the tile near the queries and takes their logits; `n` ≤ 64. */
function addRows(
  kind: i32,
  row: i32,
  n: i32,
  k: usize,
  v: usize,
  weights: usize,
  ids: usize,
  nearStart: i32,
): void {
  if (used + BLOCK > GROUP) flush();
  const d = plan.headDim(P), wide = plan.valueLine(P);
  const at = <usize> (row - nearStart);
  const values = VALUES + <usize> used * wide, omega = OMEGA + (<usize> used << 2);
  packTransposed(k + at * plan.keyStep(P), plan.keyStep(P), n, d, KEYS);
  packValues(v + at * plan.valueStep(P), plan.valueStep(P), n, plan.valueDim(P), plan.paddedValueDim(P), values);
  packWeights(weights ? weights + (at << 2) : 0, n, omega);
  if (weights) clearWeightless(KEYS, d, values, wide, omega, n);
  if (ids) memory.copy(IDS + (<usize> used << 2), ids + (at << 2), <usize> n << 2);
  const first = load<i32>(R + LAST) - (far.causal(P) ? 0 : far.window(P) - 1); // row of the block's first query
  const free = kind == OWN || far.causal(P) && first < far.exactRows(P);
  for (let j = 0; j < n; j += PART) {
    const some = min(PART, n - j), a = row + j, b = a + some - 1;
    let from = 0, to = BLOCK;
    if (!free) {
      from = max(0, (far.causal(P) ? a : a - far.window(P) + 1) - first) & ~15;
      if (kind == WINDOW) to = min(BLOCK, (b + far.window(P) - first + 15) & ~15);
    }
    if (from < to) addPart(kind, a, some, from, to, KEYS + (<usize> j << 2), used + j);
  }
  used += BLOCK;
}

function addHeavy(slot: i32, n: i32): void {
  if (used + BLOCK > GROUP) flush();
  const d = plan.headDim(P), wide = plan.valueLine(P), part = slot / BLOCK;
  memory.copy(VALUES + <usize> used * wide, HEAVY_VALUES + <usize> slot * wide, <usize> BLOCK * wide);
  memory.copy(OMEGA + (<usize> used << 2), HEAVY_OMEGA + lines(part), LINE);
  memory.copy(IDS + (<usize> used << 2), HEAVY_IDS + lines(part), LINE);
  addPart(HEAVY, slot, n, 0, BLOCK, HEAVY_KEYS + <usize> part * lines(d), used);
  used += BLOCK;
}

/** Logits of `n` keys with queries `from … to − 1`, in lines from `first` on. */
function addPart(kind: i32, row: i32, n: i32, from: i32, to: i32, keys: usize, first: i32): void {
  const column = <usize> from << 2;
  const at = LOGITS + lines(first) + column;
  product<Columns, Set>(keys, LINE, X + column, LINE, at, LINE, (n + 1) & ~1, to - from, plan.headDim(P));
  writePart(PARTS + <usize> parts * PART_BYTES, kind, row, n, from, to, first);
  parts++;
}

/** Adds the keys taken so far to the rows' sums. */
function flush(): void {
  if (used == 0) return;
  mark(FEATURES);
  raiseTops();
  for (let i = 0; i < parts; i++) weigh(P, PARTS + <usize> i * PART_BYTES, R, LOGITS, OMEGA, IDS, FIELD);
  mark(EXP);
  addParts(P, PARTS, parts, LOGITS, VALUES, ACC);
  parts = 0;
  used = 0;
  mark(ACCUMULATE);
}

/** Logits become t, M rises to the largest, and what was summed is rescaled. */
function raiseTops(): void {
  for (let at: usize = 0; at < LINE; at += 16) {
    const before = v128.load(R + TOP + at);
    let top = before;
    for (let i = 0; i < parts; i++) {
      const part = PARTS + <usize> i * PART_BYTES;
      if (at < partFrom(part) || at >= partTo(part)) continue;
      top = f32x4.pmax(top, maskPart(part, R, at, LOGITS, OMEGA, HEAVY_ROWS));
    }
    if (v128.any_true(f32x4.gt(top, before))) rescale(at, before, top);
  }
}

/** Rescales four rows' sums from M = before to M = top. */
function rescale(at: usize, before: v128, top: v128): void {
  const wide = plan.valueLine(P);
  const factor = exp2(f32x4.mul(f32x4.sub(before, top), f32x4.splat(LOG2E)));
  v128.store(R + TOP + at, top);
  v128.store(R + TOTAL + at, f32x4.mul(v128.load(R + TOTAL + at), factor));
  v128.store(R + FAR + at, f32x4.mul(v128.load(R + FAR + at), factor));
  const row = ACC + <usize> (at >> 2) * wide;
  scaleLine(row, wide, f32x4.extract_lane(factor, 0));
  scaleLine(row + wide, wide, f32x4.extract_lane(factor, 1));
  scaleLine(row + 2 * wide, wide, f32x4.extract_lane(factor, 2));
  scaleLine(row + 3 * wide, wide, f32x4.extract_lane(factor, 3));
  if (far.kind(P) != far.CLUSTERS) return;
  for (let g = 0, count = far.clusters(P); g < count; g++) {
    const e = FIELD + lines(g) + at;
    v128.store(e, f32x4.mul(v128.load(e), factor));
  }
}

/** Outputs and denominators of n rows. */
function writeRows(n: i32, out: usize, denominators: usize): void {
  const dv = plan.valueDim(P), wide = plan.valueLine(P);
  for (let i = 0; i < n; i++) {
    const at = <usize> i << 2;
    const total = load<f32>(R + TOP + at) > NONE ? load<f32>(R + TOTAL + at) : 0;
    store<f32>(denominators + at * <usize> plan.heads(P), total);
    const row = ACC + <usize> i * wide;
    scaleLine(row, wide, total != 0 ? 1 / total : 0);
    memory.copy(out + <usize> i * plan.outputStep(P), row, <usize> dv << 2);
  }
}
