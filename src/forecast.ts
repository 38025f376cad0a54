/**
 * What `attend` would do, before it does (`--dry-run`): passes over the files, arithmetic, and a prediction of time, memory and error from
 * a trial on some rows of the input, or of the time alone from the speed of the backend where there are none to try.
 */
import { type Attention, flopCount, isExact, isNone, parametersFor, type Sizes } from "./attention.ts";
import type { Backend } from "./backend.ts";
import { AUTO, type FeatureMap, featureMap, featuresOf, projectionsFor } from "./feature_map.ts";
import { planFit, rangesOf } from "./fit.ts";
import { bytesOf, inputFacts, type Inputs } from "./inputs.ts";
import type { ErrorReport, Refusal, Report } from "./report.ts";
import { sliceInputs, sliceOf } from "./row_slice.ts";
import { attend } from "./run.ts";
import { shapeOf } from "./run_base.ts";
import type { StoredState } from "./stored_state.ts";
import { TileStore } from "./tile_store.ts";
import type { TensorSource } from "./tensor.ts";
import { count } from "./words.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const PLAN_SCHEMA = "performer-plan/1";

/** One pass over tensors. */
export interface ForecastPass {
  readonly what: string;
  readonly rows: number;
  /** How often, where blocks of queries are held while all keys stream by. */
  readonly times: number;
  readonly bytes: number;
}

export interface Forecast {
  readonly schema: typeof PLAN_SCHEMA;
  readonly command: "attend";
  readonly dryRun: true;
  readonly backend: Report["backend"];
  readonly input: Omit<Report["input"], "firstRow" | "gaps">;
  readonly attention: {
    readonly features: string;
    readonly numFeatures: number | null;
    readonly projection: string | null;
    readonly causal: boolean;
    readonly compat: string;
    readonly nearFar: Attention["nearFar"];
    readonly tileRows: number;
  };
  readonly output: { readonly path: string; readonly dtype: string; readonly shape: readonly number[] } | null;
  readonly passes: readonly ForecastPass[];
  readonly bytes: {
    readonly read: number;
    readonly written: number;
    /** Of a pipe that has to be read more than once: kept on disk. */
    readonly spooled: number;
  };
  /** Multiply-adds counting two: of the attention, and of exact softmax on the checked rows. */
  readonly flops: { readonly attention: number; readonly check: number };
  /** Predictions, in seconds; null where there is nothing to tell them by. Writing is not predicted. */
  readonly seconds: {
    readonly read: number | null;
    readonly compute: number | null;
    readonly check: number | null;
    readonly total: number | null;
  };
  /** What predictions are made from. */
  readonly basis: {
    /** "trial": rows of the input ran; "kept" and "measured": the backend's speed on other rows, from an earlier run or just now. */
    readonly kind: "trial" | "kept" | "measured" | "none";
    /** Rows of the trial. */
    readonly rows: number | null;
    readonly gflopsPerSecond: number | null;
    /** How long it took to find out. */
    readonly seconds: number;
  };
  /** Largest resident memory of the trial: a run takes as much or somewhat more, whatever its length; null without a trial. */
  readonly memoryBytes: number | null;
  /** With `--max-memory`: the ceiling, and what the process is counted on to take at most. */
  readonly maxBytes: number | null;
  readonly plannedBytes: number | null;
  /** Of the trial's rows among themselves, as if they were all; null without a trial or a check. */
  readonly error: Pick<ErrorReport, "rowsChecked" | "relativeL2" | "uniformBaseline" | "skill" | "phi"> | null;
  /** What this does not tell. */
  readonly notes: readonly string[];
}

