/**
 * The cheapest attention that meets an error on these tensors. Everything is measured: candidates run for real, first on a slice of a
 * long input, the promising ones on all of it, and the cheapest that may do again with rows that played no part in finding it.
 */
import { type Attention, decayFor, flopCount, type Sizes, withoutDecay } from "./attention.ts";
import { UsageError } from "./errors.ts";
import { EXACT } from "./feature_map.ts";
import type { Refusal } from "./report.ts";
import type { Backend } from "./backend.ts";
import { budgetOf, type Candidate, candidatesFor } from "./candidates.ts";
import { clustersFor } from "./near_far_sizes.ts";
import type { Inputs } from "./inputs.ts";
import { compareOutputs, type ErrorSummary } from "./metrics.ts";
import { sliceInputs, sliceOf } from "./row_slice.ts";
import { sizesOf } from "./run.ts";
import { settingName } from "./setting_words.ts";
import { sampleRows } from "./sampled_rows.ts";
import {
  errorOf,
  errorOn,
  joinedTruths,
  settled,
  takesTops,
  type Trial,
  type TrialInputs,
  type Truth,
  truthOf,
  tryAttention,
} from "./trial.ts";

/** Longest input on which every candidate runs; of longer ones a slice of that many rows decides which go on. */
const SLICE_ROWS = 16_384;
/** Candidates of a long input that run on all of it, at most. */
const FINALISTS = 4;
/** Operations per row of a long input, in those of 256 random features, beyond which near and far settings take too long to try. */
const LONG_BUDGET = 3;
/** Operations of all rows up to which any setting is tried all the same: some 10 s of two cores with SIMD. */
const LONG_WORK = 1e11;
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
  /** Told of a setting as soon as it ran, on a slice or on all rows. What a second look says of it comes with the result. */
  readonly ran?: (one: Tried) => void;
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
  /** The 95 % interval of its error ends within the target: on the rows judged, and the fresh ones where it was looked at again. */
  readonly meets: boolean;
}

