/**
 * Query pass (kernels/README.md §4): out_i = (Σ_a p_ia S_a) / (Σ_a p_ia z_a), p = 2^{u + c − M} with M the row maximum.
 *
 * Per block of 64 rows: u of all projections of the unit (up to 64 KB, second-level cache) with the row maxima, then 64 projections
 * at a time: exponentials with the denominators, and the numerators' product.
 *
 * Versions:
 *   1  (this)
 *              Measured, one thread, 1,024 rows × 8 heads, d = d_v = 64, r = 256, AMD Zen 5 (ms, Bun 2 × 4 / Deno 6 × 2, relaxed):
 *                pack 0.2 / 0.2, features 5.7 / 5.3, exp 2.2 / 2.1, numerators 6.0 / 5.2, quotients 0.1 / 0.2; 38 / 42 GFLOP/s
 *
 * When a head's features are split into several units, each writes (numerator, denominator, M) and `combine` joins them, as parts of
 * an online softmax are joined.
 */
import { activate, sine } from "./activations";
import { exp2 } from "./exponential";
import { BLOCK, LINE, MASKED, packTransposed } from "./pack";
import * as plan from "./plan";
import { Add, Columns, product, Set } from "./product";
import { ACCUMULATE, begin, EMIT, EXP, FEATURES, mark, PACK } from "./profile";
import { project } from "./project";
import { lanesOf, lines, slotsOf } from "./state";

/** Projections per step of the second half. */
const STEP: i32 = 64;

type Plus = f32;
type Minus = i32;

/** u + c, or c − u. */
// @ts-ignore: decorator
@inline
function exponentOf<S>(u: usize, c: v128): v128 {
  return isFloat<S>() ? f32x4.add(v128.load(u), c) : f32x4.sub(c, v128.load(u));
}

/** top = max(top, ±u + c) over `count` lines. */
// @ts-ignore: decorator
@inline
function raiseTops<S>(u: usize, count: i32, c: usize, top: usize): void {
  for (let i: usize = 0; i < LINE; i += 16) {
    let highest = v128.load(top + i);
    let line = u + i;
    for (let a: usize = 0; a < <usize> count; a++) {
      highest = f32x4.pmax(highest, exponentOf<S>(line, v128.load32_splat(c + (a << 2))));
      line += LINE;
    }
    v128.store(top + i, highest);
  }
}

/** out = 2^{±u + c − top}, den += out · z, over `count` lines. */
// @ts-ignore: decorator
@inline
function expLines<S>(u: usize, count: i32, c: usize, z: usize, top: usize, den: usize, out: usize): void {
  for (let a = 0; a < count; a++) {
    const shift = v128.load32_splat(c), weight = v128.load32_splat(z);
    for (let i: usize = 0; i < LINE; i += 16) {
      const p = exp2(f32x4.sub(exponentOf<S>(u + i, shift), v128.load(top + i)));
      v128.store(out + i, p);
      v128.store(den + i, f32x4.add(v128.load(den + i), f32x4.mul(p, weight)));
    }
    u += LINE;
    out += LINE;
    c += 4;
    z += 4;
  }
}

/** out = gain · g(u) + epsilon, den += out · z, over `count` lines. */
function valueLines(p: usize, second: bool, u: usize, count: i32, z: usize, den: usize, out: usize): void {
  const trig = plan.family(p) == 1;
  const kind = plan.activation(p);
  const gain = f32x4.splat(plan.gain(p)), epsilon = f32x4.splat(plan.epsilon(p));
  for (let a = 0; a < count; a++) {
    const weight = v128.load32_splat(z);
    for (let i: usize = 0; i < LINE; i += 16) {
      const x = v128.load(u + i);
      const g = trig ? sine(x, <i32> second) : activate(kind, x);
      const phi = f32x4.add(f32x4.mul(g, gain), epsilon);
      v128.store(out + i, phi);
      v128.store(den + i, f32x4.add(v128.load(den + i), f32x4.mul(phi, weight)));
    }
    u += LINE;
    out += LINE;
    z += 4;
  }
}

/** Row maxima of ±u + c; for maps without exponents, the common c. */
export function queryTops(p: usize, u: usize, count: i32, lanes: i32, c: usize, top: usize): void {
  if (plan.family(p) != 0) {
    const common = v128.load32_splat(c);
    for (let i: usize = 0; i < LINE; i += 16) v128.store(top + i, common);
    return;
  }
  for (let i: usize = 0; i < LINE; i += 16) v128.store(top + i, f32x4.splat(MASKED));
  raiseTops<Plus>(u, count, c, top);
  if (plan.perProjection(p) == 2) raiseTops<Minus>(u, count, c + (<usize> lanes << 2), top);
}

/** p of `count` lines and one sign, and their part of the denominators. `out` may be `u`. */
export function queryLines(
  p: usize,
  second: bool,
  u: usize,
  count: i32,
  c: usize,
  z: usize,
  top: usize,
  den: usize,
  out: usize,
): void {
  if (plan.family(p) != 0) valueLines(p, second, u, count, z, den, out);
  else if (second) expLines<Minus>(u, count, c, z, top, den, out);
  else expLines<Plus>(u, count, c, z, top, den, out);
}

/** Bytes of scratch memory that `queries` needs for a unit of `count` projections. */
export function queriesScratch(p: usize, count: i32): usize {
  return lines(max(plan.headDim(p), plan.hadamardSize(p))) + lines(lanesOf(p, count)) + lines(STEP) + 2 * LINE +
    <usize> BLOCK * plan.valueLine(p);
}

/**
 * Outputs of rows `from … to − 1` of query head `head` over the state of key-head unit (`matrix`, `first`, `count`).
 * With `parts` ≠ 0 numerators, denominators and maxima go there (see `partBytes`) instead of `out` and `denominators`.
 */
