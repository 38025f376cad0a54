/** Numbers as elements of an output type, rounded once, to the nearest with ties to even. */

/** Types that numbers can be converted to. */
export type FloatDType = "f16" | "bf16" | "f32" | "f64";

/** Elements of converted numbers as bytes, and how many finite numbers were too large and became infinite. */
export interface Encoded {
  readonly bytes: Uint8Array;
  readonly overflows: number;
}

/** The bytes of float64 numbers as `dtype`, little-endian. */
export function encode(numbers: Float64Array, dtype: FloatDType): Encoded {
  const values = dtype === "bf16"
    ? brainFloats(numbers)
    : new { f16: Float16Array, f32: Float32Array, f64: Float64Array }[dtype](numbers);
  return { bytes: new Uint8Array(values.buffer), overflows: overflowsOf(numbers, values) };
}

function overflowsOf(numbers: Float64Array, values: Uint16Array | Float16Array | Float32Array | Float64Array): number {
  let overflows = 0;
  const isInfinite = values instanceof Uint16Array
    ? (i: number) => (values[i] & 0x7fff) === 0x7f80
    : (i: number) => Math.abs(values[i]) === Infinity;
  for (let i = 0; i < numbers.length; i++) if (Number.isFinite(numbers[i]) && isInfinite(i)) overflows++;
  return overflows;
}

/**
 * The upper halves of float32, rounded. Rounding to float32 first would round twice, so its last bit is made odd where the
 * number was not exact (round to odd), which no tie survives.
 */
function brainFloats(numbers: Float64Array): Uint16Array {
  const single = new Float32Array(numbers);
  const words = new Uint32Array(single.buffer);
  return Uint16Array.from(numbers, (number, i) => {
    let word = words[i];
    if (Number.isNaN(number)) return 0x7fc0;
    if (single[i] !== number) {
      if (Math.abs(single[i]) > Math.abs(number)) word--; // towards zero
      word |= 1;
    }
    return (word + 0x7fff + (word >>> 16 & 1)) / 65536;
  });
}
