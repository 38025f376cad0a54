/**
 * The measuring of `compare`: errors of all settings (compare_errors.ts), then the speed of each on its own.
 *
 * Speed is measured apart, by the loops of `bench` on rows in memory, so that neither reading nor the other settings count.
 */
import { type Attention, decayFor, flopCount } from "./attention.ts";
import { type OpenBackend, sweep } from "./bench_measure.ts";
import { tensorsFrom } from "./bench_tensors.ts";
import { bestOf, type CompareFindings, type CompareRow, type Contender, type ExactCost, ranked } from "./compare.ts";
import { type Erring, type ErrorOptions, type Errors, errorsOn, type Refuse } from "./compare_errors.ts";
import { variantName } from "./drift.ts";
import type { UnsupportedError } from "./errors.ts";
import { EXACT } from "./feature_map.ts";
import { sourceText } from "./fit.ts";
import type { Refusal } from "./report.ts";
import { settingFlags } from "./setting_words.ts";
import { type Interval, logInterval, mean, quantile } from "./statistics.ts";

/** Rows that exact attention is timed on, at most: its time grows with the square. */
const EXACT_ROWS = 2048;
/** Samples of a speed, and seconds after which three are enough. */
const SAMPLES = 5;
const SECONDS = 1;

/** What `compareSettings` takes. */
export interface CompareOptions extends ErrorOptions {
  readonly backends: readonly OpenBackend[];
  /** First rows that speed is measured on, at least 1. */
  readonly rowsTimed: number;
  readonly peakBytes: () => number;
  /** Told of a setting that a backend cannot run. */
  readonly refuse: (refusal: Refusal) => void;
  /** Told of a setting as soon as its error and its speed are known. */
  readonly measured?: (row: Omit<CompareRow, "pareto">) => void;
}

/** Measures every entrant on every backend. Throws UnsupportedError when none of them can be run anywhere. */
export async function compareSettings(options: CompareOptions): Promise<CompareFindings> {
  const started = performance.now();
  let last: UnsupportedError | null = null;
  const refuse: Refuse = (contender, error) => {
    last = error;
    options.refuse({ name: `${contender.backend} ${variantName(contender)}`, reason: error.reason });
  };
  const found: Errors[] = [];
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

const contenderKey = ({ backend, features, numFeatures, projection }: Contender) =>
  JSON.stringify([backend, features, numFeatures, projection]);

/** Operations per second of every setting that has an error and no time yet, and exact attention where it is fastest. */
async function speedsOf(
  erring: readonly Erring[],
  options: CompareOptions,
  rowsTimed: number,
  refuse: Refuse,
): Promise<{ speeds: ReadonlyMap<string, number>; exact: ExactCost }> {
  const { inputs, sizes, backends, entrants: [{ attention }] } = options;
  const { causal, seed } = attention;
  const decay = decayFor(attention, sizes);
  const tensors = await tensorsFrom(inputs, sizes, rowsTimed);
  const exactRows = Math.min(rowsTimed, EXACT_ROWS);
  const mapped = options.entrants.filter((entrant) => !entrant.attention.nearFar);
  const speeds = new Map<string, number>();
  const tell = (known: (one: Erring) => boolean) => {
    for (const row of erring.filter(known).flatMap((one) => rowOf(one, speeds, options))) options.measured?.(row);
  };
  const measure = async (
    setting: Omit<Contender, "backend">,
    on: readonly OpenBackend[],
    L: number,
    number: number,
  ) => {
    const { features, numFeatures, projection } = setting;
    const points = sweep({
      backends: on,
      settings: [{ features, numFeatures, projection, causal, nearFar: null }],
      lengths: [L],
      tensors,
      decay,
      seed,
      tileRows: options.tileRows,
      samples: SAMPLES,
      seconds: SECONDS,
      peakBytes: options.peakBytes,
      progress: (point, _number, _points, done) => {
        const stage = `speed of ${variantName(point)} on ${point.backend}: settings`;
        options.progress?.(stage, number + done / SAMPLES, mapped.length + 1);
      },
      refuse: ({ label }, point, error) => refuse({ ...point, backend: label }, error),
      signal: options.signal,
    });
    for await (const point of points) {
      speeds.set(contenderKey(point), point.flops / quantile(point.seconds.toSorted((a, b) => a - b), 0.5));
    }
  };
  tell(({ entrant }) => !mapped.includes(entrant));
  for (const [i, entrant] of mapped.entries()) {
    const able = ({ label }: OpenBackend) => erring.some((one) => one.entrant === entrant && one.backend === label);
    await measure(entrant, backends.filter(able), rowsTimed, i);
    tell((one) => one.entrant === entrant);
  }
  const whole = { features: EXACT, numFeatures: null, projection: null };
  await measure(whole, backends, exactRows, mapped.length);
  const flops = flopCount({ ...attention, features: EXACT, nearFar: null }, sizes, null);
  const costs = backends.flatMap(({ label }): ExactCost[] => {
    const speed = speeds.get(contenderKey({ ...whole, backend: label }));
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

/** The flags of `attend` that ask for an attention. */
function flagsOf(attention: Attention): string[] {
  const { norms, fitting } = attention;
  return [
    ...settingFlags(attention),
    ...(norms === "chi" ? [] : ["--norms", norms]),
    ...(fitting?.params ? ["--params", sourceText(fitting.params)] : []),
    ...(!fitting || fitting.centre === "auto" ? [] : ["--centre", fitting.centre]),
  ];
}

/** Errors and speed together; nothing where there is no speed. */
function rowOf(
  { entrant: { attention }, errors, flops, stateBytes, nonPositive, seconds: spent, ...contender }: Erring,
  speeds: ReadonlyMap<string, number>,
  { sizes: { queryRows } }: CompareOptions,
): Omit<CompareRow, "pareto">[] {
  const speed = speeds.get(contenderKey(contender));
  const seconds = spent ?? (speed === undefined ? null : flops / speed);
  if (seconds === null) return [];
  const samples = errors.map(({ relativeL2 }) => relativeL2.value);
  const { value, low, high } = samples.length > 1 ? intervalOf(samples) : errors[0].relativeL2;
  const [{ uniformBaseline }] = errors;
  return [{
    ...contender,
    nearFar: attention.nearFar ?? null,
    relativeL2: { value, low, high },
    intervalOver: samples.length > 1 ? "draws" : "rows",
    uniformBaseline,
    skill: value === 0 ? 1 : 1 - (value / uniformBaseline) ** 2,
    draws: { count: samples.length, samples },
    seconds,
    tokensPerSecond: queryRows / seconds,
    flopsPerToken: flops / queryRows,
    stateBytes,
    nonPositive,
    flags: flagsOf(attention),
  }];
}
