/**
 * Five tiny examples worked out in numpy (tests/golden/golden_small.json, 14 significant digits), to 1e-10 relative.
 * What has no counterpart in the code is skipped by name.
 */
import { describe, expect, test } from "bun:test";
import { absorbExact, emptySoftmax } from "../../kernels/scalar/exact.ts";
import { FeatureRow } from "../../kernels/scalar/features.ts";
import { compareOutputs } from "../../src/metrics.ts";
import { haarRows, hadamardBlock, simplexOf, turnRows } from "../../src/projection.ts";
import { mergeInto, type State } from "../../src/state.ts";
import golden from "../golden/golden_small.json";
import {
  distance,
  Features,
  GivenNumbers,
  linear,
  parametersOf,
  type Problem,
  type Rows,
  softmax,
  tile,
} from "./harness.ts";
import { dot, mseIid, mseOrthogonal, mseSmreg, norm2, pairOf, rho, smreg } from "./oracles.ts";

const TOLERANCE = 1e-10;
const close = (actual: number, expected: number) => {
  expect(Math.abs(actual - expected)).toBeLessThanOrEqual(TOLERANCE * Math.abs(expected) + 1e-12);
};
/** Element by element: a large neighbour excuses nothing. */
const closeAll = (actual: readonly ArrayLike<number>[], expected: readonly ArrayLike<number>[]) => {
  expect(actual.map((row) => row.length)).toEqual(expected.map((row) => row.length));
  actual.forEach((row, i) => Array.from(row).forEach((value, c) => close(value, expected[i][c])));
};
const example = golden.examples;

describe("1 feature maps", () => {
  const { input: { x, y, W }, expected } = example["1_feature_maps"];
  const pair = pairOf(x, y);

  test.each(
    [
      ["trigonometric", W, expected.trig_x, expected.trig_y, expected.trig_est],
      ["positive", W, expected.pos_x, expected.pos_y, expected.pos_est],
      ["hyperbolic", W, expected.hyp_x, expected.hyp_y, expected.hyp_est],
      ["positive", expected.W_reg, expected.smreg_x, expected.smreg_y, expected.smreg_est],
    ] as const,
  )("%s: φ(x), φ(y) and their product", (name, W, phiX, phiY, estimate) => {
    const features = new Features(parametersOf(name, { headDim: 2, W }));
    closeAll([features.query(x), features.key(x)], [phiX, phiX]);
    closeAll([features.query(y), features.key(y)], [phiY, phiY]);
    close(features.estimate(x, y), estimate);
  });

  test("the oracles of the other tests: kernels, ρ, and mean squared errors", () => {
    close(pair.softmax, expected.sm);
    close(pair.s, expected.s);
    close(pair.delta, expected.delta);
    close(smreg(pair), expected.smreg_kernel);
    close(rho(pair.s, 2), expected.rho_ort_s);
    close(rho(-pair.delta, 2), expected.rho_ort_minus_delta);
    for (const kind of ["trig", "pos", "hyp"] as const) {
      close(mseIid(kind, pair, 2), expected.mse_iid[kind]);
      close(mseOrthogonal(kind, pair, 2), expected.mse_ort[kind]);
    }
    close(mseSmreg(pair, 2, false), expected.mse_iid.smreg_about_smreg);
    close(mseSmreg(pair, 2, true), expected.mse_ort.smreg_about_smreg);
  });

  test.skip("oprf_x, oprf_y, oprf_est, A_star and their errors: there is no OPRF feature map", () => {});
});

const { Q, K, V, W } = example["2_attention"].input;
const SCALE = 1 / Math.sqrt(2);
const POSITIVE = parametersOf("positive", { headDim: 2, scale: SCALE, W });
const plain: Problem = { Q, K, V };
/** Values e_j: outputs are rows of the attention matrix. */
const unit: Problem = { Q, K, V: K.map((_, j) => K.map((_, c) => c === j ? 1 : 0)) };

