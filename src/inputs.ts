/** The tensors of one attention, read together in step. A tensor that plays several roles is read once. */
import type { Sizes } from "./attention.ts";
import { InputError } from "./errors.ts";
import { allFinite, type Gaps, Ones } from "./gaps.ts";
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

interface Passing {
  readonly tileRows: number;
  readonly precision: Precision;
  readonly memory?: TileMemory;
  readonly range?: RowRange;
  /** Every number is known to be finite, every weight to be none below 0. */
  readonly checked: boolean;
}

/** Bytes of the elements of sources, each once. */
export const bytesOf = (sources: readonly TensorSource[]): number =>
  [...new Set(sources)].reduce((sum, source) => sum + source.info.byteLength, 0);

/** What reports say of inputs before anything of them is read. */
export function inputFacts(
  { q, k, v }: Inputs,
  { queryRows: rows, keyRows, heads, kvHeads, headDim, valueDim }: Sizes,
) {
  const { path, dtype } = q.info;
  return { path, rows, keyRows, heads, kvHeads, headDim, valueDim, dtype, bytes: bytesOf([q, k, v]) };
}

/** Queries, keys, values and weights as sources. */
export class Inputs {
  /** One number per key row, or null. */
  readonly weights: TensorSource | null;

  /** @param gaps what becomes of rows with NaN or infinity; null: they are an InputError */
  constructor(
    readonly q: TensorSource,
    readonly k: TensorSource,
    readonly v: TensorSource,
    weights: TensorSource | null,
    readonly gaps: Gaps | null = null,
  ) {
    this.weights = weights ?? (gaps?.policy === "skip" ? new Ones(k) : null);
  }

  /** Whether key rows have weights of their own. */
  get masked(): boolean {
    return this.weights !== null && !(this.weights instanceof Ones);
  }

  /** Keys, values and weights, each source once. */
  get keySources(): TensorSource[] {
    return [...new Set([this.k, this.v, ...(this.weights ? [this.weights] : [])])];
  }

  /** Keys and values in step (and `queries`, for causal attention), of all rows or those of `range`. */
  tiles(
    tileRows: number,
    precision: Precision,
    queries: TensorSource | null,
    memory?: TileMemory,
    range?: RowRange,
  ): AsyncIterable<KeyTiles> {
    return this.#tiles(queries, { tileRows, precision, memory, range, checked: false });
  }

  /** Keys and values that `tiles` has delivered before, which were checked then. */
  tilesAgain(tileRows: number, precision: Precision, memory: TileMemory, range: RowRange): AsyncIterable<KeyTiles> {
    return this.#tiles(null, { tileRows, precision, memory, range, checked: true });
  }

  /** Keys and their weights alone. */
  async *keyTiles(
    tileRows: number,
    precision: Precision,
    range?: RowRange,
  ): AsyncIterable<Pick<KeyTiles, "k" | "weights">> {
    // Rows whose values make them be skipped are skipped here too.
    const beside = this.gaps?.policy === "skip" ? [this.v] : [];
    const sources = [this.k, ...beside, ...(this.weights ? [this.weights] : [])];
    for await (const tiles of this.#together(sources, { tileRows, precision, range, checked: false })) {
      yield { k: tiles.get(this.k)!, weights: this.weights ? tiles.get(this.weights)!.data : undefined };
    }
  }

  /** Values alone, which is all that no attention at all reads. */
  async *valueTiles(
    tileRows: number,
    precision: Precision,
    memory: TileMemory,
    range?: RowRange,
  ): AsyncIterable<Tile> {
    for await (const tile of this.v.tiles(tileRows, { precision, memory: memory.for(this.v), range })) {
      if (this.gaps) this.gaps.mendQueries(this.v, tile); // row i answers row i
      else requireFinite(this.v, tile);
      yield tile;
    }
  }

  async *#tiles(queries: TensorSource | null, passing: Passing): AsyncIterable<KeyTiles> {
    const sources = [...this.keySources, ...(queries ? [queries] : [])];
    for await (const tiles of this.#together(sources, passing)) {
      const weights = this.weights ? tiles.get(this.weights)!.data : undefined;
      const q = queries ? tiles.get(queries) : undefined;
      yield { k: tiles.get(this.k)!, v: tiles.get(this.v)!, weights, q };
    }
  }

  /** The same rows of several sources. */
  async *#together(
    roles: readonly TensorSource[],
    { tileRows, precision, memory, range, checked }: Passing,
  ): AsyncIterable<Map<TensorSource, Tile>> {
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
          if (!checked && (!this.gaps || sources[i] === this.weights)) requireFinite(sources[i], next.value);
          if (!checked && sources[i] === this.weights) requireWeights(this.weights, next.value);
          tiles.set(sources[i], next.value);
        }
        this.#mend(tiles);
        yield tiles;
      }
    } finally {
      for (const iterator of iterators) await iterator.return?.();
    }
  }

  /** Deals with rows that are not finite, where they are no error. */
  #mend(tiles: ReadonlyMap<TensorSource, Tile>): void {
    if (!this.gaps) return;
    const torn = [...tiles].filter(([source, { data }]) => source !== this.weights && !allFinite(data));
    for (const [source, tile] of torn) if (source === this.q) this.gaps.noteQueries(source, tile);
    const keys = torn.filter(([source]) => source === this.k || source === this.v);
    this.gaps.mendKeys(keys, this.weights ? tiles.get(this.weights)?.data : undefined);
    for (const [source, tile] of torn) if (!keys.some(([key]) => key === source)) this.gaps.mendQueries(source, tile);
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
      if (this.gaps) this.gaps.mendQueries(this.q, tile);
      else if (!checked) requireFinite(this.q, tile);
      yield tile;
    }
  }
}

/** Throws InputError naming the first row with a NaN or an infinity. */
function requireFinite(source: TensorSource, tile: Tile): void {
  const { data } = tile;
  if (allFinite(data)) return;
  const at = data.findIndex((value) => !Number.isFinite(value));
  const { path, name, firstRow, heads, width } = source.info;
  const row = firstRow + tile.start + Math.floor(at / tile.cols);
  const head = Math.floor((at % tile.cols) / width);
  throw new InputError(
    `Cannot use ${name ? `tensor "${name}" of ` : ""}"${path}": row ${row}` +
      `${heads > 1 ? `, head ${head}` : ""} holds ${data[at]}, expected finite numbers (attend has --on-nan skip)`,
  );
}

function requireWeights(source: TensorSource, tile: Tile): void {
  const at = tile.data.findIndex((value) => value < 0);
  if (at >= 0) {
    throw new InputError(
      `Cannot use mask "${source.info.path}": row ${source.info.firstRow + tile.start + at} is ${tile.data[at]}, ` +
        `expected 0 (masked) or a weight above 0`,
    );
  }
}
