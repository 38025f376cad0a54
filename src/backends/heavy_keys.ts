/**
 * Heavy keys of near-and-far attention for backends that compute in float32: scored and chosen in float64 on the host, as
 * kernels/scalar/far_keys.ts does, so that every backend chooses the same ones. One pass over a tile's keys, d multiply-adds per key and
 * head; a key is copied only when it joins. 8,192 keys × 16 heads of 64 numbers take 10 ms, causal ones 22 ms.
 */
import type { KeyRows } from "../backend.ts";
import { type FarState, type HeavyKey, offerHeavy } from "../far_state.ts";
import { BLOCK_ROWS, type NearFarPlan } from "../near_far.ts";

export class HeavyKeys {
  /** What a key must exceed to join, per key head. */
  readonly #least: Float64Array;
  /** What keys are measured from. */
  readonly #centre: Float64Array;

  /** Works on the heavy keys, weight and sum of `state`. */
  constructor(readonly plan: NearFarPlan, readonly state: Pick<FarState, "heavy" | "weight" | "sum">) {
    this.#centre = plan.centre.slice();
    this.#least = Float64Array.from(state.heavy, (keys) => this.#leastOf(keys));
  }

  #leastOf(keys: readonly HeavyKey[]): number {
    if (keys.length < this.plan.heavy) return -1;
    let least = Infinity;
    for (const { score } of keys) if (score < least) least = score;
    return least;
  }

  /** Offers rows `from … to − 1`, which follow those offered before. */
  absorb(rows: KeyRows, from = 0, to: number = rows.k.rows): void {
    const { plan: { heavy, causal, kvHeads }, state } = this;
    if (heavy === 0) return;
    const { k, weights } = rows;
    for (let i = from; i < to; i++) {
      if (causal && (k.start + i) % BLOCK_ROWS === 0) this.#moveCentre();
      const weight = weights ? weights[i] : 1;
      if (!(weight > 0)) continue;
      for (let head = 0; head < kvHeads; head++) this.#offer(head, rows, i, weight);
      for (let head = 0; head < state.weight.length; head++) state.weight[head] += weight;
    }
  }

  /** Causal: keys of a block are measured from the mean of the keys before it. */
  #moveCentre(): void {
    const { plan: { headDim: d }, state: { weight, sum } } = this;
    for (let l = 0; l < sum.length; l++) {
      const n = weight[Math.floor(l / d)];
      this.#centre[l] = n > 0 ? sum[l] / n : 0;
    }
  }

  #offer(head: number, { k, v }: KeyRows, i: number, weight: number): void {
    const { plan: { headDim: d, valueDim, kvHeads, heavy }, state: { heavy: lists, sum } } = this;
    const cell = i * kvHeads + head, at = cell * d, centre = head * d;
    const { data } = k;
    let score = 0;
    for (let l = 0; l < d; l++) score += (data[at + l] - this.#centre[centre + l]) ** 2;
    for (let l = 0; l < d && sum.length > 0; l++) sum[centre + l] += weight * data[at + l];
    // Of equals the earlier row stays; merged states may hold later ones.
    if (score < this.#least[head]) return;
    offerHeavy(lists[head], {
      row: k.start + i,
      score,
      weight,
      k: Float64Array.from(data.subarray(at, at + d)),
      v: Float64Array.from(v.data.subarray(cell * valueDim, (cell + 1) * valueDim)),
    }, heavy);
    this.#least[head] = this.#leastOf(lists[head]);
  }
}
