/**
 * Near-and-far attention (src/near_far.ts) of blocks of 64 queries: the far field gives each row its first sums, then the near keys pass,
 * packed 64 at a time, in groups of up to 256 whose logits lie in cache together: t, the row's largest, w = ω(e^{t−M} − K̂e^{−M}), sums += wᵀV.
 * Queries lie in lanes, so a key's K̂ is a polynomial of its own line or the line of its cluster: no gathers.
 *
 * A row is divided by e^M; what was summed before is rescaled when a group raises M (one group is the rule: 254 keys at w = 64, H = 64).
 */
import { exp2, LOG2E } from "./exponential";
import { addKeys, assign, clearWeightless, farScratch, packWeights, scaleLine } from "./far_keys";
import { clusterField, clusterScratch, deriveClusters, taylorField, taylorScratch } from "./far_fields";
import * as far from "./far_plan";
import { BLOCK, LINE, MASKED, NONE, packTransposed, packValues } from "./pack";
import * as plan from "./plan";
import { Add, Columns, product, Set } from "./product";
import { ACCUMULATE, begin, EMIT, EXP, FEATURES, mark, PACK } from "./profile";
import { lines } from "./state";

/** Keys whose logits lie in memory together, and keys that share one range of queries. */
const GROUP: i32 = 256;
const PART: i32 = 32;
/** Ways to weigh a key: in the window, in a causal block of its own (with and without a K̂ of its own), heavy. */
const WINDOW: i32 = 0;
const OWN: i32 = 1;
const OWN_EXACT: i32 = 2;
const HEAVY: i32 = 3;
/** Numbers of a part: kind, first row or heavy slot, keys, first and end query, first line. */
const PART_BYTES: usize = 24;

/** Lines of a block of queries, behind `rows`. */
const FIRST: usize = 0;
const LAST: usize = 1;
const TOP: usize = 2;
const TOTAL: usize = 3;
const SHIFT: usize = 4;
const CONSTANT: usize = 5;
const FAR: usize = 6;
const OFFSET: usize = 7;
const ROW_LINES: i32 = 8;

// @ts-ignore: decorator
@inline
function line(rows: usize, which: usize): usize {
  return rows + which * LINE;
}

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
    <usize> heavy * (lines(d) + <usize> BLOCK * wide + 3 * LINE) + farScratch(p) + lines(far.paddedClusters(p));
}

/**
 * Outputs of one head for blocks `fromBlock … toBlock − 1` of a tile of queries whose row 0 is row `start`; causal: from block 0 on.
 * `k`, `v`, `weights` (or 0): rows near them, the first being row `nearStart`; `ids`: with clusters, the cluster of each of those rows.
 * `heavy`: `count` records of (block, slot, row, ω, k, v), by block: what a slot holds from that block on. `moments`: one key head's.
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
  out: usize,
  denominators: usize,
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
  if (clustered) deriveClusters(p, keyHead, sums, FIELD);
  q += <usize> (head * d) << 2;
  k += <usize> (keyHead * d) << 2;
  v += <usize> (keyHead * plan.valueDim(p)) << 2;
  const recordBytes = <usize> (4 + d + plan.valueDim(p)) << 2;
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
    if (clustered) clusterField(p, sums, X, FIELD, line(R, TOP), line(R, TOTAL), ACC);
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
    writeRows(n, out + <usize> row * plan.outputStep(p) + (<usize> (head * plan.valueDim(p)) << 2), denominators +
      (<usize> (row * plan.heads(p) + head) << 2));
    mark(EMIT);
    if (causal && block + 1 < toBlock && far.kind(p) != far.NO_FAR) {
      const at = first - nearStart;
      const from = k + <usize> at * plan.keyStep(p), values = v + <usize> at * plan.valueStep(p);
      addKeys(p, keyHead, from, values, weights ? weights + (<usize> at << 2) : 0, n, sums, rest);
      if (clustered) deriveClusters(p, keyHead, sums, FIELD);
      mark(ACCUMULATE);
    }
  }
}

/** Lines that say what each row has near, and that it has seen nothing yet. */
function poseRows(first: i32): void {
  const window = far.window(P), causal = far.causal(P), exactRows = far.exactRows(P);
  for (let i: i32 = 0; i < BLOCK; i++) {
    const row = first + i, at = <usize> i << 2;
    store<i32>(line(R, FIRST) + at, causal && row < exactRows ? 0 : row - window + 1);
    store<i32>(line(R, LAST) + at, causal ? row : row + window - 1);
    store<f32>(line(R, TOP) + at, NONE);
    store<f32>(line(R, TOTAL) + at, 0);
    store<f32>(line(R, SHIFT) + at, 0);
    store<f32>(line(R, CONSTANT) + at, 1);
    store<f32>(line(R, FAR) + at, 0);
    store<f32>(line(R, OFFSET) + at, 0);
  }
}

