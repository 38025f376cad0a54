/** The hadamard projection: W is its factors, orthogonal in blocks, padded to a power of two, and how near to unbiased it is. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Attention, flopCount, parametersFor, type Sizes } from "../../src/attention.ts";
import type { HadamardFactors } from "../../src/feature_map.ts";
import { drawFactored, type ProjectionOptions } from "../../src/projection.ts";
import { gaussian, pairWith, type Rows, sample } from "./harness.ts";
import {
  axisMean,
  dot,
  hadamardEntry,
  mseIid,
  mseOrthogonal,
  mseSmreg,
  norm2,
  pairOf,
  smreg,
  sylvester,
} from "./oracles.ts";

const draw = (options: Partial<ProjectionOptions>) =>
  drawFactored({
    kind: "hadamard",
    projections: 8,
    headDim: 8,
    matrices: 1,
    norms: "chi",
    seed: 1,
    draw: 0,
    ...options,
  }) as { weights: Float64Array; hadamard: HadamardFactors };

const rowsOfWidth = (W: Float64Array, d: number): Rows =>
  Array.from({ length: W.length / d }, (_, a) => Array.from(W.subarray(a * d, a * d + d)));

/** n ⊙ (N D₃ N D₂ N D₁ x) of one matrix, x padded with zeros, by the definition: what a backend makes of the factors. */
function applyFactors(
  { size, signs, norms }: HadamardFactors,
  matrix: number,
  m: number,
  x: readonly number[],
): number[] {
  const blocks = Math.ceil(m / size);
  const out: number[] = [];
  for (let block = 0; block < blocks; block++) {
    let u: number[] = Array.from({ length: size }, (_, l) => x[l] ?? 0);
    for (let factor = 0; factor < 3; factor++) {
      const at = ((matrix * blocks + block) * 3 + factor) * size;
      u = sylvester(u.map((value, l) => value * signs[at + l]));
    }
    out.push(...u.map((value) => value / size ** 1.5));
  }
  return out.slice(0, m).map((value, a) => value * norms[matrix * m + a]);
}

const shapes = fc.record({
  headDim: fc.integer({ min: 1, max: 33 }),
  projections: fc.integer({ min: 1, max: 80 }),
  matrices: fc.integer({ min: 1, max: 3 }),
  norms: fc.constantFrom("chi" as const, "sqrtd" as const),
  seed: fc.nat(),
  draw: fc.nat(5),
});
/** Any width and number of rows: blocks of one row, padding and partial last blocks among them. */
const law = (holds: (at: Omit<ProjectionOptions, "kind">) => void) =>
  fc.assert(fc.property(shapes, holds), { seed: 32, numRuns: 60 });

