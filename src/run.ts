/**
 * `attend`: the one place that sees files, a backend and a report together. It prints nothing.
 *
 *     bidirectional, two passes:                          causal, one pass:
 *     for (k, v): absorb(k, v)                            for (q, k, v): write(emit(q, {k, v})); absorb(k, v)
 *     for q: write(emit(q))
 */
import {
  checkSizes,
  countedFlops,
  flopCount,
  isExact,
  isNone,
  logitScale,
  normsOf,
  parametersFor,
  ruledPlanFor,
  type Sizes,
  transformFor,
} from "./attention.ts";
import { NO_COUNTS, type Session, type SessionCounts } from "./backend.ts";
import type { Checked } from "./check.ts";
import type { MapParameters } from "./feature_map.ts";
import { fitInputs, planFit } from "./fit.ts";
import type { Fit } from "./fitted.ts";
import { InFlight } from "./in_flight.ts";
import { inputFacts, type Inputs } from "./inputs.ts";
import { type Report, REPORT_SCHEMA } from "./report.ts";
import type { RowTransform } from "./row_transform.ts";
import { prepareRuled, type RuledSession } from "./rules.ts";
import { ApproximateRun, type AttendOptions, type Emitted, Run } from "./run_base.ts";
import { NearFarRun } from "./run_near_far.ts";
import { NoneRun } from "./run_none.ts";
import type { State } from "./state.ts";
import { requireState, type StoredState, storedState } from "./stored_state.ts";
import { timed } from "./timing.ts";
import { prepareTransformed } from "./transformed.ts";
import { warningsFor } from "./warnings.ts";

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
  if (options.state) requireState(attention);
  const none = isNone(attention);
  const resumed = options.journal?.last ?? null;
  using run = isExact(attention)
    ? new ExactRun(options, sizes)
    : none
    ? new NoneRun(options, sizes)
    : approximateRun(options, sizes);
  const counts = await run.attend();
  await options.sink?.finish();
  // Last, so that a run that is cut short can be run again: the state it goes on from is still there.
  const kept = run.after &&
    { ...summaryOf(run.after), path: await run.watch.time("write", () => options.state!.keep!(run.after!)) };
  const { error, health, rowSquares } = await run.check(counts);
  const seconds = run.watch.seconds();
  const { parameters, shape } = run;
  const { layer } = options;
  const before = options.state?.before ?? null;
  const { fit, transform } = run;
  const flops =
    (attention.nearFar
      ? countedFlops(attention, sizes, counts.topPairs)
      : flopCount(attention, sizes, parameters, transform?.kind === "dense")) +
    (layer?.flops(sizes.queryRows) ?? 0);
  const drawn = parameters !== null && parameters.map.projection !== "none" && !attention.given;
  const seeded = drawn || attention.nearFar?.far === "clusters";
  const projected = parameters !== null && parameters.map.projection !== "none";
  const { info } = inputs.q;
  const fitted = run instanceof NearFarRun ? run.fitted : null;
  const [peakBytes, maxBytes] = [options.peakBytes(), options.maxBytes ?? null];
  const gaps = inputs.gaps && { policy: inputs.gaps.policy, ...inputs.gaps.found };
  return {
    schema: REPORT_SCHEMA,
    command: "attend",
    backend: { name: backend.name, device: backend.device, refused: options.refused },
    input: {
      ...inputFacts(inputs, sizes),
      firstRow: info.firstRow,
      encoding: options.encoding,
      gaps,
    },
    attention: {
      features: attention.features,
      numFeatures: parameters?.features ?? null,
      projections: projected ? parameters.projections : null,
      projection: projected ? (attention.given ? attention.given.path : attention.projection) : null,
      norms: drawn ? normsOf(attention, parameters.map) : null,
      seed: seeded ? attention.seed : null,
      causal: attention.causal,
      scale: logitScale(attention, sizes.headDim),
      decay: shape.decay ? [...shape.decay] : null,
      compat: attention.compat,
      masked: inputs.masked,
      params: fit && reportOf(fit),
      tileRows: shape.tileRows,
      nearFar: attention.nearFar && fitted
        ? {
          ...attention.nearFar,
          clusters: fitted.plan.clusters?.count ?? 0,
          top: fitted.plan.clusters?.top ?? 0,
          exactRows: fitted.plan.exactRows,
          fit: fitted.fit,
        }
        : null,
      shrink: options.lambda ? Array.from(options.lambda) : null,
      chosen: options.chosen ?? false,
    },
    state: options.state ? { in: before && summaryOf(before), out: kept } : null,
    layer: layer ? { path: layer.path, model: layer.model, index: layer.index } : null,
    output: options.sink && { path: options.sink.path, dtype: options.sink.dtype, shape: options.sink.shape },
    seconds,
    stages: run.stages,
    // Without attention there is nothing but reading and writing.
    tokensPerSecond: sizes.queryRows / (none ? seconds.total : seconds.compute),
    flops,
    gflopsPerSecond: none ? 0 : flops / seconds.compute / 1e9,
    peakBytes,
    maxBytes,
    counts,
    error,
    health,
    ...(rowSquares ? { rowSquares } : {}),
    resumed: resumed && { keyRows: resumed.keyRows, rows: resumed.rows },
    warnings: warningsFor(attention, sizes, error, counts, {
      fit: before ? null : fit,
      before,
      layered: layer !== undefined,
      shrinkFitted: options.shrinkFitted,
      gaps,
      memory: { peakBytes, maxBytes, tileRows: shape.tileRows },
    }),
  };
}

