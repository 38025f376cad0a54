/** The narrow waist. This file runs nothing; backends implement it, run.ts uses it. */
import type { FarState } from "./far_state.ts";
import type { NearFarPlan, NearFarShape } from "./near_far.ts";
import type { ExactPlan, Limits, LinearPlan, Plan } from "./plan.ts";
import type { State } from "./state.ts";
import type { FloatArray, Tile } from "./tensor.ts";

/** In the order `auto` tries them. */
export const BACKEND_NAMES = ["webgpu", "onnx", "wasm", "gpujs", "scalar"] as const;
export type BackendName = typeof BACKEND_NAMES[number];

export interface OpenOptions {
  /** Backend-specific choice after a colon: `webgpu:swiftshader`, `gpujs:cpu`. */
  readonly variant?: string;
  /** Asked for by name: software adapters are allowed. `auto` never takes one. */
  readonly named: boolean;
  /** Threads that compute, where a backend has them; default one per core. */
  readonly threads?: number;
  /** Start every thread now: for those who time them. Else threads start when there is work enough to repay it. */
  readonly eager?: boolean;
  /** Measure the time of every stage (`Session.stages`), at a small cost. */
  readonly profile?: boolean;
}

/** What a backend reaches by itself on this machine: the yardstick of "% of measured peak". */
export interface Peak {
  /** Floating-point operations per second of its own matrix product, operands in cache. */
  readonly flopsPerSecond: number;
  /** Bytes read plus bytes written per second by its own copy of a large array. */
  readonly bytesPerSecond: number;
}

/** Stages of a session's work, in the order they run. */
export const STAGES = ["pack", "features", "exp", "accumulate", "emit"] as const;
export type Stage = typeof STAGES[number];

/** Opens a backend, or throws UnsupportedError with a reason a user can act on. */
export interface Driver {
  readonly name: BackendName;
  open(options: OpenOptions): Promise<Backend>;
}

/** A device that is open: what `prepare` needs, and what it says of itself. */
export interface Backend extends AsyncDisposable {
  readonly name: BackendName;
  /** What runs: adapter, mode, threads. */
  readonly device: string;
  /** Threads that compute, where a backend has threads of its own. */
  readonly threads?: number;
  readonly limits: Limits;
  /** Its device or a thread of it is gone: no call succeeds any more, it has to be opened anew. Absent: that cannot happen. */
  readonly lost?: boolean;
  /** Compiles once; the session runs many tiles. */
  prepare(plan: Plan): Promise<Session>;
  /** Exact softmax, the dual: queries are held and keys stream by. */
  prepareExact(plan: ExactPlan): Promise<ExactSession>;
  /** Near keys exactly, far ones cheaply. Absent where there are no kernels for it; throws UnsupportedError for plans it cannot take. */
  prepareNearFar?(plan: NearFarPlan): Promise<NearFarSession>;
  /**
   * Throws the UnsupportedError that `prepareNearFar` has for a plan of this shape, so that another backend can be chosen before anything is
   * fitted. Allocates nothing. Absent: plans of any shape are taken, or none.
   */
  checkNearFar?(shape: NearFarShape): void;
  /** A dense layer: packs or uploads its weights once. */
  prepareLinear(plan: LinearPlan): Promise<Linear>;
  /**
   * Memory that sessions of this backend read and write in place: tiles and outputs in it are not copied, and must stay as they
   * are until the call with them settles. Call it while no session is at work. Absent where copies cannot be saved.
   */
  allocate?(length: number): FloatArray;
  /** Takes back what `allocate` returned. */
  release?(array: FloatArray): void;
  /** Measures the peak, for about `seconds`; absent where a backend has no product of its own. */
  measurePeak?(seconds: number): Promise<Peak>;
}

/** A dense layer in flight: y = activation(x Wᵀ + b). Calls may be in flight together; tiles are used as Session uses them. */
export interface Linear extends AsyncDisposable {
  /**
   * Outputs of `x`, `rows × inputs` with at most `plan.tileRows` rows: `rows × outputs`, in `into` when that is given (as many
   * numbers or more, of the backend's precision), else in an array of the caller's own.
   */
  run(x: Tile, into?: FloatArray): Promise<Tile>;
}

