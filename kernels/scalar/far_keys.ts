/**
 * Keys pass of near-and-far attention: moments of the far field and scores of heavy keys, in float64, row by row
 * (src/near_far.ts defines both).
 */
import {
  BLOCK_ROWS,
  type FarNumbers,
  type HeavyNumbers,
  type NearFarNumbers,
  type NearKeys,
} from "./near_far_types.ts";

/** The centroid nearest to the key at `data[at …]`: argmax of k·c − ‖c‖²/2, the first of equals. */
export function nearestCentroid(plan: NearFarNumbers, kvHead: number, data: ArrayLike<number>, at: number): number {
  const { count, centroids } = plan.clusters!;
  const d = plan.headDim;
  let best = 0, highest = -Infinity;
  for (let g = 0; g < count; g++) {
    const c = (kvHead * count + g) * d;
    let score = 0;
    for (let l = 0; l < d; l++) score += centroids[c + l] * (data[at + l] - 0.5 * centroids[c + l]);
    if (score > highest) [best, highest] = [g, score];
  }
  return best;
}

/** Adds keys to a state. Heavy keys go to `offer`, which keeps the highest scores. */
export class FarKeyPass {
  readonly #shifted: Float64Array;
  /** What heavy keys are measured from. */
  readonly #centre: Float64Array;

  constructor(
    readonly plan: NearFarNumbers,
    readonly state: FarNumbers,
    readonly offer: (head: number, key: HeavyNumbers) => void,
  ) {
    this.#shifted = new Float64Array(plan.headDim);
    this.#centre = plan.centre.slice();
  }

  /** Absorbs rows `from … to − 1` of a tile whose rows follow those absorbed before. */
  absorb({ k, v, weights }: NearKeys, from = 0, to: number = k.rows): void {
    const { state, plan: { kvHeads, causal, heavy } } = this;
    for (let i = from; i < to; i++) {
      if (causal && heavy > 0 && (k.start + i) % BLOCK_ROWS === 0) this.#moveCentre();
      const weight = weights ? weights[i] : 1;
      state.rows++;
      if (!(weight > 0)) continue;
      state.keys++;
      for (let head = 0; head < kvHeads; head++) {
        this.#key(head, k.data, v.data, i * kvHeads + head, k.start + i, weight);
      }
    }
  }

  /** Causal: heavy keys of a block are measured from the mean of the keys before it. */
  #moveCentre(): void {
    const { weight, sum } = this.state;
    const d = this.plan.headDim;
    for (let head = 0; head < weight.length; head++) {
      for (let l = head * d; l < (head + 1) * d; l++) this.#centre[l] = weight[head] > 0 ? sum[l] / weight[head] : 0;
    }
  }

  #key(head: number, k: ArrayLike<number>, v: ArrayLike<number>, cell: number, row: number, weight: number): void {
    const { state, plan: { headDim: d, valueDim, far, clusters, heavy } } = this;
    const kAt = cell * d, vAt = cell * valueDim;
    if (heavy > 0) {
      let score = 0;
      for (let l = 0; l < d; l++) score += (k[kAt + l] - this.#centre[head * d + l]) ** 2;
      const numbers = (from: ArrayLike<number>, at: number, count: number) =>
        Float64Array.from({ length: count }, (_, c) => from[at + c]);
      this.offer(head, { row, score, weight, k: numbers(k, kAt, d), v: numbers(v, vAt, valueDim) });
      if (state.weight.length > 0) {
        state.weight[head] += weight;
        for (let l = 0; l < d; l++) state.sum[head * d + l] += weight * k[kAt + l];
      }
    }
    if (far === "none") return;
    const { reference, n, y, yy, yv, yyv } = state.sums;
    const sum = far === "clusters" ? head * clusters!.count + nearestCentroid(this.plan, head, k, kAt) : head;
    const shifted = this.#shifted;
    for (let l = 0; l < d; l++) shifted[l] = k[kAt + l] - reference[sum * d + l];
    n[sum] += weight;
    for (let l = 0; l < d; l++) y[sum * d + l] += weight * shifted[l];
    for (let c = 0; c < valueDim; c++) state.sums.v[sum * valueDim + c] += weight * v[vAt + c];
    if (far === "clusters") {
      for (let l = 0; l < d; l++) yy[sum * d + l] += weight * shifted[l] ** 2;
      return;
    }
    addOuter(yv, sum * d, shifted, weight, v, vAt, valueDim);
    if (yy.length === 0) return;
    const pairs = d * (d + 1) / 2;
    const products = new Float64Array(pairs);
    for (let a = 0, pair = 0; a < d; a++) for (let b = a; b < d; b++) products[pair++] = shifted[a] * shifted[b];
    for (let pair = 0; pair < pairs; pair++) yy[sum * pairs + pair] += weight * products[pair];
    addOuter(yyv, sum * pairs, products, weight, v, vAt, valueDim);
  }
}

/** sums[row + a, :] += weight · x_a · v. */
function addOuter(
  sums: Float64Array,
  row: number,
  x: Float64Array,
  weight: number,
  v: ArrayLike<number>,
  vAt: number,
  valueDim: number,
): void {
  for (let a = 0; a < x.length; a++) {
    const factor = weight * x[a];
    for (let c = 0, at = (row + a) * valueDim; c < valueDim; c++) sums[at + c] += factor * v[vAt + c];
  }
}
