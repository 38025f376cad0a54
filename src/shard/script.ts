/**
 * Files with which an engine that is there already runs all tasks of a plan. They hold names and numbers of shards alone: what each shard is
 * stands in the plan. All leave alone what is done, so running them again finishes what failed; all try again after exit 75 and nothing else.
 */
import { basename } from "node:path";
import { UsageError } from "../errors.ts";
import { plain, shellLine } from "../words.ts";
import type { Engine } from "./actions.ts";
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
  /** What merge writes: a file, or the folder of a scan; and the last file that it writes. */
  readonly state: string;
  readonly merged: string;
  /** Shell commands without `--id` and `--threads`. */
  readonly map: string;
  readonly merge: string;
  readonly apply: string;
  readonly gather: string;
  /** null: as many as the engine gives a task. */
  readonly threads: number | null;
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
export function engineScript(engine: Engine, plan: ShardPlan, { program, backend, threads, tile }: ScriptWish): string {
  const { folder, attention: { causal } } = plan;
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
  const shards = shardCount(plan);
  const digits = shardName(plan, 0).length;
  const state = causal ? "prefix/" : "kv.safetensors";
  const command = (...words: string[]) => `${program} shard ${shellLine(words)}`;
  const how = [...(backend === "auto" ? [] : ["--backend", backend]), ...(tile ? ["--tile", String(tile)] : [])];
  return SCRIPTS[engine]({
    folder,
    plan: name,
    shards,
    digits,
    causal,
    state,
    merged: causal ? `prefix/${shardName(plan, shards - 1)}.safetensors` : state,
    map: command("map", name, "-o", "states/", ...how),
    merge: command("merge", name, "states/", ...(causal ? ["--scan"] : []), "-o", state),
    apply: command("apply", name, "--state", state, "-o", "out/", ...how),
    gather: command("gather", name, "out/", "-o", "out.npy"),
    threads: threads ?? null,
  });
}
