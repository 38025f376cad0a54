/** Random features as estimators: unbiased, with the mean squared error that theory gives. Fixed seeds, so nothing flickers. */
import { describe, expect, test } from "bun:test";
import { absorbKeys } from "../../kernels/scalar/keys.ts";
import { ACTIVATION_FUNCTIONS } from "../../kernels/scalar/activations.ts";
import { ACTIVATIONS, featureMap } from "../../src/feature_map.ts";
import { drawProjection, haarRows } from "../../src/projection.ts";
import { RandomStream } from "../../src/random.ts";
import { emptyState } from "../../src/state.ts";
import {
  Features,
  gaussian,
  linear,
  pairWith,
  parametersOf,
  Sample,
  sample,
  softmax,
  SOFTMAX_MAPS,
  tile,
} from "./harness.ts";
import {
  dot,
  F,
  LIMIT_KERNELS,
  mseIid,
  mseOrthogonal,
  mseSmreg,
  norm2,
  orthogonalGain,
  pairOf,
  quadratureKernel,
  rho,
  smreg,
  type SoftmaxEstimator,
} from "./oracles.ts";

const SHORT: Record<string, SoftmaxEstimator> = { positive: "pos", hyperbolic: "hyp", trigonometric: "trig" };

describe("S1 S2 s = δ = 1, d = m = 8, 20,000 draws", () => {
  const d = 8, m = 8;
  const [x, y] = pairWith(d, 1, 1);
  const pair = pairOf(x, y);
  const tolerances: Record<string, number> = { trigonometric: 0.1, positive: 0.25, hyperbolic: 0.4 };

  for (const kind of ["iid", "orthogonal"]) {
    test(`S1 S2 ${kind}: unbiased, and the mean squared error of the closed form`, () => {
      for (
        const { name, estimate, squared } of sample(
          { maps: SOFTMAX_MAPS, kind, d, m, draws: 20_000, target: pair.softmax },
          x,
          y,
        )
      ) {
        expect(Math.abs(estimate.z(pair.softmax)), `${name}: z`).toBeLessThan(4.5);
        expect(estimate.standardError / pair.softmax, `${name}: power`).toBeLessThan(0.004);
        const mse = (kind === "iid" ? mseIid : mseOrthogonal)(SHORT[name], pair, m);
        expect(Math.abs(squared.mean / mse - 1), `${name}: mse`).toBeLessThan(tolerances[name]);
      }
    });
  }

  test("S1 S2 a truncated block (d = 4, m = 6), where a bias of directions or norms would be largest", () => {
    const [x, y] = pairWith(4, 1.27, 0.5);
    const pair = pairOf(x, y);
    const results = sample(
      { maps: SOFTMAX_MAPS, kind: "orthogonal", d: 4, m: 6, draws: 20_000, target: pair.softmax },
      x,
      y,
    );
    for (const { name, estimate, squared } of results) {
      expect(Math.abs(estimate.z(pair.softmax)), `${name}: z`).toBeLessThan(4.5);
      expect(Math.abs(squared.mean / mseOrthogonal(SHORT[name], pair, 6) - 1), name).toBeLessThan(tolerances[name]);
    }
  });
});

test("S3 orthogonal beats iid: hyperbolic, d = m = 16, s = 0.84, exact ratio 0.280", () => {
  const d = 16, m = 16;
  const [x, y] = pairWith(d, 0.84, 1);
  const pair = pairOf(x, y);
  const exact = mseOrthogonal("hyp", pair, m) / mseIid("hyp", pair, m);
  expect(exact).toBeCloseTo(0.28, 3);
  const [orthogonal, iid] = ["orthogonal", "iid"].map((kind) => {
    const [result] = sample({ maps: ["hyperbolic"], kind, d, m, draws: 4000, target: pair.softmax }, x, y);
    return result.squared.mean;
  });
  expect(orthogonal / iid).toBeLessThan(0.4);
  expect(orthogonal / iid).toBeGreaterThan(0.15);
});

