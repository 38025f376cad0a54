/** h */
export function product(a, b) {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let p = this.thread.z * this.constants.aBlock + this.thread.y * this.constants.depth * 4;
  let q = this.thread.z * this.constants.bBlock + this.thread.x;
  for (let block = 0; block < this.constants.depth; block += this.constants.block) {
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