const stateRows = ({ c, z, S, valueDim }: State): number[][] => [
  [...c],
  [...z],
  ...Array.from(c, (_, a) => [...S.subarray(a * valueDim, (a + 1) * valueDim)]),
];
const goldenState = (state: { c: number[]; z: number[]; S: number[][] }) => [state.c, state.z, ...state.S];

/** ln D̂ of every query over a state, as the query pass forms it, with the query's −‖x‖²/2 put back. */
function logDenominators({ c, z }: State): number[] {
  const row = new FeatureRow(POSITIVE);
  const g = new Float64Array(3), e = new Float64Array(3);
  return Q.map((q) => {
    row.query(0, Float64Array.from(q), 0, g, e);
    const half = SCALE * norm2(q) / 2;
    return Math.log(e.reduce((sum, exponent, a) => sum + g[a] * Math.exp(exponent + c[a]) * z[a], 0)) - half;
  });
}

describe("2 attention", () => {
  const { expected } = example["2_attention"];

  test("exact softmax: logits, matrix, log-sum-exp, outputs in both directions", async () => {
    closeAll(Q.map((q) => K.map((k) => SCALE * dot(q, k))), expected.logits);
    closeAll(await softmax(SCALE, unit), expected.softmax_A);
    closeAll(await softmax(SCALE, plain), expected.softmax_out);
    closeAll(await softmax(SCALE, plain, { causal: true, cuts: [3] }), expected.softmax_causal_out);
    const held = emptySoftmax(4, 1, 2);
    const shape = { heads: 1, kvHeads: 1, headDim: 2, valueDim: 2 };
    absorbExact(shape, SCALE, held, tile(Q), tile(K), tile(V), undefined, undefined, 0);
    closeAll([held.top.map((top, i) => top + Math.log(held.total[i]))], [expected.lse_rows]);
  });

  test("positive features: log-features and kernel", () => {
    const row = new FeatureRow(POSITIVE);
    const g = new Float64Array(3), e = new Float64Array(3);
    const logPhi = (pass: "key" | "query", x: number[]) => {
      if (pass === "key") row.key(0, Float64Array.from(x), 0, g, e, 0);
      else row.query(0, Float64Array.from(x), 0, g, e);
      const left = pass === "query" ? SCALE * norm2(x) / 2 : 0; // cancels in the ratio and is left out there
      return Array.from(e, (exponent, a) => exponent + Math.log(g[a]) - left);
    };
    closeAll(Q.map((q) => logPhi("query", q)), expected.logphi_q);
    closeAll(K.map((k) => logPhi("key", k)), expected.logphi_k);
    const features = new Features(POSITIVE);
    closeAll(Q.map((q) => K.map((k) => features.estimate(q, k))), expected.favor_kernel);
  });

  test("positive features: attention matrix, outputs, state and denominators", async () => {
    closeAll((await linear(POSITIVE, unit)).out, expected.favor_A);
    closeAll((await linear(POSITIVE, unit, { causal: true })).out, expected.favor_causal_A);
    for (const cuts of [[4], [1], [3, 1]]) {
      const { out, state } = await linear(POSITIVE, plain, { cuts });
      closeAll(out, expected.favor_out);
      closeAll(stateRows(state), goldenState(expected.state));
      closeAll([logDenominators(state)], [expected.favor_log_den]);
      const causal = await linear(POSITIVE, plain, { causal: true, cuts });
      closeAll(causal.out, expected.favor_causal_out);
      closeAll(stateRows(causal.state), goldenState(expected.state));
    }
  });

  test.each([false, true])("metrics, causal %p", async (causal) => {
    const metrics = causal ? expected.metrics_causal : expected.metrics_bidirectional;
    const [O, Ohat] = [await softmax(SCALE, plain, { causal }), (await linear(POSITIVE, plain, { causal })).out];
    const mean = V.map(() => [0, 1].map((c) => V.reduce((sum, v) => sum + v[c] / V.length, 0)));
    const summary = compareOutputs(tile(Ohat), tile(O), tile(mean), 1, 4);
    close(summary.relativeL2.value, metrics.rel_fro_output);
    close(summary.mse as number, metrics.mse_output);
    close(summary.cosine as number, metrics.mean_row_cos);
    if (!causal) close(summary.uniformBaseline, expected.baseline_uniform_rel_fro);

    const [A, Ahat]: Rows[] = [await softmax(SCALE, unit, { causal }), (await linear(POSITIVE, unit, { causal })).out];
    const gaps = A.flatMap((row, i) => row.map((a, j) => Math.abs(a - Ahat[i][j])));
    const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
    close(sum(gaps.map((gap) => gap * gap)) / 16, metrics.attn_mse);
    close(Math.max(...gaps), metrics.attn_max_abs);
    close(sum(gaps) / 2 / 4, metrics.mean_tv);
    const logs = A.flatMap((row, i) => row.map((a, j) => a === 0 ? 0 : a * Math.log(a / Ahat[i][j])));
    close(sum(logs) / 4, metrics.mean_kl);
  });
});

