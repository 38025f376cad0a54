/**
 * The keys of a query's heaviest clusters, exactly. Queries choose clusters of their own: what a block of queries has from its other keys is
 * put aside with what its queries chose, and when all blocks of a call are through, those that chose the same cluster take its keys together, 64
 * queries and 32 keys at a time. Logits are a product then, as are the sums, and a cluster's keys come from memory once for many queries.
 *
 * Keys of a cluster lie in a list of chunks, in the order of their rows; the host (src/backends/wasm_top.ts) decides where each key goes,
 * `keepRows` puts it there. A causal block reads a list up to the first row that is not before the block, so that keys of the block's own
 * tile, and later ones that are being added meanwhile, may stand in it already.
 *
 * Chunk: address of the next (a line of 128 bytes), rows, ω, keys (a line per coordinate), 32 value lines. Directory of one key head: keys per
 * cluster, then the address of each cluster's first chunk.
 *
 * Versions:
 *   1          query by query, four logits at a time, over keys grouped by cluster once all were known (bidirectional only).
 *   2          products over the queries of a block that chose a cluster, lists that grow as keys pass by: 1.1 times as fast where a block of 64
 *              has two queries for each cluster, as the keys still come from memory for every block.
 *   3  (this)  over all queries of a call: 64 of a tile for each cluster where a block has two. One thread on a busy machine, Bun, relaxed, CPU
 *              seconds of a whole run, 12,288 rows × 8 heads, d = d_v = 64, 128 clusters, top 8, random queries, medians of 3 in turns: 4.2, 3.5 and
 *              2.9 for versions 1 to 3, of which 1.5 are not these keys; causal 2.4 and 2.3 for 2 and 3.
 */
import { exp2, LOG2E, maxOf, sumOf } from "./exponential";
import { scaleLine } from "./far_keys";
import * as far from "./far_plan";
import { BLOCK, LINE, MASKED, NONE } from "./pack";
import * as plan from "./plan";
import { Add, Columns, product, Rows, Set } from "./product";
import { FIRST, LAST, TOP, TOTAL } from "./near_weights";
import { lines, power } from "./state";

/** Keys of a chunk, and bytes of a line of them. */
const CHUNK: i32 = 32;
const CHUNK_LINE: usize = 128;

/** Where each part of a chunk begins. */
const ROWS: usize = CHUNK_LINE;
const OMEGAS: usize = 2 * CHUNK_LINE;
const KEYS: usize = 3 * CHUNK_LINE;

// @ts-ignore: decorator
@inline
function valuesOf(p: usize): usize {
  return KEYS + <usize> plan.headDim(p) * CHUNK_LINE;
}

/** Bytes of a chunk; chunks begin at multiples of 128. */
export function chunkBytes(p: usize): usize {
  return valuesOf(p) + <usize> CHUNK * plan.valueLine(p);
}

/**
 * Copies rows `from … to − 1` of a tile whose row 0 is row `start` to their places: one int32 per row, 0 where it has none, else the address
 * of the chunk plus 4 for every key before it there. `weights`: one ω per row, or 0.
 */
export function keepRows(
  p: usize,
  head: i32,
  k: usize,
  v: usize,
  weights: usize,
  start: i32,
  from: i32,
  to: i32,
  places: usize,
): void {
  const d = plan.headDim(p), wide = plan.valueLine(p), width = <usize> plan.valueDim(p) << 2;
  for (let i = from; i < to; i++) {
    const at = <usize> i << 2;
    const place = <usize> load<i32>(places + at);
    if (place == 0) continue;
    store<i32>(place + ROWS, start + i);
    store<f32>(place + OMEGAS, weights ? load<f32>(weights + at) : 1);
    const key = k + <usize> i * plan.keyStep(p) + (<usize> (head * d) << 2);
    for (let l = 0; l < d; l++) {
      store<f32>(place + KEYS + <usize> l * CHUNK_LINE, load<f32>(key + (<usize> l << 2)));
    }
    const slot = (place & (CHUNK_LINE - 1)) >> 2, value = (place & ~(CHUNK_LINE - 1)) + valuesOf(p) + slot * wide;
    memory.copy(value, v + <usize> i * plan.valueStep(p) + <usize> head * width, width);
    memory.fill(value + width, 0, wide - width);
  }
}

