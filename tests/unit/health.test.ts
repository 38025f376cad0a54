/** Health per head: what the figures are in cases that can be worked out, and what is advised on them. */
import { describe, expect, test } from "bun:test";
import { adviseHead, type HeadFigures } from "../../src/health_advice.ts";
import { sumFeatures } from "../../src/health_features.ts";
import type { HeadHealth } from "../../src/report.ts";
import { ATTENTION, healthOf, normals } from "../health_runs.ts";

describe("sums of features", () => {
  const state = (z: number[], c = z.map(() => 0)) => {
    return { features: z.length, z: Float64Array.from(z), c: Float64Array.from(c) };
  };

  test("alike features all count, one that outweighs the others counts alone", () => {
    const alike = sumFeatures([1, 1, 1, 1], [2, 2, 2, 2], state([3, 3, 3, 3]), 0);
    expect(alike.effective).toBe(4);
    expect(Math.abs(alike.log - (2 + Math.log(12)))).toBeLessThan(1e-15 * 10);
    const alone = sumFeatures([1, 1, 1, 1], [0, 0, 0, 0], state([1, 1, 1, 1], [50, 0, 0, 0]), 0);
    expect(Math.abs(alone.effective - 1)).toBeLessThan(10 * Math.exp(-50) + 1e-15);
    expect(Math.abs(alone.log - 50)).toBeLessThan(1e-13);
    // (1 + 2 + 3)² / (1 + 4 + 9)
    expect(Math.abs(sumFeatures([1, 2, 3], [0, 0, 0], state([1, 1, 1]), 0).effective - 36 / 14)).toBeLessThan(1e-14);
  });

  test("the head's own part of the state is read; exponents beyond float range do no harm", () => {
    const two = { features: 2, z: Float64Array.of(1, 1, 2, 2), c: Float64Array.of(0, 0, 900, 900) };
    expect(Math.abs(sumFeatures([1, 1], [0, 0], two, 1).log - (900 + Math.log(4)))).toBeLessThan(1e-12);
  });

  test("no key, and signs that cancel", () => {
    expect(sumFeatures([1, 1], [0, 0], state([0, 0], [-Infinity, -Infinity]), 0)).toEqual({
      log: -Infinity,
      effective: NaN,
    });
    const cancelled = sumFeatures([1, -1], [0, 0], state([1, 2]), 0);
    expect(cancelled.log).toBeNaN();
    expect(Math.abs(cancelled.effective - 0.2)).toBeLessThan(1e-15);
  });
});

