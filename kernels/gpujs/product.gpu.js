/**
 * C = A·B, four rows of A and one column of B per cell: the product of modes that run cells as vectors (webasm).
 *
 * Layout "quads": row 4y+c, column x of chunk z stands at ((z·Y + y)·X + x)·4 + c. A is quads of rows over `depth`, B is
 * `depth × width` row-major, C is quads. `aBlock` and `bBlock` are the numbers per chunk (0: all chunks share one matrix).
 *
 * gpu.js runs four neighbouring x as one 128-bit vector. Reading `b[x]` costs a gather (four loads with clamped indices),
 * reading `a[…]` one load and a splat, so the fewer gathers per multiply-add, the faster.
 *
 * v1  one cell per number                        1.8 GFLOP/s Bun   1.3 Deno   one gather per 4 multiply-adds
 * v2  4 rows per cell (returns Array(4))         3.5               3.0        one gather per 16
 * v3  v2, depth unrolled by 4                    4.3               2.8
 * v4  v3, sums of `block` numbers                4.9               3.0        this file; error 1.4e-6 instead of 2e-6 at depth 1024
 * –   2 × 2 per cell, scalar (no vectors)        1.5               1.2        lesson: vectors with gathers still beat scalar blocking
 *
 * Predicted for v2: 4× of v1, as gathers dominate; measured 2×: the four loads with splats cost as much as one gather.
 * (1024 × 64 · 64 × 256, one core of a 3.2 GHz Zen 3, Bun 1.4.5 and Deno 2.9.6.)
 */
export function product(a, b) {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let p = this.thread.z * this.constants.aBlock + this.thread.y * this.constants.depth * 4;
  let q = this.thread.z * this.constants.bBlock + this.thread.x;
  for (let from = 0; from < this.constants.depth; from += this.constants.block) {
    let t0 = 0;
    let t1 = 0;
    let t2 = 0;
    let t3 = 0;
    for (let l = 0; l < this.constants.block; l += 4) {
      const b0 = b[q];
      const b1 = b[q + this.constants.width];
      const b2 = b[q + this.constants.width * 2];
      const b3 = b[q + this.constants.width * 3];
      t0 += a[p] * b0 + a[p + 4] * b1 + a[p + 8] * b2 + a[p + 12] * b3;
      t1 += a[p + 1] * b0 + a[p + 5] * b1 + a[p + 9] * b2 + a[p + 13] * b3;
      t2 += a[p + 2] * b0 + a[p + 6] * b1 + a[p + 10] * b2 + a[p + 14] * b3;
      t3 += a[p + 3] * b0 + a[p + 7] * b1 + a[p + 11] * b2 + a[p + 15] * b3;
      p += 16;
      q += this.constants.width * 4;
    }
    s0 += t0;
    s1 += t1;
    s2 += t2;
    s3 += t3;
  }
  return [s0, s1, s2, s3];
}
