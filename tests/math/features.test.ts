/** Feature maps and projections, one row at a time: identities that hold for every W. */
import { describe, expect, test } from "bun:test";
import { ACTIVATION_FUNCTIONS } from "../../kernels/scalar/activations.ts";
import { ACTIVATIONS, featureMap } from "../../src/feature_map.ts";
import { KERNEL_MAPS } from "../kernel_maps.ts";
import { drawProjection, haarRows, PROJECTIONS } from "../../src/projection.ts";
import { RandomStream } from "../../src/random.ts";
import {
  ALL_MAPS,
  distance,
  Features,
  gaussian,
  GivenNumbers,
  parametersOf,
  projectionRows,
  SOFTMAX_MAPS,
} from "./harness.ts";
import { dot, F, F01, norm2, pairOf, phi, smreg, smregRatio } from "./oracles.ts";

const relative = (a: number, b: number) => Math.abs(a / b - 1);
const negated = (x: readonly number[]) => x.map((value) => -value);

describe("features are what the formulas say", () => {
  test.each(ALL_MAPS)("%s: φ(x) for queries and keys, scaled", (name) => {
    const d = 5, scale = name === "elu" ? 1 : 1 / Math.sqrt(d);
    const p = parametersOf(name, { headDim: d, projections: 7, scale, seed: 11 });
    const features = new Features(p);
    for (const x of gaussian(12, 8, d)) {
      const scaled = x.map((value) => value * Math.sqrt(scale));
      // Without a projection φ acts on the coordinates, and 1/√m is left out.
      const gain = p.map.projection === "none" ? Math.sqrt(d) : 1;
      const expected = phi(p.map, projectionRows(p), scaled, p.epsilon).map((value) => value * gain);
      expect(distance([features.key(x)], [expected])).toBeLessThan(1e-13);
      expect(distance([features.query(x)], [expected])).toBeLessThan(1e-13);
    }
  });

  test("every activation has a function, and it is the paper's", () => {
    expect(Object.keys(ACTIVATION_FUNCTIONS).sort()).toEqual([...ACTIVATIONS].sort());
    expect(Object.keys(F).sort()).toEqual([...ACTIVATIONS].sort());
    for (const name of ACTIVATIONS) {
      for (let u = -9; u <= 9; u += 0.13) {
        const gap = Math.abs(ACTIVATION_FUNCTIONS[name](u) - F[name](u));
        expect(gap, `${name}(${u})`).toBeLessThanOrEqual(2e-14 * Math.max(1, Math.abs(F[name](u))));
      }
    }
  });

  test("the signed flag tells the truth", () => {
    for (const map of KERNEL_MAPS) {
      const p = parametersOf(map, { headDim: 4, projections: 256, seed: 13 });
      const features = new Features(p);
      const lowest = Math.min(...gaussian(14, 20, 4, 2).flatMap((x) => [...features.key(x)]));
      expect(lowest < 0, map.name).toBe(map.signed);
      if (!map.signed) expect(lowest, map.name).toBeGreaterThan(0);
    }
  });
});

describe("D1 points without variance", () => {
  for (const kind of Object.keys(PROJECTIONS)) {
    test(`D1 ${kind}: positive and hyperbolic at y = −x, trigonometric at y = x`, () => {
      for (let seed = 0; seed < 20; seed++) {
        const [x] = gaussian(100 + seed, 1, 6, 0.8);
        for (const name of SOFTMAX_MAPS) {
          const y = name === "trigonometric" ? x : negated(x);
          const features = new Features(parametersOf(name, { headDim: 6, projections: 9, kind, seed }));
          expect(relative(features.estimate(x, y), Math.exp(dot(x, y)))).toBeLessThan(1e-14);
        }
      }
    });
  }
});

test("D2 hyperbolic(W) = ½ (positive(W) + positive(−W))", () => {
  const W = gaussian(21, 10, 4);
  const minus = W.map(negated);
  const hyperbolic = new Features(parametersOf("hyperbolic", { headDim: 4, W }));
  const up = new Features(parametersOf("positive", { headDim: 4, W }));
  const down = new Features(parametersOf("positive", { headDim: 4, W: minus }));
  for (const [x, y] of [gaussian(22, 2, 4), gaussian(23, 2, 4), gaussian(24, 2, 4, 2)]) {
    const expected = 0.5 * (up.estimate(x, y) + down.estimate(x, y));
    expect(relative(hyperbolic.estimate(x, y), expected)).toBeLessThan(1e-12);
    expect(relative(up.estimate(x, y), down.estimate(x, y))).toBeGreaterThan(1e-3);
  }
});

