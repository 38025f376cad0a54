/** `performer shard ACTION`: one attention on many machines. No scheduler here: files in, files out, honest exit codes. */
import { ENGINES, SHARD_ACTIONS } from "../shard/actions.ts";
import { attend } from "./attend.ts";
import type { Command, Flag } from "./command.ts";
import { BACKEND_FLAG, COMMON_FLAGS, PLAIN_FORMAT_FLAG, THREADS_FLAG, wholeNumber } from "./flags.ts";
import { MODEL_FILES } from "./file_names.ts";
import { INPUT_FILES, INPUT_FLAGS } from "./input_flags.ts";
import { CONFIG_FLAG, PART_FLAG } from "./model_flags.ts";

/** Flags of `attend` that a plan settles. */
const PLANNED = [
  "features",
  "num-features",
  "projection",
  "norms",
  "seed",
  "params",
  "centre",
  "projection-matrix",
  "decay",
  "output-dtype",
];

const of = (name: string): Flag => attend.flags.find((flag) => flag.name === name)!;

const FLAGS: readonly Flag[] = [
  {
    name: "output",
    short: "o",
    value: "PATH",
    summary: "plan: FILE.json (default stdout); map, apply and merge --scan: a folder; merge: FILE.safetensors; " +
      "with a plan of a model: the folder of the run (default the plan's); gather: .npy, .npz or .safetensors; " +
      "script: a file (default stdout)",
    files: [],
    writes: "folder",
  },
  { name: "shards", value: "N", summary: "plan: how many; at least as many as machines", parse: wholeNumber(1) },
  {
    name: "id",
    value: "I",
    summary:
      "map, apply: which shard, from 0; default the task number of Slurm, PBS, LSF, SGE, AWS Batch or Kubernetes",
    parse: wholeNumber(0),
  },
  {
    name: "state",
    value: "PATH",
    summary: "apply: what merge wrote; causal: its folder of --scan",
    files: [".safetensors"],
  },
  {
    name: "layer",
    value: "N",
    summary: "map, merge, apply with a plan of a model: which layer, from 0",
    parse: wholeNumber(0),
  },
  { name: "scan", summary: "merge: one state of all keys before each shard, for causal attention" },
  { name: "engine", value: "NAME", summary: "script: what runs it", choices: ENGINES },
  {
    name: "program",
    value: "COMMAND",
    summary: "script: how performer is called on the machines that work",
    default: "performer",
  },
  { name: "force", summary: "map, apply: compute what is there already" },
  {
    name: "weights",
    value: "FILE",
    summary: "plan: a checkpoint, whose layers are all cut; INPUT is tokens [L] or rows [L, dim], as for run",
    files: MODEL_FILES,
  },
  CONFIG_FLAG,
  PART_FLAG,
  { name: "encodings", summary: "plan --weights: the rows before the output layer instead of its outputs" },
  of("compat"),
  ...PLANNED.map(of),
  ...INPUT_FLAGS,
  BACKEND_FLAG,
  THREADS_FLAG,
  of("tile"),
  PLAIN_FORMAT_FLAG,
  ...COMMON_FLAGS,
];

export const shard: Command = {
  name: "shard",
  summary:
    "one attention, or a model layer by layer, on many machines: plan, map, merge, apply; any engine runs the tasks",
  arguments: [
    {
      name: "ACTION",
      summary: Object.entries(SHARD_ACTIONS).map(([name, words]) => `${name}: ${words}`).join("; "),
      choices: Object.keys(SHARD_ACTIONS),
      meanings: SHARD_ACTIONS,
    },
    {
      name: "FILE",
      summary: "INPUT or Q K V of plan; the plan, and folders, of the others",
      optional: true,
      many: true,
      files: [...INPUT_FILES, ".json"],
    },
  ],
  flags: FLAGS,
  examples: [
    "performer shard plan q.npy k.npy v.npy --shards 16 -o plan.json",
    "performer shard map plan.json --id 7 -o states/",
    "performer shard merge plan.json states/ -o kv.safetensors",
    "performer shard apply plan.json --state kv.safetensors --id 7 -o out/",
    "performer shard gather plan.json out/ -o out.npy",
    "performer shard status plan.json states/ --json",
    "performer shard script plan.json --engine slurm > run.sh",
    "performer shard plan tokens.npy --weights model.safetensors --config config.json --shards 16 -o plan.json",
  ],
  claims: false, // engines repeat tasks, and run one twice to have it sooner
  async run(invocation, terminal) {
    const { runShard } = await import("./shard_run.ts");
    return await runShard(invocation, terminal);
  },
};
