/**
 * Feature maps fitted to moments of queries and keys: pure mathematics, one head at a time.
 *
 * All of them are positive features with a quadratic form in the exponent, for queries x and keys y (x = √S q, y = √S k):
 *
 *     φ_a(z) = exp(β_a ± w'_a·z − ‖z‖²/2) / √r,   z = T x of a query, z = T⁻¹(y − g) of a key
 *     w'_a = Q (I − 4a)^{1/2} w_a,   β_a = Σ_l a_l w_al² + ¼ Σ_l ln(1 − 4a_l),   w_a ∼ N(0, I), a diagonal, a_l < 1/8
 *
 * which is unbiased for exp(x·(y − g)), the softmax kernel but for a factor e^{−x·g} of the query that cancels. One projection has
 * E[X²]/SM² = Π_l (1 − 4a_l)(1 − 8a_l)^{−1/2} e^{s_l/(1 − 8a_l)} with s = ((Qᵀz)_l²) of z = T x + T⁻¹(y − g), so that the mean of its
 * logarithm over pairs reads second moments only. The choices minimise that mean:
 *
 * | choice                    | rule                                                          | source |
 * |---------------------------|---------------------------------------------------------------|--------|
 * | a, one number (OPRF)      | u = 1 − 8A solves d u² − (d + 2φ) u − 2φ = 0, φ = mean‖z‖²    | arXiv 2205.15317 |
 * | a per direction (SDERF)   | Q eigenvectors of M = mean z zᵀ, a_l the OPRF rule for d = 1  | arXiv 2302.00787 |
 * | T diagonal (SADERF)       | T_l² = √(mean y_l² / mean x_l²)                               | arXiv 2302.00787 |
 * | T dense (ADERF)           | G = T² solves G Mx G = My                                     | arXiv 2302.00787 |
 * | g = ȳ + T² x̄              | makes the mean of z zero; Mx, My become covariances           | own    |
 * | both signs (hyp-…)        | ½(X(w) + X(−w)): a for weight σ of the first of two exponentials, see `bestExponents` | own |
 *
 * With g the optimum over T and g together takes T from the covariances alone, and g follows: mean‖z‖² is then
 * tr(G Cov x) + tr(G⁻¹ Cov y), without the term ‖T x̄ − T⁻¹ x̄‖² that g = x̄ + ȳ would leave.
 */
import { bestQuadratic } from "./closed_forms.ts";
import type { FeatureMap } from "./feature_map.ts";
import { type HeadMoments, meanSquaredSum } from "./moments.ts";
import { eigen, sandwich, spectral, times } from "./symmetric.ts";

/** Fitted numbers of one key head and its queries. */
export interface HeadFit {
  /** g in raw units (d numbers), taken from every key; null: keys stay where they are. */
  readonly shift: Float64Array | null;
  /** T and T⁻¹: d numbers are a diagonal, `d × d` a symmetric matrix; null: identity. */
  readonly balance: { readonly T: Float64Array; readonly inverse: Float64Array } | null;
  /** a: one number for all directions or d of them; empty: 0, as in plain positive features. */
  readonly exponents: Float64Array;
  /** Q, `d × d`, directions in columns; null: identity. */
  readonly directions: Float64Array | null;
  /** φ̄ = mean‖x + y‖² of scaled rows, and mean‖T x + T⁻¹(y − g)‖² after all of the above. */
  readonly phiBefore: number;
  readonly phi: number;
  /**
   * Mean over pairs of ln(E[X²]/SM²) of one projection, ln(1 + m · relative variance): Σ_l H(λ_l) for a at its best. Where both signs
   * are used, and for trigonometric features, at the mean of the pairs.
   */
  readonly logVariance: number;
}

/** Rows that parameters are computed from. */
export type ParamsSource =
  | { readonly kind: "fixed" | "file" }
  | { readonly kind: "prefix" | "sample"; readonly rows: number };

/** What the user asked for. */
export interface FitWish {
  /** null: `fixed` where the projection or the numerics are given, a prefix for causal attention, else a sample. */
  readonly params: ParamsSource | null;
  /** Whether keys are moved by g; "auto": for bidirectional softmax kernels of our own projection, where data are looked at anyway. */
  readonly centre: "auto" | "on" | "off";
}

/** Fitted numbers of all key heads, and where they come from. */
export interface Fit {
  /** "fixed", "file", "prefix:N" or "sample:N". */
  readonly source: string;
  /** Rows of keys that were looked at. */
  readonly rows: number;
  readonly centred: boolean;
  /** One per key head; one alone serves all heads. */
  readonly heads: readonly HeadFit[];
}

