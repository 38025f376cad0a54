/**
 * What the code is judged by: closed forms and dense definitions, written from the formulas and sharing no line with `src/` or
 * `kernels/`. Notation: x, y scaled rows, s = ‖x+y‖², δ = ‖x−y‖², Λ = exp(−(‖x‖²+‖y‖²)/2), m projections of width d.
 */

export const dot = (x: ArrayLike<number>, y: ArrayLike<number>): number => {
  let sum = 0;
  for (let l = 0; l < x.length; l++) sum += x[l] * y[l];
  return sum;
};
export const norm2 = (x: ArrayLike<number>): number => dot(x, x);

/** Σ_k Π(num)_k / Π(den)_k · t^k / k!, the generalised hypergeometric series; for t ≥ 0 no term cancels another. */
export function series(t: number, num: readonly number[], den: readonly number[]): number {
  let term = 1;
  let sum = 1;
  for (let k = 0; k < 5000; k++) {
    for (const a of num) term *= a + k;
    for (const b of den) term /= b + k;
    term *= t / (k + 1);
    sum += term;
    if (term === 0 || Math.abs(term) <= 1e-17 * Math.abs(sum)) break;
  }
  return sum;
}

/** ρ(t) = ₁F₁(d; d/2; t/2) = E exp((w₁+w₂)·z) over an orthogonal pair, t = ‖z‖²; Kummer's form where the series alternates. */
export const rho = (t: number, d: number): number =>
  t >= 0 ? series(t / 2, [d], [d / 2]) : Math.exp(t / 2) * series(-t / 2, [-d / 2], [d / 2]);

/** ₀F₁(; b; t). */
export const F01 = (b: number, t: number): number => series(t, [], [b]);

export type SoftmaxEstimator = "trig" | "pos" | "hyp";

/** The numbers of one pair that the closed forms read. */
export interface Pair {
  readonly d: number;
  readonly s: number;
  readonly delta: number;
  /** Λ² */
  readonly lambda2: number;
  readonly softmax: number;
}

export function pairOf(x: ArrayLike<number>, y: ArrayLike<number>): Pair {
  const a = norm2(x), b = norm2(y), t = dot(x, y);
  return { d: x.length, s: a + b + 2 * t, delta: a + b - 2 * t, lambda2: Math.exp(-a - b), softmax: Math.exp(t) };
}

/** Mean squared error with m independent projections (arXiv 2009.14794 Lemma 2). */
export function mseIid(kind: SoftmaxEstimator, pair: Pair, m: number): number {
  const { s, delta, lambda2 } = pair;
  if (kind === "trig") return (1 - Math.exp(-delta)) ** 2 / (2 * m * lambda2);
  const positive = lambda2 * (Math.exp(2 * s) - Math.exp(s)) / m;
  return kind === "pos" ? positive : 0.5 * (1 - Math.exp(-s)) * positive;
}

/** What orthogonality takes off: (N/m²)·K with N = Σ b(b−1) over blocks of b rows. */
export function orthogonalGain(kind: SoftmaxEstimator, pair: Pair, m: number): number {
  const { d, s, delta, lambda2 } = pair;
  const full = Math.floor(m / d), rest = m % d;
  const pairs = full * d * (d - 1) + rest * (rest - 1);
  const K = kind === "trig" ? (Math.exp(-delta) - rho(-delta, d)) / lambda2 : lambda2 * (Math.exp(s) - rho(s, d));
  return pairs / (m * m) * K;
}

export const mseOrthogonal = (kind: SoftmaxEstimator, pair: Pair, m: number): number =>
  mseIid(kind, pair, m) - orthogonalGain(kind, pair, m);

/**
 * Mean squared error of features exp(A‖w‖² + √(1−4A) w·x − ‖x‖²/2) (1−4A)^{d/4} with m independent w (arXiv 2205.15317), `paired`: of
 * both signs of each w. Orthogonality takes the same off as without A: E[ρ^p e^{2Aρ²}] is E[ρ^p] (1−4A)^{−(d+p)/2} for ρ ∼ chi(d).
 */
export function mseExponent({ d, s, lambda2, softmax }: Pair, m: number, A: number, paired: boolean): number {
  const growth = Math.exp(2 * s * (1 - 4 * A) / (1 - 8 * A));
  const second = lambda2 * (1 - 4 * A) ** d * (1 - 8 * A) ** (-d / 2) * (paired ? (growth + 1) / 2 : growth);
  return (second - softmax ** 2) / m;
}

