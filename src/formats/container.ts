/**
 * What a tensor file is to the rest of the program. A format fills in `Contents`; this file does the part that is the
 * same for all: finding a tensor by name, refusing an element type, looking at it as rows × heads × width.
 */
import type { ByteSource } from "../bytes.ts";
import { InputError, UsageError } from "../errors.ts";
import {
  type DType,
  DTYPE_BYTES,
  type FloatArray,
  floats,
  type Precision,
  type TensorInfo,
  type TensorSource,
} from "../tensor.ts";
import { numberPieces, rawPieces } from "./pieces.ts";
import { type Placement, readBlock, StridedTensor } from "./strided.ts";
import { rowView, strides, type TensorView } from "./view.ts";

/** One tensor as a format finds it, before any element is read. */
export interface StoredTensor {
  /** "" in a single-tensor file. */
  readonly name: string;
  /** null: stored in a type this program does not read. */
  readonly dtype: DType | null;
  /** The type in the words of the file, for people. */
  readonly typeName: string;
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly order: "C" | "F";
  /** Elements between neighbours along each axis, where neither order says it; 0 repeats one element. */
  readonly strides?: readonly number[];
  readonly littleEndian: boolean;
  /** Tensors of one file with the same word here share memory (PyTorch). */
  readonly storage?: string;
  /** The first tensor that is these very elements under another name (PyTorch). */
  readonly sameAs?: string;
  /** Where the elements stand. A compressed member is unpacked when this is first called. */
  locate(): Promise<{ readonly source: ByteSource; readonly offset: number }>;
}

/** What a format found in a file. Disposing drops what it unpacked; the source is not its own. */
export interface Contents extends AsyncDisposable {
  readonly tensors: readonly StoredTensor[];
  /** Free text the file carries (safetensors `__metadata__`). */
  readonly metadata: Readonly<Record<string, string>>;
}

/** Bytes around the elements of a written tensor. `crc` is the CRC-32 from `checksumFrom` on, 0 while unknown. */
export interface Frame {
  readonly head: (crc: number) => Uint8Array;
  readonly tail: (crc: number) => Uint8Array;
  /** Position the checksum starts from, or null where the format has none. */
  readonly checksumFrom: number | null;
}

/** A tensor that is written, without its elements. */
export interface TensorHeader {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Bytes around the elements of many tensors, which are written one after the other. */
export interface Frames {
  /** The tensors by their index, in the order they are written. */
  readonly order: readonly number[];
  /** Bytes in front of tensor `i`, as many for any `crc`: the CRC-32 of what follows `checksumFrom(i)`, 0 while unknown. */
  head(i: number, crc: number): Uint8Array;
  /** Position in `head(i)` the checksum starts from, or null where the format has none. */
  checksumFrom(i: number): number | null;
  /** Bytes after the last tensor; checksums by index. */
  tail(crcs: readonly number[]): Uint8Array;
}

/** "Not me": the first bytes fit a format, what follows does not. The next format that fits is tried. */
export class ForeignError extends InputError {
  override get name(): string {
    return "InputError";
  }
}

/** A file format: one file in this folder and one line in mod.ts. */
export interface Format {
  readonly name: string;
  /** Suffix that chooses it for an output. */
  readonly suffix: string;
  /** Recognises a file by its first bytes (up to 512). */
  matches(head: Uint8Array): boolean;
  open(source: ByteSource): Promise<Contents>;
  /** How one tensor in C order is written; absent where a format is only read. */
  frame?(dtype: "f16" | "f32" | "f64" | "i32", shape: readonly number[]): Frame;
  /** How many tensors are written; throws UsageError for what the format cannot hold. */
  frames?(tensors: readonly TensorHeader[], metadata: Readonly<Record<string, string>>): Frames;
}

/** What `inspect` shows of a tensor. */
export type Member = Omit<StoredTensor, "locate">;

export interface ContainerOptions {
  /** Reads 2-byte elements that the file calls "V2" or "u16" as bfloat16, for which numpy has no name. */
  readonly dtype?: "bf16";
}

/** Memory that a tensor read whole may take: what one array of the runtimes holds. */
const MAX_WHOLE = 2 ** 32;

/** An open tensor file. Its sources live as long as it does. */
export class Container implements AsyncDisposable {
  readonly members: readonly Member[];
  readonly #tensors: readonly StoredTensor[];

  constructor(
    readonly format: string,
    readonly source: ByteSource,
    readonly contents: Contents,
    options: ContainerOptions = {},
  ) {
    this.#tensors = options.dtype ? reinterpret(contents.tensors, source.path) : contents.tensors;
    this.members = this.#tensors;
  }

  get path(): string {
    return this.source.path;
  }

  get metadata(): Readonly<Record<string, string>> {
    return this.contents.metadata;
  }

