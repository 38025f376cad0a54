/** The one place that says how far a result may be from float64. */
import type { Precision } from "../src/tensor.ts";

/** Unit roundoff u: the largest relative error of one rounding. */
export const UNIT_ROUNDOFF: Readonly<Record<Precision, number>> = { f32: 2 ** -24, f64: 2 ** -53 };

export interface Rounding {
  readonly precision: Precision;
  /** Largest magnitude exponents reach on the way: |w·x| + √Σ(w_l x_l)² + ‖x‖²/2, queries and keys together. */
  readonly exponent: number;
  /** Numbers per sum of products: keys or features, whichever is more. */
  readonly terms: number;
}

/**
 * Relative error of sums of products φ(q)·φ(k) of one sign. Roundings are independent, so they add up as random walks:
 *
 * - an exponent of magnitude X is off by about u·X, from its dot product, norm and shifts; exp makes that a relative error, and
 *   WGSL's own exp may add as much again: 2·X,
 * - sums of n terms walk over √n roundings, in numerator and in denominator: 2·√n,
 * - what happens once (scaling, g, exp near 0, quotient, state to float32 and back, outputs): 16.
 *
 * Times κ = Σ|terms| / |Σ terms| (1 for positive maps) and the size of V this bounds the error of an output.
 */
export function tolerance({ precision, exponent, terms }: Rounding): number {
  return UNIT_ROUNDOFF[precision] * (2 * exponent + 2 * Math.sqrt(terms) + 16);
}

/** One number u = w·x + b of a dense layer on its way to the activation. */
export interface LayerRounding {
  readonly precision: Precision;
  /** Products in the sum. */
  readonly terms: number;
  readonly sum: number;
  readonly bias: number;
  /** √Σ (w_l x_l)². */
  readonly walk: number;
}

/**
 * Absolute error of u, again by independent roundings:
 *
 * - partial sums are no larger than about |u| + |b| + √Σ(w_l x_l)², whether the terms cancel or add up; each of the K is rounded once,
 *   which walks over √K such steps: 2·√K,
 * - what happens once per product or sum (w and x to float32, the product, the bias, the output) is in 16.
 */
export function layerTolerance({ precision, terms, sum, bias, walk }: LayerRounding): number {
  return UNIT_ROUNDOFF[precision] * (2 * Math.sqrt(terms) + 16) * (Math.abs(sum) + Math.abs(bias) + walk);
}

/**
 * Absolute error of gelu(u) where u is off by `error`: its slope is at most 1.13, and float32 approximations of erf may lose 16 roundings
 * of a number near 1 (a polynomial to the 16th power does, kernels/wasm/assembly/dense.ts), which u/2 scales; as much again for their
 * own error: 16·|u|.
 */
export function geluTolerance(precision: Precision, u: number, error: number): number {
  return 1.13 * error + 16 * UNIT_ROUNDOFF[precision] * Math.abs(u);
}
