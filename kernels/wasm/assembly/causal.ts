/**
 * Causal pass (kernels/README.md §4), in chunks of 64 rows: rows of a chunk see each other through G = tril(Q' K'ᵀ) and earlier
 * rows through the running state; then the chunk's keys join the state.
 *
 * Two states per unit: `run` holds everything before the chunk and answers queries; `own` holds the tile's keys alone, for the
 * host to merge in float64, so that float32 drift does not grow with the number of tiles. Both share c.
 *
 * Versions:
 *   1  (this)  G only where a block of 16 keys meets rows that may see it: 62 % of the square; 64 features at a time, so that
 *              features, S and G stay in the first-level cache.
 *              Measured, one thread, 1,024 rows × 8 heads, d = d_v = 64, r = 256, AMD Zen 5 (ms, Bun 2 × 4 / Deno 6 × 2, relaxed):
 *                pack 1.0 / 1.2, features 11.8 / 11.2, exp 4.9 / 4.8, G, S and sums 16.8 / 15.4; 31 / 34 GFLOP/s of FAVOR+ itself
 */
import { BLOCK, clearMasked, LINE, packTransposed, packValues, rowExponents } from "./pack";
import { keyPanel, keyRows } from "./keys";
import * as plan from "./plan";
import { Add, Columns, product, Rows, Set } from "./product";
import { ACCUMULATE, begin, EMIT, EXP, FEATURES, mark, PACK } from "./profile";
import { project } from "./project";
import { finish, partBytes, queryLines, queryTops } from "./queries";
import { addInto, lanesOf, lines, slotsOf } from "./state";

const STEP: i32 = 64;
/** Keys per block of G. */
const SQUARE: i32 = 16;

/** Bytes of scratch memory for a unit of `count` projections. */
export function causalScratch(p: usize, count: i32): usize {
  const line = plan.valueLine(p);
  return lines(max(plan.headDim(p), plan.hadamardSize(p))) + 2 * <usize> BLOCK * line + 4 * LINE +
    lines(plan.panel(p)) +
    lines(2 * slotsOf(p, count)) + lines(BLOCK) + <usize> plan.panel(p) * line + <usize> slotsOf(p, count) * 4;
}

/**
 * Outputs of `rows` rows of the query heads of key head `head` over `run` and their own earlier rows; `run` and `own` move past them.
 * `group`: query heads per key head. Parts of query head g of the group lie `g · partStride` bytes on.
 */
