/** Maps fitted to data: the mathematics against brute force over pairs, and the estimators against closed forms. Fixed seeds. */
import { describe, expect, test } from "bun:test";
import { parametersFor, transformFor } from "../../src/attention.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { bindMap, FEATURE_MAPS, featureMap } from "../../src/feature_map.ts";
import { bestQuadratic } from "../../src/closed_forms.ts";
import {
  balanceOf,
  bestExponents,
  fitHead,
  fittedProjections,
  fixedFit,
  type HeadFit,
  leastLogVariance,
  logVariance,
  reviewFit,
} from "../../src/fitted.ts";
import { Moments, phiOf } from "../../src/moments.ts";
import { drawProjection, haarRows } from "../../src/projection.ts";
import { RandomStream } from "../../src/random.ts";
import { jacobiEigen } from "./jacobi.ts";
import { eigen, sandwich, spectral, times } from "../../src/symmetric.ts";
import { prepareTransformed } from "../../src/transformed.ts";
import { distance, Features, gaussian, pairWith, type Rows, rowsOf, Sample, softmax, tile } from "./harness.ts";
import { denseAttention, dot, mseExponent, mseIid, norm2, orthogonalGain, pairOf } from "./oracles.ts";

const FITTED = FEATURE_MAPS.filter((map) => map.fitted).map((map) => map.name);

function momentsOf(rows: Rows, weights?: number[]): Moments {
  const all = new Moments(1, rows[0].length, true);
  all.add(tile(rows), weights && Float64Array.from(weights));
  return all;
}

/** Rows with a mean and very different spreads, turned by a random matrix. */
function anisotropic(seed: number, n: number, d: number): Rows {
  const turn = haarRows(new RandomStream(seed, 1), d, d);
  const mean = gaussian(seed + 1, 1, d, 0.4)[0];
  return gaussian(seed, n, d).map((row) => {
    const spread = row.map((value, l) => value * (0.05 + 0.5 * l / d) + mean[l]);
    return Array.from({ length: d }, (_, i) => dot(turn.subarray(i * d, (i + 1) * d), spread));
  });
}

const d = 5;
const X = anisotropic(11, 40, d), Y = anisotropic(23, 30, d);
const [x, y] = [momentsOf(X).ofGroup(0, 1), momentsOf(Y).ofGroup(0, 1)];
const SCALE = 0.7;
const fitOf = (name: string, centred: boolean) => fitHead(featureMap(name), x, y, SCALE, centred);

const apply = (M: Float64Array | undefined, row: ArrayLike<number>): number[] =>
  !M ? Array.from(row) : M.length === row.length ? Array.from(row, (value, l) => M[l] * value) : [...times(M, row)];
/** Scaled rows as the features of a fitted map see them. */
const queryOf = ({ balance }: HeadFit, row: readonly number[]) =>
  apply(balance?.T, row).map((value) => Math.sqrt(SCALE) * value);
const keyOf = ({ balance, shift }: HeadFit, row: readonly number[]) =>
  apply(balance?.inverse, row.map((value, l) => value - (shift?.[l] ?? 0))).map((value) => Math.sqrt(SCALE) * value);

