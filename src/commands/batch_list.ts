/**
 * The list of a batch: one input a line, and where its output goes.
 *
 *     rows/a.npy                 → FOLDER/a.npy
 *     rows/b.fa                  → FOLDER/b.fa.npy
 *     rows/c.npy<TAB>sub/d.npz   → FOLDER/sub/d.npz
 */
import { basename, dirname, isAbsolute, join, normalize, resolve } from "node:path";
import { openFile, streamText } from "../bytes.ts";
import { whereIs } from "../disk_names.ts";
import { InputError, UsageError } from "../errors.ts";
import { outputFormat } from "../formats/sink.ts";
import { count } from "../words.ts";
import { endsIn, TENSOR_FILES } from "./file_names.ts";

/** One line of a list. */
export interface BatchItem {
  /** From 1. */
  readonly line: number;
  /** As it stands in the list: relative to the working directory. */
  readonly input: string;
  /** null: outputs are not kept. */
  readonly output: string | null;
}

/** Larger files are tensors that were named by mistake. */
const MOST_BYTES = 2 ** 28;

/**
 * Reads a list; `path` "-" is standard input. Blank lines and those that begin with # are left out. Throws InputError where it cannot be read or
 * names nothing, UsageError for a line that cannot be followed and for two that write the same file.
 */
export async function readBatchList(path: string, folder: string | null): Promise<BatchItem[]> {
  const name = path === "-" ? "standard input" : `"${path}"`;
  const text = path === "-" ? await standardInput() : await fileText(path);
  if (text.includes("\0")) {
    throw new InputError(`Cannot read the list ${name}: it is not text, expected the path of an input on each line`);
  }
  const items = parseBatchList(text, name, folder);
  if (items.length === 0) {
    throw new InputError(`Cannot read the list ${name}: it names no input, expected the path of one on each line`);
  }
  if (folder !== null) refuseCollisions(items, name);
  return items;
}

async function fileText(path: string): Promise<string> {
  await using file = await openFile(path);
  if (file.byteLength > MOST_BYTES) throw tooLarge(`"${path}"`);
  const bytes = new Uint8Array(file.byteLength);
  await file.read(bytes, 0);
  return new TextDecoder().decode(bytes);
}

async function standardInput(): Promise<string> {
  const parts: string[] = [];
  let letters = 0;
  for await (const part of streamText()) {
    parts.push(part);
    letters += part.length;
    if (letters > MOST_BYTES) throw tooLarge("standard input");
  }
  return parts.join("");
}

const tooLarge = (name: string) =>
  new InputError(
    `Cannot read the list ${name}: it is larger than any list of paths; a single tensor is named without --batch`,
  );

/** The lines of a list. Throws UsageError, which names the line. */
export function parseBatchList(text: string, name: string, folder: string | null): BatchItem[] {
  const items: BatchItem[] = [];
  for (const [i, full] of text.split("\n").entries()) {
    const line = full.endsWith("\r") ? full.slice(0, -1) : full;
    if (line.trim() === "" || line.startsWith("#")) continue;
    const wrong = (why: string) => new UsageError(`Cannot use line ${count(i + 1)} of ${name}: ${why}`);
    const [input, given, ...more] = line.split("\t");
    if (input === "" || given === "" || more.length > 0) {
      throw wrong("expected the path of an input, and after a tab, if you like, the name of its output");
    }
    if (input === "-") throw wrong("standard input is no file of a batch");
    if (given !== undefined && folder === null) {
      throw wrong(`it names the output "${given}" and there is no --output FOLDER to put it in`);
    }
    items.push({ line: i + 1, input, output: folder === null ? null : join(folder, outputName(input, given, wrong)) });
  }
  return items;
}

/** Where an output lies in the folder: its input's name, with .npy behind it where nothing writes such files. */
function outputName(input: string, given: string | undefined, wrong: (why: string) => UsageError): string {
  if (given === undefined) {
    const own = basename(input);
    return endsIn(own, TENSOR_FILES) ? own : `${own}.npy`;
  }
  const name = normalize(given);
  if (isAbsolute(name) || name === ".." || name.startsWith("../")) {
    throw wrong(`the output "${given}" lies outside of the folder of --output; name a file in it`);
  }
  try {
    outputFormat(name);
  } catch (error) {
    throw wrong((error as Error).message);
  }
  return name;
}

/** Two inputs must not have one output, nor may an output take the place of an input. */
function refuseCollisions(items: readonly BatchItem[], name: string): void {
  const folders = new Map<string, string>();
  /** With links of its folder followed; many files lie in few folders. */
  const placeOf = (path: string): string => {
    const folder = dirname(path);
    let place = folders.get(folder);
    if (place === undefined) folders.set(folder, place = whereIs(folder));
    return join(place, basename(path));
  };
  const outputs = new Map<string, BatchItem>();
  for (const item of items) {
    const place = placeOf(item.output!);
    const other = outputs.get(place);
    if (other) {
      throw new UsageError(
        `Cannot write both line ${count(other.line)} ("${other.input}") and line ${
          count(item.line)
        } ("${item.input}") of ` +
          `${name} to "${item.output}": name the output of one of them behind a tab`,
      );
    }
    outputs.set(place, item);
  }
  for (const { line, input } of items) {
    const other = outputs.get(placeOf(input)) ?? outputs.get(resolve(input));
    if (!other) continue;
    throw new UsageError(
      `Cannot write line ${count(other.line)} of ${name} to "${other.output}": that is the input of line ${
        count(line)
      }; ` +
        "give --output another folder",
    );
  }
}
