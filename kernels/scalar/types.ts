/** The shapes the scalar kernels read. `src/` passes its richer types; they fit structurally. */

/** Row-major numbers of some rows; element (i, h, c) at `data[(i · heads + h) · width + c]`. */
export interface Rows {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float32Array | Float64Array;
}

/** A feature map bound to its projections (src/feature_map.ts tells what each field means). */
export interface FeatureNumbers {
  readonly map: {
    readonly family: "exp" | "trig" | "pointwise" | "hybrid";
    readonly featuresPerProjection: 1 | 2;
    readonly activation?: string;
    readonly signs?: number;
  };
  readonly headDim: number;
  readonly projections: number;
  readonly features: number;
  readonly matrices: number;
  readonly inputScale: number;
  readonly weights: Float64Array;
  readonly bias: Float64Array;
  readonly gain: number;
  readonly epsilon: number;
}

export interface HeadShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  /** λ per key head of the bias −λ (i − j); absent: none. */
  readonly decay?: ArrayLike<number> | null;
}

/** Summary of the absorbed keys (src/state.ts). */
export interface StateNumbers {
  readonly features: number;
  readonly valueDim: number;
  readonly c: Float64Array;
  readonly z: Float64Array;
  readonly S: Float64Array;
  keys: number;
}

/** Rows that were treated specially; each counts one (row, head). */
export interface Counts {
  emptyRows: number;
  nonPositive: number;
  topPairs?: number;
}
