/** Some rows of a tensor, as a tensor of their own. Closing it leaves the whole one open. */
import { Inputs } from "./inputs.ts";
import { BLOCK_ROWS } from "./near_far.ts";
import type { RowRange, TensorInfo, TensorSource, Tile, TileOptions } from "./tensor.ts";

class RowSlice implements TensorSource {
  readonly info: TensorInfo;

  constructor(readonly whole: TensorSource, readonly range: RowRange) {
    const { info } = whole;
    const rows = range.end - range.start;
    const byteLength = info.rows > 0 ? info.byteLength / info.rows * rows : 0;
    this.info = { ...info, rows, firstRow: info.firstRow + range.start, byteLength };
  }

  async *tiles(tileRows: number, { range, ...options }: TileOptions = {}): AsyncIterable<Tile> {
    const { start } = this.range;
    const part = { start: start + (range?.start ?? 0), end: start + (range?.end ?? this.info.rows) };
    for await (const tile of this.whole.tiles(tileRows, { ...options, range: part })) {
      yield { ...tile, start: tile.start - start };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** The same rows of every tensor; a tensor that plays several roles stays one. */
export function sliceInputs({ q, k, v, weights, gaps }: Inputs, range: RowRange): Inputs {
  const slices = new Map<TensorSource, TensorSource>();
  const slice = (source: TensorSource) => {
    let part = slices.get(source);
    if (!part) slices.set(source, part = new RowSlice(source, range));
    return part;
  };
  return new Inputs(slice(q), slice(k), slice(v), weights && slice(weights), gaps?.fresh());
}

/** The middle of a long input; its beginning when causal, where the middle would lack its past. */
export function sliceOf(rows: number, most: number, causal: boolean): RowRange {
  if (rows <= most) return { start: 0, end: rows };
  const middle = Math.floor((rows - most) / 2);
  const start = causal ? 0 : middle - middle % BLOCK_ROWS;
  return { start, end: start + most };
}
