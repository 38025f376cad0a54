/**
 * Rows of a tensor, as every part of the program passes them on.
 *
 * A tensor of attention is `rows × heads × width`. In a tile the columns are `heads × width` with heads outermost:
 * element (row i, head h, column c) stands at `data[(i · heads + h) · width + c]`.
 */

/** The two float widths kernels compute in. Only the scalar backend computes in float64. */
export type FloatArray = Float32Array | Float64Array;
/** Float32 or float64. */
export type Precision = "f32" | "f64";

/** Element types that files may hold; "bf16" is the upper half of a float32. */
export type DType =
  | "f16"
  | "bf16"
  | "f32"
  | "f64"
  | "i8"
  | "i16"
  | "i32"
  | "i64"
  | "u8"
  | "u16"
  | "u32"
  | "u64"
  | "bool";

/** Bytes of one element. */
export const DTYPE_BYTES: Readonly<Record<DType, number>> = {
  f16: 2,
  bf16: 2,
  f32: 4,
  f64: 8,
  i8: 1,
  i16: 2,
  i32: 4,
  i64: 8,
  u8: 1,
  u16: 2,
  u32: 4,
  u64: 8,
  bool: 1,
};

/** Rows of one tensor. Borrowed: valid until the source is asked for the next tile. `cols` = heads × width, heads outermost. */
export interface Tile {
  /** Index of the first row within the tensor (after `--rows` slicing). */
  readonly start: number;
  readonly rows: number;
  readonly cols: number;
  /** `rows × cols` numbers, row-major. */
  readonly data: FloatArray;
}

/** Half-open range of rows, `start ≤ row < end`. */
export interface RowRange {
  readonly start: number;
  readonly end: number;
}

/** What is known of a tensor before any element is read. */
export interface TensorInfo {
  readonly path: string;
  /** Member name in an archive, or "" for a single-tensor file. */
  readonly name: string;
  readonly dtype: DType;
  /** Shape as stored in the file. */
  readonly shape: readonly number[];
  readonly rows: number;
  readonly heads: number;
  /** Columns per head. */
  readonly width: number;
  /** Row of the file that row 0 of this view is (`--rows A:B`). */
  readonly firstRow: number;
  /** Bytes of the view's elements in the file. */
  readonly byteLength: number;
}

/** How tiles are delivered. */
export interface TileOptions {
  readonly range?: RowRange;
  /** Width of the delivered numbers; default "f32". */
  readonly precision?: Precision;
  /**
   * Where to deliver tiles, in turn: arrays of that precision, `tileRows × cols` or longer. A tile then stays valid until its
   * memory's next turn.
   */
  readonly memory?: readonly FloatArray[];
}

/** A tensor that is read piece by piece, any number of times. */
export interface TensorSource extends AsyncDisposable {
  readonly info: TensorInfo;
  /** Tiles of `tileRows` rows (the last may be shorter), in row order. */
  tiles(tileRows: number, options?: TileOptions): AsyncIterable<Tile>;
}

/** A tensor that is written piece by piece, in row order. Disposing before `finish` leaves nothing behind. */
export interface TensorSink extends AsyncDisposable {
  /** Settles when the next tile may be made; the tile's data may be reused from then on. */
  write(tile: Tile): Promise<void>;
  /** Completes the file: header, checksums, rename to its final name. */
  finish(): Promise<void>;
}

/** A zeroed float array of the given precision. */
export function floats(precision: Precision, length: number): FloatArray {
  return precision === "f64" ? new Float64Array(length) : new Float32Array(length);
}

/** Some rows of a tile, by their places in it, in an array of their own. */
export function pickRows(tile: Tile, places: ArrayLike<number>): Tile {
  const { cols } = tile;
  const data = floats(tile.data instanceof Float64Array ? "f64" : "f32", places.length * cols);
  for (let i = 0; i < places.length; i++) {
    data.set(tile.data.subarray(places[i] * cols, (places[i] + 1) * cols), i * cols);
  }
  return { start: tile.start, rows: places.length, cols, data };
}

/** Rows `from … to−1` of a tile, borrowed. */
export function rowsOf(tile: Tile, from: number, to: number): Tile {
  return {
    start: tile.start + from,
    rows: to - from,
    cols: tile.cols,
    data: tile.data.subarray(from * tile.cols, to * tile.cols),
  };
}
