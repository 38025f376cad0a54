/**
 * Exact attention within windows, as the three eras of lucidrains/local-attention compute it (`autopad`, one window back and,
 * unless causal, one forward). Rows beyond the last one up to a whole window are zero keys that take part with score 0.
 *
 * | era    | relative positions                                                                               |
 * |--------|--------------------------------------------------------------------------------------------------|
 * | `shaw` | q · w[…] / √d added to the scores, w learned (≤ 1.2.2)                                              |
 * | `1.4`  | queries and keys rotated by their rows                                                             |
 * | `1.9`  | keys rotated by their place in the view, queries as the last window in view: when that looks forward, one window ahead of their own keys |
 *
 * Masked rows: the first two mask queries and keys, `1.9` keys only. A query without any key gets the mean of everything in view,
 * where places before the first and after the last window hold −1.
 */
import type { FloatArray } from "../tensor.ts";
import { rotateHalf } from "./rows.ts";

export interface LocalShape {
  readonly rows: number;
  readonly heads: number;
  readonly headDim: number;
  readonly window: number;
  readonly causal: boolean;
  readonly era: "shaw" | "1.4" | "1.9";
}

/** Multiplications and additions of `attendLocally`. */
export function localFlops({ rows, heads, headDim, window, causal }: LocalShape): number {
  return 4 * rows * heads * headDim * window * (causal ? 2 : 3);
}

/**
 * Outputs of all rows, `rows × (heads·headDim)` as q, k and v are.
 * @param table `inv_freq`, headDim / 2, or Shaw's weights, `places × heads × headDim`.
 * @param mask one number per row, 0 = masked; null = none is.
 */
export function attendLocally(
  shape: LocalShape,
  q: FloatArray,
  k: FloatArray,
  v: FloatArray,
  table: FloatArray,
  mask: FloatArray | null,
): FloatArray {
  const { rows, heads, window } = shape;
  const out = q.slice();
  for (let head = 0; head < heads; head++) {
    const view = new View(shape, head, k, v, table, mask);
    for (let first = 0; first < rows; first += window) {
      view.move(first);
      for (let row = first; row < Math.min(first + window, rows); row++) view.answer(q, row, out);
    }
  }
  return out;
}

/** Rows of causal local attention that come a few at a time: keeps what the window at hand can see. */
export class LocalHistory {
  /** Where the kept rows start: a multiple of the window. */
  #first = 0;
  #rows = 0;
  readonly #k: Float64Array;
  readonly #v: Float64Array;

  /** @param shape of the heads; its rows do not count */
  constructor(readonly shape: Omit<LocalShape, "rows">, readonly table: FloatArray) {
    const numbers = 2 * shape.window * shape.heads * shape.headDim;
    this.#k = new Float64Array(numbers);
    this.#v = new Float64Array(numbers);
  }

