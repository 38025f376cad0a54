/**
 * Near exactly, far cheaply: attention whose largest weights are exact and whose many small ones come from a cheap far field,
 * under one normaliser. Pure data: the plan; math and definitions, which kernels/scalar/near_far.ts spells out in float64.
 *
 * With x_i = S·q_i, y_j = k_j, weights ω_j ≥ 0 and V_i the visible keys (all; causal: j ≤ i):
 *
 *     num_i = Σ_{V_i} ω K̂_ij v_j + Σ_{N_i} ω (e^{t_ij} − K̂_ij) v_j        den_i = the same without v_j
 *
 * **Near keys** N_i: those with |i − j| < window (causal: 0 ≤ i − j < window), the heavy keys, and every key while i < exactRows.
 *
 * **Heavy keys**: the `heavy` keys with the largest ‖y_j − centre‖² and ω_j > 0, the earlier one of equals. Causal: at row i those
 * among the keys before i's block of 64 rows, each scored by its distance from the mean of the keys before its own block.
 *
 * **Far fields** K̂:
 * - `none`: 0, so that only near keys count; t = x·y.
 * - `taylor1`, `taylor2`, `hermite2`: t_ij = x_i·(y_j − c_i) with c_i the weighted mean of V_i (softmax cannot see the shift), and
 *   K̂ = 1 + t, 1 + t + t²/2, or 1 + t + t²/2 − σ²/2 with σ² the weighted variance of t over V_i where σ² ≤ HERMITE_LIMIT (else taylor2).
 *   Σ_{V_i} ωK̂ is Σω, Σω(1 + σ²/2), Σω: denominators are safe by construction. States hold moments and are re-centred exactly at emit.
 * - `clusters`: key j joins the nearest of C fixed centroids, g(j); cluster g keeps n = Σω, the mean ȳ and the variances s² of its keys
 *   per coordinate, Σωv. K̂_ij = exp(x·ȳ_g + min(½ Σ_c x_c² s²_gc, QUADRATIC_LIMIT)), g = g(j); t = x·y. All keys of the `top` clusters
 *   with the largest n_g K̂ are near keys. Causal: clusters hold the keys before i's block of 64 rows; the rest of the
 *   block, up to i, is near without a K̂ of its own.
 *
 * Own derivation; see docs/near-and-far.md.
 */
import type { FarField } from "./feature_map.ts";
import type { AttentionShape } from "./plan.ts";

export { FAR_FIELDS, type FarField } from "./feature_map.ts";
export { BLOCK_ROWS, HERMITE_LIMIT, pairAt, QUADRATIC_LIMIT } from "../kernels/scalar/near_far_types.ts";

/** Fixed centroids of the clustered far field. */
export interface Clusters {
  /** C. */
  readonly count: number;
  /** `kvHeads × C × headDim`, in the keys' own units. */
  readonly centroids: Float64Array;
  /** Clusters per query whose keys are all taken exactly. */
  readonly top: number;
}

export interface NearFarPlan extends AttentionShape {
  /** Logit scale S in exp(S · q·k). */
  readonly scale: number;
  /** w; 0 = no window. */
  readonly window: number;
  /** H; 0 = no heavy keys. */
  readonly heavy: number;
  readonly far: FarField;
  /** What heavy keys are far from, `kvHeads × headDim`; not used when causal. */
  readonly centre: Float64Array;
  /** With far = "clusters". */
  readonly clusters: Clusters | null;
  /** Causal: rows below it are exact, which makes parameters fitted to them strictly causal; else 0. */
  readonly exactRows: number;
}

/** A plan before anything is fitted: all that a backend needs to know whether it takes it. */
export type NearFarShape = Omit<NearFarPlan, "centre" | "clusters"> & {
  readonly clusters: Omit<Clusters, "centroids"> | null;
};

/** Rows of keys that queries `start … end − 1` of `total` may have near: what `NearFarSession.emit` is given. */
export function nearRows(
  { window, exactRows, causal }: Pick<NearFarPlan, "window" | "exactRows" | "causal">,
  start: number,
  end: number,
  total: number,
): { start: number; end: number } {
  const back = Math.max(0, window - 1);
  const from = start < exactRows ? 0 : Math.max(0, start - back);
  return causal ? { start: from, end } : { start: from, end: Math.min(total, end + back) };
}
