/**
 * `attend`: the one place that sees files, a backend and a report together. It prints nothing.
 *
 *     bidirectional, two passes:                          causal, one pass:
 *     for (k, v): absorb(k, v)                            for (q, k, v): write(emit(q, {k, v})); absorb(k, v)
 *     for q: write(emit(q))
 */
import {
  type Attention,
  checkSizes,
  flopCount,
  isExact,
  logitScale,
  normsOf,
  parametersFor,
  ruledPlanFor,
  type Sizes,
  transformFor,
} from "./attention.ts";
import type { Backend, Session, SessionCounts } from "./backend.ts";
import { checkError, copySampled, sampleRows } from "./check.ts";
import { coordinatesOf, featureMap } from "./feature_map.ts";
import { fitInputs, type FitWish, planFit } from "./fit.ts";
import type { Fit } from "./fitted.ts";
import { InFlight } from "./in_flight.ts";
import type { Inputs } from "./inputs.ts";
import { type AttentionShape, tileRowsFor } from "./plan.ts";
import { type ErrorReport, type Refusal, type Report, REPORT_SCHEMA } from "./report.ts";
import type { RowTransform } from "./row_transform.ts";
import { type FloatArray, floats, type Precision, type TensorSink, type Tile } from "./tensor.ts";
import { prepareRuled, type RuledSession } from "./rules.ts";
import { TileStore } from "./tile_store.ts";
import { type Phase, Stopwatch, timed } from "./timing.ts";
import { prepareTransformed } from "./transformed.ts";
import { warningsFor } from "./warnings.ts";

