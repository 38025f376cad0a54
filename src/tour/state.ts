/** Step 7: bidirectional attention as a state, and its error against the number of features. */
import { drawRows } from "../plots/rows.ts";
import { logInterval } from "../statistics.ts";
import { figure } from "../words.ts";
import { breathe, type Head, Lab, mapOver, meanOfValues, relativeError, selfHead } from "./lab.ts";
import { say } from "./page.ts";
import type { TourStep, TourWorld } from "./step.ts";

const ROWS = { rows: 512, width: 16, sd: 0.5, seed: 1 };
const COUNTS = [16, 64, 256, 1024];
const DRAWS = 4;
const MASKED_EVERY = 4;
const MAP = { features: "hyperbolic", projection: "orthogonal", seed: 7 } as const;

/** Errors with a quarter of the keys masked: weight 0 on key features, or only values set to 0; and how far the first is from leaving keys out. */
async function masking(
  world: TourWorld,
  lab: Lab,
  head: Head,
): Promise<{ right: number; wrong: number; apart: number }> {
  const { rows, width } = head;
  const masked = (row: number) => row % MASKED_EVERY === 0;
  const weights = Float64Array.from({ length: rows }, (_, j) => masked(j) ? 0 : 1);
  const { outputs } = await lab.softmax(head, weights);
  await breathe(world);
  const parameters = mapOver(head, { ...MAP, count: 256 });
  const onKeys = await lab.linear(head, parameters, { keyWeights: weights });
  const zeroed = { ...head, v: head.v.map((value, at) => masked(Math.floor(at / width)) ? 0 : value) };
  await breathe(world);
  const kept = (part: Float64Array) => part.filter((_, at) => !masked(Math.floor(at / width)));
  // The same keys without those that are masked, for the queries that are left.
  const fewer = { ...head, rows: rows - rows / MASKED_EVERY, q: kept(head.q), k: kept(head.k), v: kept(head.v) };
  return {
    right: relativeError(onKeys, outputs),
    wrong: relativeError(await lab.linear(zeroed, parameters), outputs),
    apart: relativeError(await lab.linear(fewer, parameters), kept(onKeys)),
  };
}

export const state: TourStep = {
  title: "Bidirectional attention as a state",
  text: `Put together (the paper's Algorithm 1): one pass over the keys makes the state, one over the queries reads it.

    S = Σ_j φ(y_j) v_jᵀ,   z = Σ_j φ(y_j)
    out_i = φ(x_i)ᵀ S / φ(x_i)·z

The order of keys does not matter, and states of parts add up: files of any length, many machines. How good is it? That needs a yardstick: \
the answer that ignores attention and always is the mean of V. Below, errors (distance from exact attention, over its length) of self-attention, ${ROWS.rows} rows of \
N(0, ${ROWS.sd}²) numbers, d = ${ROWS.width} (hyperbolic, orthogonal, mean of ${DRAWS} draws); then the same kind of rows at the prompt.`,
  async run(world) {
    const head = selfHead(ROWS);
    await using lab = await Lab.open();
    const { outputs } = await lab.softmax(head);
    const uniform = relativeError(meanOfValues(head), outputs);
    const errors: number[] = [];
    for (const count of COUNTS) {
      const samples: number[] = [];
      for (let draw = 0; draw < DRAWS; draw++) {
        await breathe(world);
        samples.push(relativeError(await lab.linear(head, mapOver(head, { ...MAP, count, draw })), outputs));
      }
      errors.push(logInterval(samples).value);
    }
    world.print(drawRows({
      title: "Error of the output against the number of features r",
      axis: { label: "relative L2", scale: "linear" },
      bare: true,
      rows: COUNTS.map((count, i) => {
        return { label: `r = ${count}`, value: errors[i], text: figure(errors[i]), tone: "cyan" as const };
      }),
      rules: [{ at: uniform, label: `mean of V, ${figure(uniform)}` }],
    }, world.style));
    const better = COUNTS.find((_, i) => errors.slice(i).every((error) => error < uniform));
    const [fewest, most] = [COUNTS[0], COUNTS[COUNTS.length - 1]];
    say(
      world,
      (better === undefined
        ? "None of them beats the mean of V."
        : `From r = ${better} on the features beat the mean of V.`) +
        ` ${most / fewest} times the features left ${
          figure(errors[errors.length - 1] / errors[0])
        } of the error; by 1/√r it would be ` +
        `${figure(Math.sqrt(fewest / most))}.`,
    );
    const { right, wrong, apart } = await masking(world, lab, head);
    say(
      world,
      `With one key in ${MASKED_EVERY} masked, r = 256: error ${
        figure(right)
      } when the mask acts on φ(y), as if those keys were ` +
        `not there (${apart === 0 ? "bit for bit" : `to ${figure(apart)}`}); ${figure(wrong)} when it only zeroes v.`,
    );
    await breathe(world);
    await world.line("x = randn(2048, 64, 1) * 0.5");
    await world.line("attend x --heads 4 -m 256 --backend wasm,scalar");
  },
  questions: [{
    ask: "How do I mask in the bidirectional case?",
    answer:
      "Multiply φ(y) of a masked key by 0, in S and in z (--mask does). Zeroing v alone leaves the key in the denominator. Masks " +
      "that differ from query to query, other than causal ones and windows, have no such form.",
  }],
  tryIt: ["compare x --heads 4 -m 16..512 --features hyperbolic"],
};
