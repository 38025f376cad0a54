/** Step 9: redraws and centring. */
import { binsOf } from "../plots/histogram.ts";
import { drawRows } from "../plots/rows.ts";
import { RandomStream } from "../random.ts";
import { type Interval, logInterval } from "../statistics.ts";
import { figure } from "../words.ts";
import {
  breathe,
  gaussianHead,
  type Head,
  Lab,
  mapOver,
  meanOfValues,
  meanRow,
  meanSquaredSum,
  relativeError,
} from "./lab.ts";
import { say } from "./page.ts";
import type { TourStep, TourWorld } from "./step.ts";

const ROWS = { rows: 256, width: 16, sd: 0.4, seed: 2 };
/** Standard deviation of the mean vectors of queries and of keys. */
const OFFSET = 0.6;
const MAP = { features: "hyperbolic", count: 128, projection: "orthogonal", seed: 9 } as const;
const DRAWS = 60;
const FEW = 5;
const CENTRED_DRAWS = 12;

/** Rows whose queries and keys have means that are not 0, as those of networks have. */
function offsetHead(): Head {
  const head = gaussianHead(ROWS);
  const random = new RandomStream(ROWS.seed, 0x0ff);
  const [q, k] = [head.q, head.k].map((rows) => {
    const mean = random.normals(ROWS.width);
    return rows.map((value, at) => value + OFFSET * mean[at % ROWS.width]);
  });
  return { ...head, q, k };
}

/** The head with its keys moved by g, the mean of the queries plus that of the keys. */
function centred(head: Head): Head {
  const { width } = head;
  const [q, k] = [meanRow(head.q, width), meanRow(head.k, width)];
  return { ...head, k: head.k.map((value, at) => value - q[at % width] - k[at % width]) };
}

async function errorsOf(world: TourWorld, lab: Lab, head: Head, exact: Float64Array, draws: number): Promise<number[]> {
  const errors: number[] = [];
  for (let draw = 0; draw < draws; draw++) {
    if (draw % 4 === 0) await breathe(world);
    errors.push(relativeError(await lab.linear(head, mapOver(head, { ...MAP, draw })), exact));
  }
  return errors;
}

const withInterval = ({ value, low, high }: Interval) => `${figure(value)} [${figure(low)}, ${figure(high)}]`;

export const redraws: TourStep = {
  title: "Redraws and centring",
  text:
    `W is drawn at random, and another seed is another answer. The error of one draw says little: redraw W several times over the same rows, \
and give the mean with an interval (--redraws does it). In training the paper redraws W from time to time, so that a model does not \
settle on the mistakes of one draw; for inference one draw is kept, by its seed.

Centring makes draws better. Softmax does not see a vector g that is taken from all keys, since

    exp(x·(y − g)) = exp(x·y) · exp(−x·g)

has the same last factor for all keys of a row. Features do see it: their variance depends on ‖x + y − g‖², whose mean is least for g = \
mean of x + mean of y. Below: rows whose means are not 0, as those of networks are.`,
  async run(world) {
    const head = offsetHead();
    await using lab = await Lab.open();
    const { outputs } = await lab.softmax(head);
    const errors = await errorsOf(world, lab, head, outputs, DRAWS);
    const bins = binsOf(Float64Array.from(errors).sort(), 10);
    world.print(drawRows({
      title: `Draws of W by the error of their output (${DRAWS} draws)`,
      axis: { label: "draws", scale: "linear" },
      bare: true,
      rows: bins.map(({ from, to, count }) => {
        return { label: `${figure(from)} to ${figure(to)}`, value: count, tone: "cyan" as const };
      }),
    }, world.style));
    const [least, most] = [Math.min(...errors), Math.max(...errors)];
    say(
      world,
      `One draw could have said anything from ${figure(least)} to ${figure(most)}. The first ${FEW} say ` +
        `${withInterval(logInterval(errors.slice(0, FEW)))}, all ${DRAWS} ${
          withInterval(logInterval(errors))
        } (geometric mean, ` +
        `95 % interval).`,
    );
    const moved = centred(head);
    const { outputs: same } = await lab.softmax(moved);
    const after = await errorsOf(world, lab, moved, outputs, CENTRED_DRAWS);
    const before = errors.slice(0, CENTRED_DRAWS);
    const better = after.filter((error, draw) => error < before[draw]).length;
    say(
      world,
      `Centring takes the mean of ‖x + y‖² from ${figure(meanSquaredSum(head))} to ${
        figure(meanSquaredSum(moved))
      } and changes exact ` +
        `softmax by ${figure(relativeError(same, outputs))}. Error: ${figure(logInterval(before).value)} before, ` +
        `${figure(logInterval(after).value)} after, less in ${better} of ${CENTRED_DRAWS} draws; the mean of V has ` +
        `${figure(relativeError(meanOfValues(head), outputs))}.`,
    );
  },
  tryIt: [
    "x = randn(2048, 64, 1) * 0.5 + 0.3",
    "attend x --heads 4 -m 256 --redraws 5 --centre off",
    "attend x --heads 4 -m 256 --redraws 5",
  ],
};
