/** Step 5: what the variance depends on, and hyperbolic features. */
import { relativeKernelError } from "../closed_forms.ts";
import { drawChart, type Point } from "../plots/chart.ts";
import { toneAt } from "../plots/style.ts";
import { mean, quantile } from "../statistics.ts";
import { count as counted, figure } from "../words.ts";
import { breathe, drawW, Kernel } from "./lab.ts";
import { CHART_LINES, say } from "./page.ts";
import type { TourStep, TourWorld } from "./step.ts";

const WIDTH = 16;
const FEATURES = 128;
const DRAWS = 600;
/** s = ‖x + y‖². */
const SQUARES = [0.25, 0.5, 1, 2, 4, 8, 16];
const WANTED = 0.1;

interface Measured {
  /** Root of the mean squared relative error, per s. */
  readonly errors: Point[];
  /** Median of estimate / truth, per s. */
  readonly medians: readonly number[];
}

/** Estimates of many draws at x = y, ‖x + y‖² = s. */
async function measure(world: TourWorld, features: string): Promise<Measured> {
  const parts = SQUARES.map(() => new Float64Array(DRAWS));
  const x = new Float64Array(WIDTH);
  for (let draw = 0; draw < DRAWS; draw++) {
    if (draw % 50 === 0) await breathe(world);
    const wish = { features, count: FEATURES, projection: "iid", seed: 5, draw } as const;
    const kernel = Kernel.of(features, WIDTH, drawW(WIDTH, wish));
    for (const [i, s] of SQUARES.entries()) {
      x[0] = Math.sqrt(s) / 2;
      parts[i][draw] = kernel.estimate(x, x) / Math.exp(s / 4);
    }
  }
  return {
    errors: SQUARES.map((s, i) => [s, Math.sqrt(mean(parts[i].map((part) => (part - 1) ** 2)))]),
    medians: parts.map((part) => quantile(part.sort(), 0.5)),
  };
}

/** The same by Lemma 2. */
function predicted(map: "positive" | "hyperbolic"): Point[] {
  const projections = map === "positive" ? FEATURES : FEATURES / 2;
  return SQUARES.map((s) => {
    const estimator = { map, coupling: "iid", headDim: WIDTH, projections } as const;
    return [s, Math.sqrt(relativeKernelError(estimator, { s, delta: 0 }))];
  });
}

export const variance: TourStep = {
  title: "Variance: ‖x + y‖² decides",
  text: `Positive features are right on average, but how far off is one draw? Lemma 2:

    variance / exp(x·y)² = (exp(s) − 1)/m,  s = ‖x + y‖²

Only s matters, exponentially. (Rows q, k of N(0, σ²) numbers have s of about 2 σ² √d.) Means of exponentials are skewed too: a few \
large draws hold them up, so that the typical estimate is too small.

Pairing each w with −w makes hyperbolic features, r of them from r/2 projections: a mean of cosh(w·(x + y)). At equal r the variance is \
that of positive ones times 1 − exp(−s). Below, points are measured at x = y (r = ${FEATURES}, ${DRAWS} draws), lines are Lemma 2.`,
  async run(world) {
    const positive = await measure(world, "positive");
    const hyperbolic = await measure(world, "hyperbolic");
    world.print(drawChart({
      height: CHART_LINES,
      title: "Error of one weight against ‖x + y‖²",
      x: { label: "s = ‖x + y‖²", scale: "log", ticks: SQUARES, tight: true },
      y: { label: "root mean squared error / exp(x·y)", scale: "log", most: 100 },
      series: [
        { label: "", sign: "", tone: toneAt(0), points: predicted("positive"), joined: true },
        { label: "", sign: "", tone: toneAt(1), points: predicted("hyperbolic"), joined: true },
        { label: "positive", sign: "A", tone: toneAt(0), points: positive.errors },
        { label: "hyperbolic", sign: "B", tone: toneAt(1), points: hyperbolic.errors },
      ],
    }, world.style));
    const at = (s: number) => SQUARES.indexOf(s);
    const needed = (s: number) => counted(Math.expm1(s) / WANTED ** 2);
    say(
      world,
      `At s = 0.25 hyperbolic features have ${
        figure(hyperbolic.errors[at(0.25)][1] / positive.errors[at(0.25)][1])
      } of the error of ` +
        `positive ones, at s = 4 ${
          figure(hyperbolic.errors[at(4)][1] / positive.errors[at(4)][1])
        }. For an error of 10 % per weight ` +
        `positive features need m = ${needed(1)} at s = 1, ${needed(4)} at s = 4 and ${needed(16)} at s = 16.`,
    );
    say(
      world,
      `The median of the estimates at s = 8 is ${figure(positive.medians[at(8)])} of the truth, at s = 16 ` +
        `${figure(positive.medians[at(16)])}.`,
    );
  },
  tryIt: [
    "js relativeKernelError({ map: 'positive', coupling: 'iid', headDim: 64, projections: 256 }, { s: 4, delta: 0 })",
  ],
};