  /** Outputs of the rows that follow those of earlier calls, all `rows × (heads·headDim)`. */
  extend(q: FloatArray, k: FloatArray, v: FloatArray): FloatArray {
    const { window, heads, headDim } = this.shape;
    const cols = heads * headDim;
    const out = q.slice();
    for (let at = 0; at < q.length; at += cols, this.#rows++) {
      const own = this.#makeRoom() * cols;
      this.#k.set(k.subarray(at, at + cols), own);
      this.#v.set(v.subarray(at, at + cols), own);
      const rows = this.#rows + 1 - this.#first;
      const query = new Float64Array(rows * cols);
      query.set(q.subarray(at, at + cols), own);
      for (let head = 0; head < heads; head++) {
        const view = new View({ ...this.shape, rows }, head, this.#k, this.#v, this.table, null);
        view.move((rows - 1) - (rows - 1) % window);
        view.answer(query, rows - 1, query);
      }
      out.set(query.subarray(own, own + cols), at);
    }
    return out;
  }

  /** Place of the next row; two full windows lose the first of them. */
  #makeRoom(): number {
    const { window, heads, headDim } = this.shape;
    if (this.#rows - this.#first === 2 * window) {
      for (const kept of [this.#k, this.#v]) kept.copyWithin(0, window * heads * headDim);
      this.#first += window;
    }
    return this.#rows - this.#first;
  }
}

/** The windows a window of queries sees, for one head. */
class View {
  readonly #places: number;
  readonly #padded: number;
  readonly #keys: Float64Array;
  readonly #weights: Float64Array;
  readonly #query: Float64Array;
  #first = 0;

  constructor(
    readonly shape: LocalShape,
    readonly head: number,
    readonly k: FloatArray,
    readonly v: FloatArray,
    readonly table: FloatArray,
    readonly mask: FloatArray | null,
  ) {
    const { rows, window, causal, headDim } = shape;
    this.#places = window * (causal ? 2 : 3);
    this.#padded = Math.ceil(rows / window) * window;
    this.#keys = new Float64Array(this.#places * headDim);
    this.#weights = new Float64Array(this.#places);
    this.#query = new Float64Array(headDim);
  }

  #at(row: number): number {
    return (row * this.shape.heads + this.head) * this.shape.headDim;
  }

  /** Takes the keys in view of the window that starts at `first`. */
  move(first: number): void {
    const { window, rows, headDim, era } = this.shape;
    this.#first = first - window;
    for (let place = 0; place < this.#places; place++) {
      const row = this.#first + place;
      const key = this.#keys.subarray(place * headDim, (place + 1) * headDim);
      if (row < 0 || row >= rows) {
        key.fill(0);
        continue;
      }
      key.set(this.k.subarray(this.#at(row), this.#at(row) + headDim));
      if (era !== "shaw") rotateHalf(key, 0, this.table, era === "1.4" ? row : place);
    }
  }

  /** Attention of one query row, into its place in `out`. */
  answer(q: FloatArray, row: number, out: FloatArray): void {
    const { headDim } = this.shape;
    const top = this.#score(q, row);
    const from = this.#at(row);
    const result = this.#query.fill(0); // the query is no longer needed
    let total = 0;
    for (let place = 0; place < this.#places; place++) {
      const weight = top === -Infinity ? 1 : Math.exp(this.#weights[place] - top);
      total += weight;
      if (weight !== 0) this.#addValue(result, weight, this.#first + place);
    }
    for (let c = 0; c < headDim; c++) out[from + c] = result[c] / total;
  }

  /** Scores of all places, −∞ where they are not seen; returns the largest. */
  #score(q: FloatArray, row: number): number {
    const { headDim, window, era } = this.shape;
    const scale = headDim ** -0.5;
    const query = this.#query;
    query.set(q.subarray(this.#at(row), this.#at(row) + headDim));
    const own = row - this.#first; // place of its own key
    if (era === "1.4") rotateHalf(query, 0, this.table, row);
    if (era === "1.9") rotateHalf(query, 0, this.table, own - window + (this.#places - window));
    const blind = era !== "1.9" && this.mask !== null && this.mask[row] === 0;
    let top = -Infinity;
    for (let place = 0; place < this.#places; place++) {
      const key = this.#first + place;
      let score = -Infinity;
      if (!blind && this.#sees(row, key)) {
        let dot = 0;
        for (let c = 0; c < headDim; c++) dot += query[c] * this.#keys[place * headDim + c];
        if (era === "shaw") dot += this.#shaw(query, own - window, place);
        score = dot * scale;
      }
      this.#weights[place] = score;
      if (score > top) top = score;
    }
    return top;
  }

  #sees(row: number, key: number): boolean {
    const { rows, causal } = this.shape;
    if (key < 0 || key >= this.#padded || (causal && key > row)) return false;
    return this.mask === null || (key < rows && this.mask[key] !== 0);
  }

  /** q · w of the place that the shift of `RelativePositionalEmbedding` brings to `place`, for row `row` of the window. */
  #shaw(query: Float64Array, row: number, place: number): number {
    const { window, heads, headDim } = this.shape;
    const index = window - 1 - row + place;
    if (index >= this.#places) return 0;
    let dot = 0;
    const at = (index * heads + this.head) * headDim;
    for (let c = 0; c < headDim; c++) dot += query[c] * this.table[at + c];
    return dot;
  }

  #addValue(result: Float64Array, weight: number, row: number): void {
    const { rows, headDim } = this.shape;
    if (row >= 0 && row < rows) {
      const at = this.#at(row);
      for (let c = 0; c < headDim; c++) result[c] += weight * this.v[at + c];
    } else if (row < 0 || row >= this.#padded) {
      for (let c = 0; c < headDim; c++) result[c] -= weight;
    }
  }
}