/** Rows below `exactRows` have no far field. */
function forgetExact(first: i32): void {
  const some = min(BLOCK, far.exactRows(P) - first), wide = plan.valueLine(P);
  for (let i = 0; i < some; i++) {
    const at = <usize> i << 2;
    store<f32>(line(R, TOP) + at, NONE);
    store<f32>(line(R, TOTAL) + at, 0);
    store<f32>(line(R, FAR) + at, 0);
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
  const first = load<i32>(line(R, LAST)) - (far.causal(P) ? 0 : far.window(P) - 1); // row of the block's first query
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
  const part = PARTS + <usize> parts * PART_BYTES;
  store<i32>(part, kind);
  store<i32>(part, row, 4);
  store<i32>(part, n, 8);
  store<i32>(part, from, 12);
  store<i32>(part, to, 16);
  store<i32>(part, first, 20);
  parts++;
}

/** Adds the keys taken so far to the rows' sums. */
function flush(): void {
  if (used == 0) return;
  mark(FEATURES);
  const kind = far.kind(P), wide = plan.valueLine(P), padded = plan.paddedValueDim(P);
  raiseTops();
  for (let i = 0; i < parts; i++) {
    const part = PARTS + <usize> i * PART_BYTES;
    const from = load<i32>(part, 12), to = load<i32>(part, 16), first = load<i32>(part, 20), n = load<i32>(part, 8);
    if (kind == far.CLUSTERS) weighClusters(part);
    else if (kind == far.NO_FAR) weighAlone(part);
    else if (load<i32>(part) == OWN) weighOwn(part);
    else weighTaylor(part);
    mark(EXP);
    const weights = LOGITS + lines(first) + (<usize> from << 2);
    const values = VALUES + <usize> first * wide;
    product<Columns, Add>(weights, LINE, values, wide, ACC + <usize> from * wide, wide, to - from, padded, n);
    mark(ACCUMULATE);
  }
  parts = 0;
  used = 0;
}

/** Whether queries see key `row` (heavy: whether they have it near for its weight alone). */
// @ts-ignore: decorator
@inline
function visible(kind: i32, row: i32, at: usize): v128 {
  const r = i32x4.splat(row);
  const last = i32x4.le_s(r, v128.load(line(R, LAST) + at));
  if (kind == OWN || kind == OWN_EXACT) return last;
  const inside = v128.and(last, i32x4.ge_s(r, v128.load(line(R, FIRST) + at)));
  return kind == HEAVY ? v128.not(inside) : inside;
}

/** Logits become t = x·y − shift, MASKED where a row does not see the key; M rises to the largest, and what was summed is rescaled. */
function raiseTops(): void {
  const own = far.kind(P) != far.NO_FAR && far.kind(P) != far.CLUSTERS;
  for (let i = 0; i < parts; i++) {
    const part = PARTS + <usize> i * PART_BYTES;
    const kind = load<i32>(part), row = load<i32>(part, 4), n = load<i32>(part, 8);
    const first = load<i32>(part, 20);
    const end = <usize> load<i32>(part, 16) << 2;
    for (let at = <usize> load<i32>(part, 12) << 2; at < end; at += 16) {
      const shift = v128.load(line(R, SHIFT) + at);
      let top = v128.load(line(R, TOP) + at);
      const before = top;
      for (let j = 0; j < n; j++) {
        const logit = LOGITS + lines(first + j) + at;
        const key = kind == HEAVY ? load<i32>(HEAVY_ROWS + (<usize> (row + j) << 2)) : row + j;
        const counts = load<f32>(OMEGA + (<usize> (first + j) << 2)) > 0;
        const seen = counts ? visible(kind, key, at) : i32x4.splat(0);
        const t = v128.bitselect(f32x4.sub(v128.load(logit), shift), f32x4.splat(MASKED), seen);
        v128.store(logit, t);
        top = f32x4.pmax(top, t);
      }
      if (v128.any_true(f32x4.gt(top, before))) rescale(at, before, top, own);
    }
  }
}

/** Rescales four rows' sums from M = before to M = top. */
function rescale(at: usize, before: v128, top: v128, own: bool): void {
  const wide = plan.valueLine(P);
  const factor = exp2(f32x4.mul(f32x4.sub(before, top), f32x4.splat(LOG2E)));
  v128.store(line(R, TOP) + at, top);
  v128.store(line(R, TOTAL) + at, f32x4.mul(v128.load(line(R, TOTAL) + at), factor));
  if (own) v128.store(line(R, FAR) + at, f32x4.mul(v128.load(line(R, FAR) + at), factor));
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

/** e^{t − M}; 0 where t is MASKED. */
// @ts-ignore: decorator
@inline
function share(t: v128, at: usize): v128 {
  return exp2(f32x4.mul(f32x4.sub(t, v128.load(line(R, TOP) + at)), f32x4.splat(LOG2E)));
}

/** Stores a key's weights and adds them to the denominators. */
// @ts-ignore: decorator
@inline
function keep(logit: usize, weight: v128, omega: v128, at: usize): void {
  const w = f32x4.mul(weight, omega);
  v128.store(logit, w);
  const total = line(R, TOTAL) + at;
  v128.store(total, f32x4.add(v128.load(total), w));
}

function weighAlone(part: usize): void {
  const n = load<i32>(part, 8), first = load<i32>(part, 20), end = <usize> load<i32>(part, 16) << 2;
  for (let j = 0; j < n; j++) {
    const omega = v128.load32_splat(OMEGA + (<usize> (first + j) << 2));
    for (let at = <usize> load<i32>(part, 12) << 2; at < end; at += 16) {
      const logit = LOGITS + lines(first + j) + at;
      keep(logit, share(v128.load(logit), at), omega, at);
    }
  }
}

/** K̂ e^{−M} of t, 0 where it is MASKED. */
// @ts-ignore: decorator
@inline
function polynomial(t: v128, at: usize, square: v128): v128 {
  const p = f32x4.add(v128.load(line(R, CONSTANT) + at), f32x4.mul(t, f32x4.add(f32x4.splat(1), f32x4.mul(square, t))));
  return f32x4.mul(p, v128.load(line(R, FAR) + at));
}

function weighTaylor(part: usize): void {
  const n = load<i32>(part, 8), first = load<i32>(part, 20), end = <usize> load<i32>(part, 16) << 2;
  const square = f32x4.splat(far.ofOrder2(P) ? 0.5 : 0), none = f32x4.splat(MASKED);
  for (let j = 0; j < n; j++) {
    const omega = v128.load32_splat(OMEGA + (<usize> (first + j) << 2));
    for (let at = <usize> load<i32>(part, 12) << 2; at < end; at += 16) {
      const logit = LOGITS + lines(first + j) + at;
      const t = v128.load(logit);
      const seen = f32x4.gt(t, none);
      keep(logit, f32x4.sub(share(t, at), v128.and(polynomial(t, at, square), seen)), omega, at);
    }
  }
}

/** Keys of the block itself: e^t in the window, K̂ outside, and nothing is taken away, as no sum holds them. */
function weighOwn(part: usize): void {
  const row = load<i32>(part, 4), n = load<i32>(part, 8), first = load<i32>(part, 20);
  const end = <usize> load<i32>(part, 16) << 2;
  const square = f32x4.splat(far.ofOrder2(P) ? 0.5 : 0), none = f32x4.splat(MASKED);
  for (let j = 0; j < n; j++) {
    const omega = v128.load32_splat(OMEGA + (<usize> (first + j) << 2));
    for (let at = <usize> load<i32>(part, 12) << 2; at < end; at += 16) {
      const logit = LOGITS + lines(first + j) + at;
      const t = v128.load(logit);
      const inside = i32x4.ge_s(i32x4.splat(row + j), v128.load(line(R, FIRST) + at));
      const outside = v128.and(polynomial(t, at, square), f32x4.gt(t, none));
      keep(logit, v128.bitselect(share(t, at), outside, inside), omega, at);
    }
  }
}

function weighClusters(part: usize): void {
  const kind = load<i32>(part), n = load<i32>(part, 8), first = load<i32>(part, 20);
  const end = <usize> load<i32>(part, 16) << 2;
  const none = f32x4.splat(MASKED);
  for (let j = 0; j < n; j++) {
    const omega = v128.load32_splat(OMEGA + (<usize> (first + j) << 2));
    const cluster = FIELD + lines(load<i32>(IDS + (<usize> (first + j) << 2)));
    for (let at = <usize> load<i32>(part, 12) << 2; at < end; at += 16) {
      const logit = LOGITS + lines(first + j) + at;
      const t = v128.load(logit);
      let weight = share(t, at);
      if (kind != OWN_EXACT) weight = f32x4.sub(weight, v128.and(v128.load(cluster + at), f32x4.gt(t, none)));
      keep(logit, weight, omega, at);
    }
  }
}

/** Outputs and denominators of n rows. */
function writeRows(n: i32, out: usize, denominators: usize): void {
  const dv = plan.valueDim(P), wide = plan.valueLine(P);
  for (let i = 0; i < n; i++) {
    const at = <usize> i << 2;
    const total = load<f32>(line(R, TOP) + at) > NONE ? load<f32>(line(R, TOTAL) + at) : 0;
    store<f32>(denominators + at * <usize> plan.heads(P), total);
    const row = ACC + <usize> i * wide;
    scaleLine(row, wide, total != 0 ? 1 / total : 0);
    memory.copy(out + <usize> i * plan.outputStep(P), row, <usize> dv << 2);
  }
}
