/** Hybrid features: the definition, the points without error, unbiasedness, and sessions; other backends refuse. Fixed seeds. */
import { expect, test } from "bun:test";
import { type Attention, parametersFor } from "../../src/attention.ts";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import { UnsupportedError, UsageError } from "../../src/errors.ts";
import type { MapParameters } from "../../src/feature_map.ts";
import { distance, Features, gaussian, linear, pairWith, projectionRows, Sample } from "./harness.ts";
import { denseAttention, dot, norm2 } from "./oracles.ts";

const N = 3;

function parameters(d: number, m: number, draw: number, kind = "orthogonal", kvHeads = 1): MapParameters {
  const attention: Attention = {
    features: "hybrid",
    numFeatures: 3 * (1 + N) * m,
    projection: kind,
    norms: "chi",
    seed: 6,
    causal: false,
    scale: 1,
    given: null,
    compat: "exact",
  };
  const sizes = { queryRows: 1, keyRows: 1, heads: kvHeads, kvHeads, headDim: d, valueDim: 1 };
  return parametersFor(attention, sizes, draw);
}

/** The definition, of rows of W in their order. */
function estimate(W: number[][], x: number[], y: number[]): number {
  const m = (W.length - N) / 2;
  const sign = (w: number[], z: number[]) => dot(w, z) >= 0 ? 1 : -1;
  const agree = W.slice(2 * m).reduce((sum, w) => sum + sign(w, x) * sign(w, y), 0) / N;
  const mean = (rows: number[][], f: (w: number[]) => number) => rows.reduce((sum, w) => sum + f(w), 0) / m;
  const lambda = Math.exp(-(norm2(x) + norm2(y)) / 2);
  const positive = lambda * mean(W.slice(0, m), (w) => Math.exp(dot(w, x) + dot(w, y)));
  const trigonometric = mean(W.slice(m, 2 * m), (w) => Math.cos(dot(w, x) - dot(w, y))) / lambda;
  return (1 - agree) / 2 * positive + (1 + agree) / 2 * trigonometric;
}

/** Features with the query's common e^{‖x‖²/2} put back. */
const product = (p: MapParameters, x: number[], y: number[], head = 0) => {
  const features = new Features(p);
  const key = features.key(y, head);
  return Math.exp(norm2(x) / 2) * features.query(x, head).reduce((sum, value, a) => sum + value * key[a], 0);
};

test("φ(x)·φ(y) is the mixture by definition, for every matrix; no error at y = x and y = −x whatever W is", () => {
  const p = parameters(5, 4, 0, "orthogonal", 2);
  expect([p.projections, p.features, p.matrices]).toEqual([2 * 4 + N, 48, 2]);
  for (const head of [0, 1]) {
    const W = projectionRows(p, head);
    for (
      const [x, y] of [[0, 1], [2, 3], [4, 5]].map(([a, b]) => [gaussian(a, 1, 5, 0.6)[0], gaussian(b, 1, 5, 0.6)[0]])
    ) {
      expect(Math.abs(product(p, x, y, head) / estimate(W, x, y) - 1)).toBeLessThan(1e-12);
      for (const other of [x, x.map((value) => -value)]) {
        expect(Math.abs(product(p, x, other, head) / Math.exp(dot(x, other)) - 1)).toBeLessThan(1e-13);
      }
    }
  }
  expect(projectionRows(p, 0)).not.toEqual(projectionRows(p, 1));
});

test.each(["iid", "orthogonal"])("S1 %s: unbiased, the parts and the share being drawn apart", (kind) => {
  const [x, y] = pairWith(4, 1.3, 0.8);
  const sample = new Sample();
  for (let draw = 0; draw < 20_000; draw++) sample.add(product(parameters(4, 4, draw, kind), x, y));
  const kernel = Math.exp(dot(x, y));
  expect(Math.abs(sample.z(kernel))).toBeLessThan(4.5);
  expect(sample.standardError / kernel).toBeLessThan(0.004);
});

test("sessions equal the dense matrix, in both directions, any tiles, weights and rows ×60", async () => {
  const p = parameters(4, 3, 1);
  const L = 24;
  const at = { Q: gaussian(60, L, 4, 0.5), K: gaussian(61, L, 4, 0.5), V: gaussian(62, L, 3) };
  const weights = at.K.map((_, j) => [1, 0, 2][j % 3]);
  const W = projectionRows(p);
  const A = at.Q.map((q) => at.K.map((k) => estimate(W, q, k)));
  for (const causal of [false, true]) {
    for (const cuts of [[L], [5]]) {
      const { out } = await linear(p, { ...at, weights }, { causal, cuts });
      expect(distance(out, denseAttention(A, at.V, { causal, weights }))).toBeLessThan(1e-9); // denominators may be small
    }
  }
  const wide = { ...at, Q: at.Q.map((q) => q.map((x) => 60 * x)), K: at.K.map((k) => k.map((y) => 60 * y)) };
  expect((await linear(p, wide)).out.flat().every(Number.isFinite)).toBe(true);
});

test("numbers of features that do not divide and projections that are given are refused; so do backends without kernels", async () => {
  expect(() => parameters(4, 3.5, 0)).toThrow(/multiple of 12 such as 48/);
  const given = { path: "w.npy", matrices: 1, headDim: 4, data: new Float64Array(16) };
  const attention = {
    features: "hybrid",
    numFeatures: 12,
    projection: "iid",
    norms: "chi",
    seed: 0,
    causal: false,
  } as const;
  const sizes = { queryRows: 1, keyRows: 1, heads: 1, kvHeads: 1, headDim: 4, valueDim: 1 };
  expect(() => parametersFor({ ...attention, scale: null, given, compat: "exact" }, sizes)).toThrow(UsageError);
  await using opened = (await openFirst(parseBackendList("gpujs:cpu"))).backend;
  const plan = {
    heads: 1,
    kvHeads: 1,
    headDim: 4,
    valueDim: 1,
    causal: false,
    tileRows: 4,
    parameters: parameters(4, 1, 0),
  };
  await expect(opened.prepare(plan)).rejects.toBeInstanceOf(UnsupportedError);
  const { backend, refused } = await openFirst(parseBackendList("auto"), { hybrid: true });
  expect([backend.name, refused.length]).toEqual(["scalar", 4]);
});
