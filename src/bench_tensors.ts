/** The rows a sweep runs over: drawn or read once, then cut into tiles in memory, so that timing sees compute only. */
import type { BenchSizes } from "./bench.ts";
import { Inputs } from "./inputs.ts";
import { BLOCK_ROWS } from "./near_far.ts";
import type { Reach } from "./near_rows.ts";
import { RandomStream } from "./random.ts";
import { type FloatArray, floats, type Precision, type TensorSource, type Tile } from "./tensor.ts";

/** Float32 bytes held of one tensor, beyond any cache; longer lengths run over the held rows again. */
const HELD_BYTES = 256 * 2 ** 20;
/** Normals that are drawn; a prime, so that no two rows of a tensor hold the same numbers before as many rows have passed. */
const DRAWN = 262_139;

export const ROLES = ["q", "k", "v"] as const;
export type Role = typeof ROLES[number];

/** How rows are laid out. */
interface Laying {
  readonly length: number;
  readonly tileRows: number;
  readonly precision: Precision;
  /** Rows around a tile that are asked for with it; none when left out. */
  readonly reach?: Reach;
  readonly memory?: (length: number) => FloatArray;
}

const NO_REACH: Reach = { behind: 0, ahead: 0 };

/**
 * Rows of a role where kernels use them:
 *
 *     [ behind rows, the last of those held | `whole` rows | ahead rows, the first of those held ]
 *
 * Row r of a longer length is row r mod `whole`. The rows at both ends are there only for lengths that run over them again.
 */
class LaidRows {
  constructor(readonly data: FloatArray, readonly cols: number, readonly whole: number, readonly behind: number) {}

  /** Rows `from … to − 1`, borrowed, which lie around the tile that begins at `start`, no further away than the reach. */
  around(start: number, from: number, to: number): Tile {
    const { data, cols, whole, behind } = this;
    const at = behind + start % whole + from - start;
    return { start: from, rows: to - from, cols, data: data.subarray(at * cols, (at + to - from) * cols) };
  }
}

/** First rows of tiles. */
export const startsOf = (length: number, tileRows: number): number[] => {
  return Array.from({ length: Math.ceil(length / tileRows) }, (_, i) => i * tileRows);
};

/** Copies rows `from … to − 1` of a sequence that runs over the first `whole` rows of `data` again and again; `from` may be below 0. */
function copyRows(data: FloatArray, whole: number, cols: number, from: number, to: number, into: FloatArray): void {
  for (let row = from; row < to;) {
    const at = ((row % whole) + whole) % whole;
    const rows = Math.min(whole - at, to - row);
    into.set(data.subarray(at * cols, (at + rows) * cols), (row - from) * cols);
    row += rows;
  }
}

/** Queries, keys and values of the longest L. */
export class BenchTensors {
  readonly #doubles = new Map<FloatArray, Float64Array>();

  /** @param data rows that are held, `rows × heads × width` of each role */
  constructor(readonly sizes: BenchSizes, readonly data: Readonly<Record<Role, Float32Array>>) {}

  /** Columns of a role: heads × width. */
  cols(role: Role): number {
    return columns(this.sizes, role);
  }

  /**
   * The first `length` rows of a role in tiles of `tileRows`. They share memory with other calls, unless `memory` is given, which
   * makes an array for a copy of those that are held.
   */
  tiles(
    role: Role,
    length: number,
    tileRows: number,
    precision: Precision,
    memory?: (length: number) => FloatArray,
  ): Tile[] {
    const rows = this.rows(role, { length, tileRows, precision, memory });
    return startsOf(length, tileRows).map((start) => rows.around(start, start, Math.min(length, start + tileRows)));
  }

  /** The same rows, any `reach` of them around a tile together. Memory as in `tiles`; rows that are run over again are copied once where tiles reach. */
  rows(role: Role, { length, tileRows, precision, reach = NO_REACH, memory }: Laying): LaidRows {
    const cols = this.cols(role);
    const all = this.#as(this.data[role], precision);
    const whole = this.#whole(role, length, tileRows);
    if (whole === length || reach.behind + reach.ahead === 0) {
      const data = memory ? copied(all.subarray(0, length * cols), memory) : all;
      return new LaidRows(data, cols, whole, 0);
    }
    const { behind, ahead } = reach;
    const rows = behind + whole + ahead;
    const data = memory ? memory(rows * cols) : floats(precision, rows * cols);
    copyRows(all, whole, cols, -behind, whole + ahead, data);
    return new LaidRows(data, cols, whole, behind);
  }

