/**
 * Error of an approximate output against the exact one, on sampled query rows.
 *
 * Each metric is one row of METRICS; relative L2, the uniform baseline and the skill score always travel together in `compareOutputs`.
 */
import { type Interval, mean, quantile, relativeL2 } from "./statistics.ts";
import type { Tile } from "./tensor.ts";

/** One (row, head) of both outputs: columns `at … at + width − 1`. */
interface Pair {
  readonly approx: ArrayLike<number>;
  readonly exact: ArrayLike<number>;
  readonly at: number;
  readonly width: number;
}

/** Accumulates over (row, head) pairs. */
export interface Metric {
  readonly name: string;
  readonly summary: string;
  start(): { add(pair: Pair): void; value(): number };
}

/** Σ over one pair of (approx − exact)², exact² , approx² and approx·exact. */
function moments({ approx, exact, at, width }: Pair): { error: number; exact2: number; approx2: number; dot: number } {
  let error = 0, exact2 = 0, approx2 = 0, dot = 0;
  for (let c = at; c < at + width; c++) {
    error += (approx[c] - exact[c]) ** 2;
    exact2 += exact[c] ** 2;
    approx2 += approx[c] ** 2;
    dot += approx[c] * exact[c];
  }
  return { error, exact2, approx2, dot };
}

/** A metric that is a statistic of one number per pair; pairs where it is undefined (0/0) are left out. */
function perPair(
  name: string,
  summary: string,
  of: (pair: Pair) => number,
  reduce: (values: Float64Array) => number,
): Metric {
  return {
    name,
    summary,
    start() {
      const values: number[] = [];
      return {
        add(pair) {
          const value = of(pair);
          if (!Number.isNaN(value)) values.push(value);
        },
        value: () => reduce(Float64Array.from(values)),
      };
    },
  };
}

const rowError = (pair: Pair) => {
  const { error, exact2 } = moments(pair);
  return Math.sqrt(error / exact2);
};
const cosine = (pair: Pair) => {
  const { exact2, approx2, dot } = moments(pair);
  return dot / Math.sqrt(exact2 * approx2);
};

/** The table. Adding a metric is one row here. */
export const METRICS: readonly Metric[] = [
  perPair("mse", "mean squared error of the output", (pair) => moments(pair).error / pair.width, mean),
  perPair("maxAbs", "largest absolute error of any element", (pair) => {
    let most = 0;
    for (let c = pair.at; c < pair.at + pair.width; c++) {
      most = Math.max(most, Math.abs(pair.approx[c] - pair.exact[c]));
    }
    return most;
  }, (values) => values.reduce((most, value) => Math.max(most, value), 0)),
  perPair("cosine", "mean cosine between approximate and exact rows", cosine, mean),
  perPair("rowMedian", "median relative L2 error of a (row, head)", rowError, (v) => quantile(v.sort(), 0.5)),
  perPair(
    "rowP95",
    "95th percentile of the relative L2 error of a (row, head)",
    rowError,
    (v) => quantile(v.sort(), 0.95),
  ),
  perPair("rowMax", "largest relative L2 error of a (row, head)", rowError, (v) => quantile(v.sort(), 1)),
];

/** Errors of one output; `skill = 1 − ‖Ô−O‖² / ‖Ō−O‖²` with Ō the mean of the visible values: ≤ 0 is no better than that mean. */
export interface ErrorSummary {
  readonly rowsChecked: number;
  readonly relativeL2: Interval;
  /** Relative L2 error of answering with the mean of the visible values. */
  readonly uniformBaseline: number;
  readonly skill: number;
  readonly perHead: readonly {
    readonly relativeL2: number;
    readonly uniformBaseline: number;
    readonly skill: number;
  }[];
  readonly [metric: string]: unknown;
}

/**
 * Compares `rows × (heads · width)` outputs of the same sampled rows.
 * @param uniform the mean of the values each row sees @param population rows the sample was drawn from
 */
