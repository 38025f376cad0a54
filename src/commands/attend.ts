/** `performer attend INPUT`: the main job. */
import { AUTO, EXACT, FEATURE_MAPS, NONE, TAYLOR_MAPS } from "../feature_map.ts";
import { RULES } from "../rules_table.ts";
import type { Command, Flag } from "./command.ts";
import {
  BACKEND_FLAG,
  COMMON_FLAGS,
  FORMAT_FLAG,
  fraction,
  MAX_MEMORY_FLAG,
  PLOT_FLAGS,
  positiveNumber,
  REPORT_FLAG,
  THREADS_FLAG,
  wholeNumber,
} from "./flags.ts";
import { MODEL_FILES, STATE_FILES, TENSOR_FILES } from "./file_names.ts";
import { INPUT_ARGUMENT, INPUT_FLAGS } from "./input_flags.ts";
import {
  CENTRE_FLAG,
  DECAY_FLAG,
  NORMS_FLAG,
  NUM_FEATURES_FLAG,
  PARAMS_FLAG,
  PROJECTION_FLAG,
  PROJECTION_MATRIX_FLAG,
  SEED_FLAG,
  TILE_FLAG,
} from "./map_flags.ts";
import { NEAR_FAR_FLAGS } from "./near_far_flags.ts";

const FLAGS: readonly Flag[] = [
  {
    name: "output",
    short: "o",
    value: "FILE",
    summary: "write the output: .npy, .npz or .safetensors; - is stdout (.npy); with --batch a folder",
    files: TENSOR_FILES,
    writes: "folder",
  },
  {
    name: "batch",
    value: "LIST",
    summary:
      "attend to many inputs, one path a line of LIST (- is stdin), after a tab the output's name (docs/batch.md)",
    files: [],
  },
  BACKEND_FLAG,
  THREADS_FLAG,
  {
    name: "features",
    value: "NAME",
    summary:
      "feature map; softmax for exact attention; auto for the smallest error at the arithmetic of -m positive features; " +
      "none for no attention, whose output is V: what reading and writing take",
    choices: [...FEATURE_MAPS.map((map) => map.name), ...TAYLOR_MAPS, EXACT, AUTO, NONE],
    default: "hyperbolic",
  },
  NUM_FEATURES_FLAG,
  {
    ...PROJECTION_FLAG,
    summary: `${PROJECTION_FLAG.summary}; none for the no_projection of --compat lucidrains`,
    choices: [...PROJECTION_FLAG.choices!, "none"],
  },
  NORMS_FLAG,
  SEED_FLAG,
  {
    name: "compat",
    value: "PROFILE",
    summary: "numerics of another system, exact being our own",
    choices: RULES.map((rules) => rules.name),
    default: "exact",
  },
  PARAMS_FLAG,
  CENTRE_FLAG,
  PROJECTION_MATRIX_FLAG,
  {
    name: "weights",
    value: "FILE",
    summary: "a checkpoint: INPUT is rows [L, dim], its layer makes queries, keys and values of them",
    files: MODEL_FILES,
  },
  { name: "layer", value: "N", summary: "which layer of --weights, from 0 (default 0)", parse: wholeNumber(0) },
  {
    name: "config",
    value: "FILE",
    summary: "JSON with what the tensors of --weights do not tell, as for run",
    files: [".json"],
  },
  { name: "part", value: "PREFIX", summary: "only tensors of --weights whose names start so" },
  ...NEAR_FAR_FLAGS,
  DECAY_FLAG,
  ...INPUT_FLAGS,
  {
    name: "state-in",
    value: "FILE",
    summary: "go on from a state: queries see its keys too, and it says what attention is",
    files: STATE_FILES,
  },
  {
    name: "state-out",
    value: "FILE",
    summary: "write the state with these keys: .safetensors; may be the file of --state-in",
    files: STATE_FILES,
    writes: "file",
    replaces: "state-in",
  },
  {
    name: "on-nan",
    value: "HOW",
    summary:
      "rows with NaN or infinity: error names the first, skip masks them (their outputs are 0), propagate makes " +
      "every output NaN that sees them",
    choices: ["error", "skip", "propagate"],
    default: "error",
  },
  {
    name: "check",
    value: "N",
    summary: "query rows to check against exact softmax, 0 = off",
    default: 256,
    parse: wholeNumber(0),
  },
  {
    name: "redraws",
    value: "R",
    summary: "measure the error over R more draws of the projection",
    default: 0,
    parse: wholeNumber(0),
  },
  {
    name: "health",
    summary: "report per head: sizes, predicted variance, features that count, error, a verdict and what to do",
  },
  {
    name: "max-error",
    value: "E",
    summary: "exit 1 when the relative L2 error exceeds E (0.05 or 5%)",
    parse: fraction,
  },
  {
    name: "output-dtype",
    value: "NAME",
    summary: "element type of the output (default: the input's)",
    choices: ["f32", "f64", "f16"],
  },
  {
    name: "resume",
    summary:
      "keep checkpoints beside the output, and go on from those of a run that was ended: the same bytes as without the end; " +
      "with --batch leave out inputs whose output is there",
  },
  {
    name: "checkpoint-seconds",
    value: "S",
    summary: "with --resume, seconds of work that an end may cost",
    parse: positiveNumber,
    default: 5,
  },
  {
    name: "dry-run",
    summary:
      "open everything, say what would be done and predict time, memory and error; compute little, write nothing",
  },
  { name: "profile", summary: "measure and report the time of every stage of the computation (wasm)" },
  TILE_FLAG,
  MAX_MEMORY_FLAG,
  REPORT_FLAG,
  FORMAT_FLAG,
  ...PLOT_FLAGS,
  ...COMMON_FLAGS,
];

export const attend: Command = {
  name: "attend",
  summary: "attention over a file of any length, with throughput and the error against exact softmax",
  arguments: [INPUT_ARGUMENT],
  flags: FLAGS,
  examples: [
    "performer attend input.npy --heads 8 -o output.npy",
    "performer attend qkv.npz --causal --features positive -m 512 --json | jq .error",
    "performer attend qkv.npz --causal --decay alibi",
    "performer attend qkv.npz --causal --state-out seen.safetensors",
    "performer attend genome.fa --encode kmer:6",
    "performer attend qkv.npz --window 64 --heavy 64 --far taylor1",
    "performer attend input.npy --heads 8 -o output.npy --dry-run",
    "performer attend input.npy --heads 8 -o output.npy --resume",
    "performer attend --batch list.txt --heads 8 -o attended --jsonl",
    "performer attend rows.npy --weights model.pt --layer 2 -o attended.npy",
  ],
  makesTensor: true,
  async run(invocation, terminal) {
    if (invocation.flags.batch !== undefined) {
      const { runBatch } = await import("./attend_batch.ts");
      return await runBatch(invocation, terminal);
    }
    const { runAttend } = await import("./attend_run.ts");
    return await runAttend(invocation, terminal);
  },
};