/** What the queries of a call share. Per query: first and last row that the window had, M, Σ weights, e^{M before − M}, sums. */
let P: usize = 0;
let FIRSTS: usize = 0;
let LASTS: usize = 0;
let TOPS: usize = 0;
let TOTALS: usize = 0;
let SCALES: usize = 0;
let SUMS: usize = 0;
/** Per query and choice: the cluster (−1: none) and its K̂e^{−M}. */
let CLUSTERS: usize = 0;
let ESTIMATES: usize = 0;
/** Choices by cluster, and where each cluster's begin. */
let SORTED: usize = 0;
let STARTS: usize = 0;
/** Per block of queries: rows of the heavy keys, −1 where a slot has none. */
let HEAVY: usize = 0;
/** Of up to 64 queries of one cluster: queries, logits, sums, ω of a chunk. */
let X: usize = 0;
let LOGITS: usize = 0;
let ACC: usize = 0;
let OMEGA: usize = 0;
let CHOSEN: usize = 0;
let END: usize = 0;

// @ts-ignore: decorator
@inline
function padded(bytes: usize): usize {
  return (bytes + 15) & ~15;
}

/** Bytes of a block's heavy rows. */
function heavyBytes(p: usize): usize {
  return lines((far.heavy(p) + BLOCK - 1) / BLOCK);
}

function layOut(p: usize, scratch: usize): void {
  const rows = <usize> far.tileRows(p), column = rows << 2, choices = column * <usize> far.top(p);
  P = p;
  FIRSTS = scratch;
  LASTS = FIRSTS + column;
  TOPS = LASTS + column;
  TOTALS = TOPS + column;
  SCALES = TOTALS + column;
  CLUSTERS = SCALES + column;
  ESTIMATES = CLUSTERS + choices;
  SORTED = ESTIMATES + choices;
  STARTS = SORTED + choices;
  HEAVY = STARTS + padded(<usize> (far.clusters(p) + 1) << 2);
  SUMS = HEAVY + rows / BLOCK * heavyBytes(p);
  X = SUMS + rows * plan.valueLine(p);
  LOGITS = X + lines(plan.headDim(p));
  ACC = LOGITS + lines(BLOCK);
  OMEGA = ACC + <usize> BLOCK * plan.valueLine(p);
  CHOSEN = OMEGA + CHUNK_LINE;
  END = CHOSEN + padded(<usize> far.top(p) << 3);
}

/** Bytes of scratch memory for a call. */
export function topScratch(p: usize): usize {
  if (far.top(p) == 0) return 0;
  layOut(p, 0);
  return END;
}

/** A call begins. */
export function beginTop(p: usize, scratch: usize): void {
  layOut(p, scratch);
}

/**
 * Puts block `block` of the call's queries aside. `rows`: their lines; `field`: K̂e^{−M} per cluster, whose clusters have n = `moments`; `acc`: their
 * sums; `heavyRows`, `heavyOmega`: the heavy keys, which they have had.
 */
