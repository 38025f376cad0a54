/**
 * What `attend --batch --resume` knows of outputs that are there: notes in their folder say with which settings a batch was begun, and the notes'
 * own age when.
 */
import { join } from "node:path";
import { changeTime, readText, writeText } from "../bytes.ts";
import { InputError, UsageError } from "../errors.ts";
import { VERSION } from "../version.ts";
import { REPORTING } from "./attend_resume.ts";
import type { BatchItem } from "./batch_list.ts";
import type { Invocation } from "./command.ts";

const SCHEMA = "performer-batch-notes/1";
const NAME = ".performer-batch.json";
/** Flags that outputs do not depend on beyond rounding, and the list, which may grow. */
const FREE: ReadonlySet<string> = new Set([...REPORTING, "output", "batch", "resume", "checkpoint-seconds", "threads"]);
/** Flags that name files which every input is attended with. */
const FILES: ReadonlySet<string> = new Set(["mask", "projection-matrix", "weights", "config", "state-in"]);

/** Settings of a batch by flag. */
type Settings = Readonly<Record<string, string>>;

/** The folder's notes. */
export class BatchNotes {
  private constructor(
    /** When the batch was begun whose outputs may stay, in milliseconds since 1970; null: it begins now. */
    readonly begun: number | null,
  ) {}

  /** With --resume takes up the notes of a batch of the same settings, else writes new ones. Throws UsageError for other settings. */
  static async open(folder: string, { flags }: Invocation): Promise<BatchNotes> {
    const path = join(folder, NAME);
    const settings = settingsOf(flags);
    const begun = flags.resume === true ? changeTime(path) : null;
    if (begun !== null) {
      refuseOther(await readNotes(path), settings, path);
      return new BatchNotes(begun);
    }
    await writeText(path, JSON.stringify({ schema: SCHEMA, settings }, null, 2) + "\n");
    return new BatchNotes(null);
  }

  /** Whether the output is that of this batch, and younger than its input. Outputs get their names when they are complete. */
  has({ input, output }: BatchItem): boolean {
    if (this.begun === null || output === null) return false;
    const written = changeTime(output);
    if (written === null || written < this.begun) return false;
    const changed = changeTime(input);
    return changed !== null && changed <= written;
  }
}

function settingsOf(flags: Invocation["flags"]): Settings {
  const settings = Object.entries(flags).filter(([name, value]) => value !== undefined && !FREE.has(name));
  const words = settings.map(([name, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return [`--${name}`, FILES.has(name) ? `${text}, changed at ${changeTime(text)}` : text];
  });
  return Object.fromEntries([["version", VERSION], ...words]);
}

async function readNotes(path: string): Promise<Settings> {
  try {
    const { schema, settings } = JSON.parse(await readText(path));
    if (schema === SCHEMA && typeof settings === "object" && settings) return settings;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new InputError(`Cannot go on with the batch of "${path}": it is damaged; remove it to begin anew`);
}

function refuseOther(before: Settings, now: Settings, path: string): void {
  const names = [...new Set([...Object.keys(before), ...Object.keys(now)])];
  const other = names.filter((name) => before[name] !== now[name]);
  if (other.length === 0) return;
  const words = other.map((name) => `${name} was ${before[name] ?? "not given"} and is ${now[name] ?? "not given"}`);
  throw new UsageError(
    `Cannot go on with the batch of "${path}": ${
      words.join(", ")
    }; use the same settings, or leave --resume out to begin anew`,
  );
}