export interface ForecastOptions {
  readonly inputs: Inputs;
  readonly sizes: Sizes;
  readonly attention: Attention;
  readonly backend: Backend;
  readonly refused: readonly Refusal[];
  readonly tileRows: number | undefined;
  readonly memory: { readonly maxBytes: number; readonly plannedBytes: number } | null;
  readonly check: number;
  readonly redraws: number;
  readonly health: boolean;
  readonly encoding: string | null;
  /** The state that the run goes on from. */
  readonly before?: StoredState | null;
  readonly output: Forecast["output"];
  readonly written: number;
  /** Bytes of standard input that the run would keep on disk. */
  readonly spooled: number;
  /** Rows may be read here and there: not from a pipe, nor where a layer makes them. */
  readonly mayTry: boolean;
  /** Operations per second on other rows, where no trial can be made. */
  readonly speed: () => Promise<{ kind: "kept" | "measured"; flopsPerSecond: number }>;
  readonly peakBytes: () => number;
  readonly signal?: AbortSignal;
}

/** Seconds of computing from which a trial is long enough: threads have started and compilers are done. */
const ENOUGH = 0.15;
const FIRST_ROWS = 512;
const MOST_ROWS = 32_768;

/** Says what the run would do; computes a fraction of a second of it. */
export async function forecast(options: ForecastOptions): Promise<Forecast> {
  const { inputs, sizes, backend, refused, encoding, output, written, spooled, check, before = null } = options;
  const auto = options.attention.features === AUTO;
  const attention = stoodFor(options.attention);
  const { tileRows } = shapeOf(attention, sizes, backend.limits, options.tileRows);
  const passes = passesOf(attention, options, tileRows);
  const checked = isExact(attention) || isNone(attention) ? 0 : Math.min(check, sizes.queryRows);
  const flops = { attention: flopsOf(attention, sizes), check: checkFlops(sizes, checked, attention.causal) };
  const { work, ...found } = await predict({ ...options, attention }, flops, checked);
  const map = attention.nearFar || isExact(attention) || isNone(attention) ? null : featureMap(attention.features);
  const drawn = map !== null && map.projection !== "none";
  return {
    schema: PLAN_SCHEMA,
    command: "attend",
    dryRun: true,
    backend: { name: backend.name, device: backend.device, refused },
    input: {
      ...inputFacts(inputs, sizes),
      encoding,
    },
    attention: {
      features: options.attention.features,
      numFeatures: map && featuresIn(attention, map, sizes.headDim),
      projection: drawn ? attention.given?.path ?? attention.projection : null,
      causal: attention.causal,
      compat: attention.compat,
      nearFar: attention.nearFar ?? null,
      tileRows,
    },
    output,
    passes,
    bytes: { read: passes.reduce((sum, pass) => sum + pass.bytes, 0), written, spooled },
    flops: { ...flops, attention: work ?? flops.attention },
    ...found,
    maxBytes: options.memory?.maxBytes ?? null,
    plannedBytes: options.memory?.plannedBytes ?? null,
    notes: [
      ...(auto
        ? ["what --features auto takes is decided by trials when it runs; figures are of hyperbolic features"]
        : []),
      ...(options.attention.shrink === "auto" ? ["the trials of --shrink auto are not counted"] : []),
      ...(before
        ? [
          `the ${
            count(before.rows)
          } rows that "${before.path}" has seen are not read again, and the error is not measured`,
        ]
        : []),
      ...(spooled > 0 ? ["standard input is read more than once, so that it is kept on disk first"] : []),
      ...(attention.nearFar
        ? ["keys near the queries are read once more with them, and rows for fitting; not counted"]
        : []),
    ],
  };
}

/** What stands for an attention that is not chosen yet. */
function stoodFor(attention: Attention): Attention {
  const { features, numFeatures } = attention;
  const even = Math.max(2, numFeatures - numFeatures % 2);
  return { ...attention, shrink: null, ...(features === AUTO ? { features: "hyperbolic", numFeatures: even } : {}) };
}

/** r, the length of φ. */
function featuresIn({ given, numFeatures }: Attention, map: FeatureMap, headDim: number): number {
  const drawn = given ? given.data.length / given.matrices / given.headDim : projectionsFor(map, numFeatures, headDim);
  return featuresOf(map, drawn);
}

/** Rows that the map is fitted to. */
function fittedRows(attention: Attention, total: number): number {
  const fit = planFit(attention, false);
  return fit ? rangesOf(fit.source, total).reduce((sum, { start, end }) => sum + end - start, 0) : 0;
}