  /**
   * A tensor as rows × heads × width. The name may be left out where the file holds one tensor. Throws InputError for
   * an unknown name or an unreadable type, UsageError for a view that does not fit the shape.
   */
  async open(name?: string, view: TensorView = {}): Promise<TensorSource> {
    const tensor = this.#find(name);
    const dtype = this.#readable(tensor);
    const label = this.#label(tensor);
    const { axes, rows, heads, width, firstRow } = rowView(tensor.shape, stepsOf(tensor), view, label);
    const byteLength = rows * heads * width * DTYPE_BYTES[dtype];
    const { shape } = tensor;
    const info: TensorInfo = {
      path: this.path,
      name: tensor.name,
      dtype,
      shape,
      rows,
      heads,
      width,
      firstRow,
      byteLength,
    };
    return new StridedTensor(info, await this.#placement(tensor), axes);
  }

  /** All elements of a tensor of any rank in C order: for weights and states, which fit in memory. */
  async readAll(name?: string, precision: Precision = "f32"): Promise<{ shape: readonly number[]; data: FloatArray }> {
    const tensor = this.#find(name);
    const { shape } = tensor;
    const placement = await this.#placement(tensor);
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = count * (precision === "f64" ? 8 : 4);
    if (bytes > MAX_WHOLE) {
      throw new InputError(
        `Cannot read ${this.#label(tensor)} whole: shape [${shape.join(", ")}] needs ${bytes} bytes`,
      );
    }
    const data = floats(precision, count);
    const steps = stepsOf(tensor);
    const axes = shape.map((size, i) => ({ role: "col" as const, size, stride: steps[i] }));
    await readBlock(placement, axes, data);
    return { shape, data };
  }

  /** All elements in C order, in pieces of a few MiB at most: the very bytes, little-endian. Pieces are borrowed. */
  async *bytes(name?: string): AsyncGenerator<Uint8Array> {
    const tensor = this.#find(name);
    yield* rawPieces(await this.#placement(tensor), tensor.shape, stepsOf(tensor));
  }

  /** All elements in C order, in pieces of a few MiB at most, as float64. Pieces are borrowed. */
  async *numbers(name?: string): AsyncGenerator<Float64Array> {
    const tensor = this.#find(name);
    yield* numberPieces(await this.#placement(tensor), tensor.shape, stepsOf(tensor));
  }

  /** What is known of one tensor. Throws InputError for a name that is not there. */
  member(name?: string): Member {
    return this.#find(name);
  }

  /** Throws InputError where the type of a tensor is none that this program reads. */
  requireReadable(name?: string): void {
    this.#readable(this.#find(name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.contents[Symbol.asyncDispose]();
    await this.source[Symbol.asyncDispose]();
  }

  #find(name?: string): StoredTensor {
    const all = this.#tensors;
    if (name === undefined && all.length === 1) return all[0];
    const found = all.find((tensor) => tensor.name === name);
    if (found) return found;
    const names = all.slice(0, 12).map((tensor) => `"${tensor.name}"`).join(", ") + (all.length > 12 ? ", …" : "");
    const has = all.length === 0
      ? "it holds no tensors"
      : all[0].name === ""
      ? "it holds one tensor without a name"
      : `it holds ${names}`;
    throw new InputError(
      name === undefined
        ? `Cannot choose a tensor in "${this.path}": ${has}, name one`
        : `Cannot find tensor "${name}" in "${this.path}": ${has}`,
    );
  }

  async #placement(tensor: StoredTensor): Promise<Placement> {
    const dtype = this.#readable(tensor);
    return { ...await tensor.locate(), dtype, littleEndian: tensor.littleEndian };
  }

  #readable(tensor: StoredTensor): DType {
    if (tensor.dtype !== null) return tensor.dtype;
    throw new InputError(
      `Cannot read ${this.#label(tensor)}: dtype is ${tensor.typeName}, expected ${
        Object.keys(DTYPE_BYTES).join(", ")
      }`,
    );
  }

  #label(tensor: StoredTensor): string {
    return tensor.name === "" ? `"${this.path}"` : `tensor "${tensor.name}" in "${this.path}"`;
  }
}

/** Elements between neighbours along each axis. */
function stepsOf({ shape, order, strides: given }: StoredTensor): readonly number[] {
  return given ?? strides(shape, order);
}

function reinterpret(tensors: readonly StoredTensor[], path: string): StoredTensor[] {
  const fits = (tensor: StoredTensor) => tensor.dtype === "u16" || tensor.typeName === "V2";
  if (!tensors.some(fits)) {
    throw new UsageError(`Cannot read "${path}" as bf16: no tensor in it has 2-byte elements of type u16 or V2`);
  }
  return tensors.map((tensor) => fits(tensor) ? { ...tensor, dtype: "bf16", typeName: "bf16" } : tensor);
}
