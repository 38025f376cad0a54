/**
 * Tensors of the library: in memory or in a file, read by attention in the same way.
 *
 * A shape means what it means in a file: `[L, D]`, `[H, L, d]` or `[B, H, L, d]` (`layout: "lhd"`: rows before heads), `[L]` for a mask.
 */
import { UsageError } from "../errors.ts";
import { memoryBytes } from "../formats/memory.ts";
import { StridedTensor } from "../formats/strided.ts";
import { rowView, strides, type TensorView } from "../formats/view.ts";
import { RandomStream } from "../random.ts";
import {
  type DType,
  type FloatArray,
  floats,
  type Precision,
  type TensorInfo,
  type TensorSink,
  type TensorSource,
  type Tile,
  type TileOptions,
} from "../tensor.ts";

/** How the axes of a tensor are meant. */
export interface HeadOptions {
  /** Splits the columns of `[L, D]` into heads; tensors of 3 and 4 axes say it themselves. */
  readonly heads?: number;
  /** Order of the axes of 3 and 4 dimensions: heads first (`"hld"`, the default) or rows first. */
  readonly layout?: "hld" | "lhd";
}

/** The same, and which of its rows are used. */
export interface ViewOptions extends HeadOptions {
  /** Half-open range of rows, `[from, to]`. */
  readonly rows?: readonly [number, number];
}

/** Where a tensor can be looked at again in another way. */
export interface Viewer {
  /** The tensor with other heads, axes or rows. */
  open(view: TensorView): TensorSource | Promise<TensorSource>;
  /** The view at hand. */
  readonly view: TensorView;
  /** All numbers in C order of the shape, where they are in memory. */
  readonly data: FloatArray | null;
}

/** Rows of queries, keys or values: a tensor, or arrays of rows `[L][D]`, or of heads `[H][L][d]`. */
export type Rows = TensorSource | readonly ArrayLike<number>[] | readonly (readonly ArrayLike<number>[])[];

/** A tensor that can be read any number of times, piece by piece or whole. Disposing closes the file of a loaded one. */
export class Tensor implements TensorSource {
  readonly #viewer: Viewer | null;
  readonly #source: TensorSource;
  readonly #close: (() => Promise<void>) | undefined;

  /** For `tensor`, `load` and `loadAll`, which know where the numbers are. */
  constructor(source: TensorSource, viewer: Viewer | null, close?: () => Promise<void>) {
    this.#source = source;
    this.#viewer = viewer;
    this.#close = close;
  }

  /** Rows, heads, width per head, element type and name, as attention sees them. */
  get info(): TensorInfo {
    return this.#source.info;
  }

  /** Axes of the view: of the rows at hand, in the order of the file. */
  get shape(): readonly number[] {
    return viewedShape(this.info, this.layout);
  }

  /** Order of the axes of 3 and 4 dimensions. */
  get layout(): "hld" | "lhd" {
    return this.#viewer?.view.layout ?? "hld";
  }

  /** All numbers in C order of `shape`. Throws UsageError for a tensor in a file: `read` it first. */
  get data(): FloatArray {
    const data = this.#viewer?.data;
    if (data) return data;
    throw new UsageError(
      `Cannot take the data of "${this.info.path}", which is not in memory: (await tensor.read()).data`,
    );
  }

  /** Tiles of rows, as backends read them. */
  tiles(tileRows: number, options?: TileOptions): AsyncIterable<Tile> {
    return this.#source.tiles(tileRows, options);
  }

