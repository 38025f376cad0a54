/**
 * Random projections W (`m × d`) whose rows are marginally N(0, I): what unbiasedness needs (paper §2.4, App. B.2).
 * Products of Hadamard factors are so nearly: kernels/README.md §7 gives the bias.
 *
 * Drawn in float64 and rounded to float32, so that every backend and both runtimes use the same numbers.
 */
import { UsageError } from "./errors.ts";
import type { HadamardFactors } from "./feature_map.ts";
import { portableTurn, RandomStream } from "./random.ts";
import { sobolNormals } from "./sobol.ts";

/**
 * "chi": row norms as those of a Gaussian vector. "sqrtd": all √d (regularised softmax kernel, paper §2.3).
 * Points of a net ("sobol") keep the norms they have under "chi", and are stretched to √d under "sqrtd".
 * Where rows are padded to d' columns they have these norms, of width d', before the padding is cut off.
 */
export type RowNorms = "chi" | "sqrtd";

/** First rows of one block: unit vectors of `size` columns, cut to `rows × d`. */
export interface Block {
  readonly directions: Float64Array;
  /** D₁, D₂, D₃ (`3 × size` of ±1) when the directions are a product of Hadamard factors. */
  readonly signs?: Float64Array;
  /** Row norms where they belong to the directions; else those of independent Gaussian vectors are drawn. */
  readonly norms?: Float64Array;
}

/** Draws the first `rows` rows of one block; blocks are independent. */
type BlockDraw = (random: RandomStream, d: number, rows: number) => Block;

interface Projection {
  readonly draw: BlockDraw;
  /** Rows of a full block and columns before padding is cut off; d when left out. */
  readonly size?: (d: number) => number;
  /** All rows are one block, whatever their number. */
  readonly single?: true;
  readonly summary: string;
}

/**
 * Directions of a Haar-distributed orthogonal matrix, by Gram–Schmidt of Gaussian rows (two passes).
 * Not LAPACK's QR: its first column always has a negative first entry, which biases positive features.
 */
export function haarRows(random: RandomStream, d: number, rows: number): Float64Array {
  const U = new Float64Array(rows * d);
  for (let i = 0, at = 0; i < rows;) {
    for (let l = 0; l < d; l++) U[at + l] = random.normal();
    for (let pass = 0; pass < 2; pass++) {
      for (let other = 0; other < at; other += d) {
        let dot = 0;
        for (let l = 0; l < d; l++) dot += U[at + l] * U[other + l];
        for (let l = 0; l < d; l++) U[at + l] -= dot * U[other + l];
      }
    }
    const norm = length(U, at, d);
    if (norm < 1e-8) continue; // numerically dependent: draw again
    for (let l = 0; l < d; l++) U[at + l] /= norm;
    i++;
    at += d;
  }
  return U;
}

function iidRows(random: RandomStream, d: number, rows: number): Float64Array {
  const U = random.normals(rows * d);
  for (let i = 0, at = 0; i < rows; i++, at += d) {
    const norm = length(U, at, d);
    for (let l = 0; l < d; l++) U[at + l] /= norm;
  }
  return U;
}

/** d' = 2^⌈log₂ d⌉. */
function paddedSize(d: number): number {
  let size = 1;
  while (size < d) size *= 2;
  return size;
}