/** The passes in their order; a tensor that plays several roles in one is read once. */
function passesOf(
  attention: Attention,
  { inputs, sizes: { queryRows, keyRows }, check }: ForecastOptions,
  tileRows: number,
): ForecastPass[] {
  const { q, k, v, weights } = inputs;
  const keys = [k, v, ...(weights ? [weights] : [])];
  const pass = (what: string, sources: readonly TensorSource[], rows: number, times = 1): ForecastPass => {
    return { what, rows, times, bytes: times * bytesOf(sources) };
  };
  if (isNone(attention)) return [pass("values", [v], keyRows)];
  if (isExact(attention)) {
    const blocks = Math.ceil(queryRows / tileRows);
    // Causal blocks stop at their own rows: half of the keys on average.
    const share = attention.causal ? (blocks + 1) / 2 : blocks;
    return [pass("queries", [q], queryRows), pass("keys and values", keys, keyRows, share)];
  }
  const looked = fittedRows(attention, keyRows);
  const part = keyRows > 0 ? looked / keyRows : 0;
  return [
    ...(looked > 0 ? [{ what: "rows that are fitted to", rows: looked, times: 1, bytes: part * bytesOf([q, k]) }] : []),
    ...(attention.causal
      ? [pass("queries, keys and values", [q, ...keys], keyRows)]
      : [pass("keys and values", keys, keyRows), pass("queries", [q], queryRows)]),
    ...(check > 0 && keyRows > 0 ? [pass("keys and values, for the error check", keys, keyRows)] : []),
  ];
}

function flopsOf(attention: Attention, sizes: Sizes): number {
  if (isExact(attention) || isNone(attention) || attention.nearFar) return flopCount(attention, sizes, null);
  return flopCount(attention, sizes, parametersFor(attention, { ...sizes, queryRows: 1, keyRows: 1 }));
}

/** Exact softmax of sampled rows; causal ones see half of the keys on average. */
function checkFlops({ keyRows, heads, headDim, valueDim }: Sizes, checked: number, causal: boolean): number {
  return checked * keyRows * (causal ? 0.5 : 1) * heads * 2 * (headDim + valueDim);
}

type Predicted = Pick<Forecast, "seconds" | "basis" | "memoryBytes" | "error"> & {
  /** Operations of the attention where the trial knows better: whether keys are balanced comes out of a fit. */
  readonly work?: number;
};

async function predict(options: ForecastOptions, flops: Forecast["flops"], checked: number): Promise<Predicted> {
  const { sizes: { queryRows, keyRows }, mayTry, attention } = options;
  const started = performance.now();
  const spent = () => (performance.now() - started) / 1000;
  if (mayTry && queryRows === keyRows && queryRows > 0) {
    return await tryRows(options, flops, checked);
  }
  if (isNone(attention) || queryRows === 0) {
    const none = { read: null, compute: 0, check: 0, total: null };
    return {
      seconds: none,
      basis: { kind: "none", rows: null, gflopsPerSecond: null, seconds: spent() },
      memoryBytes: null,
      error: null,
    };
  }
  const { kind, flopsPerSecond } = await options.speed();
  const [compute, check] = [flops.attention / flopsPerSecond, flops.check / flopsPerSecond];
  return {
    seconds: { read: null, compute, check, total: compute + check },
    basis: { kind, rows: null, gflopsPerSecond: flopsPerSecond / 1e9, seconds: spent() },
    memoryBytes: null,
    error: null,
  };
}

