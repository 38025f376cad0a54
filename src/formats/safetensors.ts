/**
 * Hugging Face's .safetensors: 8-byte header length, JSON, then the bytes of all tensors.
 * Checked as the reference does (safetensors `tensor.rs`): no overlap, no bytes without an owner, span = dtype × shape.
 */
import { InputError, UsageError } from "../errors.ts";
import { type DType, DTYPE_BYTES } from "../tensor.ts";
import type { Contents, Format, Frame, Frames, StoredTensor, TensorHeader } from "./container.ts";
import { MAX_RANK } from "./view.ts";

/** A third of what the reference takes: as JSON it needs many times its length of memory. */
const MAX_HEADER = 2 ** 25;

const TYPES: Readonly<Record<string, DType>> = {
  F16: "f16",
  BF16: "bf16",
  F32: "f32",
  F64: "f64",
  I8: "i8",
  I16: "i16",
  I32: "i32",
  I64: "i64",
  U8: "u8",
  U16: "u16",
  U32: "u32",
  U64: "u64",
  BOOL: "bool",
};

interface Entry {
  dtype?: unknown;
  shape?: unknown;
  data_offsets?: unknown;
}

/** The safetensors format; an output's one tensor is called "out". */
export const safetensors: Format = {
  name: "safetensors",
  suffix: ".safetensors",
  /** A header length that is plausible, then "{". */
  matches: (head) =>
    head.length >= 9 && head[8] === 0x7b &&
    new DataView(head.buffer, head.byteOffset).getBigUint64(0, true) <= MAX_HEADER,
  async open(source): Promise<Contents> {
    const label = `"${source.path}"`;
    const size = new Uint8Array(8);
    await source.read(size, 0);
    const length = Number(new DataView(size.buffer).getBigUint64(0, true));
    if (length > MAX_HEADER || 8 + length > source.byteLength) {
      throw new InputError(
        `Cannot read ${label}: its header claims ${length} bytes, the file has ${source.byteLength}`,
      );
    }
    const text = new Uint8Array(length);
    await source.read(text, 8);
    let header: Record<string, Entry>;
    try {
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
    } catch (error) {
      throw new InputError(`Cannot read ${label}: its header is not JSON (${(error as Error).message})`, {
        cause: error,
      });
    }
    if (typeof header !== "object" || header === null || Array.isArray(header)) {
      throw new InputError(`Cannot read ${label}: its header is not a JSON object`);
    }
    const { __metadata__: metadata, ...entries } = header;
    const data = 8 + length;
    const tensors = Object.entries(entries).map(([name, entry]): StoredTensor => {
      const { dtype, typeName, shape, begin, end } = validated(name, entry, source.byteLength - data, source.path);
      const offset = data + begin;
      const locate = async () => ({ source, offset });
      return { name, dtype, typeName, shape, byteLength: end - begin, order: "C", littleEndian: true, locate };
    });
    requireCover(tensors, entries, source.byteLength - data, label);
    return { tensors, metadata: textsOf(metadata, label), async [Symbol.asyncDispose]() {} };
  },
  frame(dtype, shape): Frame {
    const head = safetensorsHeader([{ name: "out", dtype, shape }], {});
    return { head: () => head, tail: () => new Uint8Array(), checksumFrom: null };
  },
  frames(tensors, metadata): Frames {
    // Wide elements first, as the reference writes them, so that every tensor is aligned to its elements.
    const order = tensors.map((_, i) => i).sort((a, b) =>
      DTYPE_BYTES[tensors[b].dtype] - DTYPE_BYTES[tensors[a].dtype]
    );
    const head = safetensorsHeader(order.map((i) => tensors[i]), metadata);
    return {
      order,
      head: (i) => i === order[0] ? head : new Uint8Array(),
      checksumFrom: () => null,
      tail: () => order.length === 0 ? head : new Uint8Array(),
    };
  },
};

/** Length and header of tensors whose elements follow in this order, padded so that they start at a multiple of 64. */
function safetensorsHeader(tensors: readonly TensorHeader[], metadata: Readonly<Record<string, string>>): Uint8Array {
  let end = 0;
  const entries = tensors.map(({ name, dtype, shape }) => {
    if (name === "__metadata__") throw new UsageError(`Cannot write tensor "${name}": .safetensors keeps this name`);
    const begin = end;
    end += shape.reduce((product, n) => product * n, DTYPE_BYTES[dtype]);
    return [name, { dtype: dtype.toUpperCase(), shape, data_offsets: [begin, end] }];
  });
  const notes = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries([...notes, ...entries])));
  const head = new Uint8Array(Math.ceil((8 + text.length) / 64) * 64).fill(0x20); // spaces, which JSON passes over
  if (head.length - 8 > MAX_HEADER) {
    throw new UsageError(`Cannot write .safetensors with a header of ${text.length} bytes`);
  }
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);
  return head;
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Notes of a header, which are texts by name. */
function textsOf(metadata: unknown, label: string): Record<string, string> {
  const given = metadata ?? {};
  if (typeof given === "object" && !Array.isArray(given)) {
    const texts = Object.entries(given);
    if (texts.every((entry): entry is [string, string] => typeof entry[1] === "string")) {
      return Object.fromEntries(texts);
    }
  }
  throw new InputError(`Cannot read ${label}: its __metadata__ is not texts by name`);
}

function validated(name: string, entry: Entry, available: number, path: string) {
  const broken = (what: string) => new InputError(`Cannot read tensor "${name}" in "${path}": ${what}`);
  const { dtype: typeName, shape, data_offsets: offsets } = entry ?? {};
  if (typeof typeName !== "string") throw broken("its dtype is missing");
  if (!Array.isArray(shape) || !shape.every(isSize)) throw broken("its shape is not a list of sizes");
  if (shape.length > MAX_RANK) throw broken(`its shape has ${shape.length} axes, expected at most ${MAX_RANK}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw broken("its data_offsets are not two positions");
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > available) {
    throw broken(`its bytes ${begin} to ${end} are not all in the file, which has ${available} bytes of data`);
  }
  const dtype = Object.hasOwn(TYPES, typeName) ? TYPES[typeName] : null;
  const wanted = dtype === null ? end - begin : shape.reduce((product, n) => product * n, DTYPE_BYTES[dtype]);
  if (wanted !== end - begin) {
    throw broken(`shape [${shape.join(", ")}] of ${typeName} needs ${wanted} bytes, it has ${end - begin}`);
  }
  return { dtype, typeName, shape: shape as number[], begin, end };
}

/** The tensors fill the data exactly. */
function requireCover(
  tensors: readonly StoredTensor[],
  entries: Record<string, Entry>,
  size: number,
  label: string,
): void {
  const spans = tensors.map(({ name }) => {
    const [begin, end] = entries[name].data_offsets as [number, number];
    return { name, begin, end };
  });
  spans.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let covered = 0;
  for (const { name, begin, end } of [...spans, { name: "", begin: size, end: size }]) {
    if (begin < covered) throw new InputError(`Cannot read ${label}: tensor "${name}" shares bytes with another`);
    if (begin > covered) {
      throw new InputError(`Cannot read ${label}: bytes ${covered} to ${begin} of its data belong to no tensor`);
    }
    covered = end;
  }
}
