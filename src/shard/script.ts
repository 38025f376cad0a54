/**
 * Files with which an engine that is there already runs all tasks of a plan. They hold names and numbers of shards alone: what each shard is
 * stands in the plan. All leave alone what is done, so running them again finishes what failed; all try again after exit 75 and nothing else.
 */
import { basename } from "node:path";
import { UsageError } from "../errors.ts";
import { plain, shellLine } from "../words.ts";
import { STATE_SUFFIX } from "../state_file.ts";
import type { Engine } from "./actions.ts";
import { isModelPlan, type ModelPlan, placesOf } from "./model_plan.ts";
import { shardCount, shardName, type ShardPlan } from "./plan.ts";
import { makeScript } from "./script_make.ts";
import { parallelScript } from "./script_parallel.ts";
import { slurmScript } from "./script_slurm.ts";
import { snakemakeScript } from "./script_snakemake.ts";

/** What every script is made of. */
export interface ScriptParts {
  /** Absolute; everything is written there. */
  readonly folder: string;
  /** The plan's name in it. */
  readonly plan: string;
  readonly shards: number;
  /** Digits of a shard in names of files. */
  readonly digits: number;
  readonly causal: boolean;
  /** One after the other: one attention, or the layers of a model. */
  readonly stages: readonly ScriptStage[];
  readonly gather: string;
  /** null: as many as the engine gives a task. */
  readonly threads: number | null;
}

/** Map, merge and apply of one attention. Names of folders are without a slash at their end; commands are without `--id` and `--threads`. */
export interface ScriptStage {
  /** Before names of jobs: "", or which layer it is. */
  readonly name: string;
  readonly states: string;
  /** The last file that merge writes, and what apply reads with the shard's number in place of `ID`. */
  readonly merged: string;
  readonly seen: string;
  /** Folder of parts. */
  readonly rows: string;
  readonly map: string;
  readonly merge: string;
  readonly apply: string;
}

export interface ScriptWish {
  /** How performer is called, as a shell reads it. */
  readonly program: string;
  readonly backend: string;
  readonly threads?: number;
  readonly tile?: number;
}

const SCRIPTS: Readonly<Record<Engine, (parts: ScriptParts) => string>> = {
  slurm: slurmScript,
  snakemake: snakemakeScript,
  parallel: parallelScript,
  make: makeScript,
};

/** The file of an engine. Throws UsageError for names that files of some engine cannot hold. */
export function engineScript(engine: Engine, plan: ShardPlan | ModelPlan, wish: ScriptWish): string {
  const { program, threads } = wish;
  const { folder } = plan;
  const name = basename(plan.path);
  for (const text of [folder, name, program]) {
    if (plain(text) === text && !/[{}"'`$#%\\]/.test(text)) continue;
    throw new UsageError(
      `Cannot write "${plain(text)}" into a script: use names without quotes, braces, $, #, % and \\`,
    );
  }
  if (engine === "make" && /\s/.test(folder + name)) {
    throw new UsageError(`Cannot write "${folder}/${name}" into a Makefile: it has no rules for names with spaces`);
  }
  const parts = isModelPlan(plan) ? modelStages(plan, name, wish) : attentionStages(plan, name, wish);
  const digits = shardName(plan, 0).length;
  return SCRIPTS[engine]({ folder, plan: name, shards: shardCount(plan), digits, threads: threads ?? null, ...parts });
}

/** A command of performer, and flags of those that compute. */
const commandOf = ({ program }: ScriptWish, ...words: string[]) => `${program} shard ${shellLine(words)}`;
const computing = ({ backend, tile }: ScriptWish) => [
  ...(backend === "auto" ? [] : ["--backend", backend]),
  ...(tile ? ["--tile", String(tile)] : []),
];

type Stages = Pick<ScriptParts, "causal" | "stages" | "gather">;

/** What apply reads, and the last file of what merge writes: a file, or for causal attention one for every shard in a folder. */
function mergedFiles(
  plan: ShardPlan | ModelPlan,
  causal: boolean,
  state: string,
): Pick<ScriptStage, "merged" | "seen"> {
  if (!causal) return { merged: state, seen: state };
  return {
    merged: `${state}/${shardName(plan, shardCount(plan) - 1)}${STATE_SUFFIX}`,
    seen: `${state}/ID${STATE_SUFFIX}`,
  };
}

function attentionStages(plan: ShardPlan, name: string, wish: ScriptWish): Stages {
  const { causal } = plan.attention;
  const state = causal ? "prefix" : `kv${STATE_SUFFIX}`;
  const to = causal ? `${state}/` : state;
  const how = computing(wish);
  return {
    causal,
    stages: [{
      name: "",
      states: "states",
      ...mergedFiles(plan, causal, state),
      rows: "out",
      map: commandOf(wish, "map", name, "-o", "states/", ...how),
      merge: commandOf(wish, "merge", name, "states/", ...(causal ? ["--scan"] : []), "-o", to),
      apply: commandOf(wish, "apply", name, "--state", to, "-o", "out/", ...how),
    }],
    gather: commandOf(wish, "gather", name, "out/", "-o", "out.npy"),
  };
}

function modelStages(plan: ModelPlan, name: string, wish: ScriptWish): Stages {
  const { causal, layers } = plan.model;
  const stages = layers.map((_, layer): ScriptStage => {
    const { states, merged, rows } = placesOf(plan, "", layer);
    const at = (action: string, ...more: string[]) => commandOf(wish, action, name, "--layer", String(layer), ...more);
    return {
      name: `layer${layer}-`,
      states,
      ...mergedFiles(plan, causal, merged),
      rows,
      map: at("map", ...computing(wish)),
      merge: at("merge"),
      apply: at("apply", ...computing(wish)),
    };
  });
  return { causal, stages, gather: commandOf(wish, "gather", name, "-o", "out.npy") };
}
