/**
 * A second reading of .npy, .npz and .safetensors, written apart from src/formats and as plainly as can be: what the bytes say, for
 * judging what the program read. Where a file is unusual it has no opinion (null).
 */
import { inflateRawSync } from "node:zlib";
import type { DType } from "../../../src/tensor.ts";

/** One array: where element (i, j, …) stands is the sum of index × step. */
export interface Seen {
  readonly name: string;
  readonly dtype: DType;
  readonly littleEndian: boolean;
  readonly shape: readonly number[];
  readonly steps: readonly number[];
  /** Byte of element 0 in `bytes`. */
  readonly start: number;
  readonly bytes: Uint8Array;
}

/** A member of a zip as its directory lists it. */
export interface Packed {
  readonly name: string;
  readonly data: Uint8Array;
}

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
const latin1 = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");

/** numpy's letter and bytes as our name. */
const typeOf = (letter: string, size: number) => (letter === "b" ? "bool" : letter + 8 * size) as DType;

/** What a file holds, or null. */
export function secondReading(bytes: Uint8Array): Seen[] | null {
  try {
    if (latin1(bytes.subarray(0, 6)) === "\x93NUMPY") return [npyAt(bytes, "")];
    if (latin1(bytes.subarray(0, 2)) === "PK") {
      const arrays = unzipped(bytes).filter(({ name }) => name.endsWith(".npy"));
      return arrays.length === 0 ? null : arrays.map(({ name, data }) => npyAt(data, name.slice(0, -4)));
    }
    return bytes[8] === 0x7b ? safetensorsOf(bytes) : null;
  } catch {
    return null;
  }
}

function only(text: string, pattern: RegExp): RegExpMatchArray {
  const found = [...text.matchAll(pattern)];
  if (found.length !== 1) throw new Error("unusual");
  return found[0];
}

function npyAt(bytes: Uint8Array, name: string): Seen {
  const [length, begin] = bytes[6] === 1 ? [view(bytes).getUint16(8, true), 10] : [view(bytes).getUint32(8, true), 12];
  const text = latin1(bytes.subarray(begin, begin + length));
  const [, order, letter, size] = only(text, /'descr' *: *'([<>|])(?=f[248]|[iu][1248]|b1)(.)(.)'/g);
  const [, fortran] = only(text, /'fortran_order' *: *(True|False)/g);
  const [, sizes] = only(text, /'shape' *: *\(([\d, ]*)\)/g);
  const shape = sizes.split(",").filter((part) => part.trim() !== "").map(Number);
  const dtype = typeOf(letter, Number(size));
  if (shape.length > 64 || shape.some((size) => !Number.isSafeInteger(size))) throw new Error("unusual");
  const steps = fortran === "True" ? products(shape) : products([...shape].reverse()).reverse();
  return { name, dtype, littleEndian: order !== ">", shape, steps, start: begin + length, bytes };
}

/** 1, a, a·b, … */
const products = (sizes: readonly number[]) => sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a * b, 1));

function safetensorsOf(bytes: Uint8Array): Seen[] {
  const length = Number(view(bytes).getBigUint64(0, true));
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }> = JSON.parse(
    new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + length)),
  );
  return Object.entries(header).filter(([name]) => name !== "__metadata__").map(([name, entry]): Seen => ({
    name,
    dtype: entry.dtype.toLowerCase() as DType,
    littleEndian: true,
    shape: entry.shape,
    steps: products([...entry.shape].reverse()).reverse(),
    start: 8 + length + entry.data_offsets[0],
    bytes,
  }));
}

/** The members of a zip, the first `most` of them; throws for zip64 and whatever else is unusual. */
export function unzipped(bytes: Uint8Array, most = 1000): Packed[] {
  const all = view(bytes);
  const end = latin1(bytes).lastIndexOf("PK\x05\x06");
  if (end < 0) throw new Error("no end");
  let at = all.getUint32(end + 16, true);
  return Array.from({ length: Math.min(most, all.getUint16(end + 10, true)) }, () => {
    const [method, packed, size, start] = [
      all.getUint16(at + 10, true),
      all.getUint32(at + 20, true),
      all.getUint32(at + 24, true),
      all.getUint32(at + 42, true),
    ];
    if (all.getUint32(at, true) !== 0x02014b50 || [packed, size, start].includes(0xffffffff)) {
      throw new Error("unusual");
    }
    const nameLength = all.getUint16(at + 28, true);
    const name = Buffer.from(bytes.subarray(at + 46, at + 46 + nameLength)).toString("utf8");
    const from = start + 30 + all.getUint16(start + 26, true) + all.getUint16(start + 28, true);
    const raw = bytes.subarray(from, from + packed);
    const data = method === 0 ? raw : new Uint8Array(inflateRawSync(raw, { maxOutputLength: 2 ** 24 }));
    if (raw.length !== packed || data.length !== size) throw new Error("unusual");
    at += 46 + nameLength + all.getUint16(at + 30, true) + all.getUint16(at + 32, true);
    return { name, data };
  });
}

/** Bytes of one element. */
export const itemBytes = (dtype: DType): number =>
  dtype === "bool" ? 1 : dtype === "bf16" ? 2 : Number(dtype.slice(1)) / 8;

/** The number at a byte of `bytes`, through nothing but DataView. */
function numberAt(bytes: DataView, at: number, dtype: DType, littleEndian: boolean): number {
  switch (dtype) {
    case "f16": {
      const bits = bytes.getUint16(at, littleEndian);
      const [exponent, fraction] = [bits >> 10 & 31, bits & 1023];
      const size = exponent === 31
        ? fraction === 0 ? Infinity : NaN
        : exponent === 0
        ? fraction * 2 ** -24
        : (1024 + fraction) * 2 ** (exponent - 25);
      return bits >> 15 ? -size : size;
    }
    case "bf16":
      return Buffer.from([0, 0, bytes.getUint16(at, littleEndian) & 255, bytes.getUint16(at, littleEndian) >> 8])
        .readFloatLE();
    case "f32":
      return bytes.getFloat32(at, littleEndian);
    case "f64":
      return bytes.getFloat64(at, littleEndian);
    case "i64":
      return Number(bytes.getBigInt64(at, littleEndian));
    case "u64":
      return Number(bytes.getBigUint64(at, littleEndian));
    case "i32":
      return bytes.getInt32(at, littleEndian);
    case "u32":
      return bytes.getUint32(at, littleEndian);
    case "i16":
      return bytes.getInt16(at, littleEndian);
    case "u16":
      return bytes.getUint16(at, littleEndian);
    case "i8":
      return bytes.getInt8(at);
    case "u8":
      return bytes.getUint8(at);
    case "bool":
      return bytes.getUint8(at) === 0 ? 0 : 1;
  }
}

/** All elements in C order, one by one: their numbers, and their bytes turned to little-endian. */
export function elementsOf({ dtype, littleEndian, shape, steps, start, bytes }: Omit<Seen, "name">) {
  const size = itemBytes(dtype);
  const count = shape.reduce((a, b) => a * b, 1);
  const numbers = new Float64Array(count);
  const raw = new Uint8Array(count * size);
  const data = view(bytes);
  const index = shape.map(() => 0);
  for (let i = 0; i < count; i++) {
    const at = start + size * index.reduce((sum, n, axis) => sum + n * steps[axis], 0);
    numbers[i] = numberAt(data, at, dtype, littleEndian);
    for (let j = 0; j < size; j++) raw[i * size + j] = bytes[at + (littleEndian ? j : size - 1 - j)];
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
  }
  return { numbers, raw };
}
