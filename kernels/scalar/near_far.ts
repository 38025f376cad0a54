/**
 * Near-and-far attention, query by query in float64: the reference (src/near_far.ts defines every term).
 *
 *     num = far sums + Σ_near ω (e^{t−M} − K̂ e^{−M}) v,   M = the largest exponent on the way
 */
import { ClusterFar, type FarField, NoFar, TaylorFar } from "./far_field.ts";
import { FarKeyPass } from "./far_keys.ts";
import {
  BLOCK_ROWS,
  type FarNumbers,
  type HeavyNumbers,
  type NearFarNumbers,
  type NearKeys,
  type PlacedRows,
} from "./near_far_types.ts";
import type { Counts } from "./types.ts";

/** A key near the query at hand. */
interface NearKey {
  readonly t: number;
  readonly weight: number;
  /** −1: has no K̂ to take away. */
  readonly cluster: number;
  readonly corrected: boolean;
  readonly v: ArrayLike<number>;
  readonly vAt: number;
}

/** A key of an absorbed tile, kept for `clusters.top`. */
export interface KeptKey {
  readonly row: number;
  readonly weight: number;
  readonly k: Float64Array;
  readonly v: Float64Array;
}

/** Answers queries over one state, which must stay as it is meanwhile. */
export class NearFarRows {
  readonly #far: FarField;
  readonly #x: Float64Array;
  readonly #sums: Float64Array;

  /** `kept`: with `clusters.top`, the absorbed keys of each (key head, cluster). */
  constructor(
    readonly plan: NearFarNumbers,
    readonly state: FarNumbers,
    readonly kept: readonly (readonly KeptKey[])[],
    readonly counts: Counts,
  ) {
    const { far } = plan;
    this.#far = far === "none"
      ? new NoFar(plan)
      : far === "clusters"
      ? new ClusterFar(plan, state)
      : new TaylorFar(plan, state);
    this.#x = new Float64Array(plan.headDim);
    this.#sums = new Float64Array(plan.valueDim);
  }

  /** Output of row `i` of `q`, head `head`, into `out`. */
  emit(q: PlacedRows, i: number, head: number, near: NearKeys | null, out: Float32Array | Float64Array): void {
    const { heads, kvHeads, headDim: d, valueDim, scale, causal, exactRows } = this.plan;
    const row = q.start + i;
    const kvHead = Math.floor(head * kvHeads / heads);
    const x = this.#x;
    for (let l = 0; l < d; l++) x[l] = scale * q.data[(i * heads + head) * d + l];
    const exact = causal && row < exactRows;
    const far = this.#far.pose(kvHead, x, row, near);
    const keys = this.#near(row, kvHead, near, exact, far.shift);
    let top = exact ? -Infinity : far.top;
    for (const { t } of keys) top = Math.max(top, t);
    const at = (i * heads + head) * valueDim;
    if (top === -Infinity) {
      this.counts.emptyRows++;
      out.fill(0, at, at + valueDim);
      return;
    }
    const scaleFar = exact ? 0 : Math.exp(far.top - top);
    let total = scaleFar * far.total;
    const sums = this.#sums;
    for (let c = 0; c < valueDim; c++) sums[c] = scaleFar * far.sums[c];
    for (const { t, weight, cluster, corrected, v, vAt } of keys) {
      let factor = Math.exp(t - top);
      if (corrected && !exact) {
        const { value, log } = this.#far.estimate(kvHead, t, cluster);
        factor -= value * Math.exp(log - top);
      }
      total += weight * factor;
      for (let c = 0; c < valueDim; c++) sums[c] += weight * factor * v[vAt + c];
    }
    if (!(total > 0 && total < Infinity)) this.counts.nonPositive++;
    for (let c = 0; c < valueDim; c++) out[at + c] = sums[c] / total;
  }

  /** The near keys of a row, each once. */
  #near(row: number, head: number, near: NearKeys | null, exact: boolean, shift: number): NearKey[] {
    const { plan: { window, causal, far, valueDim, kvHeads, headDim: d }, state } = this;
    const found = new Map<number, NearKey>();
    const add = (
      at: number,
      weight: number,
      k: ArrayLike<number>,
      kAt: number,
      v: ArrayLike<number>,
      vAt: number,
      corrected: boolean,
    ) => {
      if (!(weight > 0) || found.has(at)) return;
      let t = -shift;
      for (let l = 0; l < d; l++) t += this.#x[l] * k[kAt + l];
      found.set(at, { t, weight, cluster: this.#far.clusterOf(head, k, kAt), corrected, v, vAt });
    };
    if (near) {
      const { k, v, weights } = near;
      const block = row - row % BLOCK_ROWS;
      const first = exact ? 0 : causal && far === "clusters" ? Math.min(block, row - window + 1) : row - window + 1;
      const last = causal ? row : row + window - 1;
      for (let j = Math.max(first, k.start); j <= Math.min(last, k.start + k.rows - 1); j++) {
        const cell = (j - k.start) * kvHeads + head;
        const corrected = !(causal && far === "clusters" && j >= block);
        add(j, weights ? weights[j - k.start] : 1, k.data, cell * d, v.data, cell * valueDim, corrected);
      }
    }
    for (const key of state.heavy[head]) add(key.row, key.weight, key.k, 0, key.v, 0, true);
    for (const [g, chosen] of this.#far.top.entries()) {
      if (!chosen || exact) continue; // exact rows have every key already
      this.counts.topPairs = (this.counts.topPairs ?? 0) + this.kept[head * this.#far.top.length + g].length;
      for (const key of this.kept[head * this.#far.top.length + g]) add(key.row, key.weight, key.k, 0, key.v, 0, true);
    }
    return [...found.values()];
  }
}

/**
 * Causal: outputs of all rows of `q`, whose own rows end `near`. The state is advanced past them, block by block, as the definition
 * says; `kept` as well.
 */
export function emitCausalNearFar(
  plan: NearFarNumbers,
  state: FarNumbers,
  keep: (rows: NearKeys, from: number, to: number) => void,
  kept: readonly (readonly KeptKey[])[],
  offer: (head: number, key: HeavyNumbers) => void,
  q: PlacedRows,
  near: NearKeys,
  out: Float32Array | Float64Array,
  counts: Counts,
): void {
  const rows = new NearFarRows(plan, state, kept, counts);
  const keys = new FarKeyPass(plan, state, offer);
  for (let from = 0; from < q.rows;) {
    const to = Math.min(q.rows, from + BLOCK_ROWS - (q.start + from) % BLOCK_ROWS);
    for (let i = from; i < to; i++) for (let head = 0; head < plan.heads; head++) rows.emit(q, i, head, near, out);
    const own = q.start - near.k.start;
    keys.absorb(near, own + from, own + to);
    keep(near, own + from, own + to);
    from = to;
  }
}