export function queries(
  p: usize,
  head: i32,
  matrix: i32,
  first: i32,
  count: i32,
  q: usize,
  from: i32,
  to: i32,
  state: usize,
  out: usize,
  denominators: usize,
  parts: usize,
  scratch: usize,
): void {
  begin();
  const d = plan.headDim(p), padded = plan.paddedValueDim(p), line = plan.valueLine(p);
  const lanes = lanesOf(p, count), slots = slotsOf(p, count), panel = plan.panel(p);
  const x = scratch;
  const u = x + lines(max(d, plan.hadamardSize(p)));
  const other = u + lines(lanes);
  const top = other + lines(STEP);
  const den = top + LINE;
  const num = den + LINE;
  const z = state + (<usize> slots << 2), S = state + (<usize> slots << 3);
  const step = plan.queryStep(p);
  q += <usize> head * (<usize> d << 2);
  for (let row = from; row < to; row += BLOCK) {
    const n = min(BLOCK, to - row), even = (n + 1) & ~1;
    packTransposed(q + <usize> row * step, step, n, d, x);
    mark(PACK);
    for (let a = 0; a < count; a += panel) project(p, matrix, first + a, min(panel, count - a), x, u + lines(a));
    mark(FEATURES);
    queryTops(p, u, count, lanes, state, top);
    memory.fill(den, 0, LINE);
    memory.fill(num, 0, <usize> BLOCK * line);
    for (let a = 0; a < count; a += STEP) {
      const some = min(STEP, count - a);
      const lead = u + lines(a);
      if (plan.perProjection(p) == 2) {
        const at = <usize> (lanes + a) << 2;
        queryLines(p, true, lead, some, state + at, z + at, top, den, other);
        mark(EXP);
        product<Columns, Add>(other, LINE, S + <usize> (lanes + a) * line, line, num, line, even, padded, some);
        mark(ACCUMULATE);
      }
      const at = <usize> a << 2;
      queryLines(p, false, lead, some, state + at, z + at, top, den, lead);
      mark(EXP);
      product<Columns, Add>(lead, LINE, S + <usize> a * line, line, num, line, even, padded, some);
      mark(ACCUMULATE);
    }
    finish(p, head, row, n, num, den, top, out, denominators, parts);
    mark(EMIT);
  }
}

/** Bytes per block of 64 rows in a unit's parts: numerators, denominators, maxima. */
export function partBytes(p: usize): usize {
  return <usize> BLOCK * plan.valueLine(p) + 2 * LINE;
}

/** Writes a block's quotients and denominators, or its parts. */
export function finish(
  p: usize,
  head: i32,
  row: i32,
  n: i32,
  num: usize,
  den: usize,
  top: usize,
  out: usize,
  denominators: usize,
  parts: usize,
): void {
  const line = plan.valueLine(p);
  if (parts) {
    const to = parts + <usize> (row / BLOCK) * partBytes(p);
    memory.copy(to, num, <usize> BLOCK * line);
    memory.copy(to + <usize> BLOCK * line, den, LINE);
    memory.copy(to + <usize> BLOCK * line + LINE, top, LINE);
    return;
  }
  const dv = plan.valueDim(p), wide = dv & ~3, heads = plan.heads(p);
  const step = plan.outputStep(p);
  let to = out + <usize> row * step + <usize> (head * dv) * 4;
  let cell = denominators + <usize> (row * heads + head) * 4;
  for (let i: usize = 0; i < <usize> n; i++) {
    const total = load<f32>(den + (i << 2));
    const inverse = total == 0 ? <f32> 0 : <f32> 1 / total;
    const factor = f32x4.splat(inverse);
    for (let c = 0; c < wide; c += 4) {
      v128.store(to + (<usize> c << 2), f32x4.mul(v128.load(num + (<usize> c << 2)), factor));
    }
    for (let c = wide; c < dv; c++) {
      store<f32>(to + (<usize> c << 2), load<f32>(num + (<usize> c << 2)) * inverse);
    }
    store<f32>(cell, total);
    num += line;
    to += step;
    cell += <usize> heads << 2;
  }
}

/** Joins the parts of `pieces` units of one head (each `stride` bytes) for rows `from … to − 1`; overwrites the first. */
export function combine(
  p: usize,
  head: i32,
  pieces: i32,
  parts: usize,
  stride: usize,
  from: i32,
  to: i32,
  out: usize,
  denominators: usize,
): void {
  begin();
  const line = plan.valueLine(p), numbers = <usize> BLOCK * line;
  for (let row = from; row < to; row += BLOCK) {
    const block = parts + <usize> (row / BLOCK) * partBytes(p);
    for (let piece = 1; piece < pieces; piece++) {
      const next = block + <usize> piece * stride;
      for (let i: usize = 0; i < <usize> BLOCK; i++) {
        const cell = numbers + (i << 2);
        const a = load<f32>(block + cell + LINE), b = load<f32>(next + cell + LINE), top = max(a, b);
        const mine = f32x4.splat(a - top), theirs = f32x4.splat(b - top);
        const f = exp2(mine), g = exp2(theirs);
        store<f32>(block + cell + LINE, top);
        const den = load<f32>(block + cell) * f32x4.extract_lane(f, 0) +
          load<f32>(next + cell) * f32x4.extract_lane(g, 0);
        store<f32>(block + cell, den);
        for (let c: usize = i * line, end = c + line; c < end; c += 16) {
          v128.store(block + c, f32x4.add(f32x4.mul(v128.load(block + c), f), f32x4.mul(v128.load(next + c), g)));
        }
      }
    }
    finish(p, head, row, min(BLOCK, to - row), block, block + numbers, block + numbers + LINE, out, denominators, 0);
  }
  mark(EMIT);
}
