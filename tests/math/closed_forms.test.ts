/**
 * src/closed_forms.ts beside the oracles, which were written apart from it, beside measured features, and beside published values.
 * All maps × all couplings that have a closed form.
 */
import { describe, expect, test } from "bun:test";
import {
  bestQuadratic,
  type Coupling,
  pairAtCosine,
  pairNumbers,
  regularisedShare,
  relativeKernelError,
  relativeRegularisedError,
  searchQuadratic,
} from "../../src/closed_forms.ts";
import { drawProjection } from "../../src/projection.ts";
import { gaussian, pairWith, Sample, sample, SOFTMAX_MAPS } from "./harness.ts";
import {
  dot,
  mseIid,
  mseOrthogonal,
  mseSimplex,
  mseSmreg,
  norm2,
  type Pair,
  pairOf,
  smregRatio,
  type SoftmaxEstimator,
} from "./oracles.ts";

const SHORT = { positive: "pos", hyperbolic: "hyp", trigonometric: "trig" } as const;
const pairAt = (d: number, s: number, delta: number): Pair => ({
  d,
  s,
  delta,
  lambda2: Math.exp(-(s + delta) / 2),
  softmax: Math.exp((s - delta) / 4),
});
const CASES = [1, 2, 3, 8, 64].flatMap((d) =>
  [0.01, 0.5, 4, 10].flatMap((s) =>
    [0.3, 2, 9].flatMap((delta) => [1, 5, d, 2 * d + 1].map((m) => ({ d, s, delta, m })))
  )
);

describe("errors of one weight", () => {
  test("iid and orthogonal rows, every map: equal to the oracles", () => {
    for (const { d, s, delta, m } of CASES) {
      const pair = pairAt(d, s, delta);
      for (const map of SOFTMAX_MAPS) {
        const own = (coupling: Coupling) =>
          relativeKernelError({ map, coupling, headDim: d, projections: m }, { s, delta });
        const short: SoftmaxEstimator = SHORT[map];
        const iid = mseIid(short, pair, m) / pair.softmax ** 2;
        expect(Math.abs(own("iid") / iid - 1)).toBeLessThan(1e-13);
        // Orthogonality takes nearly all of a small error away: what is left keeps the roundings of both parts, and of the gain's 1.
        const left = mseOrthogonal(short, pair, m) / pair.softmax ** 2;
        expect(Math.abs(own("orthogonal") - left)).toBeLessThan(1e-13 * (iid + 1 / m));
      }
    }
  });

  test("simplex rows, positive: equal to the oracle, which sums moments of chi laws instead of an integral", () => {
    for (const { d, s, delta } of CASES.filter(({ d, m, s, delta }) => d > 2 && m === d && s <= 4 && delta === 2)) {
      for (const m of [d, 2 * d]) {
        const pair = pairAt(d, s, delta);
        const own = relativeKernelError(
          { map: "positive", coupling: "simplex", headDim: d, projections: m },
          { s, delta },
        );
        expect(Math.abs(own / (mseSimplex(pair, m) / pair.softmax ** 2) - 1)).toBeLessThan(1e-9);
      }
    }
  });

  for (const [map, tolerance] of [["hyperbolic", 0.3], ["trigonometric", 0.1]] as const) {
    test(`S2 simplex rows, ${map}: as measured over 10,000 draws`, () => {
      const d = 4, m = 6; // a whole block and a part of one
      const [x, y] = pairWith(d, 1, 1);
      const { softmax } = pairOf(x, y);
      const at = { map, coupling: "simplex", headDim: d, projections: m } as const;
      const [{ estimate, squared }] = sample(
        { maps: [map], kind: "simplex", d, m, draws: 10_000, target: softmax },
        x,
        y,
      );
      expect(Math.abs(estimate.z(softmax))).toBeLessThan(4.5);
      const exact = relativeKernelError(at, pairNumbers(x, y));
      expect(Math.abs(squared.mean / softmax ** 2 / exact - 1)).toBeLessThan(tolerance);
      const iid = relativeKernelError({ ...at, coupling: "iid" }, pairNumbers(x, y));
      expect(Math.abs(squared.mean / softmax ** 2 / iid - 1)).toBeGreaterThan(0.03); // the coupling is seen
    });
  }

  test("two corners of a simplex in the plane are opposite: E e^{(r₁−r₂) u·z}, by quadrature over two chi laws", () => {
    const step = 0.02, s = 1.5;
    let mean = 0, mass = 0;
    for (let a = step / 2; a < 9; a += step) {
      for (let b = step / 2; b < 9; b += step) {
        const weight = a * b * Math.exp(-(a * a + b * b) / 2);
        mass += weight;
        let bessel = 1, term = 1; // I₀(|a − b| √s)
        for (let k = 1; k < 60; k++) bessel += term *= (a - b) ** 2 * s / 4 / (k * k);
        mean += weight * bessel;
      }
    }
    expect(Math.abs(pairAtCosine(s, 2, -1) / (mean / mass) - 1)).toBeLessThan(1e-4); // midpoint rule: step²
  });

  test.each(["positive", "hyperbolic"] as const)("S2 %s with A: as measured, iid and orthogonal", (map) => {
    // e^{A‖w‖² + √(1−4A) w·x − ‖x‖²/2} (1−4A)^{d/4} summed here, since the closed form must not lean on the library's own map.
    const d = 8, m = 8;
    const [x, y] = pairWith(d, 2, 1);
    const { softmax, lambda2 } = pairOf(x, y);
    const z = x.map((value, l) => value + y[l]);
    const A = bestQuadratic(2, d), B = Math.sqrt(1 - 4 * A);
    for (const coupling of ["iid", "orthogonal"] as const) {
      const estimate = new Sample(), squared = new Sample();
      for (let draw = 0; draw < 10_000; draw++) {
        const W = drawProjection({
          kind: coupling,
          projections: m,
          headDim: d,
          matrices: 1,
          norms: "chi",
          seed: 5,
          draw,
        });
        let value = 0;
        for (let a = 0; a < m; a++) {
          const w = W.subarray(a * d, a * d + d);
          const t = B * dot(w, z);
          value += Math.exp(2 * A * norm2(w)) * (map === "positive" ? Math.exp(t) : Math.cosh(t)) / m;
        }
        value *= (1 - 4 * A) ** (d / 2) * Math.sqrt(lambda2);
        estimate.add(value);
        squared.add((value / softmax - 1) ** 2);
      }
      expect(Math.abs(estimate.z(softmax))).toBeLessThan(4.5);
      const exact = relativeKernelError(
        { map, coupling, headDim: d, projections: m, quadratic: A },
        pairNumbers(x, y),
      );
      expect(Math.abs(squared.mean / exact - 1)).toBeLessThan(map === "positive" ? 0.15 : 0.25);
    }
  });
});

