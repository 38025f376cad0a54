/** Elements of files as floats, and floats as elements of files. */
import { Buffer } from "node:buffer";
import { type DType, DTYPE_BYTES, type FloatArray } from "../tensor.ts";

/** Types that a tensor can be written in. */
export type OutputDType = "f16" | "f32" | "f64" | "i32";

let halves: Float32Array | undefined;

/** The value of each of the 65,536 half floats: a table is faster than Float16Array where that is not compiled well. */
function halfTable(): Float32Array {
  return halves ??= new Float32Array(new Float16Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer));
}

/**
 * Decodes the `count` elements at the start of `raw`, which must be aligned to 8 bytes, into `into[at …]`. Big-endian
 * bytes are swapped in place. Integers beyond 2^53 round to float64, then to the width of `into`.
 */
export function decode(
  raw: Uint8Array,
  dtype: DType,
  littleEndian: boolean,
  count: number,
  into: FloatArray,
  at: number,
): void {
  if (!littleEndian) swap(raw.subarray(0, count * DTYPE_BYTES[dtype]), DTYPE_BYTES[dtype]);
  const { buffer, byteOffset } = raw;
  switch (dtype) {
    case "f32":
      return into.set(new Float32Array(buffer, byteOffset, count), at);
    case "f64":
      return into.set(new Float64Array(buffer, byteOffset, count), at);
    case "i8":
      return into.set(new Int8Array(buffer, byteOffset, count), at);
    case "u8":
      return into.set(raw.subarray(0, count), at);
    case "i16":
      return into.set(new Int16Array(buffer, byteOffset, count), at);
    case "u16":
      return into.set(new Uint16Array(buffer, byteOffset, count), at);
    case "i32":
      return into.set(new Int32Array(buffer, byteOffset, count), at);
    case "u32":
      return into.set(new Uint32Array(buffer, byteOffset, count), at);
    case "bool":
      for (let i = 0; i < count; i++) into[at + i] = raw[i] === 0 ? 0 : 1;
      return;
    case "f16": {
      const table = halfTable();
      const bits = new Uint16Array(buffer, byteOffset, count);
      for (let i = 0; i < count; i++) into[at + i] = table[bits[i]];
      return;
    }
    case "bf16":
      return decodeBrainFloats(new Uint16Array(buffer, byteOffset, count), into, at);
    case "i64":
    case "u64": {
      // Two exact halves and one rounding: the same number as Number(bigint), several times faster.
      const low = new Uint32Array(buffer, byteOffset, 2 * count);
      const high = dtype === "i64" ? new Int32Array(buffer, byteOffset, 2 * count) : low;
      for (let i = 0; i < count; i++) into[at + i] = high[2 * i + 1] * 4294967296 + low[2 * i];
      return;
    }
  }
}

function decodeBrainFloats(bits: Uint16Array, into: FloatArray, at: number): void {
  const direct = into instanceof Float32Array;
  const values = direct ? into : new Float32Array(bits.length);
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const start = direct ? at : 0;
  for (let i = 0; i < bits.length; i++) words[start + i] = bits[i] << 16;
  if (!direct) into.set(values, at);
}

/** Turns the bytes of every element around, in place. */
export function swap(bytes: Uint8Array, size: number): void {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (size === 2) view.swap16();
  else if (size === 4) view.swap32();
  else if (size === 8) view.swap64();
}

/** Room for `count` elements of an output type, and the same memory as bytes. */
export function elements(
  dtype: OutputDType,
  count: number,
): { values: Float16Array | FloatArray | Int32Array; bytes: Uint8Array } {
  const values = new { f16: Float16Array, f32: Float32Array, f64: Float64Array, i32: Int32Array }[dtype](count);
  return { values, bytes: new Uint8Array(values.buffer) };
}
