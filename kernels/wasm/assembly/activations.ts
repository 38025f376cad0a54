/**
 * Four values at a time of the feature values g of trigonometric and pointwise maps (src/feature_map.ts).
 *
 * sin and cos: Cody–Waite reduction by π/2 in three parts and the Cephes polynomials; the error grows with |u| as that of u itself.
 * gelu: u/2 · erfc(−u/√2) with the Chebyshev fit of Numerical Recipes (`erfcc`, relative error 1.2e-7), so that its tail keeps
 * its digits. softplus: ln(1 + t) = 2 artanh(t / (2 + t)) by its series; tanh near 0 by its series.
 */
import { exp } from "./exponential";
import { madd } from "./product";

// @ts-ignore: decorator
@inline
function splat(x: f32): v128 {
  return f32x4.splat(x);
}

/** sin(u + quadrants · π/2). */
export function sine(u: v128, quadrants: i32): v128 {
  const k = f32x4.nearest(f32x4.mul(u, splat(0.636619772367581)));
  let r = f32x4.sub(u, f32x4.mul(k, splat(1.5703125)));
  r = f32x4.sub(r, f32x4.mul(k, splat(4.837512969970703125e-4)));
  r = f32x4.sub(r, f32x4.mul(k, splat(7.54978995489188216e-8)));
  const s = f32x4.mul(r, r);
  let sin = madd(splat(8.3321608736e-3), splat(-1.9515295891e-4), s);
  sin = madd(splat(-1.6666654611e-1), sin, s);
  sin = madd(r, f32x4.mul(r, s), sin);
  let cos = madd(splat(-1.388731625493765e-3), splat(2.443315711809948e-5), s);
  cos = madd(splat(4.166664568298827e-2), cos, s);
  cos = f32x4.add(madd(splat(1), splat(-0.5), s), f32x4.mul(f32x4.mul(s, s), cos));
  const quadrant = i32x4.add(i32x4.trunc_sat_f32x4_s(k), i32x4.splat(quadrants));
  const odd = i32x4.eq(v128.and(quadrant, i32x4.splat(1)), i32x4.splat(1));
  const sign = i32x4.shl(v128.and(quadrant, i32x4.splat(2)), 30);
  return v128.xor(v128.bitselect(cos, sin, odd), sign);
}

export function positive(u: v128): v128 {
  return f32x4.pmax(u, splat(0));
}

/** e^u for u ≤ 0 and u + 1 above. */
function elu1(u: v128): v128 {
  return v128.bitselect(f32x4.add(u, splat(1)), exp(f32x4.pmin(u, splat(0))), f32x4.gt(u, splat(0)));
}

export function gelu(u: v128): v128 {
  const h = f32x4.mul(f32x4.abs(u), splat(0.70710678118654752));
  const t = f32x4.div(splat(1), madd(splat(1), splat(0.5), h));
  let e = madd(splat(-0.82215223), splat(0.17087277), t);
  e = madd(splat(1.48851587), e, t);
  e = madd(splat(-1.13520398), e, t);
  e = madd(splat(0.27886807), e, t);
  e = madd(splat(-0.18628806), e, t);
  e = madd(splat(0.09678418), e, t);
  e = madd(splat(0.37409196), e, t);
  e = madd(splat(1.00002368), e, t);
  const exponent = f32x4.sub(f32x4.sub(f32x4.mul(e, t), f32x4.mul(h, h)), splat(1.26551223));
  const tail = f32x4.mul(f32x4.mul(splat(0.5), u), f32x4.mul(t, exp(exponent)));
  return v128.bitselect(f32x4.sub(u, tail), tail, f32x4.gt(u, splat(0)));
}

function tanh(u: v128): v128 {
  const e = exp(f32x4.mul(f32x4.abs(u), splat(-2)));
  const far = f32x4.div(f32x4.sub(splat(1), e), f32x4.add(splat(1), e));
  const s = f32x4.mul(u, u);
  let near = madd(splat(-17.0 / 315), splat(62.0 / 2835), s);
  near = madd(splat(2.0 / 15), near, s);
  near = madd(splat(-1.0 / 3), near, s);
  near = madd(u, f32x4.mul(u, s), near);
  const signed = v128.or(far, v128.and(u, i32x4.splat(<i32> 0x80000000)));
  return v128.bitselect(near, signed, f32x4.lt(s, splat(0.09)));
}

function softplus(u: v128): v128 {
  const t = exp(f32x4.neg(f32x4.abs(u)));
  const x = f32x4.div(t, f32x4.add(splat(2), t));
  const s = f32x4.mul(x, x);
  let sum = madd(splat(1.0 / 13), splat(1.0 / 15), s);
  sum = madd(splat(1.0 / 11), sum, s);
  sum = madd(splat(1.0 / 9), sum, s);
  sum = madd(splat(1.0 / 7), sum, s);
  sum = madd(splat(1.0 / 5), sum, s);
  sum = madd(splat(1.0 / 3), sum, s);
  sum = madd(splat(1), sum, s);
  return f32x4.add(positive(u), f32x4.mul(f32x4.add(x, x), sum));
}

/** f(u); `kind` is the place of f in ACTIVATIONS. */
export function activate(kind: i32, u: v128): v128 {
  switch (kind) {
    case 0:
      return positive(u);
    case 1:
    case 11:
      return elu1(u);
    case 2:
      return f32x4.div(splat(1), f32x4.add(splat(1), exp(f32x4.neg(u))));
    case 3:
      return exp(u);
    case 4:
      return f32x4.abs(u);
    case 5:
      return gelu(u);
    case 6:
      return sine(u, 1);
    case 7:
      return sine(u, 0);
    case 8:
      return tanh(u);
    case 10:
      return f32x4.mul(positive(u), positive(u));
    case 12:
      return v128.bitselect(u, f32x4.mul(u, splat(0.01)), f32x4.gt(u, splat(0)));
    case 13:
      return softplus(u);
    case 14:
      return f32x4.mul(u, u);
    default:
      return u;
  }
}