describe("symmetric matrices", () => {
  test.each([1, 2, 7, 33, 64])("eigenvectors of %d × %d are orthonormal and give the matrix back", (n) => {
    const half = gaussian(n, n, n);
    const M = Float64Array.from({ length: n * n }, (_, at) => dot(half[Math.floor(at / n)], half[at % n]));
    const found = eigen(M);
    expect(distance([spectral(found, (value) => value)], [M])).toBeLessThan(1e-13 * n);
    const { vectors, values } = found;
    for (let k = 0; k < n; k++) {
      if (k > 0) expect(values[k]).toBeGreaterThanOrEqual(values[k - 1]);
      for (let l = 0; l <= k; l++) {
        let sum = 0;
        for (let i = 0; i < n; i++) sum += vectors[i * n + k] * vectors[i * n + l];
        expect(Math.abs(sum - (k === l ? 1 : 0))).toBeLessThan(1e-13 * n);
      }
    }
  });

  // Both are backward stable: values are off by d roundings of the largest, about 4e-14 at d = 96; smooth functions of M likewise.
  test.each([5, 40, 96])(
    "equals Jacobi's rotations at %d × %d: full, of low rank, and with all values close together",
    (n) => {
      const half = gaussian(n, n, n + 1);
      const gram = (rank: number) =>
        Float64Array.from({ length: n * n }, (_, at) => {
          const [a, b] = [half[Math.floor(at / n)], half[at % n]];
          return dot(a.slice(0, rank), b.slice(0, rank));
        });
      const full = gram(n);
      const close = full.map((value, at) => 1e-7 * value + (at % (n + 1) === 0 ? 1 : 0));
      const graded = full.map((value, at) => value * 10 ** (-10 * (Math.floor(at / n) + at % n) / n));
      for (const M of [full, gram(Math.ceil(n / 4)), close, graded]) {
        const [mine, theirs] = [eigen(M), jacobiEigen(M)];
        const largest = theirs.values[n - 1];
        mine.values.forEach((value, l) => {
          expect(Math.abs(value - theirs.values[l])).toBeLessThan(1e-12 * largest);
        });
        const root = (value: number) => Math.sqrt(value / largest + 0.01);
        expect(distance([spectral(mine, root)], [spectral(theirs, root)])).toBeLessThan(1e-12);
      }
    },
  );

  test("numbers that are none do not keep it busy, nor do tiny and huge ones", () => {
    expect(eigen(new Float64Array(16).fill(NaN)).values.every(Number.isNaN)).toBeTrue();
    for (const scale of [1e-200, 1e200]) {
      const { values } = eigen(Float64Array.of(2, 1, 1, 1, 2, 1, 1, 1, 2).map((value) => scale * value));
      values.forEach((value, l) => expect(Math.abs(value / scale - [1, 1, 4][l])).toBeLessThan(1e-14));
    }
  });

  test("repeated eigenvalues, zero and a matrix that is diagonal already", () => {
    expect([...eigen(Float64Array.of(2, 0, 0, 0, -1, 0, 0, 0, 2)).values]).toEqual([-1, 2, 2]);
    expect([...eigen(new Float64Array(9)).values]).toEqual([0, 0, 0]);
    const { values } = eigen(Float64Array.of(1, 1, 1, 1, 1, 1, 1, 1, 1)); // rank 1
    values.forEach((value, l) => expect(Math.abs(value - (l === 2 ? 3 : 0))).toBeLessThan(1e-14));
  });
});

describe("moments", () => {
  test("shards merge to the whole; weight 2 is a row twice, weight 0 no row", () => {
    const weights = Y.map((_, j) => [1, 2, 0][j % 3]);
    const whole = momentsOf(Y, weights);
    const merged = momentsOf(Y.slice(20), weights.slice(20));
    merged.merge(momentsOf(Y.slice(0, 20), weights.slice(0, 20)));
    const copied = momentsOf(Y.flatMap((row, j) => new Array<number[]>(weights[j]).fill(row)));
    for (const other of [merged, copied]) {
      expect(other.weight).toBe(whole.weight);
      for (const part of ["sums", "squares", "products"] as const) {
        expect(distance([other[part]!], [whole[part]!])).toBeLessThan(1e-14);
      }
    }
    expect(() => merged.merge(new Moments(1, d))).toThrow(RangeError);
  });

  test("D23 φ̄ of moments is the mean over pairs, also of grouped heads", () => {
    const brute = (X: Rows, Y: Rows) => {
      const all = X.flatMap((q) => Y.map((k) => norm2(q.map((value, l) => value + k[l]))));
      return all.reduce((sum, value) => sum + value, 0) / all.length;
    };
    const queries = new Moments(4, 2), keys = new Moments(2, 2);
    const Q = gaussian(5, 20, 8), K = gaussian(6, 15, 4);
    queries.add(tile(Q));
    keys.add(tile(K));
    let sum = 0;
    for (let h = 0; h < 4; h++) {
      const kv = Math.floor(h / 2);
      sum += brute(Q.map((row) => row.slice(2 * h, 2 * h + 2)), K.map((row) => row.slice(2 * kv, 2 * kv + 2))) / 4;
    }
    expect(Math.abs(phiOf(queries, keys, 0.5) / (sum / 4 * 1) - 1)).toBeLessThan(1e-13);
    expect(Math.abs(fitOf("positive", false).phiBefore / (SCALE * brute(X, Y)) - 1)).toBeLessThan(1e-13);
  });
});