export interface AttendOptions {
  readonly inputs: Inputs;
  readonly attention: Attention;
  readonly backend: Backend;
  readonly refused: readonly Refusal[];
  /** Where fitted numbers come from, and whether keys are moved; default: as `FitWish` says. */
  readonly fitting?: FitWish;
  /** Rows per tile the user asked for. */
  readonly tileRows?: number;
  /** Query rows to check against exact softmax; 0 = none. */
  readonly check: number;
  readonly redraws: number;
  /** Where the output goes; null computes it all the same. */
  readonly sink:
    | (TensorSink & { readonly path: string; readonly dtype: string; readonly shape: readonly number[] })
    | null;
  readonly encoding: string | null;
  /** Inputs are computed from rows by a checkpoint's layer, which shares the clock: `flops` of its dense layers per row count. */
  readonly layer?: Report["layer"] & { readonly watch: Stopwatch; flops(rows: number): number };
  readonly peakBytes: () => number;
  /** Called after every tile with rows done of `total`, over all passes. */
  readonly progress?: (stage: string, done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Sizes of the tensors at hand; throws UsageError when they do not belong together. */
export function sizesOf(inputs: Inputs, causal: boolean): Sizes {
  const { q, k, v } = inputs;
  const sizes: Sizes = {
    queryRows: q.info.rows,
    keyRows: k.info.rows,
    heads: q.info.heads,
    kvHeads: k.info.heads,
    headDim: q.info.width,
    valueDim: v.info.width,
  };
  checkSizes(sizes, v.info.rows, k.info.width, v.info.heads, causal);
  return sizes;
}

/** Runs attention over the inputs and measures it. */
export async function attend(options: AttendOptions): Promise<Report> {
  const { inputs, attention, backend } = options;
  const sizes = sizesOf(inputs, attention.causal);
  const watch = options.layer?.watch ?? new Stopwatch();
  const fit = await fitted(options, sizes, watch);
  using run = isExact(attention) ? new ExactRun(options, sizes, watch) : new LinearRun(options, sizes, watch, fit);
  const counts = await run.attend();
  await options.sink?.finish();
  const error = await run.error();
  const seconds = run.watch.seconds();
  const { parameters, shape } = run;
  const { layer } = options;
  const flops = flopCount(attention, sizes, parameters, run.transform) + (layer?.flops(sizes.queryRows) ?? 0);
  const seeded = parameters !== null && parameters.map.projection !== "none" && !attention.given;
  const projected = parameters !== null && parameters.map.projection !== "none";
  const { info } = inputs.q;
  return {
    schema: REPORT_SCHEMA,
    command: "attend",
    backend: { name: backend.name, device: backend.device, refused: options.refused },
    input: {
      path: info.path,
      rows: sizes.queryRows,
      keyRows: sizes.keyRows,
      heads: sizes.heads,
      kvHeads: sizes.kvHeads,
      headDim: sizes.headDim,
      valueDim: sizes.valueDim,
      dtype: info.dtype,
      bytes: [...new Set([inputs.q, inputs.k, inputs.v])].reduce((sum, source) => sum + source.info.byteLength, 0),
      firstRow: info.firstRow,
      encoding: options.encoding,
    },
    attention: {
      features: attention.features,
      numFeatures: parameters?.features ?? null,
      projections: projected ? parameters.projections : null,
      projection: projected ? (attention.given ? attention.given.path : attention.projection) : null,
      norms: seeded ? normsOf(attention, parameters.map) : null,
      seed: seeded ? attention.seed : null,
      causal: attention.causal,
      scale: logitScale(attention, sizes.headDim),
      compat: attention.compat,
      masked: inputs.weights !== null,
      params: fit && reportOf(fit),
      tileRows: shape.tileRows,
    },
    layer: layer ? { path: layer.path, model: layer.model, index: layer.index } : null,
    output: options.sink && { path: options.sink.path, dtype: options.sink.dtype, shape: options.sink.shape },
    seconds,
    stages: run.stages,
    tokensPerSecond: sizes.queryRows / seconds.compute,
    flops,
    gflopsPerSecond: flops / seconds.compute / 1e9,
    peakBytes: options.peakBytes(),
    counts,
    error,
    warnings: warningsFor(attention, sizes, error, counts, fit),
  };
}

/** Looks at the rows that the map is fitted to, before any of them is attended to. */
async function fitted(
  { attention, backend, inputs, layer, tileRows, signal, fitting }: AttendOptions,
  sizes: Sizes,
  watch: Stopwatch,
) {
  const plan = planFit(attention, fitting ?? { params: null, centre: "auto" }, layer !== undefined);
  if (!plan) return null;
  const { precision } = backend.limits;
  return await watch.time(
    layer ? "compute" : "read",
    () => fitInputs(attention, sizes, plan, inputs, { precision, tileRows, signal }),
  );
}

const reportOf = ({ source, rows, centred, heads }: Fit): Report["attention"]["params"] => ({
  source,
  rows,
  centred,
  heads: heads.map(({ phiBefore, phi, logVariance, exponents }) => ({
    phiBefore,
    phi,
    logVariance,
    exponents: [...exponents],
  })),
});

abstract class Run implements Disposable {
  /** Seconds per stage, where the backend measured them. */
  stages: Report["stages"] = null;
  /** What waiting for tiles is: reading, or a checkpoint's dense layers, which read by themselves. */
  protected readonly reading: Phase;
  readonly shape: AttentionShape;
  /** In use at once: one tile being read, and those of the calls in flight. */
  protected readonly store: TileStore;
  abstract readonly parameters: ReturnType<typeof parametersFor> | null;
  /** What happens to queries and keys before. */
  abstract readonly transform: RowTransform | null;

  constructor(readonly options: AttendOptions, readonly sizes: Sizes, readonly watch: Stopwatch) {
    this.reading = options.layer ? "compute" : "read";
    const { heads, kvHeads, headDim, valueDim } = sizes;
    const seen = isExact(options.attention) ? headDim : coordinatesOf(featureMap(options.attention.features), headDim);
    const widest = Math.max(heads * seen, kvHeads * seen, kvHeads * valueDim, heads * valueDim);
    const tileRows = tileRowsFor(options.backend.limits, widest, options.tileRows);
    this.shape = { heads, kvHeads, headDim, valueDim, causal: options.attention.causal, tileRows };
    this.store = new TileStore(options.backend, tileRows, options.backend.limits.inFlight + 1);
  }

  /** No session may be at work. */
  [Symbol.dispose](): void {
    this.store[Symbol.dispose]();
  }

  /** Computes and writes every output row. */
  abstract attend(): Promise<SessionCounts>;
  /** Measures the error on sampled rows, when there is one. */
  abstract error(): Promise<ErrorReport | null>;

  protected step(stage: string, done: number, total: number): void {
    this.options.signal?.throwIfAborted();
    this.options.progress?.(stage, done, total);
  }

  protected write(tile: Tile): Promise<void> {
    return this.watch.time("write", async () => await this.options.sink?.write(tile));
  }

  /** Lets signals and the progress line through between tiles of a backend that never waits. */
  protected breathe(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }
}

/** An output and the memory it lies in. */
interface Emitted {
  readonly tile: Tile;
  readonly memory: FloatArray;
}

class LinearRun extends Run {
  readonly parameters;
  readonly transform;
  readonly #rows: Float64Array;
  /** Queries and outputs of those rows. */
  readonly #queries: Tile;
  readonly #approx: Tile;

  constructor(options: AttendOptions, sizes: Sizes, watch: Stopwatch, readonly fit: Fit | null) {
    super(options, sizes, watch);
    const { attention } = options;
    this.parameters = parametersFor(attention, sizes, 0, fit);
    this.transform = transformFor(attention, sizes, fit);
    this.#rows = sampleRows(sizes.queryRows, options.check, attention.causal, attention.seed);
    this.#queries = this.#sampled(sizes.headDim, options.backend.limits.precision);
    this.#approx = this.#sampled(sizes.valueDim, "f64");
  }

  #sampled(width: number, precision: Precision): Tile {
    const [rows, cols] = [this.#rows.length, this.sizes.heads * width];
    return { start: 0, rows, cols, data: floats(precision, rows * cols) };
  }

  /** Writes finished outputs and takes their memory back. */
  async #writeAll(tiles: Emitted[]): Promise<void> {
    for (const { tile, memory } of tiles.splice(0)) {
      await this.write(tile);
      this.store.giveBack(memory);
    }
  }

  /** Calls on their way; those done keep their sampled rows and join `emitted`. */
  #emitting(emitted: Emitted[]): InFlight<Emitted> {
    return new InFlight(this.options.backend.limits.inFlight, async (done) => {
      copySampled(done.tile, this.#rows, this.#approx.data);
      emitted.push(done);
    });
  }

  async attend(): Promise<SessionCounts> {
    await using session = await this.#session();
    const { heads, valueDim, queryRows } = this.sizes;
    this.store.reserveOutputs(Math.min(this.shape.tileRows, queryRows) * heads * valueDim);
    if (this.shape.causal) await this.#causal(session);
    else await this.#bidirectional(session);
    this.stages = "stages" in session ? session.stages ?? null : null;
    return { ...session.counts };
  }

  /** A session of the backend, or one under another system's numerics whose keys have been surveyed. */
  async #session(): Promise<Session | RuledSession> {
    const { backend, attention, inputs } = this.options;
    const { parameters, sizes, shape, watch } = this;
    if (attention.compat === "exact") {
      return await prepareTransformed(backend, { ...shape, parameters }, this.transform);
    }
    const session = await prepareRuled(backend, ruledPlanFor(attention, sizes, parameters, shape.tileRows));
    if (!session.surveys) return session;
    for await (
      const { k } of timed(watch, this.reading, inputs.tiles(shape.tileRows, backend.limits.precision, null))
    ) {
      await watch.time("compute", () => session.survey(k));
      this.step("keys", k.start + k.rows, sizes.keyRows);
      await this.breathe();
    }
    return session;
  }

