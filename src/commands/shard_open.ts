/** What actions of `shard` begin with: a plan that was read, its files open, the number of a task. */
import os from "node:os";
import type { Attention, GivenProjection } from "../attention.ts";
import { InputError, UsageError } from "../errors.ts";
import type { ModelPlan } from "../shard/model_plan.ts";
import type { PlannedTensor } from "../shard/plan.ts";
import { attentionOf, placeOf, requireFiles, requireShard, type ShardPlan } from "../shard/plan.ts";
import { SHARD_SCHEMA, type ShardReport, summaryOf } from "../shard/report.ts";
import type { ShardAction } from "../shard/actions.ts";
import type { TensorInfo } from "../tensor.ts";
import { sizesOf } from "../run.ts";
import { type OpenedInputs, openInputs, readProjection } from "./attend_files.ts";
import type { Invocation, Terminal } from "./command.ts";

/** A report of which only what all actions have is known. */
export function reportOf(action: ShardAction, plan: ShardPlan | ModelPlan, terminal: Terminal): ShardReport {
  return {
    schema: SHARD_SCHEMA,
    command: "shard",
    action,
    plan: summaryOf(plan),
    host: os.hostname(),
    shard: null,
    layer: null,
    rows: null,
    skipped: null,
    backend: null,
    output: null,
    seconds: null,
    tokensPerSecond: null,
    counts: null,
    folders: [],
    complete: null,
    next: null,
    bytesRead: null,
    engine: null,
    peakBytes: terminal.peakBytes(),
  };
}

/** A tensor in a plan's words. */
export const tensorOf = ({ name, dtype, shape, rows, heads, width, firstRow }: TensorInfo): PlannedTensor => {
  return { name, dtype, shape, rows, heads, width, firstRow };
};

/** Flags of `attend` that open the inputs of a plan again. */
function flagsOf(plan: ShardPlan): { path: string | undefined; flags: Invocation["flags"] } {
  const { input, attention, files } = plan;
  const place = (file: number | null) => file === null ? undefined : placeOf(plan, files[file]);
  return {
    path: place(input.input),
    flags: {
      q: place(input.q),
      k: place(input.k),
      v: place(input.v),
      mask: place(input.mask),
      heads: input.heads ?? undefined,
      "kv-heads": input.kvHeads ?? undefined,
      layout: input.layout,
      dtype: input.dtype ?? undefined,
      encode: input.encode ?? undefined,
      rows: input.rows ?? undefined,
      seed: attention.seed,
      causal: attention.causal,
    },
  };
}

/** Opens the inputs of a plan. Throws InputError where they are not what was planned. */
export async function openPlanned(plan: ShardPlan, terminal: Terminal): Promise<OpenedInputs> {
  await requireFiles(plan);
  const { path, flags } = flagsOf(plan);
  const given = path === undefined ? [] : [path];
  const opened = await openInputs({ line: [], sources: {}, arguments: given, flags }, terminal);
  try {
    const { q, k, v, weights } = opened.inputs;
    for (const [role, source] of [["q", q], ["k", k], ["v", v], ["mask", weights]] as const) {
      const [found, planned] = [source && tensorOf(source.info), plan.tensors[role]];
      if (JSON.stringify(found) === JSON.stringify(planned && tensorOf({ ...planned, path: "", byteLength: 0 }))) {
        continue;
      }
      throw new InputError(
        `Cannot use plan "${plan.path}": ${role} is ${JSON.stringify(found)}, planned was ${JSON.stringify(planned)}`,
      );
    }
    sizesOf(opened.inputs, plan.attention.causal);
    return opened;
  } catch (error) {
    await opened.files.disposeAsync();
    throw error;
  }
}

/** The attention of a plan, with W read where a file holds it. */
export async function plannedAttention(
  plan: ShardPlan,
): Promise<{ attention: Attention; given: GivenProjection | null }> {
  const { projectionMatrix } = plan.input;
  const given = projectionMatrix === null ? null : await readProjection(placeOf(plan, plan.files[projectionMatrix]));
  return { attention: attentionOf(plan, given), given };
}

/** Variables in which engines number their tasks, and the number of the first. How many tasks there are is nobody's business. */
const TASK_NUMBERS: readonly (readonly [variable: string, first: number])[] = [
  ["SLURM_ARRAY_TASK_ID", 0],
  ["PBS_ARRAY_INDEX", 0],
  ["PBS_ARRAYID", 0],
  ["LSB_JOBINDEX", 1],
  ["SGE_TASK_ID", 1],
  ["AWS_BATCH_JOB_ARRAY_INDEX", 0],
  ["JOB_COMPLETION_INDEX", 0],
];

/** The shard that a task is to do: `--id`, or the number that an engine gave it. Throws UsageError where there is none, or two. */
export function shardOf(
  plan: ShardPlan | ModelPlan,
  { flags, sources }: Invocation,
  terminal: Terminal,
): { id: number; from: string } {
  if (flags.id !== undefined) {
    requireShard(plan, flags.id as number);
    return { id: flags.id as number, from: sources.id === "flag" ? "--id" : sources.id };
  }
  const found = TASK_NUMBERS.flatMap(([variable, first]) => {
    const text = terminal.env[variable] ?? "";
    // LSF says 0 and SGE says undefined where a job is no array.
    return /^\d+$/.test(text) && Number(text) >= first ? [{ id: Number(text) - first, from: variable, first }] : [];
  });
  if (found.length === 0) {
    throw new UsageError("Missing --id: say which shard, from 0; in a job array of an engine it is the task's number");
  }
  const other = found.find(({ id }) => id !== found[0].id);
  if (other) {
    throw new UsageError(
      `Cannot choose a shard: it is ${found[0].id} by ${found[0].from} and ${other.id} by ${other.from}, give --id`,
    );
  }
  const { id, from, first } = found[0];
  requireShard(plan, id);
  if (!flags.quiet) terminal.err(`shard ${id} by ${from}${first > 0 ? `, which counts from ${first}` : ""}\n`);
  return { id, from };
}
