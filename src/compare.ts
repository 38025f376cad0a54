/**
 * What `compare` sweeps and what it finds: the same rows through several feature maps, lengths of φ, projections and backends, with
 * error, time and memory side by side. Plain data and the choice among it; measures nothing and prints nothing.
 */
import { type Attention, expectedWork, type NearFarSettings, type Sizes } from "./attention.ts";
import { settingsOf } from "./bench.ts";
import { type Variant, variantName } from "./drift.ts";
import { featureMap } from "./feature_map.ts";
import type { Refusal, Warning } from "./report.ts";
import type { Interval } from "./statistics.ts";
import { duration } from "./words.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const COMPARE_SCHEMA = "performer-compare/1";

/** What is varied besides backends. */
export interface CompareAxes {
  readonly features: readonly string[];
  /** r, lengths of φ. */
  readonly numFeatures: readonly number[];
  readonly projections: readonly string[];
  readonly nearFar?: readonly NearFarSettings[];
}

/** A setting to be compared; `projection` is null where there is nothing to draw. Near keys and far fields have a name, but no m. */
export interface Entrant extends Variant {
  readonly attention: Attention;
}

/**
 * Every map with every length and projection, and near keys with far fields, without repetitions. Throws UsageError for a length that a
 * map cannot have.
 */
export function entrantsOf(
  axes: CompareAxes,
  headDim: number,
  common: Omit<Attention, "features" | "numFeatures" | "projection">,
): Entrant[] {
  const settings = settingsOf({ ...axes, causal: [common.causal] }, headDim);
  return settings.map(({ features, numFeatures, projection, nearFar }) => ({
    features,
    numFeatures,
    projection,
    attention: {
      ...common,
      features: nearFar?.far ?? features,
      numFeatures: numFeatures ?? 0,
      projection: projection ?? "orthogonal",
      ...(nearFar ? { nearFar } : {}),
    },
  }));
}

/** Paired draws where they are affordable: fewer than three give hardly an interval. */
const DRAWS = 3;
/** Operations of the pass over the keys up to which they are: about 20 s on two cores with SIMD. */
const AFFORDABLE = 1e12;

/** Draws of every projection unless the user says how many: 3, or 1 where the work of 3 on `backends` backends is more than AFFORDABLE. */
export function drawsFor(entrants: readonly Entrant[], sizes: Sizes, backends: number): number {
  const drawn = entrants.filter(({ projection }) => projection !== null);
  // Bidirectional passes ask only the sampled queries; causal ones answer all rows on the way.
  const passing = (attention: Attention) =>
    expectedWork(attention, attention.causal ? sizes : { ...sizes, queryRows: 0 });
  const once = drawn.reduce((sum, { attention }) => sum + passing(attention), 0);
  return DRAWS * once * backends <= AFFORDABLE ? DRAWS : 1;
}

/** An entrant on a backend. */
export interface Contender extends Variant {
  /** As it was asked for, with its variant: "gpujs:cpu". */
  readonly backend: string;
}

/** One line of the table. An error never travels without its baseline and its skill. */
export interface CompareRow extends Contender {
  /** Relative L2 error against exact softmax: geometric mean over the draws. */
  readonly relativeL2: Interval;
  /** What the 95 % interval is over: draws of the projection, or, where there is one draw only, the sampled rows. */
  readonly intervalOver: "draws" | "rows";
  /** Relative L2 error of the mean of the visible values. */
  readonly uniformBaseline: number;
  /** 1 − (relativeL2 / uniformBaseline)²: ≤ 0 is no better than that mean. */
  readonly skill: number;
  /** Errors of the draws 0, 1, …: the same random streams in every row. */
  readonly draws: { readonly count: number; readonly samples: readonly number[] };
  /** Compute time of all rows at the measured speed. */
  readonly seconds: number;
  /** Query rows per second. */
  readonly tokensPerSecond: number;
  /** Operations per query row, over all heads, as `flopCount` counts them. */
  readonly flopsPerToken: number;
  /** Bytes of the running state that stands for all keys and values. */
  readonly stateBytes: number;
  /** Near keys and the far field; null: features. */
  readonly nearFar: NearFarSettings | null;
  /** The flags of `attend` that ask for this. */
  readonly flags: readonly string[];
  /** Share of the answered (row, head) pairs whose denominator is ≤ 0 or not finite. */
  readonly nonPositive: number;
  /** Nothing else is at least as good in both error and time, exact attention and the mean of V among them. */
  readonly pareto: boolean;
}