describe.each(["positive", ...FITTED])("%s", (name) => {
  test.each([false, true])("D23 φ and the log variance are means over all pairs; centred %p", (centred) => {
    const fit = fitOf(name, centred);
    const paired = featureMap(name).featuresPerProjection === 2;
    const Q = fit.directions;
    const pairs = X.flatMap((q) => {
      return Y.map((k) => {
        const [a, b] = [queryOf(fit, q), keyOf(fit, k)];
        const z = a.map((value, l) => value + b[l]);
        return Q ? z.map((_, l) => z.reduce((sum, value, i) => sum + Q[i * d + l] * value, 0)) : z;
      });
    });
    const mean = (f: (z: number[]) => number) => pairs.reduce((sum, z) => sum + f(z), 0) / pairs.length;
    expect(Math.abs(fit.phi / mean(norm2) - 1)).toBeLessThan(1e-12);
    const a = (l: number) => fit.exponents.length === 1 ? fit.exponents[0] : fit.exponents[l] ?? 0;
    // ln E[X²]/SM² of one pair by its definition; s is the part of it that an exponential of the pair is made of.
    const parts = (squares: number[]) =>
      squares.reduce(([constant, s], square, l) => {
        const A = a(l);
        return [constant + Math.log(1 - 4 * A) - Math.log(1 - 8 * A) / 2, s + square * 2 * (1 - 4 * A) / (1 - 8 * A)];
      }, [0, 0]);
    const logRatio = (squares: number[]) => {
      const [constant, s] = parts(squares);
      const sum = squares.reduce((total, square) => total + square, 0);
      return constant - sum + (paired ? Math.log((Math.exp(s) + 1) / 2) : s);
    };
    const squares = (z: number[]) => z.map((value) => value * value);
    const middle = Array.from({ length: d }, (_, l) => mean((z) => z[l] * z[l]));
    const expected = paired ? logRatio(middle) : mean((z) => logRatio(squares(z)));
    expect(Math.abs(fit.logVariance - expected)).toBeLessThan(1e-11);
  });

  test("moving keys and fitting exponents never adds variance, and no exponent nearby is better", () => {
    const [before, after] = [fitOf(name, false), fitOf(name, true)];
    expect(after.phi).toBeLessThan(before.phi);
    expect(after.logVariance).toBeLessThan(before.logVariance);
    const map = featureMap(name);
    if (!map.fitted) return;
    const paired = map.featuresPerProjection === 2;
    const each = map.fitted.exponents === "one" ? d : 1;
    const lambdas = each === d ? [after.phi] : eigenvaluesOf(after);
    for (const step of [-1e-3, 1e-3]) {
      for (let l = 0; l < lambdas.length; l++) {
        const moved = after.exponents.map((a, at) => at === l ? a + step : a);
        expect(logVariance(lambdas, moved, each, paired)).toBeGreaterThan(after.logVariance);
      }
    }
  });
});

/** Mean squares along the directions of a fit, by all pairs. */
function eigenvaluesOf(fit: HeadFit): number[] {
  return Array.from({ length: d }, (_, l) => {
    let sum = 0;
    for (const q of X) {
      for (const k of Y) {
        const [a, b] = [queryOf(fit, q), keyOf(fit, k)];
        sum += a.reduce((dotted, value, i) => dotted + fit.directions![i * d + l] * (value + b[i]), 0) ** 2;
      }
    }
    return sum / X.length / Y.length;
  });
}

