/**
 * A NearFarSession over float32 kernels that work on one tile at a time: moments live here, in float64, and kernels hand in the sums of
 * one tile about a point near its keys; heavy keys are chosen here as well. Calls take effect in call order: tiles are copied when a call
 * is made, sums are merged and read in turn.
 */
import type { KeyRows, NearFarSession, SessionCounts } from "../backend.ts";
import {
  addSums,
  copyFarState,
  emptyFarState,
  type FarState,
  type FarSums,
  type HeavyKey,
  rebase,
} from "../far_state.ts";
import { BLOCK_ROWS, type NearFarPlan } from "../near_far.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { HeavyKeys } from "./heavy_keys.ts";
import type { TileOutput } from "./tiled.ts";

/** What a float32 backend implements. Both calls copy their tiles before they return. */
export interface NearFarKernels extends AsyncDisposable {
  /** Sums of these keys alone, about `reference` (float32 numbers; clusters: the centroids). Not called without a far field. */
  sums(keys: KeyRows, reference: Float64Array): Promise<FarSums>;
  /**
   * Takes queries, the rows near them, and heavy keys per state and key head: one state, or causal one per block of BLOCK_ROWS rows.
   * What it returns is called once, in turn: starts work over `sums`, which refer to a float32 point and may change when it has returned;
   * `version` changes whenever they have. Outputs may be written to `into`, where they are as long or longer.
   */
  emit(
    q: Tile,
    near: KeyRows | null,
    heavy: readonly (readonly (readonly HeavyKey[])[])[],
    into?: FloatArray,
  ): (sums: FarSums, version: number) => Promise<TileOutput>;
  /** Takes back sums it returned, for its next ones: fresh memory is slow to touch. */
  recycle?(sums: FarSums): void;
  /** Rows that come may be others than those that `sums` was given: the session starts over. */
  forget?(): void;
}

type Heavy = Pick<FarState, "heavy" | "weight" | "sum">;

export class DeviceNearFar implements NearFarSession {
  readonly counts: SessionCounts = { emptyRows: 0, nonPositive: 0, recomputed: 0 };
  /** Its sums lag behind by the calls in flight; all else is that of the last call made. */
  #state: FarState;
  #heavy: HeavyKeys;
  #version = 0;
  /** What the next tile's Taylor sums refer to: null before there is any key. */
  #reference: Float64Array | null = null;
  /** Sums about their own mean, of a version. */
  #centred: { readonly version: number; readonly sums: FarSums } | null = null;
  /** Causal: heavy keys past the rows that were emitted last and are absorbed next. */
  #next: { readonly start: number; readonly rows: number; readonly state: Heavy } | null = null;
  /** Settles when every call so far has read or changed the sums. */
  #turn: Promise<void> = Promise.resolve();
  #pending = 0;

