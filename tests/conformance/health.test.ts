/** Health per head is the same on every backend: it is worked out from the sums that a backend made of all keys. */
import { expect, test } from "bun:test";
import type { Attention } from "../../src/attention.ts";
import { UnsupportedError } from "../../src/errors.ts";
import { healthOf, normals } from "../health_runs.ts";
import { describeBackends } from "./backends.ts";

const AUTO = { params: null, centre: "auto" } as const;
const CASES: readonly (Partial<Attention> & { readonly features: string })[] = [
  { features: "positive" },
  { features: "hyperbolic", fitting: AUTO },
  { features: "hyperbolic", causal: true },
  { features: "hyperbolic", projection: "hadamard" },
  { features: "trigonometric", fitting: AUTO },
  { features: "hyp-aderf+sderf", fitting: AUTO },
  { features: "saderf", causal: true, fitting: AUTO },
  { features: "cosformer" },
  { features: "relu", causal: true },
];

describeBackends("health", (backend, slow) => {
  for (const wish of slow ? CASES.slice(1, 3) : CASES) {
    const { features, causal = false, projection = "orthogonal" } = wish;
    test(`${features}, ${projection}${causal ? ", causal" : ""}: as on scalar`, async () => {
      const [width, L] = [6, 90];
      const problem = {
        q: normals(1, L * 4 * width, 0.7).map(Math.fround),
        k: normals(2, L * 2 * width, 0.7).map(Math.fround),
        weights: Float64Array.from({ length: L }, (_, i) => [1, 0, 2.5, 0.25][i % 4]),
        heads: 4,
        kvHeads: 2,
        width,
        tileRows: 32,
      };
      const settings = { ...wish, projection, numFeatures: 16, scale: null };
      const expected = await healthOf(problem, settings);
      const found = await healthOf(problem, settings, backend).catch((error) => {
        if (error instanceof UnsupportedError) return null;
        throw error;
      });
      if (!found) return;
      found.heads.forEach((head, h) => {
        const truth = expected.heads[h];
        // Float32 sums of at most 32 features in float64: exponents of size below 10 are off by 2⁻²⁴ of that, and by 6 terms of W x.
        const near = (a: number | null, b: number | null) => {
          expect(a === null).toBe(b === null);
          if (a !== null && b !== null) expect(Math.abs(a - b)).toBeLessThan(2e-5 * (1 + Math.abs(b)));
        };
        near(head.logNormaliserBias, truth.logNormaliserBias);
        for (const part of ["p5", "median", "p95"] as const) {
          near(head.effectiveFeatures![part], truth.effectiveFeatures![part]);
        }
        for (const part of ["phiBefore", "phi", "logVariance", "relativeL2", "nonPositive", "emptyRows"] as const) {
          near(head[part], truth[part]);
        }
        expect(head.verdict).toBe(truth.verdict);
      });
    });
  }
});
