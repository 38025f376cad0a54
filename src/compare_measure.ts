/**
 * The measuring of `compare`: errors of all settings on the same sampled rows of the whole input, then the speed of each on its own.
 *
 * Errors come from passes over the keys in which up to PASS_SESSIONS sessions watch; the references watch the first one. Speed is
 * measured apart by the loops of `bench`, on rows in memory, so that neither reading nor the other settings count.
 */
import { flopCount, logitScale, type Sizes } from "./attention.ts";
import type { OpenBackend } from "./bench_measure.ts";
import { sweep, type SweepOptions } from "./bench_measure.ts";
import { tensorsFrom } from "./bench_tensors.ts";
import {
  bestOf,
  type Candidate,
  type CompareFindings,
  type CompareRow,
  type Contender,
  type ExactCost,
  ranked,
} from "./compare.ts";
import { variantName } from "./drift.ts";
import { UnsupportedError } from "./errors.ts";
import { EXACT } from "./feature_map.ts";
import type { Inputs } from "./inputs.ts";
import { compareOutputs, type ErrorSummary } from "./metrics.ts";
import { tileRowsFor } from "./plan.ts";
import type { Refusal } from "./report.ts";
import { Answers, passKeys, readSampled, References, type SampledPass, sampleRows } from "./sampled_rows.ts";
import { openSession } from "./sessions.ts";
import { type Interval, logInterval, mean, quantile } from "./statistics.ts";
import { TileStore } from "./tile_store.ts";

/** Sessions of one pass: each holds tiles of its own, some 40 MB of a wide input. */
const PASS_SESSIONS = 8;
/** Rows that exact attention is timed on, at most: its time grows with the square. */
const EXACT_ROWS = 2048;
/** Samples of a speed, and seconds after which three are enough. */
const SAMPLES = 5;
const SECONDS = 1;

export interface CompareOptions {
  readonly inputs: Inputs;
  readonly sizes: Sizes;
  readonly backends: readonly OpenBackend[];
  /** At least one; they share causality, scale and seed. */
  readonly candidates: readonly Candidate[];
  /** Query rows to check against exact softmax, at least 1. */
  readonly check: number;
  /** Draws of every projection, at least 1. */
  readonly draws: number;
  /** First rows that speed is measured on, at least 1. */
  readonly rowsTimed: number;
  /** Rows per tile the user asked for. */
  readonly tileRows?: number;
  readonly peakBytes: () => number;
  /** Called with the work done of `total` in a stage. */
  readonly progress?: (stage: string, done: number, total: number) => void;
  /** Told of a setting that a backend cannot run. */
  readonly refuse: (refusal: Refusal) => void;
  readonly signal?: AbortSignal;
}

/** What the error pass finds of one setting on one backend. */
interface Erring extends Contender {
  readonly candidate: Candidate;
  readonly errors: readonly ErrorSummary[];
  readonly nonPositive: number;
  /** Operations of all rows. */
  readonly flops: number;
  readonly stateBytes: number;
}

/** What all settings are measured by. */
interface Found {
  readonly erring: Erring[];
  readonly phi: number;
  readonly uniformBaseline: number;
  readonly rowsChecked: number;
}

/** Measures every candidate on every backend. Throws UnsupportedError when none of them can be run anywhere. */
export async function compareSettings(options: CompareOptions): Promise<CompareFindings> {
  const started = performance.now();
  let last: UnsupportedError | null = null;
  const refuse = (contender: Contender, error: UnsupportedError) => {
    last = error;
    options.refuse({ name: `${contender.backend} ${variantName(contender)}`, reason: error.reason });
  };
  const found: Found[] = [];
  for (const open of options.backends) found.push(await errorsOn(open, options, refuse));
  const erring = found.flatMap(({ erring }) => erring);
  if (erring.length === 0 && last) throw last;
  const between = performance.now();
  const rowsTimed = Math.min(options.rowsTimed, options.sizes.queryRows, options.sizes.keyRows);
  const { speeds, exact } = await speedsOf(erring, options, rowsTimed, refuse);
  const rows = ranked(erring.flatMap((one) => rowOf(one, speeds, options)), exact);
  if (rows.length === 0 && last) throw last;
  const [{ phi, uniformBaseline, rowsChecked }] = found;
  return {
    sampling: { rowsChecked, draws: options.draws, rowsTimed },
    phi,
    uniformBaseline,
    exact,
    rows,
    best: bestOf(rows, exact),
    seconds: { errors: (between - started) / 1000, speed: (performance.now() - between) / 1000 },
  };
}

