/** The non-linearities f(u) of generalised kernel attention, in float64. */

/** erf by its all-positive series 2/√π · e^{−x²} Σ 2ⁿ x^{2n+1}/(2n+1)!!; relative error about 1e-15. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  let term = a;
  let sum = a;
  for (let n = 1; term > sum * 1e-17; n++) {
    term *= (2 * a * a) / (2 * n + 1);
    sum += term;
  }
  return Math.sign(x) * 2 / Math.sqrt(Math.PI) * Math.exp(-a * a) * sum;
}

/** erfc for x ≥ 0 without the cancellation of 1 − erf: beyond 2 by the continued fraction (Abramowitz & Stegun 7.1.14). */
function erfc(x: number): number {
  if (x < 2) return 1 - erf(x);
  let fraction = x;
  for (let n = 60; n > 0; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * fraction);
}

export const ACTIVATION_FUNCTIONS: Readonly<Record<string, (u: number) => number>> = {
  "relu": (u) => Math.max(u, 0),
  "elu1": (u) => u > 0 ? u + 1 : Math.exp(u),
  "sigmoid": (u) => 1 / (1 + Math.exp(-u)),
  "exp": Math.exp,
  "abs": Math.abs,
  "gelu": (u) => 0.5 * u * (u < 0 ? erfc(-u / Math.SQRT2) : 1 + erf(u / Math.SQRT2)),
  "cos": Math.cos,
  "sin": Math.sin,
  "tanh": Math.tanh,
  "identity": (u) => u,
  "requ": (u) => u > 0 ? u * u : 0,
  "shifted-elu": (u) => u > 0 ? u + 1 : Math.exp(u),
  "leaky-relu": (u) => u > 0 ? u : 0.01 * u,
  "softplus": (u) => Math.max(u, 0) + Math.log1p(Math.exp(-Math.abs(u))),
  "square": (u) => u * u,
};