describe("A", () => {
  test("the formula is the minimum of independent positive features; the search finds it", () => {
    for (const [phi, d] of [[0.25, 64], [2, 16], [16, 64], [3, 3]]) {
      const at = { map: "positive", coupling: "iid", headDim: d, projections: 10 } as const;
      const error = (quadratic: number) => relativeKernelError({ ...at, quadratic }, { s: phi, delta: 0 });
      const best = bestQuadratic(phi, d);
      expect(best).toBeLessThan(0);
      for (const factor of [0.97, 1.03]) expect(error(best)).toBeLessThan(error(best * factor));
      expect(Math.abs(searchQuadratic(at, phi) / best - 1)).toBeLessThan(1e-5); // flat at the minimum: √ of a rounding
    }
    expect(bestQuadratic(0, 8)).toBe(0);
  });

  test("hyperbolic features want a smaller A where s is small", () => {
    const at = { map: "hyperbolic", coupling: "orthogonal", headDim: 64, projections: 128 } as const;
    const error = (quadratic: number) => relativeKernelError({ ...at, quadratic }, { s: 0.25, delta: 0 });
    const found = searchQuadratic(at, 0.25);
    expect(error(found)).toBeLessThan(0.85 * error(bestQuadratic(0.25, 64)));
    expect(error(found)).toBeLessThan(error(0));
  });
});

describe("row norms √d", () => {
  test("the share of softmax's kernel and the errors about it are the oracles'", () => {
    for (const d of [2, 3, 8, 64]) {
      for (let seed = 0; seed < 4; seed++) {
        const [x, y] = gaussian(700 + 10 * d + seed, 2, d, 0.8 / Math.sqrt(d));
        const pair = pairOf(x, y);
        expect(Math.abs(regularisedShare(pair.s, d) / smregRatio(pair) - 1)).toBeLessThan(1e-13);
        for (const m of [1, d]) {
          const kernel2 = (smregRatio(pair) * pair.softmax) ** 2;
          for (const coupling of ["iid", "orthogonal"] as const) {
            const at = { map: "positive", coupling, headDim: d, projections: m } as const;
            const oracle = mseSmreg(pair, m, coupling === "orthogonal") / kernel2;
            const gap = Math.abs(relativeRegularisedError(at, pair.s) - oracle);
            expect(gap).toBeLessThan(1e-12 * (1 + oracle));
          }
        }
      }
    }
  });

  for (
    const [map, kind] of [["hyperbolic", "orthogonal"], ["positive", "simplex"], ["hyperbolic", "simplex"]] as const
  ) {
    test(`S5 ${map} × ${kind}: as measured`, () => {
      const d = 4, m = 4;
      const [x, y] = pairWith(d, 2, 1);
      const pair = pairOf(x, y);
      const target = smregRatio(pair) * pair.softmax;
      const at = { maps: [map], kind, d, m, draws: 10_000, norms: "sqrtd", target } as const;
      const [{ estimate, squared }] = sample(at, x, y);
      expect(Math.abs(estimate.z(target))).toBeLessThan(4.5);
      const exact = relativeRegularisedError({ map, coupling: kind, headDim: d, projections: m }, pair.s);
      expect(Math.abs(squared.mean / target ** 2 / exact - 1)).toBeLessThan(0.1);
    });
  }
});

test("what cannot be is refused", () => {
  const at = { map: "positive", coupling: "iid", headDim: 8, projections: 8 } as const;
  expect(() => relativeKernelError({ ...at, quadratic: 0.125 }, { s: 1, delta: 1 })).toThrow("less than 1/8");
  expect(() => relativeKernelError({ ...at, projections: 0 }, { s: 1, delta: 1 })).toThrow("projections 0");
  expect(() => relativeKernelError({ ...at, map: "trigonometric", quadratic: -1 }, { s: 1, delta: 1 })).toThrow(
    "leave it out",
  );
  expect(() => relativeRegularisedError({ ...at, map: "trigonometric" }, 1)).toThrow("positive or hyperbolic");
});
