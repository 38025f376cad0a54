/**
 * How a few sampled rows stand to the features that answer them: how many of these count, and how far the denominator is from the
 * normaliser of softmax.
 *
 * A backend sums the features of all keys, as in attention itself, for values of width 1 that are 0; what these sums mean to a query is
 * worked out here in float64 from the state (c, z): it costs r·d per sampled row and head, whatever the number of keys. Causal rows see
 * the keys up to their own, so that a tile is cut after every sampled row; the cuts are where the rows are, not where tiles end.
 */
import { FeatureRow } from "../kernels/scalar/features.ts";
import { type Attention, logitScale, type Sizes, transformFor } from "./attention.ts";
import type { Session } from "./backend.ts";
import type { MapParameters } from "./feature_map.ts";
import type { Fit } from "./fitted.ts";
import type { KeyTiles } from "./inputs.ts";
import type { SampledPass, Watcher } from "./sampled_rows.ts";
import { openSession } from "./sessions.ts";
import type { State } from "./state.ts";
import { type FloatArray, floats, pickRows, type Tile } from "./tensor.ts";
import { transformedQueries } from "./transformed.ts";

/** Rows that are looked at. Causal ones cost a copy of the state each. */
const MOST_ROWS = 1024;
const MOST_CAUSAL_ROWS = 64;

/** Σ_a p_a z_a of one row, and what it consists of. */
export interface FeatureSum {
  /** ln Σ_a g_a e^{e_a + c_a} z_a; NaN where the sum is ≤ 0, −∞ where no key is seen. */
  readonly log: number;
  /** (Σ_a p_a z_a)² / Σ_a (p_a z_a)²: r when all features count alike, 1 when one outweighs all others, less where signs cancel. */
  readonly effective: number;
}

/**
 * Adds up the features of one query and those of the keys.
 * @param g,e values and exponents of the query's features. @param state sums of the keys' features, of which head `head` is read.
 */
export function sumFeatures(
  g: ArrayLike<number>,
  e: ArrayLike<number>,
  { c, z, features }: Pick<State, "c" | "z" | "features">,
  head: number,
): FeatureSum {
  const base = head * features;
  let top = -Infinity;
  for (let a = 0; a < features; a++) top = Math.max(top, e[a] + c[base + a]);
  if (top === -Infinity) return { log: -Infinity, effective: NaN };
  let sum = 0, squares = 0;
  for (let a = 0; a < features; a++) {
    const term = g[a] * Math.exp(e[a] + c[base + a] - top) * z[base + a];
    sum += term;
    squares += term * term;
  }
  return { log: sum > 0 ? top + Math.log(sum) : NaN, effective: sum * sum / squares };
}

/** ‖x‖²/2 of scaled rows, with the sign by which kernels leave it out of a query's exponents. */
const ownExponent = ({ map, inputScale }: MapParameters, squares: number): number => {
  if (map.kernel === "own") return 0;
  return (map.family === "exp" ? -0.5 : 0.5) * squares * inputScale * inputScale;
};

/** Sums the features of the keys that pass, and looks at sampled rows of `pass`. */
export class FeatureSums implements Watcher, AsyncDisposable {
  readonly asksInStep = false;
  /** Rows of the pass that are looked at: their places in `pass.rows`, ascending. */
  readonly places: readonly number[];
  /** Per (row, head), `places.length × heads`: ln D̂ as an estimate of Σ ω e^{x·y}, and N_eff; see `FeatureSum`. */
  readonly logTotals: Float64Array;
  readonly effective: Float64Array;
  readonly #feature: FeatureRow;
  readonly #g: Float64Array;
  readonly #e: Float64Array;
  readonly #values: FloatArray;
  /** Queries as kernels see them. */
  readonly #seen: Tile;
  /** S q·g per (row, head), which moving the keys takes from every logit. */
  readonly #moved: Float64Array;
  #next = 0;

