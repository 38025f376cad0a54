/**
 * Exact softmax (kernels/README.md §5) of held queries over a tile of keys: per block of 64 keys × 64 queries the logits,
 * p = 2^{t − M} with its sum in l, and o += pᵀ V. A stored M is raised only when a logit would exceed it by the plan's slack.
 *
 * Versions:
 *   1  (this)  Measured, one thread, 1,024 queries × 1,024 keys × 8 heads, d = d_v = 64, AMD Zen 5 (ms, Bun 2 × 4 / Deno 6 × 2, relaxed):
 *                pack 0.8 / 0.6, logits 23.4 / 20.1, exp 8.3 / 8.9, o 23.4 / 20.9; in all 38 / 42 GFLOP/s
 *
 * Held per (head, block of 64 queries): queries transposed and scaled (d lines), M, l, o (64 padded value rows).
 */
import { exp2, maxOf } from "./exponential";
import { BLOCK, clearMasked, LINE, MASKED, NONE, packTransposed, packValues, rowExponents } from "./pack";
import * as plan from "./plan";
import { Add, Columns, product, Set } from "./product";
import { ACCUMULATE, begin, EXP, FEATURES, mark, PACK } from "./profile";
import { lines } from "./state";

/** Bytes held per head and block of 64 queries. */
export function heldBytes(p: usize): usize {
  return lines(plan.headDim(p)) + 2 * LINE + <usize> BLOCK * plan.valueLine(p);
}

/** Holds `rows` queries of one head; forgets all keys. `held`: the head's first block. */
export function pose(p: usize, head: i32, q: usize, rows: i32, held: usize): void {
  const d = plan.headDim(p), step = plan.queryStep(p);
  const scale = f32x4.splat(plan.logitScale(p));
  q += <usize> (head * d) << 2;
  for (let row = 0; row < rows; row += BLOCK) {
    packTransposed(q + <usize> row * step, step, min(BLOCK, rows - row), d, held);
    for (let at = held, end = held + lines(d); at < end; at += 16) {
      v128.store(at, f32x4.mul(v128.load(at), scale));
    }
    forget(p, held);
    held += heldBytes(p);
  }
}

/** M = NONE, l = 0, o = 0 of one block. */
export function forget(p: usize, held: usize): void {
  const top = held + lines(plan.headDim(p));
  for (let i: usize = 0; i < LINE; i += 16) v128.store(top + i, f32x4.splat(NONE));
  memory.fill(top + LINE, 0, LINE + <usize> BLOCK * plan.valueLine(p));
}

/** Bytes of scratch memory for `absorb`. */
export function exactScratch(p: usize): usize {
  return lines(plan.headDim(p)) + <usize> BLOCK * plan.valueLine(p) + LINE + lines(2 * BLOCK);
}

/**
 * Adds rows `from … to − 1` of key head `keyHead` to the held queries of one head, blocks `firstBlock … endBlock − 1`.
 * `limits`: 0, or one int32 per held query: it sees rows ≤ limit of this tile.
 */
export function absorb(
  p: usize,
  keyHead: i32,
  k: usize,
  v: usize,
  log2Weights: usize,
  from: i32,
  to: i32,
  held: usize,
  firstBlock: i32,
  endBlock: i32,
  limits: usize,
  scratch: usize,
): void {
  begin();
  const d = plan.headDim(p), dv = plan.valueDim(p), padded = plan.paddedValueDim(p), line = plan.valueLine(p);
  const keyStep = plan.keyStep(p), valueStep = plan.valueStep(p);
  const slack = plan.slack(p);
  const x = scratch;
  const values = x + lines(d);
  const e = values + <usize> BLOCK * line;
  const logits = e + LINE;
  const weights = logits + lines(BLOCK);
  k += <usize> (keyHead * d) << 2;
  v += <usize> (keyHead * dv) << 2;
  for (let row = from; row < to; row += BLOCK) {
    const n = min(BLOCK, to - row), even = (n + 1) & ~1;
    packTransposed(k + <usize> row * keyStep, keyStep, n, d, x);
    packValues(v + <usize> row * valueStep, valueStep, n, dv, padded, values);
    const logs = log2Weights ? log2Weights + (<usize> row << 2) : 0;
    if (logs) clearMasked(x, d, values, line, logs, n);
    rowExponents(x, d, 0, logs, n, e);
    mark(PACK);
    for (let block = firstBlock; block < endBlock; block++) {
      const queries = held + <usize> block * heldBytes(p);
      const top = queries + lines(d), total = top + LINE, sums = total + LINE;
      const seen = limits ? limits + lines(block) : 0;
      if (seen && highest(seen) < row) continue;
      product<Columns, Set>(x, LINE, queries, LINE, logits, LINE, even, BLOCK, d);
      mark(FEATURES);
      if (!weigh(logits, e, n, seen, row, top, total, weights, slack)) {
        raiseTops(logits, e, n, seen, row, top, total, sums, line);
        weigh(logits, e, n, seen, row, top, total, weights, slack);
      }
      mark(EXP);
      product<Columns, Add>(weights, LINE, values, line, sums, line, BLOCK, padded, n);
      mark(ACCUMULATE);
    }
  }
}

