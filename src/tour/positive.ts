/** Step 4: positive features. */
import { drawChart, type Point } from "../plots/chart.ts";
import { toneAt } from "../plots/style.ts";
import { mean } from "../statistics.ts";
import { figure } from "../words.ts";
import { breathe, drawW, gaussianHead, Kernel, Lab, mapOver, relativeError } from "./lab.ts";
import { CHART_LINES, say } from "./page.ts";
import type { TourStep, TourWorld } from "./step.ts";
import { destroyedBy, FEATURES, ROWS } from "./trigonometric.ts";

const WIDTH = 16;
const SWEEP = { count: 64, length: 1, draws: 300 };
/** Angles between x and y, in degrees; at 0 and 180 one of both maps has no error at all. */
const ANGLES = [10, 30, 50, 70, 90, 110, 130, 150, 170];
const CALM = { rows: 256, width: WIDTH, sd: 0.5, seed: 1 };

/** Root of the mean squared error over exp(x·y), of many draws, per angle. */
async function sweep(world: TourWorld, features: string): Promise<Point[]> {
  const { count, length, draws } = SWEEP;
  const squares = ANGLES.map(() => new Float64Array(draws));
  const x = new Float64Array(WIDTH), y = new Float64Array(WIDTH);
  x[0] = length;
  for (let draw = 0; draw < draws; draw++) {
    if (draw % 50 === 0) await breathe(world);
    const kernel = Kernel.of(features, WIDTH, drawW(WIDTH, { features, count, projection: "iid", seed: 4, draw }));
    for (const [i, angle] of ANGLES.entries()) {
      const radians = angle * Math.PI / 180;
      [y[0], y[1]] = [length * Math.cos(radians), length * Math.sin(radians)];
      squares[i][draw] = (kernel.estimate(x, y) / Math.exp(x[0] * y[0]) - 1) ** 2;
    }
  }
  return ANGLES.map((angle, i) => [angle, Math.sqrt(mean(squares[i]))]);
}

/** Error of positive features with the right h, and with keys that lack it. */
async function withoutH(world: TourWorld): Promise<{ right: number; lacking: number }> {
  const head = gaussianHead(CALM);
  await using lab = await Lab.open();
  const { outputs } = await lab.softmax(head);
  await breathe(world);
  const parameters = mapOver(head, { features: "positive", count: FEATURES, projection: "iid", seed: 1 });
  // A weight of exp(‖y‖²/2) takes a key's h away again.
  const keyWeights = Float64Array.from({ length: head.rows }, (_, j) => {
    const y = head.k.subarray(j * WIDTH, (j + 1) * WIDTH);
    return Math.exp(y.reduce((sum, value) => sum + value * value, 0) / Math.sqrt(WIDTH) / 2);
  });
  return {
    right: relativeError(await lab.linear(head, parameters), outputs),
    lacking: relativeError(await lab.linear(head, parameters, { keyWeights }), outputs),
  };
}

export const positive: TourStep = {
  title: "Positive features",
  text:
    `The paper's answer is exponentials instead of cosines. For w ~ N(0, I) the mean of exp(w·z) is exp(‖z‖²/2); with z = x + y

    exp(x·y) = mean of  exp(w·x − ‖x‖²/2) · exp(w·y − ‖y‖²/2)

so f = exp and h(x) = exp(−‖x‖²/2) are right on average too (Lemma 1). All features are positive, so no sum is 0 or less and every output \
is an average of values; and where a weight is tiny, so is its error. Below, both maps for x and y of length ${SWEEP.length} (d = ${WIDTH}, \
r = ${SWEEP.count}, ${SWEEP.draws} draws).`,
  async run(world) {
    const trig = await sweep(world, "trigonometric");
    const positive = await sweep(world, "positive");
    world.print(drawChart({
      height: CHART_LINES,
      title: "Error of one weight against the angle between x and y",
      x: { label: "angle in degrees", scale: "linear", ticks: ANGLES, tight: true },
      y: { label: "root mean squared error / exp(x·y)", scale: "log" },
      series: [
        { label: "trigonometric", sign: "A", tone: toneAt(0), points: trig, joined: true },
        { label: "positive", sign: "B", tone: toneAt(1), points: positive, joined: true },
      ],
    }, world.style));
    const ratio = (angle: number) => {
      const i = ANGLES.indexOf(angle);
      return figure((trig[i][1] / positive[i][1]) ** 2);
    };
    say(
      world,
      `Mean squared error of trigonometric over positive features: ${ratio(10)} at 10°, ${ratio(90)} at 90°, ${
        ratio(170)
      } at 170°.`,
    );
    const rows = await destroyedBy(world, gaussianHead(ROWS), {
      features: "positive",
      count: FEATURES,
      projection: "iid",
      seed: 1,
    });
    say(
      world,
      `The rows of step 3: ${rows.nonPositive} sums of 0 or less, ${rows.tenfold} off tenfold, error ${
        figure(rows.error)
      }. ` +
        (rows.error < rows.uniform
          ? `The mean of V has ${figure(rows.uniform)}.`
          : `The mean of V, with ${figure(rows.uniform)}, is better still: the next step says why.`),
    );
    const { right, lacking } = await withoutH(world);
    say(world, `On rows half as large the error is ${figure(right)}, and ${figure(lacking)} when the keys lack h.`);
  },
  questions: [
    {
      ask: "What is h(x) for?",
      answer:
        "The mean of exp(w·x) exp(w·y) is exp(x·y) exp(‖x‖²/2) exp(‖y‖²/2); h takes the last two out. A query's h cancels in its " +
        "row, a key's does not: without it long keys count too much.",
    },
    {
      ask: "Why does the MSE ratio go to 0 near equal inputs?",
      answer:
        "At x = y trigonometric features are exact, as sin² + cos² = 1 whatever w is; positive ones are so at y = −x. The ratio " +
        "says nothing of how much such weights matter, and most weights of attention are small ones.",
    },
  ],
};
