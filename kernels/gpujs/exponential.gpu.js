/**
 * E = exp(±u + xShift + yShift) over quads (product.gpu.js tells the layout), four exponentials per cell, for webasm.
 *
 * `u` is `uRows × uWidth` quads; cells beyond it (x ≥ uWidth or y ≥ uRows) take −u of the folded place: hyperbolic features
 * from one product. Shifts: xShift `chunks × width`, yShift `chunks × rows × 4`. Exponents are ≤ 0 up to rounding; below −87
 * the result is 0.
 *
 * e^x = 2^n · e^f, |f| ≤ ½ ln 2: degree-6 polynomial (Cephes expf), and 2^n by halving once per bit of −n, since gpu.js has no
 * way to build a float from its bits.
 *
 * v1  Math.exp, one number per cell     21 ns a number Bun   32 Deno   gpu.js calls out to JavaScript once per lane
 * v2  polynomial, one per cell          15–19                12–28     three gathers per four numbers
 * v3  polynomial, four per cell         12–13                9–13      this file: five gathers per sixteen numbers
 * –   2^n from a table                  9                    15        lesson: a NaN becomes an index; a branch cannot trap
 * –   ?: instead of if                  19–25                9         Bun keeps fewer values in registers
 *
 * Predicted for v3: 5 ns (about 45 vector operations for four numbers); the masks of `if` double that.
 */
export function exponential(u, xShift, yShift) {
  let x = this.thread.x;
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
  const at = ((this.thread.z * this.constants.uRows + y) * this.constants.uWidth + x) * 4;
  const shift = xShift[this.thread.z * this.constants.width + this.thread.x];
  const row = (this.thread.z * this.constants.rows + this.thread.y) * 4;
  const e0 = sign * u[at] + shift + yShift[row];
  const e1 = sign * u[at + 1] + shift + yShift[row + 1];
  const e2 = sign * u[at + 2] + shift + yShift[row + 2];
  const e3 = sign * u[at + 3] + shift + yShift[row + 3];

  const x0 = Math.max(e0, -87);
  const n0 = Math.floor(x0 * 1.44269504 + 0.5);
  const f0 = x0 - n0 * 0.693359375 + n0 * 0.00021219444;
  let p0 = f0 * 0.0001987569150 + 0.0013981999507;
  p0 = p0 * f0 + 0.0083334519073;
  p0 = p0 * f0 + 0.041665795894;
  p0 = p0 * f0 + 0.16666665459;
  p0 = p0 * f0 + 0.50000001201;
  p0 = p0 * f0 * f0 + f0 + 1;
  let k0 = 0 - n0;
  if (k0 >= 64) {
    p0 *= 0.00000000000000000005421010862427522;
    k0 -= 64;
  }
  if (k0 >= 32) {
    p0 *= 0.00000000023283064365386963;
    k0 -= 32;
  }
  if (k0 >= 16) {
    p0 *= 0.0000152587890625;
    k0 -= 16;
  }
  if (k0 >= 8) {
    p0 *= 0.00390625;
    k0 -= 8;
  }
  if (k0 >= 4) {
    p0 *= 0.0625;
    k0 -= 4;
  }
  if (k0 >= 2) {
    p0 *= 0.25;
    k0 -= 2;
  }
  if (k0 >= 1) p0 *= 0.5;

  const x1 = Math.max(e1, -87);
  const n1 = Math.floor(x1 * 1.44269504 + 0.5);
  const f1 = x1 - n1 * 0.693359375 + n1 * 0.00021219444;
  let p1 = f1 * 0.0001987569150 + 0.0013981999507;
  p1 = p1 * f1 + 0.0083334519073;
  p1 = p1 * f1 + 0.041665795894;
  p1 = p1 * f1 + 0.16666665459;
  p1 = p1 * f1 + 0.50000001201;
  p1 = p1 * f1 * f1 + f1 + 1;
  let k1 = 0 - n1;
  if (k1 >= 64) {
    p1 *= 0.00000000000000000005421010862427522;
    k1 -= 64;
  }
  if (k1 >= 32) {
    p1 *= 0.00000000023283064365386963;
    k1 -= 32;
  }
  if (k1 >= 16) {
    p1 *= 0.0000152587890625;
    k1 -= 16;
  }
  if (k1 >= 8) {
    p1 *= 0.00390625;
    k1 -= 8;
  }
  if (k1 >= 4) {
    p1 *= 0.0625;
    k1 -= 4;
  }
  if (k1 >= 2) {
    p1 *= 0.25;
    k1 -= 2;
  }
  if (k1 >= 1) p1 *= 0.5;

  const x2 = Math.max(e2, -87);
  const n2 = Math.floor(x2 * 1.44269504 + 0.5);
  const f2 = x2 - n2 * 0.693359375 + n2 * 0.00021219444;
  let p2 = f2 * 0.0001987569150 + 0.0013981999507;
  p2 = p2 * f2 + 0.0083334519073;
  p2 = p2 * f2 + 0.041665795894;
  p2 = p2 * f2 + 0.16666665459;
  p2 = p2 * f2 + 0.50000001201;
  p2 = p2 * f2 * f2 + f2 + 1;
  let k2 = 0 - n2;
  if (k2 >= 64) {
    p2 *= 0.00000000000000000005421010862427522;
    k2 -= 64;
  }
  if (k2 >= 32) {
    p2 *= 0.00000000023283064365386963;
    k2 -= 32;
  }
  if (k2 >= 16) {
    p2 *= 0.0000152587890625;
    k2 -= 16;
  }
  if (k2 >= 8) {
    p2 *= 0.00390625;
    k2 -= 8;
  }
  if (k2 >= 4) {
    p2 *= 0.0625;
    k2 -= 4;
  }
  if (k2 >= 2) {
    p2 *= 0.25;
    k2 -= 2;
  }
  if (k2 >= 1) p2 *= 0.5;

  const x3 = Math.max(e3, -87);
  const n3 = Math.floor(x3 * 1.44269504 + 0.5);
  const f3 = x3 - n3 * 0.693359375 + n3 * 0.00021219444;
  let p3 = f3 * 0.0001987569150 + 0.0013981999507;
  p3 = p3 * f3 + 0.0083334519073;
  p3 = p3 * f3 + 0.041665795894;
  p3 = p3 * f3 + 0.16666665459;
  p3 = p3 * f3 + 0.50000001201;
  p3 = p3 * f3 * f3 + f3 + 1;
  let k3 = 0 - n3;
  if (k3 >= 64) {
    p3 *= 0.00000000000000000005421010862427522;
    k3 -= 64;
  }
  if (k3 >= 32) {
    p3 *= 0.00000000023283064365386963;
    k3 -= 32;
  }
  if (k3 >= 16) {
    p3 *= 0.0000152587890625;
    k3 -= 16;
  }
  if (k3 >= 8) {
    p3 *= 0.00390625;
    k3 -= 8;
  }
  if (k3 >= 4) {
    p3 *= 0.0625;
    k3 -= 4;
  }
  if (k3 >= 2) {
    p3 *= 0.25;
    k3 -= 2;
  }
  if (k3 >= 1) p3 *= 0.5;

  return [
    e0 < -87 ? 0 : p0,
    e1 < -87 ? 0 : p1,
    e2 < -87 ? 0 : p2,
    e3 < -87 ? 0 : p3,
  ];
}
