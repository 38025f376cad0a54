/** Keys and values around a block of queries, from tiles that pass by once. */
import type { KeyRows } from "./backend.ts";
import type { Inputs, KeyTiles, TileMemory } from "./inputs.ts";
import { type FloatArray, floats, type Precision, type TensorSource, type Tile } from "./tensor.ts";

/** Rows of one tensor that are still wanted, piece by piece. */
class Passing {
  #pieces: Tile[] = [];
  readonly #spare: FloatArray[] = [];

  get end(): number {
    const last = this.#pieces.at(-1);
    return last ? last.start + last.rows : 0;
  }

  /** Copies a tile. */
  push(start: number, rows: number, data: FloatArray): void {
    const memory = this.#spare.pop();
    const fits = memory !== undefined && memory.length >= data.length;
    const piece = fits ? memory.subarray(0, data.length) : data.slice();
    if (fits) piece.set(data);
    this.#pieces.push({ start, rows, cols: rows > 0 ? data.length / rows : 0, data: piece });
  }

  /** Forgets rows before `start`. */
  drop(start: number): void {
    while (this.#pieces.length > 1 && this.#pieces[0].start + this.#pieces[0].rows <= start) {
      this.#spare.push(this.#pieces.shift()!.data);
    }
  }

  /** Copies rows `start … end − 1` into `into`. */
  copy(start: number, end: number, into: FloatArray): void {
    for (const { start: first, rows, cols, data } of this.#pieces) {
      const [from, to] = [Math.max(start, first), Math.min(end, first + rows)];
      if (from < to) into.set(data.subarray((from - first) * cols, (to - first) * cols), (from - start) * cols);
    }
  }
}

/** Memory for rows that calls in flight still use. */
export interface NearMemory {
  /** `length` numbers that stay as they are until this was called `depth` times more. */
  next(role: "k" | "v", length: number): FloatArray;
}

/** Holds passing rows until they are no longer near any query to come. */
export class NearRows {
  readonly #k = new Passing();
  readonly #v = new Passing();
  readonly #weights = new Passing();
  #cols = { k: 0, v: 0 };
  #weighted = false;
  #same = false;

  constructor(readonly memory: NearMemory) {}

  /** Rows so far. */
  get end(): number {
    return this.#k.end;
  }

  push({ k, v, weights }: KeyRows): void {
    this.#same = k.data === v.data;
    this.#weighted = weights !== undefined;
    this.#cols = { k: k.cols, v: v.cols };
    this.#k.push(k.start, k.rows, k.data.subarray(0, k.rows * k.cols));
    if (!this.#same) this.#v.push(v.start, v.rows, v.data.subarray(0, v.rows * v.cols));
    if (weights) this.#weights.push(k.start, k.rows, weights.subarray(0, k.rows));
  }

  /** Rows `start … end − 1`, which must have passed; earlier ones are forgotten. */
  take(start: number, end: number): KeyRows {
    const rows = Math.max(0, end - start);
    const tile = (role: "k" | "v", from: Passing): Tile => {
      const cols = this.#cols[role];
      const data = this.memory.next(role, rows * cols).subarray(0, rows * cols);
      from.copy(start, end, data);
      return { start, rows, cols, data };
    };
    for (const passing of [this.#k, this.#v, this.#weights]) passing.drop(start);
    const k = tile("k", this.#k);
    const v = this.#same ? k : tile("v", this.#v);
    if (!this.#weighted) return { k, v };
    const weights = new Float64Array(rows);
    this.#weights.copy(start, end, weights);
    return { k, v, weights };
  }
}

/** Reads keys and values beside the queries: `rows(start, end)` with both ends never decreasing. */
export class NearReader implements AsyncDisposable {
  readonly #held: NearRows;
  readonly #tiles: AsyncIterator<KeyTiles>;
  #done = false;

  constructor(inputs: Inputs, tileRows: number, precision: Precision, memory: NearMemory) {
    this.#held = new NearRows(memory);
    // Rows are copied as they pass: one tile of memory per tensor does.
    const tiles = new Map<TensorSource, FloatArray[]>();
    const reused: TileMemory = {
      for(source) {
        const { rows, heads, width } = source.info;
        const own = tiles.get(source) ?? [floats(precision, Math.min(tileRows, rows) * heads * width)];
        tiles.set(source, own);
        return own;
      },
    };
    this.#tiles = inputs.tiles(tileRows, precision, null, reused)[Symbol.asyncIterator]();
  }

  async rows(start: number, end: number): Promise<KeyRows> {
    while (this.#held.end < end && !this.#done) {
      const next = await this.#tiles.next();
      if (next.done) this.#done = true;
      else this.#held.push(next.value);
    }
    return this.#held.take(Math.min(start, this.#held.end), Math.min(end, this.#held.end));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tiles.return?.();
  }
}
