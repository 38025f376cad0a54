/**
 * The keys of a query's heaviest clusters, exactly. Queries choose clusters of their own; those of a block that chose the same one take its
 * keys together, 32 at a time: logits are one product, as are the sums.
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
 *   2  (this)  products over the queries of a cluster, lists that grow as keys pass by.
 */
import { exp2, LOG2E, maxOf, sumOf } from "./exponential";
import { scaleLine } from "./far_keys";
import * as far from "./far_plan";
import { BLOCK, LINE, MASKED } from "./pack";
import * as plan from "./plan";
import { Add, Columns, product, Rows, Set } from "./product";
import { FAR, FIRST, LAST, TOP, TOTAL } from "./near_weights";
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

/** What the queries of one cluster share. */
let P: usize = 0;
let X: usize = 0;
let LOGITS: usize = 0;
let OMEGA: usize = 0;
let ACC: usize = 0;
let QUERIES: usize = 0;

function maskBytes(p: usize): usize {
  return (<usize> (far.clusters(p) << 3) + 15) & ~15;
}

function chosenBytes(p: usize): usize {
  return (<usize> (far.top(p) << 3) + 15) & ~15;
}

/** Bytes of scratch memory: who chose which cluster, its queries and their logits and sums. */
export function topScratch(p: usize): usize {
  if (far.top(p) == 0) return 0;
  return maskBytes(p) + chosenBytes(p) + lines(plan.headDim(p)) + lines(BLOCK) + CHUNK_LINE + LINE +
    <usize> BLOCK * plan.valueLine(p);
}

/**
 * Adds the keys of the top clusters to the sums of `n` queries. `x`: queries; `rows`: their lines; `field`: K̂e^{−M} per cluster, whose
 * clusters have n = `moments`; `directory`: the keys, of which those below row `limit` count. Keys of weight > 0 in the `heavy` slots, whose rows and
 * weights are given, were taken before. Returns how many pairs it looked at.
 */
export function addTop(
  p: usize,
  n: i32,
  x: usize,
  rows: usize,
  field: usize,
  moments: usize,
  directory: usize,
  limit: i32,
  heavy: i32,
  heavyRows: usize,
  heavyOmega: usize,
  acc: usize,
  scratch: usize,
): i32 {
  const d = plan.headDim(p), wide = plan.valueLine(p), count = far.clusters(p);
  const masks = scratch, chosen = masks + maskBytes(p);
  P = p;
  X = chosen + chosenBytes(p);
  LOGITS = X + lines(d);
  OMEGA = LOGITS + lines(BLOCK);
  QUERIES = OMEGA + CHUNK_LINE;
  ACC = QUERIES + LINE;
  memory.fill(masks, 0, maskBytes(p));
  for (let i = 0; i < n; i++) {
    const found = choose(p, field + (<usize> i << 2), moments, chosen);
    for (let c = 0; c < found; c++) {
      const mask = masks + (<usize> load<i32>(chosen + (<usize> c << 3)) << 3);
      store<u64>(mask, load<u64>(mask) | (<u64> 1 << i));
    }
  }
  // M may rise from here on: by how much K̂e^{−M} shrinks with it.
  for (let i: usize = 0; i < LINE; i += 16) v128.store(rows + FAR + i, f32x4.splat(1));
  let taken = 0;
  for (let g = 0; g < count; g++) {
    let mask = load<u64>(masks + (<usize> g << 3)), left = load<i32>(directory + (<usize> g << 2));
    if (mask == 0 || left == 0) continue;
    let queries = 0;
    for (; mask != 0; mask &= mask - 1, queries++) store<i32>(QUERIES + (<usize> queries << 2), <i32> ctz(mask));
    const even = (queries + 1) & ~1;
    gather(queries, even, x, acc);
    let chunk = <usize> load<i32>(directory + (<usize> (count + g) << 2));
    while (left > 0) {
      let some = min(CHUNK, left);
      while (some > 0 && load<i32>(chunk + ROWS + (<usize> (some - 1) << 2)) >= limit) some--;
      if (some == 0) break;
      takeWeights(chunk, some, heavy, heavyRows, heavyOmega);
      product<Columns, Set>(X, LINE, chunk + KEYS, CHUNK_LINE, LOGITS, LINE, even, CHUNK, d);
      for (let c = 0; c < queries; c++) weighQuery(c, chunk + ROWS, some, rows, field + lines(g));
      if (queries < even) memory.fill(LOGITS + lines(queries), 0, CHUNK_LINE);
      product<Rows, Add>(LOGITS, 4, chunk + valuesOf(p), wide, ACC, wide, even, plan.paddedValueDim(p), some);
      taken += some * queries;
      left -= CHUNK;
      chunk = <usize> load<i32>(chunk);
    }
    for (let c = 0; c < queries; c++) {
      memory.copy(acc + <usize> load<i32>(QUERIES + (<usize> c << 2)) * wide, ACC + <usize> c * wide, wide);
    }
  }
  return taken;
}

