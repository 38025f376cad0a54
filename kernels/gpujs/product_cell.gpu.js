/** h */
export function product(a, b) {
  let s = 0;
  const x = this.thread.x >> 2;
  let p = (this.thread.z * this.constants.aBlock + this.thread.y * this.constants.depth * 4) + (this.thread.x & 3);
  let q = this.thread.z * this.constants.bBlock + x;
  for (let block = 0; block < this.constants.depth; block += this.constants.block) {
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
