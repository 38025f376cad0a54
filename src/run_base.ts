/** What every run of `attend` has, whatever the attention; run.ts tells the story. */
import { type Attention, decayFor, type parametersFor, type Sizes } from "./attention.ts";
import type { Backend, KeyRows, SessionCounts } from "./backend.ts";
import { type Checked, checkError } from "./check.ts";
import { InputError, UsageError } from "./errors.ts";
import { coordinatesOf, FEATURE_MAPS } from "./feature_map.ts";
import type { Fit } from "./fitted.ts";
import { InFlight } from "./in_flight.ts";
import type { Inputs } from "./inputs.ts";
import { type AttentionShape, type Limits, tileRowsFor } from "./plan.ts";
import type { Refusal, Report } from "./report.ts";
import type { RowTransform } from "./row_transform.ts";
import type { Checkpoint, Checkpoints } from "./run_journal.ts";
import { type CheckpointSizes, foreignTo } from "./run_journal_fields.ts";
import { copySampled, sampleRows } from "./sampled_rows.ts";
import { Shrinkage } from "./shrink.ts";
import type { StoredState } from "./stored_state.ts";
import {
  type FloatArray,
  floats,
  pickRows,
  type Precision,
  type RowRange,
  type TensorSink,
  type Tile,
} from "./tensor.ts";
import { TileStore } from "./tile_store.ts";
import { type Phase, Stopwatch } from "./timing.ts";

/** What one run of attention takes. */
export interface AttendOptions {
  readonly inputs: Inputs;
  readonly attention: Attention;
  readonly backend: Backend;
  readonly refused: readonly Refusal[];
  /** Rows per tile the user asked for. */
  readonly tileRows?: number;
  /** Query rows to check against exact softmax; 0 = none. */
  readonly check: number;
  /** Those rows, ascending, instead of a sample of `check`. */
  readonly sampled?: Float64Array;
  /** λ of shrinkage per head; absent: none. */
  readonly lambda?: ArrayLike<number> | null;
  /** λ was fitted to rows of the whole input (`--shrink auto`). */
  readonly shrinkFitted?: boolean;
  /** The settings were chosen by trials (`--features auto`). */
  readonly chosen?: boolean;
  readonly redraws: number;
  /** Also look at each head: what its features are worth and what to do about it. */
  readonly health?: boolean;
  /** Keep the squares of every sampled row and head in the report, for plots. */
  readonly keepRows?: boolean;
  /** Where the output goes; null computes it all the same. */
  readonly sink:
    | (TensorSink & { readonly path: string; readonly dtype: string; readonly shape: readonly number[] })
    | null;
  readonly encoding: string | null;
  /** Keys of earlier runs, and what becomes of the state with those of this one. */
  readonly state?: StateOptions;
  /** Inputs are computed from rows by a checkpoint's layer, which shares the clock: `flops` of its dense layers per row count. */
  readonly layer?: Report["layer"] & { readonly watch: Stopwatch; flops(rows: number): number };
  readonly peakBytes: () => number;
  /** What the peak was planned to stay below. */
  readonly maxBytes?: number;
  /** Called after every tile with rows done of `total`, over all passes. */
  readonly progress?: (stage: string, done: number, total: number) => void;
  readonly signal?: AbortSignal;
  /** Where checkpoints are kept, and the one to go on from; `sink` then goes on at its rows. Not for `attention.compat` of others. */
  readonly journal?: Checkpoints;
}

/** A run that goes on from a state, leaves one, or both. Only attention that has states (`withoutState` in stored_state.ts). */
export interface StateOptions {
  /** Queries see its keys too, the map is fitted as it was, and with decay the rows follow its rows. */
  readonly before?: StoredState | null;
  /** Takes the state with the keys of this run, when the output is complete; says where it is now. */
  keep?(after: StoredState): Promise<string>;
}

/** The shape of an attention on a backend with these limits. */
export function shapeOf(attention: Attention, sizes: Sizes, limits: Limits, tileRows?: number): AttentionShape {
  const { heads, kvHeads, headDim, valueDim } = sizes;
  const map = FEATURE_MAPS.find(({ name }) => name === attention.features);
  const seen = map ? coordinatesOf(map, headDim) : headDim;
  const widest = Math.max(heads * seen, kvHeads * seen, kvHeads * valueDim, heads * valueDim);
  const rows = tileRowsFor(limits, widest, tileRows);
  return {
    heads,
    kvHeads,
    headDim,
    valueDim,
    causal: attention.causal,
    decay: decayFor(attention, sizes),
    tileRows: rows,
  };
}