/** The clusters with the largest n K̂, the first of equals, largest first; returns how many have any. */
function choose(p: usize, column: usize, moments: usize, chosen: usize): i32 {
  const most = far.top(p);
  let found = 0;
  for (let g = 0, count = far.clusters(p); g < count; g++) {
    const mass = load<f32>(column + lines(g)) * load<f32>(moments + (<usize> g << 2));
    if (!(mass > 0) || (found == most && mass <= load<f32>(chosen + (<usize> (most - 1) << 3), 4))) continue;
    let at = found < most ? found : most - 1;
    for (; at > 0 && load<f32>(chosen + (<usize> (at - 1) << 3), 4) < mass; at--) {
      memory.copy(chosen + (<usize> at << 3), chosen + (<usize> (at - 1) << 3), 8);
    }
    store<i32>(chosen + (<usize> at << 3), g);
    store<f32>(chosen + (<usize> at << 3), mass, 4);
    if (found < most) found++;
  }
  return found;
}

/** Queries and sums of those that chose the cluster, side by side; those that pad are 0. */
function gather(queries: i32, even: i32, x: usize, acc: usize): void {
  const d = plan.headDim(P), wide = plan.valueLine(P);
  for (let c = 0; c < queries; c++) {
    const i = <usize> load<i32>(QUERIES + (<usize> c << 2));
    const from = x + (i << 2), to = X + (<usize> c << 2);
    for (let l = 0; l < d; l++) store<f32>(to + lines(l), load<f32>(from + lines(l)));
    memory.copy(ACC + <usize> c * wide, acc + i * wide, wide);
  }
  if (queries == even) return;
  for (let l = 0; l < d; l++) store<f32>(X + lines(l) + (<usize> queries << 2), 0);
  memory.fill(ACC + <usize> queries * wide, 0, wide);
}

/** ω of the first `some` keys of a chunk, 0 of those that are heavy and of the others. */
function takeWeights(chunk: usize, some: i32, heavy: i32, heavyRows: usize, heavyOmega: usize): void {
  const bytes = <usize> some << 2;
  memory.copy(OMEGA, chunk + OMEGAS, bytes);
  memory.fill(OMEGA + bytes, 0, CHUNK_LINE - bytes);
  const first = load<i32>(chunk + ROWS), last = load<i32>(chunk + ROWS + bytes - 4);
  for (let slot = 0; slot < heavy; slot++) {
    const row = load<i32>(heavyRows + (<usize> slot << 2));
    if (row < first || row > last || !(load<f32>(heavyOmega + (<usize> slot << 2)) > 0)) continue;
    for (let at: usize = 0; at < bytes; at += 4) {
      if (load<i32>(chunk + ROWS + at) == row) store<f32>(OMEGA + at, 0);
    }
  }
}

/** Logits of query `c` of the cluster with `some` keys become weights ω(e^{t−M} − K̂e^{−M}); M rises to the largest. `field`: the cluster's line. */
function weighQuery(c: i32, keyRows: usize, some: i32, rows: usize, field: usize): void {
  const column = <usize> load<i32>(QUERIES + (<usize> c << 2)) << 2;
  const first = v128.load32_splat(rows + FIRST + column), last = v128.load32_splat(rows + LAST + column);
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
  const before = load<f32>(rows + TOP + column), largest = maxOf(most);
  if (largest > before) {
    const factor = power((before - largest) * LOG2E);
    store<f32>(rows + TOP + column, largest);
    store<f32>(rows + TOTAL + column, load<f32>(rows + TOTAL + column) * factor);
    store<f32>(rows + FAR + column, load<f32>(rows + FAR + column) * factor);
    scaleLine(ACC + <usize> c * plan.valueLine(P), plan.valueLine(P), factor);
  }
  const top = v128.load32_splat(rows + TOP + column);
  const estimate = f32x4.splat(load<f32>(field + column) * load<f32>(rows + FAR + column));
  let total = f32x4.splat(0);
  for (let at: usize = 0; at < end; at += 16) {
    const t = v128.load(logits + at);
    const share = exp2(f32x4.mul(f32x4.sub(t, top), f32x4.splat(LOG2E)));
    const w = v128.and(f32x4.mul(v128.load(OMEGA + at), f32x4.sub(share, estimate)), f32x4.gt(t, none));
    v128.store(logits + at, w);
    total = f32x4.add(total, w);
  }
  store<f32>(rows + TOTAL + column, load<f32>(rows + TOTAL + column) + sumOf(total));
}
