/** Step 2: attention as a kernel, and why that makes it linear. */
import { drawChart, type Point } from "../plots/chart.ts";
import { toneAt } from "../plots/style.ts";
import { count, figure } from "../words.ts";
import { BlockClock, crossing, goesOn } from "./clock.ts";
import { breathe, dot, type Head, Kernel, Lab, mapOver, selfHead } from "./lab.ts";
import { CHART_LINES, say } from "./page.ts";
import type { TourStep } from "./step.ts";

const LENGTHS = [256, 512, 1024, 2048];
const FEATURES = 256;
const SMALL = { rows: 512, width: 16, sd: 0.5, seed: 1 };
const SMALL_FEATURES = 64;

/** (ΦΨᵀ)V with its denominators: every query meets every key, as exact attention does it. */
function allPairs(kernel: Kernel, { rows, width, q, k, v }: Head): Float64Array {
  const keys = Array.from({ length: rows }, (_, j) => kernel.features(k, j * width));
  const out = new Float64Array(rows * width);
  for (let i = 0; i < rows; i++) {
    const query = kernel.features(q, i * width);
    let sum = 0;
    for (let j = 0; j < rows; j++) {
      const weight = dot(query, keys[j]);
      sum += weight;
      for (let l = 0; l < width; l++) out[i * width + l] += weight * v[j * width + l];
    }
    for (let l = 0; l < width; l++) out[i * width + l] /= sum;
  }
  return out;
}

export const kernel: TourStep = {
  title: "Attention as a kernel, linear by associativity",
  text:
    `With x = q/d^¼ and y = k/d^¼ a weight, before it is normalised, is a kernel: K(x, y) = exp(x·y), a measure of likeness. Suppose \
that it were a product of features, K(x, y) = φ(x)·φ(y), with φ a vector of r numbers. Then

    Σ_j φ(x_i)·φ(y_j) v_j  =  φ(x_i)ᵀ [ Σ_j φ(y_j) v_jᵀ ]

On the left are L products for each of L rows. The bracket on the right is the same for all queries: r × d numbers, summed once. That is \
the whole trick, (AB)C = A(BC); the denominator has 1 in place of v. Any φ with positive products gives some attention; for exp(x·y) no φ \
of finite length is exact, and the next steps look for short ones that are right on average.`,
  async run(world) {
    const head = selfHead(SMALL);
    const parameters = mapOver(head, { features: "positive", count: SMALL_FEATURES, projection: "iid", seed: 1 });
    await using lab = await Lab.open();
    const state = await lab.linear(head, parameters);
    const pairs = allPairs(new Kernel(parameters), head);
    const apart = state.reduce((most, value, i) => Math.max(most, Math.abs(value - pairs[i])), 0);
    await breathe(world);
    await using clock = await BlockClock.open(world, LENGTHS[LENGTHS.length - 1]);
    const exact: Point[] = [], linear: Point[] = [];
    for (const length of LENGTHS) {
      exact.push([length, 1000 * await clock.attention(length, "softmax")]);
      linear.push([length, 1000 * await clock.attention(length, FEATURES)]);
      if (!goesOn(exact)) break;
    }
    world.print(drawChart({
      height: CHART_LINES,
      title: "Time of attention against length, 4 heads of 64",
      x: { label: "rows L", scale: "log", ticks: LENGTHS, text: count },
      y: { label: "milliseconds", scale: "log" },
      series: [
        { label: "exact", sign: "A", tone: toneAt(0), points: exact, joined: true },
        { label: `${FEATURES} features`, sign: "B", tone: toneAt(1), points: linear, joined: true },
      ],
    }, world.style));
    const meet = crossing(exact, linear);
    const { rows, width } = SMALL;
    say(
      world,
      `Both sides of the equation for ${rows} rows and r = ${SMALL_FEATURES}: outputs differ by at most ${
        figure(apart)
      }, ` +
        `multiply-adds are ${count(rows * rows * (SMALL_FEATURES + width + 1))} on the left and ` +
        `${count(2 * rows * SMALL_FEATURES * (width + 1))} on the right.`,
    );
    const [length, last] = exact[exact.length - 1];
    say(
      world,
      (meet === null
        ? `At all lengths of the plot ${exact[0][1] < linear[0][1] ? "exact attention" : "the features"} won`
        : `The features win from about ${count(meet)} rows on`) +
        `; at ${count(length)} rows they take ${
          figure(linear[linear.length - 1][1] / last)
        } of the time of exact attention.`,
    );
  },
  questions: [{
    ask: "How does it compare at short L?",
    answer:
      "Badly. Per row and head exact attention does 4 L d operations, r features 6 r d or more: below L = 1.5 r, 384 rows here, " +
      "there is nothing to gain even on paper, and an error to pay. Short sequences want exact attention.",
  }],
  tryIt: ["bench --features hyperbolic,softmax -L 256,1024,4096"],
};
