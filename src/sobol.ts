/**
 * Scrambled Sobol points turned into normal vectors: rows of W that cover the space more evenly than independent ones, while each
 * row alone is N(0, I). Randomised quasi-Monte Carlo for random features is our own choice; the parts are Joe & Kuo 2008 (direction
 * numbers), Matoušek 1998 (random linear scrambling and digital shift, of the same variance as Owen's nested scrambling: Owen
 * 2003) and Wichura 1988 (normal quantiles).
 */
import { UsageError } from "./errors.ts";
import { normalQuantile, type RandomStream } from "./random.ts";
import { DIRECTION_NUMBERS, SOBOL_DIMENSIONS } from "./sobol_directions.ts";

/** Binary digits of a point that the generator matrices make; further digits come from the shift. */
const BITS = 32;
/** Quantiles are taken of u in [1e-12, 1 − 1e-12], ±7.03 standard deviations: one of 10¹² entries is moved. */
const CLIP = 1e-12;

/**
 * Generator columns of dimension 1, 2, …: `BITS` whole numbers each, column k with its first digit at bit 31.
 * m_k = 2 c₁ m_{k−1} ⊕ … ⊕ 2^s m_{k−s} ⊕ m_{k−s}, columns m_k · 2^{32−k}.
 */
export function generatorColumns(dimensions: number): Uint32Array[] {
  const words = DIRECTION_NUMBERS.trim().split(/\s+/, dimensions - 1);
  const first = Uint32Array.from({ length: BITS }, (_, k) => 2 ** (BITS - 1 - k));
  return [
    first,
    ...words.map((word) => {
      const [polynomial, ...initial] = word.split(",").map(Number);
      const degree = initial.length;
      const columns = new Uint32Array(BITS);
      for (let k = 0; k < BITS; k++) {
        if (k < degree) {
          columns[k] = initial[k] * 2 ** (BITS - 1 - k);
          continue;
        }
        let column = columns[k - degree] ^ (columns[k - degree] >>> degree);
        for (let i = 1; i < degree; i++) if ((polynomial >>> (degree - i)) & 1) column ^= columns[k - i];
        columns[k] = column;
      }
      return columns;
    }),
  ].slice(0, dimensions);
}

/** 1 where an odd number of bits is set. */
function parity(bits: number): number {
  for (let by = 16; by; by >>= 1) bits ^= bits >>> by;
  return bits & 1;
}

/** L c for each column, L a random lower triangular matrix with ones on its diagonal: digit i keeps itself and mixes in earlier ones. */
function scramble(random: RandomStream, columns: Uint32Array): Uint32Array {
  const rows = Uint32Array.from({ length: BITS }, (_, i) => {
    const digit = 2 ** (BITS - 1 - i);
    const earlier = i === 0 ? 0 : ~(2 ** (BITS - i) - 1);
    return digit | (random.below(2 ** 32) & earlier);
  });
  return columns.map((column) => {
    let scrambled = 0;
    for (let i = 0; i < BITS; i++) scrambled = (scrambled << 1) | parity(rows[i] & column);
    return scrambled >>> 0;
  });
}

/**
 * The first `rows` points of one scrambled sequence in `d` dimensions, each coordinate through Φ⁻¹: `rows × d`. The first 2^k points
 * are a net for every k, and fewer rows are the first of more.
 * @throws UsageError for more dimensions than the table of direction numbers has
 */
export function sobolNormals(random: RandomStream, d: number, rows: number): Float64Array {
  if (d > SOBOL_DIMENSIONS) {
    throw new UsageError(
      `Cannot use projection sobol for heads of ${d} columns: its direction numbers reach ${SOBOL_DIMENSIONS}; ` +
        `use orthogonal or simplex`,
    );
  }
  const W = new Float64Array(rows * d);
  generatorColumns(d).forEach((plain, l) => {
    const columns = scramble(random, plain);
    let point = random.below(2 ** 32); // the shift is the first point
    const tail = random.uniform(); // digits beyond `BITS`: the same shift of all points, which leaves each of them uniform
    for (let i = 0; i < rows; i++) {
      if (i > 0) point ^= columns[31 - Math.clz32(i & -i)]; // Gray code: point i differs from i − 1 by one column
      const u = ((point >>> 0) + tail) / 2 ** BITS;
      W[i * d + l] = normalQuantile(Math.min(1 - CLIP, Math.max(CLIP, u)));
    }
  });
  return W;
}
