/** Command lines read by commander, against the one command table. */
import { Command as Commander, CommanderError, Option } from "commander";
import { UsageError } from "../errors.ts";
import { VERSION } from "../version.ts";
import { nearest, plain } from "../words.ts";
import type { Command, Flag, Invocation, Terminal } from "./command.ts";
import { listOf, oneOf } from "./flags.ts";
import { refuseMistakes } from "./mistakes.ts";
import { COMMANDS, SUMMARY } from "./mod.ts";

/** What a command line asks for. */
export interface Parsed {
  readonly command: Command;
  readonly invocation: Invocation;
  /** Names of the flags on the command line. */
  readonly given: ReadonlySet<string>;
}

/** Reads a command line against the table (or another); a number is the exit code of a help text that was printed. Throws UsageError. */
export function parse(
  argv: readonly string[],
  terminal: Pick<Terminal, "out" | "err" | "columns"> & Partial<Pick<Terminal, "stderrTTY">>,
  commands: readonly Command[] = COMMANDS,
): Parsed | number {
  // Notes are for a person: scripts overrule a flag so.
  for (const note of refuseMistakes(argv, commands)) {
    if (terminal.stderrTTY) terminal.err(`performer: ${plain(note)}\n`);
  }
  let parsed: Parsed | null = null;
  const root = new Commander("performer").exitOverride().version(VERSION, "-V, --version", "print the version")
    .description(SUMMARY).configureOutput({ writeOut: terminal.out, writeErr: terminal.err })
    .configureHelp({ helpWidth: Math.min(120, terminal.columns) }).helpCommand(false);
  for (const command of commands) {
    const sub = root.command(command.name).summary(command.summary).description(command.summary);
    for (const argument of command.arguments) {
      const name = argument.many ? `${argument.name}...` : argument.name;
      sub.argument(argument.optional ? `[${name}]` : `<${name}>`, argument.summary);
    }
    for (const flag of command.flags) sub.addOption(optionOf(flag));
    sub.addHelpText("after", `\nExamples:\n${command.examples.map((example) => `  ${example}\n`).join("")}`);
    sub.action((...values: unknown[]) => {
      const args = values.slice(0, command.arguments.length).flat().filter((value) => value !== undefined) as string[];
      args.forEach((text, i) => {
        const { name, choices } = command.arguments[Math.min(i, command.arguments.length - 1)];
        refuseOther(name, text, choices);
      });
      const flags = Object.fromEntries(command.flags.map((flag) => [flag.name, valueOf(sub, flag)]));
      const given = new Set(
        command.flags.filter((flag) => sub.getOptionValueSource(keyOf(flag)) === "cli").map((flag) => flag.name),
      );
      parsed = { command, invocation: { line: argv, arguments: args, flags, sources: {} }, given };
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

/** What `performer NAME --help` prints on a terminal of some width. */
export function commandHelp(name: string, columns: number): string {
  let text = "";
  parse([name, "--help"], { columns, out: (part) => text += part, err: (part) => text += part });
  return text;
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
  if (flag.default !== undefined) {
    option.default(flag.default, Array.isArray(flag.default) ? flag.default.join(",") : undefined);
  }
  if (flag.value) {
    option.argParser((text: string, before: unknown) => {
      const value = parseValue(flag, text, `--${flag.name}`);
      return flag.many ? [...(before as unknown[] | undefined ?? []), value] : value;
    });
  }
  return option;
}

function refuseOther(place: string, text: string, choices: readonly string[] | undefined): void {
  if (!choices || choices.includes(text)) return;
  const near = nearest(text, choices);
  throw new UsageError(
    `Cannot use ${place} ${text}: ${near ? `did you mean ${near}? ` : ""}expected one of ${choices.join(", ")}`,
  );
}

/** The value of a flag from text; `place` names where the text stands. */
export function parseValue(flag: Flag, text: string, place: string): unknown {
  if (!flag.value) {
    if (text === "true" || text === "1") return true;
    if (text === "false" || text === "0") return false;
    throw new UsageError(`Cannot use ${place} ${text}: expected true or false`);
  }
  if (!flag.list) refuseOther(place, text, flag.choices);
  try {
    if (flag.parse) return flag.parse(text);
    return flag.list && flag.choices ? listOf(oneOf(flag.choices))(text) : text;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const meant = error.message.includes("did you mean") ? null : offerMeant(text, flag.offers);
    throw new UsageError(`Cannot use ${place} ${text}: ${meant ? `did you mean ${meant}? ` : ""}${error.message}`);
  }
}

/** "smple:64" → "sample:64": a slip in a name that is offered, whatever follows it. */
function offerMeant(text: string, offers: readonly string[] = []): string | null {
  const [name] = text.split(":");
  const near = nearest(name, offers.map((offer) => offer.split(":")[0]));
  return near === null || near === name ? null : near + text.slice(name.length);
}
