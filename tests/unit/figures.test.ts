/** Figures: their numbers against published ones and formulas, and inputs that are hard to draw. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Attention } from "../../src/attention.ts";
import type { Backend } from "../../src/backend.ts";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import type { BenchResult } from "../../src/bench.ts";
import type { HeatPanel } from "../../src/charts/chart.ts";
import { soundChart } from "../../src/charts/sound.ts";
import { relativeKernelError } from "../../src/closed_forms.ts";
import { entrantsOf } from "../../src/compare.ts";
import { flatTable } from "../../src/figures/figure.ts";
import { headsFigure } from "../../src/figures/heads.ts";
import { heatmapFigure, seededSlice, weightsOf } from "../../src/figures/heatmap.ts";
import { outputErrorFigure } from "../../src/figures/output_error.ts";
import { ratioFigure } from "../../src/figures/ratio.ts";
import { leastGap, theoremFigure } from "../../src/figures/theorem.ts";
import { fitSlope, timeFigure } from "../../src/figures/time.ts";
import { Inputs } from "../../src/inputs.ts";
import { RandomStream } from "../../src/random.ts";
import { sizesOf } from "../../src/run.ts";
import { memoryTensor } from "./memory_tensor.ts";

let backend: Backend;
beforeAll(async () => {
  ({ backend } = await openFirst(parseBackendList("wasm,scalar"), { work: 0 }));
});
afterAll(async () => await backend[Symbol.asyncDispose]());

test("figure 2 holds the published ratios and crossings to every digit", () => {
  // Computed twice, apart from this code (Lemma 2 of the paper): l; ratio at ϕ = π/4, π/2, 2π/3, 3π/4, 3; ϕ of ratio 1.
  const published = [
    [0.5, 0.00796935, 0.196735, 1.03752, 2.45342, 107.095, 2.08275],
    [1, 0.00600603, 0.432332, 5.27717, 17.8465, 1274.57, 1.74263],
    [1.5, 0.000462122, 0.494446, 50.1936, 395.998, 84061.4, 1.64788],
    [2, 4.98657e-6, 0.499832, 1518.27, 45320.4, 4.92034e7, 1.61413],
  ];
  const { data, chart } = ratioFigure();
  for (const [i, [length, ...ratios]] of published.entries()) {
    const own = data.values.filter((row) => row.length === length).map(({ ratio }) => Number(ratio));
    [...own, Number(data.equal[i].angle)].forEach((value, j) => expect(value / ratios[j] - 1).toBeWithin(-1e-5, 1e-5));
  }
  // The plane is mirrored in both, and r = 1 is where the surface crosses it.
  const surface = data.surface.map(({ ratio }) => Number(ratio));
  expect(surface.toReversed().every((ratio, i) => Math.abs(ratio / surface[i] - 1) < 1e-9)).toBe(true);
  expect(chart.panels).toHaveLength(3);
});

test("figure 4 holds the published errors within their spread", async () => {
  const published: readonly (readonly [features: string, projection: string, ...means: number[]])[] = [
    ["positive", "iid", 2.2e-5, 8.6e-6],
    ["positive", "orthogonal", 2.4e-5, 7.6e-6],
    ["hyperbolic", "orthogonal", 1.8e-5, 6.0e-6],
    ["trigonometric", "iid", 2.4e-5, 5.2e-6],
    ["trigonometric", "orthogonal", 7.5e-6, 1.9e-6],
    ["oprf", "iid", 1.7e-5, 4.9e-6],
    ["oprf", "orthogonal", 1.3e-5, 3.6e-6],
  ];
  const trials = 8;
  const { data, settings } = await outputErrorFigure({
    backend,
    trials,
    seed: 0,
    length: 4096,
    numFeatures: [64, 256],
  });
  expect([settings.trials, settings.length, settings.scales]).toEqual([trials, 4096, [0.5, 1]]);
  for (const [features, projection, ...means] of published) {
    for (const [i, numFeatures] of [64, 256].entries()) {
      const cell = data.error.find((row) =>
        row.scale === 0.5 && row.features === features && row.projection === projection &&
        row.numFeatures === numFeatures
      )!;
      if (Number(cell.nonPositiveTrials) > 0) continue; // a quotient by a number around 0 has no mean
      const own = data.draws.filter((row) =>
        row.scale === 0.5 && row.features === features && row.projection === projection &&
        row.numFeatures === numFeatures
      ).map(({ mse }) => Math.log(Number(mse)));
      expect(own).toHaveLength(trials);
      const centre = own.reduce((a, b) => a + b) / trials;
      const sigma = Math.max(0.05, Math.sqrt(own.reduce((sum, x) => sum + (x - centre) ** 2, 0) / (trials - 1)));
      // Both are means of draws of one law: 3 standard errors of their difference on the log scale, and half a printed digit.
      const chance = 3 * sigma * Math.sqrt(1 / trials + 1 / 15) + 0.05;
      expect(Math.abs(Math.log(Number(cell.mean) / means[i]))).toBeLessThan(chance);
    }
  }
  // The mean of V, published with 3 and 2 digits; its spread over data is about 10 % (8 draws here).
  expect(Number(data.uniform[0].mean) / 1.61e-5).toBeWithin(0.85, 1.15);
  expect(Number(data.uniform[1].mean) / 4.7e-4).toBeWithin(0.85, 1.15);
  const median = (scale: number, features: string) =>
    Number(
      data.error.find((row) =>
        row.scale === scale && row.features === features && row.projection === "orthogonal" && row.numFeatures === 256
      )!.median,
    );
  expect(median(1, "trigonometric")).toBeGreaterThan(10 * median(1, "positive"));
}, 60_000);

describe("figure 3", () => {
  const point = (L: number, median: number, features = "positive"): BenchResult => ({
    backend: "wasm",
    device: "a device",
    threads: 1,
    features,
    numFeatures: features === "softmax" ? null : 256,
    projection: features === "softmax" ? null : "orthogonal",
    nearFar: null,
    causal: false,
    L,
    heads: 1,
    headDim: 64,
    valueDim: 64,
    seconds: [median],
    flops: 1,
    bytes: 1,
    peakBytes: 1,
    stages: null,
    median,
    p5: median,
    p95: median,
    tokensPerSecond: L / median,
    gflops: 1,
    gbps: 1,
    percentOfPeak: null,
    ceilingTokensPerSecond: 1e8,
    percentOfCeiling: null,
  });
  const lengths = Array.from({ length: 12 }, (_, i) => 2 ** (6 + i));

  test("slopes are fitted beyond fixed costs, and say from which L to which", () => {
    // 0.2 ms that every call takes, and 1 µs per row: over all lengths the slope would be 0.9.
    const linear = fitSlope(lengths.map((L) => point(L, 2e-4 + 1e-6 * L)))!;
    expect(linear.slope).toBeWithin(0.95, 1.05);
    expect([linear.from, linear.to, linear.beyondFixed]).toEqual([32768, 131072, true]);
    const quadratic = fitSlope(lengths.map((L) => point(L, 2e-4 + 1e-8 * L * L)))!;
    expect(quadratic.slope).toBeWithin(1.9, 2.1);
    expect(quadratic.from).toBe(2048);
  });

  test("where too few lengths are beyond them, the longer half is fitted and the figure says so", () => {
    const results = [16384, 32768, 65536, 131072].map((L) => point(L, 1e-6 * L));
    expect(fitSlope(results)).toMatchObject({ from: 32768, to: 131072, points: 3, beyondFixed: false });
    expect(timeFigure(results, {}).findings[0]).toContain("the longer half, since too few take 100 × the shortest");
  });

  test("exact and features: both slopes, the crossover and the identity line", () => {
    const results = [
      ...lengths.map((L) => point(L, 1e-6 * L)),
      ...lengths.map((L) => point(L, 1e-9 * L * L, "softmax")),
    ];
    const { findings, data, chart } = timeFigure(results, { seed: 0 });
    expect(data.slopes.map(({ expected, slope }) => [expected, Math.round(100 * Number(slope)) / 100])).toEqual([
      [1, 1],
      [2, 2],
    ]);
    expect(Number(data.crossovers[0].L)).toBeCloseTo(1000, 6);
    expect(findings).toContain("FAVOR+ positive, r = 256: faster than exact attention from L ≈ 1,000");
    const [panel] = chart.panels;
    expect(panel.kind === "lines" && panel.series.map(({ name }) => name)).toEqual([
      "FAVOR+ positive, r = 256",
      "exact softmax",
      "identity (returns V)",
    ]);
    expect(data.time[0].identitySeconds).toBe(lengths[0] / 1e8);
  });

  test("too few points: drawn as they are, without a slope; none: refused in words", () => {
    const { findings, chart } = timeFigure([point(1024, 0.01)], {});
    expect(findings[0]).toBe("FAVOR+ positive, r = 256: no slope, which takes at least three lengths");
    expect("chart" in soundChart(chart)).toBe(true);
    expect(() => timeFigure([], {})).toThrow("there is no result of bench to draw");
  });
});

test("theorem: closed forms, the bound below them, and drawn features near them", async () => {
  const { data, findings } = await theoremFigure({ trials: 1500, seed: 3 });
  for (const row of data.gaps) {
    const s = Number(row.s);
    const of = (coupling: "iid" | "orthogonal") =>
      relativeKernelError({ map: "positive", coupling, headDim: 8, projections: 8 }, { s, delta: 0 });
    expect(Number(row.exact)).toBeCloseTo(of("iid") - of("orthogonal"), 12);
    expect(Number(row.bound)).toBe(leastGap(s, 8, 8));
    expect(Number(row.bound)).toBeLessThanOrEqual(Number(row.exact));
    // Products of two features have heavier tails than a normal law: 5 standard errors.
    expect(Math.abs(Number(row.measured) - Number(row.exact))).toBeLessThan(5 * Number(row.standardError));
  }
  for (const row of data.errors) {
    expect(Math.abs(Number(row.mse) - Number(row.exact))).toBeLessThan(5 * Number(row.standardError));
  }
  expect(data.regularised.every(({ share }) => Number(share) <= 1)).toBe(true);
  expect(findings).toHaveLength(3);
});

const attention = (features: string, numFeatures: number, causal = false): Attention => ({
  features,
  numFeatures,
  projection: "orthogonal",
  norms: "chi",
  seed: 0,
  causal,
  scale: null,
  given: null,
  compat: "exact",
});

describe("heatmap", () => {
  test.each([false, true])("weights are those of softmax, causal %p", async (causal) => {
    const slice = seededSlice({ rows: 12, headDim: 4, seed: 5, scale: 1 });
    const weights = await weightsOf(slice, attention("softmax", 0, causal), backend);
    for (let i = 0; i < 12; i++) {
      const logits = Array.from({ length: causal ? i + 1 : 12 }, (_, j) => {
        let dot = 0;
        for (let l = 0; l < 4; l++) dot += slice.q[4 * i + l] * slice.k[4 * j + l];
        return Math.exp(dot / 2);
      });
      const total = logits.reduce((a, b) => a + b);
      // float32 kernels over logits below 20: 20 · 2⁻²³ in the exponent, doubled.
      for (let j = 0; j < 12; j++) expect(weights[12 * i + j]).toBeCloseTo((logits[j] ?? 0) / total, 5);
    }
  });

  test("approximate rows sum to 1; signed ones say how many are below 0; hidden keys are no weights", async () => {
    const slice = seededSlice({ rows: 24, headDim: 8, seed: 1, scale: 1 });
    for (const features of ["hyperbolic", "trigonometric"]) {
      const weights = await weightsOf(slice, attention(features, 64), backend);
      for (let i = 0; i < 24; i++) {
        expect(weights.subarray(24 * i, 24 * i + 24).reduce((a, b) => a + b)).toBeCloseTo(1, 4);
      }
    }
    const { findings, data, chart } = await heatmapFigure({
      backend,
      slice,
      attention: attention("trigonometric", 16, true),
    });
    expect(findings.some((words) => words.includes("are negative, drawn as 0"))).toBe(true);
    expect(data.weights).toHaveLength(24 * 25 / 2);
    expect((chart.panels[0] as HeatPanel).cells.filter(Number.isNaN)).toHaveLength(24 * 23 / 2);
  });
});

describe("heads", () => {
  const [rows, width] = [48, 4];
  async function drawn(heads: number, spoil: (head: number, numbers: Record<"q" | "k" | "v", Float64Array>) => void) {
    const random = new RandomStream(2, 9);
    const numbers = {
      q: random.normals(rows * heads * width),
      k: random.normals(rows * heads * width),
      v: random.normals(rows * heads * width),
    };
    for (let head = 0; head < heads; head++) spoil(head, numbers);
    const [q, k, v] = [numbers.q, numbers.k, numbers.v].map((data) => memoryTensor(data, heads, width));
    const inputs = new Inputs(q, k, v, null);
    const { features: _, numFeatures: __, projection: ___, ...common } = attention("", 0);
    return await headsFigure({
      open: { label: "wasm", backend },
      inputs,
      sizes: sizesOf(inputs, false),
      entrants: entrantsOf({ features: ["positive"], numFeatures: [32], projections: ["orthogonal"] }, width, common),
      check: rows,
      draws: 2,
      seed: 0,
      causal: false,
    });
  }
  const each = (data: Float64Array, heads: number, head: number, change: (value: number) => number) => {
    for (let i = 0; i < rows; i++) {
      for (let c = 0; c < width; c++) {
        data[(i * heads + head) * width + c] = change(data[(i * heads + head) * width + c]);
      }
    }
  };

  test("one head of 512 is seen, named, and does not hide the others; one without an output is grey", async () => {
    const { findings, chart, data } = await drawn(512, (head, { q, k, v }) => {
      for (const data of [q, k]) each(data, 512, head, (value) => (head === 137 ? 4 : 0.2) * value);
      if (head === 300) each(v, 512, head, () => 0);
    });
    expect(findings[0]).toContain("worst is head 137");
    expect(chart.caption).toContain("Grey: 1 head whose exact output is 0, so that no relative error is defined");
    const [panel] = chart.panels as HeatPanel[];
    expect([panel.columns.values.length, panel.rows.values.length]).toEqual([32, 16]);
    expect(panel.cells.filter(Number.isNaN)).toHaveLength(1);
    expect(data.heads).toHaveLength(512);
    expect("chart" in soundChart(chart)).toBe(true);
  });

  test("few heads have a row each, with their values and the mean of V beside them", async () => {
    const { chart } = await drawn(3, () => {});
    const [panel] = chart.panels as HeatPanel[];
    expect(panel.columns.values).toEqual(["positive 32", "mean of V"]);
    expect([panel.rows.values.length, panel.labelled]).toEqual([3, true]);
  });

  test("heads that all lack an output have no picture, but a sentence", async () => {
    const { chart } = await drawn(2, (head, { v }) => each(v, 2, head, () => 0));
    expect(soundChart(chart)).toMatchObject({ sentence: expect.stringContaining("There is nothing to draw") });
  });
});

test("all tables as one, with every column", () => {
  expect(flatTable({ a: [{ x: 1, name: "one" }], none: [], b: [{ x: 2, ok: true, gap: null }] })).toEqual([
    ["table", "x", "name", "ok", "gap"],
    ["a", 1, "one", "", ""],
    ["b", 2, "", "true", ""],
  ]);
});
