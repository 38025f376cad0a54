/**
 * The cheapest attention that meets an error on these tensors. Everything is measured: candidates run for real, first on a slice of a
 * long input, the promising ones on all of it, and the chosen one is checked again on rows that played no part in the choice.
 */
import type { Attention, Sizes } from "./attention.ts";
import { UnsupportedError } from "./errors.ts";
import type { Refusal } from "./report.ts";
import type { Backend } from "./backend.ts";
import { type Candidate, candidatesFor } from "./candidates.ts";
import { BLOCK_ROWS } from "./near_far.ts";
import type { Inputs } from "./inputs.ts";
import type { ErrorSummary } from "./metrics.ts";
import { sliceInputs } from "./row_slice.ts";
import { sizesOf } from "./run.ts";
import { sampleRows } from "./sampled_rows.ts";
import type { RowRange } from "./tensor.ts";
import { type Trial, type TrialInputs, truthOf, tryAttention } from "./trial.ts";

/** Longest input on which every candidate runs; of longer ones a slice of that many rows decides which go on. */
const SLICE_ROWS = 16_384;
/** Candidates of a long input that run on all of it, at most. */
const FINALISTS = 6;
/** A slice is shorter than the whole: errors may grow by this much until a candidate is out of the running. */
const SLICE_MARGIN = 1.5;

export interface TuneOptions {
  readonly inputs: Inputs;
  readonly backend: Backend;
  /** Settings that all candidates share. */
  readonly base: Attention;
  /** Largest relative L2 error wanted. */
  readonly target: number;
  readonly prefer: "time" | "memory";
  readonly sampled: number;
  readonly maps: readonly string[];
  readonly numFeatures: readonly number[];
  readonly signal?: AbortSignal;
  readonly progress?: (done: number, total: number) => void;
}

/** A candidate that ran. */
export interface Tried {
  readonly attention: Attention;
  readonly error: ErrorSummary;
  /** Seconds of computation for all rows of the input; scaled up from a slice where only that ran. */
  readonly seconds: number;
  readonly flopsPerRow: number;
  readonly stateBytes: number;
  /** Rows it ran on. */
  readonly rows: number;
  /** No other is both faster and more accurate. */
  readonly pareto: boolean;
  readonly meets: boolean;
}

export interface Tuned {
  readonly tried: readonly Tried[];
  readonly chosen: Tried | null;
  /** Error of the chosen setting on rows that played no part in choosing it. */
  readonly heldOut: ErrorSummary | null;
  readonly exact: { readonly seconds: number; readonly flopsPerRow: number };
  readonly uniformBaseline: number;
}

/** Raised when a key of the JSON changes its meaning or goes away. */
export const TUNE_SCHEMA = "performer-tune/1";

export interface TuneReport extends Tuned {
  readonly schema: typeof TUNE_SCHEMA;
  readonly command: "tune";
  readonly backend: { readonly name: string; readonly device: string; readonly refused: readonly Refusal[] };
  readonly input: {
    readonly path: string;
    readonly rows: number;
    readonly keyRows: number;
    readonly heads: number;
    readonly headDim: number;
  };
  readonly causal: boolean;
  readonly target: number;
  readonly prefer: "time" | "memory";
  /** The command line of the chosen setting. */
  readonly use: string | null;
  readonly seconds: { readonly total: number };
}

/** Numbers a session keeps per pass, in bytes of float64; keys of `top` clusters in float32. */
export function stateBytes({ nearFar, numFeatures }: Attention, sizes: Sizes): number {
  const { kvHeads, headDim: d, valueDim, keyRows } = sizes;
  if (!nearFar) return kvHeads * numFeatures * (valueDim + 2) * 8;
  const { far, clusters, heavy, top } = nearFar;
  const pairs = d * (d + 1) / 2;
  const order1 = (d + 1) * (valueDim + 1);
  const field = {
    none: 0,
    taylor1: order1,
    taylor2: order1 + pairs * (valueDim + 1),
    hermite2: order1 + pairs * (valueDim + 1),
    clusters: clusters * (3 * d + valueDim + 1),
  }[far];
  const kept = top > 0 ? keyRows * (d + valueDim) * 4 : 0;
  return kvHeads * (8 * (field + heavy * (d + valueDim + 2)) + kept);
}

