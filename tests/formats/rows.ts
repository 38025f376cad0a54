/** Single rows of a source, for tests. */
import { floats, type Precision, type TensorSource, type Tile } from "../../src/tensor.ts";

/** Reads single rows (sorted or not) of a source into one tile: `rows.length × cols`; `start` is 0. */
export async function gatherRows(source: TensorSource, rows: ArrayLike<number>, precision: Precision): Promise<Tile> {
  const cols = source.info.heads * source.info.width;
  const data = floats(precision, rows.length * cols);
  for (let i = 0; i < rows.length; i++) {
    const range = { start: rows[i], end: rows[i] + 1 };
    for await (const tile of source.tiles(1, { range, precision })) data.set(tile.data, i * cols);
  }
  return { start: 0, rows: rows.length, cols, data };
}