  constructor(readonly plan: NearFarPlan, readonly kernels: NearFarKernels) {
    this.#state = emptyFarState(plan);
    this.#heavy = new HeavyKeys(plan, this.#state);
  }

  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    const { far } = this.plan;
    const rows = { k, v, weights };
    this.#absorbHeavy(rows);
    this.#state.rows += k.rows;
    this.#state.keys += countKeys(k.rows, weights);
    if (far === "none") return this.#turn;
    const state = this.#state;
    const reference = far === "clusters" ? state.sums.reference : this.#reference ?? meanOf(rows, this.plan);
    if (!reference) return this.#turn; // no key of weight > 0 yet
    if (far !== "clusters") this.#reference = reference;
    const sums = this.kernels.sums(rows, reference);
    sums.catch(() => {}); // reported in turn
    return this.#inTurn(async () => {
      const own = await sums;
      if (far !== "clusters") rebase(state.sums, this.plan.headDim, this.plan.valueDim, reference);
      addSums(state.sums, own);
      this.#version++;
      this.kernels.recycle?.(own);
    });
  }

  /** Heavy keys past these rows, which a causal emit has found already if it was for the same ones. */
  #absorbHeavy(rows: KeyRows): void {
    const { k } = rows, next = this.#next;
    this.#next = null;
    if (next?.start !== k.start || next.rows !== k.rows) return this.#heavy.absorb(rows);
    const { heavy, weight, sum } = this.#state;
    for (const [head, keys] of next.state.heavy.entries()) heavy[head] = keys;
    weight.set(next.state.weight);
    sum.set(next.state.sum);
    this.#heavy = new HeavyKeys(this.plan, this.#state);
  }

  /** Runs `call` when those before it are done. */
  #inTurn<T>(call: () => Promise<T> | T): Promise<T> {
    this.#pending++;
    const result = this.#turn.then(call).finally(() => this.#pending--);
    this.#turn = result.then(() => {});
    this.#turn.catch(() => {}); // reported by the caller's await and by every later call
    return result;
  }

  async emit(q: Tile, near: KeyRows | null, into?: FloatArray): Promise<Tile> {
    const { plan } = this;
    if (plan.causal) checkOwn(q, near);
    const own = plan.causal && this.#state.keys === 0 ? firstKey(near!, q, plan) : null;
    const start = this.kernels.emit(q, near, plan.causal ? this.#ahead(q, near!) : [this.#state.heavy], into);
    const state = this.#state;
    // Later calls wait for the work to start, not for its end.
    const started = await this.#inTurn(() => {
      const output = start(this.#sums(state.sums, own), this.#version);
      output.catch(() => {});
      return { output };
    });
    const { out, denominators, pairs } = await started.output;
    if (pairs !== undefined) this.counts.topPairs = (this.counts.topPairs ?? 0) + pairs;
    for (let i = 0; i < denominators.length; i++) { // an iterator over shared memory is slow
      const denominator = denominators[i];
      if (denominator === 0) this.counts.emptyRows++;
      else if (!(denominator > 0 && denominator < Infinity)) this.counts.nonPositive++;
    }
    const cols = plan.heads * plan.valueDim;
    const data = into?.subarray(0, q.rows * cols);
    if (data && data.buffer !== out.buffer) data.set(out);
    return { start: q.start, rows: q.rows, cols, data: data ?? out };
  }

  /** Causal: the heavy keys that each block of the queries has. */
  #ahead(q: Tile, near: KeyRows): HeavyKey[][][] {
    const { heavy, weight, sum } = this.#state;
    const ahead = { heavy: heavy.map((keys) => keys.slice()), weight: weight.slice(), sum: sum.slice() };
    const keys = new HeavyKeys(this.plan, ahead);
    const own = q.start - near.k.start;
    const lists: HeavyKey[][][] = [];
    for (let from = 0; from < q.rows; from += BLOCK_ROWS) {
      lists.push(ahead.heavy.map((some) => some.slice()));
      keys.absorb(near, own + from, own + Math.min(q.rows, from + BLOCK_ROWS));
    }
    this.#next = { start: q.start, rows: q.rows, state: ahead };
    return lists;
  }

  /** The sums about their mean, or about `first` where there is none: both are known to every row that sees a key. */
  #sums(sums: FarSums, first: Float64Array | null): FarSums {
    const { far, headDim, valueDim } = this.plan;
    if (far === "none" || far === "clusters") return sums;
    if (this.#centred?.version === this.#version && !first) return this.#centred.sums;
    const centred = copyFarState({ ...this.#state, sums, heavy: [] }).sums;
    rebase(centred, headDim, valueDim, meanOfSums(centred, headDim, first));
    this.#centred = first ? null : { version: this.#version, sums: centred };
    return centred;
  }

  async save(): Promise<FarState> {
    const { heavy, weight, sum, keys, rows } = this.#state;
    const now = { heavy: heavy.map((some) => some.slice()), weight: weight.slice(), sum: sum.slice(), keys, rows };
    const state = this.#state;
    return await this.#inTurn(() => copyFarState({ ...now, sums: state.sums }));
  }

  async load(state: FarState): Promise<void> {
    if ((this.plan.clusters?.top ?? 0) > 0) {
      throw new RangeError("Cannot load a state of top clusters: their keys are not part of it");
    }
    const copy = copyFarState(state);
    const { far, headDim } = this.plan;
    this.#take(copy);
    if (far !== "none" && far !== "clusters" && copy.keys > 0) {
      // What a session's own sums refer to stays, so that more keys round as they would have; 0 is none of ours.
      const own = copy.sums.reference.some((value) => value !== 0);
      this.#reference = own ? copy.sums.reference.slice() : meanOfSums(copy.sums, headDim, null);
    }
    await this.#inTurn(() => {
      this.#version++;
    });
  }

  reset(): void {
    if (this.#pending > 0) throw new Error("reset while calls are in flight");
    this.#take(emptyFarState(this.plan));
    this.#version++;
    Object.assign(this.counts, { emptyRows: 0, nonPositive: 0, recomputed: 0, topPairs: undefined });
  }

  /** Calls in flight keep the state that they were made for. */
  #take(state: FarState): void {
    this.#state = state;
    this.#heavy = new HeavyKeys(this.plan, state);
    this.#next = null;
    this.#reference = null;
    this.#centred = null;
    this.kernels.forget?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn.catch(() => {});
    await this.kernels[Symbol.asyncDispose]();
  }
}

