/**
 * Parts of the output as files: NAME.npy holds the rows of one shard, NAME.json beside it says of which plan and state they are. The note is
 * removed before a part is written and appears after it, so that a note never stands beside other rows than its own.
 */
import { join } from "node:path";
import { changeTime, listFolder, openFile, readText, temporaries, writeText } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { openContainer } from "../formats/mod.ts";
import { openSink, type SinkOptions } from "../formats/sink.ts";
import type { TensorSink } from "../tensor.ts";
import { FieldError, Fields, jsonOf } from "../fields.ts";
import { type PartsPlan, rangesOfShard, shardCount, shardName } from "./plan.ts";
import type { Survey } from "./states.ts";

/** Raised when a key of a note changes its meaning or goes away. */
export const PART_SCHEMA = "performer-part/1";
const MAX_NOTE = 1 << 16;

/** What a note says. */
export interface PartNote {
  /** Id of the plan. */
  readonly plan: string;
  readonly shard: number;
  /** Digest of the state that it was computed with. */
  readonly state: string;
  /** Size of the .npy. */
  readonly bytes: number;
}

/** Where rows stand among the axes of a shape. */
export function rowAxis({ output, input }: Pick<PartsPlan, "output" | "input">): number {
  const { length } = output.shape;
  if (length === 2 || input.layout === "lhd") return length === 4 ? 1 : 0;
  return length === 3 ? 1 : 2;
}

/** How the rows of a shard are written: the axes of the whole output with fewer rows. */
export function partOptions(plan: PartsPlan, id: number): SinkOptions {
  const { start, end } = rangesOfShard(plan, id).queries;
  const axis = rowAxis(plan);
  const { output: { dtype, shape }, sizes: { heads, valueDim }, input: { layout } } = plan;
  return { dtype, shape: shape.map((size, i) => i === axis ? end - start : size), heads, width: valueDim, layout };
}

const paths = (plan: PartsPlan, folder: string, id: number) => {
  const name = join(folder, shardName(plan, id));
  return { rows: `${name}.npy`, note: `${name}.json` };
};

/** Opens the part of a shard for writing, which invalidates the one that was there. */
export async function openPart(plan: PartsPlan, folder: string, id: number): Promise<TensorSink & { path: string }> {
  const { rows, note } = paths(plan, folder, id);
  temporaries.remove(note);
  return Object.assign(await openSink(rows, partOptions(plan, id)), { path: rows });
}

/** Says of which plan and state a part is that has been written; returns the size of the part in bytes. */
export async function notePart(plan: PartsPlan, folder: string, id: number, state: string): Promise<number> {
  const { rows, note } = paths(plan, folder, id);
  const bytes = await sizeOf(rows);
  const said: PartNote = { plan: plan.id, shard: id, state, bytes };
  await writeText(note, JSON.stringify({ schema: PART_SCHEMA, ...said }) + "\n");
  return bytes;
}

async function sizeOf(path: string): Promise<number> {
  await using file = await openFile(path);
  return file.byteLength;
}

/** The note of a part; null where there is none that fits its rows. Throws InputError for one that cannot be read. */
export async function readPart(plan: PartsPlan, folder: string, id: number): Promise<PartNote | null> {
  const { rows, note } = paths(plan, folder, id);
  if (changeTime(note) === null || changeTime(rows) === null) return null;
  const size = await sizeOf(note);
  if (size > MAX_NOTE) {
    throw new InputError(`Cannot read "${note}": it has ${size} bytes, expected at most ${MAX_NOTE}`);
  }
  let said: PartNote;
  try {
    const fields = new Fields(jsonOf(await readText(note)), "");
    fields.choice("schema", [PART_SCHEMA]);
    said = {
      plan: fields.hash("plan"),
      shard: fields.whole("shard", 0),
      state: fields.hash("state"),
      bytes: fields.whole("bytes", 0),
    };
    fields.done();
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    throw new InputError(`Cannot read "${note}": ${error.message}`, { cause: error });
  }
  return said.bytes === await sizeOf(rows) ? said : null;
}

/**
 * Looks at the notes of all parts in a folder. Parts by different states of one plan do not belong together: those that differ from the first
 * one are `damaged`.
 */
export async function surveyParts(plan: PartsPlan, folder: string): Promise<Survey> {
  const wanted = new Set<string>();
  const lists = { done: [] as number[], missing: [] as number[], damaged: [] as number[] };
  const foreign: string[] = [];
  let state: string | null = null;
  for (let id = 0; id < shardCount(plan); id++) {
    wanted.add(`${shardName(plan, id)}.npy`);
    let note: PartNote | null;
    try {
      note = await readPart(plan, folder, id);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      lists.damaged.push(id);
      continue;
    }
    if (note === null) lists.missing.push(id);
    else if (note.plan !== plan.id || note.shard !== id) {
      lists.missing.push(id);
      foreign.push(`${shardName(plan, id)}.npy`);
    } else if (!plan.attention.causal && note.state !== (state ??= note.state)) lists.damaged.push(id);
    else lists.done.push(id);
  }
  const names = listFolder(folder).filter(({ name, isFolder }) => !isFolder && /^\d+\.npy$/.test(name));
  foreign.push(...names.filter(({ name }) => !wanted.has(name)).map(({ name }) => name));
  return { folder, ...lists, foreign, doubles: [] };
}

/** Rows that are copied at once. */
const COPIED_ROWS = 1024;

/** Writes all parts, one after the other, as one tensor. Throws InputError for a part that is not of its shape. */
export async function gatherParts(
  plan: PartsPlan,
  folder: string,
  sink: TensorSink,
  step: (done: number) => Promise<void>,
): Promise<void> {
  const { sizes: { heads, valueDim }, input: { layout }, output: { dtype } } = plan;
  const precision = dtype === "f64" ? "f64" : "f32";
  for (let id = 0; id < shardCount(plan); id++) {
    const { rows: path } = paths(plan, folder, id);
    const { start } = rangesOfShard(plan, id).queries;
    const { shape } = partOptions(plan, id);
    await using container = await openContainer(path);
    const [member] = container.members;
    if (member.shape.join() !== shape.join() || member.dtype !== dtype) {
      throw new InputError(
        `Cannot use "${path}": it is ${member.typeName} [${member.shape.join(", ")}], expected ${dtype} [${
          shape.join(", ")
        }]`,
      );
    }
    const source = await container.open(undefined, { heads: shape.length === 2 ? heads : undefined, layout });
    if (source.info.width !== valueDim) {
      throw new InputError(`Cannot use "${path}": its rows are ${source.info.width} wide`);
    }
    for await (const tile of source.tiles(COPIED_ROWS, { precision })) {
      await sink.write({ ...tile, start: start + tile.start });
    }
    await step(id + 1);
  }
  await sink.finish();
}
