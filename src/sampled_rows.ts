/**
 * A few query rows, and what exact attention, the mean of V and any number of sessions answer to them, while the keys pass by once.
 *
 * Everything that watches a pass is a `Watcher`; errors are distances between the outputs of two of them.
 */
import type { Backend, ExactSession, Session } from "./backend.ts";
import { breather, InFlight } from "./in_flight.ts";
import type { Inputs, KeyTiles, TileMemory } from "./inputs.ts";
import { Moments, phiOf } from "./moments.ts";
import type { AttentionShape } from "./plan.ts";
import { RandomStream } from "./random.ts";
import { ValueMean } from "./rules_uniform.ts";
import { floats, type Tile } from "./tensor.ts";

/** Strata of the causal sample: the error depends on how many keys a row sees. */
const STRATA = 16;

/** `count` distinct rows of `total`, ascending; stratified over the length when causal. */
export function sampleRows(total: number, count: number, causal: boolean, seed: number): Float64Array {
  if (count >= total) return Float64Array.from({ length: total }, (_, i) => i);
  const random = new RandomStream(seed, 0x5a3b1e);
  const strata = causal ? Math.min(STRATA, count) : 1;
  const chosen = new Set<number>();
  for (let s = 0; s < strata; s++) {
    const from = Math.floor(total * s / strata);
    const to = Math.floor(total * (s + 1) / strata);
    const want = Math.min(to - from, Math.floor(count * (s + 1) / strata) - Math.floor(count * s / strata));
    const before = chosen.size;
    while (chosen.size - before < want) chosen.add(from + random.below(to - from));
  }
  return Float64Array.from(chosen).sort();
}

/** Copies those rows of a tile that are sampled to their places in `into`. */
export function copySampled(out: Tile, rows: Float64Array, into: Float64Array | Float32Array): void {
  for (let i = 0; i < rows.length; i++) {
    const at = rows[i] - out.start;
    if (at >= 0 && at < out.rows) into.set(out.data.subarray(at * out.cols, (at + 1) * out.cols), i * out.cols);
  }
}

/** One pass of the keys, and the queries that are asked. */
export interface SampledPass {
  readonly backend: Backend;
  readonly shape: AttentionShape;
  readonly inputs: Inputs;
  /** Where tiles are read to. */
  readonly memory: TileMemory;
  /** Indices of the sampled rows, ascending. */
  readonly rows: Float64Array;
  /** Their queries, in the backend's precision. */
  readonly queries: Tile;
  readonly signal?: AbortSignal;
  /** Called after every tile with the key rows that have passed. */
  readonly progress?: (rows: number) => void;
}

/** Reads the queries of sampled rows. */
export async function readSampled(pass: Omit<SampledPass, "queries">): Promise<Tile> {
  const { backend: { limits: { precision } }, shape: { heads, headDim, tileRows }, inputs, memory, rows, signal } =
    pass;
  const cols = heads * headDim;
  const data = floats(precision, rows.length * cols);
  for await (const tile of inputs.queryTiles(tileRows, precision, memory)) {
    signal?.throwIfAborted();
    copySampled(tile, rows, data);
    if (tile.start + tile.rows > rows[rows.length - 1]) break;
  }
  return { start: 0, rows: rows.length, cols, data };
}

/** Sees all keys of a pass, in order. */
export interface Watcher {
  /** Whether it wants the queries of the same rows with the keys. */
  readonly asksInStep: boolean;
  absorb(tiles: KeyTiles): Promise<void>;
  /** After the last key. */
  finish(): Promise<void>;
}

/** Lets the keys pass by, once; of one tile as many watchers are at work as the backend takes calls. */
export async function passKeys(pass: SampledPass, watchers: readonly Watcher[]): Promise<void> {
  const { backend: { limits: { precision, inFlight } }, shape, inputs, memory, signal } = pass;
  const breathe = breather(signal);
  const queries = watchers.some(({ asksInStep }) => asksInStep) ? inputs.q : null;
  for await (const tiles of inputs.tiles(shape.tileRows, precision, queries, memory)) {
    signal?.throwIfAborted();
    const flight = new InFlight<void>(inFlight);
    for (const watcher of watchers) {
      await flight.push(watcher.absorb(tiles));
      await breathe();
    }
    await flight.drain();
    pass.progress?.(tiles.k.start + tiles.k.rows);
  }
  for (const watcher of watchers) {
    await watcher.finish();
    await breathe();
  }
}

/** What approximations are measured by: exact softmax, the mean of the visible values, and the sizes of queries and keys. */
export class References implements Watcher, AsyncDisposable {
  readonly asksInStep = false;
  readonly #exact: ExactSession;
  readonly #uniform: UniformBaseline;
  readonly #keys: Moments;
  #truth: Tile | null = null;