describe("factors", () => {
  test("have the shapes that kernels read: d' = 2^⌈log₂ d⌉, signs ±1, norms and W float32", () => {
    law((at) => {
      const { weights, hadamard: { size, signs, norms } } = draw(at);
      expect(size).toBe(2 ** Math.ceil(Math.log2(at.headDim)));
      expect(signs.length).toBe(at.matrices * Math.ceil(at.projections / size) * 3 * size);
      expect(signs.every((sign) => Math.abs(sign) === 1)).toBe(true);
      expect(norms.length).toBe(at.matrices * at.projections);
      expect(weights.length).toBe(norms.length * at.headDim);
      for (const value of [...norms, ...weights]) expect(Math.fround(value)).toBe(value);
      if (at.norms === "sqrtd") expect(norms.every((norm) => norm === Math.fround(Math.sqrt(size)))).toBe(true);
      else expect(new Set(norms).size).toBe(norms.length);
    });
  });

  test("times the identity are W, to the rounding of its entries", () => {
    law((at) => {
      const { weights, hadamard } = draw(at);
      const { headDim: d, projections: m } = at;
      for (let l = 0; l < d; l++) {
        const unit = Array.from({ length: d }, (_, k) => k === l ? 1 : 0);
        for (let matrix = 0; matrix < at.matrices; matrix++) {
          applyFactors(hadamard, matrix, m, unit).forEach((value, a) => {
            const entry = weights[(matrix * m + a) * d + l];
            expect(Math.abs(entry - value)).toBeLessThanOrEqual(Math.abs(value) * 2 ** -23.9); // half a float32 ulp, and float64's
          });
        }
      }
    });
  });

  test("times x are W x", () => {
    const { weights, hadamard } = draw({ headDim: 24, projections: 75, matrices: 2, seed: 33 });
    const W = rowsOfWidth(weights, 24);
    for (const x of gaussian(34, 5, 24)) {
      for (const matrix of [0, 1]) {
        applyFactors(hadamard, matrix, 75, x).forEach((value, a) =>
          expect(Math.abs(dot(W[matrix * 75 + a], x) - value)).toBeLessThan(1e-5)
        );
      }
    }
  });

  test("of more rows or matrices begin with those of fewer, seeds and draws differ", () => {
    law((at) => {
      const one = draw({ ...at, matrices: 1 });
      const more = draw({ ...at, projections: at.projections + 37 });
      const start = (of: Float64Array, like: Float64Array) => [...of.subarray(0, like.length)];
      expect(start(more.weights, one.weights)).toEqual([...one.weights]);
      expect(start(more.hadamard.norms, one.hadamard.norms)).toEqual([...one.hadamard.norms]);
      expect(start(more.hadamard.signs, one.hadamard.signs)).toEqual([...one.hadamard.signs]);
      expect(draw({ ...at, matrices: 1 })).toEqual(one);
    });
    const shape = { headDim: 16, projections: 16, seed: 5, draw: 0 };
    for (const other of [{ seed: 6 }, { draw: 1 }]) {
      expect(draw({ ...shape, ...other }).hadamard.signs).not.toEqual(draw(shape).hadamard.signs);
    }
  });

  test("reach the parameters of a plan; other projections have none", () => {
    const attention: Attention = {
      features: "hyperbolic",
      numFeatures: 40,
      projection: "hadamard",
      norms: "chi",
      seed: 3,
      causal: false,
      scale: null,
      given: null,
      compat: "exact",
    };
    const sizes: Sizes = { queryRows: 7, keyRows: 5, heads: 4, kvHeads: 2, headDim: 12, valueDim: 9 };
    const p = parametersFor(attention, sizes, 2);
    const drawn = draw({ headDim: 12, projections: 20, matrices: 2, seed: 3, draw: 2 });
    expect([p.weights, p.hadamard]).toEqual([drawn.weights, drawn.hadamard]);
    // Two blocks of 16 rows for 20: three transforms of 16 · log₂ 16 additions each, then 20 norms.
    const rows = 7 * 4 + 5 * 2, sums = 2 * 40 * (9 + 1);
    expect(flopCount(attention, sizes, p)).toBe(rows * (2 * 3 * 16 * 4 + 20 + sums));

    const dense = { ...attention, projection: "orthogonal" };
    const q = parametersFor(dense, sizes, 2);
    expect(q.hadamard).toBeNull();
    expect(flopCount(dense, sizes, q)).toBe(rows * (2 * 12 * 20 + sums));
    expect(parametersFor({ ...attention, features: "elu" }, sizes).hadamard).toBeNull();
    const given = { path: "W.npy", matrices: 1, headDim: 12, data: p.weights.slice(0, 240) };
    expect(parametersFor({ ...attention, given }, sizes).hadamard).toBeNull();
  });
});

describe("orthogonality", () => {
  test("rows of a block are orthogonal when d = d', rows of different blocks overlap", () => {
    for (const d of [1, 2, 4, 8, 32, 64]) {
      const m = 2 * d + Math.ceil(d / 2); // two blocks and a half
      const { weights, hadamard } = draw({ headDim: d, projections: m, seed: 35 });
      const W = rowsOfWidth(weights, d).map((w, a) => w.map((value) => value / hadamard.norms[a]));
      let across = 0;
      for (let a = 0; a < m; a++) {
        expect(Math.abs(norm2(W[a]) - 1)).toBeLessThan(2e-7); // float32 entries
        for (let b = 0; b < a; b++) {
          const cosine = Math.abs(dot(W[a], W[b]));
          if (Math.floor(a / d) === Math.floor(b / d)) expect(cosine).toBeLessThan(2e-7);
          else across = Math.max(across, cosine);
        }
      }
      expect(across).toBeGreaterThan(0.2);
    }
  });

  test("padded rows are orthogonal in d' columns, so columns of a whole block are in d", () => {
    for (const d of [3, 6, 12, 20]) {
      const size = 2 ** Math.ceil(Math.log2(d));
      const { weights, hadamard } = draw({ headDim: d, projections: size, seed: 36 });
      const U = rowsOfWidth(weights, d).map((w, a) => w.map((value) => value / hadamard.norms[a]));
      for (let l = 0; l < d; l++) {
        for (let k = 0; k <= l; k++) {
          const product = dot(U.map((u) => u[l]), U.map((u) => u[k]));
          expect(Math.abs(product - (k === l ? 1 : 0))).toBeLessThan(2e-7);
        }
      }
    }
  });
});

