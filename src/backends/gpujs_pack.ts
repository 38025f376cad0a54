/**
 * Copies of one head of a tile in the layouts of kernels/gpujs/product.gpu.js. Buffers are reused: what a tile does not fill
 * is zeroed, and so are rows of weight 0, so that whatever they hold (NaN included) has no effect.
 */
import type { FloatArray, Tile } from "../tensor.ts";

/** Rows as quads, `⌈rows/4⌉ × depth × 4`: the left factor. Each number is multiplied by `scale`. */
export function packQuads(
  tile: Tile,
  head: number,
  width: number,
  scale: number,
  depth: number,
  into: Float32Array,
): void {
  into.fill(0, (tile.rows >> 2) * depth * 4);
  for (let i = 0; i < tile.rows; i++) {
    let to = (i >> 2) * depth * 4 + (i & 3);
    for (let from = i * tile.cols + head * width, end = from + width; from < end; from++, to += 4) {
      into[to] = tile.data[from] * scale;
    }
  }
}

/** Columns, `chunks × depth × rows`, transposed chunk by chunk: the right factor. `depth` rows of it beyond `width` stay 0. */
export function packColumns(
  tile: Tile,
  head: number,
  width: number,
  scale: number,
  depth: number,
  rows: number,
  into: Float32Array,
  weights?: FloatArray,
): void {
  into.fill(0);
  for (let i = 0; i < tile.rows; i++) {
    if (weights && !(weights[i] > 0)) continue;
    const j = i % rows;
    let to = (i - j) * depth + j;
    for (let from = i * tile.cols + head * width, end = from + width; from < end; from++, to += rows) {
      into[to] = tile.data[from] * scale;
    }
  }
}

/** Rows of values and a 1, `rows × stride`: sums of the last column are z. */
export function packValues(
  tile: Tile,
  head: number,
  width: number,
  stride: number,
  into: Float32Array,
  weights?: FloatArray,
): void {
  into.fill(0);
  for (let i = 0; i < tile.rows; i++) {
    if (weights && !(weights[i] > 0)) continue;
    const from = i * tile.cols + head * width;
    const to = i * stride;
    for (let c = 0; c < width; c++) into[to + c] = tile.data[from + c];
    into[to + width] = 1;
  }
}

/** Quads of feature rows `chunks × quads × rows × 4` into plain `chunks × (4·quads) × rows`: a left factor becomes a right one. */
export function quadsToRows(quads: Float32Array, chunks: number, rows: number, into: Float32Array): void {
  const perChunk = into.length / chunks / rows / 4;
  for (let group = 0; group < chunks * perChunk; group++) {
    const base = group * rows * 4;
    for (let j = 0; j < rows; j++) {
      const from = base + j * 4;
      into[base + j] = quads[from];
      into[base + rows + j] = quads[from + 1];
      into[base + 2 * rows + j] = quads[from + 2];
      into[base + 3 * rows + j] = quads[from + 3];
    }
  }
}
