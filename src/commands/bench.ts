/** `performer bench [FILE]`: how fast, against length, exact attention and the limits of the machine. */
import { UsageError } from "../errors.ts";
import { EXACT, FEATURE_MAPS, TAYLOR_MAPS } from "../feature_map.ts";
import { PROJECTIONS } from "../projection.ts";
import type { Command, Flag } from "./command.ts";
import { attend } from "./attend.ts";
import {
  BACKEND_FLAG,
  COMMON_FLAGS,
  FORMAT_FLAG,
  fraction,
  listOf,
  PLOT_FLAGS,
  positiveNumber,
  REPORT_FLAG,
  wholeNumber,
} from "./flags.ts";
import { INPUT_FILES, INPUT_FLAGS } from "./input_flags.ts";
import { NEAR_FAR_LIST_FLAGS } from "./near_far_flags.ts";

/** "16_384" or "2^14". */
export function lengthOf(text: string): number {
  const power = /^2\^(\d{1,2})$/.exec(text);
  try {
    return power ? wholeNumber(1)(String(2 ** Number(power[1]))) : wholeNumber(1)(text);
  } catch {
    throw new UsageError("expected numbers of rows such as 1024,16_384,2^20");
  }
}

const FLAGS: readonly Flag[] = [
  {
    name: "backend",
    value: "LIST",
    summary: "backends to measure, each; auto is the one that attend would take",
    offers: BACKEND_FLAG.offers,
    list: true,
    default: "auto",
  },
  {
    name: "lengths",
    short: "L",
    value: "LIST",
    summary: "rows, such as 1024,16_384,2^20",
    default: [1024, 4096, 16384],
    parse: listOf(lengthOf),
  },
  {
    name: "features",
    value: "LIST",
    summary: `feature maps and far fields alone; ${EXACT} is exact attention`,
    choices: [...FEATURE_MAPS.map((map) => map.name), ...TAYLOR_MAPS, EXACT],
    list: true,
    default: ["hyperbolic"],
  },
  {
    name: "num-features",
    short: "m",
    value: "LIST",
    summary: "lengths of the feature vector",
    default: [256],
    parse: listOf(wholeNumber(1)),
  },
  {
    name: "projection",
    value: "LIST",
    summary: "random projections",
    choices: Object.keys(PROJECTIONS),
    list: true,
    default: ["orthogonal"],
  },
  ...NEAR_FAR_LIST_FLAGS,
  {
    name: "mode",
    value: "LIST",
    summary: "which rows a row sees: all, those up to it, or each in turn",
    choices: ["bidirectional", "causal"],
    list: true,
    default: ["bidirectional"],
  },
  { name: "causal", summary: "the same as --mode causal" },
  ...attend.flags.filter(({ name }) => name === "decay"),
  {
    name: "threads",
    value: "LIST",
    summary: "threads that compute (default one per core)",
    parse: listOf(wholeNumber(1)),
  },
  { name: "heads", value: "H", summary: "heads (default 8; of a file as attend reads it)", parse: wholeNumber(1) },
  { name: "head-dim", value: "D", summary: "width of queries and keys (default 64)", parse: wholeNumber(1) },
  { name: "value-dim", value: "D", summary: "width of values (default the head's)", parse: wholeNumber(1) },
  { name: "seed", value: "N", summary: "seed of rows and projections", default: 0, parse: wholeNumber(0) },
  {
    name: "spread",
    value: "S",
    summary: "standard deviation of the synthetic entries",
    default: 0.5,
    parse: positiveNumber,
  },
  { name: "layout", value: "NAME", summary: "axes of a 3-D or 4-D file", choices: ["hld", "lhd"], default: "hld" },
  ...INPUT_FLAGS.filter(({ name }) => name === "encode"),
  { name: "tile", value: "ROWS", summary: "rows per piece", parse: wholeNumber(1) },
  { name: "samples", value: "N", summary: "samples per point, after a warm-up", default: 10, parse: wholeNumber(3) },
  {
    name: "seconds",
    value: "S",
    summary: "time per point after which 3 samples are enough",
    default: 3,
    parse: positiveNumber,
  },
  { name: "profile", summary: "seconds per stage, where a backend measures them; costs a little speed" },
  {
    name: "compare",
    value: "FILE",
    summary: "compare with a saved .json; exit 1 when a point became slower",
    files: [".json"],
  },
  {
    name: "regression",
    value: "P",
    summary: "least growth of the median time that counts (0.05 or 5%)",
    default: 0.05,
    parse: fraction,
  },
  {
    name: "output",
    short: "o",
    value: "FILE",
    summary: "save the report as well: .json, .jsonl, .csv or .md",
    files: [".json", ".jsonl", ".csv", ".md"],
    writes: "file",
  },
  FORMAT_FLAG,
  REPORT_FLAG,
  ...PLOT_FLAGS,
  ...COMMON_FLAGS,
];

export const bench: Command = {
  name: "bench",
  summary: "throughput against length, per backend and mechanism, beside the limits of the machine",
  arguments: [{
    name: "FILE",
    summary: "measure on the rows of this file instead of synthetic ones",
    optional: true,
    files: INPUT_FILES,
  }],
  flags: FLAGS,
  examples: [
    "performer bench --features hyperbolic,softmax -L 1024,4096,16384",
    "performer bench --features positive,softmax --window 64 --heavy 64 --far taylor1,clusters:128",
    "performer bench --backend wasm,gpujs --mode bidirectional,causal -o before.json",
    "performer bench --backend wasm,gpujs --mode bidirectional,causal --compare before.json --regression 5%",
  ],
  async run(invocation, terminal) {
    const { runBench } = await import("./bench_run.ts");
    return await runBench(invocation, terminal);
  },
};