  async #bidirectional(session: Session | RuledSession): Promise<void> {
    const { inputs, backend } = this.options;
    const { watch, shape, sizes } = this;
    const { precision, inFlight } = backend.limits;
    const absorbing = new InFlight<void>(inFlight);
    const { store } = this;
    for await (
      const { k, v, weights } of timed(watch, this.reading, inputs.tiles(shape.tileRows, precision, null, store))
    ) {
      await absorbing.push(watch.time("compute", () => session.absorb(k, v, weights)));
      this.step("keys", k.start + k.rows, sizes.keyRows);
      await this.breathe();
    }
    await absorbing.drain();
    const emitted: Emitted[] = [];
    const emitting = this.#emitting(emitted);
    for await (const q of timed(watch, this.reading, inputs.queryTiles(shape.tileRows, precision, store))) {
      copySampled(q, this.#rows, this.#queries.data);
      const memory = store.output();
      await emitting.push(watch.time("compute", async () => ({ tile: await session.emit(q, null, memory), memory })));
      await this.#writeAll(emitted);
      this.step("queries", q.start + q.rows, sizes.queryRows);
      await this.breathe();
    }
    await emitting.drain();
    await this.#writeAll(emitted);
  }

  async #causal(session: Session | RuledSession): Promise<void> {
    const { inputs, backend } = this.options;
    const { watch, shape, sizes } = this;
    const { precision } = backend.limits;
    const emitted: Emitted[] = [];
    const emitting = this.#emitting(emitted);
    for await (
      const tiles of timed(watch, this.reading, inputs.tiles(shape.tileRows, precision, inputs.q, this.store))
    ) {
      const q = tiles.q!;
      copySampled(q, this.#rows, this.#queries.data);
      const memory = this.store.output();
      const tile = watch.time("compute", async () => {
        const out = session.emit(q, tiles, memory);
        const absorbed = session.absorb(tiles.k, tiles.v, tiles.weights);
        const [tile] = await Promise.all([out, absorbed]);
        return { tile, memory };
      });
      await emitting.push(tile);
      await this.#writeAll(emitted);
      this.step("rows", q.start + q.rows, sizes.queryRows);
      await this.breathe();
    }
    await emitting.drain();
    await this.#writeAll(emitted);
  }