/** Largest of 64 int32. */
function highest(at: usize): i32 {
  let most = i32x4.splat(i32.MIN_VALUE);
  for (let i: usize = 0; i < LINE; i += 16) most = i32x4.max_s(most, v128.load(at + i));
  const a = max(i32x4.extract_lane(most, 0), i32x4.extract_lane(most, 1));
  return max(a, max(i32x4.extract_lane(most, 2), i32x4.extract_lane(most, 3)));
}

/** Logit plus the key's exponent; MASKED where a query may not see key `row + j`. */
// @ts-ignore: decorator
@inline
function logitOf(logit: usize, e: v128, seen: usize, row: i32): v128 {
  const t = f32x4.add(v128.load(logit), e);
  if (!seen) return t;
  return v128.bitselect(t, f32x4.splat(MASKED), i32x4.ge_s(v128.load(seen), i32x4.splat(row)));
}

/** weights = 2^{t − M} with sums added to `total`; false, and nothing added, if some t exceeds its M by `slack`. */
function weigh(
  logits: usize,
  e: usize,
  n: i32,
  seen: usize,
  row: i32,
  top: usize,
  total: usize,
  weights: usize,
  slack: f32,
): bool {
  let excess = f32x4.splat(MASKED);
  for (let i: usize = 0; i < LINE; i += 16) {
    const shift = v128.load(top + i);
    for (let j = 0; j < n; j++) {
      const at = lines(j) + i;
      const e0 = v128.load32_splat(e + (<usize> j << 2));
      const x = f32x4.sub(logitOf(logits + at, e0, seen ? seen + i : 0, row + j), shift);
      excess = f32x4.pmax(excess, x);
      v128.store(weights + at, exp2(x));
    }
  }
  if (maxOf(excess) > slack) return false;
  for (let i: usize = 0; i < LINE; i += 16) {
    let sum = v128.load(total + i);
    for (let j = 0; j < n; j++) sum = f32x4.add(sum, v128.load(weights + lines(j) + i));
    v128.store(total + i, sum);
  }
  return true;
}

/** M = max(M, logits), with l and o rescaled. */
function raiseTops(
  logits: usize,
  e: usize,
  n: i32,
  seen: usize,
  row: i32,
  top: usize,
  total: usize,
  sums: usize,
  line: usize,
): void {
  for (let i: usize = 0; i < LINE; i += 16) {
    const before = v128.load(top + i);
    let after = before;
    for (let j = 0; j < n; j++) {
      const e0 = v128.load32_splat(e + (<usize> j << 2));
      after = f32x4.pmax(after, logitOf(logits + lines(j) + i, e0, seen ? seen + i : 0, row + j));
    }
    v128.store(top + i, after);
    const factors = exp2(f32x4.sub(before, after));
    v128.store(total + i, f32x4.mul(v128.load(total + i), factors));
    scaleRow(sums, line, f32x4.extract_lane(factors, 0));
    scaleRow(sums + line, line, f32x4.extract_lane(factors, 1));
    scaleRow(sums + 2 * line, line, f32x4.extract_lane(factors, 2));
    scaleRow(sums + 3 * line, line, f32x4.extract_lane(factors, 3));
    sums += 4 * line;
  }
}

function scaleRow(row: usize, line: usize, factor: f32): void {
  if (factor == 1) return;
  const f = f32x4.splat(factor);
  for (let at = row, end = row + line; at < end; at += 16) v128.store(at, f32x4.mul(v128.load(at), f));
}