test.each(ALL_MAPS.filter((name) => name !== "elu"))("D3 %s: rotating W, x and y together changes nothing", (name) => {
  const d = 5;
  const flat = haarRows(new RandomStream(31), d, d);
  const R = Array.from({ length: d }, (_, i) => Array.from(flat.subarray(i * d, i * d + d)));
  const rotate = (x: readonly number[]) => R.map((r) => dot(r, x));
  const W = gaussian(32, 12, d);
  const [x, y] = gaussian(33, 2, d, 0.7);
  const plain = new Features(parametersOf(name, { headDim: d, W })).estimate(x, y);
  const turned = new Features(parametersOf(name, { headDim: d, W: W.map(rotate) }));
  expect(relative(turned.estimate(rotate(x), rotate(y)), plain)).toBeLessThan(1e-11);
  expect(relative(turned.estimate(x, y), plain)).toBeGreaterThan(1e-6); // the rotation is not the identity
});

describe("D4 orthogonal blocks", () => {
  const blockRows = (W: Float64Array, d: number, block: number, rows: number) =>
    Array.from({ length: rows }, (_, i) => W.subarray((block * d + i) * d, (block * d + i + 1) * d));

  test("D4 directions are orthonormal to 1e-12, any number of rows", () => {
    for (const [d, rows] of [[1, 1], [2, 2], [3, 2], [8, 8], [16, 5], [64, 64], [128, 128]]) {
      const U = blockRows(haarRows(new RandomStream(41, d), d, rows), d, 0, rows);
      for (let i = 0; i < rows; i++) {
        expect(Math.abs(norm2(U[i]) - 1)).toBeLessThan(1e-12);
        for (let j = 0; j < i; j++) expect(Math.abs(dot(U[i], U[j]))).toBeLessThan(1e-12);
      }
    }
  });

  test("D4 nearly dependent rows are orthonormal too (one pass leaves 1e-10), dependent ones are drawn again", () => {
    const d = 6;
    const near = gaussian(44, d, d, 1e-6).map((row) => row.map((value) => value + 1));
    const U = blockRows(haarRows(new GivenNumbers(near.flat()), d, d), d, 0, d);
    for (let i = 0; i < d; i++) for (let j = 0; j < i; j++) expect(Math.abs(dot(U[i], U[j]))).toBeLessThan(1e-12);
    const twice = new GivenNumbers([3, 4, 6, 8, -4, 3]); // the second row is the first, doubled
    expect([...haarRows(twice, 2, 2)]).toEqual([0.6, 0.8, -0.8, 0.6].map((value) => expect.closeTo(value, 12)));
  });

  test("D4 blocks of a drawn matrix: orthogonal inside (float32 entries), not across, and all different", () => {
    const d = 8, m = 19; // two full blocks and one of three rows
    const W = drawProjection({
      kind: "orthogonal",
      projections: m,
      headDim: d,
      matrices: 2,
      norms: "chi",
      seed: 42,
      draw: 0,
    });
    expect(W.length).toBe(2 * m * d);
    for (let matrix = 0; matrix < 2; matrix++) {
      const rows = Array.from({ length: m }, (_, a) => W.subarray((matrix * m + a) * d, (matrix * m + a + 1) * d));
      const cosine = (a: number, b: number) => dot(rows[a], rows[b]) / Math.sqrt(norm2(rows[a]) * norm2(rows[b]));
      let across = 0;
      for (let a = 0; a < m; a++) {
        for (let b = 0; b < a; b++) {
          if (Math.floor(a / d) === Math.floor(b / d)) expect(Math.abs(cosine(a, b))).toBeLessThan(3e-7);
          else across = Math.max(across, Math.abs(cosine(a, b)));
        }
      }
      expect(across).toBeGreaterThan(0.3); // independent directions in R⁸ do overlap
      expect(across).toBeLessThan(0.999); // and no row appears twice
    }
    const [one, other] = [0, 1].map((matrix) => W.subarray(matrix * m * d, matrix * m * d + d)); // directions, not only norms
    expect(Math.abs(dot(one, other)) / Math.sqrt(norm2(one) * norm2(other))).toBeLessThan(0.99);
  });

  test("D4 every entry is a float32, and √d norms are √d", () => {
    const shape = { projections: 20, headDim: 12, matrices: 1, seed: 43, draw: 0 };
    for (const kind of ["orthogonal", "iid"]) { // of hadamard: hadamard.test.ts
      for (const norms of ["chi", "sqrtd"] as const) {
        const W = drawProjection({ ...shape, kind, norms });
        expect(W.every((value) => Math.fround(value) === value && value !== 0)).toBe(true);
        const lengths = blockRows(W, 12, 0, 20).map((w) => Math.sqrt(norm2(w)));
        if (norms === "sqrtd") {
          for (const length of lengths) expect(relative(length, Math.sqrt(12))).toBeLessThan(1e-7);
        } else expect(new Set(lengths.map((length) => length.toFixed(6))).size).toBe(20);
      }
    }
  });

  test("D4 seeds, draws and matrices name streams of their own", () => {
    const shape = { kind: "orthogonal", projections: 6, headDim: 4, norms: "chi" } as const;
    const first = drawProjection({ ...shape, matrices: 2, seed: 5, draw: 0 });
    const same = drawProjection({ ...shape, matrices: 1, seed: 5, draw: 0 });
    expect([...first.subarray(0, 24)]).toEqual([...same]); // more heads or projections do not move what was drawn
    expect([...drawProjection({ ...shape, projections: 4, matrices: 1, seed: 5, draw: 0 })]).toEqual([
      ...same.subarray(0, 16),
    ]);
    for (const other of [{ seed: 6, draw: 0 }, { seed: 5, draw: 1 }]) {
      expect(distance([drawProjection({ ...shape, matrices: 1, ...other })], [same])).toBeGreaterThan(0.1);
    }
    expect(() => drawProjection({ ...shape, kind: "qr", matrices: 1, seed: 5, draw: 0 })).toThrow(/orthogonal, iid/);
  });

  test("D4 a projection is its caller's own, also when it is not drawn again", () => {
    const shape = {
      kind: "orthogonal",
      projections: 6,
      headDim: 4,
      norms: "chi",
      matrices: 1,
      seed: 5,
      draw: 0,
    } as const;
    const [first, second] = [drawProjection(shape), drawProjection(shape)];
    expect(second).toEqual(first);
    const wanted = [...first];
    first.fill(0);
    second.fill(0);
    expect([...drawProjection(shape)]).toEqual(wanted);
  });
});

