/** Keys and values around tiles of queries, read once into memory that calls in flight use in place. */
import type { KeyRows } from "./backend.ts";
import type { Inputs, KeyTiles, TileMemory } from "./inputs.ts";
import { type NearFarPlan, nearRows } from "./near_far.ts";
import type { FloatArray, Precision, RowRange, TensorSource, Tile } from "./tensor.ts";

/** Rows that tiles of queries have near, besides as many as they are. */
export interface Reach {
  readonly behind: number;
  readonly ahead: number;
}

/** How far near rows reach, or null where queries have none. */
export function reachOf({ window, exactRows, causal }: NearFarPlan): Reach | null {
  if (window === 0 && !causal) return null;
  const around = Math.max(0, window - 1);
  return { behind: Math.max(around, exactRows), ahead: causal ? 0 : around };
}

/** Rows of one tensor that a frame holds, when tiles have `tileRows` rows. */
export const frameRows = (tileRows: number, { behind, ahead }: Reach): number => tileRows + behind + ahead;

/** Most bytes of keys, and of values, that one call may have near. */
const NEAR_BYTES = 512 << 20;

/** What is too much of rows near a tile, as the end of "Cannot use …", or null; `cols`: of keys or of values. */
export function nearExcess(
  { window, exactRows, tileRows, clusters }: NearFarPlan,
  reach: Reach,
  keyRows: number,
  cols: number,
  precision: Precision,
): string | null {
  const bytes = frameRows(Math.min(tileRows, keyRows), reach) * cols * (precision === "f64" ? 8 : 4);
  if (bytes <= NEAR_BYTES) return null;
  const [what, less] = exactRows >= window
    ? [`${clusters?.count} clusters with --causal`, "fewer clusters"]
    : [`--window ${window}`, "a smaller window"];
  return `${what}: the keys near a tile take ${Math.ceil(bytes / 2 ** 20)} MiB, at most ${
    NEAR_BYTES / 2 ** 20
  } are taken; ` +
    `use ${less}, or --features softmax for exact attention`;
}

/** Arrays of `frameRows` rows of a source (of tiles no longer than the source), one more than calls may be in flight. */
export interface FrameMemory {
  frames(source: TensorSource): readonly FloatArray[];
}

/**
 * Reads keys and values in tiles, each into a frame behind the rows of the frame before that are still near: a tile is read to where
 * kernels use it, and only the rows that two tiles share are copied.
 *
 *     frame of tile t:   [ behind + ahead rows of frame t − 1 | rows t·T + ahead … (t + 1)·T + ahead − 1 ]
 */
export class NearReader implements AsyncDisposable, TileMemory {
  /** Tile of the current frame. */
  #tile: number;
  /** The first frame has its rows of the frames before. */
  #begun = false;
  /** Rows read so far. */
  #end = 0;
  readonly #tiles: AsyncIterator<KeyTiles>;
  readonly #sources: readonly TensorSource[];

  /**
   * @param others where tiles of queries go when they are read in step (causal attention); null: keys and values were checked when
   * they passed before, and queries are read elsewhere
   * @param first the first tile of queries
   */
  constructor(
    readonly inputs: Inputs,
    readonly plan: NearFarPlan,
    readonly reach: Reach,
    readonly precision: Precision,
    readonly memory: FrameMemory,
    readonly others: TileMemory | null,
    readonly first = 0,
  ) {
    const { rows } = inputs.k.info;
    this.#tile = first;
    this.#sources = inputs.keySources;
    const range = { start: Math.min(first * plan.tileRows + reach.ahead, rows), end: rows };
    const tiles = others
      ? inputs.tiles(plan.tileRows, precision, inputs.q, this, range)
      : inputs.tilesAgain(plan.tileRows, precision, this, range);
    this.#tiles = tiles[Symbol.asyncIterator]();
  }

