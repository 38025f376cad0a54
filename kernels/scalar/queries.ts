/**
 * Query pass: out_i = (pᵀS)/(p·z) with p_a = g_a · exp(e_a + c_a − M), M the row maximum, so that 1 ≤ p·z for positive maps.
 */
import { FeatureRow } from "./features.ts";
import type { Counts, FeatureNumbers, HeadShape, Rows, StateNumbers } from "./types.ts";

/** Writes `rows × (heads · valueDim)` outputs into `out`. Rows that see no key become 0 and are counted. */
export class QueryRow {
  readonly #feature: FeatureRow;
  readonly #g: Float64Array;
  readonly #e: Float64Array;
  readonly #sum: Float64Array;

  constructor(
    readonly p: FeatureNumbers,
    readonly shape: HeadShape,
    readonly state: StateNumbers,
    readonly counts: Counts,
  ) {
    this.#feature = new FeatureRow(p);
    this.#g = new Float64Array(p.features);
    this.#e = new Float64Array(p.features);
    this.#sum = new Float64Array(shape.valueDim);
  }

  /** Output of query row `i`, head `h`; returns the denominator, relative to the largest exponent, 0 where no key is seen. */
  emit(q: Rows, i: number, h: number, out: Float32Array | Float64Array): number {
    const { heads, kvHeads, headDim, valueDim } = this.shape;
    const { features } = this.p;
    const { c, z, S } = this.state;
    const kvHead = Math.floor(h * kvHeads / heads);
    const base = kvHead * features;
    const g = this.#g, e = this.#e, sum = this.#sum;
    this.#feature.query(kvHead, q.data, (i * heads + h) * headDim, g, e);
    let top = -Infinity;
    for (let a = 0; a < features; a++) {
      e[a] += c[base + a];
      if (e[a] > top) top = e[a];
    }
    const at = (i * heads + h) * valueDim;
    if (top === -Infinity) {
      this.counts.emptyRows++;
      out.fill(0, at, at + valueDim);
      return 0;
    }
    sum.fill(0);
    let denominator = 0;
    for (let a = 0; a < features; a++) {
      const p = g[a] * Math.exp(e[a] - top);
      denominator += p * z[base + a];
      const s = (base + a) * valueDim;
      for (let j = 0; j < valueDim; j++) sum[j] += p * S[s + j];
    }
    if (!(denominator > 0 && denominator < Infinity)) this.counts.nonPositive++;
    for (let j = 0; j < valueDim; j++) out[at + j] = sum[j] / denominator;
    return denominator;
  }
}

/** Bidirectional: every query over everything in the state. */
export function emitQueries(
  p: FeatureNumbers,
  shape: HeadShape,
  state: StateNumbers,
  q: Rows,
  out: Float32Array | Float64Array,
  counts: Counts,
  denominators?: Float32Array | Float64Array,
): void {
  const row = new QueryRow(p, shape, state, counts);
  for (let i = 0, cell = 0; i < q.rows; i++) {
    for (let h = 0; h < shape.heads; h++, cell++) {
      const denominator = row.emit(q, i, h, out);
      if (denominators) denominators[cell] = denominator;
    }
  }
}
