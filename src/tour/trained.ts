/** Step 10: when random features are not enough, and where to go from here. */
import type { Attention, NearFarSettings } from "../attention.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { attentionOf, inputsOf } from "../figures/trials.ts";
import type { Inputs } from "../inputs.ts";
import { drawRows } from "../plots/rows.ts";
import { RandomStream } from "../random.ts";
import { sizesOf } from "../run.ts";
import { sampleRows } from "../sampled_rows.ts";
import { settingName } from "../setting_words.ts";
import { mean } from "../statistics.ts";
import { type Trial, truthOf, tryAttention } from "../trial.ts";
import { count, figure } from "../words.ts";
import { breathe, dot, meanSquaredSum } from "./lab.ts";
import { say } from "./page.ts";
import type { TourStep } from "./step.ts";

const ROWS = 1024;
const WIDTH = 32;
const FEATURES = 256;
/** A made-up head: topics that keys and queries share, a drift by which neighbours are alike, and noise. */
const HEAD = { topics: 24, strength: 1.5, drift: 0.02, noise: 0.3, seed: 10 };
const PEAKS = 64;

interface Peaked {
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly inputs: Inputs;
}

function peakedHead(): Peaked {
  const { topics, strength, drift, noise, seed } = HEAD;
  const random = new RandomStream(seed, 0x7ea);
  const centres = random.normals(topics * WIDTH);
  const [q, k, v] = [0, 0, 0].map(() => new Float64Array(ROWS * WIDTH));
  let place = random.normals(WIDTH);
  for (let i = 0; i < ROWS; i++) {
    place = place.map((value) => Math.sqrt(1 - drift) * value + Math.sqrt(drift) * random.normal());
    const [asked, offered] = [random.below(topics), random.below(topics)];
    for (let l = 0; l < WIDTH; l++) {
      const at = i * WIDTH + l;
      const row = (topic: number) =>
        strength * (centres[topic * WIDTH + l] + place[l]) / Math.SQRT2 + noise * random.normal();
      q[at] = row(asked);
      k[at] = row(offered);
      v[at] = (centres[offered * WIDTH + l] + random.normal()) / Math.SQRT2;
    }
  }
  return { q, k, inputs: inputsOf(q, k, v, WIDTH, WIDTH) };
}

/** exp(entropy) of the weights of a row: over how many keys they are spread, as it were. */
function perplexity({ q, k }: Peaked, row: number): number {
  const x = q.subarray(row * WIDTH, (row + 1) * WIDTH);
  const weights = Float64Array.from({ length: ROWS }, (_, j) => {
    return Math.exp(dot(x, k.subarray(j * WIDTH, (j + 1) * WIDTH)) / Math.sqrt(WIDTH));
  });
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return Math.exp(weights.reduce((entropy, weight) => entropy - weight / sum * Math.log(weight / sum), 0));
}

function settings(): { readonly name: string; readonly attention: Attention }[] {
  const random = (features: string, name: string) => ({
    name: `${name}, r = ${FEATURES}`,
    attention: attentionOf({ features, numFeatures: FEATURES, projection: "orthogonal", seed: 10, centre: "on" }),
  });
  const near = (name: string, nearFar: NearFarSettings) => ({
    name,
    attention: {
      ...attentionOf({ features: nearFar.far, numFeatures: 0, projection: "orthogonal", seed: 10 }),
      nearFar,
    },
  });
  return [
    random("hyperbolic", "hyperbolic"),
    random("hyp-aderf+sderf", "fitted features"),
    near("moments", { window: 0, heavy: 0, far: "taylor1", clusters: 0, top: 0 }),
    near("near keys + moments", { window: 64, heavy: 64, far: "taylor1", clusters: 0, top: 0 }),
    near("near keys + clusters", { window: 32, heavy: 32, far: "clusters", clusters: 64, top: 8 }),
  ];
}

export const trained: TourStep = {
  title: "When it is not enough, and where next",
  text:
    `Random features live on small queries and keys. A Performer is trained with its features and keeps to what they can do. Heads \
trained with softmax need not: often most of a row's weight lies on few keys, x·y is large, and ‖x + y‖² is far beyond the reach of \
features; step 5 counted how many it would take.

What does help: those few keys can be taken exactly (neighbours in a window, heavy keys, the clusters of keys that fit the query), and all \
others together by something cheap, their moments, under one normaliser. Here that is called near-and-far attention. Below, a made-up \
head of ${count(ROWS)} rows, d = ${WIDTH}: queries and keys share ${HEAD.topics} topics and a slow drift.`,
  async run(world) {
    const head = peakedHead();
    const { signal } = world;
    const spread = Array.from({ length: PEAKS }, (_, i) => perplexity(head, Math.floor(i * ROWS / PEAKS)));
    await breathe(world);
    const { backend } = await openFirst(parseBackendList("wasm,scalar"), { nearFar: true });
    const tried: (Trial & { readonly name: string })[] = [];
    try {
      const sizes = sizesOf(head.inputs, false);
      const trial = { inputs: head.inputs, sizes, backend, causal: false, scale: null, signal };
      const truth = await truthOf(trial, sampleRows(ROWS, 256, false, 0));
      for (const { name, attention } of settings()) {
        await breathe(world);
        tried.push({ name, ...await tryAttention(attention, trial, truth) });
      }
    } finally {
      await backend[Symbol.asyncDispose]();
    }
    const uniform = tried[0].error.uniformBaseline;
    const exact = 4 * ROWS * WIDTH;
    world.print(drawRows({
      title: "Relative L2 error, and the arithmetic it takes per row",
      axis: { label: "relative L2", scale: "linear" },
      bare: true,
      rows: tried.map(({ name, error, flopsPerRow }) => ({
        label: name,
        value: error.relativeL2.value,
        text: `${figure(error.relativeL2.value)}, ${Math.round(flopsPerRow / 1000)} kFLOP`,
        tone: "cyan",
      })),
      rules: [{ at: uniform, label: `mean of V, ${figure(uniform)}` }],
    }, world.style));
    const best = tried.reduce((least, one) => one.error.relativeL2.value < least.error.relativeL2.value ? one : least);
    const plain = tried[0];
    say(
      world,
      `Rows of this head spread their weight over about ${figure(mean(spread))} of ${
        count(ROWS)
      } keys; the mean of ‖x + y‖² is ` +
        `${
          figure(meanSquaredSum({ ...head, rows: ROWS, width: WIDTH }))
        }. ${FEATURES} hyperbolic features have a skill of ` +
        `${figure(plain.error.skill)} (0 is the mean of V, 1 is exact). Best is ${settingName(best.attention)}, with ` +
        `${figure(best.error.relativeL2.value / plain.error.relativeL2.value)} of their error and ` +
        `${figure(best.flopsPerRow / plain.flopsPerRow)} of their arithmetic. Exact attention takes ${
          Math.round(exact / 1000)
        } kFLOP ` +
        `per row, and more with every key.`,
    );
    say(
      world,
      "Which of these suits your tensors only measuring can tell. tune runs them all on your file and names the cheapest that meets " +
        "your error, or says that none does; compare puts features side by side; --health looks at each head.",
    );
  },
  tryIt: [
    "x = randn(2048, 64, 1) * 0.8",
    "tune x --heads 4 --error 10%",
    "attend x --heads 4 --window 64 --far taylor1",
  ],
};
