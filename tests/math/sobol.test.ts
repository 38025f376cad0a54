/** The sobol projection: its points, its quantiles, and what a net makes of the estimators. */
import { describe, expect, test } from "bun:test";
import { drawProjection, type ProjectionOptions } from "../../src/projection.ts";
import { normalQuantile, RandomStream } from "../../src/random.ts";
import { generatorColumns, sobolNormals } from "../../src/sobol.ts";
import { SOBOL_DIMENSIONS } from "../../src/sobol_directions.ts";
import { gaussian, pairWith, Sample, sample } from "./harness.ts";
import { erf, mseOrthogonal, norm2, pairOf, smreg } from "./oracles.ts";

const draw = (options: Partial<ProjectionOptions>) =>
  drawProjection({
    kind: "sobol",
    projections: 64,
    headDim: 16,
    matrices: 1,
    norms: "chi",
    seed: 1,
    draw: 0,
    ...options,
  });
const rowsOf = (W: Float64Array, d: number) =>
  Array.from({ length: W.length / d }, (_, a) => W.subarray(a * d, a * d + d));

describe("normal quantiles", () => {
  test("are those of scipy 1.17's ndtri, to 1e-15", () => {
    // Each of the three rational functions, and both sides of where they meet.
    const table = [
      [1e-300, -37.0470962993612],
      [1e-100, -21.273453560965322],
      [1e-30, -11.464024688443613],
      [1e-12, -7.034483825301131],
      [1e-9, -5.9978070150076865],
      [1e-5, -4.264890793922825],
      [0.001, -3.090232306167813],
      [0.0749, -1.4402382675279635],
      [0.0751, -1.4388253927525403],
      [0.2, -0.8416212335729142],
      [0.45, -0.12566134685507402],
      [0.4999999, -2.506628274703107e-7],
      [0.6, 0.2533471031357997],
      [0.925, 1.4395314709384563],
      [0.99, 2.3263478740408408],
      [0.9999, 3.719016485455709],
    ];
    for (const [p, z] of table) expect(Math.abs(normalQuantile(p) / z - 1)).toBeLessThan(1e-15);
    expect(normalQuantile(0.5)).toBe(0);
  });

  test("undo the distribution function", () => {
    for (let z = -4; z <= 4; z += 0.01) {
      const p = 0.5 + 0.5 * erf(z * Math.SQRT1_2);
      // The oracle's erf is good to 1e-14, and z moves by that over the density.
      const density = Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
      expect(Math.abs(normalQuantile(p) - z)).toBeLessThan(2e-14 / density);
    }
  });
});

describe("points", () => {
  test("the generators are Joe and Kuo's: scipy's unscrambled points in some of 512 dimensions", () => {
    const columns = generatorColumns(SOBOL_DIMENSIONS);
    expect(columns.length).toBe(512);
    const point = (i: number, l: number) => {
      const gray = i ^ (i >>> 1);
      let bits = 0;
      for (let k = 0; k < 32; k++) if ((gray >>> k) & 1) bits ^= columns[l][k];
      return (bits >>> 0) / 2 ** 32;
    };
    // scipy.stats.qmc.Sobol(512, scramble=False, bits=32).random(41): dimension, point, coordinate · 64.
    const known = [
      [0, 1, 32],
      [0, 2, 48],
      [0, 7, 8],
      [0, 41, 47],
      [1, 1, 32],
      [1, 2, 16],
      [1, 7, 40],
      [1, 41, 37],
      [2, 1, 32],
      [2, 2, 16],
      [2, 7, 24],
      [2, 41, 49],
      [5, 1, 32],
      [5, 2, 48],
      [5, 7, 24],
      [5, 41, 15],
      [17, 1, 32],
      [17, 2, 16],
      [17, 7, 8],
      [17, 41, 23],
      [63, 1, 32],
      [63, 2, 48],
      [63, 7, 24],
      [63, 41, 17],
      [127, 1, 32],
      [127, 2, 16],
      [127, 7, 24],
      [127, 41, 7],
      [255, 1, 32],
      [255, 2, 48],
      [255, 7, 8],
      [255, 41, 25],
      [400, 1, 32],
      [400, 2, 16],
      [400, 7, 24],
      [400, 41, 61],
      [511, 1, 32],
      [511, 2, 48],
      [511, 7, 8],
      [511, 41, 23],
    ];
    for (const [l, i, value] of known) expect(point(i, l) * 64, `${l} ${i}`).toBe(value);
  });

  test("every coordinate of the first 2^k scrambled points has one point in each of 2^k equal slices", () => {
    const d = 300;
    for (const m of [2, 16, 128]) {
      const W = sobolNormals(new RandomStream(7, m), d, m);
      for (let l = 0; l < d; l++) {
        const slices = new Set(
          Array.from({ length: m }, (_, i) => Math.floor(m * (0.5 + 0.5 * erf(W[i * d + l] * Math.SQRT1_2)))),
        );
        expect(slices.size).toBe(m);
      }
    }
  });

  test("each row alone is N(0, I): moments and correlations over draws", () => {
    const d = 3, row = 5;
    const means = Array.from({ length: d }, () => new Sample());
    const squares = Array.from({ length: d }, () => new Sample());
    const fourths = Array.from({ length: d }, () => new Sample());
    const products = new Sample();
    for (let draw = 0; draw < 8000; draw++) {
      const w = sobolNormals(new RandomStream(8, draw), d, row + 1).subarray(row * d);
      w.forEach((value, l) => {
        means[l].add(value);
        squares[l].add(value * value);
        fourths[l].add(value ** 4);
      });
      products.add(w[0] * w[1] + w[1] * w[2]);
    }
    for (let l = 0; l < d; l++) {
      expect(Math.abs(means[l].z(0))).toBeLessThan(4.5);
      expect(Math.abs(squares[l].z(1))).toBeLessThan(4.5);
      expect(Math.abs(fourths[l].z(3))).toBeLessThan(4.5);
    }
    expect(Math.abs(products.z(0))).toBeLessThan(4.5);
  });
});

