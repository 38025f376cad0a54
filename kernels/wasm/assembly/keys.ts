/**
 * Keys pass (kernels/README.md §2): c, z and S of one unit over a range of rows.
 *
 * Per block of 64 rows: pack the keys, transposed, and the values; per panel of projections, while everything lies in the
 * first-level cache: u = W·x, φ = 2^{±u + e − c} line by line with its sum into z, and S += φᵀ V.
 *
 * Versions:
 *   1  (this)  one pass of exponentials per panel, maxima found on the way; a line is redone when it exceeds c by SLACK.
 *              Measured, one thread, 1,024 rows × 8 heads, d = d_v = 64, r = 256, AMD Zen 5 (ms, Bun 2 × 4 / Deno 6 × 2, relaxed):
 *                pack 0.5 / 0.5, features 5.8 / 5.4, exp 2.8 / 2.6, S 6.0 / 5.7; in all 34 / 38 GFLOP/s
 */
import { activate, sine } from "./activations";
import { exp2, maxOf, sumOf } from "./exponential";
import { BLOCK, clearMasked, LINE, MASKED, NONE, packTransposed, packValues, rowExponents } from "./pack";
import * as plan from "./plan";
import { Add, product, Rows } from "./product";
import { ACCUMULATE, begin, EXP, FEATURES, mark, PACK } from "./profile";
import { project } from "./project";
import { lanesOf, lines, raise, SLACK, slotsOf } from "./state";

/** Sign of u as a type argument. */
type Plus = f32;
type Minus = i32;

/** ±u + e. */
// @ts-ignore: decorator
@inline
function exponentOf<S>(u: usize, e: usize): v128 {
  return isFloat<S>() ? f32x4.add(v128.load(u), v128.load(e)) : f32x4.sub(v128.load(e), v128.load(u));
}

/** out = 2^{±u + e − c} over a line, its sum added to z; returns the largest exponent above c, and adds nothing if it exceeds SLACK. */
// @ts-ignore: decorator
@inline
function expLine<S>(u: usize, e: usize, c: f32, z: usize, out: usize): f32 {
  const shift = f32x4.splat(c);
  let top = f32x4.splat(MASKED);
  let sum = f32x4.splat(0);
  for (let i: usize = 0; i < LINE; i += 16) {
    const x = f32x4.sub(exponentOf<S>(u + i, e + i), shift);
    top = f32x4.pmax(top, x);
    const p = exp2(x);
    v128.store(out + i, p);
    sum = f32x4.add(sum, p);
  }
  const excess = maxOf(top);
  if (excess <= SLACK) store<f32>(z, load<f32>(z) + sumOf(sum));
  return excess;
}

/** Largest ±u + e of a line. */
function topOf<S>(u: usize, e: usize): f32 {
  let top = f32x4.splat(MASKED);
  for (let i: usize = 0; i < LINE; i += 16) top = f32x4.pmax(top, exponentOf<S>(u + i, e + i));
  return maxOf(top);
}

/**
 * Features of `count` projections of the exp family with one sign. `bias` is the first projection's: a line's e gets it by way of its
 * c, so that it costs nothing per row. `c` is the first slot's maximum and `z`, `S` what is summed;
 * `also` is a second S (causal: z and S of the tile alone, at the same distance), or 0.
 */
function expPanel<S>(
  u: usize,
  e: usize,
  bias: usize,
  count: i32,
  c: usize,
  z: usize,
  S: usize,
  line: usize,
  also: usize,
  sum: usize,
  out: usize,
): void {
  for (let a = 0; a < count; a++) {
    const own = load<f32>(bias);
    const excess = expLine<S>(u, e, load<f32>(c) - own, sum, out);
    if (excess > SLACK) {
      const top = topOf<S>(u, e) + own;
      if (also) raiseBoth(c, z, S, line, also, top);
      else raise(c, z, S, line, top);
      expLine<S>(u, e, top - own, sum, out);
    }
    u += LINE;
    out += LINE;
    bias += 4;
    c += 4;
    z += 4;
    sum += 4;
    S += line;
  }
}

function raiseBoth(c: usize, z: usize, S: usize, line: usize, also: usize, top: f32): void {
  const before = load<f32>(c);
  raise(c, z, S, line, top);
  store<f32>(c, before);
  raise(c, z + also, S + also, line, top);
}

/** φ of a panel that is a value times a row factor: sin (then cos, `second`) or f(u); sums added to z. */
function valuePanel(p: usize, second: bool, u: usize, factors: usize, count: i32, sum: usize, out: usize): void {
  const trig = plan.family(p) == 1;
  const kind = plan.activation(p);
  const gain = f32x4.splat(plan.gain(p)), epsilon = f32x4.splat(plan.epsilon(p));
  for (let a = 0; a < count; a++) {
    let total = f32x4.splat(0);
    for (let i: usize = 0; i < LINE; i += 16) {
      const x = v128.load(u + i);
      const g = trig ? sine(x, <i32> second) : activate(kind, x);
      const phi = f32x4.mul(f32x4.add(f32x4.mul(g, gain), epsilon), v128.load(factors + i));
      v128.store(out + i, phi);
      total = f32x4.add(total, phi);
    }
    store<f32>(sum, load<f32>(sum) + sumOf(total));
    u += LINE;
    out += LINE;
    sum += 4;
  }
}