/** Where there is nothing to draw, one draw is all there is. */
const drawsOf = ({ projection }: Candidate, draws: number): number => projection === null ? 1 : draws;

/** Errors of every candidate on one backend. */
async function errorsOn(
  { label, backend }: OpenBackend,
  options: CompareOptions,
  refuse: (contender: Contender, error: UnsupportedError) => void,
): Promise<Found> {
  const { inputs, sizes, candidates, signal } = options;
  const { heads, kvHeads, headDim, valueDim, queryRows, keyRows } = sizes;
  const [{ attention: { causal, seed } }] = candidates;
  const widest = Math.max(heads * headDim, kvHeads * headDim, kvHeads * valueDim, heads * valueDim);
  const tileRows = tileRowsFor(backend.limits, widest, options.tileRows);
  const shape = { heads, kvHeads, headDim, valueDim, causal, tileRows };
  const rows = sampleRows(queryRows, options.check, causal, seed);
  using memory = new TileStore(backend, tileRows, backend.limits.inFlight + 1);
  const queries = await readSampled({ backend, shape, inputs, memory, rows, signal });

  const jobs = Array.from(
    { length: options.draws },
    (_, draw) =>
      candidates.filter((candidate) => draw < drawsOf(candidate, options.draws)).map((candidate) => ({
        candidate,
        draw,
      })),
  )
    .flat();
  const passes = Math.ceil(jobs.length / PASS_SESSIONS);
  const pass: SampledPass = { backend, shape, inputs, memory, rows, queries, signal };
  const scale = logitScale(candidates[0].attention, headDim);
  const measured = new Map<Candidate, Omit<Erring, keyof Contender | "candidate"> & { answered: number }>();
  const unable = new Set<Candidate>();
  await using references = await References.open(pass, scale);
  for (let p = 0; p < passes; p++) {
    await using open = new AsyncDisposableStack();
    const watching: { candidate: Candidate; answers: Answers; flops: number; stateBytes: number }[] = [];
    for (const { candidate, draw } of jobs.slice(p * PASS_SESSIONS, (p + 1) * PASS_SESSIONS)) {
      if (unable.has(candidate)) continue;
      try {
        const { session, parameters } = await openSession(backend, candidate.attention, sizes, shape, draw);
        watching.push({
          candidate,
          answers: new Answers(pass, open.use(session)),
          flops: flopCount(candidate.attention, sizes, parameters),
          stateBytes: kvHeads * parameters.features * (valueDim + 2) * 8, // c, z and a row of S per feature, in float64
        });
      } catch (error) {
        if (!(error instanceof UnsupportedError)) throw error;
        unable.add(candidate);
        refuse({ ...candidate, backend: label }, error);
      }
    }
    const stage = `errors on ${label}${passes > 1 ? `, pass ${p + 1} of ${passes}` : ""}: keys`;
    const progress = (done: number) => options.progress?.(stage, done, keyRows);
    await passKeys({ ...pass, progress }, [
      ...(p === 0 ? [references] : []),
      ...watching.map(({ answers }) => answers),
    ]);
    const { truth, uniform } = references;
    for (const { candidate, answers, flops, stateBytes } of watching) {
      const before = measured.get(candidate) ?? { errors: [], nonPositive: 0, answered: 0, flops, stateBytes };
      measured.set(candidate, {
        ...before,
        errors: [...before.errors, compareOutputs(answers.outputs, truth, uniform, heads, queryRows)],
        nonPositive: before.nonPositive + answers.session.counts.nonPositive,
        answered: before.answered + answers.answered,
      });
    }
  }
  const { truth, uniform } = references;
  return {
    erring: [...measured].map(([candidate, { answered, nonPositive, ...one }]) => {
      const { features, numFeatures, projection } = candidate;
      return {
        features,
        numFeatures,
        projection,
        backend: label,
        candidate,
        ...one,
        nonPositive: nonPositive / answered,
      };
    }),
    phi: references.phi(Math.sqrt(scale)),
    uniformBaseline: compareOutputs(uniform, truth, uniform, heads, queryRows).uniformBaseline,
    rowsChecked: rows.length,
  };
}