/** E e^{(w₁+w₂)·z} for two corners of a simplex with chi(d) norms, s = ‖z‖² (the series in s/4 with moments of chi(d)). */
function rhoSimplex(s: number, d: number): number {
  const logMoment = (p: number) => p / 2 * Math.LN2 + logGamma((d + p) / 2) - logGamma(d / 2);
  const choose = (n: number, k: number) => Math.exp(logGamma(n + 1) - logGamma(k + 1) - logGamma(n - k + 1));
  const moment = (k: number) => {
    let sum = 0;
    for (let b = 0; b <= k; b++) {
      let inner = 0;
      for (let a = 0; a <= k - b; a++) {
        inner += choose(k - b, a) * Math.exp(logMoment(2 * a + b) + logMoment(2 * (k - b - a) + b));
      }
      sum += choose(k, b) * (-2 / (d - 1)) ** b * inner;
    }
    return sum;
  };
  let total = 0;
  for (let k = 0; k < 40; k++) {
    total += (s / 4) ** k * moment(k) / Math.exp(logGamma(d / 2 + k) - logGamma(d / 2) + logGamma(k + 1));
  }
  return total;
}

/** log Γ(x) for multiples of ½ above 0. */
function logGamma(x: number): number {
  let sum = Number.isInteger(x) ? 0 : Math.log(Math.PI) / 2;
  for (let y = Number.isInteger(x) ? 1 : 0.5; y < x; y++) sum += Math.log(y);
  return sum;
}

/** Squared error of positive features over blocks of d simplex directions, m a multiple of d. */
export function mseSimplex(pair: Pair, m: number): number {
  const { d, s, lambda2 } = pair;
  const pairs = m * (d - 1);
  return mseIid("pos", pair, m) - pairs / (m * m) * lambda2 * (Math.exp(s) - rhoSimplex(s, d));
}

/** The regularised softmax kernel Λ·₀F₁(; d/2; d·s/4): row norms exactly √d. */
export const smreg = ({ d, s, lambda2 }: Pair): number => Math.sqrt(lambda2) * F01(d / 2, d * s / 4);

/** SMREG / SM by the paper's eq. 30, u = s/2: a second series for the same number. */
export function smregRatio({ d, s }: Pair): number {
  const u = s / 2;
  let term = 1;
  let sum = 1;
  for (let k = 1; k < 5000 && term > 1e-17 * sum; k++) {
    term *= u / k * d / (d + 2 * k - 2);
    sum += term;
  }
  return Math.exp(-u) * sum;
}

/** Mean squared error about SMREG, m ≤ d. */
export function mseSmreg(pair: Pair, m: number, orthogonal: boolean): number {
  const { d, s, lambda2 } = pair;
  const single = F01(d / 2, d * s / 4) ** 2;
  const iid = lambda2 / m * (F01(d / 2, d * s) - single);
  return orthogonal ? iid - (1 - 1 / m) * lambda2 * (single - F01(d / 2, d * s / 2)) : iid;
}

/** H x by the definition of Sylvester's matrix, H_jk = (−1)^{popcount(j and k)}. */
export const sylvester = (x: ArrayLike<number>): number[] =>
  Array.from({ length: x.length }, (_, j) => {
    let sum = 0;
    for (let k = 0; k < x.length; k++) {
      let odd = 0;
      for (let both = j & k; both; both >>= 1) odd ^= both & 1;
      sum += odd ? -x[k] : x[k];
    }
    return sum;
  });

/** Law of c₁ ± c₂ ± … with even chances: [value, probability]. */
function signedSums(c: readonly number[]): Map<number, number> {
  let law = new Map([[0, 1]]);
  for (const step of c) {
    const next = new Map<number, number>();
    for (const [value, p] of law) {
      for (const to of [value - step, value + step]) next.set(to, (next.get(to) ?? 0) + p / 2);
    }
    law = next;
  }
  return law;
}

/**
 * Law of an entry of `factors` products N D, N = H/√size, D iid signs. The outer rows and columns of H are signs that D absorbs:
 * one: ±1/√size; two: Σ_k ±1 / size; three: aᵀ H b / size^{3/2} over iid signs a, b, every b looked at.
 */
