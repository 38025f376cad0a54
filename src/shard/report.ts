/** What one action of `performer shard` did: plain data. */
import type { SessionCounts } from "../backend.ts";
import type { Refusal } from "../report.ts";
import type { Engine, ShardAction } from "./actions.ts";
import type { Seconds } from "./compute.ts";
import { isModelPlan, type ModelPlan, type PlannedModel, rowsOfPlan } from "./model_plan.ts";
import type { PlannedAttention, ShardPlan } from "./plan.ts";
import { shardCount, stateBytes } from "./plan.ts";
import { type Survey, unfinished } from "./states.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const SHARD_SCHEMA = "performer-shard/1";

/** A plan in a report. */
export interface PlanSummary {
  readonly path: string;
  readonly id: string;
  /** null: a plan of a model, whose states name the plan and the layer instead. */
  readonly fingerprint: string | null;
  readonly shards: number;
  readonly keyRows: number;
  readonly queryRows: number;
  /** Of a model: of its first layer, and so are the sizes that follow. */
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  /** Bytes of the sums of one state. */
  readonly stateBytes: number;
  /** null: a plan of a model. */
  readonly attention: (PlannedAttention & { readonly params: string | null }) | null;
  /** null: a plan of one attention. */
  readonly model:
    | (Omit<PlannedModel, "layers"> & {
      readonly layers: number;
      /** Length of φ in the first layer. */
      readonly numFeatures: number;
      readonly encodings: boolean;
    })
    | null;
}

/** What is to be done next for a plan of a model: an action at a layer, and for which shards. */
export interface NextStep {
  readonly action: "map" | "merge" | "apply";
  readonly layer: number;
  /** Empty: merge. */
  readonly shards: readonly number[];
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
  /** Of a plan of a model, where an action is of one layer. */
  readonly layer: number | null;
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
  /** Every shard is done in every folder; of a model, in the folder of the last layer's rows. */
  readonly complete: boolean | null;
  /** What is missing first (status of a model); null: nothing. */
  readonly next: NextStep | null;
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

export function summaryOf(plan: ShardPlan | ModelPlan): PlanSummary {
  return isModelPlan(plan) ? modelSummary(plan) : attentionSummary(plan);
}

function attentionSummary(plan: ShardPlan): PlanSummary {
  const { path, id, fingerprint, sizes, attention, fit } = plan;
  return {
    path,
    id,
    fingerprint,
    shards: shardCount(plan),
    ...sizes,
    stateBytes: stateBytes(sizes.kvHeads, attention.numFeatures, sizes.valueDim),
    attention: { ...attention, params: fit && fit.source },
    model: null,
  };
}

function modelSummary(plan: ModelPlan): PlanSummary {
  const { path, id, model, encodings } = plan;
  const [{ heads, headDim, features }] = model.layers;
  const rows = rowsOfPlan(plan);
  return {
    path,
    id,
    fingerprint: null,
    shards: shardCount(plan),
    keyRows: rows,
    queryRows: rows,
    heads,
    kvHeads: heads,
    headDim,
    valueDim: headDim,
    stateBytes: stateBytes(heads, features, headDim),
    attention: null,
    model: { ...model, layers: model.layers.length, numFeatures: features, encodings },
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
export function remedy(survey: Survey, action: string): string {
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
