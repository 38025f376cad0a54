/**
 * Reads any layout of a tensor as tiles of rows.
 *
 * Each axis has two strides: one in the file and one in the tile. Sorted by their stride in the file, neighbours that
 * continue each other in both places are one longer axis, and from the innermost axis outwards as much as stands
 * (nearly) together is read at once. A tile of contiguous rows is one read, straight into its memory when the file
 * holds the very numbers wanted.
 */
import type { ByteSource } from "../bytes.ts";
import { decode } from "./decode.ts";
import type { Axis } from "./view.ts";
import {
  type DType,
  DTYPE_BYTES,
  type FloatArray,
  floats,
  type Precision,
  type TensorInfo,
  type TensorSource,
  type Tile,
  type TileOptions,
} from "../tensor.ts";

/** Where elements stand and how they are written. */
export interface Placement {
  readonly source: ByteSource;
  /** Byte position of element 0. */
  readonly offset: number;
  readonly dtype: DType;
  readonly littleEndian: boolean;
}

/** Elements read at once through scratch memory: at most 512 KiB raw and 512 KiB decoded, which stay in cache. */
const SCRATCH = 2 ** 16;
/** Bytes worth reading in vain to save a system call. */
const GAP = 4096;

/** An axis with its stride in the file (`from`) and in the tile (`to`), in elements. */
interface Step {
  readonly size: number;
  readonly from: number;
  readonly to: number;
}

/** A stored tensor, viewed through its axes (row, heads, columns). Does not own its bytes unless told to. */
export class StridedTensor implements TensorSource {
  readonly #placement: Placement;
  readonly #axes: readonly Axis[];
  readonly #dispose?: () => PromiseLike<void>;

  constructor(
    readonly info: TensorInfo,
    placement: Placement,
    axes: readonly Axis[],
    dispose?: () => PromiseLike<void>,
  ) {
    this.#placement = placement;
    this.#axes = axes;
    this.#dispose = dispose;
  }

  async *tiles(tileRows: number, options: TileOptions = {}): AsyncGenerator<Tile> {
    const { rows, heads, width, firstRow } = this.info;
    const { start, end } = options.range ?? { start: 0, end: rows };
    if (!(0 <= start && start <= end && end <= rows)) throw new RangeError(`rows ${start}:${end} of ${rows}`);
    if (!(tileRows >= 1)) throw new RangeError(`tiles of ${tileRows} rows`);
    const cols = heads * width;
    const size = Math.min(tileRows, end - start);
    const memory = options.memory ?? [floats(options.precision ?? "f32", size * cols)];
    const reader = new BlockReader(this.#placement, options.precision ?? "f32");
    for (let row = start, turn = 0; row < end; row += size, turn++) {
      const count = Math.min(size, end - row);
      const [rowAxis] = this.#axes;
      const axes = this.#axes.map((axis) => axis === rowAxis ? { ...axis, size: count } : axis);
      const data = memory[turn % memory.length].subarray(0, count * cols);
      await reader.read(axes, (firstRow + row) * rowAxis.stride, data);
      // A pass ends: what it read was one file, not parts of two. Asked before the last tile goes out, as not everybody asks for more.
      if (row + count >= end) await this.#placement.source.unchanged?.();
      yield { start: row, rows: count, cols, data };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispose?.();
  }
}

/** Reads one whole block: `axes` in the order of the result, outermost first, densely packed in `into`. */
export async function readBlock(placement: Placement, axes: readonly Axis[], into: FloatArray): Promise<void> {
  const precision: Precision = into instanceof Float64Array ? "f64" : "f32";
  await new BlockReader(placement, precision).read(axes, 0, into);
  await placement.source.unchanged?.();
}

/** Scratch memory and the recursion over axes. */
class BlockReader {
  readonly #placement: Placement;
  /** The file holds exactly the numbers that are wanted. */
  readonly #native: boolean;
  readonly #precision: Precision;
  #raw = new Uint8Array(0);
  #staged: FloatArray = new Float32Array(0);
  readonly #runs = new Runs();

  constructor(placement: Placement, precision: Precision) {
    this.#placement = placement;
    this.#precision = precision;
    this.#native = placement.dtype === precision && placement.littleEndian;
  }

  async read(axes: readonly Axis[], first: number, into: FloatArray): Promise<void> {
    if (axes.some((axis) => axis.size === 0)) return;
    const steps = mergedSteps(axes);
    const [only] = steps;
    if (this.#native && steps.length === 1 && only.from === 1 && only.to === 1) {
      return await this.#readBytes(
        first,
        new Uint8Array(into.buffer, into.byteOffset, only.size * into.BYTES_PER_ELEMENT),
      );
    }
    const span = spans(steps);
    await this.#gather(steps, span, this.#together(steps, span), first, into, 0);
  }

  /** How many of the steps, from the innermost, stand close enough in the file to be read together. */
  #together(steps: readonly Step[], span: readonly number[]): number {
    const bytes = DTYPE_BYTES[this.#placement.dtype];
    let [together, reads] = [0, 1];
    for (let k = 0; k < steps.length; k++) {
      if (together === k && (steps[k].from - span[k]) * bytes <= GAP) together++;
      else reads *= steps[k].size;
      // Views that overlap: very many reads of few bytes.
      if (span[k + 1] <= SCRATCH && span[k + 1] * bytes <= reads * GAP) [together, reads] = [k + 1, 1];
    }
    return together;
  }

  /** Reads the block of `steps`, whose innermost `together` may share a read, from element `from` to `into[to]`. */
  async #gather(
    steps: readonly Step[],
    span: readonly number[],
    together: number,
    from: number,
    into: FloatArray,
    to: number,
  ): Promise<void> {
    const k = steps.length - 1;
    if (k < together && span[k + 1] <= SCRATCH) return await this.#readSpan(steps, span[k + 1], from, into, to);
    const { size, from: fileStep, to: tileStep } = steps[k];
    const rest = steps.slice(0, k);
    const chunk = k < together && span[k] <= SCRATCH ? Math.floor((SCRATCH - span[k]) / fileStep) + 1 : 1;
    for (let i = 0; i < size; i += chunk) {
      const count = Math.min(chunk, size - i);
      // A single index is a block of the remaining steps; where none remain, it is one element.
      const part = count === 1 && k > 0 ? rest : [...rest, { ...steps[k], size: count }];
      const partSpan = part === rest ? span : [...span.slice(0, k + 1), span[k] + (count - 1) * fileStep];
      const near = count === 1 && k === 0 ? 1 : Math.min(together, part.length);
      await this.#gather(part, partSpan, near, from + i * fileStep, into, to + i * tileStep);
    }
  }