test("D23 H(λ) ≤ λ, and directions never have more variance than one exponent: Σ H(λ_l) ≤ d H(φ/d)", () => {
  for (const lambda of [1e-6, 0.01, 0.3, 1, 4, 30]) {
    expect(leastLogVariance(lambda)).toBeLessThan(lambda);
    expect(bestQuadratic(lambda, 1)).toBeLessThan(0);
  }
  for (const centred of [false, true]) {
    for (const [many, one] of [["sderf", "oprf"], ["aderf+sderf", "aderf"], ["hyp-sderf", "hyp-oprf"]]) {
      expect(fitOf(many, centred).logVariance).toBeLessThan(fitOf(one, centred).logVariance);
    }
    for (const [balanced, plain] of [["saderf", "oprf"], ["aderf", "saderf"]]) {
      expect(fitOf(balanced, centred).logVariance).toBeLessThanOrEqual(fitOf(plain, centred).logVariance);
    }
    const { phi, logVariance } = fitOf("oprf", centred);
    expect(Math.abs(logVariance - d * leastLogVariance(phi / d))).toBeLessThan(1e-12);
  }
});

test("D22 ADERF: T Mx T = T⁻¹ My T⁻¹, logits unchanged by T, and keys balanced about their means", () => {
  const { T, inverse } = balanceOf(x.products!, y.products!)!;
  expect(distance([sandwich(T, x.products!)], [sandwich(inverse, y.products!)])).toBeLessThan(1e-11);
  for (const centred of [false, true]) {
    for (const name of ["saderf", "aderf"]) {
      const fit = fitOf(name, centred);
      for (const q of X.slice(0, 5)) {
        const moved = Y.map((k) => dot(queryOf(fit, q), keyOf(fit, k)));
        const shift = fit.shift ? SCALE * dot(q, fit.shift) : 0;
        const exact = Y.map((k) => SCALE * dot(q, k) - shift);
        expect(distance([moved], [exact])).toBeLessThan(1e-12);
      }
    }
  }
  // g = ȳ + G x̄ leaves no mean at all, which x̄ + ȳ would.
  const fit = fitOf("aderf", true);
  const sums = X.flatMap((q) => Y.map((k) => queryOf(fit, q).map((value, l) => value + keyOf(fit, k)[l])));
  for (let l = 0; l < d; l++) {
    expect(Math.abs(sums.reduce((sum, z) => sum + z[l], 0) / sums.length)).toBeLessThan(1e-13);
  }
});

test("rows that are queries and keys at once are balanced already: T is left out, and g is twice the mean", () => {
  for (const name of ["saderf", "aderf"]) {
    const fit = fitHead(featureMap(name), x, x, SCALE, true);
    expect(fit.balance).toBeNull();
    x.mean.forEach((value, l) => expect(fit.shift![l]).toBe(2 * value));
  }
});

/** Features of a fit with explicit W, weights in float64 so that identities hold to rounding. */
function featuresOf(name: string, fit: HeadFit, W: Rows): Features {
  const n = W[0].length;
  const { beta } = fittedProjections(fit, Float64Array.from(W.flat()), n);
  const a = (l: number) => fit.exponents.length === 1 ? fit.exponents[0] : fit.exponents[l];
  const weights = W.flatMap((w) =>
    apply(fit.directions ?? undefined, w.map((value, l) => value * Math.sqrt(1 - 4 * a(l))))
  );
  return new Features(
    bindMap(featureMap(name), { headDim: n, scale: 1, matrices: 1, weights: Float64Array.from(weights), beta }),
  );
}