/** Exact attention of the same rows, where it is fastest. */
export interface ExactCost {
  readonly backend: string;
  readonly flopsPerToken: number;
  /** From the speed of `rowsTimed` rows and the number of pairs. */
  readonly secondsEstimated: number;
  readonly tokensPerSecond: number;
  readonly rowsTimed: number;
  /** Bytes of all keys and values as float32, which stay needed. */
  readonly stateBytes: number;
}

/** The row with the least error. */
export interface Best extends Contender {
  readonly relativeL2: number;
  readonly skill: number;
  readonly betterThanUniform: boolean;
  /** The flags of `attend` that ask for it. */
  readonly flags: readonly string[];
  /** Estimated time of exact attention over the time of this row. */
  readonly speedup: number;
  /** The setting that comes next, whatever the backend, and in how many of the paired draws the best one has less error. */
  readonly next: (Contender & { readonly relativeL2: number; readonly wins: number; readonly draws: number }) | null;
}

/** What `compareSettings` found. */
export interface CompareFindings {
  readonly sampling: {
    readonly rowsChecked: number;
    readonly draws: number;
    /** Rows that speed was measured on. */
    readonly rowsTimed: number;
  };
  /** Mean ‖x + y‖² of scaled queries and keys: random features need about 4 or less. */
  readonly phi: number;
  readonly uniformBaseline: number;
  readonly exact: ExactCost;
  /** By error, the least first. */
  readonly rows: readonly CompareRow[];
  readonly best: Best | null;
  /** Wall time of measuring errors, reading included, and speeds. */
  readonly seconds: { readonly errors: number; readonly speed: number };
}

export interface CompareReport extends CompareFindings {
  readonly schema: typeof COMPARE_SCHEMA;
  readonly command: "compare";
  readonly backends: readonly { readonly name: string; readonly device: string; readonly threads: number | null }[];
  readonly refused: readonly Refusal[];
  readonly input: Omit<Sizes, "queryRows"> & {
    readonly path: string;
    /** Query rows. */
    readonly rows: number;
    readonly dtype: string;
    readonly firstRow: number;
    readonly encoding: string | null;
  };
  readonly attention: {
    readonly causal: boolean;
    readonly scale: number;
    /** λ per key head (decay.ts); null: none. */
    readonly decay: readonly number[] | null;
    readonly masked: boolean;
    readonly norms: string;
    readonly seed: number;
  };
  readonly seconds: CompareFindings["seconds"] & { readonly total: number };
  readonly peakBytes: number;
  readonly warnings: readonly Warning[];
}

/** Error and time of one way to answer. */
export interface Trade {
  readonly error: number;
  readonly seconds: number;
}

/** Whether no other is at least as good in both and better in one; an error that is not a number never qualifies. */
export function paretoFront(ways: readonly Trade[], others: readonly Trade[] = []): boolean[] {
  const beats = (a: Trade, b: Trade) =>
    a.error <= b.error && a.seconds <= b.seconds && (a.error < b.error || a.seconds < b.seconds);
  return ways.map((way) => !Number.isNaN(way.error) && ![...ways, ...others].some((other) => beats(other, way)));
}

const sameSetting = (a: Variant, b: Variant) =>
  a.features === b.features && a.numFeatures === b.numFeatures && a.projection === b.projection;

/** Backends make the same estimate but for rounding: errors of one setting that differ by less than this are the same. */
const ROUNDING = 1e-2;

/** The error of a row's setting: the least on any backend, where it is the same. */
function settingError(row: Omit<CompareRow, "pareto">, rows: readonly Omit<CompareRow, "pareto">[]): number {
  const { value } = row.relativeL2;
  const least = rows.filter((other) => sameSetting(other, row)).map(({ relativeL2 }) => relativeL2.value)
    .reduce((a, b) => b < a ? b : a, value);
  return value <= least * (1 + ROUNDING) ? least : value;
}