/** What the kinds of attention share: settings, sizes, the clock, and memory for tiles. */
export abstract class Run implements Disposable {
  /** Seconds per stage, where the backend measured them. */
  stages: Report["stages"] = null;
  readonly watch: Stopwatch;
  /** What waiting for tiles is: reading, or a checkpoint's dense layers, which read by themselves. */
  protected readonly reading: Phase;
  readonly shape: AttentionShape;
  /** In use at once: one tile being read, and those of the calls in flight. */
  protected readonly store: TileStore;
  /** Where an earlier run came to; null: this begins at the first row. */
  protected readonly last: Checkpoint | null;
  abstract readonly parameters: ReturnType<typeof parametersFor> | null;

  /** Numbers fitted to the inputs, and what becomes of queries and keys by them; known when attention has begun. */
  get fit(): Fit | null {
    return null;
  }

  get transform(): RowTransform | null {
    return null;
  }

  /** The state after the last row, where it was asked for. */
  get after(): StoredState | null {
    return null;
  }

  constructor(readonly options: AttendOptions, readonly sizes: Sizes) {
    this.watch = options.layer?.watch ?? new Stopwatch();
    this.reading = options.layer ? "compute" : "read";
    const { limits } = options.backend;
    this.shape = shapeOf(options.attention, sizes, limits, options.tileRows);
    this.store = new TileStore(options.backend, this.shape.tileRows, limits.inFlight + 1);
    this.last = options.journal?.last ?? null;
    if (this.last) this.#resume(this.last);
  }

  /** Rows that are still to be read: keys that no state holds, and queries without output. */
  protected get rest(): { readonly keys: RowRange; readonly queries: RowRange } {
    const { keyRows, queryRows } = this.sizes;
    return {
      keys: { start: this.last?.keyRows ?? 0, end: keyRows },
      queries: { start: this.last?.rows ?? 0, end: queryRows },
    };
  }

  #resume(last: Checkpoint): void {
    const { tileRows } = this.shape;
    if (last.tileRows !== tileRows) {
      throw new UsageError(
        `Cannot resume${this.#sink}: tiles had ${last.tileRows} rows and have ${tileRows} now, which rounds differently; use --tile ${last.tileRows}`,
      );
    }
    this.watch.add(last.seconds);
  }

  /** How messages go on that say what cannot be resumed. */
  get #sink(): string {
    return this.options.sink ? ` "${this.options.sink.path}"` : "";
  }

  /** Throws InputError for a checkpoint that is none of this run: its journal was not written for it. */
  protected requireOwn(last: Checkpoint, wanted: Pick<CheckpointSizes, "approx" | "state">): void {
    const why = foreignTo(last, { ...this.sizes, ...wanted });
    if (why) {
      throw new InputError(`Cannot resume${this.#sink}: the checkpoint in its journal is of another run, ${why}`);
    }
  }

  /** What a checkpoint says of every run; kinds of attention add their own. */
  protected checkpoint(keyRows: number, rows: number, counts: SessionCounts): Checkpoint {
    return {
      tileRows: this.shape.tileRows,
      keyRows,
      rows,
      counts: { ...counts },
      seconds: this.watch.seconds(),
      fit: null,
      state: null,
      mean: null,
      approx: new Float64Array(0),
    };
  }

  /** No session may be at work. */
  [Symbol.dispose](): void {
    this.store[Symbol.dispose]();
  }

  /** Computes and writes every output row. */
  abstract attend(): Promise<SessionCounts>;
  /** Measures the error on sampled rows, when there is one; `counts` is what `attend` returned. */
  abstract check(counts: SessionCounts): Promise<Checked>;

  protected step(stage: string, done: number, total: number): void {
    this.options.signal?.throwIfAborted();
    this.options.progress?.(stage, done, total);
  }

  protected write(tile: Tile): Promise<void> {
    const { heads, kvHeads, causal } = this.shape;
    this.options.inputs.gaps?.paint(tile, heads, kvHeads, causal);
    return this.watch.time("write", async () => await this.options.sink?.write(tile));
  }

  /** Lets signals and the progress line through between tiles of a backend that never waits. */
  protected breathe(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }
}

/** An output, the memory it lies in, and when causal its rows' own keys and values. */
export interface Emitted {
  readonly tile: Tile;
  readonly memory: FloatArray;
  readonly own: KeyRows | null;
}

/** A run whose error is measured: it keeps the sampled rows' queries and outputs as they pass. */
export abstract class ApproximateRun extends Run {
  #rows: Float64Array;
  /** Queries and outputs of those rows. */
  #queries: Tile;
  #approx: Tile;
  protected readonly shrinkage: Shrinkage | null;

