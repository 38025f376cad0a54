/** Files as values: what a file holds decides what the variable is. */
import { openInputs } from "../commands/attend_files.ts";
import type { Terminal } from "../commands/command.ts";
import { openFile } from "../bytes.ts";
import { InputError, PerformerError, UsageError } from "../errors.ts";
import type { Member } from "../formats/container.ts";
import { openContainer } from "../formats/mod.ts";
import { recognise } from "../model/recognise.ts";
import type { RowRange } from "../tensor.ts";
import { resolveRows } from "../commands/flags.ts";
import { withRows } from "./tensors.ts";
import { plainValue, type TensorValue, type Value } from "./values.ts";

/** A JSON file that is read whole. */
const MOST_JSON = 256 * 2 ** 20;

/** Ways of reading a file, as flags of `load`. */
export interface Reading {
  readonly heads?: number;
  readonly layout?: "hld" | "lhd";
  readonly dtype?: "bf16";
  readonly encode?: string;
  readonly seed?: number;
  readonly rows?: { start: number | null; end: number | null };
}

/** The value of a file; headers are read, and no more. Throws InputError for what no command reads. */
export async function loadFile(path: string, reading: Reading, terminal: Terminal): Promise<Value> {
  if (path === "-") throw new UsageError("Cannot load standard input in a session: name a file");
  if (path.toLowerCase().endsWith(".json")) return await loadJson(path);
  const { rows: slice, seed, ...rest } = reading;
  const flags = Object.fromEntries(
    Object.entries({ ...rest, ...(rest.encode === undefined ? {} : { seed }) }).filter(([, value]) =>
      value !== undefined
    )
      .map(([name, value]) => [name, String(value)]),
  );
  if (flags.layout === "hld") delete flags.layout;
  if (reading.encode !== undefined) return await loadSequence(path, reading, flags, terminal);
  await using container = await openContainer(path, { dtype: reading.dtype });
  const members = container.members.map(({ name, shape }) => ({ name, shape }));
  const names = members.map(({ name }) => name);
  const view = { heads: reading.heads, layout: reading.layout };
  const rangeIn = (total: number): RowRange | null => slice ? resolveRows(slice, total, `"${path}"`) : null;
  if (["q", "k", "v"].every((name) => names.includes(name))) {
    const { info } = await container.open("k", view);
    return {
      kind: "inputs",
      path,
      flags,
      rows: rangeIn(info.rows),
      members: ["q", "k", "v"].map((name) => members.find((member) => member.name === name)!),
    };
  }
  if (members.length === 1) {
    const { info } = await container.open(names[0], view);
    const rows = rangeIn(info.rows);
    const shape = rows ? withRows(info.shape, rows.end - rows.start, reading.layout ?? "hld") : info.shape;
    return { kind: "tensor", path, member: names[0], alone: true, flags, rows, dtype: info.dtype, shape, report: null };
  }
  if (slice) throw new UsageError(`Cannot use --rows with "${path}": it holds ${members.length} tensors`);
  return { kind: "model", path, format: container.format, family: familyOf(path, container.members), members };
}

/** A sequence is rows once it is encoded; nothing is encoded yet. */
async function loadSequence(
  path: string,
  reading: Reading,
  flags: Record<string, string>,
  terminal: Terminal,
): Promise<TensorValue> {
  const { heads, encode, seed = 0, rows: slice } = reading;
  const invocation = { line: [], arguments: [path], flags: { heads, encode, seed, layout: "hld" }, sources: {} };
  const opened = await openInputs(invocation, terminal);
  await using _files = opened.files;
  const { info } = opened.inputs.q;
  const rows = slice ? resolveRows(slice, info.rows, `"${path}"`) : null;
  const shape = [rows ? rows.end - rows.start : info.rows, info.heads * info.width];
  return { kind: "tensor", path, member: info.name, alone: true, flags, rows, dtype: "f32", shape, report: null };
}

/** A report that was saved, or any other JSON. */
async function loadJson(path: string): Promise<Value> {
  await using file = await openFile(path);
  if (file.byteLength > MOST_JSON) throw new InputError(`Cannot read "${path}": it is larger than ${MOST_JSON} bytes`);
  const bytes = new Uint8Array(file.byteLength);
  await file.read(bytes, 0);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new InputError(`Cannot read "${path}": ${(error as Error).message}, expected JSON`);
  }
  const { schema, command } = (value ?? {}) as { schema?: unknown; command?: unknown };
  return typeof schema === "string" && schema.startsWith("performer-")
    ? { kind: "report", report: value as Record<string, unknown>, line: `${command ?? "command"} (${path})` }
    : plainValue(value);
}

function familyOf(path: string, members: readonly Member[]): string | null {
  try {
    return recognise(
      path,
      members.map(({ name, shape, dtype, typeName }) => ({ name, shape, dtype: dtype ?? typeName })),
    ).family;
  } catch (error) {
    if (error instanceof PerformerError) return null;
    throw error;
  }
}

/** A name for a variable, from a file's: "my-genome.fa.gz" → "my_genome". */
export function nameFor(path: string): string {
  const base = path.split(/[\\/]/).at(-1)!.split(".")[0].replace(/\W/g, "_");
  return /^[A-Za-z_]/.test(base) ? base : `x${base}`;
}
