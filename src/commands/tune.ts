/** `performer tune INPUT --error E`: the cheapest setting that meets an error on these tensors. */
import { FEATURE_MAPS } from "../feature_map.ts";
import { attend } from "./attend.ts";
import type { Command, Flag } from "./command.ts";
import { fraction, listOf, REPORT_FLAG, wholeNumber } from "./flags.ts";
import { INPUT_ARGUMENT } from "./input_flags.ts";

/** Flags that say which tensors, shared with attend. */
const SHARED = [
  "backend",
  "threads",
  "seed",
  "causal",
  "decay",
  "heads",
  "kv-heads",
  "scale",
  "mask",
  "q",
  "k",
  "v",
  "layout",
  "dtype",
  "encode",
  "rows",
  "format",
  "plot",
  "no-plot",
  "ascii",
  "json",
  "jsonl",
  "quiet",
  "verbose",
  "no-color",
];

const FLAGS: readonly Flag[] = [
  {
    name: "error",
    value: "E",
    summary: "largest relative L2 error against exact softmax (0.05 or 5%)",
    default: 0.05,
    parse: fraction,
  },
  { name: "time", summary: "choose the fastest setting that meets it (default)" },
  { name: "memory", summary: "choose the one with the smallest state instead" },
  {
    name: "features",
    value: "LIST",
    summary: "feature maps to try beside near keys and far fields (default the best random ones)",
    choices: FEATURE_MAPS.map((map) => map.name),
    list: true,
  },
  {
    name: "num-features",
    short: "m",
    value: "LIST",
    summary: "numbers of random features to try",
    default: [64, 256],
    parse: listOf(wholeNumber(1)),
  },
  {
    name: "sample",
    value: "N",
    summary: "query rows that settings are judged on; as many fresh ones check the choice",
    default: 384,
    parse: wholeNumber(16),
  },
  REPORT_FLAG,
  ...attend.flags.filter(({ name }) => SHARED.includes(name)),
];

export const tune: Command = {
  name: "tune",
  summary: "the cheapest setting that reaches an error on this data, or the plain word that exact attention is cheaper",
  arguments: [{ ...INPUT_ARGUMENT, summary: ".npy, .npz, .safetensors or FASTA (with --encode)" }],
  flags: FLAGS,
  examples: [
    "performer tune qkv.npz --error 5%",
    "performer tune rows.npy --heads 8 --causal --error 2% --memory --json | jq -r .use",
  ],
  async run(invocation, terminal) {
    const { runTune } = await import("./tune_run.ts");
    return await runTune(invocation, terminal);
  },
};
