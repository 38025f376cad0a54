/**
 * The measuring: every setting on every backend at one L before the next L, so that points to be compared are close in time.
 *
 * A sample is the compute time of one whole attention over tiles in memory, by the loops of run.ts: no file is read, no output is
 * kept. Calls overlap as far as the backend allows, and the state is cleared between samples, outside the timing.
 */
import { type Attention, flopCount, isExact, logitScale, parametersFor, transformFor } from "./attention.ts";
import type { Backend, ExactSession, Session, Stage } from "./backend.ts";
import { type BenchSizes, type Measurement, type Series, type Setting } from "./bench.ts";
import { type BenchTensors, ROLES } from "./bench_tensors.ts";
import { UnsupportedError } from "./errors.ts";
import type { MapParameters } from "./feature_map.ts";
import { breather, InFlight } from "./in_flight.ts";
import { type AttentionShape, tileRowsFor } from "./plan.ts";
import type { FloatArray, Tile } from "./tensor.ts";
import { LentMemory } from "./tile_store.ts";
import { prepareTransformed } from "./transformed.ts";

/** Samples taken even where they last longer than the time allows. */
export const LEAST_SAMPLES = 3;
/** Seconds of warm-up, at least one run: compilers and caches settle. */
const WARM_UP = 0.2;

/** A backend that is open, under the name it was asked for. */
export interface OpenBackend {
  readonly label: string;
  readonly backend: Backend;
}

export interface SweepOptions {
  readonly backends: readonly OpenBackend[];
  readonly settings: readonly Setting[];
  readonly lengths: readonly number[];
  readonly tensors: BenchTensors;
  /** λ per key head of causal attention (decay.ts); absent or null: none. */
  readonly decay?: Float64Array | null;
  /** Seed of the projections. */
  readonly seed: number;
  readonly tileRows?: number;
  /** Samples of a point, fewer when `seconds` have passed and there are LEAST_SAMPLES. */
  readonly samples: number;
  readonly seconds: number;
  readonly peakBytes: () => number;
  /** Milliseconds of a monotonic clock. */
  readonly now?: () => number;
  /** Called between samples: the point, its number of all `points`, and samples done of those wanted. */
  readonly progress?: (point: Series & { readonly L: number }, number: number, points: number, done: number) => void;
  /** Told of a point that a backend cannot run; without it that ends the sweep. */
  readonly refuse?: (backend: OpenBackend, point: Setting & { readonly L: number }, error: UnsupportedError) => void;
  readonly signal?: AbortSignal;
}

/** Measures one point after the other: all settings and backends at the shortest L first. */
export async function* sweep(options: SweepOptions): AsyncGenerator<Measurement> {
  const { backends, settings, lengths } = options;
  const points = lengths.length * settings.length * backends.length;
  let number = 0;
  const parameters = new Map<Setting, MapParameters | null>();
  for (const L of lengths) {
    for (const setting of settings) {
      const attention = attentionOf(setting, options.seed);
      const sizes = { ...options.tensors.sizes, queryRows: L, keyRows: L };
      if (!parameters.has(setting)) {
        parameters.set(setting, isExact(attention) ? null : parametersFor(attention, sizes));
      }
      for (const open of backends) {
        const point = { attention, sizes, setting, parameters: parameters.get(setting)! };
        try {
          yield await measure(open, point, options, ++number, points);
        } catch (error) {
          if (!(error instanceof UnsupportedError) || !options.refuse) throw error;
          options.refuse(open, { ...setting, L }, error);
        }
      }
    }
  }
}

const attentionOf = (setting: Setting, seed: number): Attention => ({
  features: setting.features,
  numFeatures: setting.numFeatures ?? 0,
  projection: setting.projection ?? "",
  norms: "chi",
  seed,
  causal: setting.causal,
  scale: null,
  given: null,
  compat: "exact",
});

interface Point {
  readonly attention: Attention;
  readonly setting: Setting;
  readonly sizes: BenchSizes & { readonly queryRows: number; readonly keyRows: number };
  readonly parameters: MapParameters | null;
}

async function measure(
  { label, backend }: OpenBackend,
  { attention, setting, sizes, parameters }: Point,
  options: SweepOptions,
  number: number,
  points: number,
): Promise<Measurement> {
  const { tensors, decay } = options;
  const L = sizes.queryRows;
  const series = { backend: label, device: backend.device, threads: backend.threads ?? null, ...setting };
  const widest = Math.max(tensors.cols("q"), tensors.cols("k"), tensors.cols("v"), sizes.heads * sizes.valueDim);
  const tileRows = tileRowsFor(backend.limits, widest, options.tileRows);
  const { heads, kvHeads, headDim, valueDim } = sizes;
  const shape = { heads, kvHeads, headDim, valueDim, causal: setting.causal, decay, tileRows };
  const { precision, inFlight } = backend.limits;
  // As where files are read: in the backend's own memory, if it lends some.
  using lent = new LentMemory(backend);
  const memory = (length: number) => lent.array(length);
  const [q, k, v] = ROLES.map((role) => tensors.tiles(role, L, tileRows, precision, backend.allocate && memory));
  const rows = { q, k, v, inFlight, breathe: breather(options.signal) };
  await using run = parameters
    ? new LinearRun(
      await prepareTransformed(backend, { ...shape, parameters }, transformFor(attention, sizes, null)),
      shape,
      rows,
      memory,
    )
    : new ExactRun(
      await backend.prepareExact({ ...shape, scale: logitScale(attention, headDim), queryRows: tileRows }),
      shape,
      rows,
    );
  const { seconds, stages } = await takeSamples(run, {
    ...options,
    progress: (done) => options.progress?.({ ...series, L }, number, points, done),
  });
  return {
    ...series,
    L,
    heads,
    headDim,
    valueDim,
    seconds,
    flops: flopCount(attention, sizes, parameters, false), // maps are bound without data, and nothing is balanced
    bytes: L * (heads + kvHeads) * (headDim + valueDim) * (precision === "f64" ? 8 : 4),
    peakBytes: options.peakBytes(),
    stages,
  };
}

