/** The rows a sweep runs over: drawn or read once, then cut into tiles in memory, so that timing sees compute only. */
import type { BenchSizes } from "./bench.ts";
import type { Inputs } from "./inputs.ts";
import { RandomStream } from "./random.ts";
import { type FloatArray, floats, type Precision, type Tile } from "./tensor.ts";

/** Float32 bytes held of one tensor, beyond any cache; longer lengths run over the held rows again. */
const HELD_BYTES = 256 * 2 ** 20;
/** Normals that are drawn; a prime, so that no two rows of a tensor hold the same numbers before as many rows have passed. */
const DRAWN = 262_139;

export const ROLES = ["q", "k", "v"] as const;
export type Role = typeof ROLES[number];

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
    const cols = this.cols(role);
    const all = this.#as(this.data[role], precision);
    const data = memory ? copied(all.subarray(0, length * cols), memory) : all;
    const held = data.length / cols;
    const whole = held - held % tileRows; // rows before the held ones are run over again
    const tiles: Tile[] = [];
    for (let start = 0; start < length; start += tileRows) {
      const rows = Math.min(tileRows, length - start);
      const at = length <= held ? start : start % whole;
      tiles.push({ start, rows, cols, data: data.subarray(at * cols, (at + rows) * cols) });
    }
    return tiles;
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

/** Rows that are held of each tensor when `longest` are asked for. */
export function heldRows(sizes: BenchSizes, longest: number): number {
  const widest = Math.max(...ROLES.map((role) => columns(sizes, role)));
  return Math.min(longest, Math.max(1, Math.floor(HELD_BYTES / (4 * widest))));
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