export function hadamardEntry(size: number, factors: 1 | 2 | 3): Map<number, number> {
  const ones = new Array<number>(size).fill(1);
  const scaled = (law: Map<number, number>, by: number) => new Map([...law].map(([value, p]) => [value * by, p]));
  if (factors === 1) return scaled(signedSums([1]), size ** -0.5);
  if (factors === 2) return scaled(signedSums(ones), 1 / size);
  const laws = new Map<string, [number[], number]>(); // |Hb| sorted, how many b
  for (let b = 0; b < 2 ** size; b++) {
    const c = sylvester(ones.map((_, k) => (b >> k) & 1 ? -1 : 1)).map(Math.abs).sort((p, q) => p - q);
    const known = laws.get(c.join());
    if (known) known[1]++;
    else laws.set(c.join(), [c, 1]);
  }
  const total = new Map<number, number>();
  for (const [c, count] of laws.values()) {
    for (const [value, p] of signedSums(c)) total.set(value, (total.get(value) ?? 0) + p * count / 2 ** size);
  }
  return scaled(total, size ** -1.5);
}

/** E exp(w·z) for z = √s on one axis: a symmetric law of entries and chi(size) norms, E cosh(ρ t) = ₁F₁(size/2; ½; t²/2). */
export function axisMean(law: Map<number, number>, size: number, s: number): number {
  let sum = 0;
  for (const [u, p] of law) sum += p * series(s * u * u / 2, [size / 2], [0.5]);
  return sum;
}

/** erf, unlike the kernels' series: Simpson's rule on a grid of 1/64, and a Taylor step from the nearest node; about 1e-14. */
export const erf = (() => {
  const step = 1 / 64, end = 6.5, inside = 16;
  const density = (t: number) => 2 / Math.sqrt(Math.PI) * Math.exp(-t * t);
  const nodes = [0];
  for (let i = 0; i * step < end; i++) {
    let sum = density(i * step) + density((i + 1) * step);
    for (let j = 1; j < inside; j++) sum += (j % 2 ? 4 : 2) * density((i + j / inside) * step);
    nodes.push(nodes[i] + sum * step / inside / 3);
  }
  return (x: number): number => {
    const a = Math.min(Math.abs(x), end);
    const c = Math.round(a / step) * step, h = a - c;
    const d2 = -2 * c, d3 = 4 * c * c - 2, d4 = -8 * c ** 3 + 12 * c, d5 = 16 * c ** 4 - 48 * c * c + 12;
    const d6 = -32 * c ** 5 + 160 * c ** 3 - 120 * c;
    const taylor = 1 + h * (d2 / 2 + h * (d3 / 6 + h * (d4 / 24 + h * (d5 / 120 + h * d6 / 720))));
    return Math.sign(x) * (nodes[Math.round(c / step)] + density(c) * h * taylor);
  };
})();

/** The f of generalised attention by name, as the paper and google-research define them. */
export const F: Readonly<Record<string, (u: number) => number>> = {
  "relu": (u) => u > 0 ? u : 0,
  "elu1": (u) => (u > 0 ? u : Math.expm1(u)) + 1,
  "sigmoid": (u) => 0.5 + 0.5 * Math.tanh(u / 2),
  "exp": (u) => Math.exp(u),
  "abs": (u) => u < 0 ? -u : u,
  "gelu": (u) => u * (0.5 + 0.5 * erf(u * Math.SQRT1_2)),
  "cos": (u) => Math.cos(u),
  "sin": (u) => Math.sin(u),
  "tanh": (u) => 1 - 2 / (Math.exp(2 * u) + 1),
  "identity": (u) => u,
  "requ": (u) => u > 0 ? u ** 2 : 0,
  "shifted-elu": (u) => u > 0 ? 1 + u : Math.exp(u),
  "leaky-relu": (u) => Math.max(u, 0.01 * u),
  "softplus": (u) => Math.log(1 + Math.exp(u)),
  "square": (u) => u ** 2,
};

