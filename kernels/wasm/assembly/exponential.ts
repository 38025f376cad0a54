/**
 * 2^x of four numbers. Exponents are kept in base 2 throughout (log₂e is folded into W and the norms), so no multiplication
 * is needed to reduce the range.
 *
 * x = n + f with |f| ≤ ½ by adding 1.5·2²³ (round to nearest), 2^f by a minimax polynomial of degree 6 (relative error 1.9e-9
 * before rounding, 1.2 ulp after), times 2^n by adding n to the exponent bits.
 *
 * On purpose: x < −126, −∞ and NaN give exactly 0, which is how masked keys and padding vanish (inputs are checked for NaN before);
 * no denormal is ever made; x must stay below 127.5, where the result would leave float32.
 *
 * Versions:
 *   1  (this)  one comparison and one `and` in place of two clamps.
 */
import { madd } from "./product";

// @ts-ignore: decorator
@inline
export function exp2(x: v128): v128 {
  const shifted = f32x4.add(x, f32x4.splat(12582912));
  const f = f32x4.sub(x, f32x4.sub(shifted, f32x4.splat(12582912)));
  let p = madd(f32x4.splat(0.0013399931219126935), f32x4.splat(0.00015345812008434574), f);
  p = madd(f32x4.splat(0.009618488957086268), p, f);
  p = madd(f32x4.splat(0.05550328776965553), p, f);
  p = madd(f32x4.splat(0.2402264689063457), p, f);
  p = madd(f32x4.splat(0.6931472057372676), p, f);
  p = madd(f32x4.splat(1), p, f);
  const scaled = i32x4.add(p, i32x4.shl(shifted, 23));
  return v128.and(scaled, f32x4.ge(x, f32x4.splat(-126)));
}

/** log₂ e, and its inverse. */
export const LOG2E: f32 = 1.4426950408889634;
export const LN2: f32 = 0.6931471805599453;

/** e^x, at most about 2.4e38. */
// @ts-ignore: decorator
@inline
export function exp(x: v128): v128 {
  return exp2(f32x4.pmin(f32x4.mul(x, f32x4.splat(LOG2E)), f32x4.splat(127.4)));
}

// @ts-ignore: decorator
@inline
export function sumOf(x: v128): f32 {
  return (f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1)) + (f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3));
}

// @ts-ignore: decorator
@inline
export function maxOf(x: v128): f32 {
  const a = max(f32x4.extract_lane(x, 0), f32x4.extract_lane(x, 1));
  const b = max(f32x4.extract_lane(x, 2), f32x4.extract_lane(x, 3));
  return max(a, b);
}
