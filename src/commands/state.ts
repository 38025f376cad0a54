/** `performer state ACTION …`: states as files, built, merged, looked at and slid over. */
import { FEATURE_MAPS } from "../feature_map.ts";
import type { Command, Flag } from "./command.ts";
import { STATE_FILES } from "./file_names.ts";
import { BACKEND_FLAG, COMMON_FLAGS, PLAIN_FORMAT_FLAG, THREADS_FLAG, wholeNumber } from "./flags.ts";
import { INPUT_FILES, INPUT_FLAGS } from "./input_flags.ts";
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

/** What is done, and in words. */
export const ACTIONS: Readonly<Record<string, string>> = {
  build: "the state of the keys and values of INPUT, or with --block-rows one of each block of rows",
  merge: "one state of several, in their order; a folder stands for the states in it",
  info: "what a state has seen, and what it was made with",
  slide: "from a folder of blocks, one state of every window of --blocks of them",
};

const BUILD_FLAGS: readonly Flag[] = [
  {
    name: "state-in",
    value: "FILE",
    summary: "add the keys to this state, which says what attention is",
    files: STATE_FILES,
  },
  {
    name: "like",
    value: "FILE",
    summary: "begin a state of the same settings and the same fit as this one, so that they can be merged",
    files: STATE_FILES,
  },
  { name: "block-rows", value: "B", summary: "one state of every B rows, in the folder -o", parse: wholeNumber(1) },
  {
    name: "features",
    value: "NAME",
    summary: "feature map",
    choices: FEATURE_MAPS.filter(({ angular }) => !angular).map(({ name }) => name),
    default: "hyperbolic",
  },
  NUM_FEATURES_FLAG,
  PROJECTION_FLAG,
  NORMS_FLAG,
  SEED_FLAG,
  {
    ...PARAMS_FLAG,
    summary: "rows that fitted numbers come from: fixed (none), prefix:N, sample:N (spread over the file) or file " +
      "(default: sample:4096, with --decay prefix:1024, fixed for a given projection)",
  },
  {
    ...CENTRE_FLAG,
    summary: "move keys to where features vary least, which softmax does not see; auto: not for states",
  },
  PROJECTION_MATRIX_FLAG,
  { ...DECAY_FLAG, summary: "weigh key j by exp(-L(i-j)) for causal rows i: a number, one per key head, or alibi" },
  ...INPUT_FLAGS.filter(({ name }) => name !== "causal"),
  BACKEND_FLAG,
  THREADS_FLAG,
  TILE_FLAG,
];

const MERGE_FLAGS: readonly Flag[] = [
  { name: "allow-duplicates", summary: "merge: count the rows of a state as often as it is given" },
];

const SLIDE_FLAGS: readonly Flag[] = [
  { name: "blocks", value: "N", summary: "slide: blocks in a window", parse: wholeNumber(1) },
];

/** Flags of one action by its name; `output` is of all but `info`. */
export const ACTION_FLAGS: Readonly<Record<string, readonly Flag[]>> = {
  build: BUILD_FLAGS,
  merge: MERGE_FLAGS,
  info: [],
  slide: SLIDE_FLAGS,
};

export const state: Command = {
  name: "state",
  summary: "states of attention as files: what all keys so far come to, to be merged, kept and gone on from",
  arguments: [
    {
      name: "ACTION",
      summary: Object.entries(ACTIONS).map(([name, words]) => `${name}: ${words}`).join("; "),
      choices: Object.keys(ACTIONS),
      meanings: ACTIONS,
    },
    {
      name: "FILE",
      summary:
        "build: INPUT as for attend, though queries may be missing; merge: states; info: a state; slide: a folder",
      optional: true,
      many: true,
      files: INPUT_FILES,
    },
  ],
  flags: [
    {
      name: "output",
      short: "o",
      value: "FILE",
      summary: "the state: .safetensors, which may be the file of --state-in; a folder with --block-rows and of slide",
      files: STATE_FILES,
      writes: "folder",
      replaces: "state-in",
    },
    ...BUILD_FLAGS,
    ...MERGE_FLAGS,
    ...SLIDE_FLAGS,
    PLAIN_FORMAT_FLAG,
    ...COMMON_FLAGS,
  ],
  examples: [
    "performer state build qkv.npz --rows 0:100 -o a.safetensors",
    "performer state build --k k.npy --v v.npy --rows 100: -o b.safetensors",
    "performer state merge a.safetensors b.safetensors -o both.safetensors",
    "performer state info both.safetensors --json | jq .states",
    "performer attend qkv.npz --state-in both.safetensors -o output.npy",
    "performer state build qkv.npz --block-rows 32 -o blocks/",
    "performer state slide blocks/ --blocks 8 -o windows/",
  ],
  async run(invocation, terminal) {
    const { runState } = await import("./state_run.ts");
    return await runState(invocation, terminal);
  },
};