describe("figures of a run", () => {
  test("rows of zeros: every feature counts and the normaliser is exact", async () => {
    const zeros = { q: new Float64Array(12), k: new Float64Array(12), width: 3 };
    for (const features of ["positive", "hyperbolic"]) {
      const [head] = (await healthOf(zeros, { features, numFeatures: 32 })).heads;
      for (const part of ["p5", "median", "p95"] as const) {
        expect(Math.abs(head.effectiveFeatures![part] - 32)).toBeLessThan(1e-12);
      }
      expect(Math.abs(head.logNormaliserBias!)).toBeLessThan(1e-14);
      expect(head).toMatchObject({ phiBefore: 0, phi: 0, logVariance: 0, emptyRows: 0, nonPositive: 0 });
    }
  });

  test("one feature in one dimension, by hand: ln D̂ − xy = w(x + y) − (x + y)²/2, also with a scale and moved keys", async () => {
    const [w, S] = [0.8, 0.49];
    const given = { path: "w", matrices: 1, headDim: 1, data: Float64Array.of(w) };
    const [q, key] = [[0.3, -1.1], 1.7];
    const expected = (shift: number) => {
      const biases = q.map((x) => {
        const sum = Math.sqrt(S) * (x + key - shift);
        return w * sum - sum * sum / 2;
      });
      return (biases[0] + biases[1]) / 2;
    };
    const problem = { q: Float64Array.from(q), k: Float64Array.of(key), width: 1 };
    const [still] = (await healthOf(problem, { given, numFeatures: 1, scale: S })).heads;
    expect(Math.abs(still.logNormaliserBias! - expected(0))).toBeLessThan(1e-14);
    expect(still.effectiveFeatures!.median).toBe(1);
    const sums = q.map((x) => S * (x + key) ** 2);
    expect(Math.abs(still.phiBefore - (sums[0] + sums[1]) / 2)).toBeLessThan(1e-14);
    const fitting = { params: { kind: "file" }, centre: "on" } as const;
    const [moved] = (await healthOf(problem, { given, numFeatures: 1, scale: S, fitting })).heads;
    expect(Math.abs(moved.logNormaliserBias! - expected(key + (q[0] + q[1]) / 2))).toBeLessThan(1e-14); // g = ȳ + x̄
    expect(moved.phi!).toBeLessThan(still.phi!);
  });

  test.each(["positive", "hyperbolic", "trigonometric", "saderf", "hyp-aderf+sderf", "hyp-oprf"])(
    "with very many features the normaliser is softmax's: %s",
    async (features) => {
      const [width, m] = [4, 8192];
      const problem = { q: normals(1, 24 * width, 0.5), k: normals(2, 40 * width, 0.4), width };
      for (const fitting of [{ params: null, centre: "off" }, { params: null, centre: "auto" }] as const) {
        const [head] = (await healthOf(problem, { features, numFeatures: m, fitting })).heads;
        // D̂/Z is an average of ratios with relative variance (e^‖x ± y‖² − 1)/m or less; the largest of these pairs is below e^5.
        expect(Math.abs(head.logNormaliserBias!)).toBeLessThan(4 * Math.sqrt(Math.exp(5) / m));
        expect(Math.abs(head.logNormaliserBias!)).toBeLessThan(0.05); // most pairs are far smaller
      }
    },
  );

  test("large rows: few features count and the typical normaliser is too small", async () => {
    const problem = { q: normals(1, 300 * 16, 1.6), k: normals(2, 300 * 16, 1.6), width: 16 };
    const { heads: [head] } = await healthOf(problem, { numFeatures: 256 });
    expect(head.effectiveFeatures!.median).toBeLessThan(10);
    expect(head.effectiveFeatures!.p5).toBeLessThanOrEqual(head.effectiveFeatures!.median);
    expect(head.logNormaliserBias!).toBeLessThan(-1);
    expect(head.phi!).toBeGreaterThan(50);
  });

  test("a causal row has the figures of its own keys alone, whatever the tiles and the mask", async () => {
    const [width, L] = [3, 50];
    const [q, k, v] = [normals(1, L * 2 * width), normals(2, L * width), normals(3, L * width)];
    const weights = Float64Array.from({ length: L }, (_, i) => [1, 0, 2.5][i % 3]);
    for (const row of [0, 7, 31, 49]) {
      const shape = { heads: 2, kvHeads: 1, width, sampled: [row], tileRows: 8 };
      const causal = await healthOf({ q, k, v, weights, ...shape }, { causal: true });
      const cut = (data: Float64Array, cols: number) => data.slice(0, (row + 1) * cols);
      const alone = {
        q: q.slice(row * 2 * width, (row + 1) * 2 * width),
        k: cut(k, width),
        v: cut(v, width),
        weights: cut(weights, 1),
      };
      const prefix = await healthOf({ ...alone, ...shape, sampled: [0] });
      for (const tileRows of [1, 64]) {
        const other = await healthOf({ q, k, v, weights, ...shape, tileRows }, { causal: true });
        expectClose(other.heads, causal.heads);
      }
      expectClose(causal.heads, prefix.heads);
    }
  });

  /** Sums of the same terms in another order: 50 numbers of order 1. */
  function expectClose(some: readonly HeadHealth[], others: readonly HeadHealth[]): void {
    some.forEach((head, h) => {
      const other = others[h];
      expect(Math.abs(head.effectiveFeatures!.median / other.effectiveFeatures!.median - 1)).toBeLessThan(1e-12);
      expect(Math.abs(head.logNormaliserBias! - other.logNormaliserBias!)).toBeLessThan(1e-12);
      expect(Math.abs(head.relativeL2 - other.relativeL2)).toBeLessThan(1e-12);
    });
  }

  test("signed features: the share of denominators ≤ 0 in the sample is the run's own where all rows are sampled", async () => {
    const problem = { q: normals(1, 200 * 8, 1.5), k: normals(2, 60 * 8, 1.5), width: 8 };
    const report = await healthOf(problem, { features: "trigonometric", numFeatures: 16 });
    expect(report.nonPositive).toBeGreaterThan(0.05);
    expect(report.heads[0].nonPositive).toBe(report.nonPositive);
    expect(report.heads[0].summary).toContain("denominators are ≤ 0");
  });

  test("rows that see no key", async () => {
    const weights = Float64Array.from({ length: 8 }, (_, i) => i < 4 ? 0 : 1);
    const problem = { q: normals(1, 16), k: normals(2, 16), weights, width: 2 };
    const { emptyRows, heads: [half] } = await healthOf(problem, { causal: true });
    expect([emptyRows, half.emptyRows]).toEqual([0.5, 0.5]);
    const { heads: [none] } = await healthOf({ ...problem, weights: new Float64Array(8) });
    expect(none).toMatchObject({ emptyRows: 1, verdict: "empty", advice: "check the mask", effectiveFeatures: null });
  });

  test("a kernel of its own has no bias, near-and-far attention no features", async () => {
    const problem = { q: normals(1, 300 * 8), k: normals(2, 300 * 8), width: 8 };
    const { heads: [own] } = await healthOf(problem, { features: "relu" });
    expect(own).toMatchObject({ verdict: "own", logNormaliserBias: null, phi: null, logVariance: null });
    expect(own.effectiveFeatures!.median).toBeGreaterThan(1);
    const nearFar = { window: 16, heavy: 0, far: "taylor1", clusters: 0, top: 0 } as const;
    const near = await healthOf(problem, { features: "taylor1", nearFar, scale: 0.1 });
    expect(near.featureRows).toBe(0);
    expect(near.heads[0]).toMatchObject({ effectiveFeatures: null, logNormaliserBias: null, nonPositive: null });
    expect(Math.abs(near.heads[0].phiBefore / (0.1 * 2 * 8) - 1)).toBeLessThan(0.1); // S (mean‖q‖² + mean‖k‖²)
    expect(near.heads[0].skill).toBeGreaterThan(0);
  });
});