export function causal(
  p: usize,
  head: i32,
  group: i32,
  matrix: i32,
  first: i32,
  count: i32,
  q: usize,
  k: usize,
  v: usize,
  log2Weights: usize,
  rows: i32,
  run: usize,
  own: usize,
  out: usize,
  denominators: usize,
  parts: usize,
  partStride: usize,
  scratch: usize,
): void {
  begin();
  const d = plan.headDim(p), dv = plan.valueDim(p), padded = plan.paddedValueDim(p);
  const line = plan.valueLine(p), panel = plan.panel(p), signs = plan.perProjection(p);
  const lanes = lanesOf(p, count), slots = slotsOf(p, count);
  const also = own - run;
  const x = scratch;
  const values = x + lines(max(d, plan.hadamardSize(p)));
  const num = values + <usize> BLOCK * line;
  const e = num + <usize> BLOCK * line;
  const factors = e + LINE;
  const top = factors + LINE;
  const den = top + LINE;
  const u = den + LINE;
  const queryPhi = u + lines(panel);
  const keyPhi = queryPhi + lines(slots);
  const square = keyPhi + lines(slots);
  const fresh = square + lines(BLOCK);
  const sums = fresh + <usize> panel * line;
  const z = run + (<usize> slots << 2), S = run + (<usize> slots << 3);
  const queryStep = plan.queryStep(p), keyStep = plan.keyStep(p), valueStep = plan.valueStep(p);
  q += <usize> (head * group * d) << 2;
  k += <usize> (head * d) << 2;
  v += <usize> (head * dv) << 2;
  for (let row = 0; row < rows; row += BLOCK) {
    const n = min(BLOCK, rows - row), even = (n + 1) & ~1;
    packTransposed(k + <usize> row * keyStep, keyStep, n, d, x);
    packValues(v + <usize> row * valueStep, valueStep, n, dv, padded, values);
    const logs = log2Weights ? log2Weights + (<usize> row << 2) : 0;
    if (logs) clearMasked(x, d, values, line, logs, n);
    rowExponents(x, d, plan.normScale(p), logs, n, e);
    keyRows(p, e, run, slots, also, factors);
    memory.fill(sums, 0, <usize> slots << 2);
    mark(PACK);
    for (let a = 0; a < count; a += panel) {
      const some = min(panel, count - a);
      project(p, matrix, first + a, some, x, u);
      mark(FEATURES);
      const bias = plan.keyBiases(p, matrix, first + a);
      keyPanel(p, u, e, bias, factors, some, a, lanes, run, slots, also, sums, keyPhi + lines(a), lines(lanes));
      mark(EXP);
    }
    for (let g = 0; g < group; g++) {
      packTransposed(q + <usize> row * queryStep + (<usize> (g * d) << 2), queryStep, n, d, x);
      mark(PACK);
      for (let a = 0; a < count; a += panel) {
        project(p, matrix, first + a, min(panel, count - a), x, queryPhi + lines(a));
      }
      mark(FEATURES);
      queryTops(p, queryPhi, count, lanes, run, top);
      memory.fill(den, 0, LINE);
      memory.fill(num, 0, <usize> BLOCK * line);
      memory.fill(square, 0, lines(BLOCK));
      for (let sign = signs - 1; sign >= 0; sign--) {
        for (let a = 0; a < count; a += STEP) {
          const some = min(STEP, count - a), slot = sign * lanes + a;
          const phi = queryPhi + lines(slot), at = <usize> slot << 2;
          queryLines(p, sign == 1, queryPhi + lines(a), some, run + at, z + at, top, den, phi);
          mark(EXP);
          product<Columns, Add>(phi, LINE, S + <usize> slot * line, line, num, line, even, padded, some);
          for (let j = 0; j < n; j += SQUARE) {
            const key = keyPhi + lines(slot) + (<usize> j << 2), to = square + lines(j) + (<usize> j << 2);
            product<Columns, Add>(key, LINE, phi + (<usize> j << 2), LINE, to, LINE, SQUARE, BLOCK - j, some);
          }
          mark(ACCUMULATE);
        }
      }
      within(square, den, values, line, padded, n, num);
      mark(ACCUMULATE);
      const piece = parts ? parts + <usize> g * partStride : 0;
      finish(p, head * group + g, row, n, num, den, top, out, denominators, piece);
      mark(EMIT);
    }
    for (let sign = 0; sign < signs; sign++) {
      for (let a = 0; a < count; a += panel) {
        const some = (min(panel, count - a) + 1) & ~1, slot = sign * lanes + a;
        product<Rows, Set>(keyPhi + lines(slot), 4, values, line, fresh, line, some, padded, n);
        const bytes = <usize> some * line, at = S + <usize> slot * line;
        addInto(at, fresh, bytes);
        addInto(at + also, fresh, bytes);
      }
    }
    addInto(z, sums, <usize> slots << 2);
    addInto(z + also, sums, <usize> slots << 2);
    mark(ACCUMULATE);
  }
  memory.copy(own, run, <usize> slots << 2);
}

/** den += column sums of G, num += Gᵀ V, after clearing what looks ahead: G[j][i] for i < j. */
function within(square: usize, den: usize, values: usize, line: usize, padded: i32, n: i32, num: usize): void {
  for (let j = 0; j < n; j++) {
    const row = square + lines(j);
    for (let i = j & ~(SQUARE - 1); i < j; i++) store<f32>(row + (<usize> i << 2), 0);
  }
  for (let i: usize = 0; i < LINE; i += 16) {
    let total = v128.load(den + i);
    for (let j = 0; j < n; j++) total = f32x4.add(total, v128.load(square + lines(j) + i));
    v128.store(den + i, total);
  }
  for (let i = 0; i < n; i += SQUARE) {
    const seen = min(i + SQUARE, n);
    product<Columns, Add>(
      square + (<usize> i << 2),
      LINE,
      values,
      line,
      num + <usize> i * line,
      line,
      SQUARE,
      padded,
      seen,
    );
  }
}

/** Bytes of the parts of one query head over `rows` rows. */
export function partsBytes(p: usize, rows: i32): usize {
  return <usize> ((rows + BLOCK - 1) / BLOCK) * partBytes(p);
}