const summaryOf = ({ path, rows, state: { keys } }: StoredState) => ({ path, rows, keys });

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

/** A run of random features, or of near keys and far fields. */
export function approximateRun(options: AttendOptions, sizes: Sizes): ApproximateRun & Pick<Run, "parameters"> {
  return options.attention.nearFar ? new NearFarRun(options, sizes) : new LinearRun(options, sizes);
}

class LinearRun extends ApproximateRun {
  #parameters: MapParameters | null = null;
  #fit: Fit | null = null;
  #after: StoredState | null = null;

  override get after(): StoredState | null {
    return this.#after;
  }

  /** Of `attend`, once it has begun. */
  get parameters(): MapParameters {
    if (!this.#parameters) throw new RangeError("The map is fitted when attention begins");
    return this.#parameters;
  }

  override get fit(): Fit | null {
    return this.#fit;
  }

  override get transform(): RowTransform | null {
    return transformFor(this.options.attention, this.sizes, this.#fit);
  }

  /** Looks at the rows that the map is fitted to, before any of them is attended to. */
  async #fitted(): Promise<Fit | null> {
    const { attention, inputs, backend, layer, signal } = this.options;
    const plan = planFit(attention, layer !== undefined);
    if (!plan) return null;
    const { sizes, shape: { tileRows }, watch, reading } = this;
    const { precision } = backend.limits;
    return await watch.time(reading, () => fitInputs(attention, sizes, plan, inputs, { precision, tileRows, signal }));
  }

  async attend(): Promise<SessionCounts> {
    const { attention, journal, state: { before = null, keep } = {} } = this.options;
    const { last } = this;
    this.#fit = last ? last.fit as Fit | null : before ? before.fit : await this.#fitted();
    this.#parameters = parametersFor(attention, this.sizes, 0, this.#fit);
    await using session = await this.#session();
    const { heads, kvHeads, valueDim, queryRows, keyRows } = this.sizes;
    this.store.reserveOutputs(Math.min(this.shape.tileRows, queryRows) * heads * valueDim);
    await this.takeUp([kvHeads, this.#parameters.features, valueDim]);
    const began = last ? last.state as State | null : before?.state;
    if (began) await kept(session).load(began);
    if (this.shape.causal) await this.#causal(session);
    else await this.#bidirectional(session);
    const state = keep ? await kept(session).save() : null;
    await journal?.save({ ...this.checkpoint(keyRows, queryRows, session.counts), fit: this.#fit, state });
    this.stages = "stages" in session ? session.stages ?? null : null;
    if (keep) {
      const rows = (before?.rows ?? 0) + this.sizes.keyRows;
      this.#after = storedState(attention, this.sizes, this.#fit, { path: "", rows, state: state! });
    }
    return this.countsSoFar(session.counts);
  }

  /** Writes a checkpoint where it is time, when `settle` has finished and written what is on its way. */
  async #keep(
    session: Session | RuledSession,
    keyRows: number,
    rows: number,
    settle: () => Promise<void>,
  ): Promise<void> {
    const { journal } = this.options;
    if (!journal?.due) return;
    await settle();
    const state = await kept(session).save();
    await journal.save({ ...this.checkpoint(keyRows, rows, session.counts), fit: this.#fit, state });
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
      const { k, v, weights } of timed(
        watch,
        this.reading,
        inputs.tiles(shape.tileRows, precision, null, store, this.rest.keys),
      )
    ) {
      await absorbing.push(watch.time("compute", () => session.absorb(k, v, weights)));
      this.shrinkage?.absorb({ v, weights });
      this.step("keys", k.start + k.rows, sizes.keyRows);
      await this.#keep(session, k.start + k.rows, 0, () => absorbing.drain());
      await this.breathe();
    }
    await absorbing.drain();
    const emitted: Emitted[] = [];
    const emitting = this.emitting(emitted);
    const settle = async () => {
      await emitting.drain();
      await this.writeAll(emitted);
    };
    const queries = inputs.queryTiles(shape.tileRows, precision, store, this.rest.queries);
    for await (const q of timed(watch, this.reading, queries)) {
      this.keepQueries(q);
      const memory = store.output();
      await emitting.push(watch.time("compute", async () => {
        return { tile: await session.emit(q, null, memory), memory, own: null };
      }));
      await this.writeAll(emitted);
      this.step("queries", q.start + q.rows, sizes.queryRows);
      await this.#keep(session, sizes.keyRows, q.start + q.rows, settle);
      await this.breathe();
    }
    await settle();
  }

  async #causal(session: Session | RuledSession): Promise<void> {
    const { inputs, backend } = this.options;
    const { watch, shape, sizes } = this;
    const { precision } = backend.limits;
    const emitted: Emitted[] = [];
    const emitting = this.emitting(emitted);
    const settle = async () => {
      await emitting.drain();
      await this.writeAll(emitted);
    };
    const rows = inputs.tiles(shape.tileRows, precision, inputs.q, this.store, this.rest.keys);
    for await (const tiles of timed(watch, this.reading, rows)) {
      const q = tiles.q!;
      this.keepQueries(q);
      const memory = this.store.output();
      const tile = watch.time("compute", async () => {
        const out = session.emit(q, tiles, memory);
        const absorbed = session.absorb(tiles.k, tiles.v, tiles.weights);
        const [tile] = await Promise.all([out, absorbed]);
        return { tile, memory, own: tiles };
      });
      await emitting.push(tile);
      await this.writeAll(emitted);
      this.step("rows", q.start + q.rows, sizes.queryRows);
      await this.#keep(session, q.start + q.rows, q.start + q.rows, settle);
      await this.breathe();
    }
    await settle();
  }

  protected get inputScale(): number {
    return this.parameters.inputScale;
  }
}

/** The session of a run with a journal, whose state can be kept: numerics of other systems have none. */
function kept(session: Session | RuledSession): Session {
  if ("save" in session) return session;
  throw new RangeError("Cannot keep a state that sessions of other numerics do not show");
}

/** Exact softmax: blocks of queries are held while all keys stream by. */
class ExactRun extends Run {
  readonly parameters = null;

  async attend(): Promise<SessionCounts> {
    const { inputs, attention, backend } = this.options;
    const { watch, shape, sizes } = this;
    const { precision } = backend.limits;
    const scale = logitScale(attention, sizes.headDim);
    await using session = await backend.prepareExact({ ...shape, scale, queryRows: shape.tileRows });
    const { rest: { queries }, options: { journal }, last: before } = this;
    if (before) this.requireOwn(before, { approx: 0, state: null });
    for await (
      const q of timed(watch, this.reading, inputs.queryTiles(shape.tileRows, precision, undefined, queries))
    ) {
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
      const done = q.start + q.rows;
      if (journal?.due || done === sizes.queryRows) {
        await journal?.save(
          this.checkpoint(sizes.keyRows, done, NO_COUNTS),
        );
      }
    }
    return { ...NO_COUNTS };
  }

  async check(): Promise<Checked> {
    return { error: null, health: null };
  }
}
