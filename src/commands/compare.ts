/** `performer compare INPUT`: which feature map, at which length of φ, for this data. */
import { EXACT, FEATURE_MAPS, TAYLOR_MAPS } from "../feature_map.ts";
import { PROJECTIONS } from "../projection.ts";
import { attend } from "./attend.ts";
import type { Command, Flag } from "./command.ts";
import {
  BACKEND_FLAG,
  COMMON_FLAGS,
  doublings,
  FORMAT_FLAG,
  listOf,
  PLOT_FLAGS,
  REPORT_FLAG,
  THREADS_FLAG,
  wholeNumber,
} from "./flags.ts";
import { INPUT_ARGUMENT, INPUT_FLAGS } from "./input_flags.ts";
import { NEAR_FAR_FLAGS } from "./near_far_flags.ts";

const MAPS = [...FEATURE_MAPS.map((map) => map.name), ...TAYLOR_MAPS];
/** What a comparison begins with. */
const USUAL = ["hyperbolic", "hyp-oprf", "positive", "trigonometric", "taylor1"];

const FLAGS: readonly Flag[] = [
  {
    name: "features",
    value: "LIST",
    summary: "feature maps and far fields; exact attention is always there",
    choices: [...MAPS, EXACT],
    list: true,
    default: USUAL,
  },
  {
    name: "num-features",
    short: "m",
    value: "LIST",
    summary: "lengths of the feature vector: numbers, and ranges such as 64..1024, which double",
    default: [64, 256],
    parse: (text) => [...new Set(listOf(doublings)(text).flat())],
  },
  {
    name: "projection",
    value: "LIST",
    summary: "random projections",
    choices: Object.keys(PROJECTIONS),
    list: true,
    default: ["orthogonal"],
  },
  {
    name: "backend",
    value: "LIST",
    summary:
      "backends, each; auto is the one that attend would take (for near keys and far fields, where there are some)",
    offers: BACKEND_FLAG.offers,
    list: true,
    default: "auto",
  },
  THREADS_FLAG,
  {
    name: "norms",
    value: "NAME",
    summary: "row norms of the projections; sqrtd gives the regularised softmax kernel",
    choices: ["chi", "sqrtd"],
    default: "chi",
  },
  ...attend.flags.filter(({ name }) => ["params", "centre", "decay"].includes(name)),
  {
    name: "redraws",
    value: "R",
    summary:
      "draws of every projection, the same random streams in every row (default 3, or 1 where that is much work)",
    parse: wholeNumber(1),
  },
  { name: "seed", value: "N", summary: "seed of projections, encoder and sample", default: 0, parse: wholeNumber(0) },
  {
    name: "check",
    value: "N",
    summary: "query rows that are compared with exact softmax",
    default: 256,
    parse: wholeNumber(1),
  },
  {
    name: "rows-timed",
    value: "N",
    summary: "first rows on which speed is measured",
    default: 4096,
    parse: wholeNumber(1),
  },
  ...NEAR_FAR_FLAGS,
  ...INPUT_FLAGS,
  { name: "tile", value: "ROWS", summary: "rows per piece; never changes the result", parse: wholeNumber(1) },
  REPORT_FLAG,
  FORMAT_FLAG,
  ...PLOT_FLAGS,
  ...COMMON_FLAGS,
];

export const compare: Command = {
  name: "compare",
  summary:
    "the same rows through several feature maps, m, projections and backends: error, time and memory in one table",
  arguments: [INPUT_ARGUMENT],
  flags: FLAGS,
  examples: [
    "performer compare input.npy --heads 8",
    "performer compare qkv.npz --causal --features hyperbolic,positive -m 64..1024 --projection orthogonal,iid",
    "performer compare qkv.npz --causal --decay alibi",
    "performer compare qkv.npz --features hyperbolic,taylor1,taylor2 --window 64 --heavy 64",
    "performer compare genome.fa --encode kmer:6 --format csv > table.csv",
  ],
  async run(invocation, terminal) {
    const { runCompare } = await import("./compare_run.ts");
    return await runCompare(invocation, terminal);
  },
};
