/**
 * How far one estimated weight φ(x)·φ(y) is from exp(x·y), in closed form: no data, no draws, and exact for any number of features.
 *
 * Everything is relative to the square of what is estimated, so that it depends on few numbers: s = ‖x + y‖² for positive features and
 * δ = ‖x − y‖² for trigonometric ones, with x and y scaled (x = q/d^¼). Sources: arXiv 2009.14794 Lemma 2 (independent rows),
 * arXiv 2205.15317 (features with a quadratic term); orthogonal and simplex blocks are derived here: two rows of a block have
 * w₁ + w₂ of uniform direction and known length, so that only E e^{(w₁+w₂)·z} is needed.
 */
import { UsageError } from "./errors.ts";

/** Σ_k Π(over)_k / Π(under)_k · t^k / k!, (a)_k rising. Accurate where no term cancels another: t ≥ 0. */
function hypergeometric(over: readonly number[], under: readonly number[], t: number): number {
  let term = 1, sum = 1;
  for (let k = 0; k < 10_000 && Math.abs(term) > 1e-17 * Math.abs(sum); k++) {
    let factor = t / (k + 1);
    for (const a of over) factor *= a + k;
    for (const b of under) factor /= b + k;
    term *= factor;
    sum += term;
  }
  return sum;
}

/** E e^{(w₁+w₂)·z} of two orthogonal directions with independent chi(d) norms, ‖z‖² = t: ₁F₁(d; d/2; t/2); t < 0 is z imaginary. */
export function orthogonalPair(t: number, d: number): number {
  if (t >= 0) return hypergeometric([d], [d / 2], t / 2);
  return Math.exp(t / 2) * hypergeometric([-d / 2], [d / 2], -t / 2); // Kummer's transformation: a short series
}

/** Nodes and weights of Gauss and Legendre on [−1, 1], by Newton's method on P_n. */
function gaussLegendre(n: number): [node: number, weight: number][] {
  return Array.from({ length: n }, (_, i) => {
    let x = Math.cos(Math.PI * (i + 0.75) / (n + 0.5)), slope = 1;
    for (let step = 0; step < 8; step++) {
      let before = 1, now = x;
      for (let k = 2; k <= n; k++) [before, now] = [now, ((2 * k - 1) * x * now - (k - 1) * before) / k];
      slope = n * (x * now - before) / (x * x - 1);
      x -= now / slope;
    }
    return [x, 2 / ((1 - x * x) * slope * slope)];
  });
}
const NODES = gaussLegendre(48);

/**
 * E e^{(w₁+w₂)·z} of two directions of cosine c with independent chi(d) norms, ‖z‖² = t. With norms R cos θ, R sin θ:
 * ‖w₁+w₂‖² = R² (1 + c sin 2θ), R² is chi²(2d) as for an orthogonal pair, and 2θ has density ∝ sin^{d−1} on [0, π].
 */
export function pairAtCosine(t: number, d: number, c: number): number {
  let sum = 0, mass = 0;
  for (const [node, weight] of NODES) {
    const sine = Math.sin(Math.PI / 2 * (1 + node));
    const density = weight * sine ** (d - 1);
    mass += density;
    sum += density * orthogonalPair(t * (1 + c * sine), d);
  }
  return sum / mass;
}

/** How the rows of W depend on each other; hadamard and givens are orthogonal, nearly. */
export type Coupling = "iid" | "orthogonal" | "simplex";

/** One estimator of exp(x·y). */
export interface KernelEstimator {
  readonly map: "positive" | "hyperbolic" | "trigonometric";
  readonly coupling: Coupling;
  readonly headDim: number;
  /** Projections m: a hyperbolic or trigonometric map has 2 m features. */
  readonly projections: number;
  /** A of e^{A‖w‖² + √(1−4A) w·x − ‖x‖²/2} (1−4A)^{d/4}, A < 1/8; 0, when left out, is exp(w·x − ‖x‖²/2). Not for trigonometric maps. */
  readonly quadratic?: number;
}

/** The share of ordered pairs of rows, of m², that lie in one block of d. */
function pairShare(m: number, d: number): number {
  const rest = m % d;
  return ((m - rest) * (d - 1) + rest * (rest - 1)) / (m * m);
}

/** Cosine of two rows of a block. */
function cosineOf(coupling: Coupling, d: number): number {
  return coupling === "simplex" && d > 1 ? -1 / (d - 1) : 0;
}

function checkEstimator({ map, headDim, projections, quadratic = 0 }: KernelEstimator): void {
  for (const [name, value] of [["width", headDim], ["number of projections", projections]] as const) {
    if (!Number.isInteger(value) || value < 1) {
      throw new UsageError(`Cannot use ${name} ${value}: expected a whole number of at least 1`);
    }
  }
  if (!(quadratic < 1 / 8)) throw new UsageError(`Cannot use A = ${quadratic}: expected less than 1/8`);
  if (map === "trigonometric" && quadratic !== 0) {
    throw new UsageError("Cannot use A with trigonometric features: it belongs to positive ones; leave it out");
  }
}