/** Runs growing numbers of rows until that takes long enough, and draws a line through the last two. */
async function tryRows(options: ForecastOptions, flops: Forecast["flops"], checked: number): Promise<Predicted> {
  const { inputs, sizes, attention, before } = options;
  const total = sizes.queryRows;
  const started = performance.now();
  const run = (rows: number, check: number) => {
    const { backend, refused, tileRows, health, redraws, encoding, peakBytes, signal } = options;
    const part = sliceInputs(inputs, sliceOf(total, rows, attention.causal));
    const how = { backend, refused, tileRows, encoding, peakBytes, signal, sink: null };
    return attend({
      inputs: part,
      attention,
      check,
      redraws: check > 0 ? redraws : 0,
      health: check > 0 && health,
      state: before ? { before } : undefined,
      ...how,
    });
  };
  let rows = Math.min(total, FIRST_ROWS);
  await run(rows, 0); // compilers warm up
  while ((await run(rows, 0)).seconds.compute < ENOUGH && rows < Math.min(total, MOST_ROWS)) {
    rows = Math.min(total, MOST_ROWS, 4 * rows);
  }
  const few = Math.max(1, Math.floor(rows / 4));
  const sampled = Math.min(checked, few); // the same in both, so that the line is over keys
  const less = await run(few, sampled);
  const more = await run(rows, sampled);
  const part = { ...sizes, queryRows: rows, keyRows: rows };
  const small = { ...sizes, queryRows: few, keyRows: few };
  const whole = rows === total;
  const read = whole ? more.seconds.read : await readSeconds(options, rows, more.seconds.read);
  const work = [flopsOf(attention, small), flopsOf(attention, part)] as const;
  const compute = whole || work[1] === 0
    ? more.seconds.compute
    : onLine(work[0], less.seconds.compute, work[1], more.seconds.compute, flops.attention);
  const check = sampled === 0
    ? 0
    : (whole ? more.seconds.check : onLine(few, less.seconds.check, rows, more.seconds.check, total)) * checked /
      sampled;
  const error = more.error && {
    rowsChecked: more.error.rowsChecked,
    relativeL2: more.error.relativeL2,
    uniformBaseline: more.error.uniformBaseline,
    skill: more.error.skill,
    phi: more.error.phi,
  };
  return {
    seconds: { read, compute, check, total: read + compute + check },
    basis: {
      kind: "trial",
      rows,
      gflopsPerSecond: compute > 0 ? flops.attention / compute / 1e9 : null,
      seconds: (performance.now() - started) / 1000,
    },
    memoryBytes: options.peakBytes(),
    error,
    ...(planFit(attention, false) ? { work: more.flops * total / rows } : {}),
  };
}

/** Reading at the speed of these rows' tiles, and what of the trial's reading was fitting: that is done once, on no more than a sample. */
async function readSeconds({ inputs, sizes, attention, ...options }: ForecastOptions, rows: number, spent: number) {
  const { backend: { limits }, tileRows } = options;
  const part = sliceInputs(inputs, sliceOf(sizes.queryRows, rows, attention.causal));
  const shape = shapeOf(attention, sizes, limits, tileRows);
  using memory = new TileStore(options.backend, shape.tileRows, 1);
  const bytes = (passes: readonly ForecastPass[]) => passes.reduce((sum, pass) => sum + pass.bytes, 0);
  const once = passesOf(attention, { ...options, inputs, sizes, attention, check: 0 }, shape.tileRows);
  const started = performance.now();
  for await (const _ of part.tiles(shape.tileRows, limits.precision, attention.causal ? part.q : null, memory));
  const perByte = (performance.now() - started) / 1000 /
    bytesOf([part.k, part.v, ...(attention.causal ? [part.q] : [])]);
  const small = { ...options, inputs: part, sizes: { ...sizes, queryRows: rows, keyRows: rows }, attention, check: 0 };
  const fitting = Math.max(0, spent - perByte * bytes(passesOf(attention, small, shape.tileRows)));
  const looked = fittedRows(attention, rows);
  const growth = looked > 0 ? fittedRows(attention, sizes.keyRows) / looked : 0;
  return perByte * bytes(once) + growth * fitting;
}

/** What is at X on the line through two points of a cost that grows with x, whose fixed part is between none and all but a quarter. */
export function onLine(x1: number, y1: number, x2: number, y2: number, X: number): number {
  const mean = y2 / x2;
  const slope = x2 > x1 ? (y2 - y1) / (x2 - x1) : mean;
  return y2 + (X - x2) * Math.min(mean, Math.max(mean / 4, slope));
}
