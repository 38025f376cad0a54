/**
 * Attention that ignores its queries: every row gets the mean of the values it sees, with decay the mean weighted by it. The baseline of
 * every error.
 */
import type { AttentionShape } from "./plan.ts";
import type { OwnRows, RuledPlan, RuledSession } from "./rules_plan.ts";
import { type FloatArray, floats, type Precision, type Tile } from "./tensor.ts";

/** What a running mean is made of: sums, `kvHeads × valueDim`, and their weights per key head. */
export interface MeanSums {
  readonly sum: Float64Array;
  readonly weight: Float64Array;
}

/** A running mean of values, per head of keys. */
export class ValueMean {
  readonly #sum: Float64Array;
  /** Per key head. */
  readonly #weight: Float64Array;

  constructor(readonly shape: Pick<AttentionShape, "heads" | "kvHeads" | "valueDim" | "decay">) {
    this.#sum = new Float64Array(shape.kvHeads * shape.valueDim);
    this.#weight = new Float64Array(shape.kvHeads);
  }

  /** Adds row `i` of a tile. */
  add({ data, cols }: Tile, i: number, weight: number): void {
    this.#decay();
    for (let h = 0; h < this.#weight.length; h++) this.#weight[h] += weight;
    for (let c = 0, at = i * cols; c < cols; c++) this.#sum[c] += weight * data[at + c];
  }

  /** The mean as output row `index`, `heads × valueDim`; 0 while nothing is seen. */
  write(out: FloatArray, index: number): void {
    const { heads, kvHeads, valueDim } = this.shape;
    for (let h = 0; h < heads; h++) {
      const kv = Math.floor(h * kvHeads / heads);
      for (let c = 0; c < valueDim; c++) {
        const sum = this.#sum[kv * valueDim + c];
        out[(index * heads + h) * valueDim + c] = this.#weight[kv] > 0 ? sum / this.#weight[kv] : 0;
      }
    }
  }

  /** What was added before weighs e^−λ of it. */
  #decay(): void {
    const { decay, valueDim } = this.shape;
    for (let h = 0; decay && h < decay.length; h++) {
      const kept = Math.exp(-decay[h]);
      this.#weight[h] *= kept;
      for (let at = h * valueDim, end = at + valueDim; at < end; at++) this.#sum[at] *= kept;
    }
  }

  clear(): void {
    this.#sum.fill(0);
    this.#weight.fill(0);
  }

  save(): MeanSums {
    return { sum: this.#sum.slice(), weight: this.#weight.slice() };
  }

  load({ sum, weight }: MeanSums): void {
    this.#sum.set(sum);
    this.#weight.set(weight);
  }
}

/** The baseline as a session; masked keys are left out. */
export class UniformSession implements RuledSession {
  readonly counts = { emptyRows: 0, nonPositive: 0, recomputed: 0 };
  readonly surveys = false;
  readonly #mean: ValueMean;
  /** Causal: own rows of the last `emit`, which are in the mean already when they are absorbed. */
  #ahead: Tile | null = null;

  constructor(readonly plan: RuledPlan, readonly precision: Precision) {
    const { heads, kvHeads = heads, valueDim } = plan;
    this.#mean = new ValueMean({ heads, kvHeads, valueDim });
  }

  async survey(): Promise<void> {}

  async absorb(_: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    if (this.#ahead !== v) { for (let i = 0; i < v.rows; i++) this.#mean.add(v, i, weights?.[i] ?? 1); }
    this.#ahead = null;
  }

  async emit(q: Tile, own?: OwnRows | null, into?: FloatArray): Promise<Tile> {
    const { heads, valueDim } = this.plan;
    const cols = heads * valueDim;
    const data = into?.subarray(0, q.rows * cols) ?? floats(this.precision, q.rows * cols);
    for (let i = 0; i < q.rows; i++) {
      if (own) this.#mean.add(own.v, i, own.weights?.[i] ?? 1);
      this.#mean.write(data, i);
    }
    this.#ahead = own?.v ?? null;
    return { start: q.start, rows: q.rows, cols, data };
  }

  async reset(): Promise<void> {
    this.#mean.clear();
    this.#ahead = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
