/** `performer shard merge`, `gather` and `status` of a plan of a model. */
import { dirname } from "node:path";
import { InputError } from "../errors.ts";
import { isMerged, layerStates, surveyLayerStates } from "../shard/layer_states.ts";
import { layerPlan, type ModelPlan, placesOf, seenBy } from "../shard/model_plan.ts";
import { readPart, surveyParts } from "../shard/parts.ts";
import { folderReport, type NextStep } from "../shard/report.ts";
import { allShards, isComplete, shardsBefore, type Survey, surveyStates, unfinished } from "../shard/states.ts";
import type { Invocation, Terminal } from "./command.ts";
import type { Progress } from "./progress.ts";
import { gatherInto, INCOMPLETE, mergeInto } from "./shard_merge.ts";
import { layerOf, rootOf } from "./shard_model_tasks.ts";
import { reportOf } from "./shard_open.ts";
import type { Done } from "./shard_run.ts";

/** The states of one layer as one, or for causal models those before each shard. */
export async function mergeLayer(
  plan: ModelPlan,
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<Done> {
  const index = layerOf(plan, invocation);
  const root = rootOf(plan, invocation);
  const layer = layerPlan(plan, index);
  const report = { ...reportOf("merge", plan, terminal), layer: index };
  const { merged: output } = placesOf(plan, root, index);
  const again = `map --layer ${index}`;
  const merging = { plan: layer, files: layerStates(layer), report, scan: plan.model.causal, output, again };
  return await mergeInto(merging, await statesOf(plan, root, index), { invocation, terminal, progress });
}

/** States of the shards of a layer; those made of other rows than are there now count as damaged. */
async function statesOf(plan: ModelPlan, root: string, index: number): Promise<Survey> {
  const { states } = placesOf(plan, root, index);
  const layer = layerPlan(plan, index);
  if (index === 0) return await surveyStates(layer, states);
  const before = layerPlan(plan, index - 1);
  const { rows } = placesOf(plan, root, index - 1);
  return await surveyLayerStates(layer, states, async (id) => {
    try {
      const note = await readPart(before, rows, id);
      return note?.plan === before.id ? note.state : null;
    } catch (error) {
      if (error instanceof InputError) return null; // the rows say nothing of themselves
      throw error;
    }
  });
}

/** The outputs behind the last layer as one tensor. */
export async function gatherModel(
  plan: ModelPlan,
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<Done> {
  const { arguments: [, root = dirname(plan.path)] } = invocation;
  const last = plan.model.layers.length - 1;
  const { rows } = placesOf(plan, root, last);
  const report = reportOf("gather", plan, terminal);
  const call = { invocation, terminal, progress };
  return await gatherInto(layerPlan(plan, last), rows, report, `apply --layer ${last}`, call);
}

/** What there is of every layer, and what comes next. */
export async function modelStatus(
  plan: ModelPlan,
  { arguments: [, root = dirname(plan.path)] }: Invocation,
  terminal: Terminal,
): Promise<Done> {
  const layers: { readonly states: Survey; readonly rows: Survey }[] = [];
  for (const index of plan.model.layers.keys()) {
    const rows = await surveyParts(layerPlan(plan, index), placesOf(plan, root, index).rows);
    layers.push({ states: await statesOf(plan, root, index), rows });
  }
  const complete = isComplete(layers.at(-1)!.rows);
  const folders = layers.flatMap(({ states, rows }) => [states, rows].map(folderReport));
  const next = complete ? null : await nextStep(plan, root, layers);
  return {
    report: { ...reportOf("status", plan, terminal), folders, complete, next },
    code: complete ? 0 : INCOMPLETE,
  };
}

/** What can be done now, at the layer after the last one whose rows are all there. */
async function nextStep(
  plan: ModelPlan,
  root: string,
  layers: readonly { readonly states: Survey; readonly rows: Survey }[],
): Promise<NextStep | null> {
  const layer = layers.findLastIndex(({ rows }) => unfinished(rows).length === 0) + 1;
  if (layer === layers.length) return null; // there are files that do not belong there
  const { states, rows } = layers[layer];
  const shards = unfinished(rows);
  const places = placesOf(plan, root, layer);
  const of = (id: number) => plan.model.causal ? shardsBefore(id) : allShards(plan);
  let merged = true;
  for (const id of shards) merged &&= await isMerged(layerPlan(plan, layer), seenBy(plan, places, id), of(id));
  if (merged) return { action: "apply", layer, shards };
  if (isComplete(states)) return { action: "merge", layer, shards: [] };
  return { action: "map", layer, shards: unfinished(states) };
}