test("S4 Haar: every entry of U has mean 0 and variance 1/d", () => {
  // LAPACK's QR fails this: its first column is always negative at the top, E U₁₁ = −0.42 at d = 4.
  const d = 4;
  const entries = Array.from({ length: d * d }, () => new Sample());
  const squares = entries.map(() => new Sample());
  for (let draw = 0; draw < 20_000; draw++) {
    haarRows(new RandomStream(4, draw), d, d).forEach((value, i) => {
      entries[i].add(value);
      squares[i].add(value * value);
    });
  }
  for (const entry of entries) expect(Math.abs(entry.z(0))).toBeLessThan(4.5);
  for (const square of squares) expect(Math.abs(square.z(1 / d))).toBeLessThan(4.5);
});

describe("S5 row norms √d estimate the regularised kernel", () => {
  for (const kind of ["iid", "orthogonal"]) {
    test(`S5 ${kind}: mean Λ·₀F₁ and its mean squared error`, () => {
      const d = 8, m = 8;
      const [x, y] = pairWith(d, 3, 1); // s = 3, so that SMREG is 20 standard errors away from SM
      const pair = pairOf(x, y);
      const target = smreg(pair);
      const maps = ["positive", "hyperbolic"];
      const [positive, hyperbolic] = sample({ maps, kind, d, m, draws: 10_000, norms: "sqrtd", target }, x, y);
      for (const { estimate } of [positive, hyperbolic]) {
        expect(Math.abs(estimate.z(target))).toBeLessThan(4.5);
        expect(Math.abs(estimate.z(pair.softmax))).toBeGreaterThan(4.5);
      }
      expect(Math.abs(positive.squared.mean / mseSmreg(pair, m, kind === "orthogonal") - 1)).toBeLessThan(0.1);
    });
  }
});

describe("S6 the paper's bound on what orthogonality gains", () => {
  test("S6 Theorem 2 (final version) holds on a grid, and is tight for small s", () => {
    for (const d of [2, 4, 16, 64]) {
      for (const s of [0.01, 0.1, 0.5, 1, 2, 4, 8]) {
        const gain = Math.exp(s) - rho(s, d);
        const bound = 2 / (d + 2) * (Math.exp(s / 2) - 1) ** 2;
        expect(gain).toBeGreaterThanOrEqual(bound * (1 - 1e-9));
      }
    }
    const gain = Math.exp(0.01) - rho(0.01, 2);
    const bound = 0.5 * (Math.exp(0.005) - 1) ** 2;
    expect(gain).toBeCloseTo(1.258e-5, 8);
    expect(bound).toBeCloseTo(1.256e-5, 8);
  });

  test("S6 the measured gain of positive features obeys it", () => {
    const d = 4, m = 4;
    const [x, y] = pairWith(d, 1, 1);
    const pair = pairOf(x, y);
    const bound = 2 * (m - 1) / (m * (d + 2)) * (pair.softmax - Math.sqrt(pair.lambda2)) ** 2;
    const [{ squared }] = sample(
      { maps: ["positive"], kind: "orthogonal", d, m, draws: 20_000, target: pair.softmax },
      x,
      y,
    );
    expect(orthogonalGain("pos", pair, m)).toBeGreaterThan(bound);
    expect(squared.mean).toBeLessThan(mseIid("pos", pair, m) - bound + 4 * squared.standardError);
  });
});

test("S7 the error of the output falls as 1/m", async () => {
  const L = 48, d = 8, scale = 1 / Math.sqrt(d), draws = 60;
  const at = { Q: gaussian(71, L, d, 0.3), K: gaussian(72, L, d, 0.3), V: gaussian(73, L, 4) };
  const exact = (await softmax(scale, at)).flat();
  const points: [number, number][] = [];
  for (let m = 64; m <= 1024; m *= 2) {
    let error = 0;
    for (let draw = 0; draw < draws; draw++) {
      const { out } = await linear(parametersOf("positive", { headDim: d, projections: m, scale, seed: 70, draw }), at);
      out.flat().forEach((value, i) => error += (value - exact[i]) ** 2);
    }
    points.push([Math.log(m), Math.log(error)]);
  }
  const mean = (axis: 0 | 1) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  const [mx, my] = [mean(0), mean(1)];
  const slope = points.reduce((sum, [a, b]) => sum + (a - mx) * (b - my), 0) /
    points.reduce((sum, [a]) => sum + (a - mx) ** 2, 0);
  expect(Math.abs(slope + 1)).toBeLessThan(0.15);
});

