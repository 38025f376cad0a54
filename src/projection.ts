/**
 * Random projections W (`m × d`) whose rows are marginally N(0, I): what unbiasedness needs (paper §2.4, App. B.2).
 *
 * Drawn in float64 and rounded to float32, so that every backend and both runtimes use the same numbers.
 */
import { UsageError } from "./errors.ts";
import { RandomStream } from "./random.ts";

/** "chi": row norms as those of a Gaussian vector. "sqrtd": all √d (regularised softmax kernel, paper §2.3). */
export type RowNorms = "chi" | "sqrtd";

/** Draws `rows ≤ d` rows of one block; blocks are independent. */
type BlockDraw = (random: RandomStream, d: number, rows: number) => Float64Array;

/**
 * Directions of a Haar-distributed orthogonal matrix, by Gram–Schmidt of Gaussian rows (two passes).
 * Not LAPACK's QR: its first column always has a negative first entry, which biases positive features.
 */
export function haarRows(random: RandomStream, d: number, rows: number): Float64Array {
  const U = new Float64Array(rows * d);
  for (let i = 0; i < rows;) {
    const row = U.subarray(i * d, i * d + d);
    for (let l = 0; l < d; l++) row[l] = random.normal();
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < i; j++) {
        const other = U.subarray(j * d, j * d + d);
        let dot = 0;
        for (let l = 0; l < d; l++) dot += row[l] * other[l];
        for (let l = 0; l < d; l++) row[l] -= dot * other[l];
      }
    }
    const norm = length(row);
    if (norm < 1e-8) continue; // numerically dependent: draw again
    for (let l = 0; l < d; l++) row[l] /= norm;
    i++;
  }
  return U;
}

function iidRows(random: RandomStream, d: number, rows: number): Float64Array {
  const U = random.normals(rows * d);
  for (let i = 0; i < rows; i++) {
    const row = U.subarray(i * d, i * d + d);
    const norm = length(row);
    for (let l = 0; l < d; l++) row[l] /= norm;
  }
  return U;
}

/** Directions by name. Adding a projection is a function and its row here. */
export const PROJECTIONS: Readonly<Record<string, { draw: BlockDraw; summary: string }>> = {
  orthogonal: { draw: haarRows, summary: "independent blocks of d orthogonal Haar directions" },
  iid: { draw: iidRows, summary: "independent Gaussian rows" },
};

export interface ProjectionOptions {
  readonly kind: string;
  readonly projections: number;
  readonly headDim: number;
  /** Independent matrices, one per key head. */
  readonly matrices: number;
  readonly norms: RowNorms;
  readonly seed: number;
  /** Which redraw: 0 is the first. */
  readonly draw: number;
}

/** `matrices × m × d` numbers, float32-representable. Streams: (seed, draw, matrix, block); norms have their own. */
export function drawProjection(options: ProjectionOptions): Float64Array {
  const { projections, headDim: d, matrices, seed, draw } = options;
  const kind = PROJECTIONS[options.kind];
  if (!kind) {
    throw new UsageError(
      `Unknown projection "${options.kind}", expected one of ${Object.keys(PROJECTIONS).join(", ")}`,
    );
  }
  const W = new Float64Array(matrices * projections * d);
  for (let matrix = 0; matrix < matrices; matrix++) {
    const norms = new RandomStream(seed, draw, matrix, 0);
    for (let block = 0, from = 0; from < projections; block++, from += d) {
      const rows = Math.min(d, projections - from);
      const U = kind.draw(new RandomStream(seed, draw, matrix, block + 1), d, rows);
      for (let i = 0; i < rows; i++) {
        const norm = options.norms === "sqrtd" ? Math.sqrt(d) : length(norms.normals(d));
        const at = (matrix * projections + from + i) * d;
        for (let l = 0; l < d; l++) W[at + l] = Math.fround(norm * U[i * d + l]);
      }
    }
  }
  return W;
}

function length(row: Float64Array): number {
  let squares = 0;
  for (const value of row) squares += value * value;
  return Math.sqrt(squares);
}
