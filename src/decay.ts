/**
 * Decay: causal attention with the bias −λ (i − j), so that key j weighs e^{S q·k − λ (i − j)} for row i (ALiBi, arXiv 2108.12409; own
 * derivation for linear attention). The factor e^{−λ i} cancels in every row, so decay is a log weight λ (j − row of reference) of the
 * keys, and a state's exponents fall by λ per row that passes (state.ts). Both are per key head.
 */
import type { AttentionShape } from "./plan.ts";
import type { FloatArray } from "./tensor.ts";

/**
 * Largest λ · rows of a tile that float32 kernels are given: its first keys weigh e^−46 ≈ 1e-20, five digits above what counts as an
 * underflow (backends/tiled.ts), and a log weight is off by at most 46 · 2⁻²⁴.
 */
const REACH = 46;

/**
 * Slopes of ALiBi, one per head: 2^(−8 (h + 1) / H) for a power of two H; otherwise those of the next lower power of two, and after them
 * every other one of twice that many heads, as the paper's own code has it (ofirpress/attention_with_linear_biases).
 * By square roots and products, which are the same numbers on every runtime; powers are not, and states name their slopes.
 */
export function alibiSlopes(heads: number): number[] {
  let low = 1;
  while (2 * low <= heads) low *= 2;
  const slopes = (count: number) => {
    const roots = [2 ** -8]; // 2^−8, 2^−4, … 2^(−8 / count)
    for (let n = count; n > 1; n /= 2) roots.push(Math.sqrt(roots[roots.length - 1]));
    return Array.from({ length: count }, (_, h) => {
      let slope = 1;
      for (let i = roots.length - 1, part = h + 1; part > 0; i--, part = Math.floor(part / 2)) {
        if (part % 2 === 1) slope *= roots[i];
      }
      return slope;
    });
  };
  return [...slopes(low), ...slopes(2 * low).filter((_, h) => h % 2 === 0)].slice(0, heads);
}

/** Throws RangeError for decay that is not one finite λ ≥ 0 per key head, or of attention that is not causal. */
export function checkDecay({ decay, kvHeads, causal }: AttentionShape): void {
  if (!decay) return;
  if (!causal) throw new RangeError("Cannot use decay without causal attention: rows before a key have no distance");
  if (decay.length !== kvHeads || !decay.every((lambda) => lambda >= 0 && lambda < Infinity)) {
    throw new RangeError(
      `Decay is [${decay.join(", ")}], expected a number of at least 0 for each of ${kvHeads} key heads`,
    );
  }
}

/** Throws RangeError for decay where there is none: near-and-far attention. */
export function refuseDecay({ decay }: Pick<AttentionShape, "decay">): void {
  if (decay) throw new RangeError("Near-and-far attention has no decay: use random features or exact softmax");
}

/** Rows of the tiles that float32 kernels are given, at most `tileRows`: a multiple of 64 where λ allows that many. */
export function decayRows(decay: Float64Array, tileRows: number): number {
  const most = Math.min(tileRows, Math.floor(REACH / decay.reduce((x, y) => Math.max(x, y), 0)));
  return most > 64 && most < tileRows ? most - most % 64 : Math.max(1, most);
}

/**
 * ln ω of a key with decay: that of its weight (−Infinity where it is 0), and λ per row from the last row of its tile, which is ≤ 0.
 * The state of such a tile is relative to its last row.
 */
export function logWeight(
  weights: FloatArray | undefined,
  decay: Float64Array | null | undefined,
  kvHead: number,
  row: number,
  rows: number,
): number {
  const weight = weights?.[row] ?? 1;
  if (!(weight > 0)) return -Infinity;
  return (weight === 1 ? 0 : Math.log(weight)) + (decay ? decay[kvHead] * (row - rows + 1) : 0);
}

/** Keys with a weight above 0. */
export function visibleKeys(rows: number, weights: FloatArray | undefined): number {
  let seen = rows;
  if (weights) { for (let i = 0; i < rows; i++) if (!(weights[i] > 0)) seen--; }
  return seen;
}
