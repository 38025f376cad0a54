/** What one run of `attend` found: plain data. Exporters turn it into text; nothing here prints. */
import type { NearFarSettings } from "./attention.ts";
import type { SessionCounts, Stage } from "./backend.ts";
import type { FitSource } from "./fit_near_far.ts";
import type { ErrorSummary } from "./metrics.ts";
import type { RulesName } from "./rules_table.ts";
import type { Interval } from "./statistics.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const REPORT_SCHEMA = "performer-report/1";

export interface Refusal {
  readonly name: string;
  readonly reason: string;
}

export interface ErrorReport extends ErrorSummary {
  /** Mean ‖x_i + y_j‖² of scaled queries and keys: the number random features live or die by. */
  readonly phi: number;
  /** Error over independent draws of the projection on the same rows, when asked for. */
  readonly redraws:
    | (Interval & { readonly count: number; readonly logSd: number; readonly samples: readonly number[] })
    | null;
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
    | "fitted-ahead";
  readonly message: string;
  readonly remedy: string;
}

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
  /** Query rows per second of compute time. */
  readonly tokensPerSecond: number;
  readonly flops: number;
  readonly gflopsPerSecond: number;
  readonly peakBytes: number;
  readonly counts: SessionCounts;
  /** null: not checked, or the attention is exact itself. */
  readonly error: ErrorReport | null;
  readonly warnings: readonly Warning[];
}
