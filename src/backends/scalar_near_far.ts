/** Near-and-far attention in float64 (kernels/scalar/near_far.ts): the reference of every other backend's. */
import { FarKeyPass, nearestCentroid } from "../../kernels/scalar/far_keys.ts";
import { emitCausalNearFar, type KeptKey, NearFarRows } from "../../kernels/scalar/near_far.ts";
import type { NearKeys } from "../../kernels/scalar/near_far_types.ts";
import type { KeyRows, NearFarSession, SessionCounts } from "../backend.ts";
import { copyFarState, emptyFarState, type FarState, offerHeavy } from "../far_state.ts";
import type { NearFarPlan } from "../near_far.ts";
import type { FloatArray, Tile } from "../tensor.ts";

export class ScalarNearFar implements NearFarSession {
  readonly counts: SessionCounts = { emptyRows: 0, nonPositive: 0, recomputed: 0 };
  #state: FarState;
  #keys: FarKeyPass;
  /** With `clusters.top`: the keys of each (key head, cluster). */
  #kept: KeptKey[][];
  #rows: NearFarRows | null = null;

  constructor(readonly plan: NearFarPlan) {
    this.#state = emptyFarState(plan);
    this.#keys = this.#pass(this.#state);
    this.#kept = this.#emptyKept();
  }

  #emptyKept(): KeptKey[][] {
    const { kvHeads, clusters } = this.plan;
    return Array.from({ length: clusters && clusters.top > 0 ? kvHeads * clusters.count : 0 }, () => []);
  }

  #pass(state: FarState): FarKeyPass {
    return new FarKeyPass(this.plan, state, (head, key) => offerHeavy(state.heavy[head], key, this.plan.heavy));
  }

  /** Copies rows to their clusters in `kept`. */
  #keep(kept: KeptKey[][], { k, v, weights }: NearKeys, from: number, to: number): void {
    const { kvHeads, headDim, valueDim, clusters } = this.plan;
    for (let i = from; i < to && kept.length > 0; i++) {
      const weight = weights ? weights[i] : 1;
      for (let head = 0; head < kvHeads && weight > 0; head++) {
        const cell = i * kvHeads + head;
        const g = nearestCentroid(this.plan, head, k.data, cell * headDim);
        kept[head * clusters!.count + g].push({
          row: k.start + i,
          weight,
          k: Float64Array.from(k.data.subarray(cell * headDim, (cell + 1) * headDim)),
          v: Float64Array.from(v.data.subarray(cell * valueDim, (cell + 1) * valueDim)),
        });
      }
    }
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    this.#keys.absorb({ k, v, weights });
    this.#keep(this.#kept, { k, v, weights }, 0, k.rows);
    this.#rows = null;
  }

  async emit(q: Tile, near: KeyRows | null, into?: FloatArray): Promise<Tile> {
    const { plan } = this;
    const length = q.rows * plan.heads * plan.valueDim;
    const data = into?.subarray(0, length) ?? new Float64Array(length);
    if (plan.causal) {
      if (!near) throw new RangeError("Cannot emit causal rows without their own keys");
      const ahead = copyFarState(this.#state);
      const kept = this.#kept.map((keys) => keys.slice());
      const keep = (rows: NearKeys, from: number, to: number) => this.#keep(kept, rows, from, to);
      const offer = this.#pass(ahead).offer;
      emitCausalNearFar(plan, ahead, keep, kept, offer, q, near, data, this.counts);
    } else {
      this.#rows ??= new NearFarRows(plan, this.#state, this.#kept, this.counts);
      for (let i = 0; i < q.rows; i++) {
        for (let head = 0; head < plan.heads; head++) this.#rows.emit(q, i, head, near, data);
      }
    }
    return { start: q.start, rows: q.rows, cols: plan.heads * plan.valueDim, data };
  }

  async save(): Promise<FarState> {
    return copyFarState(this.#state);
  }

  async load(state: FarState): Promise<void> {
    if ((this.plan.clusters?.top ?? 0) > 0) {
      throw new RangeError("Cannot load a state of top clusters: their keys are not part of it");
    }
    this.#take(copyFarState(state));
  }

  reset(): void {
    this.#take(emptyFarState(this.plan));
    Object.assign(this.counts, { emptyRows: 0, nonPositive: 0, recomputed: 0, topPairs: undefined });
  }

  #take(state: FarState): void {
    this.#state = state;
    this.#keys = this.#pass(state);
    this.#kept = this.#emptyKept();
    this.#rows = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