describe("S8 the error of an entry does not depend on how many other keys there are", () => {
  // Values e_j on the first 8 keys and 0 on the rest: e^c S_aj = φ_a(k_j) is read back out of a state of n keys.
  const d = 8, m = 8, few = 8, sd = 0.2; // larger norms have tails too heavy for a sample mean of squares
  const errorsOf = (draw: number, n: number): { squared: number; theory: number }[] => {
    const K = gaussian(8_000 + draw, n, d, sd);
    const [x] = gaussian(1_000_000 + draw, 1, d, sd);
    const p = parametersOf("positive", { headDim: d, projections: m, seed: 80, draw });
    const state = emptyState(1, m, few);
    const V = K.map((_, j) => Array.from({ length: few }, (_, c) => c === j ? 1 : 0));
    absorbKeys(p, { heads: 1, kvHeads: 1, headDim: d, valueDim: few }, state, tile(K), tile(V));
    const query = new Features(p).query(x);
    return K.slice(0, few).map((y, j) => {
      const value = query.reduce((sum, q, a) => sum + q * Math.exp(state.c[a]) * state.S[a * few + j], 0);
      return { squared: (value - Math.exp(dot(x, y))) ** 2, theory: mseOrthogonal("pos", pairOf(x, y), m) };
    });
  };

  test("S8 averaged over random pairs it is the closed form", () => {
    const squared = new Sample(), theory = new Sample();
    for (let draw = 0; draw < 4000; draw++) {
      for (const entry of errorsOf(draw, few)) {
        squared.add(entry.squared);
        theory.add(entry.theory);
      }
    }
    expect(Math.abs(squared.mean / theory.mean - 1)).toBeLessThan(0.2);
  });

  test("S8 and 1000 more keys leave it as it was", () => {
    for (let draw = 0; draw < 20; draw++) {
      const alone = errorsOf(draw, few), among = errorsOf(draw, 1000);
      among.forEach(({ squared }, j) => expect(Math.abs(squared - alone[j].squared)).toBeLessThan(1e-14));
    }
  });
});

describe("S9 kernels of generalised attention", () => {
  const d = 3, draws = 200_000;
  const pairs = [[[0.9, -0.4, 0.3], [0.2, 0.7, 0.5]], [[0.6, 0.5, -0.2], [-0.3, 0.8, 0.1]]];
  const W = drawProjection({
    kind: "iid",
    projections: draws,
    headDim: d,
    matrices: 1,
    norms: "chi",
    seed: 9,
    draw: 0,
  });
  const kinked = new Set(["relu", "abs", "leaky-relu", "shifted-elu", "elu1", "requ"]);

  test.each(Object.keys(LIMIT_KERNELS))("S9 %s: the closed form is E f(w·x) f(w·y), by quadrature", (name) => {
    for (const [x, y] of pairs) {
      const gap = Math.abs(quadratureKernel(ACTIVATION_FUNCTIONS[name], x, y) / LIMIT_KERNELS[name](x, y) - 1);
      expect(gap).toBeLessThan(kinked.has(name) ? 3e-4 : 1e-9);
    }
  });

  test.each([...ACTIVATIONS])("S9 %s: 200,000 drawn features agree within their standard error", (name) => {
    const map = { ...featureMap("relu"), name, activation: name, epsilon: 0 };
    const features = new Features(parametersOf(map, { headDim: d, W: [W] }));
    for (const [x, y] of pairs) {
      const exact = LIMIT_KERNELS[name]?.(x, y) ?? quadratureKernel(F[name], x, y);
      const [q, k] = [features.query(x), features.key(y)];
      const products = new Sample();
      for (let a = 0; a < draws; a++) products.add(q[a] * k[a] * draws);
      expect(Math.abs(products.z(exact))).toBeLessThan(4.5);
      expect(products.standardError).toBeLessThan(0.005 * Math.sqrt(norm2(x) * norm2(y)) + 0.01 * Math.abs(exact));
    }
  });
});
