/**
 * Five tiny examples worked out in numpy (tests/golden/golden_small.json, 14 significant digits), to 1e-10 relative.
 * What has no counterpart in the code is skipped by name.
 */
import { describe, expect, test } from "bun:test";
import { absorbExact, emptySoftmax } from "../../kernels/scalar/exact.ts";
import { FeatureRow } from "../../kernels/scalar/features.ts";
import { compareOutputs } from "../../src/metrics.ts";
import { bindMap, featureMap } from "../../src/feature_map.ts";
import { bestQuadratic } from "../../src/closed_forms.ts";
import { fitHead, fittedProjections, fixedFit, type HeadFit, leastLogVariance } from "../../src/fitted.ts";
import { Moments } from "../../src/moments.ts";
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
import {
  dot,
  mseExponent,
  mseIid,
  mseOrthogonal,
  mseSmreg,
  norm2,
  orthogonalGain,
  pairOf,
  rho,
  smreg,
} from "./oracles.ts";

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

  test("oprf: A*, φ(x), φ(y), their product, and mean squared errors", () => {
    const { A } = example["1_feature_maps"].input;
    close(bestQuadratic(pair.s, 2), expected.A_star);
    const fit = { ...fixedFit(featureMap("oprf"), 2, 1).heads[0], exponents: Float64Array.of(A) };
    const { weights, beta } = fittedProjections(fit, Float64Array.from(W.flat()), 2);
    const p = bindMap(featureMap("oprf"), { headDim: 2, scale: 1, matrices: 1, weights, beta });
    // W′ is rounded to float32; exact features are those of W′ in float64.
    const features = new Features({ ...p, weights: Float64Array.from(W.flat(), (w) => Math.sqrt(1 - 4 * A) * w) });
    closeAll([features.query(x), features.key(x)], [expected.oprf_x, expected.oprf_x]);
    closeAll([features.query(y), features.key(y)], [expected.oprf_y, expected.oprf_y]);
    close(features.estimate(x, y), expected.oprf_est);
    weights.forEach((w, i) => expect(w).toBe(Math.fround(Math.sqrt(1 - 4 * A) * W.flat()[i])));
    close(mseExponent(pair, 2, A, false), expected.mse_iid.oprf);
    close(mseExponent(pair, 2, expected.A_star, false), expected.mse_iid.oprf_at_A_star);
    close(mseExponent(pair, 2, A, false) - orthogonalGain("pos", pair, 2), expected.mse_ort.oprf);
  });
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

describe("5 parameters", () => {
  const { input: { X, Y }, expected } = example["5_parameters"];
  const moments = (rows: Rows) => {
    const all = new Moments(1, 2, true);
    all.add(tile(rows));
    return all.ofGroup(0, 1);
  };
  const [x, y] = [moments(X), moments(Y)];
  const fit = (name: string, centred = false) => fitHead(featureMap(name), x, y, 1, centred);
  /** Q (I − 4a) Qᵀ, which does not depend on the signs of eigenvectors. */
  const form = ({ directions, exponents }: HeadFit) =>
    [0, 1].map((i) =>
      [0, 1].map((j) =>
        [0, 1].reduce((sum, l) => sum + directions![2 * i + l] * directions![2 * j + l] * (1 - 4 * exponents[l]), 0)
      )
    );

  test("moments", () => {
    closeAll([x.mean, y.mean, x.products!, y.products!], [
      expected.mean_x,
      expected.mean_y,
      expected.M1.flat(),
      expected.M2.flat(),
    ]);
    for (const name of ["positive", "oprf", "sderf", "aderf", "aderf+sderf"]) close(fit(name).phiBefore, expected.phi);
    close(fit("positive").phi, expected.phi);
    close(fit("positive").logVariance, expected.smplus.log_relvar1);
  });

  test("one exponent, and one per principal direction", () => {
    closeAll([fit("oprf").exponents], [[expected.oprf.A]]);
    close(fit("oprf").logVariance, expected.oprf.log_relvar1);
    const sderf = fit("sderf");
    closeAll([sderf.exponents], [expected.sderf.a]);
    closeAll(form(sderf), expected.sderf.BtB);
    close(sderf.logVariance, expected.sderf.log_relvar1);
    close(sderf.logVariance, expected.sderf.eigenvalues.reduce((sum, value) => sum + leastLogVariance(value), 0));
  });

  test("balanced by coordinate and by matrix, alone and with exponents per direction", () => {
    for (const [name, numbers] of [["saderf", expected.saderf], ["aderf", expected.aderf]] as const) {
      const found = fit(name);
      close(found.phi, numbers.phi);
      closeAll([found.exponents], [[numbers.A]]);
      close(found.logVariance, numbers.log_relvar1);
    }
    closeAll([fit("saderf").balance!.T], [expected.saderf.psi]);
    for (const name of ["aderf", "aderf+sderf"]) {
      const { T } = fit(name).balance!;
      closeAll([T], [expected.aderf.T.flat()]);
      closeAll([[0, 1, 2, 3].map((at) => [0, 1].reduce((sum, l) => sum + T[(at & 2) + l] * T[2 * l + (at & 1)], 0))], [
        expected.aderf.G.flat(),
      ]);
    }
    closeAll([fit("aderf+sderf").exponents], [expected.aderf_then_sderf.a]);
    close(fit("aderf+sderf").logVariance, expected.aderf_then_sderf.log_relvar1);
  });

  test("keys moved by x̄ + ȳ", () => {
    const { shift, phi, oprf_A, oprf_log_relvar1, sderf_log_relvar1, sderf_eigenvalues } = expected.centred;
    const [oprf, sderf] = [fit("oprf", true), fit("sderf", true)];
    for (const found of [oprf, sderf]) {
      closeAll([found.shift!], [shift]);
      close(found.phi, phi);
      close(found.phiBefore, expected.phi);
    }
    closeAll([oprf.exponents], [[oprf_A]]);
    close(oprf.logVariance, oprf_log_relvar1);
    closeAll([sderf.exponents], [sderf_eigenvalues.map((value) => bestQuadratic(value, 1))]);
    close(sderf.logVariance, sderf_log_relvar1);
  });
});
