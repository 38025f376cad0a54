/** The one place that says how far a result may be from float64. */
import type { Precision } from "../src/tensor.ts";

/** Unit roundoff u: the largest relative error of one rounding. */
export const UNIT_ROUNDOFF: Readonly<Record<Precision, number>> = { f32: 2 ** -24, f64: 2 ** -53 };

export interface Rounding {
  readonly precision: Precision;
  /** Largest magnitude any exponent, or any sum on the way to it, takes: Σ_l |w_l x_l| + ‖x‖²/2 of queries and keys together. */
  readonly exponent: number;
  /** Numbers per dot product inside an exponent: d. */
  readonly depth: number;
  /** Numbers per sum of products: keys or features, whichever is more. */
  readonly terms: number;
}

/**
 * Relative error of one product φ(q)·φ(k) and of sums of such products of one sign:
 *
 * - an exponent of magnitude X is off by u·X·(√d + 4): a random walk over d roundings, then shift, norm, bias and maximum;
 *   exp turns that into a relative error; and each product has two factors,
 * - sums of n terms walk over √n roundings, in numerator and denominator,
 * - 16 roundings for everything that happens once: exp itself (≤ 4), scaling, g, quotient, state to float32 and back.
 *
 * Times κ = Σ|terms| / |Σ terms| (1 for positive maps) and the size of V this bounds the error of an output.
 */
export function tolerance({ precision, exponent, depth, terms }: Rounding): number {
  return UNIT_ROUNDOFF[precision] * (2 * exponent * (Math.sqrt(depth) + 4) + 2 * Math.sqrt(terms) + 16);
}
