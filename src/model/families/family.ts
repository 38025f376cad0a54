/** What a family of models is to the recogniser. */
import type { Configuration } from "../arguments.ts";
import type { Description, TensorHeader } from "../description.ts";

/** What a family reads. */
export interface Candidate {
  readonly path: string;
  readonly headers: readonly TensorHeader[];
  readonly configuration: Configuration | null;
}

/** One family: one file in this folder and one line in recognise.ts. */
export interface Family {
  /** Names for people, as lists of what is supported show them. */
  readonly title: string;
  /** Prefixes under which the tensors of such a model stand; empty when it is none. */
  prefixes(names: readonly string[]): readonly string[];
  /** Reads the model under a prefix. Throws InputError for what cannot be one. */
  describe(candidate: Candidate, prefix: string): Description;
}

/** Letters of a name beyond which it is no model's: anchors take the square of it. */
const LONGEST_NAME = 512;

/** What stands before `anchor` in the names, each once. */
export function prefixesOf(names: readonly string[], anchor: RegExp): string[] {
  const found = new Set<string>();
  for (const name of names) {
    if (name.length > LONGEST_NAME || /(^|\.)proj_updater\.instance\./.test(name)) continue;
    const match = anchor.exec(name);
    if (match) found.add(match[1]);
  }
  return [...found];
}

/** Those of the prefixes under which a tensor called `rest` stands. */
export function withTensor(prefixes: readonly string[], names: readonly string[], rest: string): string[] {
  const all = new Set(names);
  return prefixes.filter((prefix) => all.has(prefix + rest));
}