export function putAside(
  block: i32,
  rows: usize,
  field: usize,
  moments: usize,
  acc: usize,
  heavyRows: usize,
  heavyOmega: usize,
): void {
  const at = lines(block), wide = plan.valueLine(P), most = far.top(P);
  memory.copy(FIRSTS + at, rows + FIRST, LINE);
  memory.copy(LASTS + at, rows + LAST, LINE);
  memory.copy(TOPS + at, rows + TOP, LINE);
  memory.copy(TOTALS + at, rows + TOTAL, LINE);
  for (let i: usize = 0; i < LINE; i += 16) v128.store(SCALES + at + i, f32x4.splat(1));
  memory.copy(SUMS + <usize> (block * BLOCK) * wide, acc, <usize> BLOCK * wide);
  const heavy = HEAVY + <usize> block * heavyBytes(P);
  for (let i: usize = 0; i < heavyBytes(P); i += 16) {
    const taken = f32x4.gt(v128.load(heavyOmega + i), f32x4.splat(0));
    v128.store(heavy + i, v128.bitselect(v128.load(heavyRows + i), i32x4.splat(-1), taken));
  }
  for (let i = 0; i < BLOCK; i++) {
    const column = <usize> i << 2, to = (at + column) * <usize> most;
    const found = choose(field + column, moments);
    for (let c = 0; c < most; c++) {
      const g = c < found ? load<i32>(CHOSEN + (<usize> c << 3)) : -1;
      store<i32>(CLUSTERS + to + (<usize> c << 2), g);
      store<f32>(ESTIMATES + to + (<usize> c << 2), c < found ? load<f32>(field + lines(g) + column) : 0);
    }
  }
}

/** The clusters with the largest n K̂, the first of equals, largest first; returns how many have any. */
function choose(column: usize, moments: usize): i32 {
  const most = far.top(P);
  let found = 0;
  for (let g = 0, count = far.clusters(P); g < count; g++) {
    const mass = load<f32>(column + lines(g)) * load<f32>(moments + (<usize> g << 2));
    if (!(mass > 0) || (found == most && mass <= load<f32>(CHOSEN + (<usize> (most - 1) << 3), 4))) continue;
    let at = found < most ? found : most - 1;
    for (; at > 0 && load<f32>(CHOSEN + (<usize> (at - 1) << 3), 4) < mass; at--) {
      memory.copy(CHOSEN + (<usize> at << 3), CHOSEN + (<usize> (at - 1) << 3), 8);
    }
    store<i32>(CHOSEN + (<usize> at << 3), g);
    store<f32>(CHOSEN + (<usize> at << 3), mass, 4);
    if (found < most) found++;
  }
  return found;
}

/**
 * Adds the keys of the chosen clusters to the sums of the call's `n` queries, whose first is row `first` and lies at `q`. `directory`: the keys; causal:
 * those before a query's block. Returns how many pairs it looked at.
 */
export function addTop(n: i32, first: i32, q: usize, directory: usize): i32 {
  const count = far.clusters(P), most = far.top(P);
  sort(n * most);
  let taken = 0;
  for (let g = 0; g < count; g++) {
    const keys = load<i32>(directory + (<usize> g << 2));
    if (keys == 0) continue;
    const end = load<i32>(STARTS + (<usize> (g + 1) << 2));
    for (let from = load<i32>(STARTS + (<usize> g << 2)); from < end; from += BLOCK) {
      const chunk = <usize> load<i32>(directory + (<usize> (count + g) << 2));
      taken += addCluster(from, min(BLOCK, end - from), first, q, chunk, keys);
    }
  }
  return taken;
}

/** Choices by cluster: those of each in the order of queries. */
function sort(choices: i32): void {
  const count = far.clusters(P);
  memory.fill(STARTS, 0, <usize> (count + 1) << 2);
  for (let e = 0; e < choices; e++) {
    const g = load<i32>(CLUSTERS + (<usize> e << 2));
    if (g < 0) continue;
    const at = STARTS + (<usize> (g + 1) << 2);
    store<i32>(at, load<i32>(at) + 1);
  }
  // Ends of the clusters before, which placing moves on to their own.
  for (let g = 1; g < count; g++) {
    const at = STARTS + (<usize> (g + 1) << 2);
    store<i32>(at, load<i32>(at) + load<i32>(at - 4));
  }
  for (let g = count; g > 0; g--) store<i32>(STARTS + (<usize> g << 2), load<i32>(STARTS + (<usize> (g - 1) << 2)));
  for (let e = 0; e < choices; e++) {
    const g = load<i32>(CLUSTERS + (<usize> e << 2));
    if (g < 0) continue;
    const at = STARTS + (<usize> (g + 1) << 2), to = load<i32>(at);
    store<i32>(SORTED + (<usize> to << 2), e);
    store<i32>(at, to + 1);
  }
}

