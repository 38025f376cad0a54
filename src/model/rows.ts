/** What is done to rows on the host, between dense layers: norms, token shift, rotation, sums. All rows are row-major. */
import type { FloatArray, Tile } from "../tensor.ts";
import type { Norm } from "./weights.ts";

/** Rows `rows × cols` as tiles of at most `tileRows` rows, without a copy. */
export function* tilesOf(data: FloatArray, rows: number, cols: number, tileRows: number): Generator<Tile> {
  for (let start = 0; start < rows; start += tileRows) {
    const count = Math.min(tileRows, rows - start);
    yield { start, rows: count, cols, data: data.subarray(start * cols, (start + count) * cols) };
  }
}

/** What `work` makes of every tile, the next one begun before one is used: turns 0 and 1 alternate. */
export async function* ahead<T>(
  tiles: Iterable<Tile>,
  work: (tile: Tile, turn: number) => Promise<T>,
): AsyncGenerator<T> {
  let before: Promise<T> | null = null;
  let turn = 0;
  for (const tile of tiles) {
    const next: Promise<T> = work(tile, turn);
    next.catch(() => {}); // reported when its turn comes
    turn = 1 - turn;
    if (before) yield await before;
    before = next;
  }
  if (before) yield await before;
}

/** Normalised rows of `x` into `out` (may be `x`): LayerNorm with the biased variance, RMSNorm, g x / max(‖x‖, 1e-5), or a copy. */
export function normalise(norm: Norm | null, x: FloatArray, out: FloatArray, rows: number, dim: number): void {
  if (norm === null || norm.kind === "rezero") {
    if (out !== x) out.set(x.subarray(0, rows * dim));
  } else if (norm.kind === "scale") {
    scaleNorm(norm.g, x, out, rows, dim);
  } else if (norm.kind === "rms") {
    rmsNorm(norm, x, out, rows, dim);
  } else {
    layerNorm(norm, x, out, rows, dim);
  }
}

function layerNorm(
  { weight, bias, epsilon }: Extract<Norm, { kind: "layer" }>,
  x: FloatArray,
  out: FloatArray,
  rows: number,
  dim: number,
): void {
  for (let row = 0; row < rows; row++) {
    const at = row * dim;
    let sum = 0;
    for (let c = 0; c < dim; c++) sum += x[at + c];
    const mean = sum / dim;
    let squares = 0;
    for (let c = 0; c < dim; c++) squares += (x[at + c] - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / dim + epsilon);
    for (let c = 0; c < dim; c++) out[at + c] = (x[at + c] - mean) * scale * weight[c] + bias[c];
  }
}

/** RMSNorm (arXiv 1910.07467): w x / √(mean x² + ε). */
function rmsNorm(
  { weight, epsilon }: Extract<Norm, { kind: "rms" }>,
  x: FloatArray,
  out: FloatArray,
  rows: number,
  dim: number,
): void {
  for (let row = 0; row < rows; row++) {
    const at = row * dim;
    let squares = 0;
    for (let c = 0; c < dim; c++) squares += x[at + c] ** 2;
    const scale = 1 / Math.sqrt(squares / dim + epsilon);
    for (let c = 0; c < dim; c++) out[at + c] = x[at + c] * scale * weight[c];
  }
}

/** PreScaleNorm of performer-pytorch; its ε bounds the norm, it is not added. */
function scaleNorm(g: number, x: FloatArray, out: FloatArray, rows: number, dim: number): void {
  for (let row = 0; row < rows; row++) {
    const at = row * dim;
    let squares = 0;
    for (let c = 0; c < dim; c++) squares += x[at + c] ** 2;
    const scale = g / Math.max(Math.sqrt(squares), 1e-5);
    for (let c = 0; c < dim; c++) out[at + c] = x[at + c] * scale;
  }
}

/** What a layer's output is multiplied by before it is added: g of ReZero, else 1. */
export function gainOf(norm: Norm | null): number {
  return norm?.kind === "rezero" ? norm.g : 1;
}

/** target += gain · tile, at the rows of the tile. */
export function addTile(target: FloatArray, { start, rows, cols, data }: Tile, gain: number): void {
  const at = start * cols;
  for (let i = 0; i < rows * cols; i++) target[at + i] += gain * data[i];
}

/**
 * PreShiftTokens of performer-pytorch, in place: the columns are cut in equal segments, (0, +1) when causal, else (−1, 0, +1);
 * segment s of row i comes from row i − shift. Rows beyond the ends are 0, and so are masked rows where they are shifted.
 */
export function shiftTokens(x: FloatArray, rows: number, dim: number, causal: boolean, mask: FloatArray | null): void {
  const shifts = causal ? [0, 1] : [-1, 0, 1];
  const width = Math.floor(dim / shifts.length);
  shifts.forEach((shift, segment) => {
    if (shift === 0) return;
    const from = segment * width;
    for (let step = 0; step < rows; step++) {
      const row = shift > 0 ? rows - 1 - step : step;
      const source = row - shift;
      const seen = source >= 0 && source < rows && (mask === null || mask[source] !== 0);
      for (let c = from; c < from + width; c++) x[row * dim + c] = seen ? x[source * dim + c] : 0;
    }
  });
}

/** Rotates pairs (2j, 2j + 1) of every head in place; `rowOf(p)` says where row p of a table is: d/2 sines, then d/2 cosines. */
export function rotateInterleaved(
  tile: Tile,
  headDim: number,
  rowOf: (p: number) => readonly [FloatArray, number],
): void {
  const half = headDim / 2;
  const { start, rows, cols, data } = tile;
  for (let row = 0; row < rows; row++) {
    const [table, angle] = rowOf(start + row);
    for (let head = row * cols; head < (row + 1) * cols; head += headDim) {
      for (let j = 0; j < half; j++) {
        const [sin, cos] = [table[angle + j], table[angle + half + j]];
        const [a, b] = [data[head + 2 * j], data[head + 2 * j + 1]];
        data[head + 2 * j] = a * cos - b * sin;
        data[head + 2 * j + 1] = b * cos + a * sin;
      }
    }
  }
}

/** Rotates pairs (j, j + d/2) of `headDim` numbers from `at` on by angles `position · frequency`, rounded as float32 does. */
export function rotateHalf(data: FloatArray, at: number, frequencies: FloatArray, position: number): void {
  const half = frequencies.length;
  for (let j = 0; j < half; j++) {
    const angle = Math.fround(position * frequencies[j]);
    const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
    const [a, b] = [data[at + j], data[at + half + j]];
    data[at + j] = a * cos - b * sin;
    data[at + half + j] = b * cos + a * sin;
  }
}

/** Rotates every head of a tile by the position of its row. */
export function rotateHalfTile({ start, rows, cols, data }: Tile, frequencies: FloatArray): void {
  const headDim = 2 * frequencies.length;
  for (let row = 0; row < rows; row++) {
    for (let at = row * cols; at < (row + 1) * cols; at += headDim) rotateHalf(data, at, frequencies, start + row);
  }
}

/** theta^{−2j/d} for j < d/2, as float32. */
export function frequenciesOf(headDim: number, theta = 10000): Float64Array {
  return Float64Array.from({ length: headDim / 2 }, (_, j) => Math.fround(1 / Math.fround(theta ** (2 * j / headDim))));
}