  /** The first `length` rows as tensors to read, the very rows that tiles of `tileRows` rows hold. */
  inputs(length: number, tileRows: number): Inputs {
    const [q, k, v] = ROLES.map((role) => this.#source(role, length, tileRows));
    return new Inputs(q, k, v, null);
  }

  /** Rows that pass before the held ones are run over again: whole tiles, or all where they are held. */
  #whole(role: Role, length: number, tileRows: number): number {
    const held = this.data[role].length / this.cols(role);
    return length <= held ? length : held - held % tileRows;
  }

  #source(role: Role, length: number, tileRows: number): TensorSource {
    const { heads, kvHeads, headDim, valueDim } = this.sizes;
    const cols = this.cols(role);
    const whole = this.#whole(role, length, tileRows);
    const as = (precision: Precision) => this.#as(this.data[role], precision);
    return {
      info: {
        path: "rows in memory",
        name: role,
        dtype: "f32",
        shape: [length, cols],
        rows: length,
        heads: role === "q" ? heads : kvHeads,
        width: role === "v" ? valueDim : headDim,
        firstRow: 0,
        byteLength: 4 * length * cols,
      },
      async *tiles(most, { range = { start: 0, end: length }, precision = "f32", memory } = {}): AsyncIterable<Tile> {
        let turn = 0;
        for (let start = range.start; start < range.end; start += most) {
          const rows = Math.min(most, range.end - start);
          const given = memory?.[turn++ % memory.length].subarray(0, rows * cols);
          const data = given ?? floats(precision, rows * cols);
          copyRows(as(precision), whole, cols, start, start + rows, data);
          yield { start, rows, cols, data };
        }
      },
      async [Symbol.asyncDispose]() {},
    };
  }

  #as(data: Float32Array, precision: Precision): FloatArray {
    if (precision === "f32") return data;
    const doubles = this.#doubles.get(data) ?? new Float64Array(data);
    this.#doubles.set(data, doubles);
    return doubles;
  }
}

function copied(data: FloatArray, memory: (length: number) => FloatArray): FloatArray {
  const copy = memory(data.length);
  copy.set(data);
  return copy;
}

function columns({ heads, kvHeads, headDim, valueDim }: BenchSizes, role: Role): number {
  return role === "q" ? heads * headDim : kvHeads * (role === "k" ? headDim : valueDim);
}

/** Rows that are held of each tensor when `longest` are asked for: a block of near-and-far attention at least. */
export function heldRows(sizes: BenchSizes, longest: number): number {
  const widest = Math.max(...ROLES.map((role) => columns(sizes, role)));
  return Math.min(longest, Math.max(BLOCK_ROWS, Math.floor(HELD_BYTES / (4 * widest))));
}

/** Normal entries of standard deviation `spread`, the same on every runtime. */
export function syntheticTensors(sizes: BenchSizes, longest: number, seed: number, spread: number): BenchTensors {
  const drawn = Float32Array.from(new RandomStream(seed, 0xbe9c4).normals(DRAWN), (value) => spread * value);
  const rows = heldRows(sizes, longest);
  const fill = (role: Role, index: number) => {
    const data = new Float32Array(rows * columns(sizes, role));
    for (let at = 0, from = Math.floor(index * DRAWN / 3); at < data.length; from = 0) {
      const part = drawn.subarray(from, Math.min(DRAWN, from + data.length - at));
      data.set(part, at);
      at += part.length;
    }
    return data;
  };
  return new BenchTensors(sizes, { q: fill("q", 0), k: fill("k", 1), v: fill("v", 2) });
}

/** The first rows of a file. Throws InputError for entries that are not finite. */
export async function tensorsFrom(inputs: Inputs, sizes: BenchSizes, longest: number): Promise<BenchTensors> {
  const rows = heldRows(sizes, longest);
  const make = (role: Role) => floats("f32", rows * columns(sizes, role)) as Float32Array;
  const data = { q: make("q"), k: make("k"), v: make("v") };
  for await (const tiles of inputs.tiles(1024, "f32", inputs.q)) {
    for (const role of ROLES) {
      const { start, cols, data: numbers } = tiles[role]!;
      data[role].set(numbers.subarray(0, (rows - start) * cols), start * cols);
    }
    if (tiles.k.start + tiles.k.rows >= rows) break;
  }
  return new BenchTensors(sizes, data);
}