/** The middle of a long input; its beginning when causal, where the middle would lack its past. */
export function sliceOf(rows: number, most: number, causal: boolean): RowRange {
  if (rows <= most) return { start: 0, end: rows };
  const middle = Math.floor((rows - most) / 2);
  const start = causal ? 0 : middle - middle % BLOCK_ROWS;
  return { start, end: start + most };
}

/** Whether the backend takes clusters' keys exactly. */
export async function takesTops(backend: Backend, sizes: Sizes, causal: boolean): Promise<boolean> {
  const { heads, kvHeads, headDim, valueDim } = sizes;
  const shape = { heads, kvHeads, headDim, valueDim, causal, tileRows: BLOCK_ROWS };
  const clusters = { count: 1, centroids: new Float64Array(kvHeads * headDim), top: 1 };
  const common = { scale: 1, window: 0, heavy: 0, far: "clusters", exactRows: 0 } as const;
  try {
    const plan = { ...shape, ...common, centre: new Float64Array(kvHeads * headDim), clusters };
    await (await backend.prepareNearFar!(plan))[Symbol.asyncDispose]();
    return true;
  } catch (error) {
    if (error instanceof UnsupportedError) return false;
    throw error;
  }
}

/** Tries the candidates and chooses. */
export async function tune(options: TuneOptions): Promise<Tuned> {
  const { inputs, base, sampled, backend, signal } = options;
  const sizes = sizesOf(inputs, base.causal);
  const candidates = candidatesFor({ ...options, sizes, tops: await takesTops(backend, sizes, base.causal) });
  const whole: TrialInputs = { inputs, sizes, backend, causal: base.causal, scale: base.scale, signal };
  const long = sizes.queryRows > SLICE_ROWS && sizes.queryRows === sizes.keyRows;
  let done = 0;
  const total = candidates.length + (long ? FINALISTS : 0) + 2;
  const step = () => options.progress?.(Math.min(total, ++done), total);
  const rows = sampleRows(sizes.queryRows, sampled, base.causal, base.seed + 1);
  const early: EarlyTrial[] = [];
  let finalists = candidates;
  if (long) {
    const range = sliceOf(sizes.queryRows, SLICE_ROWS, base.causal);
    const part = sliceInputs(inputs, range);
    const trialInputs = { ...whole, inputs: part, sizes: sizesOf(part, base.causal) };
    const truth = await truthOf(trialInputs, sampleRows(SLICE_ROWS, sampled, base.causal, base.seed + 1));
    for (const candidate of candidates) {
      const trial = await tryAttention(candidate.attention, trialInputs, truth);
      early.push({ ...triedFrom(trial, options, sizes, sizes.queryRows / SLICE_ROWS), candidate });
      step();
    }
    finalists = chooseFinalists(early, options, candidates);
  }
  const truth = await truthOf(whole, rows);
  step();
  const late: Tried[] = [];
  for (const { attention } of finalists) {
    late.push(triedFrom(await tryAttention(attention, whole, truth), options, sizes, 1));
    step();
  }
  const others = early.filter(({ candidate }) => !finalists.includes(candidate)).map(({ candidate: _, ...one }) => one);
  const tried = markPareto([...late, ...others]);
  const chosen = bestOf(tried.filter(({ rows }) => rows === sizes.queryRows), options.prefer);
  const pairs = base.causal ? (sizes.queryRows + 1) / 2 : sizes.keyRows;
  return {
    tried,
    chosen,
    heldOut: chosen && await heldOut(chosen, whole, rows, sampled),
    exact: {
      seconds: truth.secondsPerPair * sizes.queryRows * pairs,
      flopsPerRow: pairs * sizes.heads * 2 * (sizes.headDim + sizes.valueDim),
    },
    uniformBaseline: tried[0]?.error.uniformBaseline ?? NaN,
  };
}

