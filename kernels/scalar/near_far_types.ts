/** The shapes and constants of near-and-far attention (src/near_far.ts defines it; src/ passes its richer types). */
import type { HeadShape, Rows } from "./types.ts";

/** Rows that share one causal state of heavy keys and clusters; blocks begin at multiples of it, whatever the tiles. */
export const BLOCK_ROWS = 64;
/** Largest ½ xᵀΣx a cluster is trusted with: beyond it the Gaussian picture of its keys fails. */
export const QUADRATIC_LIMIT = 4;
/** Largest variance of logits at which hermite2 is taken; above it taylor2 is the safer one. */
export const HERMITE_LIMIT = 1.5;

/** Second moments y_k y_l are kept for k ≤ l, k-major: the place of (k, l). */
export function pairAt(k: number, l: number, d: number): number {
  return k * d - k * (k - 1) / 2 + (l - k);
}

export interface NearFarNumbers extends HeadShape {
  readonly causal: boolean;
  readonly scale: number;
  readonly window: number;
  readonly heavy: number;
  readonly far: "none" | "taylor1" | "taylor2" | "hermite2" | "clusters";
  readonly centre: Float64Array;
  readonly clusters: { readonly count: number; readonly centroids: Float64Array; readonly top: number } | null;
  readonly exactRows: number;
}

export interface HeavyNumbers {
  readonly row: number;
  readonly score: number;
  readonly weight: number;
  readonly k: Float64Array;
  readonly v: Float64Array;
}

/** Moments and heavy keys (src/far_state.ts). */
export interface FarNumbers {
  readonly sums: {
    readonly reference: Float64Array;
    readonly n: Float64Array;
    readonly y: Float64Array;
    readonly v: Float64Array;
    readonly yy: Float64Array;
    readonly yv: Float64Array;
    readonly yyv: Float64Array;
  };
  readonly heavy: readonly HeavyNumbers[][];
  readonly weight: Float64Array;
  readonly sum: Float64Array;
  keys: number;
  rows: number;
}

/** Rows of a longer sequence. */
export interface PlacedRows extends Rows {
  /** Index of the first row. */
  readonly start: number;
}

export interface NearKeys {
  readonly k: PlacedRows;
  readonly v: PlacedRows;
  readonly weights?: ArrayLike<number>;
}
