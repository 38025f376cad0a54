/** What `inspect` says of the model in a file. */
import { InputError } from "../errors.ts";
import type { FileDescription } from "../formats/mod.ts";
import type { Assumption } from "../model/description.ts";
import { recognise } from "../model/recognise.ts";
import { type RulesName, rulesNamed } from "../rules_table.ts";
import { readConfiguration } from "./model_files.ts";

/** Fewer tensors than a smallest attention layer has are no model. */
const FEWEST = 4;

export interface InspectedModel {
  readonly family: string;
  readonly title: string;
  readonly versions: string | null;
  readonly rules: RulesName;
  readonly architecture: Readonly<Record<string, unknown>>;
  readonly assumed: readonly Assumption[];
  readonly unknown: readonly string[];
  readonly extra: readonly { readonly name: string; readonly nearest: string | null }[];
  /** Why it cannot be run; null where it can. */
  readonly reason: string | null;
}

/** The model of a file; null for files of other tensors, or why it is none of the known ones. */
export async function inspectModel(
  { path, tensors }: FileDescription,
  config: string | undefined,
): Promise<InspectedModel | { readonly family: null; readonly reason: string } | null> {
  if (tensors.length < FEWEST) return null;
  const configuration = await readConfiguration(config);
  try {
    const { family, title, versions, rules, architecture, assumed, unknown, extra, reason } = recognise(path, tensors, {
      configuration,
    });
    return { family, title, versions: versions?.text ?? null, rules, architecture, assumed, unknown, extra, reason };
  } catch (error) {
    if (!(error instanceof InputError) || configuration) throw error;
    return { family: null, reason: error.message };
  }
}

/** The same in words. */
export function modelWords(model: NonNullable<Awaited<ReturnType<typeof inspectModel>>>): string[] {
  if (model.family === null) return [`  model        ${model.reason}`];
  const { title, versions, rules, architecture, assumed, unknown, extra, reason } = model;
  const list = (facts: Iterable<[string, unknown]>) =>
    [...facts].map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(
      ", ",
    );
  const lines = [
    `  model        ${title}${versions ? `, performer-pytorch ${versions}` : ""}`,
    `  architecture ${list(Object.entries(architecture))}`,
    `  numerics     ${rules}: ${rulesNamed(rules).summary}`,
  ];
  if (assumed.length > 0) {
    const said = assumed.map(({ argument, value, from }): [string, unknown] => {
      return [argument, from === "config" ? value : `${JSON.stringify(value)} (not in the tensors)`];
    });
    lines.push(`  assumed      ${list(said)}; --config says otherwise`);
  }
  for (const what of unknown) lines.push(`  must be told ${what}`);
  for (const { name, nearest } of extra) {
    lines.push(`  extra        ${name}${nearest ? `, nearest is ${nearest}` : ""}`);
  }
  if (reason) lines.push(`  not run      ${reason}`);
  return lines;
}
