/**
 * Exact softmax over float32 kernels that answer one tile of keys at a time; partial rows are merged here in float64.
 */
import { emitExact, emptySoftmax, type OnlineSoftmax } from "../../kernels/scalar/exact.ts";
import type { ExactSession, Normalisers } from "../backend.ts";
import type { ExactPlan } from "../plan.ts";
import { type FloatArray, rowsOf, type Tile } from "../tensor.ts";

/** Online softmax of the held rows: `parts × rows × heads` of M and l, `… × valueDim` of o. Rows that saw no key have l = 0. */
export interface SoftmaxParts {
  readonly parts: number;
  readonly top: Float32Array;
  readonly total: Float32Array;
  readonly sums: Float32Array;
}

/**
 * What a float32 backend implements; calls copy their tiles before they return. Where the plan has decay, keys get its log weights
 * (decay.ts), and M is relative to the last row of the keys.
 */
export interface ExactKernels extends AsyncDisposable {
  pose(q: Tile, positions: ArrayLike<number>): void;
  /** Adds one tile of keys; the device may keep running sums and return null until `parts()`. */
  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<SoftmaxParts | null>;
  /** What the device still holds, or null; the device's sums start over. */
  parts(): Promise<SoftmaxParts | null>;
}

/** Tiles hold at most `plan.tileRows` rows; with decay they may be longer, and are cut to that (backends/decayed.ts). */
export class OnlineExactSession implements ExactSession {
  #held: OnlineSoftmax | null = null;
  #rows = 0;
  #start = 0;
  #positions: Float64Array = new Float64Array();
  #merged: Promise<void> = Promise.resolve();

  constructor(readonly plan: ExactPlan, readonly kernels: ExactKernels) {}

  async pose(q: Tile, positions: ArrayLike<number>): Promise<void> {
    await this.#merged;
    this.kernels.pose(q, positions);
    this.#rows = q.rows;
    this.#start = q.start;
    this.#positions = Float64Array.from(positions);
    this.#held = emptySoftmax(q.rows, this.plan.heads, this.plan.valueDim);
  }

  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    if (this.plan.decay) return this.#absorbDecayed(k, v, weights?.slice());
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

  /** Sums of a device are relative to the keys' last row, so they are taken over after every cut. */
  #absorbDecayed(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    const [keys, values] = [k, v].map((tile) => ({ ...tile, data: tile.data.slice() }));
    const { tileRows } = this.plan;
    const before = this.#merged;
    const merged = (async () => {
      await before;
      const last = this.#positions.reduce((x, y) => Math.max(x, y), -1);
      for (let from = 0; from < k.rows && k.start + from <= last; from += tileRows) {
        const to = Math.min(k.rows, from + tileRows);
        const some = weights?.subarray(from, to);
        const parts = await this.kernels.absorb(rowsOf(keys, from, to), rowsOf(values, from, to), some) ??
          await this.kernels.parts();
        if (parts) this.#merge(parts, k.start + to - 1);
      }
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
    if (this.plan.decay) return; // nothing is left there
    const rest = await this.kernels.parts();
    if (rest) this.#merge(rest);
  }

  /** `lastRow`: with decay, the row that M is relative to; the session's is relative to the query. */
  #merge(parts: SoftmaxParts, lastRow = 0): void {
    const held = this.#held;
    if (!held) throw new Error("absorb before pose");
    const { valueDim, heads, kvHeads, decay } = this.plan;
    const cells = held.total.length;
    for (let at = 0; at < parts.parts * cells; at++) {
      if (!(parts.total[at] > 0)) continue;
      const cell = at % cells;
      let found: number = parts.top[at];
      if (decay) {
        const row = this.#positions[Math.floor(cell / heads)];
        found -= decay[Math.floor((cell % heads) * kvHeads / heads)] * (row - lastRow);
      }
      const top = Math.max(held.top[cell], found);
      const mine = Math.exp(held.top[cell] - top);
      const theirs = Math.exp(found - top);
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