  /** Row that a frame would begin with if there were rows before the first. */
  #frameStart(tile: number): number {
    return tile * this.plan.tileRows - this.reach.behind;
  }

  /** Rows of the first frame that others would have read. */
  get #before(): RowRange {
    const start = this.#frameStart(this.first), { behind, ahead } = this.reach;
    return { start: Math.max(0, start), end: Math.min(start + behind + ahead, this.inputs.k.info.rows) };
  }

  /** Where tiles are read to: their part of the frames, or for the rows before the first tile's own that of the first frame. */
  for(source: TensorSource): readonly FloatArray[] | undefined {
    if (!this.#sources.includes(source)) return this.others?.for(source);
    const { first, reach: { behind, ahead } } = this;
    const cols = colsOf(source);
    const frames = this.memory.frames(source);
    const inTurn = frames.map((_, turn) => frames[(first + turn) % frames.length]);
    return this.#begun
      ? inTurn.map((frame) => frame.subarray((behind + ahead) * cols))
      : [inTurn[0].subarray((this.#before.start - this.#frameStart(first)) * cols)];
  }

  /**
   * The next tile of keys and values, and of queries when they are read in step; null after the last.
   * Valid until their frame's next turn, as are the rows near them.
   */
  async next(): Promise<KeyTiles | null> {
    if (this.#begun) {
      this.#tile++;
      for (const source of this.#sources) this.#carry(source);
    } else {
      await this.#begin();
      this.#begun = true;
    }
    const { done, value } = await this.#tiles.next();
    if (done) return null;
    this.#land(value);
    this.#end = value.k.start + value.k.rows;
    return value;
  }

  /** Reads what the first frame has before its tile's own rows, which have been checked when they passed before. */
  async #begin(): Promise<void> {
    const { inputs, precision } = this;
    const { start, end } = this.#before;
    this.#end = end;
    if (start >= end) return;
    for await (const tiles of inputs.tilesAgain(end - start, precision, this, { start, end })) this.#land(tiles);
  }

  /** Brings rows to their frames from sources that deliver to memory of their own. */
  #land({ k, v, weights }: KeyTiles): void {
    const { inputs } = this;
    const places: [TensorSource | null, FloatArray | undefined][] = [
      [inputs.k, k.data],
      [inputs.v, v.data],
      [inputs.weights, weights],
    ];
    for (const [source, data] of places) {
      if (!source || !data) continue;
      const frames = this.for(source)!;
      const frame = frames[(this.#tile - this.first) % frames.length];
      if (data.buffer !== frame.buffer || data.byteOffset !== frame.byteOffset) frame.set(data);
    }
  }

  /** Copies the rows that the next frame shares with this one. */
  #carry(source: TensorSource): void {
    const { reach: { behind, ahead }, plan: { tileRows } } = this;
    const cols = colsOf(source);
    const frames = this.memory.frames(source);
    const [from, to] = [this.#tile - 1, this.#tile].map((tile) => frames[tile % frames.length]);
    to.set(from.subarray(tileRows * cols, (tileRows + behind + ahead) * cols));
  }

  /** All queries, bidirectionally: those that are the keys lie in the frames already. Each tile is valid as `next` says. */
  async *queries(memory: TileMemory): AsyncGenerator<Tile> {
    const { inputs, plan: { tileRows }, precision } = this;
    const { rows } = inputs.q.info;
    const from = Math.min(this.first * tileRows, rows);
    if (inputs.q === inputs.k) {
      for (let start = from; start < rows; start += tileRows) {
        await this.next();
        yield this.#rows(inputs.k, start, Math.min(start + tileRows, rows));
      }
    } else {
      for await (const q of inputs.queryTiles(tileRows, precision, memory, { start: from, end: rows })) {
        await this.next();
        yield q;
      }
    }
  }

  /** Rows `start … end − 1` of a source in the current frame. */
  #rows(source: TensorSource, start: number, end: number): Tile {
    const cols = colsOf(source);
    const frames = this.memory.frames(source);
    const at = this.#frameStart(this.#tile);
    const data = frames[this.#tile % frames.length].subarray((start - at) * cols, (end - at) * cols);
    return { start, rows: end - start, cols, data };
  }

  /** Keys and values near the queries `start … end − 1`, which lie in the tile read last. */
  near(start: number, end: number): KeyRows {
    const { inputs, plan } = this;
    const wanted = nearRows(plan, start, end, inputs.k.info.rows);
    const last = Math.min(wanted.end, this.#end);
    const first = Math.min(wanted.start, last);
    const k = this.#rows(inputs.k, first, last);
    const v = inputs.v === inputs.k ? k : this.#rows(inputs.v, first, last);
    return inputs.weights ? { k, v, weights: this.#rows(inputs.weights, first, last).data } : { k, v };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tiles.return?.();
  }
}

const colsOf = ({ info: { heads, width } }: TensorSource): number => heads * width;