/** A candidate that ran on a slice. */
interface EarlyTrial extends Tried {
  readonly candidate: Candidate;
}

/** A trial, with its shrinkage where that helps. */
function triedFrom(trial: Trial, { target }: TuneOptions, sizes: Sizes, scale: number): Tried {
  const { attention, seconds, flopsPerRow, rows, error, shrinkage } = trial;
  const common = { attention, seconds: seconds * scale, flopsPerRow, rows, stateBytes: stateBytes(attention, sizes) };
  const of = (error: ErrorSummary, lambda: readonly number[] | null): Tried => {
    return {
      ...common,
      attention: lambda ? { ...attention, shrink: lambda } : attention,
      error,
      pareto: false,
      meets: error.relativeL2.high <= target,
    };
  };
  const helps = shrinkage.error.relativeL2.value < SHRINKAGE_GAIN * error.relativeL2.value ||
    !Number.isFinite(error.relativeL2.value);
  return helps ? of(shrinkage.error, shrinkage.lambda) : of(error, null);
}

/** Shrinkage is taken where it makes the error smaller by this factor. */
const SHRINKAGE_GAIN = 0.95;

/** Those that may meet the target on all rows, cheapest first; where none may, the most accurate. */
function chooseFinalists(
  early: readonly EarlyTrial[],
  { target, prefer }: TuneOptions,
  candidates: readonly Candidate[],
): Candidate[] {
  const hopeful = early.filter(({ error }) => error.relativeL2.value <= target * SLICE_MARGIN)
    .sort((a, b) => costOf(a, prefer) - costOf(b, prefer));
  // Some of them are only just good enough: a few with room to spare go along.
  const safe = hopeful.filter(({ error }) => error.relativeL2.high <= target / SLICE_MARGIN);
  const accurate = [...early].sort((a, b) => a.error.relativeL2.value - b.error.relativeL2.value);
  const wanted = [...hopeful.slice(0, FINALISTS - 3), ...safe.slice(0, 2), ...accurate.slice(0, FINALISTS)];
  const chosen = [...new Set(wanted.map(({ candidate }) => candidate))].slice(0, FINALISTS);
  return candidates.filter((candidate) => chosen.includes(candidate));
}

const costOf = ({ seconds, stateBytes }: Tried, prefer: "time" | "memory") => prefer === "time" ? seconds : stateBytes;

/** The cheapest that meets the target; null where none does. */
function bestOf(tried: readonly Tried[], prefer: "time" | "memory"): Tried | null {
  const good = tried.filter(({ meets }) => meets).sort((a, b) => costOf(a, prefer) - costOf(b, prefer));
  return good[0] ?? null;
}

/** Marks those that no other beats in both time and error, and sorts by time. */
function markPareto(tried: readonly Tried[]): Tried[] {
  const sorted = [...tried].sort((a, b) => a.seconds - b.seconds);
  let best = Infinity;
  return sorted.map((one) => {
    const pareto = one.error.relativeL2.value < best;
    if (pareto) best = one.error.relativeL2.value;
    return { ...one, pareto };
  });
}

/** The chosen setting on fresh rows. */
async function heldOut(chosen: Tried, whole: TrialInputs, used: Float64Array, sampled: number): Promise<ErrorSummary> {
  const { seed, causal } = chosen.attention;
  const seen = new Set(used);
  const fresh = sampleRows(whole.sizes.queryRows, 2 * sampled, causal, seed + 2).filter((row) => !seen.has(row));
  const rows = fresh.length > 0 ? fresh.slice(0, Math.max(sampled, 1)) : used;
  const truth = await truthOf(whole, rows);
  return (await tryAttention(chosen.attention, whole, truth)).error;
}
