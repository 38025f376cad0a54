/** `js …`: JavaScript with the library and the session's variables in scope. */
import type { Terminal } from "../commands/command.ts";
import { UsageError } from "../errors.ts";
import { load, save } from "../library/files.ts";
import { Tensor } from "../library/tensor.ts";
import type { Scope } from "./evaluate.ts";
import { loadFile } from "./load.ts";
import { aloneFile } from "./tensors.ts";
import { plainValue, type TensorValue, type Value } from "./values.ts";
import { wordsKnown } from "./script.ts";
import type { Workspace } from "./workspace.ts";

type AsyncFunction = (...values: unknown[]) => Promise<unknown>;
const AsyncFunction = (async () => {}).constructor as new (...words: string[]) => AsyncFunction;

/**
 * Runs code: an expression, or statements with `return`. Tensors of the session are those of the library (`await x.read()` has the
 * numbers), reports are objects. What it returns is a value; a tensor is written to a file of the session. Throws UsageError for what does not
 * parse or throws.
 */
export async function runScript(code: string, { variables, workspace }: Scope, world: Terminal): Promise<Value> {
  await using open = new AsyncDisposableStack();
  const names: Record<string, unknown> = { ...await world.library?.() };
  // Only what the code names is opened.
  for (const [name, value] of wordsKnown(code, variables)) {
    if (value.kind === "tensor") {
      const file = value.flags.encode === undefined ? value : await aloneFile(workspace, value);
      names[name] = open.use(await opened(file));
    } else if (value.kind === "report") names[name] = value.report;
    else if (value.kind === "plain") names[name] = value.value;
    else {
      const parts: Record<string, unknown> = { path: value.path };
      if (value.kind === "inputs") {
        for (const { name: member } of value.members) {
          parts[member] = open.use(await load(value.path, { ...viewOf(value), name: member }));
        }
      }
      names[name] = parts;
    }
  }
  const run = compile(code.replace(/;\s*$/, ""), Object.keys(names)) ?? compile(code, Object.keys(names), true)!;
  let result: unknown;
  try {
    result = await run(...Object.values(names));
  } catch (error) {
    if (world.signal.aborted) throw error;
    throw new UsageError(`JavaScript: ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`);
  }
  if (!(result instanceof Tensor)) return plainValue(result);
  const path = workspace.newPath(".npy");
  await save(path, result);
  const { heads } = result.info;
  return await loadFile(path, result.shape.length <= 2 && heads > 1 ? { heads } : { layout: result.layout }, world);
}

/** Code as a function; null for statements where an expression was tried. */
function compile(code: string, names: readonly string[], statements = false): AsyncFunction | null {
  try {
    return new AsyncFunction(...names, `"use strict";${statements ? code : `return (${code}\n)`}`);
  } catch (error) {
    if (!statements) return null;
    throw new UsageError(`JavaScript: ${(error as Error).name}: ${(error as Error).message}`);
  }
}

const viewOf = ({ flags, rows }: { flags: TensorValue["flags"]; rows: TensorValue["rows"] }) => ({
  heads: flags.heads === undefined ? undefined : Number(flags.heads),
  layout: flags.layout as "hld" | "lhd" | undefined,
  dtype: flags.dtype as "bf16" | undefined,
  rows: rows ? [rows.start, rows.end] as const : undefined,
});

async function opened(value: TensorValue): Promise<Tensor> {
  return await load(value.path, { ...viewOf(value), ...(value.alone ? {} : { name: value.member }) });
}

/** Writes a tensor to a file, by its suffix. */
export async function saveTensor(path: string, value: TensorValue, workspace: Workspace): Promise<void> {
  await using tensor = await opened(value.flags.encode === undefined ? value : await aloneFile(workspace, value));
  await save(path, tensor);
}
