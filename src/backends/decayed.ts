/**
 * Sessions over float32 kernels, with decay (decay.ts) and without.
 *
 * Decay is log weights of keys per (row, key head), relative to the last row of the tile: kernels whose plan has decay add them
 * (`logWeight`). As log weights grow with the rows of a tile, kernels get tiles that are short enough for float32, and states and
 * outputs are put together here, in float64.
 */
import { decayState } from "../../kernels/scalar/keys.ts";
import { checkDecay, decayRows } from "../decay.ts";
import type { ExactPlan, Plan } from "../plan.ts";
import { copyState, mergeInto, mergeLater, type State } from "../state.ts";
import { type FloatArray, rowsOf, type Tile } from "../tensor.ts";
import { type ExactKernels, OnlineExactSession } from "./online.ts";
import { type OwnRows, ownRowsOf, TiledSession, type TileKernels, type TileOutput } from "./tiled.ts";

/** A session over the kernels that `make` makes for its plan, or for one of shorter tiles. Throws RangeError for decay that cannot be. */
export async function openTiled(
  plan: Plan,
  make: (plan: Plan) => TileKernels | Promise<TileKernels>,
): Promise<TiledSession> {
  checkDecay(plan);
  const { decay } = plan;
  if (!decay) return new TiledSession(plan, await make(plan));
  const short = { ...plan, decay, tileRows: decayRows(decay, plan.tileRows) };
  return new TiledSession(plan, new DecayedKernels(short, await make(short)));
}

/** The same for exact softmax; an OnlineExactSession cuts tiles by itself. */
export async function openExact(
  plan: ExactPlan,
  make: (plan: ExactPlan) => ExactKernels | Promise<ExactKernels>,
): Promise<OnlineExactSession> {
  checkDecay(plan);
  const { decay } = plan;
  const short = decay ? { ...plan, tileRows: decayRows(decay, plan.tileRows) } : plan;
  return new OnlineExactSession(short, await make(short));
}

/** Tiles of any length over kernels for short ones. The running state that calls get is that ahead of their first row. */
class DecayedKernels implements TileKernels {
  constructor(readonly plan: Plan & { readonly decay: Float64Array }, readonly kernels: TileKernels) {}

  /** Half-open ranges of rows; one, and that empty, of no rows. */
  *#cuts(rows: number): Iterable<[from: number, to: number]> {
    const { tileRows } = this.plan;
    let from = 0;
    do yield [from, Math.min(rows, from + tileRows)]; while ((from += tileRows) < rows);
  }

  async keys(k: Tile, v: Tile, weights?: FloatArray): Promise<State> {
    const cuts = [...this.#cuts(k.rows)];
    // All calls are made before this one returns, so that each copies what it is given.
    const calls = cuts.map(([from, to]) => {
      const own = ownRowsOf({ k, v, weights }, from, to);
      return this.kernels.keys(own.k, own.v, own.weights);
    });
    const [first, ...later] = await Promise.all(calls);
    later.forEach((state, i) => this.#append(first, state, cuts[i + 1]));
    return first;
  }

  /** Puts the state of some rows behind that of those before them. */
  #append(state: State, later: State, [from, to]: [number, number]): void {
    mergeLater(state, later, this.plan.decay, to - from);
    this.kernels.recycle?.(later);
  }

  async queries(q: Tile, state: State, version: number, into?: Float32Array): Promise<TileOutput> {
    const { heads, valueDim } = this.plan;
    const result = this.#output(q.rows, into);
    const calls = [...this.#cuts(q.rows)].map(async ([from, to]) => {
      const out = result.out.subarray(from * heads * valueDim, to * heads * valueDim);
      this.#collect(result, await this.kernels.queries(rowsOf(q, from, to), state, version, out), from);
    });
    await Promise.all(calls);
    return result;
  }

  async causal(
    q: Tile,
    own: OwnRows,
    before: State,
    _version: number,
    into?: Float32Array,
  ): Promise<TileOutput & { readonly own: State }> {
    const { heads, valueDim, decay } = this.plan;
    const result = this.#output(q.rows, into);
    const state = copyState(before);
    let total: State | null = null;
    for (const [from, to] of this.#cuts(q.rows)) {
      const out = result.out.subarray(from * heads * valueDim, to * heads * valueDim);
      // Relative to the last row of the cut, as the log weights of its keys are.
      decayState(state, decay, to - from);
      const done = await this.kernels.causal(rowsOf(q, from, to), ownRowsOf(own, from, to), state, NaN, out);
      this.#collect(result, done, from);
      mergeInto(state, done.own);
      if (total) this.#append(total, done.own, [from, to]);
      else total = done.own;
    }
    return { ...result, own: total! };
  }

  #output(rows: number, into?: Float32Array): TileOutput {
    const { heads, valueDim } = this.plan;
    return {
      out: into ?? new Float32Array(rows * heads * valueDim),
      denominators: new Float32Array(rows * heads),
    };
  }

  /** Outputs of the rows from `from` on, where the kernels did not write them in place. */
  #collect({ out, denominators }: TileOutput, done: TileOutput, from: number): void {
    const { heads, valueDim } = this.plan;
    const at = from * heads * valueDim;
    if (done.out.buffer !== out.buffer) out.set(done.out, at);
    denominators.set(done.denominators, from * heads);
    this.kernels.reuse?.(done.denominators);
  }

  keep(data: FloatArray): FloatArray {
    return this.kernels.keep?.(data) ?? data.slice();
  }

  recycle(state: State): void {
    this.kernels.recycle?.(state);
  }

  stages(): ReturnType<NonNullable<TileKernels["stages"]>> {
    return this.kernels.stages?.() ?? null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kernels[Symbol.asyncDispose]();
  }
}
