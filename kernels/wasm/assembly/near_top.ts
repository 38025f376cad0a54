/**
 * The keys of a query's heaviest clusters, exactly (bidirectional): each query has its own, so that they are taken query by query, four
 * logits at a time, from keys that lie grouped by cluster.
 *
 * Store of one key head, numbers of 4 bytes: `clusters + 1` offsets, then per key its row and its ω, rows of keys (d padded to 4), and value
 * lines. Keys that are heavy are left out of it.
 */
import { exp2, LOG2E, sumOf } from "./exponential";
import { scaleLine } from "./far_keys";
import * as far from "./far_plan";
import { LINE, MASKED, NONE } from "./pack";
import * as plan from "./plan";
import { FIRST, LAST, TOP, TOTAL } from "./near_weights";
import { lines, power } from "./state";

/** Keys whose logits are kept together. */
const CHUNK: i32 = 512;

/** Bytes of scratch memory: a query, logits, and the chosen clusters with their masses. */
export function topScratch(p: usize): usize {
  return far.rowBytes(p) + <usize> (CHUNK << 2) + <usize> (far.top(p) << 3) + 16;
}

function rowsOf(p: usize, store: usize): usize {
  return store + (<usize> (far.clusters(p) + 1) << 2);
}

/** Adds the keys of the top clusters to the sums of query `i` of the block. `field`: K̂e^{−M} per cluster; `moments`: its n. Returns how many keys it looked at. */
export function addTop(
  p: usize,
  i: i32,
  x: usize,
  rows: usize,
  field: usize,
  moments: usize,
  grouped: usize,
  acc: usize,
  scratch: usize,
): i32 {
  const d = plan.headDim(p), bytes = far.rowBytes(p), column = <usize> i << 2;
  const query = scratch, logits = query + bytes, chosen = logits + <usize> (CHUNK << 2);
  memory.fill(query, 0, bytes);
  for (let l = 0; l < d; l++) store<f32>(query + (<usize> l << 2), load<f32>(x + lines(l) + column));
  const found = choose(p, field + column, moments, chosen);
  const total = load<i32>(grouped + (<usize> far.clusters(p) << 2));
  const keyRows = rowsOf(p, grouped), omegas = keyRows + (<usize> total << 2);
  const keys = (omegas + (<usize> total << 2) + 15) & ~15, values = keys + <usize> total * bytes;
  let taken = 0;
  for (let c = 0; c < found; c++) {
    const g = load<i32>(chosen + (<usize> c << 3));
    const end = load<i32>(grouped + (<usize> (g + 1) << 2));
    for (let from = load<i32>(grouped + (<usize> g << 2)); from < end; from += CHUNK) {
      const n = min(CHUNK, end - from);
      taken += n;
      const top = logitsOf(p, query, keys + <usize> from * bytes, keyRows + (<usize> from << 2), n, rows, column, logits);
      raiseTop(p, top, rows, column, field, acc + <usize> i * plan.valueLine(p));
      addKeys(p, n, logits, omegas + (<usize> from << 2), values + <usize> from * plan.valueLine(p), rows, column, load<f32>(
        field + lines(g) + column,
      ), acc + <usize> i * plan.valueLine(p));
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

/** x·y of n keys, MASKED where the window has them already; returns the largest. */
function logitsOf(
  p: usize,
  query: usize,
  keys: usize,
  keyRows: usize,
  n: i32,
  rows: usize,
  column: usize,
  logits: usize,
): f32 {
  const bytes = far.rowBytes(p);
  const first = load<i32>(rows + FIRST + column), last = load<i32>(rows + LAST + column);
  let top = NONE;
  for (let j = 0; j < n; j++) {
    const at = <usize> j << 2;
    const row = load<i32>(keyRows + at);
    let t = MASKED;
    if (row < first || row > last) {
      let sum = f32x4.splat(0);
      const key = keys + <usize> j * bytes;
      for (let l: usize = 0; l < bytes; l += 16) {
        sum = f32x4.add(sum, f32x4.mul(v128.load(query + l), v128.load(key + l)));
      }
      t = sumOf(sum);
      top = max(top, t);
    }
    store<f32>(logits + at, t);
  }
  for (let j = n; j & 3; j++) store<f32>(logits + (<usize> j << 2), MASKED);
  return top;
}

/** M of one query rises to `top`; what it has summed is rescaled. */
function raiseTop(p: usize, top: f32, rows: usize, column: usize, field: usize, row: usize): void {
  const before = load<f32>(rows + TOP + column);
  if (top <= before) return;
  const factor = power((before - top) * LOG2E);
  store<f32>(rows + TOP + column, top);
  store<f32>(rows + TOTAL + column, load<f32>(rows + TOTAL + column) * factor);
  scaleLine(row, plan.valueLine(p), factor);
  for (let g = 0, count = far.clusters(p); g < count; g++) {
    const at = field + lines(g) + column;
    store<f32>(at, load<f32>(at) * factor);
  }
}

/** Adds ω(e^{t−M} − estimate) v of n keys. */
function addKeys(
  p: usize,
  n: i32,
  logits: usize,
  omegas: usize,
  values: usize,
  rows: usize,
  column: usize,
  estimate: f32,
  row: usize,
): void {
  const wide = plan.valueLine(p);
  const top = f32x4.splat(load<f32>(rows + TOP + column)), all = f32x4.splat(estimate);
  let total = f32x4.splat(0);
  for (let j = 0; j < n; j += 4) {
    const at = <usize> j << 2;
    const t = v128.load(logits + at);
    const seen = f32x4.gt(t, f32x4.splat(MASKED));
    const share = exp2(f32x4.mul(f32x4.sub(t, top), f32x4.splat(LOG2E)));
    const w = v128.and(f32x4.mul(v128.load(omegas + at), f32x4.sub(share, all)), seen);
    v128.store(logits + at, w);
    total = f32x4.add(total, w);
  }
  store<f32>(rows + TOTAL + column, load<f32>(rows + TOTAL + column) + sumOf(total));
  for (let c: usize = 0; c < wide; c += 64) {
    let a = v128.load(row + c), b = v128.load(row + c, 16), e = v128.load(row + c, 32), f = v128.load(row + c, 48);
    let value = values + c;
    for (let j = 0; j < n; j++) {
      const w = v128.load32_splat(logits + (<usize> j << 2));
      a = f32x4.add(a, f32x4.mul(w, v128.load(value)));
      b = f32x4.add(b, f32x4.mul(w, v128.load(value, 16)));
      e = f32x4.add(e, f32x4.mul(w, v128.load(value, 32)));
      f = f32x4.add(f, f32x4.mul(w, v128.load(value, 48)));
      value += wide;
    }
    v128.store(row + c, a);
    v128.store(row + c, b, 16);
    v128.store(row + c, e, 32);
    v128.store(row + c, f, 48);
  }
}