/** x ← H x in place, H Sylvester's matrix in natural order: x.length · log₂(x.length) additions. */
function walshHadamard(x: Float64Array): void {
  for (let half = 1; half < x.length; half *= 2) {
    for (let from = 0; from < x.length; from += 2 * half) {
      for (let j = from; j < from + half; j++) {
        const a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
}

/**
 * Rows of N D₃ N D₂ N D₁, N = H/√size, D iid signs (paper App. B.2): orthogonal exactly before padding is cut off, Haar nearly.
 * Sums of signs are whole numbers, so the directions are exact up to the one factor size^{−3/2}.
 */
export function hadamardBlock(random: RandomStream, d: number, rows: number): Block {
  const size = paddedSize(d);
  const signs = Float64Array.from({ length: 3 * size }, () => 2 * random.below(2) - 1);
  const directions = new Float64Array(rows * d);
  const row = new Float64Array(size);
  for (let i = 0; i < rows; i++) {
    row.fill(0);
    row[i] = 1;
    for (let factor = 2; factor >= 0; factor--) { // from the left: row i of the identity times N D₃, N D₂, N D₁
      walshHadamard(row);
      for (let l = 0; l < size; l++) row[l] *= signs[factor * size + l];
    }
    for (let l = 0; l < d; l++) directions[i * d + l] = row[l] / (size * Math.sqrt(size));
  }
  return { directions, signs };
}

/** (row i, row j) ← (c·row i + s·row j, −s·row i + c·row j) in place, rows of `d` numbers. */
export function turnRows(U: Float64Array, d: number, i: number, j: number, [c, s]: readonly [number, number]): void {
  for (let l = 0; l < d; l++) {
    const [a, b] = [U[i * d + l], U[j * d + l]];
    U[i * d + l] = c * a + s * b;
    U[j * d + l] = c * b - s * a;
  }
}

/**
 * Rows of a product of 4⌈d log₂ d⌉ random Givens rotations (paper App. B.2; Choromanski et al. 2019): orthogonal, Haar nearly. The
 * d ln d of google-research's code leaves a bias of 25 % on axis-aligned inputs (d = 16, s = 1.44), four times d log₂ d none of 0.1 %.
 */
function givensRows(random: RandomStream, d: number, rows: number): Float64Array {
  if (d === 1) return haarRows(random, 1, rows); // no pair to turn: a random sign
  const U = new Float64Array(d * d);
  for (let i = 0; i < d; i++) U[i * d + i] = 1;
  for (let turn = 4 * Math.ceil(d * Math.log2(d)); turn > 0; turn--) {
    const i = random.below(d);
    const j = (i + 1 + random.below(d - 1)) % d;
    turnRows(U, d, i, j, portableTurn(random.uniform()));
  }
  return U.slice(0, rows * d);
}

/** Rows of `U` (`d × d`, orthogonal) turned into unit vectors with pairwise products −1/(d − 1): the rows of (I − 11ᵀ/d) U, normalised. */
export function simplexOf(U: Float64Array, d: number): Float64Array {
  const scale = 1 / Math.sqrt(1 - 1 / d);
  return U.map((value, at) => {
    let sum = 0;
    for (let other = at % d; other < U.length; other += d) sum += U[other];
    return scale * (value - sum / d);
  });
}

/** Directions of a randomly turned simplex (Reid et al. 2023, arXiv 2301.13856): of all couplings that ignore norms the best for positive features. */
function simplexRows(random: RandomStream, d: number, rows: number): Float64Array {
  const U = haarRows(random, d, d);
  return d === 1 ? U : simplexOf(U, d).slice(0, rows * d);
}

/** Directions and norms of a net of normal vectors. */
function sobolBlock(random: RandomStream, d: number, rows: number): Block {
  const directions = sobolNormals(random, d, rows);
  const norms = Float64Array.from({ length: rows }, (_, i) => length(directions, i * d, d));
  return { directions: directions.map((value, at) => value / norms[Math.floor(at / d)]), norms };
}

/** Directions by name. Adding a projection is a function and its row here. */
export const PROJECTIONS: Readonly<Record<string, Projection>> = {
  orthogonal: {
    draw: (...block) => ({ directions: haarRows(...block) }),
    summary: "independent blocks of d orthogonal Haar directions",
  },
  iid: { draw: (...block) => ({ directions: iidRows(...block) }), summary: "independent Gaussian rows" },
  hadamard: {
    draw: hadamardBlock,
    size: paddedSize,
    summary: "independent blocks of d' = 2^⌈log₂ d⌉ rows, products of three Hadamard and random sign matrices",
  },
  givens: {
    draw: (...block) => ({ directions: givensRows(...block) }),
    summary: "independent blocks of d rows, products of 4 d log₂ d random plane rotations",
  },
  simplex: {
    draw: (...block) => ({ directions: simplexRows(...block) }),
    summary: "independent blocks of d directions to the corners of a randomly turned simplex",
  },
  sobol: {
    draw: sobolBlock,
    single: true,
    summary: "one scrambled Sobol net of all rows, mapped to normal vectors; best with a power of two of rows",
  },
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

/** A drawn projection. */
export interface DrawnProjection {
  /** W, `matrices × m × d`, float32-representable. */
  readonly weights: Float64Array;
  /** The factors that W is a product of, norms float32-representable; null for directions without factors. */
  readonly hadamard: HadamardFactors | null;
}

/** Numbers of a projection, at most: 2 GiB of them. Deno hands out more than there is, and would be at it until it is killed. */
const MOST_NUMBERS = 2 ** 28;

/** Memory of W. Throws UsageError where there is not so much. */
function memoryFor(matrices: number, projections: number, d: number): Float64Array {
  const numbers = matrices * projections * d;
  if (numbers > MOST_NUMBERS) {
    throw new UsageError(
      `Cannot draw a projection of ${matrices} × ${projections} × ${d} numbers: more than ${MOST_NUMBERS} are not kept in memory, use a smaller -m`,
    );
  }
  return new Float64Array(numbers);
}

/** Projections with more numbers are drawn anew each time. */
const KEPT_NUMBERS = 2 ** 17;
/** The last one that was drawn, by its options: many short inputs are attended to with the same. */
let kept: { readonly key: string; readonly drawn: DrawnProjection } | null = null;

/** A projection by its options, its caller's own; the last one is not drawn again. */
export function drawFactored(options: ProjectionOptions): DrawnProjection {
  const { kind, projections, headDim, matrices, norms, seed, draw } = options;
  const key = JSON.stringify([kind, projections, headDim, matrices, norms, seed, draw]);
  if (kept?.key === key) return copyOf(kept.drawn);
  const drawn = drawNow(options);
  if (drawn.weights.length <= KEPT_NUMBERS) kept = { key, drawn: copyOf(drawn) };
  return drawn;
}

function copyOf({ weights, hadamard }: DrawnProjection): DrawnProjection {
  const factors = hadamard && { ...hadamard, signs: hadamard.signs.slice(), norms: hadamard.norms.slice() };
  return { weights: weights.slice(), hadamard: factors };
}

/** Draws W, and its factors where it has some. Streams: (seed, draw, matrix, block + 1); norms have (seed, draw, matrix, 0). */
function drawNow(options: ProjectionOptions): DrawnProjection {
  const { projections, headDim: d, matrices, seed, draw } = options;
  const kind = PROJECTIONS[options.kind];
  if (!kind) {
    throw new UsageError(
      `Unknown projection "${options.kind}", expected one of ${Object.keys(PROJECTIONS).join(", ")}`,
    );
  }
  const size = kind.size?.(d) ?? d;
  const most = kind.single ? projections : size;
  const blocks = Math.ceil(projections / most);
  const weights = memoryFor(matrices, projections, d);
  const norms = new Float64Array(matrices * projections);
  let signs: Float64Array | null = null;
  for (let matrix = 0; matrix < matrices; matrix++) {
    const random = new RandomStream(seed, draw, matrix, 0);
    for (let block = 0; block < blocks; block++) {
      const first = matrix * projections + block * most;
      const rows = Math.min(most, projections - block * most);
      const drawn = kind.draw(new RandomStream(seed, draw, matrix, block + 1), d, rows);
      if (drawn.signs) {
        signs ??= new Float64Array(matrices * blocks * 3 * size);
        signs.set(drawn.signs, (matrix * blocks + block) * 3 * size);
      }
      for (let i = 0; i < rows; i++) {
        const norm = options.norms === "sqrtd" ? Math.sqrt(size) : drawn.norms?.[i] ?? normalLength(random, size);
        norms[first + i] = drawn.signs ? Math.fround(norm) : norm; // factors are applied in float32, by this norm
        for (let l = 0; l < d; l++) {
          weights[(first + i) * d + l] = Math.fround(norms[first + i] * drawn.directions[i * d + l]);
        }
      }
    }
  }
  return { weights, hadamard: signs && { size, signs, norms } };
}

/** W alone: `matrices × m × d`, float32-representable. */
export function drawProjection(options: ProjectionOptions): Float64Array {
  return drawFactored(options).weights;
}

/** ‖row‖ of `d` numbers from `at` on. */
function length(rows: Float64Array, at: number, d: number): number {
  let squares = 0;
  for (let l = 0; l < d; l++) squares += rows[at + l] * rows[at + l];
  return Math.sqrt(squares);
}

/** Length of a standard normal vector. */
function normalLength(random: RandomStream, d: number): number {
  let squares = 0;
  for (let l = 0; l < d; l++) {
    const value = random.normal();
    squares += value * value;
  }
  return Math.sqrt(squares);
}
