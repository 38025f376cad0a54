/** Pages on files, settings and what scripts rely on. */
import type { Topic } from "./topic.ts";

const topic = (name: string, page: Omit<Topic, "name" | "group">): Topic => ({ name, group: "topics", ...page });

export const USAGE_TOPICS: readonly Topic[] = [
  topic("formats", {
    summary: "which files are read and written",
    body: [
      {
        terms: [
          [".npy", "[L, D] split by --heads, [H, L, d] or [B, H, L, d] (--layout lhd: rows first)"],
          [".npz", "members q, k and v, or one array"],
          [".safetensors", "the same; bf16 too"],
          ["FASTA, text", "read with --encode kmer:K, plain or gzip"],
          [
            ".pt .pth .bin .ckpt",
            "checkpoints: read without executing anything, by inspect, convert, run, generate and drift",
          ],
          ["-", "a .npy on stdin, or on stdout after -o"],
        ],
      },
      "Nothing is read whole: memory does not grow with the number of rows. Outputs appear under their name only when they are complete.",
    ],
    examples: [
      "performer inspect model.pt",
      "performer attend --q q.npy --k k.npy --v v.npy -o out.npy",
      "performer attend genome.fa --encode kmer:6",
      "performer convert model.pt model.safetensors",
    ],
    see: ["attend", "inspect", "convert"],
  }),
  topic("configuration", {
    summary: "defaults of flags from the environment and from files",
    body: [
      "A flag on the command line comes first, then the environment (PERFORMER_NUM_FEATURES for --num-features), then performer.json in the working directory, then " +
      "config.json in $XDG_CONFIG_HOME/performer or ~/.config/performer, then the built-in default. Files are JSON objects whose keys are names of flags:",
      { formula: ['{ "backend": "wasm", "num-features": 512 }'] },
      "Flags that describe one run (--output, --q, --rows, --json and their like) are not taken from there. performer doctor shows every value and where it came " +
      "from. NO_COLOR, FORCE_COLOR, TERM=dumb and --no-color are honoured.",
    ],
    examples: ["performer doctor", "performer attend input.npy --no-color"],
    see: ["doctor", "exit-codes"],
  }),
  topic("shards", {
    summary: "one attention, or a model layer by layer, on many machines, by an engine that is there already",
    body: [
      "A plan says once which rows are which shard and what all shards share. Tasks add a number; files in, files out, so that Slurm, Snakemake, GNU parallel " +
      "or make run them.",
      {
        terms: [
          ["shard plan", "ranges, settings, numbers fitted to the data; which files, with their sizes and hashes"],
          ["shard map", "the state of the keys of one shard: a few MB however many rows"],
          ["shard merge", "their sum, in the order of shards; --scan for causal attention: the sum before each shard"],
          ["shard apply, gather", "the outputs of the queries of one shard; all of them as one tensor"],
          ["shard status, script", "what is missing (exit 5), and the file of an engine"],
        ],
      },
      "What is done and valid is left alone, so that running everything again finishes what failed.",
      "shard plan --weights cuts a whole checkpoint: map, merge and apply are then of one --layer, and every layer waits for the one before.",
    ],
    examples: [
      "performer shard plan qkv.npz --shards 16 -o plan.json",
      "performer shard script plan.json --engine snakemake > Snakefile",
      "performer shard plan tokens.npy --weights model.pt --shards 16 -o plan.json",
    ],
    see: ["shard", "exit-codes", "causal"],
  }),
  topic("exit-codes", {
    summary: "what the exit code says",
    body: [
      {
        terms: [
          ["0", "ok"],
          ["1", "a check failed: --max-error, backends, bench --compare, tune without a setting"],
          ["2", "wrong usage"],
          ["3", "input or weights that cannot be read or are invalid"],
          ["4", "the backend asked for is not available"],
          ["5", "work of others is missing: shards that are not done"],
          ["70", "a bug of ours"],
          ["75", "try again: device lost, out of device memory, disk full, file server away, output in use"],
          ["130, 141, 143", "Ctrl-C, a closed pipe, SIGTERM"],
        ],
      },
    ],
    examples: ["performer attend qkv.npz --max-error 5% --quiet"],
    see: ["error", "json"],
  }),
  topic("json", {
    summary: "reports for programs: --json and --format",
    body: [
      "--json prints exactly one JSON object on stdout (on stderr where stdout carries the tensor), with the same keys on every backend; schema names its form. " +
      "--format csv and md print tables; bench has jsonl as well. Progress and messages go to stderr, and only a terminal gets progress.",
    ],
    examples: [
      "performer attend qkv.npz --json | jq .error.relativeL2.value",
      "performer compare qkv.npz --format csv > table.csv",
      "performer inspect model.pt --json | jq .model",
    ],
    see: ["exit-codes", "error"],
  }),
];
