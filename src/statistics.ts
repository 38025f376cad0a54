/** Small-sample statistics: Student's t, order statistics, least squares and the rank-sum test. */
import { erf } from "../kernels/scalar/activations.ts";

/** P(T ≤ t) for Student's t with `nu` ≥ 1 degrees of freedom, by the finite sums of Abramowitz & Stegun 26.7.3–4. */
export function studentCdf(t: number, nu: number): number {
  const theta = Math.atan(t / Math.sqrt(nu));
  const cos2 = Math.cos(theta) ** 2;
  let term = nu % 2 === 1 ? Math.cos(theta) : 1;
  let sum = nu === 1 ? 0 : term;
  for (let n = nu % 2 === 1 ? 3 : 2; n <= nu - 2; n += 2) {
    term *= cos2 * (n - 1) / n;
    sum += term;
  }
  const twoSided = nu % 2 === 1 ? 2 / Math.PI * (theta + Math.sin(theta) * sum) : Math.sin(theta) * sum;
  return 0.5 + twoSided / 2;
}

/** The t with P(T ≤ t) = p; for more than 2,000 degrees of freedom, those of 2,000. */
export function studentQuantile(p: number, nu: number): number {
  const freedom = Math.min(2000, nu);
  let low = 0;
  let high = 1e6;
  for (let step = 0; step < 100; step++) {
    const middle = (low + high) / 2;
    if (studentCdf(middle, freedom) < p) low = middle;
    else high = middle;
  }
  return low;
}

/** Quantile by linear interpolation of a sorted array; NaN when empty. */
export function quantile(sorted: ArrayLike<number>, p: number): number {
  if (sorted.length === 0) return NaN;
  const at = p * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

/** Mean of some numbers; NaN when empty. */
export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}

/** Sample standard deviation (n − 1). */
export function standardDeviation(values: ArrayLike<number>): number {
  const centre = mean(values);
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += (values[i] - centre) ** 2;
  return Math.sqrt(squares / (values.length - 1));
}

/** A value with its 95 % interval. */
export interface Interval {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/**
 * Relative L2 error √(Σe/Σb) of `n` rows sampled without replacement from `population`, with a 95 % interval on the log scale:
 * the standard error of the ratio of means e̅/b̅, by the delta method.
 * @param errors squared error per row @param norms squared norm of the exact row
 */
export function relativeL2(errors: Float64Array, norms: Float64Array, population: number): Interval {
  const n = errors.length;
  const norm = mean(norms);
  const ratio = mean(errors) / norm;
  const value = Math.sqrt(ratio);
  if (!(value > 0) || n < 2 || n >= population) return { value, low: value, high: value };
  const residual = errors.map((error, i) => error - ratio * norms[i]);
  const se = Math.sqrt((1 - n / population) / n) * standardDeviation(residual) / norm;
  const half = studentQuantile(0.975, n - 1) * se / (2 * ratio);
  return { value, low: value * Math.exp(-half), high: value * Math.exp(half) };
}

/** Geometric mean of positive samples with a 95 % t interval on the log scale (redraws of the projection). */
export function logInterval(samples: readonly number[]): Interval & { readonly logSd: number } {
  const logs = samples.map(Math.log);
  const centre = mean(logs);
  const logSd = standardDeviation(logs);
  const half = samples.length > 1 ? studentQuantile(0.975, samples.length - 1) * logSd / Math.sqrt(samples.length) : 0;
  return { value: Math.exp(centre), low: Math.exp(centre - half), high: Math.exp(centre + half), logSd };
}

/** Slope of the least-squares line through the points (x, y); NaN for fewer than two different x. */
export function slopeOf(x: readonly number[], y: readonly number[]): number {
  const [centreX, centreY] = [mean(x), mean(y)];
  let products = 0;
  let squares = 0;
  for (let i = 0; i < x.length; i++) {
    products += (x[i] - centreX) * (y[i] - centreY);
    squares += (x[i] - centreX) ** 2;
  }
  return products / squares;
}

/** Samples up to which P(U) is counted out instead of approximated. */
const COUNTED = 30;

/**
 * Mann–Whitney U test, one-sided: the probability of samples at least this far towards b > a if both came from one distribution.
 * Small samples without ties are counted out; others use the normal approximation with corrections for ties and continuity.
 */
export function mannWhitney(a: readonly number[], b: readonly number[]): number {
  let wins = 0; // pairs with b > a, ties half
  for (const x of a) for (const y of b) wins += y > x ? 1 : y === x ? 0.5 : 0;
  const [m, n] = [a.length, b.length];
  const sorted = [...a, ...b].sort((x, y) => x - y);
  let ties = 0; // Σ t³ − t over groups of equal samples
  for (let from = 0, to = 0; from < sorted.length; from = to) {
    while (to < sorted.length && sorted[to] === sorted[from]) to++;
    ties += (to - from) ** 3 - (to - from);
  }
  if (ties === 0 && m <= COUNTED && n <= COUNTED) return upperTail(m, n, wins);
  const total = m + n;
  const variance = m * n / 12 * (total + 1 - ties / (total * (total - 1)));
  if (!(variance > 0)) return 1;
  return 0.5 * (1 - erf((wins - m * n / 2 - 0.5) / Math.sqrt(2 * variance)));
}

/** P(U ≥ u) for m and n samples without ties, from f(u; m, n) = f(u − n; m − 1, n) + f(u; m, n − 1). */
function upperTail(m: number, n: number, u: number): number {
  let rows = Array.from({ length: n + 1 }, () => new Float64Array(m * n + 1).fill(1, 0, 1)); // m = 0: U is 0
  for (let i = 1; i <= m; i++) {
    const next = [new Float64Array(m * n + 1).fill(1, 0, 1)];
    for (let j = 1; j <= n; j++) {
      next.push(next[j - 1].map((count, at) => count + (at >= j ? rows[j][at - j] : 0)));
    }
    rows = next;
  }
  const counts = rows[n];
  return counts.slice(Math.ceil(u)).reduce((sum, count) => sum + count, 0) / counts.reduce((sum, count) => sum + count);
}
