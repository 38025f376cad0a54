/** This run against a saved one: row by row, by all samples. Pure. */
import {
  BENCH_SCHEMA,
  type BenchReport,
  type BenchResult,
  type ComparedPoint,
  type Comparison,
  pointKey,
} from "./bench.ts";
import { InputError } from "./errors.ts";
import { mannWhitney, mean, quantile } from "./statistics.ts";

/**
 * Largest p that counts. Three samples that are all slower than three others reach 0.05, so that the slowest points, which have no
 * more, can still fail; chance differences beyond the threshold of the effect are rarer than 1 in 20.
 */
export const ALPHA = 0.05;

/** What a comparison needs of a saved report. */
export type SavedReport = Pick<BenchReport, "date" | "machine" | "results"> & {
  /** Absent where a file has been cut down to its results. */
  readonly settings?: { readonly decay?: readonly number[] | null };
};

/** Reads a saved report from its text; throws InputError for what is none. */
export function parseSaved(text: string, path: string): SavedReport {
  let saved: Partial<BenchReport> | null;
  try {
    saved = JSON.parse(text);
  } catch (error) {
    throw new InputError(
      `Cannot compare with "${path}": ${(error as Error).message}, expected the JSON of performer bench`,
    );
  }
  if (saved?.schema !== BENCH_SCHEMA) {
    const found = saved?.schema === undefined ? "it has no schema" : `its schema is ${JSON.stringify(saved.schema)}`;
    throw new InputError(
      `Cannot compare with "${path}": ${found}, expected "${BENCH_SCHEMA}"; save one with performer bench --output FILE.json`,
    );
  }
  const { results } = saved;
  if (!Array.isArray(results) || !results.every(isMeasured) || typeof saved.machine !== "object" || !saved.machine) {
    throw new InputError(`Cannot compare with "${path}": its results are damaged, expected seconds for every row`);
  }
  return saved as SavedReport;
}

function isMeasured(result: unknown): boolean {
  const { L, seconds } = (result ?? {}) as Partial<BenchResult>;
  return typeof L === "number" && Array.isArray(seconds) && seconds.length > 0 && seconds.every((s) => s > 0);
}

/** Keys of the points in a saved report. */
export const savedKeys = (saved: SavedReport): Set<string> => new Set(saved.results.map(pointKey));

/** Compares every row with the same row of the saved report. @param threshold least fraction of the median that counts */
export function compareReports(
  saved: SavedReport,
  now: Pick<BenchReport, "machine" | "results">,
  path: string,
  threshold: number,
): Comparison {
  const before = new Map(saved.results.map((result) => [pointKey(result), result]));
  const points: ComparedPoint[] = [];
  for (const result of now.results) {
    const old = before.get(pointKey(result));
    if (old && before.delete(pointKey(result))) points.push(compare(old, result, threshold));
  }
  const same = (["processor", "threads", "runtime"] as const).every((key) => saved.machine[key] === now.machine[key]);
  return {
    path,
    date: saved.date,
    sameMachine: same,
    threshold,
    alpha: ALPHA,
    points,
    meanRatio: Math.exp(mean(points.map(({ ratio }) => Math.log(ratio)))),
    unmatched: now.results.length - points.length,
    missing: before.size,
    regressions: points.filter(({ verdict }) => verdict === "slower").length,
  };
}

function compare(old: BenchResult, result: BenchResult, threshold: number): ComparedPoint {
  const { backend, threads, features, numFeatures, projection, causal, nearFar, L } = result;
  const [before, after] = [old, result].map(({ seconds }) => quantile(seconds.toSorted((a, b) => a - b), 0.5));
  const ratio = after / before;
  const p = ratio >= 1 ? mannWhitney(old.seconds, result.seconds) : mannWhitney(result.seconds, old.seconds);
  const counts = p <= ALPHA && Math.max(ratio, 1 / ratio) > 1 + threshold;
  const verdict = !counts ? "same" : ratio > 1 ? "slower" : "faster";
  const setting = { features, numFeatures, projection, causal, nearFar };
  return { backend, threads, ...setting, L, before, after, ratio, p, verdict };
}