describe("3 weights and merging", () => {
  const { input: { w }, expected } = example["3_merge_weights"];
  const shard = (from: number, to: number): Problem => ({
    Q,
    K: K.slice(from, to),
    V: V.slice(from, to),
    weights: w.slice(from, to),
  });

  test("states of both shards and their merge, in either order", async () => {
    const [{ state: a }, { state: b }] = [await linear(POSITIVE, shard(0, 2)), await linear(POSITIVE, shard(2, 4))];
    closeAll(stateRows(a), goldenState(expected.stateA));
    closeAll(stateRows(b), goldenState(expected.stateB));
    const { state: backward } = await linear(POSITIVE, shard(2, 4));
    mergeInto(backward, a);
    mergeInto(a, b);
    closeAll(stateRows(a), goldenState(expected.merged));
    expect(distance([backward.c, backward.z, backward.S], [a.c, a.z, a.S])).toBe(0);
    expect(a.keys).toBe(3);
    closeAll([logDenominators(a)], [expected.log_den]);
  });

  test("outputs of weighted keys, random features and exact", async () => {
    closeAll((await linear(POSITIVE, { ...plain, weights: w }, { cuts: [2] })).out, expected.out);
    closeAll(await softmax(SCALE, { ...plain, weights: w }, { cuts: [2] }), expected.exact_weighted_softmax_out);
  });
});

describe("4 projections", () => {
  const { input: { G1, G2, hadamard, givens }, expected } = example["4_projections"];

  test("Gram–Schmidt of given blocks, the second one truncated", () => {
    const first = haarRows(new GivenNumbers(G1.flat()), 3, 3), second = haarRows(new GivenNumbers(G2.flat()), 3, 2);
    closeAll([[...first, ...second]], [expected.U.flat()]);
  });

  test.skip("W_chi, W_sqrtd: drawProjection draws its own norms and rounds to float32 (D4 checks √d norms)", () => {});
  test("Hadamard factors of given signs", () => {
    const { x, D1, D2, D3 } = hadamard;
    const bits = [...D1, ...D2, ...D3].map((sign) => (sign + 1) / 2);
    const { directions } = hadamardBlock(new GivenNumbers(bits), 4, 4);
    const y = [0, 1, 2, 3].map((i) => dot(directions.subarray(4 * i, 4 * i + 4), x));
    closeAll([y], [expected.hadamard_y]);
    close(Math.sqrt(norm2(y)), expected.hadamard_norm_out);
  });

  test("Givens rotations of given planes and angles, the directions of a simplex", () => {
    const U = Float64Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
    for (const [i, j, angle] of givens) turnRows(U, 3, i, j, [Math.cos(angle), Math.sin(angle)]);
    closeAll([[...U]], [expected.givens.flat()]);
    const identity = Float64Array.from({ length: 16 }, (_, at) => at % 5 === 0 ? 1 : 0);
    closeAll([[...simplexOf(identity, 4)]], [expected.simplex.flat()]);
  });
});

test.skip("5 parameters: OPRF, SDERF, ADERF and re-centring do not exist here", () => {});
