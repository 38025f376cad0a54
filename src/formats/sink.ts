/** Outputs: rows are encoded and placed as they come; the file gets its name when it is complete. */
import { crc32 } from "node:zlib";
import { type ByteSink, CHUNK, openOutput, scratchFile } from "../bytes.ts";
import { UsageError } from "../errors.ts";
import { DTYPE_BYTES, type TensorSink, type Tile } from "../tensor.ts";
import type { Format, Frame } from "./container.ts";
import { elements, type OutputDType } from "./decode.ts";
import { FORMATS } from "./mod.ts";
import { npy } from "./npy.ts";

/** What is written, and how its axes are ordered. */
export interface SinkOptions {
  readonly dtype: OutputDType;
  /** Axes of the file: `[L, D]`, `[H, L, d]` … */
  readonly shape: readonly number[];
  readonly heads: number;
  readonly width: number;
  /** Rows that follow each other whatever the axes are: batch items one after the other. */
  readonly rows?: number;
  /** Axes of 3 and 4 dimensions: heads or rows first. */
  readonly layout: "hld" | "lhd";
  /** Replaces the file: one that is written in place, or a test's. */
  readonly bytes?: ByteSink;
  /** Rows that `bytes` holds already, from the first. */
  readonly written?: number;
}

/** The format an output name asks for; throws UsageError when none writes it. */
export function outputFormat(path: string): Format {
  const format = FORMATS.find((candidate) => candidate.frame && path.toLowerCase().endsWith(candidate.suffix));
  if (format) return format;
  if (path === "-" || path.startsWith("/dev/")) return npy;
  const suffixes = FORMATS.filter((candidate) => candidate.frame).map((candidate) => candidate.suffix);
  throw new UsageError(`Cannot write "${path}": its name must end in ${suffixes.join(", ")}`);
}

/**
 * Opens an output for `shape`; tiles must come in row order and completely, from row `written` on. Throws UsageError for a name that cannot be
 * written, TransientError when the disk is full.
 */
export async function openSink(path: string, options: SinkOptions): Promise<TensorSink> {
  const frame = outputFormat(path).frame!(options.dtype, options.shape);
  const target = options.bytes ?? openOutput(path);
  const placed = placement(options);
  // Pipes take bytes in order only: anything else is put together in a scratch file first.
  const inOrder = placed.inOrder && frame.checksumFrom === null;
  const bytes = target.sequential && !inOrder ? scratchFile() : target;
  const sink = new FrameSink(frame, bytes, bytes === target ? null : target, options, placed);
  try {
    await sink.start();
    return sink;
  } catch (error) {
    await sink[Symbol.asyncDispose]();
    throw error;
  }
}

/** Where element (head, row 0) starts and how far rows are apart, in elements. */
interface Placed {
  readonly rows: number;
  readonly inOrder: boolean;
  readonly rowStep: number;
  readonly headAt: (head: number) => number;
}

function placement({ shape, heads, width, layout, rows: inSequence }: SinkOptions): Placed {
  if (inSequence !== undefined) {
    return { rows: inSequence, inOrder: true, rowStep: heads * width, headAt: (head) => head * width };
  }
  if (shape.length <= 2 || (shape.length === 3 && layout === "lhd")) {
    return { rows: shape[0], inOrder: true, rowStep: heads * width, headAt: (head) => head * width };
  }
  const rows = shape.length === 3 ? shape[1] : layout === "lhd" ? shape[1] : shape[2];
  if (layout === "hld") return { rows, inOrder: heads === 1, rowStep: width, headAt: (head) => head * rows * width };
  const inner = shape[2]; // [B, L, H, d]
  return {
    rows,
    inOrder: shape[0] === 1,
    rowStep: inner * width,
    headAt: (head) => Math.floor(head / inner) * rows * inner * width + (head % inner) * width,
  };
}

class FrameSink implements TensorSink {
  #rows: number;
  #room?: ReturnType<typeof elements>;
  readonly #data: number;
  readonly #size: number;