/** Query of the choice that stands at `at` of the sorted ones. */
// @ts-ignore: decorator
@inline
function queryAt(at: i32): i32 {
  return load<i32>(SORTED + (<usize> at << 2)) / far.top(P);
}

/** The keys of one cluster for `queries` ≤ 64 of its choices, those from `from` on. */
function addCluster(from: i32, queries: i32, first: i32, q: usize, chunk: usize, keys: i32): i32 {
  const d = plan.headDim(P), wide = plan.valueLine(P), even = (queries + 1) & ~1;
  gather(from, queries, even, q);
  const causal = far.causal(P);
  const latest = causal ? first + (queryAt(from + queries - 1) & ~(BLOCK - 1)) : i32.MAX_VALUE;
  let taken = 0;
  for (let left = keys; left > 0; left -= CHUNK) {
    const some = below(latest, chunk, min(CHUNK, left));
    if (some == 0) break;
    product<Columns, Set>(X, LINE, chunk + KEYS, CHUNK_LINE, LOGITS, LINE, even, CHUNK, d);
    let block = -1, seen = 0;
    for (let c = 0; c < queries; c++) {
      const query = queryAt(from + c);
      if (block < 0 || causal && query / BLOCK != block) {
        block = query / BLOCK;
        seen = below(causal ? first + block * BLOCK : i32.MAX_VALUE, chunk, some);
        takeWeights(chunk, seen, HEAVY + <usize> block * heavyBytes(P));
      }
      taken += seen;
      weighQuery(c, query, load<f32>(ESTIMATES + (<usize> load<i32>(SORTED + (<usize> (from + c) << 2)) << 2)), chunk + ROWS, some);
    }
    if (queries < even) memory.fill(LOGITS + lines(queries), 0, CHUNK_LINE);
    product<Rows, Add>(LOGITS, 4, chunk + valuesOf(P), wide, ACC, wide, even, plan.paddedValueDim(P), some);
    chunk = <usize> load<i32>(chunk);
  }
  for (let c = 0; c < queries; c++) {
    memory.copy(SUMS + <usize> queryAt(from + c) * wide, ACC + <usize> c * wide, wide);
  }
  return taken;
}

/** How many of the first `some` keys of a chunk stand before row `limit`. */
function below(limit: i32, chunk: usize, some: i32): i32 {
  while (some > 0 && load<i32>(chunk + ROWS + (<usize> (some - 1) << 2)) >= limit) some--;
  return some;
}

/** Scaled queries and their sums side by side; those that pad are 0. */
function gather(from: i32, queries: i32, even: i32, q: usize): void {
  const d = plan.headDim(P), wide = plan.valueLine(P), scale = far.scale(P);
  for (let c = 0; c < queries; c++) {
    const i = <usize> queryAt(from + c), row = q + i * plan.queryStep(P), to = X + (<usize> c << 2);
    for (let l = 0; l < d; l++) store<f32>(to + lines(l), scale * load<f32>(row + (<usize> l << 2)));
    memory.copy(ACC + <usize> c * wide, SUMS + i * wide, wide);
  }
  if (queries == even) return;
  for (let l = 0; l < d; l++) store<f32>(X + lines(l) + (<usize> queries << 2), 0);
  memory.fill(ACC + <usize> queries * wide, 0, wide);
}

