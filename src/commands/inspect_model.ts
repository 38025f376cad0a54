/** What `inspect` says of the model in a file. */
import { InputError } from "../errors.ts";
import type { FileDescription } from "../formats/mod.ts";
import type { Description } from "../model/description.ts";
import { recognise } from "../model/recognise.ts";
import type { Kernel } from "../rules_table.ts";
import { assumedText, factsText } from "../words.ts";
import { numericsWords, readConfiguration, summaryOf } from "./model_files.ts";

/** Fewer tensors than a smallest attention layer has are no model. */
const FEWEST = 4;

/** A model, what it must be told to run, and why it cannot; null where it can. */
export type InspectedModel =
  & ReturnType<typeof summaryOf>
  & Pick<Description, "unknown" | "reason">
  & { readonly kernel: Kernel | null };

/** The model of a file; null for files of other tensors, or why it is none of the known ones. */
export async function inspectModel(
  { path, tensors }: FileDescription,
  config: string | undefined,
): Promise<InspectedModel | { readonly family: null; readonly reason: string } | null> {
  if (tensors.length < FEWEST) return null;
  const configuration = await readConfiguration(config);
  try {
    const description = recognise(path, tensors, { configuration });
    const { unknown, reason, layout } = description;
    return { ...summaryOf(description), kernel: layout?.kernel ?? null, unknown, reason };
  } catch (error) {
    if (!(error instanceof InputError) || configuration) throw error;
    return { family: null, reason: error.message };
  }
}

/** The same in words. */
export function modelWords(model: NonNullable<Awaited<ReturnType<typeof inspectModel>>>): string[] {
  if (model.family === null) return [`  model        ${model.reason}`];
  const { title, versions, rules, kernel, architecture, assumed, unknown, extra, reason } = model;
  const lines = [
    `  model        ${title}${versions ? `, performer-pytorch ${versions}` : ""}`,
    `  architecture ${factsText(Object.entries(architecture))}`,
    `  numerics     ${numericsWords(rules, kernel)}`,
  ];
  if (assumed.length > 0) lines.push(`  assumed      ${assumedText(assumed)}`);
  for (const what of unknown) lines.push(`  must be told ${what}`);
  for (const { name, nearest } of extra) {
    lines.push(`  extra        ${name}${nearest ? `, nearest is ${nearest}` : ""}`);
  }
  if (reason) lines.push(`  not run      ${reason}`);
  return lines;
}