const padded = (x: readonly number[], size: number) => Array.from({ length: size }, (_, l) => x[l] ?? 0);

describe("directions are only nearly Haar", () => {
  /** E exp(w·z) over e^{s/2} for z on an axis, s = ‖z‖². */
  const ratio = (size: number, factors: 1 | 2 | 3, s = 1.44) =>
    axisMean(hadamardEntry(size, factors), size, s) / Math.exp(s / 2);

  test("on an axis the bias is known: three factors beat one and two, and more columns shrink it", () => {
    expect(ratio(16, 1)).toBeCloseTo(0.8875, 4);
    expect(ratio(16, 2)).toBeCloseTo(1.0205, 4);
    expect(ratio(16, 3)).toBeCloseTo(0.9979, 4);
    expect(ratio(8, 3)).toBeCloseTo(0.9932, 4);
    expect(ratio(4, 3)).toBeCloseTo(0.9843, 4);
    expect(ratio(8, 3, 3)).toBeCloseTo(0.9777, 4);
    expect(ratio(16, 3, 3)).toBeCloseTo(0.9922, 4);
    // Fourth moments agree to O(d'⁻⁴) with 3/(d'(d' + 2)) of Haar directions.
    for (const size of [2, 4, 8, 16]) {
      const fourth = [...hadamardEntry(size, 3)].reduce((sum, [u, p]) => sum + p * u ** 4, 0);
      expect(fourth).toBeCloseTo(3 / size ** 2 - 6 / size ** 3 + 4 / size ** 4, 12);
    }
  });

  for (const [d, size] of [[16, 16], [6, 8], [3, 4]]) {
    test(`on an axis, d = ${d}, blocks of ${size}: estimators have that mean`, () => {
      const x = Array.from({ length: d }, (_, l) => l === 0 ? 0.6 : 0); // s = ‖2x‖² = 1.44
      const mean = Math.exp(norm2(x)) * ratio(size, 3);
      const maps = ["positive", "hyperbolic"];
      for (
        const { name, estimate } of sample({ maps, kind: "hadamard", d, m: size, draws: 20_000, target: mean }, x, x)
      ) {
        expect(Math.abs(estimate.z(mean)), `${name}: z`).toBeLessThan(4.5);
        expect(estimate.standardError / mean, `${name}: power`).toBeLessThan(0.008);
      }
    });
  }

  const SHORT = { positive: "pos", hyperbolic: "hyp", trigonometric: "trig" } as const;
  for (const [d, size, m] of [[8, 8, 8], [16, 16, 16], [6, 8, 12], [12, 16, 20]]) {
    test(`off the axes, d = ${d}, m = ${m}: mean within 0.3 %, squared error of orthogonal blocks of ${size}, below iid`, () => {
      const [x, y] = gaussian(38 + d, 2, d, 0.7 / Math.sqrt(d));
      const pair = pairOf(padded(x, size), padded(y, size));
      const maps = Object.keys(SHORT);
      for (
        const { name, estimate, squared } of sample(
          { maps, kind: "hadamard", d, m, draws: 20_000, target: pair.softmax },
          x,
          y,
        )
      ) {
        const short = SHORT[name as keyof typeof SHORT];
        const error = estimate.standardError / pair.softmax;
        expect(Math.abs(estimate.mean / pair.softmax - 1), `${name}: mean`).toBeLessThan(0.003 + 4.5 * error);
        expect(error, `${name}: power`).toBeLessThan(0.004);
        expect(Math.abs(squared.mean / mseOrthogonal(short, pair, m) - 1), `${name}: mse`).toBeLessThan(0.15);
        expect(squared.mean, `${name}: iid`).toBeLessThan(mseIid(short, pair, m));
      }
    });
  }

  for (const d of [8, 6]) {
    test(`d = ${d}, row norms √d': the regularised kernel of width d' = 8, not softmax's`, () => {
      const [x, y] = pairWith(d, 3, 1); // SM is 19 % above SMREG
      const pair = pairOf(padded(x, 8), padded(y, 8));
      const target = smreg(pair);
      const maps = ["positive", "hyperbolic"];
      const results = sample({ maps, kind: "hadamard", d, m: 8, draws: 10_000, norms: "sqrtd", target }, x, y);
      for (const { name, estimate } of results) {
        const error = estimate.standardError / target;
        expect(Math.abs(estimate.mean / target - 1), name).toBeLessThan(0.003 + 4.5 * error);
        expect(Math.abs(estimate.z(pair.softmax)), name).toBeGreaterThan(20);
      }
      expect(results[0].squared.mean).toBeLessThan(mseSmreg(pair, 8, false));
    });
  }
});
