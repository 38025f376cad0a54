/** From the user's settings to the plan of near-and-far attention: what must be fitted is fitted to a few rows. */
import { type Attention, logitScale, type Sizes } from "./attention.ts";
import type { Backend } from "./backend.ts";
import { findCentroids } from "./centroids.ts";
import type { Inputs } from "./inputs.ts";
import { BLOCK_ROWS, type NearFarPlan, type NearFarShape } from "./near_far.ts";
import { clustersFor, exactRowsOf } from "./near_far_sizes.ts";
import type { AttentionShape } from "./plan.ts";
import { type KeySample, readKeys } from "./sample.ts";

/** Keys per cluster that centroids are fitted to, and the least number of rows of a sample. */
const KEYS_PER_CLUSTER = 16;
const LEAST_SAMPLE = 4096;
/**
 * Of long inputs one row in so many is sampled: centroids fitted to a fixed number of keys are a worse and worse fit to all of them
 * (docs/clusters.md). Eight rounds of k-means on it are an eighth of the arithmetic of the clusters, 8dC per row.
 */
const ROWS_PER_SAMPLED = 16;
/** Where that ends: memory does not grow with the number of rows. Rows, and numbers over all heads. */
const MOST_SAMPLE = 65_536;
const MOST_NUMBERS = 2 ** 25;

/** Where fitted numbers come from. */
export interface FitSource {
  readonly source: "none" | "sample" | "prefix";
  /** Rows they were fitted to. */
  readonly rows: number;
}

export interface FittedNearFar {
  readonly plan: NearFarPlan;
  readonly fit: FitSource;
}

/** What is known of the plan before anything is fitted. */
export function nearFarShape(
  attention: Attention,
  shape: AttentionShape,
  { queryRows, keyRows }: Pick<Sizes, "queryRows" | "keyRows">,
): NearFarShape {
  const { far, window, heavy, clusters: wanted, top } = attention.nearFar!;
  const count = clustersFor(wanted, keyRows);
  return {
    ...shape,
    tileRows: Math.ceil(shape.tileRows / BLOCK_ROWS) * BLOCK_ROWS,
    scale: logitScale(attention, shape.headDim),
    // More than all rows is all rows: memory is reserved by these.
    window: Math.min(window, Math.max(keyRows, queryRows)),
    heavy: Math.min(heavy, keyRows),
    far,
    clusters: far === "clusters" ? { count, top: Math.min(top, count) } : null,
    exactRows: exactRowsOf(attention.nearFar!, keyRows, shape.causal),
  };
}

/**
 * The plan for these inputs. Bidirectional: the mean of the keys (what heavy keys are far from) and centroids come from a sample spread
 * over the file. Causal: nothing looks ahead. Centroids come from the first rows, which are exact themselves, so that no row depends on
 * a later one.
 */
export async function fitNearFar(
  attention: Attention,
  shape: AttentionShape,
  inputs: Inputs,
  backend: Backend,
  signal?: AbortSignal,
): Promise<FittedNearFar> {
  const { kvHeads, headDim, causal } = shape;
  const total = inputs.k.info.rows;
  const known = nearFarShape(attention, shape, { queryRows: inputs.q.info.rows, keyRows: total });
  const { clusters, exactRows, heavy } = known;
  const count = clusters?.count ?? 0;
  const needed = clusters !== null || (!causal && heavy > 0);
  const rows = causal ? exactRows : sampleFor(count, total, kvHeads * headDim);
  const kind = causal ? "prefix" : "sample";
  const sample = needed && rows > 0
    ? await readKeys(inputs, { kind, rows }, shape.tileRows, backend.limits.precision)
    : null;
  const centroids = clusters && sample
    ? await findCentroids(backend, sample.k, sample.weights, { heads: kvHeads, count, seed: attention.seed, signal })
    : new Float64Array(kvHeads * count * headDim);
  return {
    plan: {
      ...known,
      centre: sample && !causal ? meanOf(sample, kvHeads * headDim) : new Float64Array(kvHeads * headDim),
      clusters: clusters && { ...clusters, centroids },
    },
    fit: sample ? { source: kind, rows: sample.k.rows } : { source: "none", rows: 0 },
  };
}

/** Rows that centroids (none with 0 clusters) and the mean key are fitted to. */
export function sampleFor(clusters: number, total: number, width: number): number {
  const most = Math.min(MOST_SAMPLE, Math.floor(MOST_NUMBERS / width));
  const share = clusters > 0 ? Math.min(most, Math.ceil(total / ROWS_PER_SAMPLED)) : 0;
  return Math.min(total, Math.max(LEAST_SAMPLE, clusters * KEYS_PER_CLUSTER, share));
}

/** Weighted mean key. */
function meanOf({ k, weights }: KeySample, width: number): Float64Array {
  const mean = new Float64Array(width);
  let total = 0;
  for (let i = 0; i < k.rows; i++) {
    const weight = weights?.[i] ?? 1;
    total += weight;
    for (let l = 0; l < width && weight > 0; l++) mean[l] += weight * k.data[i * width + l];
  }
  if (total > 0) { for (let l = 0; l < width; l++) mean[l] /= total; }
  return mean;
}
