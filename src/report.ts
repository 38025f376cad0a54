/** What one run of `attend` found: plain data. Exporters turn it into text; nothing here prints. */
import type { NearFarSettings } from "./attention.ts";
import type { SessionCounts, Stage } from "./backend.ts";
import type { FitSource } from "./fit_near_far.ts";
import type { GapPolicy } from "./gaps.ts";
import type { ErrorSummary, RowSquares } from "./metrics.ts";
import type { RulesName } from "./rules_table.ts";
import type { Interval } from "./statistics.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const REPORT_SCHEMA = "performer-report/1";

export interface Refusal {
  readonly name: string;
  readonly reason: string;
}

/** The error against exact softmax attention, on sampled rows. */
export interface ErrorReport extends ErrorSummary {
  /** Mean ‖x_i + y_j‖² of scaled queries and keys: the number random features live or die by. */
  readonly phi: number;
  /** Error over independent draws of the projection on the same rows, when asked for. */
  readonly redraws:
    | (Interval & { readonly count: number; readonly logSd: number; readonly samples: readonly number[] })
    | null;
}

/** Low, middle and high of some numbers. */
export interface Quantiles {
  readonly p5: number;
  readonly median: number;
  readonly p95: number;
}

/** How well one query head is served, and what to do about it. Numbers that a kind of attention has not are null. */
export interface HeadHealth {
  readonly head: number;
  /** Mean ‖x + y‖² of scaled queries and keys as they came, and as the features saw them. */
  readonly phiBefore: number;
  readonly phi: number | null;
  /** Mean of ln(1 + m · relative variance) of a kernel entry, which the sizes above predict: Σ H(λ). */
  readonly logVariance: number | null;
  /** N_eff = (Σ p_a z_a)² / Σ (p_a z_a)² of sampled rows: how many features carry a row's denominator, of `numFeatures`. */
  readonly effectiveFeatures: Quantiles | null;
  /** Mean of ln D̂ − LSE over sampled rows: how far the estimated normaliser is from that of exact softmax. */
  readonly logNormaliserBias: number | null;
  /** Shares of sampled rows that see no key, and whose denominator is ≤ 0. */
  readonly emptyRows: number;
  readonly nonPositive: number | null;
  readonly relativeL2: number;
  readonly uniformBaseline: number;
  readonly skill: number;
  /** By skill: good from 0.9 (or an error below 1 %), fair from 0.5, poor above 0, else no-skill; "own" maps define an attention of their own; "empty" heads see no key. */
  readonly verdict: "good" | "fair" | "poor" | "no-skill" | "own" | "empty";
  /** The verdict in words, and its cause where there is one. */
  readonly summary: string;
  /** What to try; null: nothing has to be done. */
  readonly advice: string | null;
}

/** How every head fares. */
export interface HealthReport {
  /** Query rows that were compared, and those of them whose features were looked at. */
  readonly rows: number;
  readonly featureRows: number;
  /** Shares of all rows and heads of the run. */
  readonly emptyRows: number;
  readonly nonPositive: number;
  readonly recomputed: number;
  /** One per query head. */
  readonly heads: readonly HeadHealth[];
}

/** A state that was read or written; masked rows count as rows, not as keys. */
export interface StateSummary {
  readonly path: string;
  readonly rows: number;
  readonly keys: number;
}

/** What happened, and what to do about it. */
export interface Warning {
  readonly code:
    | "no-skill"
    | "low-skill"
    | "non-positive"
    | "empty-rows"
    | "own-kernel"
    | "leaks-future"
    | "fitted-ahead"
    | "keys-in-state"
    | "gaps"
    | "memory";
  readonly message: string;
  readonly remedy: string;
}

