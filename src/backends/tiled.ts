/**
 * A Session over float32 kernels that work on one tile at a time.
 *
 * The running state lives here, in float64: a device only ever sums one tile (blocked sums), so float32 drift does not grow
 * with the number of rows. Rows whose denominator underflows are recomputed in float64: causal ones sequentially, others where
 * features of the map may all but vanish (elu of very negative rows).
 */
import { QueryRow } from "../../kernels/scalar/queries.ts";
import { absorbKeys } from "../../kernels/scalar/keys.ts";
import type { BackendName, Session, SessionCounts, Stage } from "../backend.ts";
import { UnsupportedError } from "../errors.ts";
import { NO_HYBRID } from "./mod.ts";
import type { Plan } from "../plan.ts";
import { clearState, copyState, emptyState, mergeLater, setState, type State } from "../state.ts";
import { type FloatArray, rowsOf, type Tile } from "../tensor.ts";

/** Keys, values and weights of the rows that are being answered (causal). */
export interface OwnRows {
  readonly k: Tile;
  readonly v: Tile;
  readonly weights?: FloatArray;
}

/** Rows `from … to−1`, borrowed. */
export function ownRowsOf({ k, v, weights }: OwnRows, from: number, to: number): OwnRows {
  return { k: rowsOf(k, from, to), v: rowsOf(v, from, to), weights: weights?.subarray(from, to) };
}

/** Outputs of one tile: `rows × (heads · valueDim)`, and the denominator p·z of each (row, head). */
export interface TileOutput {
  readonly out: Float32Array;
  /** `rows × heads`, relative to the row maximum: ≥ about 1 for positive maps, 0 where no key is visible. */
  readonly denominators: Float32Array;
  /** Pairs of queries and keys that whole clusters took, where they are counted (SessionCounts.topPairs). */
  readonly pairs?: number;
}

/**
 * What a float32 backend implements. Where the plan has decay, keys get its log weights (decay.ts), and states are relative to the last
 * row of the keys. Every call copies its tiles before it returns; results may be awaited out of step.
 */
export interface TileKernels extends AsyncDisposable {
  /** State of these keys alone. */
  keys(k: Tile, v: Tile, weights?: FloatArray): Promise<State>;
  /**
   * Queries over `state`; `version` changes whenever the state's numbers do, so an uploaded copy can be kept. Outputs may go to
   * `into`, which is as long as they are.
   */
  queries(q: Tile, state: State, version: number, into?: Float32Array): Promise<TileOutput>;
  /** Numbers that stay as they are until their call settles: `data` itself where it lies in lent memory, else a copy. */
  keep?(data: FloatArray): FloatArray;
  /** Takes back a state it returned, for its next one: fresh memory is slow to touch. */
  recycle?(state: State): void;
  /** Takes back the denominators of an output, likewise. */
  reuse?(denominators: Float32Array): void;
  /** Seconds per stage so far, where they are measured. */
  stages?(): Readonly<Record<Stage, number>> | null;
  /** Queries over `state` and own rows ≤ i; also the state of the own keys alone. */
  causal(
    q: Tile,
    own: OwnRows,
    state: State,
    version: number,
    into?: Float32Array,
  ): Promise<TileOutput & { readonly own: State }>;
}

/** Below this a float32 denominator has lost its digits (math: kernels/README.md §4). */
const UNDERFLOW = 1e-25;
/** The smallest float32 above 0: a recomputed denominator is never mistaken for "no key". */
const SMALLEST = 2 ** -149;

/** Throws UnsupportedError for maps that only the scalar backend has kernels for. */
export function requireKernels(backend: BackendName, { parameters: { map } }: Plan): void {
  if (map.family === "hybrid") throw new UnsupportedError(backend, NO_HYBRID);
}

export class TiledSession implements Session {
  readonly counts: SessionCounts = { emptyRows: 0, nonPositive: 0, recomputed: 0 };
  readonly #state: State;
  #version = 0;
  /** Settles when every absorb so far is merged. */
  #merged: Promise<void> = Promise.resolve();
  /** Absorbs that are not merged yet. */
  #pending = 0;
  /** Causal: state of an emitted tile's own keys, waiting for its absorb. */
  #own: { readonly k: Tile; readonly state: Promise<State> } | null = null;

  constructor(readonly plan: Plan, readonly kernels: TileKernels) {
    this.#state = emptyState(plan.kvHeads, plan.parameters.features, plan.valueDim);
  }

  get stages(): Readonly<Record<Stage, number>> | null {
    return this.kernels.stages?.() ?? null;
  }

  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    const sums = this.#own?.k === k ? this.#own.state : this.kernels.keys(k, v, weights);
    this.#own = null;
    this.#pending++;
    const { rows } = k;
    const before = this.#merged;
    const merged = (async () => {
      try {
        const [state] = await Promise.all([sums, before]);
        mergeLater(this.#state, state, this.plan.decay, rows);
        this.#version++;
        this.kernels.recycle?.(state);
      } finally {
        this.#pending--;
      }
    })();
    this.#merged = merged;
    merged.catch(() => {}); // reported by the caller's await and by every later call
    return merged;
  }

