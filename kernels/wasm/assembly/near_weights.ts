/**
 * Weights of near keys (near_far.ts): logits, one line of 64 queries per key, become t = x·y − shift, then ω(e^{t−M} − K̂e^{−M}).
 * Four queries stay in registers while the keys of a part pass by.
 */
import { exp2, LOG2E } from "./exponential";
import * as far from "./far_plan";
import { LINE, MASKED } from "./pack";
import { madd } from "./product";
import { lines } from "./state";

/** Lines of a block of queries: first and last row that is near by its place; M; Σ weights; shift; K̂'s constant; e^{−M}. */
export const FIRST: usize = 0;
export const LAST: usize = LINE;
export const TOP: usize = 2 * LINE;
export const TOTAL: usize = 3 * LINE;
export const SHIFT: usize = 4 * LINE;
export const CONSTANT: usize = 5 * LINE;
export const FAR: usize = 6 * LINE;
export const ROW_LINES: i32 = 7;

/** Ways to weigh a key: in the window; in a causal block of its own, with a K̂ outside the window or always exactly; heavy. */
export const WINDOW: i32 = 0;
export const OWN: i32 = 1;
export const OWN_EXACT: i32 = 2;
export const HEAVY: i32 = 3;

/** Keys of one kind with one range of queries. Numbers: kind, first row (heavy: slot), keys, first and end query, first line. */
export const PART_BYTES: usize = 24;

export function writePart(part: usize, kind: i32, row: i32, n: i32, from: i32, to: i32, line: i32): void {
  store<i32>(part, kind);
  store<i32>(part, row, 4);
  store<i32>(part, n, 8);
  store<i32>(part, from, 12);
  store<i32>(part, to, 16);
  store<i32>(part, line, 20);
}
export function partKind(part: usize): i32 {
  return load<i32>(part);
}
export function partRow(part: usize): i32 {
  return load<i32>(part, 4);
}
export function partKeys(part: usize): i32 {
  return load<i32>(part, 8);
}
/** First and end query in bytes of a line. */
export function partFrom(part: usize): usize {
  return <usize> load<i32>(part, 12) << 2;
}
export function partTo(part: usize): usize {
  return <usize> load<i32>(part, 16) << 2;
}
export function partLine(part: usize): i32 {
  return load<i32>(part, 20);
}

/** Whether four queries see key `row`. Heavy keys count where the window does not have them. */
// @ts-ignore: decorator
@inline
function seenBy(kind: i32, row: i32, first: v128, last: v128): v128 {
  const r = i32x4.splat(row);
  const before = i32x4.le_s(r, last);
  if (kind == OWN || kind == OWN_EXACT) return before;
  const inside = v128.and(before, i32x4.ge_s(r, first));
  return kind == HEAVY ? v128.not(inside) : inside;
}

/**
 * Logits of a part become t, MASKED where a query does not see the key, for four queries; returns the largest. `heavyRows`: the row of each
 * heavy slot. `omega`: ω per line.
 */
export function maskPart(part: usize, rows: usize, at: usize, logits: usize, omega: usize, heavyRows: usize): v128 {
  const kind = partKind(part), row = partRow(part), n = partKeys(part);
  const first = v128.load(rows + FIRST + at), last = v128.load(rows + LAST + at), shift = v128.load(rows + SHIFT + at);
  const none = f32x4.splat(MASKED);
  let logit = logits + lines(partLine(part)) + at, weight = omega + (<usize> partLine(part) << 2);
  let top = none;
  for (let j = 0; j < n; j++) {
    const key = kind == HEAVY ? load<i32>(heavyRows + (<usize> (row + j) << 2)) : row + j;
    const counts = f32x4.gt(v128.load32_splat(weight), f32x4.splat(0));
    const seen = v128.and(seenBy(kind, key, first, last), counts);
    const t = v128.bitselect(f32x4.sub(v128.load(logit), shift), none, seen);
    v128.store(logit, t);
    top = f32x4.pmax(top, t);
    logit += LINE;
    weight += 4;
  }
  return top;
}

/** e^{t − M}; 0 where t is MASKED. */
// @ts-ignore: decorator
@inline
function share(t: v128, top: v128): v128 {
  return exp2(f32x4.mul(f32x4.sub(t, top), f32x4.splat(LOG2E)));
}

/** Without a far field. */
export function weighAlone(part: usize, rows: usize, logits: usize, omega: usize): void {
  const n = partKeys(part);
  for (let at = partFrom(part), end = partTo(part); at < end; at += 16) {
    const top = v128.load(rows + TOP + at);
    let total = v128.load(rows + TOTAL + at);
    let logit = logits + lines(partLine(part)) + at, weight = omega + (<usize> partLine(part) << 2);
    for (let j = 0; j < n; j++) {
      const w = f32x4.mul(share(v128.load(logit), top), v128.load32_splat(weight));
      v128.store(logit, w);
      total = f32x4.add(total, w);
      logit += LINE;
      weight += 4;
    }
    v128.store(rows + TOTAL + at, total);
  }
}

