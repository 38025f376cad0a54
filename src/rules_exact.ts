/** Exact softmax attention as a ruled session: what an approximation replaces, and what it is measured against. */
import type { Backend, ExactSession } from "./backend.ts";
import type { OwnRows, RuledPlan, RuledSession } from "./rules_plan.ts";
import { type FloatArray, floats, type Tile } from "./tensor.ts";

/** Softmax over all pairs with scale 1/√d; masked keys are left out. Rows that see no key are 0. */
export async function prepareExactSoftmax(backend: Backend, plan: RuledPlan): Promise<RuledSession> {
  const { heads, kvHeads = heads, headDim, valueDim, causal, tileRows } = plan;
  const scale = 1 / Math.sqrt(headDim);
  const shape = { heads, kvHeads, headDim, valueDim, causal, tileRows };
  const session = await backend.prepareExact({ ...shape, scale, queryRows: tileRows });
  return new ExactSoftmax(backend, session);
}

/** Keeps keys and values, `rows × width` numbers each, for every tile of queries sees all of them. */
class ExactSoftmax implements RuledSession {
  readonly counts = { emptyRows: 0, nonPositive: 0, recomputed: 0 };
  readonly surveys = false;
  #kept: OwnRows[] = [];

  constructor(readonly backend: Backend, readonly session: ExactSession) {}

  async survey(): Promise<void> {}

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    this.#kept.push({ k: copy(k), v: copy(v), weights: weights?.slice() });
  }

  async emit(q: Tile, own?: OwnRows | null, into?: FloatArray): Promise<Tile> {
    await this.session.pose(q, Float64Array.from({ length: q.rows }, (_, i) => q.start + i));
    for (const { k, v, weights } of own ? [...this.#kept, own] : this.#kept) await this.session.absorb(k, v, weights);
    const { rows, cols, data } = await this.session.emit();
    const out = into?.subarray(0, rows * cols) ?? floats(this.backend.limits.precision, rows * cols);
    out.set(data.subarray(0, rows * cols));
    return { start: q.start, rows, cols, data: out };
  }

  async reset(): Promise<void> {
    this.#kept = [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

function copy(tile: Tile): Tile {
  return { ...tile, data: tile.data.slice(0, tile.rows * tile.cols) };
}
