/** The WGSL files. A module is whole files joined in order; `enable` must come first, so the reduction leads. */
import causal from "../../kernels/wgsl/causal.wgsl" with { type: "text" };
import dense from "../../kernels/wgsl/dense.wgsl" with { type: "text" };
import exact from "../../kernels/wgsl/exact.wgsl" with { type: "text" };
import features from "../../kernels/wgsl/features.wgsl" with { type: "text" };
import keys from "../../kernels/wgsl/keys.wgsl" with { type: "text" };
import merge from "../../kernels/wgsl/merge.wgsl" with { type: "text" };
import queries from "../../kernels/wgsl/queries.wgsl" with { type: "text" };
import reduceSubgroup from "../../kernels/wgsl/reduce_subgroup.wgsl" with { type: "text" };
import reduceWorkgroup from "../../kernels/wgsl/reduce_workgroup.wgsl" with { type: "text" };
import scan from "../../kernels/wgsl/scan.wgsl" with { type: "text" };
import tile from "../../kernels/wgsl/tile.wgsl" with { type: "text" };

/** Files that come behind the tile, per pass; the entry point is `<pass>_pass`. */
const PASSES = {
  keys: [features, keys],
  queries: [features, queries],
  causal: [features, causal],
  merge: [merge],
  scan: [scan],
  exact: [exact],
  dense: [features, dense],
} as const;

export type Pass = keyof typeof PASSES;

/** Text of a pass, with column maxima by subgroup operations or through workgroup memory. */
export function kernelText(pass: Pass, subgroups: boolean): string {
  return [subgroups ? reduceSubgroup : reduceWorkgroup, tile, ...PASSES[pass]].join("\n");
}