describe("verdicts and advice", () => {
  const figures = (changes: Partial<HeadFigures> = {}): HeadFigures => ({
    head: 0,
    phiBefore: 2,
    phi: 1,
    logVariance: 1,
    effectiveFeatures: { p5: 50, median: 100, p95: 150 },
    logNormaliserBias: 0,
    emptyRows: 0,
    nonPositive: 0,
    relativeL2: 0.2,
    uniformBaseline: 1,
    skill: 0.96,
    ...changes,
  });
  const context = { sizes: { keyRows: 1e6 }, layered: false, chosen: false, centred: true, predict: () => 10 };
  const attention = { ...ATTENTION, features: "hyperbolic", numFeatures: 256 };
  const judge = (changes: Partial<HeadFigures>, also: Partial<Parameters<typeof adviseHead>[1]> = {}) =>
    adviseHead(figures(changes), { attention, ...context, ...also });

  test("the verdict follows the skill, but not where there is nothing to be skilful about", () => {
    expect(judge({ skill: 0.984 })).toEqual({ verdict: "good", summary: "good: captures 98 %", advice: null });
    expect(judge({ skill: 0.99999 }).summary).toBe("good: captures > 99.99 %");
    expect(judge({ skill: 1 }).summary).toBe("good: captures 100.00 %");
    expect(judge({ skill: 0.7 }).verdict).toBe("fair");
    expect(judge({ skill: 0.2 }).verdict).toBe("poor");
    expect(judge({ skill: 0 }).verdict).toBe("no-skill");
    expect(judge({ skill: -3, relativeL2: 0.004 })).toMatchObject({ verdict: "good", advice: null });
  });

  test("sizes beyond features: near keys or trials, and no more features", () => {
    const { summary, advice } = judge({ skill: 0.3, phi: 27, logVariance: 26 });
    expect(summary).toBe("poor: captures 30 %; φ̄ = 27 after centring, random features need about 4 or less");
    expect(advice).toBe("use --window 64 --heavy 64 --far taylor1 or --features auto");
    expect(judge({ skill: 0.3, phi: 27, logVariance: 26 }, { centred: false }).summary).toContain("φ̄ = 27, random");
    const layer = judge({ skill: 0.3, phi: 27, logVariance: 26 }, { layered: true }); // which takes no near keys
    expect(layer.advice).toBe("use more features (-m 1024)");
    expect(judge({ skill: 0.3, phi: 27 }, { chosen: true }).advice).not.toContain("auto");
  });

  test("moderate sizes: as many features as the squared error asks for, unless that is too many", () => {
    expect(judge({ skill: 0.8 }).advice).toStartWith("use -m 512, "); // twice
    expect(judge({ skill: 0.3 }).advice).toStartWith("use -m 2048, "); // 7 times, a power of two
    expect(judge({ skill: -5 }).advice).not.toContain("-m "); // 60 times
    expect(judge({ skill: 0.3 }, { sizes: { keyRows: 1000 } }).advice).not.toContain("-m "); // exact is cheaper
    expect(judge({ skill: 0.3 }, { sizes: { keyRows: 1000 } }).advice).toContain("--features softmax");
  });

  test("a fit that helps is offered with what it gives, and only then", () => {
    const predict = (features: string) => features === "hyperbolic" ? 2.5 : 1.5;
    const wish = { centred: false, predict };
    const { advice } = judge({ skill: 0.3, phi: 6, logVariance: 6 }, wish);
    expect(advice).toContain("--centre on (Σ H 2.5 instead of 6), --features hyp-aderf+sderf (Σ H 1.5 instead of 6)");
    const causal = judge({ skill: 0.3, phi: 6, logVariance: 6 }, {
      ...wish,
      attention: { ...attention, causal: true },
    });
    expect(causal.advice).toContain("--features hyp-aderf+sderf --centre on (Σ H 1.5");
    expect(judge({ skill: 0.3, phi: 1.7, logVariance: 1.7 }, wish).advice).not.toContain("Σ H");
    const compat = { ...attention, compat: "google" } as const;
    const layer = judge({ skill: 0.3, phi: 6, logVariance: 6 }, { ...wish, attention: compat, layered: true });
    expect(layer.advice).toBe("use --features hyp-aderf+sderf --centre on (Σ H 1.5 instead of 6)");
    expect(judge({ skill: 0.3, phi: 6, logVariance: 6 }, { ...wish, attention: compat }).advice).toBe(
      "use --compat exact",
    );
  });

  test("few features are named as a cause, and as a risk where all went well", () => {
    const few = { effectiveFeatures: { p5: 1, median: 3.4, p95: 9 } };
    expect(judge({ ...few, skill: 0.3 }).summary).toContain("3.4 of 256 features count in the median row");
    expect(judge(few).advice).toContain("--redraws 5");
    const small = { attention: { ...attention, numFeatures: 8 } };
    expect(judge({ ...few, skill: 0.95 }, small).advice).toBeNull(); // 3.4 of 8 are not few
  });

  test("near-and-far attention: more near keys and a better field", () => {
    const nearFar = { window: 64, heavy: 8, far: "taylor1", clusters: 0, top: 0 } as const;
    const { advice, verdict } = judge({ skill: 0.3, phi: null, logVariance: null, effectiveFeatures: null }, {
      attention: { ...attention, features: "taylor1", nearFar },
      predict: null,
    });
    expect(verdict).toBe("poor");
    expect(advice).toBe("use a wider window (--window 128), --heavy 64 or --far clusters:128");
  });
});