describe("D21 the regularised softmax kernel", () => {
  test("D21 SMREG ≤ SM, and the ₀F₁ series equals the paper's eq. 30", () => {
    for (const d of [2, 3, 4, 8, 16, 64]) {
      for (let seed = 0; seed < 12; seed++) {
        const [x, y] = gaussian(2100 + 100 * d + seed, 2, d, d ** -0.25);
        const pair = pairOf(x, y);
        const ratio = smreg(pair) / pair.softmax;
        expect(ratio).toBeLessThanOrEqual(1 + 1e-14);
        expect(relative(ratio, smregRatio(pair))).toBeLessThan(1e-12);
      }
    }
    expect(relative(F01(0.5, 1), Math.cosh(2))).toBeLessThan(1e-15); // ₀F₁(; ½; t²/4) = cosh t
  });

  test("D21 √d norms bound the features by exp(√d ‖x‖ − ‖x‖²/2)/√r", () => {
    const d = 6;
    const p = parametersOf(featureMap("positive"), { headDim: d, projections: 64, norms: "sqrtd", seed: 211 });
    const features = new Features(p);
    for (const x of gaussian(212, 20, d, 2)) {
      const norm = Math.sqrt(norm2(x));
      const bound = Math.exp(Math.sqrt(d) * norm - norm * norm / 2) / Math.sqrt(p.features);
      expect(Math.max(...features.key(x))).toBeLessThanOrEqual(bound * (1 + 1e-6));
    }
  });
});
