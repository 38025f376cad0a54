/**
 * Keys pass: folds keys and values into the state (c, z, S) in float64.
 *
 * Rows go in blocks so that one feature's S row stays in the first-level cache while the block's values pass by.
 * The state is rescaled by e^{c − c'} when a block raises a feature's maximum (math: kernels/README.md §3), and falls with every row
 * where there is decay (§10).
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

/** `rows` rows pass a state: its exponents fall by λ of their key head for each (kernels/README.md §10). */
export function decayState(state: StateNumbers, decay: ArrayLike<number>, rows: number): void {
  for (let f = 0; f < state.c.length; f++) state.c[f] -= decay[Math.floor(f / state.features)] * rows;
}

/** Absorbs keys into one state; scratch memory is kept between calls. */
export class KeyPass {
  readonly #feature: FeatureRow;
  readonly #g: Float64Array;
  readonly #e: Float64Array;
  readonly #rows: Int32Array;

  constructor(readonly p: FeatureNumbers, readonly shape: HeadShape, readonly state: StateNumbers, blockRows = BLOCK) {
    this.#feature = new FeatureRow(p);
    this.#g = new Float64Array(blockRows * p.features);
    this.#e = new Float64Array(blockRows * p.features);
    this.#rows = new Int32Array(blockRows);
  }

  /** Absorbs rows `from … to−1`. `weights[i]` is ω_i ≥ 0; 0 removes the key. With decay the state is relative to the last of them. */
  absorb(k: Rows, v: Rows, weights: ArrayLike<number> | undefined, from: number, to: number): void {
    const rows = this.#rows;
    const { decay } = this.shape;
    for (let begin = from; begin < to;) {
      const first = begin;
      let n = 0; // rows of this block with ω > 0
      for (; begin < to && n < rows.length; begin++) if (!weights || weights[begin] > 0) rows[n++] = begin;
      if (decay) decayState(this.state, decay, begin - first);
      for (let h = 0; h < this.shape.kvHeads; h++) this.#head(h, n, k, v, weights, begin - 1);
      this.state.keys += n;
    }
  }

  /** One block of rows, one head. */
  #head(h: number, n: number, k: Rows, v: Rows, weights: ArrayLike<number> | undefined, last: number): void {
    const { state } = this;
    const { kvHeads, headDim, valueDim, decay } = this.shape;
    const r = this.p.features;
    const g = this.#g, e = this.#e, rows = this.#rows;
    for (let b = 0; b < n; b++) {
      this.#feature.key(h, k.data, (rows[b] * kvHeads + h) * headDim, g, e, b * r);
      if (weights || decay) {
        const logWeight = (weights ? Math.log(weights[rows[b]]) : 0) + (decay ? decay[h] * (rows[b] - last) : 0);
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
}

/** Absorbs rows `from … to−1`, all of them by default; see `KeyPass`. */
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
  new KeyPass(p, shape, state).absorb(k, v, weights, from, to);
}
