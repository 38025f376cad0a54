/** Tables of sines and cosines by position (performer-pytorch FixedPositionalEmbedding), which a formula continues. */
import { UsageError } from "../errors.ts";
import type { FloatArray } from "../tensor.ts";
import { frequenciesOf } from "./rows.ts";

/** Angles are rounded to float32 where the table was made: at position p by up to p · 2⁻²⁴. */
const CLOSE = 1e-3;

/** Rows of `width` numbers, sines before cosines; beyond the stored ones each is computed when it is asked for. */
export class Sinusoid {
  readonly #positions: number;
  readonly #frequencies: Float64Array;
  readonly #row: Float64Array;
  /** Position of `#row`. */
  #at = -1;

  /**
   * @param wanted positions that will be asked for. Throws UsageError when the stored table, `name` of the checkpoint, has fewer and is
   *   not what the formula says.
   */
  constructor(name: string, readonly stored: FloatArray, readonly width: number, wanted: number) {
    this.#positions = stored.length / width;
    this.#frequencies = frequenciesOf(width);
    this.#row = new Float64Array(width);
    for (let p = 0; p < this.#positions && wanted > this.#positions; p++) {
      this.#compute(p);
      if (this.#row.every((value, l) => Math.abs(stored[p * width + l] - value) <= CLOSE)) continue;
      throw new UsageError(
        `Cannot go on to position ${
          wanted - 1
        }: "${name}" has ${this.#positions} rows and is no table of sines that could be continued`,
      );
    }
  }

  /** The array that row p is in, and where it starts; valid until the next call. */
  row(p: number): readonly [FloatArray, number] {
    if (p < this.#positions) return [this.stored, p * this.width];
    if (p !== this.#at) this.#compute(p);
    return [this.#row, 0];
  }

  #compute(p: number): void {
    const half = this.#frequencies.length;
    this.#at = p;
    for (let j = 0; j < half; j++) {
      const angle = Math.fround(p * this.#frequencies[j]);
      this.#row[j] = Math.sin(angle);
      this.#row[half + j] = Math.cos(angle);
    }
  }
}
