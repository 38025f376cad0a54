/** Trials of one setting in one line of data: the mean, its spread, and quantiles, since errors of random features are skewed. */
import { mean, quantile, standardDeviation } from "../statistics.ts";

/** Statistics of some trials; `sd` is 0 of one trial. */
export interface TrialStatistics {
  readonly trials: number;
  readonly mean: number;
  readonly sd: number;
  readonly median: number;
  /** 16 % and 84 % quantiles: what ± one standard deviation is of a normal law. */
  readonly low: number;
  readonly high: number;
}

/** @param values at least one */
export function statisticsOf(values: readonly number[]): TrialStatistics {
  const sorted = [...values].sort((a, b) => a - b);
  return {
    trials: values.length,
    mean: mean(values),
    sd: values.length > 1 ? standardDeviation(values) : 0,
    median: quantile(sorted, 0.5),
    low: quantile(sorted, 0.16),
    high: quantile(sorted, 0.84),
  };
}