/** Trigonometric and pointwise maps share one c: raises all slots to cover the row exponents `e`, then writes 2^{e − c}. */
function rowFactors(slots: i32, e: usize, c: usize, z: usize, S: usize, line: usize, also: usize, out: usize): void {
  let top = f32x4.splat(MASKED);
  for (let i: usize = 0; i < LINE; i += 16) top = f32x4.pmax(top, v128.load(e + i));
  const highest = maxOf(top);
  if (highest > NONE && highest > load<f32>(c) + SLACK) {
    for (let a: usize = 0; a < <usize> slots; a++) {
      const row = S + a * line;
      if (also) raiseBoth(c + (a << 2), z + (a << 2), row, line, also, highest);
      else raise(c + (a << 2), z + (a << 2), row, line, highest);
    }
  }
  const shift = f32x4.splat(load<f32>(c));
  for (let i: usize = 0; i < LINE; i += 16) v128.store(out + i, exp2(f32x4.sub(v128.load(e + i), shift)));
}

/**
 * φ of one block for `count` projections (one panel at most) of a unit, sums into `sum` (per slot); for the exp family, which reads
 * `bias` (plan.keyBiases), c, z and S are raised as needed. `slot`: first slot of the panel. `out`: the lines of the first sign; those of the second lie `apart` bytes on.
 */
export function keyPanel(
  p: usize,
  u: usize,
  e: usize,
  bias: usize,
  factors: usize,
  count: i32,
  slot: i32,
  lanes: i32,
  state: usize,
  slots: i32,
  also: usize,
  sums: usize,
  out: usize,
  apart: usize,
): void {
  const line = plan.valueLine(p);
  const two = plan.perProjection(p) == 2;
  if (plan.family(p) != 0) {
    valuePanel(p, false, u, factors, count, sums + (<usize> slot << 2), out);
    if (two) valuePanel(p, true, u, factors, count, sums + (<usize> (slot + lanes) << 2), out + apart);
    return;
  }
  const z = state + (<usize> slots << 2), S = state + (<usize> slots << 3);
  const at = <usize> slot << 2, row = <usize> slot * line;
  expPanel<Plus>(u, e, bias, count, state + at, z + at, S + row, line, also, sums + at, out);
  if (!two) return;
  const far = <usize> (slot + lanes) << 2, farRow = <usize> (slot + lanes) * line;
  expPanel<Minus>(u, e, bias, count, state + far, z + far, S + farRow, line, also, sums + far, out + apart);
}

/** Prepares the row factors of a block; for the exp family nothing is needed. */
export function keyRows(p: usize, e: usize, state: usize, slots: i32, also: usize, factors: usize): void {
  if (plan.family(p) == 0) return;
  const z = state + (<usize> slots << 2), S = state + (<usize> slots << 3);
  rowFactors(slots, e, state, z, S, plan.valueLine(p), also, factors);
}

/** Bytes of scratch memory that `keys` needs. */
export function keysScratch(p: usize): usize {
  return lines(max(plan.headDim(p), plan.hadamardSize(p))) + <usize> BLOCK * plan.valueLine(p) + 2 * LINE +
    lines(3 * plan.panel(p));
}

/**
 * Adds rows `from … to − 1` of key head `head` to the state of the unit of projections `first … first + count − 1`.
 * `k`, `v`: row 0 of the tile; `log2Weights`: log₂ ω per row (MASKED = none), or 0.
 */
export function keys(
  p: usize,
  head: i32,
  matrix: i32,
  first: i32,
  count: i32,
  k: usize,
  v: usize,
  log2Weights: usize,
  from: i32,
  to: i32,
  state: usize,
  scratch: usize,
): void {
  begin();
  const d = plan.headDim(p), dv = plan.valueDim(p), padded = plan.paddedValueDim(p);
  const line = plan.valueLine(p), panel = plan.panel(p);
  const lanes = lanesOf(p, count), slots = slotsOf(p, count);
  const x = scratch;
  const values = x + lines(max(d, plan.hadamardSize(p)));
  const e = values + <usize> BLOCK * line;
  const factors = e + LINE;
  const u = factors + LINE;
  const phi = u + lines(panel);
  const sums = state + (<usize> slots << 2), S = state + (<usize> slots << 3);
  const keyLine = plan.keyStep(p), valueStep = plan.valueStep(p);
  k += <usize> head * (<usize> d << 2);
  v += <usize> head * (<usize> dv << 2);
  for (let row = from; row < to; row += BLOCK) {
    const n = min(BLOCK, to - row);
    packTransposed(k + <usize> row * keyLine, keyLine, n, d, x);
    packValues(v + <usize> row * valueStep, valueStep, n, dv, padded, values);
    const logs = log2Weights ? log2Weights + (<usize> row << 2) : 0;
    if (logs) clearMasked(x, d, values, line, logs, n);
    rowExponents(x, d, plan.normScale(p), logs, n, e);
    keyRows(p, e, state, slots, 0, factors);
    mark(PACK);
    for (let a = 0; a < count; a += panel) {
      const some = min(panel, count - a);
      project(p, matrix, first + a, some, x, u);
      mark(FEATURES);
      keyPanel(p, u, e, plan.keyBiases(p, matrix, first + a), factors, some, a, lanes, state, slots, 0, sums, phi, lines(panel));
      mark(EXP);
      for (let sign = 0; sign < plan.perProjection(p); sign++) {
        const at = S + <usize> (a + sign * lanes) * line;
        product<Rows, Add>(phi + <usize> sign * lines(panel), 4, values, line, at, line, (some + 1) & ~1, padded, n);
      }
      mark(ACCUMULATE);
    }
  }
}
