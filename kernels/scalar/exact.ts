/**
 * Exact softmax attention of held query rows over streaming keys: per (row, head) an online softmax
 * M = largest logit, l = Σ ω e^{t−M}, o = Σ ω e^{t−M} v (arXiv 1805.02867). A monoid: any cut of the keys gives the same answer.
 */
import type { HeadShape, Rows } from "./types.ts";

/** `rows × heads` of M and l, `rows × heads × valueDim` of o. */
export interface OnlineSoftmax {
  readonly top: Float64Array;
  readonly total: Float64Array;
  readonly sums: Float64Array;
}

/** The identity: no key seen. */
export function emptySoftmax(rows: number, heads: number, valueDim: number): OnlineSoftmax {
  return {
    top: new Float64Array(rows * heads).fill(-Infinity),
    total: new Float64Array(rows * heads),
    sums: new Float64Array(rows * heads * valueDim),
  };
}

/**
 * Adds keys. `firstKey` is the row index of k's first row; with `positions`, query i sees keys whose row index ≤ positions[i].
 * Logits are scale · q·k, with decay (causal only) less λ (positions[i] − row of the key).
 */
export function absorbExact(
  shape: HeadShape,
  scale: number,
  held: OnlineSoftmax,
  q: Rows,
  k: Rows,
  v: Rows,
  weights: ArrayLike<number> | undefined,
  positions: ArrayLike<number> | undefined,
  firstKey: number,
): void {
  const { heads, kvHeads, headDim, valueDim, decay } = shape;
  const { top, total, sums } = held;
  const logits = new Float64Array(k.rows);
  for (let i = 0; i < q.rows; i++) {
    const visible = positions ? Math.min(k.rows, positions[i] - firstKey + 1) : k.rows;
    for (let h = 0; h < heads; h++) {
      const kv = Math.floor(h * kvHeads / heads);
      const cell = i * heads + h;
      const qAt = cell * headDim;
      let highest = top[cell];
      for (let j = 0; j < visible; j++) {
        const kAt = (j * kvHeads + kv) * headDim;
        let dot = 0;
        for (let l = 0; l < headDim; l++) dot += q.data[qAt + l] * k.data[kAt + l];
        logits[j] = weights ? (weights[j] > 0 ? dot * scale + Math.log(weights[j]) : -Infinity) : dot * scale;
        if (decay && positions) logits[j] -= decay[kv] * (positions[i] - firstKey - j);
        if (logits[j] > highest) highest = logits[j];
      }
      if (highest === -Infinity) continue;
      const rescale = Math.exp(top[cell] - highest);
      top[cell] = highest;
      total[cell] *= rescale;
      const o = cell * valueDim;
      for (let c = 0; c < valueDim; c++) sums[o + c] *= rescale;
      for (let j = 0; j < visible; j++) {
        const e = Math.exp(logits[j] - highest);
        if (e === 0) continue;
        total[cell] += e;
        const vAt = (j * kvHeads + kv) * valueDim;
        for (let c = 0; c < valueDim; c++) sums[o + c] += e * v.data[vAt + c];
      }
    }
  }
}

/** Writes o / l; rows that saw no key become 0. */
export function emitExact(held: OnlineSoftmax, valueDim: number, out: Float32Array | Float64Array): void {
  for (let cell = 0; cell < held.total.length; cell++) {
    const l = held.total[cell];
    for (let c = cell * valueDim, end = c + valueDim; c < end; c++) out[c] = l > 0 ? held.sums[c] / l : 0;
  }
}
