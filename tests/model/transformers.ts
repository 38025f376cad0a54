/** The models of tests/fixtures/transformers: a folder is a case, with outputs that make.py computed in float64. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { readSequences } from "../../src/commands/model_inputs.ts";
import type { Container } from "../../src/formats/container.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { parseConfiguration } from "../../src/model/arguments.ts";
import type { Description, ModelLayout } from "../../src/model/description.ts";
import type { Sequence } from "../../src/model/embedding.ts";
import { recognise } from "../../src/model/recognise.ts";

export const TRANSFORMERS = ["bert", "roberta", "gpt2", "llama", "qwen2"] as const;

export const fixture = (name: string, file: string) =>
  fileURLToPath(new URL(`../fixtures/transformers/${name}/${file}`, import.meta.url));

/** The mask's path, or undefined where a model has none. */
export const maskOf = (name: string) => existsSync(fixture(name, "mask.npy")) ? fixture(name, "mask.npy") : undefined;

/** What a model that ignores attention is away from the exact one, as make.py found. */
export interface Expected {
  readonly attention: number[];
  readonly hidden: number[];
  readonly logits: number;
  readonly top1: number;
}

export const expectedOf = (name: string): Expected => JSON.parse(readFileSync(fixture(name, "expected.json"), "utf8"));

export const configurationOf = (name: string, more: Record<string, unknown> = {}) => {
  const read = parseConfiguration("config.json", readFileSync(fixture(name, "config.json"), "utf8"));
  return { ...read, values: { ...read.values, ...more } };
};

/** An open model with its layout and sequences. */
export interface OpenModel extends AsyncDisposable {
  readonly container: Container;
  readonly description: Description;
  readonly layout: ModelLayout;
  readonly sequences: readonly Sequence[];
  readonly input: string;
}

export async function openModel(name: string, more: Record<string, unknown> = {}): Promise<OpenModel> {
  const container = await openContainer(fixture(name, "model.safetensors"));
  const description = recognise(container.path, container.members, { configuration: configurationOf(name, more) });
  const input = fixture(name, "tokens.npy");
  const { list } = await readSequences(input, maskOf(name), description.layout!);
  return {
    container,
    description,
    layout: description.layout!,
    sequences: list,
    input,
    [Symbol.asyncDispose]: () => container[Symbol.asyncDispose](),
  };
}

export async function numbers(path: string): Promise<{ shape: readonly number[]; data: ArrayLike<number> }> {
  await using container = await openContainer(path);
  return await container.readAll(undefined, "f64");
}
