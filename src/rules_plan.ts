/** One attention of a checkpoint, and a session that computes it: what rules.ts prepares. */
import type { SessionCounts } from "./backend.ts";
import type { State } from "./state.ts";
import type { Activation, MapParameters } from "./feature_map.ts";
import type { Kernel, RulesName } from "./rules_table.ts";
import type { FloatArray, Tile } from "./tensor.ts";

/** One attention of a checkpoint. */
export interface RuledPlan {
  readonly rules: RulesName;
  readonly kernel: Kernel;
  /** f of "generalized". */
  readonly activation: Activation;
  /** W, `m × d`, shared by all heads; not used by "no-projection" and "exact-softmax". */
  readonly projection: Float64Array;
  readonly heads: number;
  /** Heads of keys and values where they are fewer; only "exact-softmax" has fewer. */
  readonly kvHeads?: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly causal: boolean;
  readonly tileRows: number;
  /** `RuledSession.observation` is wanted: features of all rows have to be on one scale. */
  readonly observed?: boolean;
}

/** What a bidirectional session lets others see of its features (rules_sums.ts). */
export interface Observation {
  /** The map that makes features of `keys` and of the rows that are shown, `width` columns per head. */
  readonly parameters: MapParameters;
  readonly width: number;
  /** The denominators' factor in the profile's own features. */
  readonly unit: number;
  /** Keys as rows for the map, valid until the next; only between the session's own calls. */
  keys(k: Tile): Promise<Tile>;
  /** Is shown every emitted tile as rows for the map, valid until it settles, with its denominators, `rows × heads`. */
  show: ((q: Tile, denominators: FloatArray) => Promise<void>) | null;
}

/** Keys and values of the rows that are being answered (causal). */
export interface OwnRows {
  readonly k: Tile;
  readonly v: Tile;
  readonly weights?: FloatArray;
}

/** What the keys of a session come to, where it is a sum: states of several ranges of rows add up. */
export interface KeySums {
  save(): Promise<State>;
  /** Replaces what was absorbed. */
  load(state: State): Promise<void>;
}

/**
 * Attention under a profile. Where `surveys` is set, every key passes `survey` before the first `absorb`. Bidirectional: absorb all
 * keys, then emit queries. Causal: emit each tile with its own keys and values, then absorb these, in row order. Calls take effect
 * in call order; tiles must stay as they are until their call settles.
 */
export interface RuledSession extends AsyncDisposable {
  readonly counts: SessionCounts;
  readonly surveys: boolean;
  survey(k: Tile): Promise<void>;
  /** `weights`: one ω ≥ 0 per row, 0 = masked; on values alone or on keys as the profile has it. */
  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void>;
  /** Outputs, `rows × heads·valueDim`, in `into` when given. */
  emit(q: Tile, own?: OwnRows | null, into?: FloatArray): Promise<Tile>;
  /** Absent where keys do not add up: under profiles with ε or maxima of their own, and for exact softmax. */
  readonly sums?: KeySums;
  /** Absent without `observed`, and for kernels that cannot. */
  readonly observation?: Observation;
  /** Starts the next batch item: forgets keys, and what was surveyed unless the maximum is over all batch items. */
  reset(): Promise<void>;
}
