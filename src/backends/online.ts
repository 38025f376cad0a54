/**
 * Exact softmax over float32 kernels that answer one tile of keys at a time; partial rows are merged here in float64.
 */
import { emitExact, emptySoftmax, type OnlineSoftmax } from "../../kernels/scalar/exact.ts";
import type { ExactSession, Normalisers } from "../backend.ts";
import type { ExactPlan } from "../plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";

/** Online softmax of the held rows: `parts × rows × heads` of M and l, `… × valueDim` of o. Rows that saw no key have l = 0. */
export interface SoftmaxParts {
  readonly parts: number;
  readonly top: Float32Array;
  readonly total: Float32Array;
  readonly sums: Float32Array;
}

/** What a float32 backend implements; calls copy their tiles before they return. */
export interface ExactKernels extends AsyncDisposable {
  pose(q: Tile, positions: ArrayLike<number>): void;
  /** Adds one tile of keys; the device may keep running sums and return null until `parts()`. */
  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<SoftmaxParts | null>;
  /** What the device still holds, or null; the device's sums start over. */
  parts(): Promise<SoftmaxParts | null>;
}

export class OnlineExactSession implements ExactSession {
  #held: OnlineSoftmax | null = null;
  #rows = 0;
  #start = 0;
  #merged: Promise<void> = Promise.resolve();

  constructor(readonly plan: ExactPlan, readonly kernels: ExactKernels) {}

  async pose(q: Tile, positions: ArrayLike<number>): Promise<void> {
    await this.#merged;
    this.kernels.pose(q, positions);
    this.#rows = q.rows;
    this.#start = q.start;
    this.#held = emptySoftmax(q.rows, this.plan.heads, this.plan.valueDim);
  }

  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    const parts = this.kernels.absorb(k, v, weights);
    const before = this.#merged;
    const merged = (async () => {
      const [done] = await Promise.all([parts, before]);
      if (done) this.#merge(done);
    })();
    merged.catch(() => {});
    this.#merged = merged;
    return merged;
  }

  async emit(): Promise<Tile> {
    await this.#collect();
    const cols = this.plan.heads * this.plan.valueDim;
    const data = new Float64Array(this.#rows * cols);
    if (this.#held) emitExact(this.#held, this.plan.valueDim, data);
    return { start: this.#start, rows: this.#rows, cols, data };
  }

  async normalisers(): Promise<Normalisers> {
    await this.#collect();
    const held = this.#held ?? emptySoftmax(0, 0, 0);
    return { top: held.top.slice(), total: held.total.slice() };
  }

  /** Merges what the device still holds. */
  async #collect(): Promise<void> {
    await this.#merged;
    const rest = await this.kernels.parts();
    if (rest) this.#merge(rest);
  }

  #merge(parts: SoftmaxParts): void {
    const held = this.#held;
    if (!held) throw new Error("absorb before pose");
    const { valueDim } = this.plan;
    const cells = held.total.length;
    for (let at = 0; at < parts.parts * cells; at++) {
      if (!(parts.total[at] > 0)) continue;
      const cell = at % cells;
      const top = Math.max(held.top[cell], parts.top[at]);
      const mine = Math.exp(held.top[cell] - top);
      const theirs = Math.exp(parts.top[at] - top);
      held.top[cell] = top;
      held.total[cell] = mine * held.total[cell] + theirs * parts.total[at];
      const o = cell * valueDim;
      const p = at * valueDim;
      for (let c = 0; c < valueDim; c++) held.sums[o + c] = mine * held.sums[o + c] + theirs * parts.sums[p + c];
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#merged.catch(() => {});
    await this.kernels[Symbol.asyncDispose]();
  }
}
