/** The tensors of one attention, read together in step. A tensor that plays several roles is read once. */
import { InputError } from "./errors.ts";
import type { FloatArray, Precision, RowRange, TensorSource, Tile } from "./tensor.ts";

/** Where the tiles of a source are delivered (`TileOptions.memory`); undefined: in memory of its own. */
export interface TileMemory {
  for(source: TensorSource): readonly FloatArray[] | undefined;
}

/** Tiles of the same rows. */
export interface KeyTiles {
  readonly k: Tile;
  readonly v: Tile;
  readonly weights?: FloatArray;
  /** Present when queries were asked for in step. */
  readonly q?: Tile;
}

export class Inputs {
  constructor(
    readonly q: TensorSource,
    readonly k: TensorSource,
    readonly v: TensorSource,
    /** One number per key row, or null. */
    readonly weights: TensorSource | null,
  ) {}

  /** Keys and values in step (and `queries`, for causal attention), of all rows or those of `range`. */
  async *tiles(
    tileRows: number,
    precision: Precision,
    queries: TensorSource | null,
    memory?: TileMemory,
    range?: RowRange,
  ): AsyncIterable<KeyTiles> {
    const roles = [this.k, this.v, ...(this.weights ? [this.weights] : []), ...(queries ? [queries] : [])];
    const sources = [...new Set(roles)];
    const iterators = sources.map((source) => {
      return source.tiles(tileRows, { precision, memory: memory?.for(source), range })[Symbol.asyncIterator]();
    });
    try {
      while (true) {
        const tiles = new Map<TensorSource, Tile>();
        for (const [i, iterator] of iterators.entries()) {
          const next = await iterator.next();
          if (next.done) return;
          requireFinite(sources[i], next.value);
          tiles.set(sources[i], next.value);
        }
        const weights = this.weights ? requireWeights(this.weights, tiles.get(this.weights)!) : undefined;
        const q = queries ? tiles.get(queries) : undefined;
        yield { k: tiles.get(this.k)!, v: tiles.get(this.v)!, weights, q };
      }
    } finally {
      for (const iterator of iterators) await iterator.return?.();
    }
  }

  /** Query tiles alone. They were checked with the keys when they are the same tensor. */
  async *queryTiles(
    tileRows: number,
    precision: Precision,
    memory?: TileMemory,
    range?: RowRange,
  ): AsyncIterable<Tile> {
    const checked = this.q === this.k || this.q === this.v;
    for await (const tile of this.q.tiles(tileRows, { precision, memory: memory?.for(this.q), range })) {
      if (!checked) requireFinite(this.q, tile);
      yield tile;
    }
  }
}

/** Throws InputError naming the first row with a NaN or an infinity. */
function requireFinite(source: TensorSource, tile: Tile): void {
  const { data } = tile;
  let probe = 0; // x · 0 is NaN for every x that is not finite
  for (let i = 0; i < data.length; i++) probe += data[i] * 0;
  if (probe === 0) return;
  const at = data.findIndex((value) => !Number.isFinite(value));
  const { path, name, firstRow, heads, width } = source.info;
  const row = firstRow + tile.start + Math.floor(at / tile.cols);
  const head = Math.floor((at % tile.cols) / width);
  throw new InputError(
    `Cannot use ${name ? `tensor "${name}" of ` : ""}"${path}": row ${row}` +
      `${heads > 1 ? `, head ${head}` : ""} holds ${data[at]}, expected finite numbers`,
  );
}

function requireWeights(source: TensorSource, tile: Tile): FloatArray {
  const at = tile.data.findIndex((value) => value < 0);
  if (at >= 0) {
    throw new InputError(
      `Cannot use mask "${source.info.path}": row ${source.info.firstRow + tile.start + at} is ${tile.data[at]}, ` +
        `expected 0 (masked) or a weight above 0`,
    );
  }
  return tile.data;
}
