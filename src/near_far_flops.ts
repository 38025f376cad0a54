/** Arithmetic of near-and-far attention, a multiply-add counting two; exponentials are not counted. */
import type { FarField } from "./feature_map.ts";
import { clustersFor, exactRowsOf } from "./near_far_sizes.ts";

export interface NearFarWork {
  readonly window: number;
  readonly heavy: number;
  readonly far: FarField;
  readonly clusters: number;
  readonly top: number;
  /** Causal: rows below it are exact; those that clusters need come by themselves. */
  readonly exactRows?: number;
  readonly causal: boolean;
  /** Pairs that whole clusters took, where they were counted; else what equal clusters would. */
  readonly topPairs?: number;
}

interface Rows {
  readonly queryRows: number;
  readonly keyRows: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
}

/** Pairs (i, j) with |i − j| < w, or 0 ≤ i − j < w when causal. */
export function windowPairs(window: number, causal: boolean, queryRows: number, keyRows: number): number {
  if (window === 0) return 0;
  let pairs = 0;
  // Rows whose window is cut off by an end are counted one by one; the others all have as many keys.
  const edge = Math.min(queryRows, window);
  const count = (i: number) => {
    const first = Math.max(0, i - window + 1);
    const last = Math.min(keyRows - 1, causal ? i : i + window - 1);
    return Math.max(0, last - first + 1);
  };
  for (let i = 0; i < edge; i++) pairs += count(i);
  const inner = Math.max(edge, Math.min(queryRows, causal ? queryRows : keyRows - window + 1));
  pairs += Math.max(0, inner - edge) * (causal ? window : 2 * window - 1);
  for (let i = inner; i < Math.min(queryRows, keyRows + window); i++) pairs += count(i);
  return pairs;
}

/**
 * Near pairs cost 2(d + d_v) each and 2 for the correction; causal rows of the exact prefix have every key near; heavy keys are scored once, 3d.
 * Far fields, per query and per key: order 1 2d(d_v + 1); order 2 as much for each of d(d+1)/2 products, which cost 1 themselves;
 * clusters 4dC + 2C(d_v + 1) per query, 2dC + 4d + d_v per key. Keys of `top` clusters count as they were counted, or as if clusters were equal.
 */
export function nearFarFlops(work: NearFarWork, rows: Rows): number {
  const { window, heavy, far, causal } = work;
  const { queryRows, keyRows, heads, kvHeads, headDim: d, valueDim } = rows;
  const clusters = clustersFor(work.clusters, keyRows);
  const exact = Math.min(queryRows, exactRowsOf(work, keyRows, causal));
  const visible = causal ? (queryRows + 1) / 2 : keyRows;
  const others = queryRows - exact;
  const heavyPairs = others * Math.min(heavy, visible);
  const expected = far === "clusters" ? others * visible * Math.min(1, work.top / clusters) : 0;
  const topPairs = work.topPairs === undefined ? expected : work.topPairs / heads;
  const windowed = windowPairs(window, causal, queryRows, keyRows) - windowPairs(window, causal, exact, exact);
  const pairs = exact * (exact + 1) / 2 + windowed + heavyPairs + topPairs;
  const ordered = d * (d + 1) / 2;
  const order1 = 2 * d * (valueDim + 1);
  const order2 = order1 + ordered + 2 * ordered * (valueDim + 1);
  const field = {
    none: [0, 0],
    taylor1: [order1, order1],
    taylor2: [order2, order2],
    hermite2: [order2, order2],
    clusters: [4 * d * clusters + 2 * clusters * (valueDim + 1), 2 * d * clusters + 4 * d + valueDim],
  }[far];
  const scores = heavy > 0 ? 3 * d : 0;
  return heads * (pairs * (2 * (d + valueDim) + 2) + queryRows * field[0]) + kvHeads * keyRows * (field[1] + scores);
}