export interface Tuned {
  readonly tried: readonly Tried[];
  readonly chosen: Tried | null;
  /** Error of the chosen setting on rows that played no part in finding it alone; on all rows where those few were all judged. */
  readonly heldOut: ErrorSummary | null;
  readonly exact: { readonly seconds: number; readonly flopsPerRow: number };
  readonly uniformBaseline: number;
  /** Kinds of settings that were not tried, and why. */
  readonly leftOut: readonly Refusal[];
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
  /** λ per key head (decay.ts); null: none. */
  readonly decay: readonly number[] | null;
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
  const { far, top } = nearFar;
  const heavy = Math.min(nearFar.heavy, keyRows);
  const clusters = clustersFor(nearFar.clusters, keyRows);
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

/** Tries the candidates and chooses. */
export async function tune(options: TuneOptions): Promise<Tuned> {
  const { inputs, base, sampled, backend, signal } = options;
  const sizes = sizesOf(inputs, base.causal);
  const decay = decayFor(base, sizes);
  const { causal, scale } = base;
  // What is chosen is for rows beyond those of the sample; where all are judged there are no others.
  const population = sampled < sizes.queryRows ? Infinity : sizes.queryRows;
  const whole: TrialInputs = { inputs, sizes, backend, causal, scale, decay, population, signal };
  const long = sizes.queryRows > SLICE_ROWS && sizes.queryRows === sizes.keyRows;
  const tops = decay === null && takesTops(backend, sizes, base.causal);
  const most = long ? Math.max(LONG_BUDGET * budgetOf(256, sizes), LONG_WORK / sizes.queryRows) : Infinity;
  // Maps and numbers of features were asked for: they are tried in any case.
  const { leftOut: unable, maps, near } = ableOf(options);
  const all = candidatesFor({ ...options, sizes, maps, near, tops });
  const dear = all.filter(({ attention, flopsPerRow }) => attention.nearFar && flopsPerRow > most);
  const candidates = all.filter((candidate) => !dear.includes(candidate));
  const leftOut = [...unable, ...(dear.length > 0 ? [tooDear(dear)] : [])];
  let done = 0;
  const total = candidates.length + (long ? FINALISTS : 0) + 2;
  const step = () => options.progress?.(Math.min(total, ++done), total);
  const rows = sampleRows(sizes.queryRows, sampled, base.causal, base.seed + 1);
  const truth = await truthOf(whole, rows);
  requireAnswer(truth);
  step();
  const early: EarlyTrial[] = [];
  let finalists = candidates;
  if (long) {
    const range = sliceOf(sizes.queryRows, SLICE_ROWS, base.causal);
    const part = sliceInputs(inputs, range);
    const trialInputs = { ...whole, inputs: part, sizes: sizesOf(part, base.causal) };
    const partly = await truthOf(trialInputs, sampleRows(SLICE_ROWS, sampled, base.causal, base.seed + 1));
    for (const candidate of candidates) {
      const trial = await tryAttention(candidate.attention, trialInputs, partly);
      const one = triedFrom(trial, options, sizes, sizes.queryRows / SLICE_ROWS);
      options.ran?.(one);
      early.push({ ...one, candidate });
      step();
    }
    finalists = chooseFinalists(early, options, candidates);
  }
  const late: Tried[] = [];
  for (const { attention } of finalists) {
    const one = triedFrom(await tryAttention(attention, whole, truth), options, sizes, 1);
    options.ran?.(one);
    late.push(one);
    step();
  }
  const others = early.filter(({ candidate }) => !finalists.includes(candidate)).map(({ candidate: _, ...one }) => one);
  const found = await lookAgain(late, options, whole, truth);
  const tried = markPareto([...found.late, ...others]);
  const pairs = base.causal ? (sizes.queryRows + 1) / 2 : sizes.keyRows;
  return {
    tried,
    chosen: tried.find(({ attention }) => attention === found.chosen) ?? null,
    heldOut: found.heldOut,
    exact: {
      seconds: truth.secondsPerPair * sizes.queryRows * pairs,
      flopsPerRow: flopCount({ ...base, features: EXACT, nearFar: null }, sizes, null) / sizes.queryRows,
    },
    uniformBaseline: compareOutputs(truth.uniform, truth.exact, truth.uniform, sizes.heads, sizes.queryRows)
      .uniformBaseline,
    leftOut,
  };
}

/** What can be tried, and why the rest cannot. */
function ableOf(
  { base: { decay }, maps }: TuneOptions,
): { maps: readonly string[]; near: boolean; leftOut: Refusal[] } {
  if (!decay) return { maps, near: true, leftOut: [] };
  const reasons = maps.map((features) => ({ name: features, reason: withoutDecay({ features }) }));
  return {
    maps: maps.filter((_, i) => reasons[i].reason === null),
    near: false,
    leftOut: [
      { name: "near keys and far fields", reason: "they have no decay" },
      ...reasons.flatMap(({ name, reason }) => reason ? [{ name, reason }] : []),
    ],
  };
}

/** Why settings of much arithmetic are not tried on long inputs. */
function tooDear(dear: readonly Candidate[]): Refusal {
  const reason = "too much arithmetic to try on so many rows; performer attend --check measures the error of one";
  return { name: dear.map(({ attention }) => settingName(attention)).join("; "), reason };
}

/** A candidate that ran on a slice. */
interface EarlyTrial extends Tried {
  readonly candidate: Candidate;
}

/** A trial, with its shrinkage where that helps. */
function triedFrom(trial: Trial, { target }: TuneOptions, sizes: Sizes, scale: number): Tried {
  const { flopsPerRow, rows } = trial;
  const { attention, error } = settled(trial);
  return {
    attention,
    error,
    seconds: trial.seconds * scale,
    flopsPerRow,
    stateBytes: stateBytes(attention, sizes),
    rows,
    pareto: false,
    meets: error.relativeL2.high <= target,
  };
}

/** The most accurate first. */
export const byError = (a: Tried, b: Tried): number => errorOf(a) === errorOf(b) ? 0 : errorOf(a) - errorOf(b);

/** Refuses inputs on which every approximation is as good as another. */
function requireAnswer({ exact }: Truth): void {
  if (exact.data.every((value) => value === 0)) {
    throw new UsageError(
      "Cannot tune on this input: exact attention answers every sampled row with 0, so that nothing can be told apart; " +
        "check the values and the mask",
    );
  }
}

/** Those that may meet the target on all rows, cheapest first; where none may, the most accurate. */
function chooseFinalists(
  early: readonly EarlyTrial[],
  { target, prefer }: TuneOptions,
  candidates: readonly Candidate[],
): Candidate[] {
  const hopeful = early.filter(({ error }) => error.relativeL2.value <= target * SLICE_MARGIN)
    .sort(byCost(prefer));
  // Some of them are only just good enough: one with room to spare goes along.
  const safe = hopeful.filter(({ error }) => error.relativeL2.high <= target / SLICE_MARGIN);
  const accurate = [...early].sort(byError);
  const wanted = [...hopeful.slice(0, FINALISTS / 2), ...safe.slice(0, 1), ...accurate];
  const chosen = [...new Set(wanted.map(({ candidate }) => candidate))].slice(0, FINALISTS);
  return candidates.filter((candidate) => chosen.includes(candidate));
}

/** The cheapest first; of those with states of one size, the fastest. */
const byCost = (prefer: "time" | "memory") => (a: Tried, b: Tried): number => {
  return prefer === "time" ? a.seconds - b.seconds : a.stateBytes - b.stateBytes || a.seconds - b.seconds;
};

/** Marks those that no other beats in both time and error, and sorts by time. */
function markPareto(tried: readonly Tried[]): Tried[] {
  const sorted = [...tried].sort((a, b) => a.seconds - b.seconds);
  let best = Infinity;
  return sorted.map((one) => {
    const pareto = errorOf(one) < best;
    if (pareto) best = errorOf(one);
    return { ...one, pareto };
  });
}

/**
 * Settings that ran on all rows, the cheapest hopeful ones looked at once more until one holds, which is what is chosen.
 *
 * Of many candidates near the target some meet it by the luck of the sample. A second look adds as many fresh rows: one meets the target
 * when the 95 % interval of both samples together ends within it, and the error of the fresh rows alone, which played no part in finding
 * it, is within it too. Taken is the first whose fresh rows have all of their own interval within the target, so that as many other rows
 * will hardly exceed it; where there is none, the first that meets it. Its error becomes that of both samples, or of the fresh one where
 * that fails it. Where there are no fresh rows, all rows are judged once more, with the shrinkage that is to be used.
 */
async function lookAgain(
  late: readonly Tried[],
  { target, prefer, sampled, base: { causal, seed } }: TuneOptions,
  whole: TrialInputs,
  judged: Truth,
): Promise<{ late: Tried[]; chosen: Attention | null; heldOut: ErrorSummary | null }> {
  const looked = [...late];
  const hopeful = late.filter((one) => errorOf(one) <= target).sort(byCost(prefer));
  if (hopeful.length === 0) return { late: looked, chosen: null, heldOut: null };
  const { heads, queryRows } = whole.sizes;
  const seen = new Set(judged.rows);
  const others = sampleRows(queryRows, Math.min(queryRows, sampled + seen.size), causal, seed + 2);
  const fresh = thinned(others.filter((row) => !seen.has(row)), sampled);
  const both = fresh.length > 0 ? joinedTruths(judged, await truthOf(whole, fresh)) : judged;
  const places = Array.from({ length: both.rows.length }, (_, i) => i)
    .filter((i) => fresh.length === 0 || !seen.has(both.rows[i]));
  let first: { chosen: Attention; heldOut: ErrorSummary } | null = null;
  for (const one of hopeful) {
    const { error: all, approx } = await tryAttention(one.attention, whole, both);
    const heldOut = errorOn(places, approx, both, heads, whole.population ?? queryRows);
    const error = heldOut.relativeL2.value <= target ? all : heldOut;
    const meets = error.relativeL2.high <= target;
    looked[late.indexOf(one)] = { ...one, error, meets };
    if (meets && heldOut.relativeL2.high <= target) return { late: looked, chosen: one.attention, heldOut };
    if (meets) first ??= { chosen: one.attention, heldOut };
  }
  return { late: looked, chosen: null, heldOut: null, ...first };
}

/** At most `most` of some rows, evenly. */
function thinned(rows: Float64Array, most: number): Float64Array {
  if (rows.length <= most) return rows;
  return Float64Array.from({ length: most }, (_, i) => rows[Math.floor(i * rows.length / most)]);
}
