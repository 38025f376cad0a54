/** Exponents β of the exp family: what they do to a kernel, where they stand, and what is refused. */
import { describe, expect, test } from "bun:test";
import { bindMap, featureMap, stateBiases } from "../../src/feature_map.ts";
import { distance, Features, gaussian, linear, parametersOf, projectionRows } from "./harness.ts";

const D = 4, M = 6;
const row = (seed: number): number[] => gaussian(seed, 1, D)[0];

describe.each(["positive", "hyperbolic"])("exponents of %s", (name) => {
  const plain = parametersOf(name, { headDim: D, projections: M, seed: 5 });
  const W = projectionRows(plain);
  const beta = Float64Array.from(gaussian(31, 1, M, 2)[0]);
  const options = { headDim: D, scale: 1, matrices: 1, weights: plain.weights };
  const tilted = bindMap(featureMap(name), { ...options, beta });

  test("φ(x)·φ(y) is the sum over projections of e^{2β} times each one's own", () => {
    for (const [x, y] of [[row(1), row(2)], [row(3), row(3)]]) {
      // One projection alone has the r of one projection: its estimate is the term times m.
      const terms = W.map((w) => new Features(parametersOf(name, { headDim: D, W: [w] })).estimate(x, y) / M);
      const expected = terms.reduce((sum, term, a) => sum + Math.exp(2 * beta[a]) * term, 0);
      expect(Math.abs(new Features(tilted).estimate(x, y) / expected - 1)).toBeLessThan(1e-12);
    }
  });

  test("a projection of β = ½ ln 2 counts as one that is there twice", async () => {
    const at = { Q: gaussian(41, 9, D), K: gaussian(42, 12, D), V: gaussian(43, 12, 3) };
    const double = Float64Array.from({ length: M }, (_, a) => a === 2 ? Math.LN2 / 2 : 0);
    const once = bindMap(featureMap(name), { ...options, beta: double });
    const twice = parametersOf(name, { headDim: D, W: [...W, W[2]] });
    for (const causal of [false, true]) {
      const at9 = causal ? { ...at, K: at.K.slice(0, 9), V: at.V.slice(0, 9) } : at;
      const { out } = await linear(once, at9, { causal });
      expect(distance(out, (await linear(twice, at9, { causal })).out)).toBeLessThan(1e-12);
      expect(distance(out, (await linear(plain, at9, { causal })).out)).toBeGreaterThan(1e-4);
    }
  });

  test("biases are β − ½ ln r, and those of a state stand where its features do", () => {
    const beta = Float64Array.from({ length: 2 * M }, (_, at) => at);
    const weights = Float64Array.from([...plain.weights, ...plain.weights]);
    const p = bindMap(featureMap(name), { ...options, matrices: 2, weights, beta });
    const half = Math.log(p.features) / 2;
    expect(Array.from(p.bias)).toEqual(Array.from(beta, (value) => value - half));
    const matrix = (first: number) => {
      const one = Array.from({ length: M }, (_, a) => first + a - half);
      return p.features === 2 * M ? [...one, ...one] : one;
    };
    expect(Array.from(stateBiases(p, 3))).toEqual([...matrix(0), ...matrix(M), ...matrix(0)]);
  });

  test("too few numbers and numbers that are none are refused", () => {
    for (const wrong of [beta.subarray(1), new Float64Array(2 * M), beta.map((value, a) => a === 1 ? NaN : value)]) {
      expect(() => bindMap(featureMap(name), { ...options, beta: wrong })).toThrow(RangeError);
    }
  });
});

test("maps of other families have no exponents, and zeros in their place", () => {
  for (const name of ["trigonometric", "relu", "elu"]) {
    const options = { headDim: D, scale: 1, matrices: 1, weights: gaussian(7, M, D).flat() };
    const weights = Float64Array.from(options.weights);
    const p = bindMap(featureMap(name), { ...options, weights });
    expect(Array.from(p.bias)).toEqual(Array.from({ length: p.projections }, () => 0));
    expect(() => bindMap(featureMap(name), { ...options, weights, beta: new Float64Array(M) })).toThrow("beta");
  }
});