/** H(λ): the mean of ln(E[X²]/SM²) that one direction with mean z_l² = λ is left with at its best exponent; H(λ) ≤ λ, concave. */
export function leastLogVariance(lambda: number): number {
  const u = 1 - 8 * bestQuadratic(lambda, 1);
  return Math.log((1 + u) / 2) - Math.log(u) / 2 + lambda / u;
}

/**
 * Best exponents for directions whose mean z_l² are `lambdas`, of which each stands for `each` dimensions.
 *
 * With one sign they are the closed form. With both, E[X²] has ½(e^{S} + 1), S = Σ λ_l (1 + 1/u_l), in place of e^{S}: its logarithm is
 * convex in every ln u_l, and stationary where each a_l is the closed form at σ λ_l with σ = e^{S}/(e^{S} + 1). The σ that results falls
 * as the σ put in grows, so bisection finds the only one that agrees with itself.
 */
export function bestExponents(lambdas: ArrayLike<number>, each: number, paired: boolean): Float64Array {
  const at = (sigma: number) => Float64Array.from(lambdas, (lambda) => bestQuadratic(sigma * lambda, each));
  if (!paired) return at(1);
  let low = 0.5, high = 1;
  while (high - low > 1e-15) {
    const sigma = (low + high) / 2;
    if (sigma === low || sigma === high) break;
    const S = at(sigma).reduce((sum, a, l) => sum + lambdas[l] * (1 + 1 / (1 - 8 * a)), 0);
    if (1 / (1 + Math.exp(-S)) > sigma) low = sigma;
    else high = sigma;
  }
  return at((low + high) / 2);
}

/** ln(½(e^S + 1)). */
const logHalfSum = (S: number) => S + Math.log1p(Math.exp(-S)) - Math.LN2;

/** ln(E[X²]/SM²) of one projection with these exponents at mean z_l² = `lambdas`. */
export function logVariance(
  lambdas: ArrayLike<number>,
  exponents: ArrayLike<number>,
  each: number,
  paired: boolean,
): number {
  let sum = 0, phi = 0, growth = 0;
  for (let l = 0; l < lambdas.length; l++) {
    const u = 1 - 8 * (exponents[l] ?? 0);
    sum += each * (Math.log((1 + u) / 2) - Math.log(u) / 2);
    phi += lambdas[l];
    growth += lambdas[l] / u;
  }
  return sum + (paired ? logHalfSum(phi + growth) - phi : growth);
}

/** Eigenvalues below this part of their mean are raised to it: directions that the rows do not use. */
const FLOOR = 1e-6;

/** T = G^{1/2} of the SPD solution of G Mx G = My, and T⁻¹; null where one of them is zero, as nothing can be balanced then. */
export function balanceOf(Mx: Float64Array, My: Float64Array): { T: Float64Array; inverse: Float64Array } | null {
  const x = eigen(Mx);
  const d = x.values.length;
  const floorOf = (values: Float64Array) => FLOOR * values.reduce((sum, value) => sum + value, 0) / d;
  const floor = floorOf(x.values);
  const root = spectral(x, (value) => Math.sqrt(Math.max(value, floor)));
  const inverseRoot = spectral(x, (value) => 1 / Math.sqrt(Math.max(value, floor)));
  const middle = eigen(sandwich(root, My));
  const least = floorOf(middle.values);
  if (!(floor > 0 && least > 0)) return null;
  const G = eigen(sandwich(inverseRoot, spectral(middle, (value) => Math.sqrt(Math.max(value, least)))));
  // G is positive definite; rounding may push tiny eigenvalues below 0.
  const smallest = 1e-12 * G.values[d - 1];
  const quarter = (value: number) => Math.sqrt(Math.max(value, smallest));
  return { T: spectral(G, quarter), inverse: spectral(G, (value) => 1 / quarter(value)) };
}

/** T_l = (mean y_l² / mean x_l²)^{1/4} and its inverse, likewise. */
function diagonalBalance(x: Float64Array, y: Float64Array): { T: Float64Array; inverse: Float64Array } | null {
  const mean = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [floorX, floorY] = [FLOOR * mean(x), FLOOR * mean(y)];
  if (!(floorX > 0 && floorY > 0)) return null;
  const T = x.map((value, l) => (Math.max(y[l], floorY) / Math.max(value, floorX)) ** 0.25);
  return { T, inverse: T.map((value) => 1 / value) };
}