describe("matrices", () => {
  test("fewer rows are the first of more; seeds, draws and heads differ; norms are those of the points", () => {
    const few = draw({ projections: 50 });
    const more = draw({ projections: 300, matrices: 2 });
    expect([...more.subarray(0, few.length)]).toEqual([...few]);
    const points = sobolNormals(new RandomStream(1, 0, 0, 1), 16, 50);
    few.forEach((value, at) => expect(Math.abs(value - points[at])).toBeLessThanOrEqual(1e-7 * Math.abs(points[at])));
    const others = [draw({ seed: 2 }), draw({ draw: 1 }), draw({ matrices: 2 }).subarray(64 * 16)];
    for (const other of others) expect([...other]).not.toEqual([...draw({})]);
  });

  test("norms √d: the same directions, stretched", () => {
    const [own, stretched] = [draw({}), draw({ norms: "sqrtd" })].map((W) => rowsOf(W, 16));
    own.forEach((w, a) => {
      const factor = 4 / Math.sqrt(norm2(w));
      w.forEach((value, l) => expect(Math.abs(stretched[a][l] - factor * value)).toBeLessThan(1e-6));
    });
  });

  test("heads wider than the table are refused, with the way out; the widest are not", () => {
    expect(() => draw({ headDim: 513 })).toThrow(
      /heads of 513 columns: its direction numbers reach 512; use orthogonal/,
    );
    expect(draw({ headDim: 512, projections: 2 }).every(Number.isFinite)).toBe(true);
  });
});

describe("estimators", () => {
  test("S1 unbiased: positive, hyperbolic and trigonometric, s = δ = 1, d = m = 8, and m no power of two", () => {
    const d = 8;
    const [x, y] = pairWith(d, 1, 1);
    const { softmax } = pairOf(x, y);
    const maps = ["positive", "hyperbolic", "trigonometric"];
    for (const m of [8, 11]) {
      for (const { name, estimate } of sample({ maps, kind: "sobol", d, m, draws: 5000, target: softmax }, x, y)) {
        expect(Math.abs(estimate.z(softmax)), `${name}, m = ${m}: z`).toBeLessThan(4.5);
        expect(estimate.standardError / softmax, `${name}, m = ${m}: power`).toBeLessThan(0.008);
      }
    }
  });

  test("S5 norms √d estimate the regularised kernel", () => {
    const [x, y] = pairWith(8, 3, 1);
    const pair = pairOf(x, y);
    const target = smreg(pair);
    const at = { maps: ["positive"], kind: "sobol", d: 8, m: 8, draws: 4000, norms: "sqrtd", target } as const;
    const [{ estimate }] = sample(at, x, y);
    expect(Math.abs(estimate.z(target))).toBeLessThan(4.5);
    expect(Math.abs(estimate.z(pair.softmax))).toBeGreaterThan(4.5);
  });

  /** x, y with ‖x + y‖² = s in a direction drawn at random: a net, unlike the other projections, is not the same in all of them. */
  function pairAlong(seed: number, d: number, s: number): [number[], number[]] {
    const [z] = gaussian(seed, 1, d);
    const half = Math.sqrt(s / norm2(z)) / 2;
    return [z.map((value) => half * value), z.map((value) => half * value)];
  }

  // Squared error over that of orthogonal blocks, m = 256, measured over 2,000 draws: 0.064, 0.40, 0.15, 0.59 (relative error
  // 1.4e-4, 7.8e-3, 3.1e-4, 1.1e-2). The bounds leave the relative standard error of so few draws, about √(kurtosis / draws), 4 times.
  for (const [d, s, bound] of [[16, 0.5, 0.12], [16, 2, 0.75], [64, 0.5, 0.3], [64, 2, 0.95]]) {
    test(`m = 256, d = ${d}, s = ${s}: at most ${bound} of the squared error of orthogonal blocks`, () => {
      const m = 256;
      const squared = new Sample();
      let target = 0;
      for (let seed = 0; seed < 8; seed++) {
        const [x, y] = pairAlong(80 + seed, d, s);
        const pair = pairOf(x, y);
        const [found] = sample({ maps: ["positive"], kind: "sobol", d, m, draws: 30, target: pair.softmax }, x, y);
        squared.add(found.squared.mean / pair.softmax ** 2);
        target = mseOrthogonal("pos", pair, m) / pair.softmax ** 2;
      }
      expect(squared.mean / target).toBeLessThan(bound);
    });
  }
});