/** With K̂ = constant + t + square · t². */
export function weighTaylor(part: usize, rows: usize, logits: usize, omega: usize, square: f32): void {
  const n = partKeys(part);
  const none = f32x4.splat(MASKED), one = f32x4.splat(1), factor = f32x4.splat(square);
  for (let at = partFrom(part), end = partTo(part); at < end; at += 16) {
    const top = v128.load(rows + TOP + at), constant = v128.load(rows + CONSTANT + at), scale = v128.load(rows + FAR + at);
    let total = v128.load(rows + TOTAL + at);
    let logit = logits + lines(partLine(part)) + at, weight = omega + (<usize> partLine(part) << 2);
    for (let j = 0; j < n; j++) {
      const t = v128.load(logit);
      const estimate = f32x4.mul(madd(constant, t, madd(one, factor, t)), scale);
      const near = f32x4.sub(share(t, top), v128.and(estimate, f32x4.gt(t, none)));
      const w = f32x4.mul(near, v128.load32_splat(weight));
      v128.store(logit, w);
      total = f32x4.add(total, w);
      logit += LINE;
      weight += 4;
    }
    v128.store(rows + TOTAL + at, total);
  }
}

/** Keys of the block itself: e^t in the window, K̂ outside, and nothing is taken away, as no sum holds them. */
export function weighOwn(part: usize, rows: usize, logits: usize, omega: usize, square: f32): void {
  const n = partKeys(part), row = partRow(part);
  const none = f32x4.splat(MASKED), one = f32x4.splat(1), factor = f32x4.splat(square);
  for (let at = partFrom(part), end = partTo(part); at < end; at += 16) {
    const top = v128.load(rows + TOP + at), constant = v128.load(rows + CONSTANT + at), scale = v128.load(rows + FAR + at);
    const first = v128.load(rows + FIRST + at);
    let total = v128.load(rows + TOTAL + at);
    let logit = logits + lines(partLine(part)) + at, weight = omega + (<usize> partLine(part) << 2);
    for (let j = 0; j < n; j++) {
      const t = v128.load(logit);
      const estimate = f32x4.mul(madd(constant, t, madd(one, factor, t)), scale);
      const outside = v128.and(estimate, f32x4.gt(t, none));
      const inside = i32x4.ge_s(i32x4.splat(row + j), first);
      const w = f32x4.mul(v128.bitselect(share(t, top), outside, inside), v128.load32_splat(weight));
      v128.store(logit, w);
      total = f32x4.add(total, w);
      logit += LINE;
      weight += 4;
    }
    v128.store(rows + TOTAL + at, total);
  }
}

/** With the line of a key's cluster (`ids`, one per line) as its K̂e^{−M}. */
export function weighClusters(part: usize, rows: usize, logits: usize, omega: usize, ids: usize, field: usize): void {
  const n = partKeys(part), corrected = partKind(part) != OWN_EXACT;
  const none = f32x4.splat(MASKED);
  for (let at = partFrom(part), end = partTo(part); at < end; at += 16) {
    const top = v128.load(rows + TOP + at);
    let total = v128.load(rows + TOTAL + at);
    let logit = logits + lines(partLine(part)) + at, weight = omega + (<usize> partLine(part) << 2);
    let id = ids + (<usize> partLine(part) << 2);
    for (let j = 0; j < n; j++) {
      const t = v128.load(logit);
      let near = share(t, top);
      if (corrected) {
        near = f32x4.sub(near, v128.and(v128.load(field + lines(load<i32>(id)) + at), f32x4.gt(t, none)));
      }
      const w = f32x4.mul(near, v128.load32_splat(weight));
      v128.store(logit, w);
      total = f32x4.add(total, w);
      logit += LINE;
      weight += 4;
      id += 4;
    }
    v128.store(rows + TOTAL + at, total);
  }
}

/** Which way a part is weighed. */
export function weigh(
  p: usize,
  part: usize,
  rows: usize,
  logits: usize,
  omega: usize,
  ids: usize,
  field: usize,
): void {
  const kind = far.kind(p);
  const square: f32 = far.ofOrder2(p) ? 0.5 : 0;
  if (kind == far.NO_FAR) weighAlone(part, rows, logits, omega);
  else if (kind == far.CLUSTERS) weighClusters(part, rows, logits, omega, ids, field);
  else if (partKind(part) == OWN) weighOwn(part, rows, logits, omega, square);
  else weighTaylor(part, rows, logits, omega, square);
}