  /** The same numbers with other heads or axes, or only some rows of those at hand. Throws UsageError where they do not fit. */
  async view(options: ViewOptions): Promise<Tensor> {
    if (!this.#viewer) throw new UsageError("Cannot look at this source in another way: read() it first");
    const { open, view, data } = this.#viewer;
    const first = view.rows?.start ?? 0;
    const rows = options.rows ? { start: first + options.rows[0], end: first + options.rows[1] } : view.rows;
    if (options.rows && !(options.rows[0] <= options.rows[1] && options.rows[1] <= this.info.rows)) {
      throw new UsageError(`Cannot take rows ${options.rows.join(":")}: there are ${this.info.rows}`);
    }
    const next = { heads: options.heads ?? view.heads, layout: options.layout ?? view.layout, rows };
    const source = await open(next);
    // What lies in memory in C order stays there unless rows are cut out of it.
    const whole = !rows || rows.end - rows.start === this.info.rows && first === rows.start;
    const seen = new Tensor(source, { open, view: next, data: whole ? data : null });
    return data && !whole ? await seen.read() : seen;
  }

  /** A copy in memory. @param precision width of its numbers; float64 where the tensor has them. */
  async read(precision: Precision = this.info.dtype === "f64" ? "f64" : "f32"): Promise<Tensor> {
    const collector = new Collector(this.shape, { heads: this.info.heads, layout: this.layout, precision });
    for await (const tile of this.tiles(4096, { precision })) await collector.write(tile);
    return collector.tensor();
  }

  /** Rows as arrays, `L × (heads · width)`: for printing. Throws UsageError for a tensor in a file. */
  toRows(): number[][] {
    const { rows, heads, width } = this.info;
    const at = placer(this.shape, this.layout, heads);
    const { data } = this;
    return Array.from({ length: rows }, (_, i) => {
      return Array.from({ length: heads * width }, (_, c) => data[at(i, Math.floor(c / width)) + c % width]);
    });
  }

  /** One line: shape, element type and where the numbers are. */
  toString(): string {
    const { dtype, path, name, heads, width } = this.info;
    const place = this.#viewer?.data ? "in memory" : name ? `"${name}" in ${path}` : path;
    return `Tensor [${this.shape.join(", ")}] ${dtype} · ${heads} × ${width} · ${place}`;
  }

  /** What consoles print. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  /** The same on Deno. */
  [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }

  /** Closes the file of a loaded tensor. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close?.();
  }
}

/**
 * A tensor of numbers in memory, which are borrowed: they must not change while attention runs.
 * @param shape `[L, D]`, `[H, L, d]`, `[B, H, L, d]` or `[L]`. Throws UsageError when it does not fit the data.
 */
export function tensor(data: ArrayLike<number>, shape: readonly number[], view: HeadOptions = {}): Tensor {
  const numbers = data instanceof Float32Array || data instanceof Float64Array ? data : Float64Array.from(data);
  const count = shape.reduce((product, size) => product * size, 1);
  if (count !== numbers.length) {
    throw new UsageError(
      `Cannot make a tensor of shape [${shape.join(", ")}]: it takes ${count} numbers, there are ${numbers.length}`,
    );
  }
  const dtype: DType = numbers instanceof Float64Array ? "f64" : "f32";
  const source = memoryBytes(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength));
  const placement = { source, offset: 0, dtype, littleEndian: true };
  const open = (view: TensorView): TensorSource => {
    const { axes, rows, heads, width, firstRow } = rowView(shape, "C", view, "the tensor in memory");
    const byteLength = rows * heads * width * numbers.BYTES_PER_ELEMENT;
    return new StridedTensor(
      { path: "memory", name: "", dtype, shape, rows, heads, width, firstRow, byteLength },
      placement,
      axes,
    );
  };
  return new Tensor(open(view), { open, view, data: numbers });
}

/** What `normal` draws from. */
export interface NormalOptions extends HeadOptions {
  /** The same seed gives the same numbers on every runtime; 0 by default. */
  readonly seed?: number;
  /** Standard deviation, 1 by default. */
  readonly sd?: number;
  /** 0 by default. */
  readonly mean?: number;
}

/** Independent normal numbers, float32: test data that are the same everywhere. */
export function normal(shape: readonly number[], options: NormalOptions = {}): Tensor {
  const { seed = 0, sd = 1, mean = 0, ...view } = options;
  const random = new RandomStream(seed, 0x6e6f726d);
  const count = shape.reduce((product, size) => product * size, 1);
  return tensor(Float32Array.from({ length: count }, () => mean + sd * random.normal()), shape, view);
}

/** Rows as a tensor. Throws UsageError for arrays that are ragged, and for flat ones, whose shape nobody knows. */
export function asTensor(rows: Rows, what = "the rows"): Tensor {
  if (rows instanceof Tensor) return rows;
  if ("tiles" in rows) return new Tensor(rows, null);
  if (!Array.isArray(rows) || typeof rows[0] === "number") {
    throw new UsageError(`Cannot tell the shape of ${what}: use tensor(data, [rows, columns])`);
  }
  const shape: number[] = [];
  for (let at: unknown = rows; isList(at); at = at[0]) shape.push(at.length);
  const numbers: number[] = [];
  const flatten = (list: ArrayLike<unknown>, axis: number): void => {
    if (list.length !== shape[axis]) {
      throw new UsageError(`Cannot use ${what}: one row has ${list.length} numbers, another ${shape[axis]}`);
    }
    for (const item of Array.from(list)) {
      if (axis + 1 < shape.length && isList(item)) flatten(item, axis + 1);
      else numbers.push(Number(item));
    }
  };
  flatten(rows, 0);
  return tensor(numbers, shape);
}

const isList = (item: unknown): item is ArrayLike<unknown> => Array.isArray(item) || ArrayBuffer.isView(item);

/** Numbers of a tensor in memory, of an array or of arrays of arrays. */
export function numbersOf(what: Rows | ArrayLike<number>): ArrayLike<number> {
  if (what instanceof Tensor) return what.data;
  if (Array.isArray(what) && typeof what[0] !== "number") return asTensor(what as Rows).data;
  if ("tiles" in what) throw new UsageError("Cannot take the numbers of a source: read() it first");
  return what as ArrayLike<number>;
}

/** Axes of a file's shape cut to the rows and columns at hand. */
function viewedShape({ shape, rows, heads, width }: TensorInfo, layout: "hld" | "lhd"): number[] {
  return outputShape(shape, { rows, heads, width }, layout);
}

/** The shape that rows take beside a tensor of `like` axes. */
export function outputShape(
  like: readonly number[],
  { rows, heads, width }: Pick<TensorInfo, "rows" | "heads" | "width">,
  layout: "hld" | "lhd",
): number[] {
  if (like.length === 1 && heads * width === 1) return [rows];
  if (like.length <= 2) return [rows, heads * width];
  const batch = like.length === 4 ? [like[0]] : [];
  const each = heads / (batch[0] || 1);
  return layout === "lhd" ? [...batch, rows, each, width] : [...batch, each, rows, width];
}

/** Where element (row, head, 0) stands in C order of a shape. */
function placer(shape: readonly number[], layout: "hld" | "lhd", heads: number): (row: number, head: number) => number {
  const steps = strides(shape, "C");
  if (shape.length <= 2) {
    const width = (shape[1] ?? 1) / heads;
    return (row, head) => row * steps[0] + head * width;
  }
  const [h, l] = layout === "lhd" ? [shape.length - 2, shape.length - 3] : [shape.length - 3, shape.length - 2];
  const inner = shape[h];
  const outer = shape.length === 4 ? steps[0] : 0;
  return (row, head) => row * steps[l] + Math.floor(head / inner) * outer + (head % inner) * steps[h];
}

/** Gathers tiles in memory, in C order of a shape. */
export class Collector implements TensorSink {
  readonly data: FloatArray;
  readonly #at: (row: number, head: number) => number;

  constructor(
    readonly shape: readonly number[],
    readonly options: { readonly heads: number; readonly layout: "hld" | "lhd"; readonly precision: Precision },
  ) {
    this.data = floats(options.precision, shape.reduce((product, size) => product * size, 1));
    this.#at = placer(shape, options.layout, options.heads);
  }

  async write({ start, rows, cols, data }: Tile): Promise<void> {
    const { heads } = this.options;
    const width = cols / heads;
    if (this.shape.length <= 2) return this.data.set(data.subarray(0, rows * cols), start * cols);
    for (let i = 0; i < rows; i++) {
      for (let h = 0; h < heads; h++) {
        const from = i * cols + h * width;
        this.data.set(data.subarray(from, from + width), this.#at(start + i, h));
      }
    }
  }

  async finish(): Promise<void> {}

  /** What was gathered. */
  tensor(): Tensor {
    const { heads, layout } = this.options;
    return tensor(this.data, this.shape, this.shape.length <= 2 ? { heads } : { layout });
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
