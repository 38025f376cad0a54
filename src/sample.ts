/** A few rows of keys: what centroids and centres are fitted to. */
import { rangesOf } from "./fit.ts";
import type { ParamsSource } from "./fitted.ts";
import type { Inputs } from "./inputs.ts";
import { type FloatArray, floats, type Precision, type Tile } from "./tensor.ts";

export interface KeySample {
  readonly k: Tile;
  readonly weights?: FloatArray;
}

/** Keys of a source's rows, read at most `tileRows` at a time, in memory of their own. */
export async function readKeys(
  inputs: Inputs,
  source: ParamsSource,
  tileRows: number,
  precision: Precision,
): Promise<KeySample> {
  const { rows: total, heads, width } = inputs.k.info;
  const ranges = rangesOf(source, total);
  const rows = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  const cols = heads * width;
  const data = floats(precision, rows * cols);
  const weights = inputs.weights ? new Float64Array(rows) : undefined;
  let at = 0;
  for (const range of ranges) {
    const most = Math.min(tileRows, range.end - range.start);
    for await (const { k, weights: own } of inputs.keyTiles(most, precision, range)) {
      data.set(k.data.subarray(0, k.rows * cols), at * cols);
      if (own) weights?.set(own.subarray(0, k.rows), at);
      at += k.rows;
    }
  }
  return { k: { start: 0, rows, cols, data }, weights };
}