  private constructor(
    readonly pass: SampledPass,
    readonly session: Session,
    readonly parameters: MapParameters,
    seen: Tile,
    moved: Float64Array,
    places: readonly number[],
  ) {
    const { shape: { heads, kvHeads, tileRows }, backend } = pass;
    this.places = places;
    this.#seen = seen;
    this.#moved = moved;
    this.logTotals = new Float64Array(places.length * heads);
    this.effective = new Float64Array(places.length * heads);
    this.#feature = new FeatureRow(parameters);
    this.#g = new Float64Array(parameters.features);
    this.#e = new Float64Array(parameters.features);
    this.#values = floats(backend.limits.precision, tileRows * kvHeads);
  }

  /** @param fit what the map of the run was fitted to; the projection is that of the run. */
  static async open(pass: SampledPass, attention: Attention, sizes: Sizes, fit: Fit | null): Promise<FeatureSums> {
    const { backend, shape, rows, queries } = pass;
    const sums = { ...shape, causal: false, valueDim: 1 };
    const { session, parameters } = await openSession(backend, attention, sizes, sums, 0, fit);
    const places = spread(rows.length, shape.causal ? MOST_CAUSAL_ROWS : MOST_ROWS);
    const chosen = pickRows(queries, places);
    const transform = transformFor(attention, sizes, fit);
    const seen = transformedQueries(chosen, shape, transform, places.map((place) => rows[place]));
    const shift = transform && transform.kind !== "angular" ? transform.shift : null;
    const moved = shiftedLogits(chosen, shape, shift, logitScale(attention, sizes.headDim));
    return new FeatureSums(pass, session, parameters, seen, moved, places);
  }

  async absorb({ k, weights }: KeyTiles): Promise<void> {
    const { rows, shape: { causal } } = this.pass;
    let from = 0;
    while (causal && this.#next < this.places.length) {
      const to = rows[this.places[this.#next]] - k.start + 1;
      if (to > k.rows) break;
      await this.#add(k, weights, from, to);
      from = to;
      this.#answer(this.#next++, await this.session.save());
    }
    await this.#add(k, weights, from, k.rows);
  }

  async #add(k: Tile, weights: FloatArray | undefined, from: number, to: number): Promise<void> {
    if (from === to) return;
    const { kvHeads } = this.pass.shape;
    const rows = to - from;
    const part = { ...k, start: k.start + from, rows, data: k.data.subarray(from * k.cols, to * k.cols) };
    const v = { start: part.start, rows, cols: kvHeads, data: this.#values.subarray(0, rows * kvHeads) };
    await this.session.absorb(part, v, weights?.subarray(from, to));
  }

  async finish(): Promise<void> {
    if (this.pass.shape.causal) return;
    const state = await this.session.save();
    for (let row = 0; row < this.places.length; row++) this.#answer(row, state);
  }

  /** Looks at row `row` of `places` over the keys of `state`. */
  #answer(row: number, state: State): void {
    const { heads, kvHeads } = this.pass.shape;
    const { data, cols } = this.#seen;
    const width = cols / heads;
    for (let h = 0; h < heads; h++) {
      const head = Math.floor(h * kvHeads / heads);
      const cell = row * heads + h, at = cell * width;
      this.#feature.query(head, data, at, this.#g, this.#e);
      const { log, effective } = sumFeatures(this.#g, this.#e, state, head);
      let squares = 0;
      for (let l = at; l < at + width; l++) squares += data[l] * data[l];
      this.logTotals[cell] = log + ownExponent(this.parameters, squares) + this.#moved[cell];
      this.effective[cell] = effective;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

/** At most `most` places of `total`, evenly spread. */
function spread(total: number, most: number): number[] {
  const count = Math.min(total, most);
  return Array.from({ length: count }, (_, i) => Math.floor((i + 0.5) * total / count));
}

/** S q·g of every row and head of `q`. */
function shiftedLogits(
  q: Tile,
  { heads, kvHeads, headDim }: SampledPass["shape"],
  shift: Float64Array | null,
  scale: number,
): Float64Array {
  const out = new Float64Array(q.rows * heads);
  for (let cell = 0; shift && cell < out.length; cell++) {
    const from = Math.floor((cell % heads) * kvHeads / heads) * headDim;
    for (let l = 0; l < headDim; l++) out[cell] += scale * q.data[cell * headDim + l] * shift[from + l];
  }
  return out;
}
