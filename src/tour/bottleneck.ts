/** Step 1: the quadratic bottleneck. */
import { drawChart, type Point } from "../plots/chart.ts";
import { toneAt } from "../plots/style.ts";
import { count, duration, figure } from "../words.ts";
import { BLOCK, BlockClock, crossing, goesOn } from "./clock.ts";
import { CHART_LINES, say } from "./page.ts";
import type { TourStep } from "./step.ts";

const LENGTHS = [256, 512, 1024, 2048];
const FAR = 1_000_000;
const FEATURES = 256;

/** Seconds in the unit that suits them. */
function longTime(seconds: number): string {
  const hours = seconds / 3600;
  return hours < 2 ? duration(seconds) : hours < 48 ? `${figure(hours)} hours` : `${figure(hours / 24)} days`;
}

export const bottleneck: TourStep = {
  title: "The quadratic bottleneck",
  text:
    `Attention lets every row of a sequence look at every other. Of L queries q, keys k and values v, rows of d numbers, it makes

    out_i = Σ_j w_ij v_j,   w_ij = exp(q_i·k_j/√d) / Σ_l exp(q_i·k_l/√d)

with L² weights: twice the length is four times the work. The dense layers of a Transformer (its MLP) take rows one by one: twice the \
length is twice the work. So from some length on attention is what takes the time. Here are both on this machine, in a block ${BLOCK.width} \
wide: ${BLOCK.heads} heads of ${BLOCK.headDim}, and an MLP of ${BLOCK.width} → ${count(BLOCK.inner)} → ${BLOCK.width}.`,
  async run(world) {
    await using clock = await BlockClock.open(world, LENGTHS[LENGTHS.length - 1]);
    const exact: Point[] = [], mlp: Point[] = [];
    for (const length of LENGTHS) {
      exact.push([length, 1000 * await clock.attention(length, "softmax")]);
      mlp.push([length, 1000 * await clock.mlp(length)]);
      if (!goesOn(exact)) break;
    }
    const [length, last] = exact[exact.length - 1];
    const linear = 1000 * await clock.attention(length, FEATURES);
    world.print(drawChart({
      height: CHART_LINES,
      title: "Time of one block's parts against length",
      x: { label: "rows L", scale: "log", ticks: LENGTHS, text: count },
      y: { label: "milliseconds", scale: "log" },
      series: [
        { label: "exact attention", sign: "A", tone: toneAt(0), points: exact, joined: true },
        { label: "MLP", sign: "B", tone: toneAt(1), points: mlp, joined: true },
      ],
    }, world.style));
    const growth = (of: readonly Point[]) => figure(of[of.length - 1][1] / of[0][1]);
    const meet = crossing(exact, mlp);
    const first = exact[0][1] > mlp[0][1];
    say(
      world,
      `From ${count(LENGTHS[0])} to ${count(length)} rows, ${
        length / LENGTHS[0]
      } times the length, exact attention took ` +
        `${growth(exact)} times as long and the MLP ${growth(mlp)} times. ` +
        (meet === null
          ? `At all these lengths ${first ? "attention" : "the MLP"} is the dearer part.`
          : `They cost the same at about ${count(meet)} rows.`) +
        ` At four times the work for twice the length, ${count(FAR)} rows would take attention ` +
        `${longTime(last / 1000 * (FAR / length) ** 2)}.`,
    );
    say(
      world,
      `The linear attention of this tour, with ${FEATURES} features, took ${figure(linear)} ms for ${
        count(length)
      } rows: ` +
        `${figure(last / linear)} times as fast as exact attention, ${
          figure(linear / mlp[mlp.length - 1][1])
        } times the MLP.`,
    );
  },
  questions: [{
    ask: "With linear attention, is the MLP then the bottleneck?",
    answer:
      "In most models, yes. Per row of a model W wide the MLP (4 W inside) does 16 W² operations and attention with r features about " +
      "6 r W, whatever L is. With r = 256 the MLP does more from W = 96 on, at W = 768 eight times as much.",
  }],
};
