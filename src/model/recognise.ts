/** Which model a checkpoint holds, from the names, shapes and element types of its tensors and, where given, a configuration. */
import { InputError, UsageError } from "../errors.ts";
import type { Configuration } from "./arguments.ts";
import type { Description, TensorHeader } from "./description.ts";
import { bert } from "./families/bert.ts";
import { bulkFormer } from "./families/bulkformer.ts";
import { encDec } from "./families/enc_dec.ts";
import type { Family } from "./families/family.ts";
import { gpt2 } from "./families/gpt2.ts";
import { llama } from "./families/llama.ts";
import { molformer } from "./families/molformer.ts";
import { performer, scFoundation, selfAttention } from "./families/performer.ts";
import { performerLm } from "./families/performer_lm.ts";

/** In the order they are tried: wholes before their parts. */
const FAMILIES: readonly Family[] = [
  encDec,
  performerLm,
  bulkFormer,
  scFoundation,
  performer,
  selfAttention,
  molformer,
  bert,
  gpt2,
  llama,
];

/** What can be told about a file before anything is read of its tensors. */
export interface RecogniseOptions {
  readonly configuration?: Configuration | null;
  /** Only tensors whose names start so, such as "gb_formers.0.f.3." of a BulkFormer. */
  readonly part?: string;
}

/**
 * Describes the model of a checkpoint. Pure: nothing is read.
 * Throws InputError for an unknown family, for missing tensors, wrong shapes and contradictions of the configuration.
 */
export function recognise(path: string, headers: readonly TensorHeader[], options: RecogniseOptions = {}): Description {
  const chosen = options.part === undefined ? headers : partOf(path, headers, options.part);
  const names = chosen.map(({ name }) => name);
  for (const family of FAMILIES) {
    const prefixes = family.prefixes(names);
    if (prefixes.length === 0) continue;
    const candidate = { path, headers: chosen, configuration: options.configuration ?? null };
    return family.describe(candidate, onePrefix(path, family, prefixes));
  }
  throw new InputError(
    `Cannot recognise the model of "${path}": it holds ${listed(names)}, expected the tensors of ` +
      FAMILIES.map(({ title }) => title).join(", "),
  );
}

/** Tensors whose names start with `part`, which may lack its last dot. */
function partOf(path: string, headers: readonly TensorHeader[], part: string): TensorHeader[] {
  const start = part === "" || part.endsWith(".") ? part : `${part}.`;
  const found = headers.filter(({ name }) => name.startsWith(start));
  if (found.length === 0) {
    throw new UsageError(`Cannot use --part ${part}: no tensor of "${path}" has a name that starts so`);
  }
  return found;
}

function onePrefix(path: string, family: Family, prefixes: readonly string[]): string {
  // A copy saved under a longer name (an exponential average, a submodule) does not make the choice ambiguous.
  const shortest = [...prefixes].sort((a, b) => a.length - b.length);
  if (shortest.length === 1 || shortest[0] === "") return shortest[0];
  throw new InputError(
    `Cannot choose a model in "${path}": it holds ${shortest.length} (${family.title}), ` +
      `under ${shortest.slice(0, 6).map((prefix) => `"${prefix}"`).join(", ")}; choose one with --part`,
  );
}

function listed(names: readonly string[]): string {
  if (names.length === 0) return "no tensors";
  const some = names.slice(0, 4).map((name) => `"${name}"`).join(", ");
  return `${names.length} tensors such as ${some}`;
}