  constructor(options: AttendOptions, sizes: Sizes) {
    super(options, sizes);
    const { attention } = options;
    this.#rows = options.sampled ?? sampleRows(sizes.queryRows, options.check, attention.causal, attention.seed);
    this.shrinkage = options.lambda ? new Shrinkage(this.shape, options.lambda) : null;
    this.#queries = this.#sampled(sizes.headDim, options.backend.limits.precision);
    this.#approx = this.#sampled(sizes.valueDim, "f64");
  }

  /** √S, or 1 where the map does not scale. */
  protected abstract get inputScale(): number;

  protected override checkpoint(keyRows: number, rows: number, counts: SessionCounts): Checkpoint {
    const mean = this.shrinkage?.save() ?? null;
    return {
      ...super.checkpoint(keyRows, rows, this.countsSoFar(counts)),
      mean,
      approx: this.#approx.data as Float64Array,
    };
  }

  /** What a session counted, and runs before it. */
  protected countsSoFar(counts: SessionCounts): SessionCounts {
    const before = this.last?.counts;
    if (!before) return { ...counts };
    const pairs = (before.topPairs ?? 0) + (counts.topPairs ?? 0);
    return {
      emptyRows: before.emptyRows + counts.emptyRows,
      nonPositive: before.nonPositive + counts.nonPositive,
      recomputed: before.recomputed + counts.recomputed,
      ...(before.topPairs === undefined && counts.topPairs === undefined ? {} : { topPairs: pairs }),
    };
  }

  /** Takes up what an earlier run kept besides the state: the mean of values, and the sampled rows that it answered. */
  protected async takeUp(state: CheckpointSizes["state"] = null): Promise<void> {
    const { last, store } = this;
    if (!last) return;
    this.requireOwn(last, { approx: this.#approx.data.length, state });
    if (last.mean) this.shrinkage?.load(last.mean);
    this.#approx.data.set(last.approx);
    const { precision } = this.options.backend.limits;
    for (const row of this.#rows) {
      if (row >= last.rows) break;
      const range = { start: row, end: row + 1 };
      for await (const q of this.options.inputs.queryTiles(1, precision, store, range)) this.keepQueries(q);
    }
  }

  /** Outputs of the sampled rows, after `attend`. */
  get approx(): Tile {
    return this.#approx;
  }

  #sampled(width: number, precision: Precision): Tile {
    const [rows, cols] = [this.#rows.length, this.sizes.heads * width];
    return { start: 0, rows, cols, data: floats(precision, rows * cols) };
  }

  /** Rows that NaN or infinity in the inputs answered say nothing of the approximation. */
  #leaveOutGaps(): void {
    const { inputs: { gaps } } = this.options;
    const { heads, kvHeads, causal } = this.shape;
    if (!gaps) return;
    const places = [...this.#rows.keys()].filter((i) => !gaps.spoils(this.#rows[i], heads, kvHeads, causal));
    if (places.length === this.#rows.length) return;
    this.#queries = pickRows(this.#queries, places);
    this.#approx = pickRows(this.#approx, places);
    this.#rows = Float64Array.from(places, (i) => this.#rows[i]);
  }

  /** Keeps the queries of those rows of a tile that are sampled. */
  protected keepQueries(q: Tile): void {
    copySampled(q, this.#rows, this.#queries.data);
  }

  /** Writes finished outputs and takes their memory back. */
  protected async writeAll(tiles: Emitted[]): Promise<void> {
    for (const { tile, memory } of tiles.splice(0)) {
      await this.write(tile);
      this.store.giveBack(memory);
    }
  }

  /** Calls on their way; those done keep their sampled rows and join `emitted`. */
  protected emitting(emitted: Emitted[]): InFlight<Emitted> {
    return new InFlight(this.options.backend.limits.inFlight, async (done) => {
      this.shrinkage?.apply(done.tile, done.own);
      copySampled(done.tile, this.#rows, this.#approx.data);
      emitted.push(done);
    });
  }

  async check(counts: SessionCounts): Promise<Checked> {
    this.#leaveOutGaps();
    // Exact softmax needs all keys, and those of a state are no more.
    const unseen = (this.options.state?.before?.state.keys ?? 0) > 0;
    if (this.#rows.length === 0 || this.sizes.keyRows === 0 || unseen) return { error: null, health: null };
    const { backend, attention, inputs, redraws, signal, layer, health = false, chosen = false, keepRows } =
      this.options;
    const { sizes, shape, inputScale, fit } = this;
    const [rows, queries, approx] = [this.#rows, this.#queries, this.#approx];
    const { lambda } = this.options;
    const what = { backend, attention, sizes, shape, fit, inputScale, inputs, lambda, memory: this.store };
    const wish = { redraws, health, layered: layer !== undefined, chosen, counts, keepRows };
    return await this.watch.time("check", () => checkError({ ...what, ...wish, rows, queries, approx, signal }));
  }
}
