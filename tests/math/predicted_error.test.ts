/** S11: the error predicted before a projection is drawn, against errors of drawn ones. */
import { describe, expect, test } from "bun:test";
import { UsageError } from "../../src/errors.ts";
import { predictedError } from "../../src/predicted_error.ts";
import { Features, gaussian, linear, parametersOf, Sample, softmax, tile } from "./harness.ts";
import { denseAttention, dot, norm2, softmaxMatrix } from "./oracles.ts";

const L = 32, d = 8, DV = 4, m = 200, scale = 1 / Math.sqrt(d);
const at = { Q: gaussian(110, L, d, 0.3), K: gaussian(111, L, d, 0.3), V: gaussian(112, L, DV) };
const tiles = [tile(at.Q), tile(at.K), tile(at.V)] as const;

/** Expected squared error per query by the definition, one sum over all pairs of keys. */
function byDefinition(map: "positive" | "hyperbolic", A: number): number[] {
  const matrix = softmaxMatrix(at.Q, at.K, scale).map((row) => {
    const total = row.reduce((sum, value) => sum + value, 0);
    return row.map((value) => value / total);
  });
  const outputs = denseAttention(matrix, at.V);
  const logMean = (z: number[]) => -d / 2 * Math.log(1 - 8 * A) + (1 - 4 * A) / (2 * (1 - 8 * A)) * norm2(z);
  return at.Q.map((q, i) => {
    const z = at.K.map((k) => q.map((value, l) => Math.sqrt(scale) * (value + k[l])));
    let sum = 0;
    for (let j = 0; j < L; j++) {
      for (let k = 0; k < L; k++) {
        const combine = (sign: number) => z[j].map((value, l) => value + sign * z[k][l]);
        const both = map === "positive" ? [combine(1)] : [combine(1), combine(-1)];
        const kappa = both.reduce((mean, w) => mean + Math.exp(logMean(w)) / both.length, 0) *
          Math.exp(d * Math.log(1 - 4 * A) - (norm2(z[j]) + norm2(z[k])) / 2);
        const from = (j: number) => at.V[j].map((value, c) => value - outputs[i][c]);
        sum += matrix[i][j] * matrix[i][k] * kappa * dot(from(j), from(k)) / m;
      }
    }
    return sum;
  });
}

describe("S11 predicted error", () => {
  for (const map of ["positive", "hyperbolic"] as const) {
    test.each([0, -0.05])(`S11 ${map}, A = %p: is its definition`, (quadratic) => {
      const { squares, worst } = predictedError(...tiles, { map, projections: m, scale, quadratic });
      byDefinition(map, quadratic).forEach((value, i) => expect(Math.abs(squares![i] / value - 1)).toBeLessThan(1e-11));
      expect(worst).toBeLessThan(0.1);
    });

    test(`S11 ${map}: errors of 300 drawn projections, within 15 %`, async () => {
      const { relativeL2 } = predictedError(...tiles, { map, projections: m, scale });
      const exact = (await softmax(scale, at)).flat();
      const size = norm2(exact);
      const error = new Sample(), orthogonal = new Sample();
      for (let draw = 0; draw < 300; draw++) {
        const p = parametersOf(map, { headDim: d, projections: m, scale, kind: "iid", seed: 113, draw });
        const off = (await linear(p, at)).out.flat().map((value, c) => value - exact[c]);
        error.add(norm2(off) / size);
        if (draw >= 100) continue;
        const block = parametersOf(map, { headDim: d, projections: m, scale, seed: 113, draw });
        orthogonal.add(norm2((await linear(block, at)).out.flat().map((value, c) => value - exact[c])) / size);
      }
      expect(Math.abs(error.mean / relativeL2! ** 2 - 1)).toBeLessThan(0.15);
      expect(orthogonal.mean).toBeLessThan(relativeL2! ** 2);
    });

    test(`S11 ${map}: the bias, within 20 %`, () => {
      // o + first order is unbiased, so that what is left of each error after it has the mean of the bias, and little variance.
      const { bias } = predictedError(...tiles, { map, projections: m, scale });
      const exact = softmaxMatrix(at.Q, at.K, scale);
      const outputs = denseAttention(exact, at.V);
      const along = new Sample();
      for (let draw = 0; draw < 250; draw++) {
        const features = new Features(
          parametersOf(map, { headDim: d, projections: m, scale, kind: "iid", seed: 114, draw }),
        );
        const keys = at.K.map((k) => features.key(k));
        const left = at.Q.flatMap((q, i) => {
          const query = features.query(q);
          const total = exact[i].reduce((sum, value) => sum + value, 0);
          const shares = keys.map((key, j) =>
            exact[i][j] / total * dot(query, key) / Math.exp(scale * dot(q, at.K[j]))
          );
          const mass = shares.reduce((sum, share) => sum + share, 0);
          return outputs[i].map((o, c) => {
            const first = shares.reduce((sum, share, j) => sum + share * (at.V[j][c] - o), 0);
            return first / mass - first;
          });
        });
        along.add(dot(left, bias!) / norm2(bias!));
      }
      expect(Math.abs(along.mean - 1)).toBeLessThan(0.2);
      expect(along.standardError).toBeLessThan(0.08);
    });
  }

  test("S11 where the second order counts, there is no figure", () => {
    const wide = tile(at.Q.map((row) => row.map((value) => 5 * value)));
    const refused = predictedError(wide, tiles[1], tiles[2], { map: "positive", projections: m, scale });
    expect(refused).toEqual({ worst: expect.any(Number), relativeL2: null, squares: null, bias: null });
    expect(refused.worst).toBeGreaterThan(0.1);
  });

  test("tiles that do not belong together are refused", () => {
    const options = { map: "positive", projections: m, scale } as const;
    expect(() => predictedError(tiles[0], tiles[2], tiles[2], options)).toThrow(UsageError);
    expect(() => predictedError(...tiles, { ...options, quadratic: 0.2 })).toThrow("less than 1/8");
  });
});
