/** The WGSL files. A module is whole files joined in order; `enable` must come first, so the reduction leads. */
import causal from "../../kernels/wgsl/causal.wgsl" with { type: "text" };
import dense from "../../kernels/wgsl/dense.wgsl" with { type: "text" };
import exact from "../../kernels/wgsl/exact.wgsl" with { type: "text" };
import farAssign from "../../kernels/wgsl/far_assign.wgsl" with { type: "text" };
import farClusters from "../../kernels/wgsl/far_clusters.wgsl" with { type: "text" };
import farLogits from "../../kernels/wgsl/far_logits.wgsl" with { type: "text" };
import farMoments from "../../kernels/wgsl/far_moments.wgsl" with { type: "text" };
import farNone from "../../kernels/wgsl/far_none.wgsl" with { type: "text" };
import farScan from "../../kernels/wgsl/far_scan.wgsl" with { type: "text" };
import farSums from "../../kernels/wgsl/far_sums.wgsl" with { type: "text" };
import farTaylor from "../../kernels/wgsl/far_taylor.wgsl" with { type: "text" };
import features from "../../kernels/wgsl/features.wgsl" with { type: "text" };
import keys from "../../kernels/wgsl/keys.wgsl" with { type: "text" };
import merge from "../../kernels/wgsl/merge.wgsl" with { type: "text" };
import nearFar from "../../kernels/wgsl/near_far.wgsl" with { type: "text" };
import queries from "../../kernels/wgsl/queries.wgsl" with { type: "text" };
import reduceSubgroup from "../../kernels/wgsl/reduce_subgroup.wgsl" with { type: "text" };
import reduceWorkgroup from "../../kernels/wgsl/reduce_workgroup.wgsl" with { type: "text" };
import scan from "../../kernels/wgsl/scan.wgsl" with { type: "text" };
import tile from "../../kernels/wgsl/tile.wgsl" with { type: "text" };

/** Files that come behind the tile, per pass; the entry point is `<pass>_pass`, of the pass without what follows a colon. */
const PASSES = {
  keys: [features, keys],
  queries: [features, queries],
  causal: [features, causal],
  merge: [merge],
  scan: [scan],
  exact: [exact],
  dense: [features, dense],
  "near_far:none": [farNone, nearFar],
  "near_far:taylor": [farTaylor, nearFar],
  "near_far:clusters": [farClusters, nearFar],
  far_moments: [farMoments],
  far_assign: [farAssign],
  far_sums: [farSums],
  far_logits: [farLogits],
  far_scan: [farScan],
} as const;

export type Pass = keyof typeof PASSES;

/** Name of a pass in its text. */
export function entryOf(pass: Pass): string {
  return `${pass.replace(/:.*/, "")}_pass`;
}

/** Text of a pass, with column maxima by subgroup operations or through workgroup memory. */
export function kernelText(pass: Pass, subgroups: boolean): string {
  return [subgroups ? reduceSubgroup : reduceWorkgroup, tile, ...PASSES[pass]].join("\n");
}
