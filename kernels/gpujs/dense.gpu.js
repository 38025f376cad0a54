/**
 * y = f(u + b), or f(u + b) · (u' + b') of a gated layer, whose u' stands `width` columns on: a dense layer after its product. One number
 * per cell; layout as in exponential_cell.gpu.js, of `uWidth` columns for u. `activation`: none, relu, gelu, gelu-glu.
 *
 * gelu is that of pointwise.gpu.js: gpu.js has no erf.
 *
 * v1  this file     Predicted from pointwise.gpu.js: 23 ns a number, a tenth of its product of depth 640. Measured (webasm): lost in the
 *                   noise of that product, 0.9 s on Bun for 2.6 million numbers
 */
export function dense(u, bias) {
  const column = this.thread.x >> 2;
  const at = this.thread.y * this.constants.uWidth * 4 + this.thread.x;
  const x = u[at] + bias[column];
  let f = x;
  if (this.constants.activation === 1) f = Math.max(x, 0);
  if (this.constants.activation >= 2) {
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
  if (this.constants.activation === 3) {
    f = f * (u[at + this.constants.width * 4] + bias[column + this.constants.width]);
  }
  return f;
}
