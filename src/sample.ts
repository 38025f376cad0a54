/** A few rows of keys, spread over the file or from its beginning: what parameters are fitted to. */
import type { Inputs } from "./inputs.ts";
import type { FloatArray, Precision, Tile } from "./tensor.ts";

/** Pieces a spread sample is read in: one place of a long file says little about the rest. */
const PIECES = 32;

/** Row ranges of a sample of about `rows` of `total` rows, in order, each at most `rows / PIECES` long. */
export function spread(total: number, rows: number): { start: number; end: number }[] {
  if (rows >= total) return [{ start: 0, end: total }];
  const pieces = Math.min(PIECES, rows);
  return Array.from({ length: pieces }, (_, p) => {
    const size = Math.floor(rows * (p + 1) / pieces) - Math.floor(rows * p / pieces);
    const start = Math.floor((total - size) * (p + 0.5) / pieces);
    return { start, end: start + size };
  });
}

export interface KeySample {
  readonly k: Tile;
  readonly v: Tile;
  readonly weights?: FloatArray;
}

/** Keys and values of the ranges, in one pass over the inputs and in memory of their own. */
export async function readSample(
  inputs: Inputs,
  ranges: readonly { start: number; end: number }[],
  tileRows: number,
  precision: Precision,
): Promise<KeySample> {
  const k: FloatArray[] = [], v: FloatArray[] = [], weights: number[] = [];
  const last = ranges.at(-1)?.end ?? 0;
  let rows = 0;
  for await (const tiles of inputs.tiles(tileRows, precision, null)) {
    const { start, rows: count } = tiles.k;
    for (const range of ranges) {
      const [from, to] = [Math.max(range.start, start), Math.min(range.end, start + count)];
      if (from >= to) continue;
      const part = ({ data, cols }: Tile) => data.slice((from - start) * cols, (to - start) * cols);
      k.push(part(tiles.k));
      v.push(part(tiles.v));
      if (tiles.weights) weights.push(...tiles.weights.subarray(from - start, to - start));
      rows += to - from;
    }
    if (start + count >= last) break;
  }
  const join = (parts: FloatArray[], width: number): Tile => {
    const data = precision === "f64" ? new Float64Array(rows * width) : new Float32Array(rows * width);
    let at = 0;
    for (const part of parts) {
      data.set(part, at);
      at += part.length;
    }
    return { start: 0, rows, cols: width, data };
  };
  return {
    k: join(k, inputs.k.info.heads * inputs.k.info.width),
    v: join(v, inputs.v.info.heads * inputs.v.info.width),
    weights: inputs.weights ? Float64Array.from(weights) : undefined,
  };
}