  async #readSpan(
    steps: readonly Step[],
    span: number,
    from: number,
    into: FloatArray,
    to: number,
  ): Promise<void> {
    const { dtype, littleEndian } = this.#placement;
    const bytes = span * DTYPE_BYTES[dtype];
    if (this.#raw.length < bytes) this.#raw = new Uint8Array(bytes);
    const raw = this.#raw.subarray(0, bytes);
    await this.#readBytes(from, raw);
    const [inner] = steps;
    if (steps.length === 1 && inner.from === 1 && inner.to === 1) {
      return decode(raw, dtype, littleEndian, span, into, to);
    }
    if (this.#native) {
      const values = dtype === "f64" ? new Float64Array(raw.buffer) : new Float32Array(raw.buffer);
      return scatter(steps, steps.length - 1, this.#runs.of(values, inner.size), 0, into, to);
    }
    if (this.#staged.length < span) this.#staged = floats(this.#precision, span);
    decode(raw, dtype, littleEndian, span, this.#staged, 0);
    scatter(steps, steps.length - 1, this.#runs.of(this.#staged, inner.size), 0, into, to);
  }

  #readBytes(element: number, into: Uint8Array): Promise<void> {
    const { source, offset, dtype } = this.#placement;
    return source.read(into, offset + element * DTYPE_BYTES[dtype]);
  }
}

/** Steps of a block, innermost in the file first; axes that continue each other in file and tile are one. */
function mergedSteps(axes: readonly Axis[]): Step[] {
  let to = 1;
  const steps: Step[] = [];
  for (const { size, stride } of axes.toReversed()) {
    if (size > 1) steps.push({ size, from: stride, to });
    to *= size;
  }
  steps.sort((a, b) => a.from - b.from);
  const merged: Step[] = [];
  for (const step of steps) {
    const last = merged.at(-1);
    if (last && step.from === last.from * last.size && step.to === last.to * last.size) {
      merged[merged.length - 1] = { ...last, size: last.size * step.size };
    } else merged.push(step);
  }
  return merged.length > 0 ? merged : [{ size: 1, from: 1, to: 1 }];
}

/** `spans[k]`: elements of the file from the first to the last of the innermost k steps. */
function spans(steps: readonly Step[]): number[] {
  const result = [1];
  for (const { size, from } of steps) result.push(result[result.length - 1] + (size - 1) * from);
  return result;
}

/** Shorter runs are copied number by number. */
const LEAST_RUN = 16;

/**
 * Scratch numbers and views of their runs. Making a view costs as much as copying 64 numbers one by one, setting by one that exists a
 * fifth (Bun, into wasm memory: 1.4 ns a number in a loop, 3.5 by fresh views, 0.24 by kept ones; Deno 0.46, 0.76, 0.30).
 */
class Runs {
  values: FloatArray = new Float32Array(0);
  #size = 0;
  #turn = 0;
  /** In the order of their use, which blocks of one shape share. */
  readonly #views: FloatArray[] = [];
  readonly #starts: number[] = [];

  /** These numbers, whose runs have `size`; to be asked for from the first on. */
  of(values: FloatArray, size: number): this {
    if (values.buffer !== this.values.buffer || size !== this.#size) this.#views.length = this.#starts.length = 0;
    [this.values, this.#size, this.#turn] = [values, size, 0];
    return this;
  }

  /** The run that begins at `from`. */
  next(from: number): FloatArray {
    const turn = this.#turn++;
    if (this.#starts[turn] === from) return this.#views[turn];
    this.#starts[turn] = from;
    return this.#views[turn] = this.values.subarray(from, from + this.#size);
  }
}

function scatter(steps: readonly Step[], k: number, runs: Runs, from: number, into: FloatArray, to: number): void {
  const { size, from: fileStep, to: tileStep } = steps[k];
  if (k > 0) {
    for (let i = 0; i < size; i++) scatter(steps, k - 1, runs, from + i * fileStep, into, to + i * tileStep);
  } else if (fileStep === 1 && tileStep === 1 && size >= LEAST_RUN) {
    into.set(runs.next(from), to);
  } else {
    const { values } = runs;
    for (let i = 0; i < size; i++) into[to + i * tileStep] = values[from + i * fileStep];
  }
}
