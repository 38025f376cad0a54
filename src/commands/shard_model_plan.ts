/** `performer shard plan INPUT --weights MODEL`: a whole checkpoint over one sequence, cut by rows in every layer. */
import { InputError, UsageError } from "../errors.ts";
import type { OutputDType } from "../formats/decode.ts";
import { openContainer } from "../formats/mod.ts";
import { outputCols } from "../model/output.ts";
import { plannedModel, whyWhole } from "../model/shards.ts";
import { idOfModelPlan, type ModelPlan, type ModelPlanContent, modelPlanText } from "../shard/model_plan.ts";
import { cutShards, requireState } from "../shard/plan.ts";
import { VERSION } from "../version.ts";
import type { Invocation, Terminal } from "./command.ts";
import { describedBy, runnable } from "./model_files.ts";
import { measureSequence } from "./model_inputs.ts";
import { plannedFiles, wishOf, writePlan } from "./shard_plan.ts";
import type { Done } from "./shard_run.ts";

/** Makes a plan and writes it, to stdout where no file is named. */
export async function planModel(invocation: Invocation, terminal: Terminal): Promise<Done> {
  const { arguments: names, flags } = invocation;
  const started = performance.now();
  const { shards, output, path, folder } = wishOf(invocation);
  if (names.length !== 1) {
    throw new UsageError(
      `Cannot plan with ${names.length} files and --weights: expected INPUT, tokens [L] or rows [L, dim]`,
    );
  }
  if (flags.compat !== "exact") {
    throw new UsageError(
      `Cannot plan shards of a model with --compat ${flags.compat}: its states do not add up; only exact has such states`,
    );
  }
  const [input] = names;
  const model = String(flags.weights);
  const { files, place } = plannedFiles(folder);
  const placed = {
    model: (await place(model))!,
    tokens: (await place(input))!,
    mask: await place(flags.mask),
    config: await place(flags.config),
    part: (flags.part as string | undefined) ?? null,
  };
  await using container = await openContainer(model);
  const description = await describedBy(flags, container);
  const layout = runnable(model, description);
  const encodings = flags.encodings === true;
  const why = whyWhole(layout, encodings);
  if (why) throw new UsageError(`Cannot plan shards of "${model}": ${why}`);
  const { length, batched } = await measureSequence(input, layout);
  if (layout.maxLength !== null && length > layout.maxLength) {
    throw new InputError(`Cannot run "${input}": it has ${length} rows, "${model}" takes at most ${layout.maxLength}`);
  }
  const planned = await plannedModel(container, description, layout);
  for (const { heads, features, headDim } of planned.layers) requireState(heads, features, headDim);
  const content: ModelPlanContent = {
    files,
    input: placed,
    model: planned,
    encodings,
    output: {
      dtype: (flags["output-dtype"] as Exclude<OutputDType, "i32"> | undefined) ?? "f32",
      shape: [...(batched ? [1] : []), length, outputCols(layout, encodings)],
    },
    shards: cutShards({ keyRows: length, queryRows: length }, shards),
  };
  const plan: ModelPlan = { ...content, version: VERSION, id: idOfModelPlan(VERSION, content), path, folder };
  return await writePlan(plan, modelPlanText(plan), output, started, terminal);
}
