/** Settings that are worth a trial, cheapest first: what `tune` and `--features auto` choose from. Pure. */
import {
  type Attention,
  flopCount,
  isExact,
  type NearFarSettings,
  parametersFor,
  positiveFlops,
  type Sizes,
} from "./attention.ts";
import { EXACT, type FarField, FEATURE_MAPS } from "./feature_map.ts";

/** Random features worth a trial: at equal arithmetic the others are no better. */
export const TRIED_MAPS: readonly string[] = ["hyperbolic", "hyp-oprf", "hyp-aderf+sderf"].filter((name) => {
  return FEATURE_MAPS.some((map) => map.name === name);
});

export interface Candidate {
  readonly attention: Attention;
  /** Floating-point operations per query row, over all heads. */
  readonly flopsPerRow: number;
}

/** Largest width whose second moments, d²/2 · d_v numbers, are worth their arithmetic. */
const SECOND_ORDER_DIM = 80;

const near = (window: number, heavy: number, far: FarField, clusters = 0, top = 0): NearFarSettings => {
  return { window, heavy, far, clusters, top };
};

/** Near keys and far fields for `rows` keys: wider windows and more clusters for longer sequences. */
function nearFarGrid(rows: number, headDim: number, tops: boolean): NearFarSettings[] {
  const grid = [
    near(0, 0, "taylor1"),
    near(16, 0, "taylor1"),
    near(64, 0, "taylor1"),
    near(64, 64, "taylor1"),
    near(128, 64, "taylor1"),
    near(256, 128, "taylor1"),
    near(512, 256, "taylor1"),
  ];
  if (headDim <= SECOND_ORDER_DIM) grid.push(near(0, 0, "taylor2"), near(0, 0, "hermite2"), near(64, 64, "taylor2"));
  for (const clusters of [32, 64, 128, 256, 512, 1024]) {
    if (clusters * 8 > rows) continue;
    grid.push(near(32, 0, "clusters", clusters), near(64, 64, "clusters", clusters));
    if (tops) grid.push(near(16, 16, "clusters", clusters, 4), near(32, 32, "clusters", clusters, 8));
  }
  return grid.filter(({ window, heavy }) => window < rows && heavy < rows);
}

export interface GridOptions {
  readonly sizes: Sizes;
  /** Settings that the candidates share: causal, scale, seed, numFeatures. */
  readonly base: Attention;
  /** Most operations per row; none dearer than exact attention is taken in any case. */
  readonly budget?: number;
  /** Whether to try near keys and far fields (default). */
  readonly near?: boolean;
  /** Whether the backend takes clusters' keys exactly. */
  readonly tops: boolean;
  /** Feature maps to try, by name, at each of these numbers of features. */
  readonly maps: readonly string[];
  readonly numFeatures: readonly number[];
  /** Causal: rows that are exact whatever is chosen. */
  readonly exactRows?: number;
}

/** The candidates, by arithmetic. */
export function candidatesFor(options: GridOptions): Candidate[] {
  const { sizes, base, budget = Infinity, near = true, tops, maps, numFeatures, exactRows } = options;
  const perRow = (attention: Attention) => {
    const parameters = attention.nearFar || isExact(attention) ? null : parametersFor(attention, sizes);
    return flopCount(attention, sizes, parameters) / Math.max(1, sizes.queryRows);
  };
  const plain = { ...base, nearFar: null, shrink: null, given: null };
  const exact = perRow({ ...plain, features: EXACT });
  const attentions: Attention[] = [
    ...maps.flatMap((features) => numFeatures.map((count) => ({ ...plain, features, numFeatures: count }))),
    ...(near ? nearFarGrid(sizes.keyRows, sizes.headDim, tops) : []).map((nearFar) => {
      return { ...plain, features: nearFar.far, nearFar: exactRows ? { ...nearFar, exactRows } : nearFar };
    }),
  ];
  return attentions.map((attention) => ({ attention, flopsPerRow: perRow(attention) }))
    .filter(({ flopsPerRow }) => flopsPerRow <= Math.min(budget, exact))
    .sort((a, b) => a.flopsPerRow - b.flopsPerRow);
}

/** Operations per row of orthogonal positive features of that number: the measure of `--features auto`. */
export function budgetOf(numFeatures: number, sizes: Sizes): number {
  return positiveFlops(numFeatures, sizes) / Math.max(1, sizes.queryRows);
}