/** Queries and keys that are the same rows are balanced already, which saves the products with T; to float32, T = 1 is 1. */
function unlessIdentity(balance: HeadFit["balance"], d: number): HeadFit["balance"] {
  const one = (at: number, dense: boolean) => !dense || at % (d + 1) === 0 ? 1 : 0;
  return balance?.T.every((value, at) => Math.abs(value - one(at, balance.T.length > d)) < 2 ** -24) ? null : balance;
}

/** Whether a map reads mean x xᵀ, not only its diagonal. */
export const needsProducts = ({ fitted }: FeatureMap): boolean =>
  fitted !== undefined && (fitted.balance === "dense" || fitted.exponents === "directions");

/**
 * Fits a map to one head.
 * @param x moments of its queries, @param y of its keys, both of raw rows; with `products` where `needsProducts`.
 * @param scale the logit scale S.
 * @param centred whether keys are moved by g.
 */
export function fitHead(map: FeatureMap, x: HeadMoments, y: HeadMoments, scale: number, centred: boolean): HeadFit {
  const d = x.mean.length;
  const { balance: how = "none", exponents: which = "none" } = map.fitted ?? {};
  const phiBefore = scale * meanSquaredSum(x, y);
  const about = (of: HeadMoments) => centred ? covariance(of) : of;
  const [Sx, Sy] = [about(x), about(y)];
  const balance = unlessIdentity(
    how === "dense"
      ? balanceOf(Sx.products!, Sy.products!)
      : how === "diagonal"
      ? diagonalBalance(Sx.squares, Sy.squares)
      : null,
    d,
  );
  const apply = (M: Float64Array | undefined, v: Float64Array) =>
    !M ? v : M.length === d ? v.map((value, l) => M[l] * value) : times(M, v);
  const meanX = apply(balance?.T, x.mean);
  const sign = map.family === "trig" ? -1 : 1; // its variance depends on x − y, not on x + y
  const move = apply(balance?.T, meanX);
  const shift = centred ? y.mean.map((value, l) => value + sign * move[l]) : null;
  const meanY = apply(balance?.inverse, shift ? y.mean.map((value, l) => value - shift[l]) : y.mean);

  let lambdas: Float64Array, directions: Float64Array | null = null;
  let phi: number;
  if (needsProducts(map)) {
    const M = sumOfProducts(balance, x, y, shift);
    if (which === "directions") {
      const { values, vectors } = eigen(M);
      lambdas = values.map((value) => scale * Math.max(0, value));
      directions = vectors;
    } else lambdas = Float64Array.of(scale * trace(M, d));
    phi = lambdas.reduce((sum, value) => sum + value, 0);
  } else {
    const spread = (of: HeadMoments, M: Float64Array | undefined, by: number) =>
      of.squares.reduce((sum, square, l) => sum + (square - of.mean[l] ** 2) * (M ? M[l] ** 2 : 1), 0) * by;
    const rest = spread(x, balance?.T, scale) + spread(y, balance?.inverse, scale);
    const means = (by: 1 | -1) => scale * meanX.reduce((sum, value, l) => sum + (value + by * meanY[l]) ** 2, 0);
    phi = rest + means(1);
    lambdas = Float64Array.of(sign < 0 ? rest + means(-1) : phi);
  }
  const paired = map.featuresPerProjection === 2;
  const each = which === "directions" ? 1 : d;
  const exponents = which === "none" ? new Float64Array() : bestExponents(lambdas, each, paired);
  return {
    shift,
    balance,
    exponents,
    directions,
    phiBefore,
    phi,
    logVariance: logVariance(lambdas, exponents, each, paired),
  };
}

/** Moments about the mean. */
function covariance({ mean, squares, products }: HeadMoments): HeadMoments {
  const d = mean.length;
  return {
    mean: new Float64Array(d),
    squares: squares.map((value, l) => Math.max(0, value - mean[l] ** 2)),
    products: products && products.map((value, at) => value - mean[Math.floor(at / d)] * mean[at % d]),
  };
}

