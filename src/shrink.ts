/**
 * Shrinkage towards the mean of the visible values: λ Ô + (1 − λ) v̄, with λ per head fitted on rows whose exact answer is known.
 * It does openly what an ε in the denominator does by accident, and is never worse than ignoring attention but for sampling noise.
 * Own derivation: λ = ⟨Ô − v̄, O − v̄⟩ / ‖Ô − v̄‖², the least-squares choice, cut to [0, 1].
 */
import { type MeanSums, ValueMean } from "./rules_uniform.ts";
import type { KeyRows } from "./backend.ts";
import type { AttentionShape } from "./plan.ts";
import type { Tile } from "./tensor.ts";

/**
 * λ per head, 0 to 1, from outputs of the same sampled rows, `rows × (heads · width)` each. `keep(i)`: rows to fit on.
 * 1 where there is nothing to go by: no rows, or an approximation that is the mean itself.
 */
export function fitShrinkage(
  approx: Tile,
  exact: Tile,
  uniform: Tile,
  heads: number,
  keep: (row: number) => boolean = () => true,
): Float64Array {
  const width = exact.cols / heads;
  const along = new Float64Array(heads), square = new Float64Array(heads);
  for (let i = 0; i < exact.rows; i++) {
    if (!keep(i)) continue;
    for (let at = i * exact.cols; at < (i + 1) * exact.cols; at++) {
      if (!Number.isFinite(approx.data[at])) continue; // it will be the mean itself, whatever λ
      const head = Math.floor((at - i * exact.cols) / width);
      const away = approx.data[at] - uniform.data[at];
      along[head] += away * (exact.data[at] - uniform.data[at]);
      square[head] += away * away;
    }
  }
  // Squares beyond float64's range leave no number: an answer that far away is worth nothing. One that is v̄ itself is left as it is.
  return along.map((value, head) => {
    const lambda = value / square[head];
    return Number.isFinite(lambda) ? Math.min(1, Math.max(0, lambda)) : square[head] === 0 ? 1 : 0;
  });
}

/** λ Ô + (1 − λ) v̄ of rows, into a tile of its own. */
export function shrunk(approx: Tile, uniform: Tile, lambda: ArrayLike<number>): Tile {
  const width = approx.cols / lambda.length;
  const data = Float64Array.from(approx.data, (value, at) => {
    return mix(value, uniform.data[at], lambda[Math.floor(at % approx.cols / width)]);
  });
  return { ...approx, data };
}

/** λ a + (1 − λ) b; an answer that is not finite counts as none. */
function mix(a: number, b: number, lambda: number): number {
  return Number.isFinite(a) ? lambda * a + (1 - lambda) * b : b;
}

/** Shrinks a run's outputs as they are made; keys are absorbed as the session absorbs them. */
export class Shrinkage {
  readonly #mean: ValueMean;
  readonly #row: Float64Array;

  constructor(readonly shape: AttentionShape, readonly lambda: ArrayLike<number>) {
    this.#mean = new ValueMean(shape);
    this.#row = new Float64Array(shape.heads * shape.valueDim);
  }

  /** Bidirectional: adds the values of absorbed keys. */
  absorb({ v, weights }: Omit<KeyRows, "k">): void {
    if (this.shape.causal) return;
    for (let i = 0; i < v.rows; i++) this.#mean.add(v, i, weights?.[i] ?? 1);
  }

  /** The mean of the values so far. */
  save(): MeanSums {
    return this.#mean.save();
  }

  load(mean: MeanSums): void {
    this.#mean.load(mean);
  }

  /** Shrinks outputs in place. Causal: `own` holds the rows' own values, tile after tile in order. */
  apply(out: Tile, own: Omit<KeyRows, "k"> | null): void {
    const { valueDim, causal } = this.shape;
    if (!causal) this.#mean.write(this.#row, 0);
    for (let i = 0; i < out.rows; i++) {
      if (causal && own) {
        this.#mean.add(own.v, i, own.weights?.[i] ?? 1);
        this.#mean.write(this.#row, 0);
      }
      for (let c = 0, at = i * out.cols; c < out.cols; c++, at++) {
        out.data[at] = mix(out.data[at], this.#row[c], this.lambda[Math.floor(c / valueDim)]);
      }
    }
  }
}