describe("D2 one map inside another", () => {
  const W = gaussian(3, 6, d);
  const [q, k] = [X[0], Y[0]];
  const fixed = (exponents: number[], directions: Float64Array | null = null): HeadFit => ({
    ...fixedFit(featureMap("oprf"), d, 1).heads[0],
    exponents: Float64Array.from(exponents),
    directions,
  });
  const unit = Float64Array.from({ length: d * d }, (_, at) => at % (d + 1) === 0 ? 1 : 0);
  const ratio = (a: number, b: number) => expect(Math.abs(a / b - 1)).toBeLessThan(1e-13);

  test("D2 A = 0 is positive; equal exponents along the axes are oprf; both signs are the mean of w and −w", () => {
    const plain = bindMap(featureMap("positive"), {
      headDim: d,
      scale: 1,
      matrices: 1,
      weights: Float64Array.from(W.flat()),
    });
    ratio(featuresOf("oprf", fixed([0]), W).estimate(q, k), new Features(plain).estimate(q, k));
    const same = fixed(new Array(d).fill(-0.3), unit);
    ratio(featuresOf("sderf", same, W).estimate(q, k), featuresOf("oprf", fixed([-0.3]), W).estimate(q, k));
    const minus = W.map((w) => w.map((value) => -value));
    const mean = (featuresOf("sderf", same, W).estimate(q, k) + featuresOf("sderf", same, minus).estimate(q, k)) / 2;
    ratio(featuresOf("hyp-sderf", same, W).estimate(q, k), mean);
  });

  test("D3 turning the data turns the directions with it", () => {
    const turn = haarRows(new RandomStream(9), d, d);
    const turned = (row: readonly number[]) => [...times(turn, row)];
    const fit = fitOf("sderf", false);
    const again = fitHead(
      featureMap("sderf"),
      momentsOf(X.map(turned)).ofGroup(0, 1),
      momentsOf(Y.map(turned)).ofGroup(0, 1),
      SCALE,
      false,
    );
    expect(distance([again.exponents], [fit.exponents])).toBeLessThan(1e-11);
    // Directions are those of before, turned, up to their signs, which W's law does not see.
    const directions = Array.from(
      { length: d },
      (_, l) => turned(Array.from({ length: d }, (_, i) => fit.directions![i * d + l])),
    );
    const joined = Float64Array.from({ length: d * d }, (_, at) => directions[at % d][Math.floor(at / d)]);
    ratio(
      featuresOf("sderf", { ...fit, directions: joined }, W).estimate(turned(q), turned(k)),
      featuresOf("sderf", fit, W).estimate(q, k),
    );
    const columns = (Q: Float64Array, l: number) => Array.from({ length: d }, (_, i) => Q[i * d + l]);
    for (let l = 0; l < d; l++) {
      expect(Math.abs(Math.abs(dot(columns(again.directions!, l), columns(joined, l))) - 1)).toBeLessThan(1e-9);
    }
  });
});

describe("S1 S2 estimators, s = δ = 1, d = m = 8, 20,000 draws", () => {
  const n = 8, m = 8;
  const [q, k] = pairWith(n, 1, 1);
  const pair = pairOf(q, k);
  // One exponent at its best for s = 1; exponents per direction for a spectrum that is not flat.
  const spectrum = Array.from({ length: n }, (_, l) => 0.02 + 0.03 * l);
  const directions = haarRows(new RandomStream(8), n, n);
  const fits = ["oprf", "hyp-oprf", "sderf", "hyp-sderf"].map((name) => {
    const map = featureMap(name);
    const paired = map.featuresPerProjection === 2;
    const one = map.fitted!.exponents === "one";
    const exponents = bestExponents(one ? [1] : spectrum, one ? n : 1, paired);
    return {
      name,
      paired,
      one,
      fit: { ...fixedFit(map, n, 1).heads[0], exponents, directions: one ? null : directions },
    };
  });

  test.each(["iid", "orthogonal"])("S1 S2 %s: unbiased, with the error of the closed form", (kind) => {
    const results = fits.map((of) => ({ ...of, estimate: new Sample(), squared: new Sample() }));
    for (let draw = 0; draw < 20_000; draw++) {
      const options = { kind, projections: m, headDim: n, matrices: 1, norms: "chi", seed: 77, draw } as const;
      const W = drawProjection(options);
      for (const { name, fit, estimate, squared } of results) {
        const { weights, beta } = fittedProjections(fit, W, n);
        const p = bindMap(featureMap(name), { headDim: n, scale: 1, matrices: 1, weights, beta });
        const value = new Features(p).estimate(q, k);
        estimate.add(value);
        squared.add((value - pair.softmax) ** 2);
      }
    }
    for (const { name, fit, one, paired, estimate, squared } of results) {
      expect(Math.abs(estimate.z(pair.softmax)), `${name}: z`).toBeLessThan(4.5);
      expect(estimate.standardError / pair.softmax, `${name}: power`).toBeLessThan(0.004);
      if (!one) continue;
      const gain = kind === "iid" ? 0 : orthogonalGain("pos", pair, m);
      const mse = mseExponent(pair, m, fit.exponents[0], paired) - gain;
      expect(Math.abs(squared.mean / mse - 1), `${name}: mse`).toBeLessThan(paired ? 0.2 : 0.1);
      expect(mse, name).toBeLessThan(mseIid(paired ? "hyp" : "pos", pair, m) - gain); // the fit pays
    }
  }, 60_000);
});

