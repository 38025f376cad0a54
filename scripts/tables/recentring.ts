/**
 * `bun scripts/tables/recentring.ts`: what moving the keys is worth to random features. Relative error of the output with keys where they
 * are and moved, d = 32, r = 256, L = 512, block-orthogonal projections, 20 trials of fresh data and projection (own result, not in a
 * paper).
 *
 * The data were published only as "anisotropic, with means". Three of the ten published numbers recover them: opposite geometric spreads
 * (`anisotropicData`) with sd 0.33, by aderf with keys moved (0.064), which sees nothing else; ratio 5.5, by positive features with keys
 * moved (0.86); means N(0, 0.4²), by aderf with keys where they are (0.175). The other seven numbers are predictions.
 * Quotients are taken in each trial, the published ones are of the two means.
 */
import {
  anisotropicData,
  judgeTrials,
  type Measured,
  parsePublished,
  show,
  type Table,
  TableBuilder,
  Trials,
} from "./harness.ts";

const [LENGTH, HEAD_DIM, VALUE_DIM, FEATURES, TRIALS] = [512, 32, 16, 256, 20];
/** The published numbers are means of 10 to 20 trials; of so many it is not said. */
const PUBLISHED_TRIALS = 10;
const DATA = { sd: 0.33, ratio: 5.5, means: 0.4 };
/** Map; published error with keys where they are, moved, and the quotient of the two. † was used to recover the data. */
const PUBLISHED = [
  ["positive", "1.03", "0.86†", "1.2"],
  ["oprf", "1.06", "0.68", "1.6"],
  ["sderf", "0.73", "0.57", "1.3"],
  ["aderf", "0.175†", "0.064†", "2.7"],
  ["aderf+sderf", "0.102", "0.063", "1.6"],
] as const;

export async function table(trials = TRIALS): Promise<Table> {
  await using measured = await Trials.open();
  const found = PUBLISHED.map(() => ({ off: [] as Measured[], on: [] as Measured[] }));
  for (let seed = 0; seed < trials; seed++) {
    const inputs = anisotropicData({ ...DATA, length: LENGTH, headDim: HEAD_DIM, valueDim: VALUE_DIM, seed });
    for (const [i, [features]] of PUBLISHED.entries()) {
      for (const centre of ["off", "on"] as const) {
        const trial = { features, numFeatures: FEATURES, projection: "orthogonal", seed, centre };
        const { relativeL2, nonPositive } = await measured.error(inputs, trial, LENGTH);
        found[i][centre].push({ value: relativeL2, nonPositive });
      }
    }
  }
  const built = new TableBuilder(
    `Relative error of the output, mean of ${trials} trials ± their standard deviation, median (published)`,
    ["map", "keys where they are", "keys moved", "quotient in a trial"],
  );
  for (const [i, [features, ...published]] of PUBLISHED.entries()) {
    const { off, on } = found[i];
    const quotients = off.map(({ value }, n) => ({ value: value / on[n].value, nonPositive: 0 }));
    const cells = [off, on, quotients].map((values, n) => {
      return judgeTrials(values, parsePublished(published[n], PUBLISHED_TRIALS));
    });
    built.add(features, cells);
  }
  built.notes.push("† recovered the data.");
  return built.done();
}

if (import.meta.main) show(await table());