/** Rows by error, the fastest backend of a setting first, with the front marked. */
export function ranked(
  rows: readonly Omit<CompareRow, "pareto">[],
  exact: Pick<ExactCost, "secondsEstimated">,
): CompareRow[] {
  const trades = rows.map((row) => ({ error: settingError(row, rows), seconds: row.seconds }));
  const baseline = rows[0]?.uniformBaseline ?? NaN;
  const front = paretoFront(trades, [{ error: 0, seconds: exact.secondsEstimated }, { error: baseline, seconds: 0 }]);
  const rank = ({ error }: Trade) => Number.isNaN(error) ? Infinity : error;
  return rows.map((row, i) => ({ row: { ...row, pareto: front[i] }, trade: trades[i] }))
    .sort((a, b) => rank(a.trade) - rank(b.trade) || a.trade.seconds - b.trade.seconds)
    .map(({ row }) => row);
}

const contender = ({ features, numFeatures, projection, backend }: Contender): Contender => ({
  features,
  numFeatures,
  projection,
  backend,
});

/** The best of `ranked` rows; null when there is none with an error. */
export function bestOf(rows: readonly CompareRow[], exact: Pick<ExactCost, "secondsEstimated">): Best | null {
  const [best] = rows;
  if (!best || Number.isNaN(best.relativeL2.value)) return null;
  const next = rows.find((row) => !sameSetting(row, best));
  // Draws are compared in pairs where both have as many; a map without a projection is the same in every draw.
  const draws = next ? Math.max(best.draws.count, next.draws.count) : 0;
  const sample = (row: CompareRow, draw: number) => row.draws.samples[draw % row.draws.count];
  const wins = Array.from({ length: draws }, (_, draw) => sample(best, draw) < sample(next!, draw));
  return {
    ...contender(best),
    relativeL2: best.relativeL2.value,
    skill: best.skill,
    betterThanUniform: best.skill > 0,
    flags: best.flags,
    speedup: exact.secondsEstimated / best.seconds,
    next: next
      ? { ...contender(next), relativeL2: next.relativeL2.value, wins: wins.filter(Boolean).length, draws }
      : null,
  };
}

/** What a reader must be told; near keys and far fields are no remedy where there is decay. */
export function compareWarnings(
  { rows, best, phi, exact }: Pick<CompareFindings, "rows" | "best" | "phi" | "exact">,
  decays = false,
): Warning[] {
  const warnings: Warning[] = [];
  const most = Math.max(0, ...rows.map(({ numFeatures }) => numFeatures ?? 0));
  const why = phi > 4
    ? `queries and keys are large (mean ‖x+y‖² = ${phi.toFixed(1)}; random features need about 4 or less). `
    : "";
  const remedy =
    `${why}Try more features (-m ${4 * most})${
      decays ? "" : ", performer attend --window 64 --heavy 64 --far taylor1,"
    } ` +
    `or exact attention (--features softmax, about ${duration(exact.secondsEstimated)})`;
  if (!best || !best.betterThanUniform) {
    warnings.push({
      code: "no-skill",
      message: "None of these is better than ignoring attention: the mean of V is as close to exact softmax",
      remedy,
    });
  } else if (best.skill < 0.5) {
    warnings.push({
      code: "low-skill",
      message: "Even the best captures less than half of what attention does",
      remedy,
    });
  }
  const estimates = ({ features, nearFar }: CompareRow) =>
    nearFar !== null || featureMap(features).kernel === "softmax";
  const own = new Set(rows.filter((row) => !estimates(row)).map(({ features }) => features));
  if (own.size > 0) {
    warnings.push({
      code: "own-kernel",
      message: `${
        [...own].join(", ")
      }: attention of its own, whose distance from softmax is a difference, not an error`,
      remedy: "softmax is estimated by maps such as hyperbolic",
    });
  }
  const bad = rows.filter(({ nonPositive }) => nonPositive > 0);
  if (bad.length > 0) {
    const shares = bad.map((row) => `${variantName(row)} (${(100 * row.nonPositive).toPrecision(2)} %)`);
    warnings.push({
      code: "non-positive",
      message: `Denominators are ≤ 0 or beyond float range with ${
        shares.join(", ")
      }: such outputs are not averages of V`,
      remedy: "use a positive map such as hyperbolic",
    });
  }
  return warnings;
}
