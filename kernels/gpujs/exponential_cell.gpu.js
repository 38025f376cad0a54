/**
 * E = exp(±u + xShift + yShift), one number per cell, for modes that run cells one by one (cpu); exponential.gpu.js tells
 * the layout and the arguments. Cell x of the output is column x/4, row 4y + x%4. The first sum is rounded to float32 as in the other
 * kernel: yShift is the largest of such sums, and the exponent of a row of norm 10^5 would be ±500 if it were taken from another.
 *
 * v1  Math.exp                       18–23 ns a number Bun   11 Deno   this file
 * –   polynomial with halvings       36                      31        lesson: without vectors Math.exp wins, as predicted
 */
export function exponential(u, xShift, yShift) {
  const column = this.thread.x >> 2;
  const part = this.thread.x & 3;
  let x = column;
  let y = this.thread.y;
  let sign = 1;
  if (x >= this.constants.uWidth) {
    x -= this.constants.uWidth;
    sign = -1;
  }
  if (y >= this.constants.uRows) {
    y -= this.constants.uRows;
    sign = -1;
  }
  const at = ((this.thread.z * this.constants.uRows + y) * this.constants.uWidth + x) * 4 + part;
  const row = (this.thread.z * this.constants.rows + this.thread.y) * 4 + part;
  return Math.exp(Math.fround(sign * u[at] + xShift[this.thread.z * this.constants.width + column]) + yShift[row]);
}