/** Rows that were treated specially since `reset`. Each counts one (row, head). */
export interface SessionCounts {
  /** No visible key: output 0. */
  emptyRows: number;
  /** Denominator ≤ 0 (signed maps) or not finite (unstabilised maps): the output is not an average of values. */
  nonPositive: number;
  /** Causal rows recomputed sequentially because the chunked denominator underflowed. */
  recomputed: number;
  /** Near-and-far attention with `top`: pairs of queries and keys that were exact for their cluster's sake. */
  topPairs?: number;
}

/** Of sessions that have no special rows. */
export const NO_COUNTS: Readonly<SessionCounts> = { emptyRows: 0, nonPositive: 0, recomputed: 0 };

/**
 * One linear attention in flight. Calls take effect in call order and copy their tiles before they return (but for tiles in
 * memory of `Backend.allocate`), so several may be in flight. Tiles are `rows × (heads·width)` and at most `plan.tileRows` rows.
 * With decay, rows are absorbed in their order, masked ones too, and a state is relative to the last of them (mergeLater in state.ts).
 */
export interface Session extends AsyncDisposable {
  readonly counts: SessionCounts;
  /** Seconds per stage so far, added up over threads; null unless the backend was opened with `profile`. */
  readonly stages?: Readonly<Record<Stage, number>> | null;
  /** Adds keys and values; `weights` holds one ω ≥ 0 per row, 0 = masked. */
  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void>;
  /**
   * Attention output of the queries over all absorbed keys, `rows × (heads·valueDim)`: in `into` when that is given (as many
   * numbers or more, of the backend's precision; fresh memory is slow to touch), else in an array of the caller's own.
   * With `own` (causal): row i also sees own rows ≤ i, which are not yet absorbed; absorb the same tiles afterwards.
   * `q` and `own` of a causal call stay valid until it settles. `denominators`, `rows × heads`, gets what outputs were divided by:
   * Σ φ(q)·φ(k) for pointwise maps of keys without weights, for other maps relative to the row's largest exponent.
   */
  emit(
    q: Tile,
    own?: { readonly k: Tile; readonly v: Tile; readonly weights?: FloatArray } | null,
    into?: FloatArray,
    denominators?: FloatArray,
  ): Promise<Tile>;
  save(): Promise<State>;
  load(state: State): Promise<void>;
  reset(): void;
}

/** Keys, values and weights of the same rows. */
export interface KeyRows {
  readonly k: Tile;
  readonly v: Tile;
  readonly weights?: FloatArray;
}

/**
 * Near-and-far attention in flight (near_far.ts). The promises of Session hold: calls take effect in call order, tiles are copied or lent.
 * Tiles come in order of rows and hold whole blocks of BLOCK_ROWS rows, but for the last; `plan.tileRows` is a multiple of it.
 */
export interface NearFarSession extends AsyncDisposable {
  readonly counts: SessionCounts;
  /** Adds keys and values to the far field and the heavy keys. Bidirectional: all of them before the first `emit`. */
  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void>;
  /**
   * Outputs of the queries, `rows × (heads·valueDim)`, in `into` as Session.emit does. `near` holds the rows of `nearRows`, which may be
   * more than `plan.tileRows`; their `start` says which. Causal: it ends with the queries' own rows, which are absorbed afterwards.
   */
  emit(q: Tile, near: KeyRows | null, into?: FloatArray): Promise<Tile>;
  save(): Promise<FarState>;
  load(state: FarState): Promise<void>;
  reset(): void;
}

/**
 * Per held (row, head), `rows × heads`: a largest logit M (a bound near it unless the plan is `tight`) and Σ ω e^{t − M}. Logits have the
 * bias of decay.
 */
export interface Normalisers {
  readonly top: Float64Array;
  readonly total: Float64Array;
}

/** Exact softmax of held query rows over streaming keys: an online softmax per row, itself a monoid. Same ordering promise. */
export interface ExactSession extends AsyncDisposable {
  /**
   * Forgets everything and holds these queries. `positions[i]` is the row index of query i (causal: it sees keys whose
   * row ≤ position); ignored when bidirectional.
   */
  pose(q: Tile, positions: ArrayLike<number>): Promise<void>;
  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void>;
  /** Outputs of the held queries, `rows × (heads·valueDim)`; rows that saw no key are 0. */
  emit(): Promise<Tile>;
  /** The softmax normalisers of the held queries so far, e^{top} · total = Σ ω e^{S q·k}. */
  normalisers(): Promise<Normalisers>;
}