  async emit(q: Tile, own?: OwnRows | null, into?: FloatArray, denominators?: FloatArray): Promise<Tile> {
    const out = into?.subarray(0, q.rows * this.plan.heads * this.plan.valueDim) as Float32Array | undefined;
    const result = await (own ? this.#emitCausal(q, own, out) : this.#emitAll(q, out));
    denominators?.set(result.denominators);
    this.kernels.reuse?.(result.denominators);
    return this.#tile(q, result, out);
  }

  async #emitAll(q: Tile, into?: Float32Array): Promise<TileOutput> {
    const result = await (this.#mayVanish ? this.#emitRepaired(q, into) : this.#inTurn(q, (held) => {
      return this.kernels.queries(held, this.#state, this.#version, into);
    }));
    const { denominators } = result;
    for (let cell = 0; cell < denominators.length; cell++) {
      const denominator = denominators[cell];
      if (denominator === 0) this.counts.emptyRows++;
      else if (!(denominator > 0 && denominator < Infinity)) this.counts.nonPositive++;
    }
    return result;
  }

  /** Exponents of the `exp` family are stabilised, signed maps may cancel: only the others can lose all features of a row. */
  get #mayVanish(): boolean {
    const { map } = this.plan.parameters;
    return map.family !== "exp" && !map.signed;
  }

  #emitRepaired(q: Tile, into?: Float32Array): Promise<TileOutput> {
    const kept = this.#kept(q); // the caller's tile may be gone when the denominators are known
    const settled = this.#inTurn(kept, async (held) => {
      const result = await this.kernels.queries(held, this.#state, this.#version, into);
      this.#recompute(held, this.#state, result);
      return result;
    });
    this.#holdBack(settled);
    return settled;
  }

  /** Recomputes, in float64, cells (row, head) that see keys but whose denominator underflowed. */
  #recompute(q: Tile, state: State, { out, denominators }: TileOutput): void {
    if (state.keys === 0) return;
    const special = { emptyRows: 0, nonPositive: 0 };
    let row: QueryRow | undefined;
    for (let cell = 0; cell < denominators.length; cell++) {
      if (!(denominators[cell] < UNDERFLOW)) continue;
      Object.assign(special, { emptyRows: 0, nonPositive: 0 });
      row ??= new QueryRow(this.plan.parameters, this.plan, state, special);
      const denominator = row.emit(q, Math.floor(cell / this.plan.heads), cell % this.plan.heads, out);
      if (special.emptyRows > 0) continue; // no key: stays 0 and is counted
      denominators[cell] = special.nonPositive > 0 ? NaN : Math.max(denominator, SMALLEST);
    }
  }

  /** Later keys join the state only when `settled`, which reads it as it is now. */
  #holdBack(settled: Promise<unknown>): void {
    this.#merged = Promise.all([this.#merged, settled]).then(() => {});
    this.#merged.catch(() => {}); // reported to who awaits `settled`
  }

  async #emitCausal(q: Tile, own: OwnRows, into?: Float32Array): Promise<TileOutput> {
    const settled = this.#inTurn(q, async (held) => {
      const done = await this.kernels.causal(held, own, this.#state, this.#version, into);
      this.#repair(held, own, done);
      return done;
    });
    const state = settled.then((done) => done.own);
    state.catch(() => {}); // reported by the await below
    this.#holdBack(settled);
    this.#own = { k: own.k, state };
    return await settled;
  }

  #kept(q: Tile): Tile {
    return { ...q, data: this.kernels.keep?.(q.data) ?? q.data.slice() };
  }

  /** Starts `call` when all earlier absorbs are merged and before any later one is. */
  async #inTurn<T>(q: Tile, call: (q: Tile) => Promise<T>): Promise<T> {
    if (this.#pending === 0) return call(q);
    const held = this.#kept(q);
    let started: Promise<T> | undefined;
    const turn = this.#merged.then(() => {
      started = call(held);
      started.catch(() => {});
    });
    turn.catch(() => {});
    this.#merged = turn;
    await turn;
    return started!;
  }

  #tile(q: Tile, result: TileOutput, into?: Float32Array): Tile {
    if (into && result.out !== into) into.set(result.out);
    return { start: q.start, rows: q.rows, cols: this.plan.heads * this.plan.valueDim, data: into ?? result.out };
  }

  /**
   * Applies the sequential rule, in float64 and in row order, to the cells (row, head) whose denominator underflowed.
   */
  #repair(q: Tile, own: OwnRows, result: TileOutput): void {
    const { plan, counts } = this;
    if (result.denominators.every((denominator) => denominator >= UNDERFLOW)) return;
    const before = copyState(this.#state);
    const { signed } = plan.parameters.map;
    const special = { emptyRows: 0, nonPositive: 0 };
    const row = new QueryRow(plan.parameters, plan, before, special);
    let absorbed = 0;
    for (let cell = 0; cell < result.denominators.length; cell++) {
      const denominator = result.denominators[cell];
      if (denominator >= UNDERFLOW) continue;
      if (signed && denominator < 0) {
        counts.nonPositive++;
        continue;
      }
      const i = Math.floor(cell / plan.heads);
      absorbKeys(plan.parameters, plan, before, own.k, own.v, own.weights, absorbed, i + 1);
      absorbed = i + 1;
      result.denominators[cell] = row.emit(q, i, cell % plan.heads, result.out);
      counts.recomputed++;
    }
    counts.emptyRows += special.emptyRows;
    counts.nonPositive += special.nonPositive;
    counts.recomputed -= special.emptyRows;
  }

  async save(): Promise<State> {
    await this.#merged;
    return copyState(this.#state);
  }

  async load(state: State): Promise<void> {
    await this.#merged;
    this.#own = null;
    setState(this.#state, state);
    this.#version++;
  }

  reset(): void {
    if (this.#pending > 0) throw new Error("reset while keys are in flight");
    this.#own = null;
    clearState(this.#state);
    this.#version++;
    Object.assign(this.counts, { emptyRows: 0, nonPositive: 0, recomputed: 0 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#merged.catch(() => {});
    await this.kernels[Symbol.asyncDispose]();
  }
}