/** ω of the first `some` keys of a chunk, 0 of those that are heavy and of the others. */
function takeWeights(chunk: usize, some: i32, heavy: usize): void {
  const bytes = <usize> some << 2;
  memory.copy(OMEGA, chunk + OMEGAS, bytes);
  memory.fill(OMEGA + bytes, 0, CHUNK_LINE - bytes);
  if (some == 0) return;
  const first = i32x4.splat(load<i32>(chunk + ROWS)), last = i32x4.splat(load<i32>(chunk + ROWS + bytes - 4));
  for (let slot: usize = 0, end = heavyBytes(P); slot < end; slot += 16) {
    const row = v128.load(heavy + slot);
    if (!v128.any_true(v128.and(i32x4.ge_s(row, first), i32x4.le_s(row, last)))) continue;
    for (let other: usize = 0; other < 16; other += 4) {
      for (let at: usize = 0; at < bytes; at += 4) {
        if (load<i32>(chunk + ROWS + at) == load<i32>(heavy + slot + other)) store<f32>(OMEGA + at, 0);
      }
    }
  }
}

/** Logits of the `c`-th query of a cluster with `some` keys become weights ω(e^{t−M} − K̂e^{−M}); M rises to the largest. */
function weighQuery(c: i32, query: i32, estimate: f32, keyRows: usize, some: i32): void {
  const column = <usize> query << 2;
  const first = v128.load32_splat(FIRSTS + column), last = v128.load32_splat(LASTS + column);
  const none = f32x4.splat(MASKED), logits = LOGITS + lines(c), end = <usize> ((some + 3) & ~3) << 2;
  let most = none;
  for (let at: usize = 0; at < end; at += 16) {
    const row = v128.load(keyRows + at);
    const inside = v128.and(i32x4.ge_s(row, first), i32x4.le_s(row, last)); // the window had it
    const seen = v128.andnot(f32x4.gt(v128.load(OMEGA + at), f32x4.splat(0)), inside);
    const t = v128.bitselect(v128.load(logits + at), none, seen);
    v128.store(logits + at, t);
    most = f32x4.pmax(most, t);
  }
  const before = load<f32>(TOPS + column), largest = maxOf(most);
  if (largest > before) {
    const factor = power((before - largest) * LOG2E);
    store<f32>(TOPS + column, largest);
    store<f32>(TOTALS + column, load<f32>(TOTALS + column) * factor);
    store<f32>(SCALES + column, load<f32>(SCALES + column) * factor);
    scaleLine(ACC + <usize> c * plan.valueLine(P), plan.valueLine(P), factor);
  }
  const top = v128.load32_splat(TOPS + column);
  const known = f32x4.splat(estimate * load<f32>(SCALES + column));
  let total = f32x4.splat(0);
  for (let at: usize = 0; at < end; at += 16) {
    const t = v128.load(logits + at);
    const share = exp2(f32x4.mul(f32x4.sub(t, top), f32x4.splat(LOG2E)));
    const w = v128.and(f32x4.mul(v128.load(OMEGA + at), f32x4.sub(share, known)), f32x4.gt(t, none));
    v128.store(logits + at, w);
    total = f32x4.add(total, w);
  }
  store<f32>(TOTALS + column, load<f32>(TOTALS + column) + sumOf(total));
}

/** Outputs and denominators of the call's `n` queries, the first of which goes to `out` and `denominators`. */
export function writeTop(n: i32, out: usize, denominators: usize): void {
  const wide = plan.valueLine(P);
  for (let i = 0; i < n; i++) {
    const at = <usize> i << 2, row = SUMS + <usize> i * wide;
    const total = load<f32>(TOPS + at) > NONE ? load<f32>(TOTALS + at) : 0;
    store<f32>(denominators + at * <usize> plan.heads(P), total);
    scaleLine(row, wide, total != 0 ? 1 / total : 0);
    memory.copy(out + <usize> i * plan.outputStep(P), row, <usize> plan.valueDim(P) << 2);
  }
}
