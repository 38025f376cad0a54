/** Some rows of a tensor, as a tensor of their own. Closing it leaves the whole one open. */
import { Inputs } from "./inputs.ts";
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
export function sliceInputs({ q, k, v, weights }: Inputs, range: RowRange): Inputs {
  const slices = new Map<TensorSource, TensorSource>();
  const slice = (source: TensorSource) => {
    let part = slices.get(source);
    if (!part) slices.set(source, part = new RowSlice(source, range));
    return part;
  };
  return new Inputs(slice(q), slice(k), slice(v), weights && slice(weights));
}
