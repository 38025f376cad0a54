/**
 * Rows that hold NaN or an infinity, where they are not an error (`--on-nan`). Backends never see them: such numbers are 0 before any
 * kernel runs, and what they do to outputs is written into the outputs, so that the law is one on every backend.
 *
 *     skip        a row of keys or values with such a number is masked, for all heads; a row of queries is answered with 0.
 *     propagate   per head: a query that holds one is answered with NaN, and so is every query that sees a key or value that does
 *                 (all of them; causal: those from its row on).
 */
import type { FloatArray, TensorInfo, TensorSource, Tile, TileOptions } from "./tensor.ts";
import { floats } from "./tensor.ts";

/** What becomes of rows with NaN or infinity. */
export type GapPolicy = "skip" | "propagate";

/** Whether all numbers are finite. */
export function allFinite(data: FloatArray): boolean {
  // x · 0 is NaN for every x that is not finite; four sums, because each waits for its last addition.
  let a = 0, b = 0, c = 0, d = 0, i = 0;
  for (const end = data.length - 3; i < end; i += 4) {
    a += data[i] * 0;
    b += data[i + 1] * 0;
    c += data[i + 2] * 0;
    d += data[i + 3] * 0;
  }
  for (; i < data.length; i++) a += data[i] * 0;
  return a + b + c + d === 0;
}

/** Indices that were set, in pages that exist where there is one: 1 bit an index where many are. */
class Marks {
  readonly #pages = new Map<number, Uint8Array>();
  /** How many are set. */
  count = 0;

  add(index: number): void {
    const at = Math.floor(index / PAGE);
    let page = this.#pages.get(at);
    if (!page) this.#pages.set(at, page = new Uint8Array(PAGE / 8));
    const [byte, bit] = [(index % PAGE) >> 3, 1 << (index & 7)];
    if (page[byte] & bit) return;
    page[byte] |= bit;
    this.count++;
  }

  has(index: number): boolean {
    const page = this.#pages.get(Math.floor(index / PAGE));
    return page !== undefined && (page[(index % PAGE) >> 3] & (1 << (index & 7))) !== 0;
  }
}

const PAGE = 4096;

/** What was found in the inputs of one run, for its outputs and its report. */
export class Gaps {
  /** Rows of keys or values, and of queries. */
  readonly #keyRows = new Marks();
  readonly #queryRows = new Marks();
  /** (row, head) of queries: row · heads + head. */
  readonly #queryHeads = new Marks();
  /** The first row of each key head that is not masked. */
  readonly #firstKey = new Map<number, number>();

  constructor(readonly policy: GapPolicy) {}

  /** Rows found so far. */
  get found(): { readonly queryRows: number; readonly keyRows: number } {
    return { queryRows: this.#queryRows.count, keyRows: this.#keyRows.count };
  }

  /** For other rows of the same tensors. */
  fresh(): Gaps {
    return new Gaps(this.policy);
  }

  /** Mends keys and values of the same rows, in place: `tiles` holds each tensor once, and only those that are not finite. */
  mendKeys(tiles: readonly (readonly [TensorSource, Tile])[], weights: FloatArray | undefined): void {
    for (const [{ info }, tile] of tiles) {
      this.#mend(info, tile, (i, head) => {
        const row = tile.start + i;
        this.#keyRows.add(row);
        if (this.policy === "skip") {
          if (weights) weights[i] = 0;
        } else if (!weights || weights[i] > 0) {
          this.#firstKey.set(head, Math.min(row, this.#firstKey.get(head) ?? Infinity));
        }
      });
    }
  }

  /** Notes queries of a tile that is not finite; before they are mended as keys where they are the same rows. */
  noteQueries({ info }: TensorSource, tile: Tile): void {
    each(info, tile, (i, head) => {
      this.#queryRows.add(tile.start + i);
      this.#queryHeads.add((tile.start + i) * info.heads + head);
    });
  }

  /** Notes queries and mends them, in place. */
  mendQueries(source: TensorSource, tile: Tile): void {
    if (allFinite(tile.data)) return;
    this.noteQueries(source, tile);
    this.#mend(source.info, tile, () => {});
  }

  #mend(info: TensorInfo, tile: Tile, found: (row: number, head: number) => void): void {
    each(info, tile, (i, head) => {
      const [from, to] = this.policy === "skip" ? [0, tile.cols] : [head * info.width, (head + 1) * info.width];
      tile.data.fill(0, i * tile.cols + from, i * tile.cols + to);
      found(i, head);
    });
  }

  /** Writes into outputs, in place, what these rows do to them. */
  paint({ start, rows, cols, data }: Tile, heads: number, kvHeads: number, causal: boolean): void {
    if (this.#queryRows.count === 0 && this.#firstKey.size === 0) return;
    const width = cols / heads;
    for (let i = 0; i < rows; i++) {
      if (this.policy === "skip") {
        if (this.#queryRows.has(start + i)) data.fill(0, i * cols, (i + 1) * cols);
        continue;
      }
      for (let h = 0; h < heads; h++) {
        if (!this.#tainted(start + i, h, heads, kvHeads, causal)) continue;
        data.fill(NaN, i * cols + h * width, i * cols + (h + 1) * width);
      }
    }
  }

  /** Whether an output row says nothing of the approximation, so that its error is not looked at. */
  spoils(row: number, heads: number, kvHeads: number, causal: boolean): boolean {
    if (this.#queryRows.has(row)) return true;
    if (this.policy === "skip") return false;
    for (let h = 0; h < heads; h++) if (this.#tainted(row, h, heads, kvHeads, causal)) return true;
    return false;
  }

  #tainted(row: number, head: number, heads: number, kvHeads: number, causal: boolean): boolean {
    if (this.#queryHeads.has(row * heads + head)) return true;
    const first = this.#firstKey.get(Math.floor(head * kvHeads / heads));
    return first !== undefined && (!causal || first <= row);
  }
}

/** Calls `found` for every (row, head) that holds NaN or an infinity. */
function each(
  { heads, width }: TensorInfo,
  { rows, cols, data }: Tile,
  found: (row: number, head: number) => void,
): void {
  for (let i = 0; i < rows; i++) {
    for (let head = 0; head < heads; head++) {
      const at = i * cols + head * width;
      if (!allFinite(data.subarray(at, at + width))) found(i, head);
    }
  }
}

/** A weight of 1 for every row of keys, for rows to be masked in. */
export class Ones implements TensorSource {
  readonly info: TensorInfo;

  constructor({ info: { rows, firstRow } }: TensorSource) {
    this.info = {
      path: "",
      name: "",
      dtype: "f32",
      shape: [rows],
      rows,
      heads: 1,
      width: 1,
      firstRow,
      byteLength: 0,
    };
  }

  async *tiles(tileRows: number, { range, precision = "f32", memory }: TileOptions = {}): AsyncIterable<Tile> {
    const { start, end } = range ?? { start: 0, end: this.info.rows };
    const room = memory ?? [floats(precision, Math.min(tileRows, end - start))];
    for (let row = start, turn = 0; row < end; row += tileRows, turn++) {
      const rows = Math.min(tileRows, end - row);
      yield { start: row, rows, cols: 1, data: room[turn % room.length].subarray(0, rows).fill(1) };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