function checkOwn(q: Tile, near: KeyRows | null): void {
  const end = near ? near.k.start + near.k.rows : -1;
  if (!near || near.k.start > q.start || end < q.start + q.rows) {
    const has = near ? `near keys ${near.k.start} … ${end - 1}` : "none";
    throw new RangeError(`Cannot emit causal rows from ${q.start} without their own ${q.rows} keys, got ${has}`);
  }
  if (q.start % BLOCK_ROWS !== 0) {
    throw new RangeError(`Cannot emit causal rows from ${q.start}: tiles begin at multiples of ${BLOCK_ROWS}`);
  }
}

function countKeys(rows: number, weights: FloatArray | undefined): number {
  let keys = 0;
  for (let i = 0; i < rows; i++) if (weights === undefined || weights[i] > 0) keys++;
  return keys;
}

/** Mean of the keys of weight > 0 per head, in float32 numbers; null where there are none. */
function meanOf({ k, weights }: KeyRows, { kvHeads, headDim }: NearFarPlan): Float64Array | null {
  const width = kvHeads * headDim;
  const mean = new Float64Array(width);
  let total = 0;
  for (let i = 0; i < k.rows; i++) {
    const weight = weights ? weights[i] : 1;
    if (!(weight > 0)) continue;
    total += weight;
    for (let l = 0; l < width; l++) mean[l] += weight * k.data[i * width + l];
  }
  return total > 0 ? mean.map((sum) => Math.fround(sum / total)) : null;
}

/** Mean of the keys of each head in float32 numbers, or `first` (else 0) where there are none. */
function meanOfSums({ n, y, reference }: FarSums, d: number, first: Float64Array | null): Float64Array {
  return reference.map((point, l) => {
    const weight = n[Math.floor(l / d)];
    return weight > 0 ? Math.fround(point + y[l] / weight) : first?.[l] ?? 0;
  });
}

/** The first of the queries' own keys that has weight, in which no later key plays a part. */
function firstKey({ k, weights }: KeyRows, q: Tile, { kvHeads, headDim }: NearFarPlan): Float64Array | null {
  const width = kvHeads * headDim;
  for (let i = q.start - k.start; i < k.rows; i++) {
    if (weights === undefined || weights[i] > 0) return Float64Array.from(k.data.subarray(i * width, (i + 1) * width));
  }
  return null;
}