  private constructor(readonly pass: SampledPass, exact: ExactSession) {
    this.#exact = exact;
    this.#uniform = new UniformBaseline(pass.rows, pass.shape);
    this.#keys = new Moments(pass.shape.kvHeads, pass.shape.headDim);
  }

  /** @param scale logit scale S in exp(S · q·k) */
  static async open(pass: SampledPass, scale: number): Promise<References> {
    const { backend, shape, rows, queries } = pass;
    const exact = await backend.prepareExact({ ...shape, scale, queryRows: rows.length });
    await exact.pose(queries, rows);
    return new References(pass, exact);
  }

  async absorb({ k, v, weights }: KeyTiles): Promise<void> {
    await this.#exact.absorb(k, v, weights);
    this.#uniform.add(v, weights);
    this.#keys.add(k, weights);
  }

  async finish(): Promise<void> {
    this.#truth = await this.#exact.emit();
  }

  /** Exact outputs of the sampled rows; after the pass only. */
  get truth(): Tile {
    if (!this.#truth) throw new RangeError("The keys have not passed yet");
    return this.#truth;
  }

  /** Softmax's normaliser per (sampled row, head), ln Σ ω e^{S q·k}, −∞ where no key is seen; after the pass only. */
  async logTotals(): Promise<Float64Array> {
    const { top, total } = await this.#exact.normalisers();
    return total.map((value, cell) => value > 0 ? top[cell] + Math.log(value) : -Infinity);
  }

  /** The mean of the values that each sampled row sees; after the pass only. */
  get uniform(): Tile {
    return this.#uniform.tile();
  }

  /** φ̄ = mean ‖x + y‖² of the keys and the sampled queries, which stand for all of them. */
  phi(inputScale: number): number {
    const asked = new Moments(this.pass.shape.heads, this.pass.shape.headDim);
    asked.add(this.pass.queries);
    return phiOf(asked, this.#keys, inputScale);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#exact[Symbol.asyncDispose]();
  }
}

/** A session's outputs of the sampled rows. */
export class Answers implements Watcher {
  readonly asksInStep: boolean;
  /** `rows × (heads · valueDim)`, float64. */
  readonly outputs: Tile;
  #answered = 0;

  constructor(readonly pass: SampledPass, readonly session: Session) {
    const { shape: { heads, valueDim, causal }, rows } = pass;
    const cols = heads * valueDim;
    this.asksInStep = causal;
    this.outputs = { start: 0, rows: rows.length, cols, data: new Float64Array(rows.length * cols) };
  }

  /** (row, head) pairs that were answered: causal sessions answer whole tiles. What `session.counts` are counts of. */
  get answered(): number {
    return this.#answered;
  }

  async absorb({ q, k, v, weights }: KeyTiles): Promise<void> {
    const { pass: { rows, shape }, session } = this;
    // Causal: a tile is emitted only when it holds sampled rows.
    if (shape.causal && q && rows.some((row) => row >= q.start && row < q.start + q.rows)) {
      copySampled(await session.emit(q, { k, v, weights }), rows, this.outputs.data);
      this.#answered += q.rows * shape.heads;
    }
    await session.absorb(k, v, weights);
  }

  async finish(): Promise<void> {
    const { pass: { shape, queries }, session, outputs } = this;
    if (shape.causal) return;
    for (let start = 0; start < queries.rows; start += shape.tileRows) {
      const rows = Math.min(shape.tileRows, queries.rows - start);
      const data = queries.data.subarray(start * queries.cols, (start + rows) * queries.cols);
      const { data: out } = await session.emit({ start, rows, cols: queries.cols, data });
      outputs.data.set(out, start * outputs.cols);
      this.#answered += rows * shape.heads;
    }
  }
}

/** Mean of the visible values per sampled row. */
class UniformBaseline {
  readonly #mean: ValueMean;
  readonly #out: Float64Array;
  #row = 0;
  #next = 0;

  constructor(readonly rows: Float64Array, readonly shape: AttentionShape) {
    this.#mean = new ValueMean(shape);
    this.#out = new Float64Array(rows.length * shape.heads * shape.valueDim);
  }

  add(v: Tile, weights?: Tile["data"]): void {
    for (let i = 0; i < v.rows; i++) {
      this.#mean.add(v, i, weights ? weights[i] : 1);
      if (this.shape.causal && this.rows[this.#next] === this.#row) this.#write(this.#next++);
      this.#row++;
    }
  }

  #write(index: number): void {
    this.#mean.write(this.#out, index);
  }

  tile(): Tile {
    if (!this.shape.causal) { for (let i = 0; i < this.rows.length; i++) this.#write(i); }
    return { start: 0, rows: this.rows.length, cols: this.shape.heads * this.shape.valueDim, data: this.#out };
  }
}
