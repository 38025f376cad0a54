/** NumPy's .npy, versions 1 to 3 (numpy/lib/format.py). The header is a Python dict literal; only literals are read, nothing is run. */
import type { ByteSource } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { type DType, DTYPE_BYTES } from "../tensor.ts";
import type { Contents, Format, Frame, StoredTensor } from "./container.ts";

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const MAX_HEADER = 1 << 20;

const TYPES: Readonly<Record<string, DType>> = {
  f2: "f16",
  f4: "f32",
  f8: "f64",
  i1: "i8",
  i2: "i16",
  i4: "i32",
  i8: "i64",
  u1: "u8",
  u2: "u16",
  u4: "u32",
  u8: "u64",
  b1: "bool",
};
const CODES: Readonly<Record<string, string>> = { f16: "<f2", f32: "<f4", f64: "<f8" };

const startsWithMagic = (head: Uint8Array) => MAGIC.every((byte, i) => head[i] === byte);

/** The one array of a .npy at `start` of a source; `end` is where its bytes must stop at the latest. */
export async function readNpy(source: ByteSource, start: number, end: number, label: string): Promise<StoredTensor & { offset: number }> {
  const fixed = new Uint8Array(12);
  if (end - start < 12) throw new InputError(`Cannot read ${label}: it is ${end - start} bytes long, too short for a .npy header`);
  await source.read(fixed, start);
  if (!startsWithMagic(fixed)) throw new InputError(`Cannot read ${label}: it does not start as a .npy file does`);
  const view = new DataView(fixed.buffer);
  const version = fixed[6];
  if (version < 1 || version > 3) {
    throw new InputError(`Cannot read ${label}: .npy version ${version}.${fixed[7]}, expected 1, 2 or 3`);
  }
  const [length, begin] = version === 1 ? [view.getUint16(8, true), 10] : [view.getUint32(8, true), 12];
  if (length > MAX_HEADER || start + begin + length > end) {
    throw new InputError(`Cannot read ${label}: its header claims ${length} bytes, more than there are`);
  }
  const bytes = new Uint8Array(length);
  await source.read(bytes, start + begin);
  const header = parseHeader(new TextDecoder(version === 3 ? "utf-8" : "latin1").decode(bytes), label);
  const dtype = TYPES[header.descr.slice(1)] ?? null;
  const size = dtype ? DTYPE_BYTES[dtype] : Number(/\d+$/.exec(header.descr)?.[0] ?? 0) || 1;
  const count = header.shape.reduce((product, n) => product * n, 1);
  if (!Number.isSafeInteger(count * size)) throw new InputError(`Cannot read ${label}: shape [${header.shape.join(", ")}] is too large`);
  const offset = start + begin + length;
  if (dtype && offset + count * size > end) {
    throw new InputError(
      `Cannot read ${label}: it is truncated, shape [${header.shape.join(", ")}] of ${dtype} needs ${count * size} bytes, ` +
        `${end - offset} are present`,
    );
  }
  return {
    name: "",
    dtype,
    typeName: dtype ?? header.descr.replace(/^[|<>=]/, ""),
    shape: header.shape,
    byteLength: count * size,
    order: header.fortran ? "F" : "C",
    littleEndian: header.descr[0] !== ">",
    offset,
    locate: async () => ({ source, offset }),
  };
}

/** `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }` */
function parseHeader(text: string, label: string): { descr: string; fortran: boolean; shape: number[] } {
  const broken = (what: string) => new InputError(`Cannot read ${label}: its header has ${what}: ${JSON.stringify(text.trim().slice(0, 80))}`);
  const structured = /'descr'\s*:\s*\[/.test(text);
  if (structured) throw new InputError(`Cannot read ${label}: it holds records with fields, expected plain numbers`);
  const descr = /'descr'\s*:\s*'([^']{1,32})'/.exec(text)?.[1];
  const fortran = /'fortran_order'\s*:\s*(True|False)/.exec(text)?.[1];
  const shape = /'shape'\s*:\s*\(([\d\s,L]*)\)/.exec(text)?.[1];
  if (!descr || !/^[|<>=]?[a-zA-Z]\d*/.test(descr)) throw broken("no element type");
  if (!fortran) throw broken("no fortran_order");
  if (shape === undefined) throw broken("no shape");
  const sizes = shape.split(",").map((part) => part.trim().replace(/L$/, "")).filter((part) => part !== "").map(Number);
  if (sizes.length > 32 || sizes.some((size) => !Number.isSafeInteger(size))) throw broken("an impossible shape");
  return { descr: /^[|<>=]/.test(descr) ? descr : `=${descr}`, fortran: fortran === "True", shape: sizes };
}

/** Magic, version and header of a C-order array, padded so that the data starts at a multiple of 64. */
export function npyHeader(dtype: "f16" | "f32" | "f64", shape: readonly number[]): Uint8Array {
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const dict = `{'descr': '${CODES[dtype]}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const text = dict.padEnd(Math.ceil((10 + dict.length + 1) / 64) * 64 - 11) + "\n";
  const bytes = new Uint8Array(10 + text.length);
  bytes.set([...MAGIC, 1, 0, text.length & 255, text.length >> 8]);
  bytes.set(new TextEncoder().encode(text), 10);
  return bytes;
}

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
};
