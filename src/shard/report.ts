/** What one action of `performer shard` did: plain data. */
import type { SessionCounts } from "../backend.ts";
import type { Refusal } from "../report.ts";
import type { Engine, ShardAction } from "./actions.ts";
import type { Seconds } from "./compute.ts";
import type { PlannedAttention, ShardPlan } from "./plan.ts";
import { shardCount, stateBytes } from "./plan.ts";
import { type Survey, unfinished } from "./states.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const SHARD_SCHEMA = "performer-shard/1";

/** A plan in a report. */
export interface PlanSummary {
  readonly path: string;
  readonly id: string;
  readonly fingerprint: string;
  readonly shards: number;
  readonly keyRows: number;
  readonly queryRows: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  /** Bytes of the sums of one state. */
  readonly stateBytes: number;
  readonly attention: PlannedAttention & { readonly params: string | null };
}

/** What `--json` prints; what an action has not is null. */
export interface ShardReport {
  readonly schema: typeof SHARD_SCHEMA;
  readonly command: "shard";
  readonly action: ShardAction;
  readonly plan: PlanSummary;
  /** Of the machine it ran on. */
  readonly host: string;
  /** The shard that was asked for, and where its number came from. */
  readonly shard: { readonly id: number; readonly from: string } | null;
  /** Rows that were read or written: keys, queries. */
  readonly rows: { readonly start: number; readonly end: number } | null;
  /** It was done before, and is valid: nothing was computed. */
  readonly skipped: boolean | null;
  readonly backend: { readonly name: string; readonly device: string; readonly refused: readonly Refusal[] } | null;
  /** Where it was written, and how many bytes. */
  readonly output: { readonly path: string; readonly bytes: number } | null;
  readonly seconds: Seconds | null;
  readonly tokensPerSecond: number | null;
  readonly counts: SessionCounts | null;
  /** Folders that were looked at. */
  readonly folders: readonly FolderReport[];
  /** Every shard is done in every folder. */
  readonly complete: boolean | null;
  /** Bytes of states that were read. */
  readonly bytesRead: number | null;
  /** Whose script it is. */
  readonly engine: Engine | null;
  readonly peakBytes: number;
}

/** A folder in a report. */
export interface FolderReport {
  readonly path: string;
  readonly done: number;
  readonly missing: readonly number[];
  readonly damaged: readonly number[];
  readonly foreign: readonly string[];
  readonly doubles: readonly string[];
}

export function summaryOf(plan: ShardPlan): PlanSummary {
  const { path, id, fingerprint, sizes, attention, fit } = plan;
  return {
    path,
    id,
    fingerprint,
    shards: shardCount(plan),
    ...sizes,
    stateBytes: stateBytes(sizes.kvHeads, attention.numFeatures, sizes.valueDim),
    attention: { ...attention, params: fit && fit.source },
  };
}

export const folderReport = ({ folder, done, missing, damaged, foreign, doubles }: Survey): FolderReport => {
  return { path: folder, done: done.length, missing, damaged, foreign, doubles };
};

/** "3, 17-19": numbers in ascending order, as Slurm and cut write them. */
export function idList(ids: readonly number[], gap = ","): string {
  const runs: [number, number][] = [];
  for (const id of ids) {
    const last = runs.at(-1);
    if (last && id === last[1] + 1) last[1] = id;
    else runs.push([id, id]);
  }
  return runs.map(([from, to]) => from === to ? `${from}` : `${from}-${to}`).join(gap);
}

/** What is wrong with a folder, in words; "" where nothing is. */
export function troubleIn(survey: Survey): string {
  const { missing, damaged, foreign, doubles } = survey;
  const parts = [
    missing.length > 0 ? `missing: ${idList(missing)}` : "",
    damaged.length > 0 ? `damaged: ${idList(damaged)}` : "",
    foreign.length > 0 ? `not of this plan: ${foreign.join(", ")}` : "",
    doubles.length > 0 ? `held twice: ${doubles.join(", ")}` : "",
  ].filter((part) => part !== "");
  return parts.join("; ");
}

/** The way out of it: which shards to run again, in Slurm's words, and which files to take away. */
export function remedy(survey: Survey, action: "map" | "apply"): string {
  const again = unfinished(survey);
  const away = [...survey.foreign, ...survey.doubles];
  return [
    again.length > 0
      ? `run ${action} again for ${again.length === 1 ? "it" : "them"} (sbatch --array=${idList(again)} …)`
      : "",
    away.length > 0
      ? `move ${away.length === 1 ? "the file" : "the files"} that ${
        away.length === 1 ? "does" : "do"
      } not belong there`
      : "",
  ].filter((part) => part !== "").join("; ");
}
