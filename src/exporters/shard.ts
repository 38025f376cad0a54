/** What an action of `shard` did, for people. */
import { idList, type NextStep, type PlanSummary, type ShardReport } from "../shard/report.ts";
import { bytesText, count, decayText, duration } from "../words.ts";

const LABEL = 15;
const line = (label: string, text: string) => `  ${label.padEnd(LABEL)}${text}\n`;

/** Text that ends with a newline. */
export function shardText(report: ShardReport, { color }: { readonly color: boolean }): string {
  const { action, plan, shard, rows, skipped, backend, output, seconds, tokensPerSecond } = report;
  const bold = (text: string) => color ? `\x1b[1m${text}\x1b[22m` : text;
  const layer = report.layer === null ? "" : ` · layer ${report.layer} of ${plan.model!.layers}`;
  const which = shard ? ` · shard ${shard.id} of ${count(plan.shards)}` : ` · ${count(plan.shards)} shards`;
  const range = rows ? ` · rows ${count(rows.start)} to ${count(rows.end - 1)}` : ` · ${count(plan.keyRows)} rows`;
  let text = bold(`performer shard ${action}`) + layer + which + range + "\n";
  if (action === "plan" && plan.model) text += modelText(plan, plan.model);
  if (action === "plan" && plan.attention) {
    const { features, numFeatures, projection, seed, causal, decay, params } = plan.attention;
    text += line(
      "attention",
      [
        features,
        `m = ${count(numFeatures)}`,
        projection,
        `seed ${seed}`,
        causal ? "causal" : "bidirectional",
        ...(decay ? [decay === "alibi" ? "decay alibi" : decayText(decay)] : []),
        ...(params ? [`fitted to ${params}`] : []),
      ].join(", "),
    );
    text += line("heads", `${plan.heads} × ${plan.headDim}, ${plan.kvHeads} of keys, values ${plan.valueDim} wide`);
    text += line("state", `${bytesText(plan.stateBytes)} each, ${bytesText(plan.stateBytes * plan.shards)} in all`);
  }
  if (skipped) text += line("there already", `${output!.path} is valid, nothing was computed`);
  else if (output) text += line(action === "plan" ? "plan" : "written", `${output.path}, ${bytesText(output.bytes)}`);
  if (backend) text += line("backend", `${backend.name} · ${backend.device}`);
  if (tokensPerSecond !== null && seconds) {
    text += line(
      "throughput",
      `${count(tokensPerSecond)} tokens/s · compute ${duration(seconds.compute)} of ${duration(seconds.total)}`,
    );
  } else if (seconds) text += line("time", duration(seconds.total));
  for (const { path, done, missing, damaged, foreign, doubles } of report.folders) {
    text += line("folder", `${path} · ${count(done)} of ${count(plan.shards)} done`);
    if (missing.length > 0) text += line("missing", idList(missing, ", "));
    if (damaged.length > 0) text += line("damaged", idList(damaged, ", "));
    if (foreign.length > 0) text += line("foreign", foreign.join(", "));
    if (doubles.length > 0) text += line("held twice", doubles.join(", "));
  }
  if (report.next) text += line("next", nextText(report.next));
  return text;
}

function modelText(plan: PlanSummary, model: NonNullable<PlanSummary["model"]>): string {
  const { title, layers, causal, kernel, rules, numFeatures } = model;
  const states = plan.stateBytes * plan.shards;
  const own = rules === "exact"
    ? ""
    : ` (performer run takes the checkpoint's own, ${rules}, unless --compat exact is given)`;
  return line(
    "model",
    `${title}, ${layers} ${layers === 1 ? "layer" : "layers"}, ${kernel}, ${causal ? "causal" : "bidirectional"}`,
  ) +
    line("numerics", `exact${own}`) +
    line("heads", `${plan.heads} × ${plan.headDim}, m = ${count(numFeatures)}`) +
    line("state", `${bytesText(plan.stateBytes)} each, ${bytesText(states)} in every layer`);
}

function nextText({ action, layer, shards }: NextStep): string {
  return `${action} --layer ${layer}${shards.length > 0 ? ` for ${idList(shards, ", ")}` : ""}`;
}