  constructor(
    readonly frame: Frame,
    readonly bytes: ByteSink,
    /** Where a scratch file is copied to at the end. */
    readonly pipe: ByteSink | null,
    readonly options: SinkOptions,
    readonly placed: Placed,
  ) {
    this.#rows = options.written ?? 0;
    this.#data = frame.head(0).length;
    this.#size = options.shape.reduce((product, n) => product * n, DTYPE_BYTES[options.dtype]);
  }

  async start(): Promise<void> {
    await this.bytes.write(this.frame.head(0), 0);
  }

  async write(tile: Tile): Promise<void> {
    const { dtype, heads, width } = this.options;
    if (tile.start !== this.#rows || tile.cols !== heads * width || tile.start + tile.rows > this.placed.rows) {
      throw new RangeError(
        `tile of ${tile.rows} × ${tile.cols} at row ${tile.start}, ` +
          `expected row ${this.#rows} of ${this.placed.rows} × ${heads * width}`,
      );
    }
    this.#rows += tile.rows;
    if (this.placed.inOrder) {
      return await this.#place(tile.data.subarray(0, tile.rows * tile.cols), tile.start * this.placed.rowStep);
    }
    const { values, bytes } = this.#elements(tile.rows * width);
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < tile.rows; i++) {
        const at = i * tile.cols + h * width;
        values.set(tile.data.subarray(at, at + width) as Float32Array, i * width);
      }
      if (this.placed.rowStep === width) await this.#put(bytes, this.placed.headAt(h) + tile.start * width);
      else {
        const row = width * DTYPE_BYTES[dtype];
        for (let i = 0; i < tile.rows; i++) {
          await this.#put(
            bytes.subarray(i * row, (i + 1) * row),
            this.placed.headAt(h) + (tile.start + i) * this.placed.rowStep,
          );
        }
      }
    }
  }

  async #place(data: Tile["data"], element: number): Promise<void> {
    if (this.options.dtype === (data instanceof Float64Array ? "f64" : "f32")) {
      return await this.#put(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), element);
    }
    const { values, bytes } = this.#elements(data.length);
    values.set(data as Float32Array);
    await this.#put(bytes, element);
  }

  /** Memory for `count` elements, used again and again. */
  #elements(count: number): ReturnType<typeof elements> {
    if (this.#room?.values.length !== count) this.#room = elements(this.options.dtype, count);
    return this.#room;
  }

  async #put(bytes: Uint8Array, element: number): Promise<void> {
    await this.bytes.write(bytes, this.#data + element * DTYPE_BYTES[this.options.dtype]);
  }

  async finish(): Promise<void> {
    const end = this.#data + this.#size;
    if (this.#rows !== this.placed.rows) throw new RangeError(`${this.#rows} of ${this.placed.rows} rows were written`);
    const from = this.frame.checksumFrom;
    const crc = from === null ? 0 : await this.#checksum(from, end);
    await this.bytes.write(this.frame.tail(crc), end);
    if (from !== null) await this.bytes.write(this.frame.head(crc), 0);
    if (this.pipe) await this.#copy(end + this.frame.tail(crc).length);
    await (this.pipe ?? this.bytes).commit();
  }

  async #checksum(from: number, end: number): Promise<number> {
    let crc = 0;
    for await (const piece of this.#pieces(from, end)) crc = crc32(piece, crc);
    return crc;
  }

  async #copy(end: number): Promise<void> {
    let at = 0;
    for await (const piece of this.#pieces(0, end)) {
      await this.pipe!.write(piece, at);
      at += piece.length;
    }
  }

  async *#pieces(from: number, end: number): AsyncGenerator<Uint8Array> {
    const buffer = new Uint8Array(CHUNK);
    for (let at = from; at < end; at += CHUNK) {
      const piece = buffer.subarray(0, Math.min(CHUNK, end - at));
      await this.bytes.read(piece, at);
      yield piece;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.bytes[Symbol.asyncDispose]();
    await this.pipe?.[Symbol.asyncDispose]();
  }
}
