/** Givens and simplex projections: what their blocks are, and what that makes of the estimators. */
import { describe, expect, test } from "bun:test";
import { drawProjection } from "../../src/projection.ts";
import { gaussian, pairWith, sample } from "./harness.ts";
import { dot, mseIid, mseOrthogonal, mseSimplex, norm2, pairOf } from "./oracles.ts";

const drawn = (kind: string, d: number, m: number) => {
  const W = drawProjection({ kind, projections: m, headDim: d, matrices: 1, norms: "sqrtd", seed: 5, draw: 0 });
  return Array.from(
    { length: m },
    (_, a) => Array.from(W.subarray(a * d, (a + 1) * d), (value) => value / Math.sqrt(d)),
  );
};

test("a block of givens is orthogonal, of simplex spreads evenly; blocks are independent", () => {
  for (const [kind, cosine] of [["givens", 0], ["simplex", -1 / 7]] as const) {
    const rows = drawn(kind, 8, 16);
    for (let a = 0; a < 8; a++) {
      expect(norm2(rows[a])).toBeCloseTo(1, 6);
      for (let b = 0; b < a; b++) expect(dot(rows[a], rows[b])).toBeCloseTo(cosine, 6);
    }
    expect(rows.slice(0, 8).some((row, a) => Math.abs(dot(row, rows[8 + a]) - cosine) > 0.05)).toBeTrue();
  }
});

test("heads one column wide get signs at random", () => {
  for (const kind of ["givens", "simplex"]) {
    const signs = new Set(drawn(kind, 1, 32).map(([value]) => Math.sign(value)));
    expect([...signs].sort()).toEqual([-1, 1]);
  }
});

test("more numbers than memory should hold are refused in words", () => {
  for (const projections of [1e7, 1e9, 2 ** 45]) {
    expect(() => drawn("orthogonal", 64, projections)).toThrow("are not kept in memory, use a smaller -m");
  }
});

describe("positive features", () => {
  for (const [d, m] of [[4, 4], [8, 8], [8, 16]]) {
    test(`simplex, d = ${d}, m = ${m}: unbiased, the squared error of the closed form, below orthogonal`, () => {
      const [x, y] = pairWith(d, 1, 1);
      const pair = pairOf(x, y);
      const maps = ["positive"];
      const [{ estimate, squared }] = sample(
        { maps, kind: "simplex", d, m, draws: 20_000, target: pair.softmax },
        x,
        y,
      );
      expect(Math.abs(estimate.z(pair.softmax))).toBeLessThan(4.5);
      expect(Math.abs(squared.mean / mseSimplex(pair, m) - 1)).toBeLessThan(0.25);
      expect(mseSimplex(pair, m)).toBeLessThan(mseOrthogonal("pos", pair, m));
    });
  }

  test("simplex: a half to three quarters of the squared error of orthogonal blocks", () => {
    // Measured with another program: 0.817 against 1.150, 0.385 against 0.501, 0.0119 against 0.0211.
    for (const [d, s, ratio] of [[4, 1.41, 0.71], [8, 2, 0.768], [16, 1.57, 0.564]]) {
      const pair = pairOf(...pairWith(d, s, 1));
      expect(Math.abs(mseSimplex(pair, d) / mseOrthogonal("pos", pair, d) / ratio - 1)).toBeLessThan(0.01);
    }
  });

  test("givens: squared error of orthogonal blocks", () => { // that there is no bias on an axis: S12, properties.test.ts
    const d = 16;
    const [x, y] = gaussian(54, 2, d, 0.7 / Math.sqrt(d));
    const pair = pairOf(x, y);
    const maps = ["positive"];
    const [{ squared }] = sample({ maps, kind: "givens", d, m: d, draws: 4000, target: pair.softmax }, x, y);
    expect(Math.abs(squared.mean / mseOrthogonal("pos", pair, d) - 1)).toBeLessThan(0.15);
    expect(squared.mean).toBeLessThan(mseIid("pos", pair, d));
  });
});

describe("S1 S2 hyperbolic and trigonometric features, s = δ = 1, d = m = 8", () => {
  const d = 8, m = 8;
  const [x, y] = pairWith(d, 1, 1);
  const pair = pairOf(x, y);
  for (const kind of ["givens", "simplex"]) {
    test(`S1 S2 ${kind}: unbiased, and not above independent rows`, () => {
      const maps = ["hyperbolic", "trigonometric"];
      const results = sample({ maps, kind, d, m, draws: 6000, target: pair.softmax }, x, y);
      for (const { name, estimate, squared } of results) {
        expect(Math.abs(estimate.z(pair.softmax)), `${name}: z`).toBeLessThan(4.5);
        expect(estimate.standardError / pair.softmax, `${name}: power`).toBeLessThan(0.008);
        const short = name === "hyperbolic" ? "hyp" : "trig";
        if (kind === "givens") {
          const tolerance = name === "hyperbolic" ? 0.4 : 0.1;
          expect(Math.abs(squared.mean / mseOrthogonal(short, pair, m) - 1), name).toBeLessThan(tolerance);
        }
        expect(squared.mean, name).toBeLessThan(mseIid(short, pair, m) + 4.5 * squared.standardError);
      }
    });
  }
});

test("S3 of positive features, too: orthogonal below iid and simplex below orthogonal, exactly and as drawn", () => {
  const d = 16, m = 16;
  const [x, y] = pairWith(d, 0.84, 1);
  const pair = pairOf(x, y);
  expect(mseSimplex(pair, m)).toBeLessThan(0.6 * mseOrthogonal("pos", pair, m));
  expect(mseOrthogonal("pos", pair, m)).toBeLessThan(0.8 * mseIid("pos", pair, m));
  const drawn = ["iid", "orthogonal", "simplex"].map((kind) => {
    const [{ squared }] = sample({ maps: ["positive"], kind, d, m, draws: 2000, target: pair.softmax }, x, y);
    return squared.mean;
  });
  expect(drawn[1]).toBeLessThan(drawn[0]);
  expect(drawn[2]).toBeLessThan(drawn[1]);
});