const speedKey = ({ backend, features, numFeatures, projection }: Contender) =>
  JSON.stringify([backend, features, numFeatures, projection]);

/** Operations per second of every setting that has an error, and exact attention where it is fastest. */
async function speedsOf(
  erring: readonly Erring[],
  options: CompareOptions,
  rowsTimed: number,
  refuse: (contender: Contender, error: UnsupportedError) => void,
): Promise<{ speeds: ReadonlyMap<string, number>; exact: ExactCost }> {
  const { inputs, sizes, candidates: [{ attention: { causal, seed } }] } = options;
  const tensors = await tensorsFrom(inputs, sizes, rowsTimed);
  const exactRows = Math.min(rowsTimed, EXACT_ROWS);
  const backends = (candidate: Candidate | null) =>
    options.backends.filter(({ label }) =>
      !candidate || erring.some((one) => one.candidate === candidate && one.backend === label)
    );
  const speeds = new Map<string, number>();
  const points = options.candidates.length + 1;
  const measure = async (candidate: Candidate | null, length: number, number: number) => {
    const { features, numFeatures, projection } = candidate ?? { features: EXACT, numFeatures: null, projection: null };
    const sweeping: SweepOptions = {
      backends: backends(candidate),
      settings: [{ features, numFeatures, projection, causal }],
      lengths: [length],
      tensors,
      seed,
      tileRows: options.tileRows,
      samples: SAMPLES,
      seconds: SECONDS,
      peakBytes: options.peakBytes,
      progress: (point, _, __, done) =>
        options.progress?.(
          `speed of ${variantName(point)} on ${point.backend}: settings`,
          number + done / SAMPLES,
          points,
        ),
      refuse: ({ label }, point, error) => refuse({ ...point, backend: label }, error),
      signal: options.signal,
    };
    for await (const point of sweep(sweeping)) {
      speeds.set(speedKey(point), point.flops / quantile(point.seconds.toSorted((a, b) => a - b), 0.5));
    }
  };
  for (const [i, candidate] of options.candidates.entries()) await measure(candidate, rowsTimed, i);
  await measure(null, exactRows, points - 1);
  const flops = flopCount({ ...options.candidates[0].attention, features: EXACT }, sizes, null);
  const costs = options.backends.flatMap(({ label }): ExactCost[] => {
    const speed = speeds.get(speedKey({ backend: label, features: EXACT, numFeatures: null, projection: null }));
    if (speed === undefined) return [];
    return [{
      backend: label,
      flopsPerToken: flops / sizes.queryRows,
      secondsEstimated: flops / speed,
      tokensPerSecond: sizes.queryRows * speed / flops,
      rowsTimed: exactRows,
      stateBytes: sizes.keyRows * sizes.kvHeads * (sizes.headDim + sizes.valueDim) * 4,
    }];
  });
  return { speeds, exact: costs.reduce((a, b) => a.secondsEstimated <= b.secondsEstimated ? a : b) };
}

/** Of draws; a logarithm of 0, where all values are alike, leaves their range. */
function intervalOf(samples: readonly number[]): Interval {
  if (samples.every((sample) => sample > 0)) return logInterval(samples);
  return { value: mean(samples), low: Math.min(...samples), high: Math.max(...samples) };
}

/** Errors and speed together; nothing where there is no speed. */
function rowOf(
  { candidate: _, errors, flops, ...rest }: Erring,
  speeds: ReadonlyMap<string, number>,
  { sizes: { queryRows } }: CompareOptions,
): Omit<CompareRow, "pareto">[] {
  const speed = speeds.get(speedKey(rest));
  if (speed === undefined) return [];
  const samples = errors.map(({ relativeL2 }) => relativeL2.value);
  const { value, low, high } = samples.length > 1 ? intervalOf(samples) : errors[0].relativeL2;
  const [{ uniformBaseline }] = errors;
  return [{
    ...rest,
    relativeL2: { value, low, high },
    intervalOver: samples.length > 1 ? "draws" : "rows",
    uniformBaseline,
    skill: value === 0 ? 1 : 1 - (value / uniformBaseline) ** 2,
    draws: { count: samples.length, samples },
    seconds: flops / speed,
    tokensPerSecond: queryRows * speed / flops,
    flopsPerToken: flops / queryRows,
  }];
}
