/**
 * C = A·B, one number per cell: the product of modes that run cells one by one (cpu). Same layouts as product.gpu.js;
 * cell x of the output is column x/4, row 4y + x%4.
 *
 * v1  this file                            2.7 GFLOP/s Bun   1.9 Deno
 * –   4 rows per cell (product.gpu.js)     3.7               0.5        lesson: V8 needs 1.3 µs to make each Array(4) result
 *
 * Predicted: the blocked kernel wins on both, as it reads less. It does on Bun only; one kernel for both runtimes is simpler.
 */
export function product(a, b) {
  let s = 0;
  let p = this.thread.z * this.constants.aBlock + this.thread.y * this.constants.depth * 4 + (this.thread.x & 3);
  let q = this.thread.z * this.constants.bBlock + (this.thread.x >> 2);
  for (let from = 0; from < this.constants.depth; from += this.constants.block) {
    let t = 0;
    for (let l = 0; l < this.constants.block; l++) {
      t += a[p] * b[q];
      p += 4;
      q += this.constants.width;
    }
    s += t;
  }
  return s;
}
