/**
 * Inputs and exact attention from performer-pytorch's test set (tests/golden/fast_attention): a folder is a case.
 * Exact softmax is compared with the stored float64 answer, positive features with the paper's formula, written out here.
 */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import type { Backend } from "../../src/backend.ts";
import { bindMap, featureMap } from "../../src/feature_map.ts";
import type { Tile } from "../../src/tensor.ts";
import { describeBackends } from "../conformance/backends.ts";
import { type Problem, run, runExact } from "../conformance/harness.ts";
import { asTile, CASES, readArray } from "./arrays.ts";

interface Golden {
  readonly name: string;
  readonly problem: Problem;
  readonly exact: Float64Array;
}

function load(name: string): Golden {
  const config = JSON.parse(readFileSync(new URL(`${name}/config.json`, CASES), "utf8"));
  const [q, k, v, W, exact] = ["q", "k", "v", "projection_matrix", "exact_softmax_f64"].map((file) =>
    readArray(name, file)
  );
  const headDim = q.shape[3];
  const scale = headDim ** -0.5;
  const heads = q.shape[0] * q.shape[1];
  const parameters = bindMap(featureMap("positive"), { headDim, scale, matrices: 1, weights: W.data });
  const causal = config.module.causal === true;
  const shape = { heads, kvHeads: heads, headDim, valueDim: v.shape[3], causal, scale };
  return {
    name,
    problem: { ...shape, q: asTile(q), k: asTile(k), v: asTile(v), parameters },
    exact: asTile(exact).data as Float64Array,
  };
}

/** Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j), φ(x) = exp(W x − ‖x‖²/2), x scaled by d^{−1/4}: no stabiliser, float64. */
function positive({ q, k, v, heads, headDim, causal, parameters }: Problem): Float64Array {
  const m = parameters.projections;
  const out = new Float64Array(q.data.length);
  const phi = (tile: Tile, i: number, head: number): Float64Array => {
    const x = Array.from({ length: headDim }, (_, l) => tile.data[(i * heads + head) * headDim + l] * headDim ** -0.25);
    const norm = x.reduce((sum, value) => sum + value * value, 0) / 2;
    return Float64Array.from({ length: m }, (_, a) => {
      return Math.exp(x.reduce((sum, value, l) => sum + parameters.weights[a * headDim + l] * value, 0) - norm);
    });
  };
  for (let head = 0; head < heads; head++) {
    const keys = Array.from({ length: k.rows }, (_, j) => phi(k, j, head));
    for (let i = 0; i < q.rows; i++) {
      const query = phi(q, i, head);
      const row = out.subarray((i * heads + head) * headDim, (i * heads + head + 1) * headDim);
      let total = 0;
      for (let j = 0; j < (causal ? i + 1 : k.rows); j++) {
        let weight = 0;
        for (let a = 0; a < m; a++) weight += query[a] * keys[j][a];
        total += weight;
        for (let c = 0; c < headDim; c++) row[c] += weight * v.data[(j * heads + head) * headDim + c];
      }
      for (let c = 0; c < headDim; c++) row[c] /= total;
    }
  }
  return out;
}

function relativeL2(actual: ArrayLike<number>, expected: Float64Array): number {
  expect(actual.length).toBe(expected.length);
  let error = 0, norm = 0;
  for (let at = 0; at < expected.length; at++) {
    error += (actual[at] - expected[at]) ** 2;
    norm += expected[at] ** 2;
  }
  return Math.sqrt(error / norm);
}

const names = readdirSync(CASES).sort();
const cases = names.map(load);
const expected = new Map(cases.map(({ name, problem }) => [name, positive(problem)]));
const limit = (backend: Backend) => backend.limits.precision === "f64" ? 1e-12 : 1e-5;

describeBackends("golden attention", (backend, slow) => {
  /** Software GPUs get the smallest cases; products of the others would take minutes. */
  const affordable = cases.filter(({ problem: { q, k, heads, headDim } }) => {
    return !slow || q.rows * k.rows * heads * headDim < 400_000;
  });

  test.each(affordable.map((golden) => [golden.name, golden] as const))(
    "%s: exact softmax",
    async (_, { problem, exact }) => {
      const reached = relativeL2(await runExact(backend, problem, 64), exact);
      expect(reached).toBeLessThan(limit(backend));
    },
    20_000,
  );

  test.each(affordable.map((golden) => [golden.name, golden] as const))(
    "%s: positive features",
    async (name, { problem }) => {
      const reached = relativeL2(await run(backend, problem), expected.get(name)!);
      expect(reached).toBeLessThan(limit(backend));
    },
    20_000,
  );
});

test("the golden set is complete", () => {
  expect(names.length).toBe(18);
});
