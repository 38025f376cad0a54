/**
 * Defaults from the session, the environment and files: flags > session (`:set` of the REPL) > environment > project file > user file > built-in default.
 *
 * A file is JSON whose keys are flag names, e.g. `{ "backend": "scalar", "num-features": 512 }`:
 * `performer.json` in the working directory, `$XDG_CONFIG_HOME/performer/config.json` for the user.
 */
import { join } from "node:path";
import { openFile } from "../bytes.ts";
import { InputError, UsageError } from "../errors.ts";
import { nearest } from "../words.ts";
import type { Flag, Source, Terminal } from "./command.ts";
import { COMMANDS } from "./mod.ts";

/** Flags that describe one run and have no sensible default elsewhere. */
export const PER_RUN: ReadonlySet<string> = new Set([
  "output",
  "batch",
  "q",
  "k",
  "v",
  "mask",
  "rows",
  "state-in",
  "state-out",
  "like",
  "blocks",
  "block-rows",
  "allow-duplicates",
  "json",
  "jsonl",
  "dry-run",
  "no-color",
  "compare",
  "export-data",
  "export-spec",
  "report",
  "command",
  "file",
  "tour",
  "id",
  "state",
  "scan",
  "force",
]);
const MAX_BYTES = 1 << 20;

export interface Configuration {
  files(): Promise<{ label: Source; path: string; found: boolean }[]>;
  /** The text configured for a flag and where it came from; null when nothing is. */
  lookup(flag: Flag): Promise<{ value: string; source: Source; place: string } | null>;
}

/** Whether the environment and configuration files may set it: false where it describes one run. */
export const settable = (flag: Flag): boolean => !PER_RUN.has(flag.name);

/** "num-features" → "PERFORMER_NUM_FEATURES". */
export const variableFor = (flag: Flag): string => `PERFORMER_${flag.name.toUpperCase().replaceAll("-", "_")}`;

export function configurationFor(terminal: Terminal): Configuration {
  const home = terminal.env.XDG_CONFIG_HOME || join(terminal.env.HOME ?? terminal.cwd, ".config");
  const places: { label: Source; path: string }[] = [
    { label: "project file", path: join(terminal.cwd, "performer.json") },
    { label: "user file", path: join(home, "performer", "config.json") },
  ];
  const read = places.map(({ label, path }) => ({
    label,
    path,
    values: null as Promise<Record<string, string> | null> | null,
  }));
  return {
    files: async () => {
      return await Promise.all(read.map(async (file) => {
        return { label: file.label, path: file.path, found: await (file.values ??= readValues(file.path)) !== null };
      }));
    },
    async lookup(flag) {
      if (!settable(flag)) return null;
      const set = terminal.settings?.[flag.name];
      if (set !== undefined) return { value: set, source: "session", place: ":set" };
      const variable = variableFor(flag);
      const fromEnvironment = terminal.env[variable];
      if (fromEnvironment) return { value: fromEnvironment, source: "environment", place: variable };
      for (const file of read) {
        const values = await (file.values ??= readValues(file.path));
        if (values?.[flag.name] !== undefined) {
          return { value: values[flag.name], source: file.label, place: file.path };
        }
      }
      return null;
    },
  };
}

/** A choice that this command does not have and another of the same name does: `format` is md for `attend`, not for `inspect`. */
export function meantForOthers({ name, choices }: Flag, value: string): boolean {
  if (!choices || choices.includes(value)) return false;
  return COMMANDS.some(({ flags }) => flags.some((flag) => flag.name === name && flag.choices?.includes(value)));
}

async function readValues(path: string): Promise<Record<string, string> | null> {
  let text: string;
  try {
    await using file = await openFile(path);
    if (file.byteLength > MAX_BYTES) {
      throw new UsageError(`Cannot read "${path}": it is larger than ${MAX_BYTES} bytes`);
    }
    const bytes = new Uint8Array(file.byteLength);
    await file.read(bytes, 0);
    text = new TextDecoder().decode(bytes);
  } catch (error) {
    if (error instanceof InputError && (error.cause as { code?: string } | undefined)?.code === "ENOENT") return null;
    throw error;
  }
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`Cannot read "${path}": ${(error as Error).message}, expected a JSON object`);
  }
  if (typeof values !== "object" || values === null || Array.isArray(values)) {
    throw new UsageError(`Cannot read "${path}": expected a JSON object of flag names and values`);
  }
  const known = [...new Set(COMMANDS.flatMap((command) => command.flags).map((flag) => flag.name))].filter((name) =>
    !PER_RUN.has(name)
  );
  const entries = Object.entries(values).map(([name, value]) => {
    if (!known.includes(name)) {
      const near = nearest(name, known);
      throw new UsageError(
        `Cannot use "${name}" in "${path}": no such setting${near ? `, did you mean "${near}"?` : ""}`,
      );
    }
    if (!["string", "number", "boolean"].includes(typeof value)) {
      throw new UsageError(`Cannot use "${name}" in "${path}": expected a string, a number or true/false`);
    }
    return [name, String(value)];
  });
  return Object.fromEntries(entries);
}