describe("data that leave nothing to fit", () => {
  const same = Array.from({ length: 6 }, () => [0.5, -1, 2]);
  const flat = gaussian(4, 9, 3).map(([a]) => [a, 2 * a, 0]); // one direction only
  const cases: [string, Rows, Rows][] = [
    ["constant keys", gaussian(2, 9, 3), same],
    ["constant queries and keys", same, same],
    ["rank 1", flat, gaussian(3, 9, 3)],
    ["fewer rows than columns", gaussian(5, 2, 3), gaussian(6, 1, 3)],
    ["all zero", same.map(() => [0, 0, 0]), same.map(() => [0, 0, 0])],
    ["keys a thousand times larger", gaussian(7, 9, 3), gaussian(8, 9, 3, 1e3)],
  ];
  test.each(cases)("%s: every number is finite", (_, X, Y) => {
    for (const name of ["positive", "trigonometric", ...FITTED]) {
      for (const centred of [false, true]) {
        const fit = fitHead(featureMap(name), momentsOf(X).ofGroup(0, 1), momentsOf(Y).ofGroup(0, 1), 1, centred);
        const numbers = [
          ...fit.exponents,
          ...(fit.shift ?? []),
          ...(fit.balance?.T ?? []),
          ...(fit.balance?.inverse ?? []),
          ...(fit.directions ?? []),
          fit.phi,
          fit.logVariance,
        ];
        expect(numbers.every(Number.isFinite), name).toBe(true);
        expect(fit.exponents.every((a) => a <= 0), name).toBe(true);
      }
    }
  });
});

describe("D14 re-centring", () => {
  test("D14 exact softmax does not see it", async () => {
    const V = gaussian(40, Y.length, 3);
    const exact = await softmax(SCALE, { Q: X, K: Y, V });
    for (const name of ["positive", "aderf"]) {
      const shift = fitOf(name, true).shift!;
      const moved = Y.map((k) => k.map((value, l) => value - shift[l]));
      expect(distance(await softmax(SCALE, { Q: X, K: moved, V }), exact)).toBeLessThan(1e-12);
    }
  });

  test("D14 features of moved keys times e^{x·g} estimate the kernel of those that stayed", () => {
    const fit = fitOf("aderf+sderf", true);
    const [q, k] = [X[1], Y[1]];
    const [a, b] = [queryOf(fit, q), keyOf(fit, k)];
    const estimate = new Sample();
    for (let draw = 0; draw < 4000; draw++) {
      const options = {
        kind: "orthogonal",
        projections: d,
        headDim: d,
        matrices: 1,
        norms: "chi",
        seed: 5,
        draw,
      } as const;
      const { weights, beta } = fittedProjections(fit, drawProjection(options), d);
      const p = bindMap(featureMap("aderf+sderf"), { headDim: d, scale: 1, matrices: 1, weights, beta });
      estimate.add(new Features(p).estimate(a, b) * Math.exp(SCALE * dot(q, fit.shift!)));
    }
    const kernel = Math.exp(SCALE * dot(q, k));
    expect(Math.abs(estimate.z(kernel))).toBeLessThan(4.5);
    expect(estimate.standardError / kernel).toBeLessThan(0.02);
  });

  test("D14 trigonometric features want queries and keys near each other instead: g = ȳ − x̄", () => {
    const fit = fitOf("trigonometric", true);
    x.mean.forEach((value, l) => expect(Math.abs(fit.shift![l] - (y.mean[l] - value))).toBeLessThan(1e-15));
    const gaps = X.flatMap((q) => Y.map((k) => norm2(queryOf(fit, q).map((value, l) => value - keyOf(fit, k)[l]))));
    const mean = gaps.reduce((sum, value) => sum + value, 0) / gaps.length;
    expect(Math.abs(fit.logVariance - Math.log(Math.cosh(mean)))).toBeLessThan(1e-12);
  });
});

