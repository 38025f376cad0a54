/**
 * Moments of rows per head: what data-fitted feature maps read, and φ̄ of the error check. One pass; mergeable by addition, so neither
 * tiles nor shards change them but for rounding.
 *
 * Source: "FAVOR#" (arXiv 2302.00787) fits its maps to second moments of queries and keys; sums and merging are own.
 */
import type { FloatArray, Tile } from "./tensor.ts";

/** Σω, Σω x and Σω x_l² of every head, with `products` also Σω x xᵀ. Raw units: rows as they are read. */
export class Moments {
  /** Σω: rows as their weights count them. */
  weight = 0;
  /** Σω x, `heads × width`. */
  readonly sums: Float64Array;
  /** Σω x_l², `heads × width`. */
  readonly squares: Float64Array;
  /** Σω x xᵀ, `heads × width × width`, where wanted. */
  readonly products: Float64Array | null;

  constructor(readonly heads: number, readonly width: number, products = false) {
    this.sums = new Float64Array(heads * width);
    this.squares = new Float64Array(heads * width);
    this.products = products ? new Float64Array(heads * width * width) : null;
  }

  /** Adds the rows of a tile of `heads × width` columns; `weights` holds one ω ≥ 0 per row, 0 leaves the row out. */
  add(tile: Tile, weights?: FloatArray): void {
    const { data, cols } = tile;
    for (let i = 0; i < tile.rows; i++) {
      const weight = weights ? weights[i] : 1;
      if (weight === 0) continue;
      this.weight += weight;
      for (let c = 0, at = i * cols; c < cols; c++, at++) {
        const weighted = weight * data[at];
        this.sums[c] += weighted;
        this.squares[c] += weighted * data[at];
      }
      if (this.products) this.#addProducts(this.products, data, i * cols, weight);
    }
  }

  #addProducts(products: Float64Array, data: FloatArray, row: number, weight: number): void {
    const { heads, width } = this;
    for (let h = 0, out = 0; h < heads; h++) {
      const from = row + h * width;
      for (let k = 0; k < width; k++, out += width) {
        const weighted = weight * data[from + k];
        for (let l = 0; l <= k; l++) products[out + l] += weighted * data[from + l]; // the lower triangle
      }
    }
  }

  /** Adds the moments of other rows. Throws RangeError when shapes differ. */
  merge(other: Moments): void {
    const differ = other.heads !== this.heads || other.width !== this.width || !other.products !== !this.products;
    if (differ) {
      throw new RangeError(`Cannot merge moments of ${other.heads} × ${other.width} and ${this.heads} × ${this.width}`);
    }
    this.weight += other.weight;
    for (const part of ["sums", "squares", "products"] as const) {
      const [mine, theirs] = [this[part], other[part]];
      if (mine && theirs) { for (let i = 0; i < mine.length; i++) mine[i] += theirs[i]; }
    }
  }

  /** Moments of one of `groups` equal groups of neighbouring heads, pooled: queries that share a key head. */
  ofGroup(group: number, groups: number): HeadMoments {
    const { width, products } = this;
    const each = this.heads / groups;
    const pooled = (sums: Float64Array, size: number): Float64Array => {
      const mean = new Float64Array(size);
      for (let h = group * each; h < (group + 1) * each; h++) {
        for (let i = 0; i < size; i++) mean[i] += sums[h * size + i] / (this.weight * each);
      }
      return mean;
    };
    const lower = products && pooled(products, width * width);
    if (lower) {
      for (let k = 0; k < width; k++) {
        for (let l = 0; l < k; l++) lower[l * width + k] = lower[k * width + l];
      }
    }
    return { mean: pooled(this.sums, width), squares: pooled(this.squares, width), products: lower };
  }
}

/** Means over the rows of one head. */
export interface HeadMoments {
  /** x̄, d numbers. */
  readonly mean: Float64Array;
  /** Mean of x_l², d numbers. */
  readonly squares: Float64Array;
  /** Mean of x xᵀ, `d × d`, where it was collected. */
  readonly products: Float64Array | null;
}

/** φ̄ = mean over pairs of ‖x + y‖² = mean‖x‖² + mean‖y‖² + 2 x̄·ȳ of queries x and keys y of one head, in units of the rows. */
export function meanSquaredSum(x: HeadMoments, y: HeadMoments): number {
  let sum = 0;
  for (let l = 0; l < x.mean.length; l++) sum += x.squares[l] + y.squares[l] + 2 * x.mean[l] * y.mean[l];
  return sum;
}

/** φ̄, mean over key heads, of scaled rows x = inputScale · raw row. NaN where there are no queries or no keys. */
export function phiOf(queries: Moments, keys: Moments, inputScale: number): number {
  let sum = 0;
  for (let h = 0; h < keys.heads; h++) {
    sum += meanSquaredSum(queries.ofGroup(h, keys.heads), keys.ofGroup(h, keys.heads));
  }
  return sum / keys.heads * inputScale * inputScale;
}