  async error(): Promise<ErrorReport | null> {
    if (this.#rows.length === 0 || this.sizes.keyRows === 0) return null;
    const { backend, attention, inputs, redraws, signal } = this.options;
    const { sizes, shape, fit } = this;
    const { inputScale } = this.parameters;
    const [rows, queries, approx] = [this.#rows, this.#queries, this.#approx];
    const what = { backend, attention, sizes, fit, shape, inputScale, inputs, memory: this.store };
    return await this.watch.time("check", () => checkError({ ...what, rows, queries, approx, redraws, signal }));
  }
}

/** Exact softmax: blocks of queries are held while all keys stream by. */
class ExactRun extends Run {
  readonly parameters = null;
  readonly transform = null;

  async attend(): Promise<SessionCounts> {
    const { inputs, attention, backend } = this.options;
    const { watch, shape, sizes } = this;
    const { precision } = backend.limits;
    const scale = logitScale(attention, sizes.headDim);
    await using session = await backend.prepareExact({ ...shape, scale, queryRows: shape.tileRows });
    for await (const q of timed(watch, this.reading, inputs.queryTiles(shape.tileRows, precision))) {
      const last = q.start + q.rows - 1;
      const positions = Float64Array.from({ length: q.rows }, (_, i) => q.start + i);
      await watch.time("compute", () => session.pose(q, positions));
      const absorbing = new InFlight<void>(backend.limits.inFlight);
      const tiles = inputs.tiles(shape.tileRows, precision, null, this.store);
      for await (const { k, v, weights } of timed(watch, this.reading, tiles)) {
        if (shape.causal && k.start > last) break;
        await watch.time("compute", () => absorbing.push(session.absorb(k, v, weights)));
        this.step("rows", q.start + q.rows * Math.min(1, (k.start + k.rows) / sizes.keyRows), sizes.queryRows);
        await this.breathe();
      }
      const out = await watch.time("compute", async () => {
        await absorbing.drain();
        return await session.emit();
      });
      await this.write({ ...out, start: q.start });
    }
    return { emptyRows: 0, nonPositive: 0, recomputed: 0 };
  }

  async error(): Promise<null> {
    return null;
  }
}
