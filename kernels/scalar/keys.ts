/**
 * Keys pass: folds keys and values into the state (c, z, S) in float64.
 *
 * Rows go in blocks so that one feature's S row stays in the first-level cache while the block's values pass by.
 * The state is rescaled by e^{c − c'} when a block raises a feature's maximum (math: kernels/README.md §3).
 */
import { FeatureRow } from "./features.ts";
import type { FeatureNumbers, HeadShape, Rows, StateNumbers } from "./types.ts";

const BLOCK = 32;

/** Raises feature `f`'s stored maximum to `top` and rescales its sums. */
export function raise(state: StateNumbers, f: number, top: number): void {
  if (top <= state.c[f]) return;
  const scale = Math.exp(state.c[f] - top); // 0 when c = −∞
  state.c[f] = top;
  state.z[f] *= scale;
  const { valueDim } = state;
  for (let i = f * valueDim, end = i + valueDim; i < end; i++) state.S[i] *= scale;
}

/** Absorbs rows `from … to−1`. `weights[i]` is ω_i ≥ 0; 0 removes the key. */
export function absorbKeys(
  p: FeatureNumbers,
  shape: HeadShape,
  state: StateNumbers,
  k: Rows,
  v: Rows,
  weights?: ArrayLike<number>,
  from = 0,
  to: number = k.rows,
): void {
  const { kvHeads, headDim, valueDim } = shape;
  const r = p.features;
  const feature = new FeatureRow(p);
  const g = new Float64Array(BLOCK * r);
  const e = new Float64Array(BLOCK * r);
  const rows = new Int32Array(BLOCK);
  for (let begin = from; begin < to;) {
    let n = 0; // rows of this block with ω > 0
    for (; begin < to && n < BLOCK; begin++) if (!weights || weights[begin] > 0) rows[n++] = begin;
    for (let h = 0; h < kvHeads; h++) {
      for (let b = 0; b < n; b++) {
        feature.key(h, k.data, (rows[b] * kvHeads + h) * headDim, g, e, b * r);
        if (weights) {
          const logWeight = Math.log(weights[rows[b]]);
          for (let a = 0; a < r; a++) e[b * r + a] += logWeight;
        }
      }
      for (let a = 0; a < r; a++) {
        const f = h * r + a;
        let top = -Infinity;
        for (let b = 0; b < n; b++) top = Math.max(top, e[b * r + a]);
        raise(state, f, top);
        const c = state.c[f];
        for (let b = 0; b < n; b++) {
          const phi = g[b * r + a] * Math.exp(e[b * r + a] - c);
          state.z[f] += phi;
          let s = f * valueDim;
          for (let i = (rows[b] * kvHeads + h) * valueDim, end = i + valueDim; i < end; i++) {
            state.S[s++] += phi * v.data[i];
          }
        }
      }
    }
    state.keys += n;
  }
}
