/** Step 6: orthogonal projections. */
import { type Coupling, relativeKernelError } from "../closed_forms.ts";
import { drawRows } from "../plots/rows.ts";
import { logInterval } from "../statistics.ts";
import { count, figure } from "../words.ts";
import { breathe, drawW, gaussianHead, Kernel, Lab, mapOver, relativeError } from "./lab.ts";
import { say, table } from "./page.ts";
import type { TourStep, TourWorld } from "./step.ts";

/** One full block: m = d. */
const WIDTH = 16;
const DRAWS = 4000;
/** s = ‖x + y‖². */
const SQUARES = [0.25, 0.5, 1, 2];
const MAPS = ["positive", "hyperbolic"] as const;
const ROWS = { rows: 256, width: WIDTH, sd: 0.4, seed: 1 };
const OUTPUT = { features: "hyperbolic", count: 64, draws: 12 };

/** Mean squared relative error of many draws, by map and s. */
async function errors(world: TourWorld, projection: "orthogonal" | "iid"): Promise<Record<string, number[]>> {
  const sums = { positive: SQUARES.map(() => 0), hyperbolic: SQUARES.map(() => 0) };
  const x = new Float64Array(WIDTH);
  for (let draw = 0; draw < DRAWS; draw++) {
    if (draw % 100 === 0) await breathe(world);
    const W = drawW(WIDTH, { features: "positive", count: WIDTH, projection, seed: 6, draw });
    for (const features of MAPS) {
      const kernel = Kernel.of(features, WIDTH, W);
      for (const [i, s] of SQUARES.entries()) {
        x[0] = Math.sqrt(s) / 2;
        sums[features][i] += (kernel.estimate(x, x) / Math.exp(s / 4) - 1) ** 2 / DRAWS;
      }
    }
  }
  return sums;
}

/** Error of outputs over draws, geometric mean. */
async function outputError(world: TourWorld, projection: "orthogonal" | "iid"): Promise<number> {
  const head = gaussianHead(ROWS);
  await using lab = await Lab.open();
  const { outputs } = await lab.softmax(head);
  const samples: number[] = [];
  for (let draw = 0; draw < OUTPUT.draws; draw++) {
    await breathe(world);
    samples.push(
      relativeError(await lab.linear(head, mapOver(head, { ...OUTPUT, projection, seed: 6, draw })), outputs),
    );
  }
  return logInterval(samples).value;
}

export const orthogonal: TourStep = {
  title: "Orthogonal projections",
  text:
    `Independent w now and then point the same way, and then say the same thing twice. The paper makes them orthogonal: the \
directions of d of them are the rows of a random rotation, their lengths are drawn like those of normal vectors.

    every w_a ~ N(0, I) still,   but  w_a·w_b = 0 within a block of d

So each term has the mean it had, and the estimate stays right on average; but when one term of a block is too large others tend to be too \
small, and errors cancel in part. For m > d there are several independent blocks. Theorem 2: this lowers the mean squared error of positive \
features for every d (m ≤ d); for trigonometric ones it was known for large d only. How much depends on s again. Measured for d = m = \
${WIDTH} over ${count(DRAWS)} draws:`,
  async run(world) {
    const apart = await errors(world, "iid");
    const together = await errors(world, "orthogonal");
    const exact = (map: typeof MAPS[number], coupling: Coupling, s: number) => {
      return relativeKernelError({ map, coupling, headDim: WIDTH, projections: WIDTH }, { s, delta: 0 });
    };
    const measured = (map: typeof MAPS[number], i: number) => together[map][i] / apart[map][i];
    world.print(drawRows({
      title: "Mean squared error of orthogonal over independent w, hyperbolic features",
      axis: { label: "ratio", scale: "linear" },
      bare: true,
      rows: SQUARES.map((s, i) => ({ label: `s = ${s}`, value: measured("hyperbolic", i), tone: "cyan" })),
      rules: [{ at: 1, label: "1: no gain" }],
    }, world.style));
    table(
      world,
      ["ratio at s =", ...SQUARES.map(String)],
      MAPS.flatMap((map) => [
        [`${map}, measured`, ...SQUARES.map((_, i) => measured(map, i).toFixed(2))],
        [`${map}, formula`, ...SQUARES.map((s) => (exact(map, "orthogonal", s) / exact(map, "iid", s)).toFixed(2))],
      ]),
    );
    const [iid, orth] = [await outputError(world, "iid"), await outputError(world, "orthogonal")];
    say(
      world,
      `At s = ${SQUARES[0]} orthogonal w leave ${
        figure(100 * measured("hyperbolic", 0))
      } % of the squared error of hyperbolic ` +
        `features, at s = ${SQUARES[SQUARES.length - 1]} ${
          figure(100 * measured("hyperbolic", SQUARES.length - 1))
        } %. Whole outputs of ${ROWS.rows} rows, r = ${OUTPUT.count}, ` +
        `${OUTPUT.draws} draws: error ${figure(iid)} with independent and ${figure(orth)} with orthogonal w.`,
    );
  },
  tryIt: [
    "x = randn(2048, 64, 1) * 0.5",
    "compare x --heads 4 -m 64 --features positive,hyperbolic --projection iid,orthogonal,sobol",
  ],
};