/** One run of attention: what was asked, what it took, how far it is from exact softmax. */
export interface Report {
  readonly schema: typeof REPORT_SCHEMA;
  readonly command: "attend";
  readonly backend: { readonly name: string; readonly device: string; readonly refused: readonly Refusal[] };
  readonly input: {
    readonly path: string;
    /** Query rows. */
    readonly rows: number;
    readonly keyRows: number;
    readonly heads: number;
    readonly kvHeads: number;
    readonly headDim: number;
    readonly valueDim: number;
    readonly dtype: string;
    readonly bytes: number;
    /** First row of the file that was used (`--rows`). */
    readonly firstRow: number;
    readonly encoding: string | null;
    /** With `--on-nan`: what became of rows with NaN or infinity, and how many there were; null: they are an error. */
    readonly gaps: { readonly policy: GapPolicy; readonly queryRows: number; readonly keyRows: number } | null;
  };
  readonly attention: {
    readonly features: string;
    readonly numFeatures: number | null;
    readonly projections: number | null;
    readonly projection: string | null;
    readonly norms: string | null;
    readonly seed: number | null;
    readonly causal: boolean;
    readonly scale: number;
    /** λ of the bias −λ (i − j), per key head; null: none. */
    readonly decay: readonly number[] | null;
    readonly compat: RulesName;
    readonly masked: boolean;
    /** Numbers that were fitted to data before attention began; null: none. */
    readonly params: {
      /** "fixed", "file", "prefix:N" or "sample:N". */
      readonly source: string;
      /** Key rows that were looked at. */
      readonly rows: number;
      /** Keys were moved by one vector per head, which exact softmax does not see. */
      readonly centred: boolean;
      /** Per key head; one alone where all are alike. */
      readonly heads: readonly {
        /** Mean ‖x + y‖² of scaled queries and keys as they came, and as the features saw them. */
        readonly phiBefore: number;
        readonly phi: number;
        /** Mean of ln(1 + m · relative variance) of a kernel entry: Σ H(λ). */
        readonly logVariance: number;
        /** A: one, or one per direction; empty where there is none. */
        readonly exponents: readonly number[];
      }[];
    } | null;
    readonly tileRows: number;
    /** Near keys and the far field, and what was fitted to which rows; null: random features or exact softmax. */
    readonly nearFar: (NearFarSettings & { readonly fit: FitSource }) | null;
    /** λ per head of shrinkage towards the mean of V; null: none. */
    readonly shrink: readonly number[] | null;
    /** Chosen by trials on these inputs (`--features auto`). */
    readonly chosen: boolean;
  };
  /** The state that the run went on from and the one it left, with the rows and keys in them; null: neither was asked for. */
  readonly state: { readonly in: StateSummary | null; readonly out: StateSummary | null } | null;
  /** The checkpoint's layer that made queries, keys and values of the input's rows; null: the input holds them. */
  readonly layer: { readonly path: string; readonly model: string; readonly index: number } | null;
  readonly output: { readonly path: string; readonly dtype: string; readonly shape: readonly number[] } | null;
  /**
   * Wall time in seconds. Phases overlap where a backend computes while files are read and written; `compute` is the time in which
   * it had work. `check` is the error check, which is not part of the throughput.
   */
  readonly seconds: { read: number; compute: number; write: number; check: number; total: number };
  /** With `--profile`: seconds per stage of the computation, added up over threads; null where not measured. */
  readonly stages: Readonly<Record<Stage, number>> | null;
  /** Query rows per second of compute time; of all the time where there is no attention to compute (`--features none`). */
  readonly tokensPerSecond: number;
  readonly flops: number;
  readonly gflopsPerSecond: number;
  /** Largest resident memory of the process, and what it was to stay below (`--max-memory`; null: nothing was said). */
  readonly peakBytes: number;
  readonly maxBytes: number | null;
  readonly counts: SessionCounts;
  /** Where an earlier run that was ended came to (`--resume`), whose times are counted in; null: this run did all. */
  readonly resumed: { readonly keyRows: number; readonly rows: number } | null;
  /** null: not checked, or the attention is exact itself. */
  readonly error: ErrorReport | null;
  /** With `--health`: how each head fares; null: not asked for, not checked, or the attention is exact itself. */
  readonly health: HealthReport | null;
  /** For plots, where they were asked for (`keepRows`): too long for a report that is printed, and in none. */
  readonly rowSquares?: RowSquares;
  readonly warnings: readonly Warning[];
}
