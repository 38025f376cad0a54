/** Sizes of near-and-far attention that follow from the settings and the number of keys. Loads no kernel: costs are known without one. */
import type { FarField } from "./feature_map.ts";

/** Rows of a block (near_far.ts, BLOCK_ROWS). */
const BLOCK_ROWS = 64;
/** Causal: centroids are fitted to a prefix of at least this many keys for each, whose own rows are exact. */
const KEYS_PER_CAUSAL_CLUSTER = 4;
/** Of the arithmetic of the clusters of all rows, what the exact rows of a longer prefix may take: few rows are a poor sample of many. */
const PREFIX_SHARE = 1 / 8;
/** A longer prefix than this, or than so many keys for each centroid, places them no better. */
const LONGEST_PREFIX = 8192;
const MOST_KEYS_PER_CLUSTER = 16;

/** Clusters there can be for that many keys. */
export const clustersFor = (wanted: number, keyRows: number): number => Math.min(wanted, Math.max(1, keyRows));

/**
 * Causal: rows that are exact softmax, so that what is fitted to them leaks nothing into them: those asked for, and with clusters the
 * prefix that centroids are fitted to. 0 otherwise.
 */
export function exactRowsOf(
  { far, clusters, exactRows = 0 }: { readonly far: FarField; readonly clusters: number; readonly exactRows?: number },
  keyRows: number,
  causal: boolean,
): number {
  if (!causal) return 0;
  const wanted = far === "clusters" ? prefixFor(clustersFor(clusters, keyRows), keyRows) : 0;
  return Math.min(keyRows, Math.max(exactRows, Math.ceil(wanted / BLOCK_ROWS) * BLOCK_ROWS));
}

/** E exact rows have E²/2 pairs of 4d operations, clusters 8dC for each of L rows: the share of the prefix is E² / 4CL. */
function prefixFor(clusters: number, keyRows: number): number {
  const affordable = Math.sqrt(4 * PREFIX_SHARE * clusters * keyRows);
  const most = Math.max(LONGEST_PREFIX, MOST_KEYS_PER_CLUSTER * clusters);
  return Math.max(KEYS_PER_CAUSAL_CLUSTER * clusters, Math.min(affordable, most));
}
