/**
 * `bun scripts/tables/output_error.ts`: mean squared error of the attention output against the number of features, the two panels of
 * arXiv 2009.14794 Fig. 4: L = 4096, d = 16, 15 trials. The paper does not say how large its queries and keys are, and the panels need
 * different ones: "orthogonal beats iid" small norms (σ = 0.5), "positive beats trigonometric" large ones (σ = 1).
 */
import { gaussianData, hasMap, judgeTrials, type Measured, show, type Table, TableBuilder, Trials } from "./harness.ts";

const [LENGTH, HEAD_DIM, VALUE_DIM, TRIALS] = [4096, 16, 16, 15];
/** Query rows compared: a simple random sample, whose share of the spread is small beside that of the projection. */
const CHECKED = 512;
const COLUMNS = [
  ["iid positive", "positive", "iid"],
  ["orthogonal positive", "positive", "orthogonal"],
  ["orthogonal hyperbolic", "hyperbolic", "orthogonal"],
  ["iid trigonometric", "trigonometric", "iid"],
  ["orthogonal trigonometric", "trigonometric", "orthogonal"],
  ["iid oprf", "oprf", "iid"],
  ["orthogonal oprf", "oprf", "orthogonal"],
] as const;
/** σ, r; then the columns. At σ = 1 only orders of magnitude were published: nothing is compared there. */
const PUBLISHED: readonly (readonly [sd: number, numFeatures: number, ...published: string[]])[] = [
  [0.5, 16, "6.2e-5", "5.3e-5", "5.0e-5", "2.1e-2", "1.9e-4", "5.6e-5", "4.8e-5"],
  [0.5, 64, "2.2e-5", "2.4e-5", "1.8e-5", "2.4e-5", "7.5e-6", "1.7e-5", "1.3e-5"],
  [0.5, 128, "1.5e-5", "1.2e-5", "9.8e-6", "9.9e-6", "3.7e-6", "9.0e-6", "6.4e-6"],
  [0.5, 256, "8.6e-6", "7.6e-6", "6.0e-6", "5.2e-6", "1.9e-6", "4.9e-6", "3.6e-6"],
  [1, 64],
  [1, 256],
];
const UNIFORM: Readonly<Record<number, string>> = { 0.5: "1.61e-5", 1: "4.7e-4" };

export async function table(trials = TRIALS): Promise<Table> {
  await using measured = await Trials.open();
  const columns = COLUMNS.map(([name, map, projection], at) => ({ name, map, projection, at }));
  const shown = columns.filter(({ map }) => hasMap(map));
  const built = new TableBuilder(
    `Mean squared error of the output, mean of ${trials} trials ± their standard deviation, median (published mean of 15)`,
    ["σ, r", "uniform", ...shown.map(({ name }) => name)],
  );
  for (const [sd, numFeatures, ...published] of PUBLISHED) {
    const found = new Map(shown.map(({ name }) => [name, [] as Measured[]]));
    const uniform: Measured[] = [];
    for (let seed = 0; seed < trials; seed++) {
      const inputs = gaussianData({ length: LENGTH, headDim: HEAD_DIM, valueDim: VALUE_DIM, sd, seed });
      for (const { name, map, projection } of shown) {
        const error = await measured.error(inputs, { features: map, numFeatures, projection, seed }, CHECKED);
        found.get(name)!.push({ value: error.mse, nonPositive: error.nonPositive });
        if (name !== shown[0].name) continue;
        uniform.push({ value: error.mse * (error.uniform / error.relativeL2) ** 2, nonPositive: 0 });
      }
    }
    built.add(`${sd}, ${numFeatures}`, [
      judgeTrials(uniform, { text: UNIFORM[sd], trials: 15 }),
      ...shown.map(({ name, at }) => {
        const values = found.get(name)!;
        return judgeTrials(values, published[at] ? { text: published[at], trials: 15 } : null);
      }),
    ]);
  }
  const absent = columns.filter(({ map }) => !hasMap(map)).map(({ name }) => name);
  if (absent.length > 0) built.notes.push(`Without columns of maps that this version has not: ${absent.join(", ")}.`);
  return built.done();
}

if (import.meta.main) show(await table());
