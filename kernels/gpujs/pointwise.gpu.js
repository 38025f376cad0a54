/**
 * E = (gain · f(u) + epsilon) · scale, one number per cell; layout as in exponential_cell.gpu.js. `scale` is `chunks × width`:
 * the key's weight relative to the largest, 1 for queries. `activation` is the place of f in the list of src/feature_map.ts:
 * relu elu1 sigmoid exp abs · gelu cos sin tanh identity · requ shifted-elu leaky-relu softplus square.
 *
 * gelu needs erf, which gpu.js has not: u/2 · erfc(−u/√2) with the Chebyshev fit of Numerical Recipes (erfcc, relative error
 * 1.2e-7 everywhere, so that the tail of gelu keeps its digits). softplus near 0 takes the series of ln(1 + t).
 *
 * v1  this file     webasm 4 ns a number (relu, abs, square) to 23 (gelu), 31 (softplus) on Bun; 3 to 60 on Deno.
 *                   Predicted and found: constants are compiled in, so the chain of `if`s costs nothing in webasm
 */
export function pointwise(u, scale) {
  const column = this.thread.x >> 2;
  const at = (this.thread.z * this.constants.rows + this.thread.y) * this.constants.width * 4 + this.thread.x;
  const x = u[at];
  let f = 0;
  if (this.constants.activation === 0) f = Math.max(x, 0);
  if (this.constants.activation === 1 || this.constants.activation === 11) {
    f = Math.exp(Math.min(x, 0)) + Math.max(x, 0);
  }
  if (this.constants.activation === 2) f = 1 / (1 + Math.exp(0 - x));
  if (this.constants.activation === 3) f = Math.exp(x);
  if (this.constants.activation === 4) f = Math.abs(x);
  if (this.constants.activation === 5) {
    const h = Math.abs(x) * 0.70710678118654752;
    const t = 1 / (1 + 0.5 * h);
    let e = t * 0.17087277 - 0.82215223;
    e = e * t + 1.48851587;
    e = e * t - 1.13520398;
    e = e * t + 0.27886807;
    e = e * t - 0.18628806;
    e = e * t + 0.09678418;
    e = e * t + 0.37409196;
    e = e * t + 1.00002368;
    const erfc = t * Math.exp(e * t - h * h - 1.26551223);
    f = 0.5 * x * erfc;
    if (x > 0) f = x - f;
  }
  if (this.constants.activation === 6) f = Math.cos(x);
  if (this.constants.activation === 7) f = Math.sin(x);
  if (this.constants.activation === 8) {
    const h = Math.exp(-2 * Math.abs(x));
    f = (1 - h) / (1 + h);
    if (Math.abs(x) < 0.01) f = Math.abs(x) - Math.abs(x) * x * x * 0.33333333333;
    if (x < 0) f = 0 - f;
  }
  if (this.constants.activation === 9) f = x;
  if (this.constants.activation === 10) f = Math.max(x, 0) * Math.max(x, 0);
  if (this.constants.activation === 12) f = Math.max(x, 0) + 0.01 * Math.min(x, 0);
  if (this.constants.activation === 13) {
    const h = Math.exp(0 - Math.abs(x));
    let log = Math.log(1 + h);
    if (h < 0.005) log = h - h * h * 0.5 + h * h * h * 0.33333333333;
    f = Math.max(x, 0) + log;
  }
  if (this.constants.activation === 14) f = x * x;
  return (this.constants.gain * f + this.constants.epsilon) * scale[this.thread.z * this.constants.width + column];
}