/**
 * Mean squared error of φ(x)·φ(y) over the square of exp(x·y).
 * @param s ‖x + y‖² of scaled rows (positive and hyperbolic) @param delta ‖x − y‖² (trigonometric)
 * @throws UsageError for sizes or A out of range
 */
export function relativeKernelError(estimator: KernelEstimator, { s, delta }: { s: number; delta: number }): number {
  checkEstimator(estimator);
  const { map, coupling, headDim: d, projections: m, quadratic: A = 0 } = estimator;
  const c = cosineOf(coupling, d);
  const coupled = (t: number, cosine: number) => cosine === 0 ? orthogonalPair(t, d) : pairAtCosine(t, d, cosine);
  /** cosh and cos see w₁ + w₂ and w₁ − w₂, exp only w₁ + w₂. */
  const both = (t: number) => c === 0 ? coupled(t, 0) : (coupled(t, c) + coupled(t, -c)) / 2;
  const share = coupling === "iid" ? 0 : pairShare(m, d);
  if (map === "trigonometric") {
    const gain = share === 0 ? 0 : 1 - Math.exp(delta) * both(-delta);
    return Math.exp(delta) * Math.expm1(-delta) ** 2 / (2 * m) - share * gain;
  }
  const log = d * Math.log1p(-4 * A) - d / 2 * Math.log1p(-8 * A);
  const growth = 2 * (1 - 4 * A) / (1 - 8 * A) * s;
  const gain = share === 0 ? 0 : 1 - Math.exp(-s) * (map === "positive" ? coupled(s, c) : both(s));
  if (map === "positive") return Math.expm1(log + growth - s) / m - share * gain;
  if (A === 0) return 2 * Math.sinh(s / 2) ** 2 / m - share * gain;
  return ((Math.exp(log + growth - s) + Math.exp(log - s)) / 2 - 1) / m - share * gain;
}

/** The numbers of a pair that closed forms read, of scaled rows x and y: s, δ and x·y. */
export function pairNumbers(x: ArrayLike<number>, y: ArrayLike<number>): { s: number; delta: number; dot: number } {
  let s = 0, delta = 0, dot = 0;
  for (let l = 0; l < x.length; l++) {
    s += (x[l] + y[l]) ** 2;
    delta += (x[l] - y[l]) ** 2;
    dot += x[l] * y[l];
  }
  return { s, delta, dot };
}

/**
 * The A that makes the mean squared error of independent positive features least at ‖x + y‖² = φ (arXiv 2205.15317, for softmax):
 * (1 − u)/8 with u the positive root of d u² − (d + 2φ) u − 2φ = 0. Never above 0.
 */
export function bestQuadratic(phi: number, d: number): number {
  const sum = d + 2 * phi;
  return (1 - (sum + Math.sqrt(sum * sum + 8 * d * phi)) / (2 * d)) / 8;
}

/**
 * The A of least error among all, for a map, coupling and number of projections, by golden section on (1 − u)/8 in ln u:
 * for hyperbolic features no formula is known.
 */
export function searchQuadratic(estimator: Omit<KernelEstimator, "quadratic">, s: number): number {
  const error = (log: number) =>
    relativeKernelError({ ...estimator, quadratic: (1 - Math.exp(log)) / 8 }, { s, delta: 0 });
  const golden = (Math.sqrt(5) - 1) / 2;
  let low = 0, high = Math.log(1 - 8 * bestQuadratic(s, estimator.headDim)) + 3;
  for (let step = 0; step < 60; step++) {
    const [a, b] = [high - golden * (high - low), low + golden * (high - low)];
    if (error(a) <= error(b)) high = b;
    else low = a;
  }
  return (1 - Math.exp((low + high) / 2)) / 8;
}

/** SMREG(x, y)/exp(x·y): what row norms of exactly √d estimate instead of softmax's kernel (arXiv 2009.14794 §2.3). At most 1 for d ≥ 2. */
export function regularisedShare(s: number, d: number): number {
  return Math.exp(-s / 2) * hypergeometric([], [d / 2], d * s / 4);
}

/** Mean squared error about SMREG, over its square, of features with row norms √d. @param s ‖x + y‖² of scaled rows */
export function relativeRegularisedError(estimator: KernelEstimator, s: number): number {
  checkEstimator(estimator);
  const { map, coupling, headDim: d, projections: m, quadratic = 0 } = estimator;
  if (map === "trigonometric" || quadratic !== 0) {
    throw new UsageError(
      "Cannot say how row norms √d act on these features: expected positive or hyperbolic, without A",
    );
  }
  /** E e^{κ u·z}, u a uniform direction, κ² = d·`squares`. */
  const uniform = (squares: number) => hypergeometric([], [d / 2], d * squares * s / 4);
  const mean2 = uniform(1) ** 2;
  const square = map === "positive" ? uniform(4) : (uniform(4) + 1) / 2;
  const share = coupling === "iid" ? 0 : pairShare(m, d);
  const c = cosineOf(coupling, d);
  const pair = map === "positive" ? uniform(2 + 2 * c) : (uniform(2 + 2 * c) + uniform(2 - 2 * c)) / 2;
  return (square / mean2 - 1) / m - share * (1 - pair / mean2);
}
