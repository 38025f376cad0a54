/** From argv to an exit code: parse, look up configuration, run, and turn errors into words. */
import { PerformerError } from "../errors.ts";
import { VERSION } from "../version.ts";
import { plain } from "../words.ts";
import type { Command, Invocation, Source, Terminal } from "./command.ts";
import { COMMANDS, SUMMARY } from "./mod.ts";
import { checkStdin } from "./stdin.ts";

const EXAMPLES = `  performer attend genome.fa --encode kmer:6
  performer attend input.npy --heads 8 --causal -o output.npy`;

/** Runs one command line. */
export async function main(argv: readonly string[], terminal: Terminal): Promise<number> {
  try {
    const quick = await topicAnswer(argv, terminal) ?? quickAnswer(argv);
    if (quick !== null) {
      terminal.out(quick);
      return 0;
    }
    return await execute(argv, terminal);
  } catch (error) {
    return explain(error, terminal);
  }
}

/** Runs one command line as `main` does, but throws what goes wrong in it; usage errors are printed and have the code 2. */
export async function execute(
  argv: readonly string[],
  terminal: Terminal,
  commands: readonly Command[] = COMMANDS,
): Promise<number> {
  const { parse } = await import("./parse.ts");
  const chosen = parse(argv, terminal, commands);
  if (typeof chosen === "number") return chosen;
  const invocation = await configured(chosen.command, chosen.invocation, chosen.given, terminal);
  checkStdin(chosen.command, invocation, terminal);
  const { takeOutputs } = await import("./outputs.ts");
  using _claims = await takeOutputs(chosen.command, invocation);
  return await chosen.command.run(invocation, terminal);
}

/** `performer help` and `performer help NAME`, without the parser where the page is not a command's. */
async function topicAnswer([first, name = "", ...more]: readonly string[], terminal: Terminal): Promise<string | null> {
  if (first !== "help" || more.length > 0 || name === "--help" || name === "-h") return null;
  const { topicList, topicText } = await import("./help_text.ts");
  return name === "" ? topicList(terminal.columns) : await topicText(name, terminal.columns);
}

/** Help and version straight from the table: the parser would triple the time to the first word. */
function quickAnswer(argv: readonly string[]): string | null {
  if (argv.length === 0) {
    return `${SUMMARY}\n\n${EXAMPLES}\n\nperformer --help lists the commands, performer attend --help the flags of one.\n`;
  }
  if (argv.length > 1) return null;
  if (argv[0] === "--version" || argv[0] === "-V") return `${VERSION}\n`;
  if (!["--help", "-h"].includes(argv[0])) return null;
  const commands = COMMANDS.map(({ name, arguments: args, summary }) => {
    const usage = [name, ...args.map((argument) => argument.optional ? `[${argument.name}]` : argument.name)].join(" ");
    return `  ${usage.padEnd(19)} ${summary}\n`;
  });
  return `${SUMMARY}\n\nUsage: performer COMMAND [flags]\n\nCommands:\n${
    commands.join("")
  }\nExamples:\n${EXAMPLES}\n\n` +
    `performer COMMAND --help shows the flags of a command, performer help lists topics that can be explained besides.\n` +
    `Every flag can be set by PERFORMER_NAME in the environment, in performer.json here, or in ~/.config/performer/config.json;\n` +
    `performer doctor shows what is in force.\n`;
}

/** Says what went wrong and returns the exit code. */
export function explain(error: unknown, terminal: Terminal): number {
  if (terminal.signal.aborted) return 130;
  if ((error as { code?: string } | null)?.code === "EPIPE") return 141;
  if (error instanceof PerformerError) {
    // Names from a file stand in it, whatever they hold.
    terminal.err(`performer: ${plain(error.message, 2000)}\n`);
    return error.exitCode;
  }
  const words = error instanceof Error ? error.stack ?? error.message : String(error);
  terminal.err(
    `performer: this is a bug in performer ${VERSION}, please report it with the command you ran\n${words}\n`,
  );
  return 70;
}

/** Fills in what the command line left out from the environment and the configuration files. */
async function configured(
  command: Command,
  invocation: Invocation,
  given: ReadonlySet<string>,
  terminal: Terminal,
): Promise<Invocation> {
  const [{ configurationFor, meantForOthers }, { parseValue }] = await Promise.all([
    import("./config.ts"),
    import("./parse.ts"),
  ]);
  const configuration = configurationFor(terminal);
  const flags = { ...invocation.flags };
  const sources: Record<string, Source> = {};
  for (const flag of command.flags) {
    sources[flag.name] = given.has(flag.name) ? "flag" : "default";
    if (given.has(flag.name)) continue;
    const found = await configuration.lookup(flag);
    if (!found || meantForOthers(flag, found.value)) continue;
    flags[flag.name] = parseValue(flag, found.value, `${found.place}: ${flag.name} =`);
    sources[flag.name] = found.source;
  }
  return { ...invocation, flags, sources };
}