/** M = mean z zᵀ of z = T x ± T⁻¹(y − g) over all pairs, in raw units. */
function sumOfProducts(
  balance: HeadFit["balance"],
  x: HeadMoments,
  y: HeadMoments,
  shift: Float64Array | null,
  sign: 1 | -1 = 1,
): Float64Array {
  const d = x.mean.length;
  const [Cx, Cy] = [covariance(x).products!, covariance(y).products!];
  const moved = shift ? y.mean.map((value, l) => value - shift[l]) : y.mean;
  const [T, inverse] = balance ? [asMatrix(balance.T, d), asMatrix(balance.inverse, d)] : [null, null];
  const [U, V] = T && inverse ? [sandwich(T, Cx), sandwich(inverse, Cy)] : [Cx, Cy];
  const [a, b] = T && inverse ? [times(T, x.mean), times(inverse, moved)] : [x.mean, moved];
  const mean = a.map((value, l) => value + sign * b[l]);
  return U.map((value, at) => value + V[at] + mean[Math.floor(at / d)] * mean[at % d]);
}

/** A diagonal as a matrix; matrices stay as they are. */
const asMatrix = (M: Float64Array, d: number): Float64Array =>
  M.length > d ? M : Float64Array.from({ length: d * d }, (_, at) => at % (d + 1) === 0 ? M[at % d] : 0);

const trace = (M: Float64Array, d: number): number => {
  return M.reduce((sum, value, at) => at % (d + 1) === 0 ? sum + value : sum, 0);
};

/**
 * What a head's fitted numbers leave on rows that they were not fitted to: φ̄ before and after, and the mean log relative variance, all
 * as `HeadFit` defines them.
 * @param fit null: nothing is moved, balanced or bounded. @param x moments of raw queries, @param y of raw keys, both with products.
 */
export function reviewFit(
  map: FeatureMap,
  fit: HeadFit | null,
  x: HeadMoments,
  y: HeadMoments,
  scale: number,
): Pick<HeadFit, "phiBefore" | "phi" | "logVariance"> {
  const d = x.mean.length;
  const { balance = null, shift = null, directions = null, exponents = new Float64Array() } = fit ?? {};
  const M = sumOfProducts(balance, x, y, shift);
  const phiBefore = scale * meanSquaredSum(x, y);
  const phi = balance || shift ? scale * trace(M, d) : phiBefore;
  // The variance of trigonometric features depends on x − y.
  const seen = map.family === "trig" ? sumOfProducts(balance, x, y, shift, -1) : M;
  const lambdas = directions
    ? Float64Array.from({ length: d }, (_, l) => {
      const column = Float64Array.from({ length: d }, (_, i) => directions[i * d + l]);
      return scale * Math.max(0, times(seen, column).reduce((sum, value, i) => sum + value * column[i], 0));
    })
    : Float64Array.of(scale * trace(seen, d));
  const variance = logVariance(lambdas, exponents, directions ? 1 : d, map.featuresPerProjection === 2);
  return { phiBefore, phi, logVariance: variance };
}

/** The fit that knows no data: queries and keys of independent N(0, 1) entries, φ = 2 d S; nothing is moved or balanced. */
export function fixedFit(map: FeatureMap, headDim: number, scale: number): Fit {
  const phi = 2 * headDim * scale;
  const paired = map.featuresPerProjection === 2;
  const exponents = map.fitted ? bestExponents([phi], headDim, paired) : new Float64Array();
  const head: HeadFit = {
    shift: null,
    balance: null,
    exponents,
    directions: null,
    phiBefore: phi,
    phi,
    logVariance: logVariance([phi], exponents, headDim, paired),
  };
  return { source: "fixed", rows: 0, centred: false, heads: [head] };
}

/**
 * W' and β of drawn projections `W`, `m × d`: what `bindMap` takes as weights and `beta`. W' is float32-representable, as drawn
 * projections are; β belongs to W before that rounding.
 */
export function fittedProjections(
  { exponents, directions }: HeadFit,
  W: Float64Array,
  d: number,
): { readonly weights: Float64Array; readonly beta: Float64Array } {
  const m = W.length / d;
  const a = (l: number) => exponents.length === 1 ? exponents[0] : exponents[l];
  const stretch = Float64Array.from({ length: d }, (_, l) => Math.sqrt(1 - 4 * a(l)));
  let constant = 0;
  for (let l = 0; l < d; l++) constant += Math.log1p(-4 * a(l)) / 4;
  const weights = new Float64Array(m * d), beta = new Float64Array(m).fill(constant);
  const row = new Float64Array(d);
  for (let i = 0; i < m; i++) {
    const w = W.subarray(i * d, (i + 1) * d);
    for (let l = 0; l < d; l++) {
      beta[i] += a(l) * w[l] * w[l];
      row[l] = stretch[l] * w[l];
    }
    weights.set(directions ? times(directions, row) : row, i * d);
  }
  return { weights: weights.map(Math.fround), beta };
}