/** K(x, y) = E f(w·x) f(w·y), w ∼ N(0, I), where it has a closed form (arXiv 2009.14794 §2.2 and the arc-cosine kernels). */
export const LIMIT_KERNELS: Readonly<Record<string, (x: ArrayLike<number>, y: ArrayLike<number>) => number>> = (() => {
  const angle = (x: ArrayLike<number>, y: ArrayLike<number>) => {
    const n = Math.sqrt(norm2(x) * norm2(y));
    const c = dot(x, y) / n;
    const theta = Math.acos(c);
    return { n, c, theta, sin: Math.sin(theta) };
  };
  const relu = (x: ArrayLike<number>, y: ArrayLike<number>) => {
    const { n, c, theta, sin } = angle(x, y);
    return n / (2 * Math.PI) * (sin + (Math.PI - theta) * c);
  };
  const damp = (x: ArrayLike<number>, y: ArrayLike<number>) => Math.exp(-(norm2(x) + norm2(y)) / 2);
  return {
    "relu": relu,
    "requ": (x, y) => {
      const { n, c, theta, sin } = angle(x, y);
      return n * n / (2 * Math.PI) * (3 * sin * c + (Math.PI - theta) * (1 + 2 * c * c));
    },
    "abs": (x, y) => {
      const { n, c, sin } = angle(x, y);
      return 2 * n / Math.PI * (sin + c * Math.asin(c));
    },
    "cos": (x, y) => damp(x, y) * Math.cosh(dot(x, y)),
    "sin": (x, y) => damp(x, y) * Math.sinh(dot(x, y)),
    "exp": (x, y) => Math.exp((norm2(x) + norm2(y)) / 2 + dot(x, y)),
    "identity": dot,
    "square": (x, y) => norm2(x) * norm2(y) + 2 * dot(x, y) ** 2,
    "leaky-relu": (x, y) => 0.99 ** 2 * relu(x, y) + (0.01 * 0.99 + 0.01 ** 2) * dot(x, y),
    "gelu": (x, y) => {
      const A = norm2(x), B = norm2(y), r = dot(x, y);
      const p = 1 / (2 * Math.PI * Math.sqrt((1 + A) * (1 + B) - r * r));
      const P = 0.25 + Math.asin(r / Math.sqrt((1 + A) * (1 + B))) / (2 * Math.PI);
      return A * (B * p - r * r * p / (1 + A)) + r * P + r * r * p / (1 + B);
    },
  };
})();

/** E f(w·x) f(w·y) by the trapezoidal rule over the two Gaussians that w·x and w·y are made of. */
export function quadratureKernel(f: (u: number) => number, x: ArrayLike<number>, y: ArrayLike<number>): number {
  const a = Math.sqrt(norm2(x)), along = dot(x, y) / a, across = Math.sqrt(norm2(y) - along * along);
  const h = 0.025, reach = 9 / h;
  let sum = 0;
  for (let i = -reach; i <= reach; i++) {
    const s = i * h;
    const first = f(a * s) * Math.exp(-s * s / 2);
    if (first === 0) continue;
    let inner = 0;
    for (let j = -reach; j <= reach; j++) inner += f(along * s + across * j * h) * Math.exp(-((j * h) ** 2) / 2);
    sum += first * inner;
  }
  return sum * h * h / (2 * Math.PI);
}

/** The definition of φ(x) for one scaled row, nothing left out: what features in the log domain must equal. */
export function phi(
  map: { family: string; featuresPerProjection: number; activation?: string },
  W: readonly ArrayLike<number>[],
  x: ArrayLike<number>,
  epsilon = 0,
): number[] {
  const m = W.length;
  const u = W.map((w) => dot(w, x));
  const half = norm2(x) / 2;
  if (map.family === "trig") {
    const h = Math.exp(half) / Math.sqrt(m);
    return [...u.map((t) => h * Math.sin(t)), ...u.map((t) => h * Math.cos(t))];
  }
  if (map.family === "exp") {
    const signs = map.featuresPerProjection === 2 ? [1, -1] : [1];
    const h = Math.exp(-half) / Math.sqrt(m * signs.length);
    return signs.flatMap((sign) => u.map((t) => h * Math.exp(sign * t)));
  }
  return u.map((t) => F[map.activation!](t) / Math.sqrt(m) + epsilon);
}

/** D⁻¹ A V for any kernel matrix, `weights[j]` on key j, `causal` hides keys j > i. Rows without mass are 0. */
export function denseAttention(
  A: readonly (readonly number[])[],
  V: readonly ArrayLike<number>[],
  options: { causal?: boolean; weights?: ArrayLike<number> } = {},
): number[][] {
  return A.map((row, i) => {
    const a = row.map((value, j) => (options.causal && j > i ? 0 : value) * (options.weights?.[j] ?? 1));
    const total = a.reduce((sum, value) => sum + value, 0);
    return Array.from({ length: V[0].length }, (_, c) => {
      return total === 0 ? 0 : V.reduce((sum, v, j) => sum + a[j] * v[c], 0) / total;
    });
  });
}

/** exp(scale · q·k) with the row maximum taken out, so that large logits stay finite. */
export function softmaxMatrix(
  Q: readonly ArrayLike<number>[],
  K: readonly ArrayLike<number>[],
  scale: number,
): number[][] {
  return Q.map((q) => {
    const logits = K.map((k) => scale * dot(q, k));
    const top = Math.max(...logits);
    return logits.map((t) => Math.exp(t - top));
  });
}
