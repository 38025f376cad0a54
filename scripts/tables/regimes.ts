/**
 * `bun scripts/tables/regimes.ts`: when random features help. Relative error of the output for structureless data, N(0, σ²) entries of
 * queries and keys, L = 1024, values 16 wide, 10 trials of fresh data and projection; "uniform" answers with the mean of V.
 */
import { gaussianData, hasMap, judgeTrials, type Measured, show, type Table, TableBuilder, Trials } from "./harness.ts";

const [LENGTH, VALUE_DIM, TRIALS] = [1024, 16, 10];
/** Name of the column, map, projection. */
const COLUMNS = [
  ["iid positive", "positive", "iid"],
  ["positive", "positive", "orthogonal"],
  ["hyperbolic", "hyperbolic", "orthogonal"],
  ["trigonometric", "trigonometric", "orthogonal"],
  ["oprf", "oprf", "orthogonal"],
  ["hyp-oprf", "hyp-oprf", "orthogonal"],
  ["taylor2", "taylor2", "orthogonal"],
] as const;
/** d, r, σ; uniform; then the columns. */
const PUBLISHED = [
  [16, 128, 0.25, ".066", ".060", ".045", ".021", ".014", ".041", ".014", ".0002"],
  [16, 128, 0.5, ".258", ".260", ".216", ".202", ".130", ".160", ".129", ".012"],
  [16, 128, 0.7, ".478", ".821", ".658", ".704", "1.16", ".502", ".484", ".080"],
  [16, 128, 1, ".810", "1.87", "1.50", "1.67", "1069", "1.57", "1.56", ".433"],
  [64, 256, 0.25, ".068", ".070", ".057", ".027", ".021", ".054", ".021", ".0002"],
  [64, 256, 0.5, ".261", ".492", ".435", ".429", ".410", ".380", ".356", ".011"],
  [64, 256, 1, ".793", "4.11", "3.79", "3.90", "1914", "4.27", "4.26", ".385"],
] as const;

export async function table(trials = TRIALS): Promise<Table> {
  await using measured = await Trials.open();
  const columns = COLUMNS.map(([name, map, projection], i) => ({ name, map, projection, at: i + 1 }));
  const shown = columns.filter(({ map }) => hasMap(map));
  const built = new TableBuilder(
    `Relative error of the output, mean of ${trials} trials ± their standard deviation, median (published mean of 10)`,
    ["d, r, σ", "mean ‖x+y‖²", "uniform", ...shown.map(({ name }) => name)],
  );
  for (const [headDim, numFeatures, sd, ...published] of PUBLISHED) {
    const found = new Map(shown.map(({ name }) => [name, [] as Measured[]]));
    const uniform: Measured[] = [];
    let phi = 0;
    for (let seed = 0; seed < trials; seed++) {
      const inputs = gaussianData({ length: LENGTH, headDim, valueDim: VALUE_DIM, sd, seed });
      for (const { name, map, projection } of shown) {
        const error = await measured.error(inputs, { features: map, numFeatures, projection, seed }, LENGTH);
        found.get(name)!.push({ value: error.relativeL2, nonPositive: error.nonPositive });
        if (name === shown[0].name) {
          uniform.push({ value: error.uniform, nonPositive: 0 });
          phi += error.phi / trials;
        }
      }
    }
    const verdict = (values: readonly Measured[], at: number) =>
      judgeTrials(values, { text: published[at], trials: 10 });
    built.add(`${headDim}, ${numFeatures}, ${sd}`, [
      phi.toFixed(1),
      verdict(uniform, 0),
      ...shown.map(({ name, at }) => verdict(found.get(name)!, at)),
    ]);
  }
  const absent = columns.filter(({ map }) => !hasMap(map)).map(({ name }) => name);
  if (absent.length > 0) built.notes.push(`Without columns of maps that this version has not: ${absent.join(", ")}.`);
  return built.done();
}

if (import.meta.main) show(await table());