test("D19 cosformer: relu(q)·relu(k) cos(π(i − j)/2M), both directions and any tiles", async () => {
  const L = 30;
  const at = { Q: gaussian(50, L, 4), K: gaussian(51, L, 4), V: gaussian(52, L, 3) };
  const relu = (row: readonly number[]) => row.map((value) => Math.max(0, value));
  const A = at.Q.map((q, i) => at.K.map((k, j) => dot(relu(q), relu(k)) * Math.cos(Math.PI * (i - j) / (2 * L))));
  const sizes = { queryRows: L, keyRows: L, heads: 1, kvHeads: 1, headDim: 4, valueDim: 3 };
  for (const causal of [false, true]) {
    const attention = {
      features: "cosformer",
      numFeatures: 1,
      causal,
      scale: null,
      given: null,
      compat: "exact",
    } as const;
    const own = { ...attention, projection: "orthogonal", norms: "chi", seed: 0 } as const;
    const parameters = parametersFor(own, sizes);
    expect(parameters.features).toBe(8);
    const expected = denseAttention(A, at.V, { causal });
    for (const tileRows of [L, 7]) {
      await using backend = await scalar.open({ named: true });
      const plan = { heads: 1, kvHeads: 1, headDim: 4, valueDim: 3, causal, tileRows, parameters };
      await using session = await prepareTransformed(backend, plan, transformFor(own, sizes, null));
      const out: Rows = [];
      const cut = (rows: Rows, from: number) => tile(rows.slice(from, from + tileRows), from);
      for (let from = 0; !causal && from < L; from += tileRows) await session.absorb(cut(at.K, from), cut(at.V, from));
      for (let from = 0; from < L; from += tileRows) {
        const keys = causal ? { k: cut(at.K, from), v: cut(at.V, from) } : null;
        out.push(...rowsOf(await session.emit(cut(at.Q, from), keys)));
        if (keys) await session.absorb(keys.k, keys.v);
      }
      expect(distance(out, expected)).toBeLessThan(1e-12);
    }
  }
});

describe("a fit reviewed on rows", () => {
  const SOFTMAX = FEATURE_MAPS.filter(({ kernel, family }) => kernel === "softmax" && family !== "hybrid");

  test.each(SOFTMAX.map(({ name }) => name))("that it was fitted to is the fit's own account: %s", (name) => {
    for (const centred of [false, true]) {
      const fit = fitOf(name, centred);
      const found = reviewFit(featureMap(name), fit, x, y, SCALE);
      // Sums of d² products of numbers of order 1, in another order.
      for (const key of ["phiBefore", "phi", "logVariance"] as const) {
        expect(Math.abs(found[key] - fit[key])).toBeLessThan(1e-12 * (1 + Math.abs(fit[key])));
      }
    }
  });

  test("of others is the mean over their pairs", () => {
    const others = [anisotropic(31, 20, d), anisotropic(41, 25, d)];
    const [a, b] = others.map((rows) => momentsOf(rows).ofGroup(0, 1));
    for (const name of ["saderf", "hyp-aderf+sderf", "positive"]) {
      const fit = fitOf(name, true);
      const pairs = others[0].flatMap((q) => {
        return others[1].map((k) => pairOf(queryOf(fit, q), keyOf(fit, k)).s);
      });
      const mean = pairs.reduce((sum, value) => sum + value, 0) / pairs.length;
      expect(Math.abs(reviewFit(featureMap(name), fit, a, b, SCALE).phi / mean - 1)).toBeLessThan(1e-12);
    }
  });

  test("without a fit nothing is moved", () => {
    const { phiBefore, phi, logVariance: ln } = reviewFit(featureMap("positive"), null, x, y, SCALE);
    expect(phi).toBe(phiBefore);
    expect(Math.abs(ln / phi - 1)).toBeLessThan(1e-13); // ln(E[X²]/SM²) of plain positive features is ‖x + y‖²
  });
});
