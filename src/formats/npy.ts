/** NumPy's .npy, versions 1 to 3 (numpy/lib/format.py): magic, version, header length, header (npy_header.ts), elements. */
import type { ByteSource } from "../bytes.ts";
import { InputError, UsageError } from "../errors.ts";
import type { DType } from "../tensor.ts";
import type { Contents, Format, Frame, Frames, StoredTensor } from "./container.ts";
import { type NpyHeader, parseNpyHeader } from "./npy_header.ts";

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
/** Headers of plain arrays are near 100 bytes; only types that are refused anyway need more than this. */
export const MAX_NPY_HEADER = 65_536;

/** Our types as numpy writes them, which has no bfloat16. */
const CODES: Readonly<Record<Exclude<DType, "bf16">, string>> = {
  f16: "<f2",
  f32: "<f4",
  f64: "<f8",
  i8: "|i1",
  i16: "<i2",
  i32: "<i4",
  i64: "<i8",
  u8: "|u1",
  u16: "<u2",
  u32: "<u4",
  u64: "<u8",
  bool: "|b1",
};

const startsWithMagic = (head: Uint8Array) => MAGIC.every((byte, i) => head[i] === byte);

/**
 * The one array of a .npy at `start` of a source; `end` is where its bytes must stop at the latest (the source itself may
 * hold only the header). Throws InputError when it is none or is truncated.
 */
export async function readNpy(
  source: ByteSource,
  start: number,
  end: number,
  label: string,
): Promise<StoredTensor & { offset: number }> {
  const fixed = new Uint8Array(12);
  if (end - start < 12) {
    throw new InputError(`Cannot read ${label}: it is ${end - start} bytes long, too short for a .npy header`);
  }
  await source.read(fixed, start);
  if (!startsWithMagic(fixed)) throw new InputError(`Cannot read ${label}: it does not start as a .npy file does`);
  const view = new DataView(fixed.buffer);
  const version = fixed[6];
  if (version < 1 || version > 3) {
    throw new InputError(`Cannot read ${label}: .npy version ${version}.${fixed[7]}, expected 1, 2 or 3`);
  }
  const [length, begin] = version === 1 ? [view.getUint16(8, true), 10] : [view.getUint32(8, true), 12];
  if (length > MAX_NPY_HEADER || start + begin + length > end) {
    throw new InputError(
      `Cannot read ${label}: its header claims ${length} bytes, expected at most ${
        Math.min(MAX_NPY_HEADER, end - start - begin)
      }`,
    );
  }
  const bytes = new Uint8Array(length);
  await source.read(bytes, start + begin);
  const { dtype, typeName, itemSize, shape, order, littleEndian } = parsed(bytes, version, label);
  const offset = start + begin + length;
  const byteLength = shape.reduce((product, n) => product * n, itemSize);
  if (offset + byteLength > end) {
    throw new InputError(
      `Cannot read ${label}: it is truncated, shape [${shape.join(", ")}] of ${typeName} needs ${byteLength} bytes, ` +
        `${end - offset} are present`,
    );
  }
  return {
    name: "",
    dtype,
    typeName,
    shape,
    byteLength,
    order,
    littleEndian,
    offset,
    locate: async () => ({ source, offset }),
  };
}

function parsed(bytes: Uint8Array, version: number, label: string): NpyHeader {
  try {
    return parseNpyHeader(new TextDecoder(version === 3 ? "utf-8" : "latin1").decode(bytes));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new InputError(`Cannot read ${label}: ${error.message}`, { cause: error });
  }
}

/**
 * Magic, version and header of a C-order array as numpy writes them, padded so that the data starts at a multiple of 64. Throws UsageError
 * for bf16.
 */
export function npyHeader(dtype: DType, shape: readonly number[]): Uint8Array {
  if (dtype === "bf16") {
    throw new UsageError(
      "Cannot write bf16 for numpy, which has no such type: add --dtype f32, which keeps every number",
    );
  }
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const dict = `{'descr': '${CODES[dtype]}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const text = dict.padEnd(Math.ceil((10 + dict.length + 1) / 64) * 64 - 11) + "\n";
  const bytes = new Uint8Array(10 + text.length);
  bytes.set([...MAGIC, 1, 0, text.length & 255, text.length >> 8]);
  bytes.set(new TextEncoder().encode(text), 10);
  return bytes;
}

/** The .npy format: one tensor without a name. */
export const npy: Format = {
  name: "npy",
  suffix: ".npy",
  matches: startsWithMagic,
  async open(source): Promise<Contents> {
    const tensor = await readNpy(source, 0, source.byteLength, `"${source.path}"`);
    return { tensors: [tensor], metadata: {}, async [Symbol.asyncDispose]() {} };
  },
  frame(dtype, shape): Frame {
    return { head: () => npyHeader(dtype, shape), tail: () => new Uint8Array(), checksumFrom: null };
  },
  frames(tensors): Frames {
    if (tensors.length !== 1) {
      throw new UsageError(
        `Cannot write ${tensors.length} tensors as .npy, which holds one: choose one by --tensor, or write .safetensors or .npz`,
      );
    }
    const head = npyHeader(tensors[0].dtype, tensors[0].shape);
    return { order: [0], head: () => head, checksumFrom: () => null, tail: () => new Uint8Array() };
  },
};
