/** Gathers what `doctor` shows. */
import * as os from "node:os";
import { assets } from "../assets.ts";
import { testBackends } from "../backends/self_test.ts";
import { bytesText } from "../words.ts";
import { VERSION } from "../version.ts";
import type { Command, Source, Terminal } from "./command.ts";
import { type Configuration, configurationFor, meantForOthers } from "./config.ts";
import { speedsFile } from "./flags.ts";
import { COMMANDS } from "./mod.ts";

export type Sections = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** What some commands have otherwise than most: one section for each set of commands. */
export function exceptions(settings: readonly Setting[]): Sections {
  const seen = new Set<string>();
  const sections: Record<string, Record<string, string>> = {};
  for (const { name, value, source, commands } of settings) {
    if (seen.has(name)) (sections[`configuration of ${commands.join(", ")}`] ??= {})[name] = `${value} (${source})`;
    seen.add(name);
  }
  return sections;
}

/** A value in force, and for which commands. */
export interface Setting {
  readonly name: string;
  readonly value: string;
  readonly source: Source;
  /** The variable or file it stands in; null for defaults. */
  readonly place: string | null;
  readonly commands: readonly string[];
}

export interface Examined {
  readonly sections: Sections;
  readonly settings: readonly Setting[];
}

export async function examine(terminal: Terminal): Promise<Examined> {
  const { auto, results } = await testBackends({ speeds: speedsFile(terminal.env) });
  const configuration: Record<string, string> = {};
  for (const { path, label, found } of await configurationFor(terminal).files()) {
    configuration[label] = found ? path : `${path} (none)`;
  }
  const settings = await settingsOf(configurationFor(terminal), COMMANDS);
  for (const { name, value, source } of settings) configuration[name] ??= `${value} (${source})`;
  const sections = {
    performer: { version: VERSION, shipped: assets.form, runtime: terminal.runtime },
    machine: {
      system: `${os.type()} ${os.release()} ${os.arch()}`,
      processor: os.cpus()[0]?.model ?? "unknown",
      threads: String(os.availableParallelism()),
      memory: `${bytesText(os.totalmem())}, ${bytesText(os.freemem())} free`,
      temporary: os.tmpdir(),
    },
    backends: { ...Object.fromEntries(results.map(({ name, status, detail }) => [name, `${status} ${detail}`])), auto },
    configuration,
  };
  return { sections, settings };
}

/**
 * The values of all flags of all commands. Commands in which a flag has the same value share an entry; of several entries of a name the one
 * with the most commands comes first. Flags without a value are left out.
 */
export async function settingsOf(configuration: Configuration, commands: readonly Command[]): Promise<Setting[]> {
  const byName = new Map<string, Map<string, Setting>>();
  for (const { name: command, flags } of commands) {
    for (const flag of flags) {
      const found = await configuration.lookup(flag);
      const set = found && !meantForOthers(flag, found.value) ? found : null;
      const value = set?.value ?? flag.default;
      if (value === undefined) continue;
      const entry = { value: String(value), source: set?.source ?? "default" as const, place: set?.place ?? null };
      const entries = byName.get(flag.name) ?? new Map<string, Setting>();
      byName.set(flag.name, entries);
      const key = JSON.stringify(entry);
      const shared = entries.get(key)?.commands ?? [];
      entries.set(key, { name: flag.name, ...entry, commands: [...shared, command] });
    }
  }
  return [...byName.values()].flatMap((entries) =>
    [...entries.values()].sort((a, b) => b.commands.length - a.commands.length)
  );
}
