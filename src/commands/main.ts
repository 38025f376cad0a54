/** From argv to an exit code: parse, look up configuration, run, and turn errors into words. */
import { Command as Commander, CommanderError, Option } from "commander";
import { PerformerError, UsageError } from "../errors.ts";
import { VERSION } from "../version.ts";
import { nearest } from "../words.ts";
import type { Command, Flag, Invocation, Source, Terminal } from "./command.ts";
import { COMMANDS } from "./mod.ts";

const SHORT_HELP = `performer — Performer (FAVOR+) linear attention over files of any length, with its error against exact softmax

  performer attend genome.fa --encode kmer:6
  performer attend input.npy --heads 8 --causal -o output.npy

performer --help lists the commands, performer attend --help the flags of one.
`;

/** Runs one command line. */
export async function main(argv: readonly string[], terminal: Terminal): Promise<number> {
  try {
    if (argv.length === 0) {
      terminal.out(SHORT_HELP);
      return 0;
    }
    const chosen = parse(argv, terminal);
    if (typeof chosen === "number") return chosen;
    const { command, invocation, given } = chosen;
    return await command.run(await configured(command, invocation, given, terminal), terminal);
  } catch (error) {
    return explain(error, terminal);
  }
}

/** Says what went wrong and returns the exit code. */
export function explain(error: unknown, terminal: Terminal): number {
  if (terminal.signal.aborted) return 130;
  if ((error as { code?: string } | null)?.code === "EPIPE") return 141;
  if (error instanceof PerformerError) {
    terminal.err(`performer: ${error.message}\n`);
    return error.exitCode;
  }
  const words = error instanceof Error ? error.stack ?? error.message : String(error);
  terminal.err(`performer: this is a bug in performer ${VERSION}, please report it with the command you ran\n${words}\n`);
  return 70;
}

interface Parsed {
  readonly command: Command;
  readonly invocation: Invocation;
  /** Names of the flags on the command line. */
  readonly given: ReadonlySet<string>;
}

function parse(argv: readonly string[], terminal: Terminal): Parsed | number {
  let parsed: Parsed | null = null;
  const root = new Commander("performer").exitOverride().version(VERSION, "-V, --version", "print the version")
    .description(SHORT_HELP.split("\n")[0]).configureOutput({ writeOut: terminal.out, writeErr: terminal.err })
    .configureHelp({ helpWidth: Math.min(120, terminal.columns) }).showSuggestionAfterError(true);
  for (const command of COMMANDS) {
    const sub = root.command(command.name).summary(command.summary).description(command.summary);
    for (const argument of command.arguments) {
      sub.argument(argument.optional ? `[${argument.name}]` : `<${argument.name}>`, argument.summary);
    }
    for (const flag of command.flags) sub.addOption(optionOf(flag));
    sub.addHelpText("after", `\nExamples:\n${command.examples.map((example) => `  ${example}\n`).join("")}`);
    sub.action((...values: unknown[]) => {
      const args = values.slice(0, command.arguments.length).filter((value) => value !== undefined) as string[];
      const flags = Object.fromEntries(command.flags.map((flag) => [flag.name, valueOf(sub, flag)]));
      const given = new Set(command.flags.filter((flag) => sub.getOptionValueSource(keyOf(flag)) === "cli").map((flag) => flag.name));
      parsed = { command, invocation: { arguments: args, flags, sources: {} }, given };
    });
  }
  try {
    root.parse(argv as string[], { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  return parsed ?? 2;
}

/** "num-features" → "numFeatures"; "no-color" → "color", which commander negates. */
function keyOf(flag: Flag): string {
  return flag.name.replace(/^no-/, "").replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

function valueOf(sub: Commander, flag: Flag): unknown {
  const value = sub.getOptionValue(keyOf(flag));
  return flag.name.startsWith("no-") ? value === false : value;
}

function optionOf(flag: Flag): Option {
  const names = `${flag.short ? `-${flag.short}, ` : ""}--${flag.name}${flag.value ? ` <${flag.value}>` : ""}`;
  const choices = flag.choices ? `: ${flag.choices.join(", ")}` : "";
  const option = new Option(names, flag.summary + choices);
  if (flag.default !== undefined) option.default(flag.default);
  if (flag.value) option.argParser((text: string) => parseValue(flag, text, `--${flag.name}`));
  return option;
}

/** The value of a flag from text; `place` names where the text stands. */
function parseValue(flag: Flag, text: string, place: string): unknown {
  if (!flag.value) {
    if (text === "true" || text === "1") return true;
    if (text === "false" || text === "0") return false;
    throw new UsageError(`Cannot use ${place} ${text}: expected true or false`);
  }
  if (flag.choices && !flag.choices.includes(text)) {
    const near = nearest(text, flag.choices);
    throw new UsageError(
      `Cannot use ${place} ${text}: ${near ? `did you mean ${near}? ` : ""}expected one of ${flag.choices.join(", ")}`,
    );
  }
  try {
    return flag.parse ? flag.parse(text) : text;
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`Cannot use ${place} ${text}: ${error.message}`);
    throw error;
  }
}

/** Fills in what the command line left out from the environment and the configuration files. */
async function configured(command: Command, invocation: Invocation, given: ReadonlySet<string>, terminal: Terminal): Promise<Invocation> {
  const { configurationFor } = await import("./config.ts");
  const configuration = configurationFor(terminal);
  const flags = { ...invocation.flags };
  const sources: Record<string, Source> = {};
  for (const flag of command.flags) {
    sources[flag.name] = given.has(flag.name) ? "flag" : "default";
    if (given.has(flag.name)) continue;
    const found = await configuration.lookup(flag);
    if (!found) continue;
    flags[flag.name] = parseValue(flag, found.value, `${found.place}: ${flag.name} =`);
    sources[flag.name] = found.source;
  }
  return { ...invocation, flags, sources };
}