/** Something that can be run again and again. */
export interface Run {
  readonly stages: Readonly<Record<Stage, number>> | null;
  reset(): void;
  run(): Promise<void>;
}

/** Warms up, then times runs until there are enough; `stages` are seconds per timed run. */
export async function takeSamples(
  run: Run,
  options: Pick<SweepOptions, "samples" | "seconds" | "now" | "signal"> & {
    readonly progress?: (done: number) => void;
  },
): Promise<{ seconds: number[]; stages: Record<Stage, number> | null }> {
  const { samples, now = () => performance.now(), progress, signal } = options;
  const pause = breather(signal, 0);
  const once = async () => {
    run.reset();
    const start = now();
    await run.run();
    return (now() - start) / 1000;
  };
  progress?.(0);
  for (let warm = 0; warm < WARM_UP;) {
    await pause();
    warm += Math.max(await once(), Number.EPSILON);
  }
  const before = { ...run.stages };
  const seconds: number[] = [];
  const end = now() + 1000 * options.seconds;
  while (seconds.length < samples && (seconds.length < LEAST_SAMPLES || now() < end)) {
    await pause();
    seconds.push(await once());
    progress?.(seconds.length);
  }
  const stages = run.stages && Object.fromEntries(
    Object.entries(run.stages).map(([name, after]) => [name, (after - (before[name as Stage] ?? 0)) / seconds.length]),
  ) as Record<Stage, number>;
  return { seconds, stages };
}

interface Rows {
  readonly q: readonly Tile[];
  readonly k: readonly Tile[];
  readonly v: readonly Tile[];
  readonly inFlight: number;
  readonly breathe: () => Promise<void> | void;
}

class LinearRun implements Run, AsyncDisposable {
  /** Outputs are written over each other: one more than can be in flight. */
  readonly #outputs: readonly FloatArray[];

  constructor(
    readonly session: Session,
    readonly shape: AttentionShape,
    readonly rows: Rows,
    memory: (length: number) => FloatArray,
  ) {
    const length = shape.tileRows * shape.heads * shape.valueDim;
    this.#outputs = Array.from({ length: rows.inFlight + 1 }, () => memory(length));
  }

  get stages(): Readonly<Record<Stage, number>> | null {
    return this.session.stages ?? null;
  }

  reset(): void {
    this.session.reset();
  }

  async run(): Promise<void> {
    const { session, shape, rows: { q, k, v, inFlight, breathe } } = this;
    const flight = new InFlight<unknown>(inFlight);
    const into = (i: number) => this.#outputs[i % this.#outputs.length];
    for (let i = 0; i < k.length; i++) {
      if (shape.causal) await flight.push(session.emit(q[i], { k: k[i], v: v[i] }, into(i)));
      await flight.push(session.absorb(k[i], v[i]));
      await breathe();
    }
    for (let i = 0; i < q.length && !shape.causal; i++) {
      if (i === 0) await flight.drain();
      await flight.push(session.emit(q[i], null, into(i)));
      await breathe();
    }
    await flight.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

class ExactRun implements Run, AsyncDisposable {
  readonly stages = null;

  constructor(readonly session: ExactSession, readonly shape: AttentionShape, readonly rows: Rows) {}

  /** `pose` forgets everything by itself. */
  reset(): void {}

  async run(): Promise<void> {
    const { session, shape, rows: { q, k, v, inFlight, breathe } } = this;
    for (const queries of q) {
      const last = queries.start + queries.rows - 1;
      await session.pose(queries, Float64Array.from({ length: queries.rows }, (_, i) => queries.start + i));
      const flight = new InFlight<unknown>(inFlight);
      for (let i = 0; i < k.length && !(shape.causal && k[i].start > last); i++) {
        await flight.push(session.absorb(k[i], v[i]));
        await breathe();
      }
      await flight.drain();
      await session.emit();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

/** Bytes read plus written per second by one copying thread of this process, the best of several tries. */
export function measureCopy(seconds: number, now: () => number = () => performance.now()): number {
  const from = new Float64Array(2 ** 23).fill(1); // 64 MiB: beyond most caches
  const to = from.slice();
  let best = 0;
  const end = now() + 1000 * seconds;
  for (let tries = 0; tries < LEAST_SAMPLES || now() < end; tries++) {
    const start = now();
    to.set(from);
    best = Math.max(best, 2 * from.byteLength / ((now() - start) / 1000));
  }
  return best;
}
