/** Tables of sines and cosines by position (performer-pytorch FixedPositionalEmbedding), which a formula makes as long as need be. */
import { UsageError } from "../errors.ts";
import type { FloatArray } from "../tensor.ts";
import { frequenciesOf } from "./rows.ts";

/** Angles are rounded to float32 where the table was made: at position p by up to p · 2⁻²⁴. */
const CLOSE = 1e-3;

/**
 * A table `positions × width`, sines before cosines, with at least `wanted` rows. Throws UsageError when the stored one, `name` of
 * the checkpoint, is shorter and not what the formula says.
 */
export function longerSinusoid(name: string, stored: FloatArray, width: number, wanted: number): FloatArray {
  const positions = stored.length / width;
  if (positions >= wanted) return stored;
  const frequencies = frequenciesOf(width);
  const half = frequencies.length;
  const longer = stored instanceof Float64Array ? new Float64Array(wanted * width) : new Float32Array(wanted * width);
  for (let p = 0; p < wanted; p++) {
    for (let j = 0; j < half; j++) {
      const angle = Math.fround(p * frequencies[j]);
      longer[p * width + j] = Math.sin(angle);
      longer[p * width + half + j] = Math.cos(angle);
    }
  }
  for (let i = 0; i < stored.length; i++) {
    if (Math.abs(stored[i] - longer[i]) <= CLOSE) continue;
    throw new UsageError(
      `Cannot go on to position ${
        wanted - 1
      }: "${name}" has ${positions} rows and is no table of sines that could be continued`,
    );
  }
  longer.set(stored as Float64Array);
  return longer;
}
