/** One attention of a checkpoint, and a session that computes it: what rules.ts prepares. */
import type { SessionCounts } from "./backend.ts";
import type { Activation } from "./feature_map.ts";
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
}

/** Keys and values of the rows that are being answered (causal). */
export interface OwnRows {
  readonly k: Tile;
  readonly v: Tile;
  readonly weights?: FloatArray;
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
  /** Starts the next batch item: forgets keys, and what was surveyed unless the maximum is over all batch items. */
  reset(): Promise<void>;
}
