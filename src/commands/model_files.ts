/** A checkpoint and its configuration as files. */
import { openFile } from "../bytes.ts";
import { InputError, UsageError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import { type Configuration, parseConfiguration } from "../model/arguments.ts";
import type { Description, ModelLayout } from "../model/description.ts";
import { recognise } from "../model/recognise.ts";
import type { Invocation } from "./command.ts";
import { type Kernel, type RulesName, rulesNamed } from "../rules_table.ts";

/** A configuration longer than this is another file by mistake. */
const MOST_BYTES = 1 << 24;

/** Reads `--config`; null without one. */
export async function readConfiguration(path: string | undefined): Promise<Configuration | null> {
  if (path === undefined) return null;
  await using file = await openFile(path);
  if (file.byteLength > MOST_BYTES) {
    throw new InputError(`Cannot use "${path}": it has ${file.byteLength} bytes, expected a small JSON file`);
  }
  const bytes = new Uint8Array(file.byteLength);
  await file.read(bytes, 0);
  return parseConfiguration(path, new TextDecoder().decode(bytes));
}

/** The model of an open checkpoint as `--config` and `--part` have it; throws InputError for what is none. */
export async function describedBy(flags: Invocation["flags"], container: Container): Promise<Description> {
  const configuration = await readConfiguration(flags.config as string | undefined);
  return recognise(container.path, container.members, { configuration, part: flags.part as string | undefined });
}

/** The layout of a model that can be run; throws UsageError with the reason for others. */
export function runnable(model: string, { layout, unknown, reason, title }: Description): ModelLayout {
  if (!layout) throw new UsageError(`Cannot run "${model}" (${title}): ${reason}`);
  if (unknown.length > 0) {
    throw new UsageError(`Cannot run "${model}": its tensors do not tell ${unknown.join("; ")}; say so with --config`);
  }
  return layout;
}

/** What attention computes, in words. */
export function numericsWords(rules: RulesName, kernel: Kernel | null): string {
  if (kernel === "exact-softmax") {
    return "exact softmax attention, no features; performer drift measures what features change";
  }
  return `${rules}: ${rulesNamed(rules).summary}`;
}

/** What `run`, `drift` and `inspect` say of a model. */
export function summaryOf({ family, title, versions, rules, architecture, assumed, extra }: Description) {
  return { family, title, versions: versions?.text ?? null, rules, architecture, assumed, extra };
}
