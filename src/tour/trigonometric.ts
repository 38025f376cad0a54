/** Step 3: random features, and why trigonometric ones fail. */
import { drawRows } from "../plots/rows.ts";
import { figure } from "../words.ts";
import {
  breathe,
  gaussianHead,
  type Head,
  Kernel,
  Lab,
  mapOver,
  type MapWish,
  meanOfValues,
  relativeError,
} from "./lab.ts";
import { say } from "./page.ts";
import type { TourStep, TourWorld } from "./step.ts";

/** The rows that steps 3 and 4 share: plain normal numbers, where exact attention is no plain mean any more. */
export const ROWS = { rows: 512, width: 16, sd: 1, seed: 1 };
export const FEATURES = 256;

/** What becomes of the rows of a head under a feature map. */
export interface Destroyed {
  /** Estimated over true Σ_j exp(x_i·y_j), per row. */
  readonly ratios: Float64Array;
  readonly nonPositive: number;
  /** Above 0, and more than ten times too large or too small. */
  readonly tenfold: number;
  /** Relative L2 of the outputs, of all rows and of those that are neither of the above; of the mean of V. */
  readonly error: number;
  readonly errorOfOthers: number;
  readonly uniform: number;
}

/** Runs a map over a head, and counts the rows that it destroys. */
export async function destroyedBy(world: TourWorld, head: Head, wish: MapWish): Promise<Destroyed> {
  await using lab = await Lab.open();
  const { outputs, logSums } = await lab.softmax(head);
  await breathe(world);
  const parameters = mapOver(head, wish);
  const approx = await lab.linear(head, parameters);
  await breathe(world);
  const ratios = new Kernel(parameters).sums(head).map((sum, i) => sum / Math.exp(logSums[i]));
  const wrong = (ratio: number) => !(ratio >= 0.1 && ratio <= 10);
  const kept = (_: number, at: number) => !wrong(ratios[Math.floor(at / head.width)]);
  return {
    ratios,
    nonPositive: ratios.filter((ratio) => !(ratio > 0)).length,
    tenfold: ratios.filter((ratio) => ratio > 0 && wrong(ratio)).length,
    error: relativeError(approx, outputs),
    errorOfOthers: relativeError(approx.filter(kept), outputs.filter(kept)),
    uniform: relativeError(meanOfValues(head), outputs),
  };
}

const BANDS: readonly (readonly [label: string, from: number, to: number])[] = [
  ["0 or less", -Infinity, 0],
  ["0 to 0.1", 0, 0.1],
  ["0.1 to 0.5", 0.1, 0.5],
  ["0.5 to 0.9", 0.5, 0.9],
  ["0.9 to 1.1", 0.9, 1.1],
  ["1.1 to 2", 1.1, 2],
  ["2 to 10", 2, 10],
  ["above 10", 10, Infinity],
];

export const trigonometric: TourStep = {
  title: "Random features, and why trigonometric ones fail",
  text: `Draw m random vectors w ~ N(0, I), and make features of the projections w·x:

    φ(x) = h(x)/√m ( f_1(w_1·x) … f_1(w_m·x), f_2(w_1·x) … f_2(w_m·x), … )

The classic choice is sin and cos, as the mean of cos(w·(x − y)) over w is exp(−‖x − y‖²/2). With h(x) = exp(‖x‖²/2) the estimate \
φ(x)·φ(y) of exp(x·y) is then right on average. But cosines have both signs. Most weights of attention are nearly 0, and a weight near 0 is \
here what is left when terms as large as h(x) h(y) cancel, which they do to a part in √m only. Now and then the sum over all keys, by which \
a row is divided, comes out near 0 or below it. Such a row is destroyed: no average of values any more, but anything. Below: these sums for \
${ROWS.rows} rows of N(0, 1) numbers, d = ${ROWS.width}, r = ${FEATURES}, as parts of the true ones.`,
  async run(world) {
    const found = await destroyedBy(world, gaussianHead(ROWS), {
      features: "trigonometric",
      count: FEATURES,
      projection: "iid",
      seed: 1,
    });
    const counts = BANDS.map(([, from, to]) => {
      return found.ratios.filter((ratio) =>
        (from === 0 ? ratio > 0 : ratio > from || from === -Infinity) && ratio <= to
      ).length;
    });
    world.print(drawRows({
      title: "Rows by estimated / true sum of weights (1 is right)",
      axis: { label: "rows", scale: "linear" },
      bare: true,
      rows: BANDS.map(([label, from, to], i) => {
        const destroyed = to <= 0.1 || from >= 10;
        return { label, value: counts[i], tone: destroyed ? "red" as const : "cyan" as const };
      }),
    }, world.style));
    say(
      world,
      `${found.nonPositive} rows are divided by 0 or less, ${found.tenfold} by more than ten times too much or too little. Relative L2 ` +
        `error of the outputs: ${figure(found.error)}. Without those rows it is ${
          figure(found.errorOfOthers)
        }, and answering with the ` +
        `mean of all values, which ignores attention, has ${figure(found.uniform)}.`,
    );
  },
  tryIt: ["x = randn(512, 16, 1)", "attend x --features trigonometric -m 256"],
};
