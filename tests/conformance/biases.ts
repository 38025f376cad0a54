/** The law of exponents per projection and matrix, for keys alone and for causal rows. */
import { expect } from "bun:test";
import { featureMap } from "../../src/feature_map.ts";
import type { Precision } from "../../src/tensor.ts";
import { dense, expectNear } from "./dense.ts";
import { makeProblem, type Problem, type Sizes } from "./harness.ts";

/** Biases of standard deviation 2, for two matrices, one, and Hadamard rows; `near` runs a problem and compares it with its dense evaluation. */
export async function checkBiases(
  shape: Sizes & { readonly map: string },
  near: (problem: Problem, tileRows?: number) => Promise<void>,
  tileRows: number,
  precision: Precision,
): Promise<void> {
  const sizes = { ...shape, beta: 2, weighted: true };
  // 44 projections: three panels of a wasm plan, the last one part filled, which causal passes deal out to threads.
  const features = 44 * featureMap(shape.map).featuresPerProjection;
  const problem = makeProblem({ ...sizes, features, heads: 4, kvHeads: 2, matrices: 2 });
  await near(problem, tileRows);
  await near(makeProblem({ ...sizes, features: 6, heads: 1 }));
  await near(makeProblem({ ...sizes, features: 22, heads: 3, projection: "hadamard", headDim: 16 }));
  // What a backend would give that took the first projection's exponent for all, or the first matrix's, is far off.
  const { parameters } = problem;
  const { projections: m, bias } = parameters;
  const out = dense(problem);
  for (const wrong of [bias.map(() => bias[0]), bias.map((_, a) => bias[a % m])]) {
    const other = dense({ ...problem, parameters: { ...parameters, bias: wrong } });
    expect(() => expectNear(other.out, out, precision)).toThrow();
  }
}
