/**
 * E = gain · sin u · scale, and gain · cos u · scale where the cell lies beyond `u` (x ≥ uWidth or y ≥ uRows): both features of
 * a projection from one product. One number per cell; layout as in exponential_cell.gpu.js. `scale` is `chunks × width`: the
 * key's e^{‖x‖²/2 + ln ω − c}, 1 for queries.
 *
 * v1  this file     webasm 32 ns a number Bun, 46 Deno; cpu 21 and 30. Predicted and found: nearly all of it is Math.sin,
 *                   which webasm calls once per lane
 */
export function trigonometric(u, scale) {
  const column = this.thread.x >> 2;
  const part = this.thread.x & 3;
  let x = column;
  let y = this.thread.y;
  let quarter = 0;
  if (x >= this.constants.uWidth) {
    x -= this.constants.uWidth;
    quarter = 1;
  }
  if (y >= this.constants.uRows) {
    y -= this.constants.uRows;
    quarter = 1;
  }
  const value = u[((this.thread.z * this.constants.uRows + y) * this.constants.uWidth + x) * 4 + part];
  let g = 0;
  if (quarter > 0) {
    g = Math.cos(value);
  } else {
    g = Math.sin(value);
  }
  return this.constants.gain * g * scale[this.thread.z * this.constants.width + column];
}
