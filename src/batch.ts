/** What a batch of `attend` found: a record per input, and what they come to. Plain data; exporters turn it into text. */
import type { Report } from "./report.ts";
import { type Interval, quantile } from "./statistics.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const BATCH_SCHEMA = "performer-batch/1";

/** Why there is no output of an input. */
export interface BatchFailure {
  readonly message: string;
  /** The one that `attend` of this input alone would end with. */
  readonly exitCode: number;
}

/** One input of a batch; numbers are null where it was skipped or failed. */
export interface BatchRecord {
  /** Of the list, from 1. */
  readonly line: number;
  readonly input: string;
  readonly status: "done" | "skipped" | "failed";
  /** null: not kept, or it failed. */
  readonly output: string | null;
  /** Query rows, query heads and columns of each. */
  readonly rows: number | null;
  readonly heads: number | null;
  readonly headDim: number | null;
  /** Wall time, opening files and checking the error too. */
  readonly seconds: number;
  readonly error:
    | {
      readonly rowsChecked: number;
      readonly relativeL2: Interval;
      readonly uniformBaseline: number;
      readonly skill: number;
    }
    | null;
  /** The error is above `--max-error`; null: there is none, or no error. */
  readonly exceeds: boolean | null;
  /** Codes of the report's warnings. */
  readonly warnings: readonly string[];
  readonly failed: BatchFailure | null;
}

/** What all inputs come to. */
export interface BatchSummary {
  readonly schema: typeof BATCH_SCHEMA;
  readonly command: "attend";
  /** File of the list, or "standard input". */
  readonly list: string;
  /** Folder of the outputs; null: they are not kept. */
  readonly output: string | null;
  readonly backend: Report["backend"];
  readonly inputs: number;
  readonly done: number;
  readonly skipped: number;
  readonly failed: number;
  /** Not begun or not ended when the batch was interrupted. */
  readonly left: number;
  readonly interrupted: boolean;
  /** Inputs whose error is above `--max-error`. */
  readonly exceeded: number;
  /** Query rows of inputs that are done. */
  readonly rows: number;
  readonly seconds: number;
  readonly inputsPerSecond: number;
  readonly peakBytes: number;
  /** Relative L2 errors and skills over inputs; null: none was checked. */
  readonly error: {
    readonly checked: number;
    readonly median: number;
    readonly p95: number;
    readonly max: number;
    /** The input with the largest. */
    readonly worst: string;
    /** Inputs whose approximation is no better than the mean of V. */
    readonly withoutSkill: number;
  } | null;
  /** The first of them, `FAILURES` at most. */
  readonly failures: readonly (BatchFailure & Pick<BatchRecord, "line" | "input">)[];
  readonly exitCode: number;
}

/** Failures that a summary names. */
export const FAILURES = 10;
const TRANSIENT = 75;
const BUG = 70;
const EXCEEDED = 1;
const INTERRUPTED = 130;

/** What a run of `attend` on one input found. */
export function recordOf(
  { line, input }: Pick<BatchRecord, "line" | "input">,
  report: Report,
  { seconds, maxError }: { readonly seconds: number; readonly maxError: number | undefined },
): BatchRecord {
  const { error } = report;
  const { rows, heads, headDim } = report.input;
  return {
    line,
    input,
    status: "done",
    output: report.output?.path ?? null,
    rows,
    heads,
    headDim,
    seconds,
    error: error && {
      rowsChecked: error.rowsChecked,
      relativeL2: error.relativeL2,
      uniformBaseline: error.uniformBaseline,
      skill: error.skill,
    },
    exceeds: error && maxError !== undefined ? error.relativeL2.value > maxError : null,
    warnings: report.warnings.map(({ code }) => code),
    failed: null,
  };
}

/** An input without a run: it failed, or its output is there. */
export function recordWithout(
  { line, input }: Pick<BatchRecord, "line" | "input">,
  { status, output = null, seconds = 0, failed = null }:
    & Pick<BatchRecord, "status">
    & Partial<Pick<BatchRecord, "output" | "seconds" | "failed">>,
): BatchRecord {
  const none = { rows: null, heads: null, headDim: null, seconds, error: null, exceeds: null, warnings: [] };
  return { line, input, status, output, ...none, failed };
}

/** Adds records up; of each input it keeps one number. */
export class BatchTally {
  #done = 0;
  #skipped = 0;
  #failed = 0;
  #exceeded = 0;
  #rows = 0;
  #withoutSkill = 0;
  #worst = { input: "", value: -1 };
  readonly #errors: number[] = [];
  readonly #failures: BatchSummary["failures"][number][] = [];
  /** Exit code of the first input that fails for good. */
  #lasting: number | null = null;
  #transient = false;
  #bug = false;

  /** Records so far. */
  get count(): number {
    return this.#done + this.#skipped + this.#failed;
  }

  add({ line, input, status, rows, error, exceeds, failed }: BatchRecord): void {
    if (status === "done") this.#done++;
    if (status === "skipped") this.#skipped++;
    this.#rows += rows ?? 0;
    if (exceeds) this.#exceeded++;
    if (error && error.rowsChecked > 0) {
      const { relativeL2: { value }, skill } = error;
      this.#errors.push(value);
      if (value > this.#worst.value) this.#worst = { input, value };
      if (!(skill > 0)) this.#withoutSkill++;
    }
    if (!failed) return;
    this.#failed++;
    if (this.#failures.length < FAILURES) this.#failures.push({ line, input, ...failed });
    if (failed.exitCode === TRANSIENT) this.#transient = true;
    else if (failed.exitCode === BUG) this.#bug = true;
    else this.#lasting ??= failed.exitCode;
  }

  /**
   * The batch's exit code: 130 when interrupted, then a bug of ours (70), the first failure that another try would meet again, 75 where a try
   * may help all that failed, 1 for errors above `--max-error`.
   */
  exitCode(interrupted: boolean): number {
    if (interrupted) return INTERRUPTED;
    if (this.#bug) return BUG;
    return this.#lasting ?? (this.#transient ? TRANSIENT : this.#exceeded > 0 ? EXCEEDED : 0);
  }

  summary(
    batch: Pick<BatchSummary, "list" | "output" | "backend" | "inputs" | "interrupted" | "seconds" | "peakBytes">,
  ): BatchSummary {
    const sorted = Float64Array.from(this.#errors).sort();
    return {
      schema: BATCH_SCHEMA,
      command: "attend",
      list: batch.list,
      output: batch.output,
      backend: batch.backend,
      inputs: batch.inputs,
      done: this.#done,
      skipped: this.#skipped,
      failed: this.#failed,
      left: batch.inputs - this.count,
      interrupted: batch.interrupted,
      exceeded: this.#exceeded,
      rows: this.#rows,
      seconds: batch.seconds,
      inputsPerSecond: this.#done / batch.seconds,
      peakBytes: batch.peakBytes,
      error: sorted.length === 0 ? null : {
        checked: sorted.length,
        median: quantile(sorted, 0.5),
        p95: quantile(sorted, 0.95),
        max: sorted.at(-1)!,
        worst: this.#worst.input,
        withoutSkill: this.#withoutSkill,
      },
      failures: this.#failures,
      exitCode: this.exitCode(batch.interrupted),
    };
  }
}
