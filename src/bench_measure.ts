/**
 * The measuring: every setting on every backend at one L before the next L, so that points to be compared are close in time.
 *
 * A sample is the compute time of one whole attention over tiles in memory, by the loops of run.ts: no file is read, no output is
 * kept. Calls overlap as far as the backend allows, and the state is cleared between samples, outside the timing.
 */
import {
  type Attention,
  countedFlops,
  flopCount,
  isExact,
  logitScale,
  parametersFor,
  transformFor,
} from "./attention.ts";
import type { Backend, Stage } from "./backend.ts";
import type { BenchSizes, Measurement, Series, Setting } from "./bench.ts";
import { openNearFar } from "./bench_near_far.ts";
import { ExactRun, LinearRun, type Run } from "./bench_runs.ts";
import { type BenchTensors, ROLES } from "./bench_tensors.ts";
import { UnsupportedError } from "./errors.ts";
import type { MapParameters } from "./feature_map.ts";
import { breather } from "./in_flight.ts";
import { BLOCK_ROWS } from "./near_far.ts";
import { tileRowsFor } from "./plan.ts";
import type { FloatArray } from "./tensor.ts";
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
        parameters.set(setting, isExact(attention) || setting.nearFar ? null : parametersFor(attention, sizes));
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

const attentionOf = ({ features, numFeatures, projection, causal, nearFar }: Setting, seed: number): Attention => ({
  features: nearFar?.far ?? features,
  numFeatures: numFeatures ?? 0,
  projection: projection ?? "",
  norms: "chi",
  seed,
  causal,
  scale: null,
  given: null,
  compat: "exact",
  nearFar,
});

interface Point {
  readonly attention: Attention;
  readonly setting: Setting;
  readonly sizes: BenchSizes & { readonly queryRows: number; readonly keyRows: number };
  readonly parameters: MapParameters | null;
}

async function measure(
  { label, backend }: OpenBackend,
  point: Point,
  options: SweepOptions,
  number: number,
  points: number,
): Promise<Measurement> {
  const { attention, setting, sizes, parameters } = point;
  const L = sizes.queryRows;
  const series = { backend: label, device: backend.device, threads: backend.threads ?? null, ...setting };
  const { heads, kvHeads, headDim, valueDim } = sizes;
  // As where files are read: in the backend's own memory, if it lends some.
  using lent = new LentMemory(backend);
  await using run = await openRun(backend, point, options, (length) => lent.array(length));
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
    // Maps are bound without data, and nothing is balanced.
    flops: setting.nearFar
      ? countedFlops(attention, sizes, run.topPairs)
      : flopCount(attention, sizes, parameters, false),
    bytes: L * (heads + kvHeads) * (headDim + valueDim) * (backend.limits.precision === "f64" ? 8 : 4),
    peakBytes: options.peakBytes(),
    stages,
  };
}

/** The attention of a point, ready to run. Throws UnsupportedError for what the backend cannot take. */
async function openRun(
  backend: Backend,
  { attention, sizes, parameters }: Point,
  { tensors, tileRows: wish, decay, signal }: SweepOptions,
  memory: (length: number) => FloatArray,
): Promise<Run & AsyncDisposable> {
  const { heads, kvHeads, headDim, valueDim, queryRows } = sizes;
  const widest = Math.max(tensors.cols("q"), tensors.cols("k"), tensors.cols("v"), heads * valueDim);
  const shapeFor = (wish: number | undefined) => {
    const tileRows = tileRowsFor(backend.limits, widest, wish);
    return { heads, kvHeads, headDim, valueDim, causal: attention.causal, decay, tileRows };
  };
  const room = { memory, lends: backend.allocate !== undefined, breathe: breather(signal) };
  if (attention.nearFar) {
    const blocks = wish && Math.ceil(wish / BLOCK_ROWS) * BLOCK_ROWS;
    return await openNearFar(backend, attention, shapeFor(blocks), { ...room, tensors, length: queryRows, signal });
  }
  const shape = shapeFor(wish);
  const { precision, inFlight } = backend.limits;
  const [q, k, v] = ROLES.map((role) => {
    return tensors.tiles(role, queryRows, shape.tileRows, precision, room.lends ? memory : undefined);
  });
  const rows = { q, k, v, inFlight, breathe: room.breathe };
  if (!parameters) {
    const plan = { ...shape, scale: logitScale(attention, headDim), queryRows: shape.tileRows };
    return new ExactRun(await backend.prepareExact(plan), shape, rows);
  }
  const transform = transformFor(attention, sizes, null);
  return new LinearRun(await prepareTransformed(backend, { ...shape, parameters }, transform), shape, rows, memory);
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
  const wanted = Math.min(WARM_UP, options.seconds); // who gives a point less time than that wants a glance
  for (let warm = 0; warm < wanted;) {
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
