/** Names: what can be done with shards, and what runs it. Loaded with the command table, so nothing else is here. */

/** What can be done with shards, in the order it is done. */
export const SHARD_ACTIONS = {
  plan: "cut the rows of INPUT, or of Q K V, into --shards; -o plan.json; with --weights in all layers of a checkpoint",
  map: "PLAN: the state of the keys of shard --id; -o states/",
  merge: "PLAN STATES: one state of them all, -o kv.safetensors; causal: --scan -o prefix/",
  apply: "PLAN: outputs of the queries of shard --id by --state; -o out/",
  gather: "PLAN PARTS: one tensor of all outputs; -o out.npy",
  status: "PLAN FOLDER …: which shards are done, missing or damaged; exit 5 unless all are done",
  script: "PLAN: the file with which --engine runs it all",
} as const;
export type ShardAction = keyof typeof SHARD_ACTIONS;

/** What runs tasks. */
export const ENGINES = ["slurm", "snakemake", "parallel", "make"] as const;
export type Engine = typeof ENGINES[number];