export function compareOutputs(
  approx: Tile,
  exact: Tile,
  uniform: Tile,
  heads: number,
  population: number,
): ErrorSummary {
  const { rows, cols } = exact;
  const width = cols / heads;
  const running = METRICS.map((metric) => metric.start());
  const errors = new Float64Array(rows);
  const norms = new Float64Array(rows);
  const perHead = Array.from({ length: heads }, () => ({ error: 0, base: 0, norm: 0 }));
  for (let i = 0; i < rows; i++) {
    for (let h = 0; h < heads; h++) {
      const pair = { approx: approx.data, exact: exact.data, at: i * cols + h * width, width };
      const { error, exact2 } = moments(pair);
      errors[i] += error;
      norms[i] += exact2;
      perHead[h].error += error;
      perHead[h].norm += exact2;
      perHead[h].base += moments({ ...pair, approx: uniform.data }).error;
      for (const metric of running) metric.add(pair);
    }
  }
  const base = perHead.reduce((sum, head) => sum + head.base, 0);
  const norm = norms.reduce((sum, value) => sum + value, 0);
  const error = errors.reduce((sum, value) => sum + value, 0);
  return {
    rowsChecked: rows,
    relativeL2: relativeL2(errors, norms, population),
    uniformBaseline: Math.sqrt(base / norm),
    skill: skillOf(error, base),
    ...Object.fromEntries(METRICS.map((metric, i) => [metric.name, running[i].value()])),
    perHead: perHead.map((head) => ({
      relativeL2: Math.sqrt(head.error / head.norm),
      uniformBaseline: Math.sqrt(head.base / head.norm),
      skill: skillOf(head.error, head.base),
    })),
  };
}

/**
 * Squares per sampled row and head, `rows × heads` each: of the error, of the exact output, and of the error of answering with the mean of
 * the visible values. Ratios of sums of them are the errors of any part of the sample.
 */
export interface RowSquares {
  /** Indices of the sampled rows, ascending, of `population`. */
  readonly rows: Float64Array;
  readonly population: number;
  readonly heads: number;
  readonly error: Float64Array;
  readonly norm: Float64Array;
  readonly base: Float64Array;
}

/** The squares of outputs that `compareOutputs` compares; `rows` are the indices of their rows. */
export function rowSquares(
  approx: Tile,
  exact: Tile,
  uniform: Tile,
  { rows, population, heads }: Pick<RowSquares, "rows" | "population" | "heads">,
): RowSquares {
  const width = exact.cols / heads;
  const [error, norm, base] = [0, 1, 2].map(() => new Float64Array(rows.length * heads));
  for (let i = 0; i < error.length; i++) {
    const pair = { approx: approx.data, exact: exact.data, at: i * width, width };
    const found = moments(pair);
    error[i] = found.error;
    norm[i] = found.exact2;
    base[i] = moments({ ...pair, approx: uniform.data }).error;
  }
  return { rows, population, heads, error, norm, base };
}

/** A relative L2 error that never travels without its baseline; see ErrorSummary. */
export interface ErrorFigures {
  readonly relativeL2: number;
  readonly uniformBaseline: number;
  readonly skill: number;
}

/** The same figures of all rows as they pass, tile by tile; nothing is kept but three sums. */
export class ErrorSums {
  #error = 0;
  #norm = 0;
  #base = 0;

  /** Adds rows; `kept` holds one number per row of the tile, 0 = left out. */
  add(approx: Tile, exact: Tile, uniform: Tile, kept?: ArrayLike<number> | null): void {
    const { rows, cols: width } = exact;
    for (let i = 0; i < rows; i++) {
      if (kept && kept[i] === 0) continue;
      const pair = { approx: approx.data, exact: exact.data, at: i * width, width };
      const { error, exact2 } = moments(pair);
      this.#error += error;
      this.#norm += exact2;
      this.#base += moments({ ...pair, approx: uniform.data }).error;
    }
  }

  figures(): ErrorFigures {
    return {
      relativeL2: Math.sqrt(this.#error / this.#norm),
      uniformBaseline: Math.sqrt(this.#base / this.#norm),
      skill: skillOf(this.#error, this.#base),
    };
  }
}

/** 1 when there is no error at all; values that are all alike leave nothing to be skilful about (NaN → 1 or −∞). */
function skillOf(error: number, base: number): number {
  return error === 0 ? 1 : 1 - error / base;
}
