/** All elements of a tensor of any layout, in C order and piece by piece: its very bytes, or its numbers. */
import { CHUNK } from "../bytes.ts";
import { type DType, DTYPE_BYTES } from "../tensor.ts";
import { swap } from "./decode.ts";
import { type Placement, readBlock } from "./strided.ts";
import { type Axis, strides } from "./view.ts";

/** Elements of a piece: enough that a transposed matrix is read in runs of some length. */
const PIECE = 2 ** 20;

/** The elements as bytes, little-endian. Every piece is whole elements and is borrowed until the next is asked for. */
export async function* rawPieces(
  placement: Placement,
  shape: readonly number[],
  steps: readonly number[],
): AsyncGenerator<Uint8Array> {
  const size = DTYPE_BYTES[placement.dtype];
  const pieces = isDense(shape, steps) ? densePieces(placement, shape) : gatheredPieces(placement, shape, steps);
  for await (const piece of pieces) {
    if (!placement.littleEndian) swap(piece, size);
    yield piece;
  }
}

/** The elements as numbers. Pieces are borrowed until the next is asked for. */
export async function* numberPieces(
  placement: Placement,
  shape: readonly number[],
  steps: readonly number[],
): AsyncGenerator<Float64Array> {
  const memory = new Float64Array(Math.min(PIECE, sizeOf(shape)));
  const size = DTYPE_BYTES[placement.dtype];
  for (const { first, axes, count } of blocks(shape, steps)) {
    const into = memory.subarray(0, count);
    await readBlock({ ...placement, offset: placement.offset + first * size }, axes, into);
    yield into;
  }
}

const sizeOf = (shape: readonly number[]) => shape.reduce((product, n) => product * n, 1);

const isDense = (shape: readonly number[], steps: readonly number[]) =>
  strides(shape, "C").every((step, i) => shape[i] <= 1 || steps[i] === step);

async function* densePieces({ source, offset, dtype }: Placement, shape: readonly number[]) {
  const end = offset + sizeOf(shape) * DTYPE_BYTES[dtype];
  const memory = new Uint8Array(Math.min(CHUNK, end - offset));
  for (let at = offset; at < end; at += CHUNK) {
    const piece = memory.subarray(0, Math.min(CHUNK, end - at));
    await source.read(piece, at);
    if (at + CHUNK >= end) await source.unchanged?.();
    yield piece;
  }
}

/**
 * Elements from anywhere, as unsigned integers of at most 4 bytes (a float64 is two of them): they pass through float64
 * unchanged, which the bits of a signalling NaN would not.
 */
async function* gatheredPieces(placement: Placement, shape: readonly number[], steps: readonly number[]) {
  const size = DTYPE_BYTES[placement.dtype];
  const parts = size === 8 ? 2 : 1;
  const kind = ({ 1: "u8", 2: "u16", 4: "u32", 8: "u32" } as const)[size as 1 | 2 | 4 | 8] satisfies DType;
  const words = new { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array }[kind](
    Math.min(PIECE, parts * sizeOf(shape)),
  );
  const wide = parts === 1 ? { shape, steps } : { shape: [...shape, 2], steps: [...steps.map((step) => 2 * step), 1] };
  for await (const numbers of numberPieces({ ...placement, dtype: kind, littleEndian: true }, wide.shape, wide.steps)) {
    words.set(numbers);
    yield new Uint8Array(words.buffer, 0, numbers.length * words.BYTES_PER_ELEMENT);
  }
}

/** A tensor cut into blocks of at most PIECE elements that follow each other in C order. */
function* blocks(
  shape: readonly number[],
  steps: readonly number[],
): Generator<{ first: number; axes: Axis[]; count: number }> {
  if (shape.includes(0)) return;
  // Axis `cut` is taken in parts, those within whole, those around one index at a time.
  let cut = shape.length;
  let inner = 1;
  while (cut > 0 && inner * shape[cut - 1] <= PIECE) inner *= shape[--cut];
  cut--;
  const whole = shape.slice(cut + 1).map((size, i): Axis => ({ role: "col", size, stride: steps[cut + 1 + i] }));
  if (cut < 0) return yield { first: 0, axes: whole, count: inner };
  const most = Math.floor(PIECE / inner);
  const index = new Array<number>(cut).fill(0);
  for (let around = true; around;) {
    const base = index.reduce((sum, i, axis) => sum + i * steps[axis], 0);
    for (let i = 0; i < shape[cut]; i += most) {
      const size = Math.min(most, shape[cut] - i);
      const axes: Axis[] = [{ role: "col", size, stride: steps[cut] }, ...whole];
      yield { first: base + i * steps[cut], axes, count: size * inner };
    }
    around = false;
    for (let axis = cut - 1; axis >= 0; axis--) {
      if (++index[axis] < shape[axis]) {
        around = true;
        break;
      }
      index[axis] = 0;
    }
  }
}
