/** What is wrong with a command line, and what was probably meant. Nothing is ever run by guess. */
import { UsageError } from "../errors.ts";
import { nearest, shellLine } from "../words.ts";
import type { Command, Flag } from "./command.ts";
import { flagNamed, readWords, type Word } from "./command_words.ts";
import { endsIn, MODEL_FILES, SEQUENCE_FILES, TENSOR_FILES } from "./file_names.ts";

const HELP = ["--help", "-h"];
const VERSION = ["--version", "-V"];

/**
 * Throws UsageError for a line that no command of the table takes; values are judged by their flags, later. Returns sentences about what
 * works and may yet be a slip: a flag with two values, of which the last counts, so that scripts and aliases can be overruled.
 */
export function refuseMistakes(argv: readonly string[], table: readonly Command[]): string[] {
  const [first, ...line] = argv;
  if (first === undefined || HELP.includes(first) || VERSION.includes(first)) return [];
  const command = table.find(({ name }) => name === first);
  if (!command) throw first.startsWith("-") && first !== "-" ? flagFirst(first, table) : noCommand(argv, table);
  const { words, open, next } = readWords(command, line);
  if (words.some((word) => word.kind === "unknown flag" && HELP.includes(word.text))) return [];
  const values = new Map<Flag, string[]>();
  for (const [i, word] of words.entries()) {
    if (word.kind === "unknown flag") throw noFlag(word.text, command, table);
    if (word.kind === "excess") throw tooMany(word.text, command, words.slice(0, i));
    if (word.kind !== "value") continue;
    const { flag, text, joined } = word;
    if (!flag.value) {
      throw new UsageError(`Cannot use --${flag.name}=${text}: --${flag.name} is a switch without a value`);
    }
    if (!joined && flagNamed(command, text)) throw noValue(flag, `found the flag ${text}`);
    values.set(flag, [...values.get(flag) ?? [], text]);
  }
  if (open) throw noValue(open, "found the end of the line");
  if (next && !next.optional) throw new UsageError(`Missing ${next.name}: ${usageOf(command)}`);
  return [...values].flatMap(([flag, texts]) => !flag.many && new Set(texts).size > 1 ? [repeated(flag, texts)] : []);
}

/** "performer convert IN OUT". */
function usageOf({ name, arguments: args }: Command): string {
  return ["performer", name, ...args.map((argument) => argument.optional ? `[${argument.name}]` : argument.name)].join(
    " ",
  );
}

const LIST = "performer help lists the commands";

function noCommand(argv: readonly string[], table: readonly Command[]): UsageError {
  const [word] = argv;
  const near = word === "version"
    ? "performer --version"
    : nearest(word, table.map(({ name }) => name)) ?? fileMeant(argv);
  return new UsageError(`Unknown command "${word}": ${near ? `did you mean ${near}? ` : ""}${LIST}`);
}

/** The command that a line was to be which begins with a file. */
function fileMeant(argv: readonly string[]): string | null {
  const [file] = argv;
  const line = (command: string, ...rest: string[]) => shellLine(["performer", command, ...argv, ...rest]);
  if (endsIn(file, SEQUENCE_FILES)) return line("attend", ...(argv.includes("--encode") ? [] : ["--encode", "kmer:6"]));
  if (file === "-" || endsIn(file, TENSOR_FILES) && !file.endsWith(".safetensors")) return line("attend");
  return endsIn(file, MODEL_FILES) ? line("inspect") : null;
}

function flagFirst(word: string, table: readonly Command[]): UsageError {
  const name = word.replace(/=.*/s, "");
  const near = nearest(name, [...HELP, ...VERSION].filter((flag) => flag.startsWith("--")));
  const owners = table.filter((command) => flagNamed(command, name));
  if (owners.length === 0) {
    return new UsageError(`Unknown flag ${name}: ${near ? `did you mean ${near}? ` : ""}${LIST}`);
  }
  return new UsageError(`Cannot use ${name} before a command: say performer ${owners[0].name} first; ${LIST}`);
}

function noFlag(typed: string, command: Command, table: readonly Command[]): UsageError {
  const help = `performer ${command.name} --help lists its flags`;
  const owners = table.filter((other) => flagNamed(other, typed)).map(({ name }) => name);
  if (owners.length > 0) {
    const kind = owners.length === 1 ? owners[0] : `${owners.slice(0, -1).join(", ")} and ${owners.at(-1)}`;
    return new UsageError(`Cannot use ${typed} with ${command.name}: it is a flag of ${kind}; ${help}`);
  }
  const near = flagMeant(typed, command);
  return new UsageError(`Unknown flag ${typed} of ${command.name}: ${near ? `did you mean ${near}? ` : ""}${help}`);
}

/** "--bakend", "-backend", "--m" and the beginning of a single flag. */
function flagMeant(typed: string, { flags }: Command): string | null {
  const name = typed.replace(/^-+/, "");
  const short = flags.find((flag) => flag.short === name);
  if (short) return `-${short.short}`;
  const names = flags.map((flag) => flag.name);
  if (name.length < 2) return null;
  const begun = names.filter((other) => other.startsWith(name));
  const near = begun.length === 1 ? begun[0] : nearest(name, [...names, "help"]);
  return near && `--${near}`;
}

function tooMany(text: string, command: Command, before: readonly Word[]): UsageError {
  const taken = before.flatMap((word) => word.kind === "argument" ? [`"${word.text}"`] : []);
  const has = taken.length > 0 ? `, which ${taken.length === 1 ? "is" : "are"} ${taken.join(" and ")}` : "";
  const takes = command.arguments.map(({ name }) => name).join(" and ");
  const hint = taken.length > 0 ? "; quote names with spaces" : "";
  return new UsageError(
    `Cannot use "${text}": ${command.name} takes ${takes === "" ? "no arguments" : `${takes} only${has}`}${hint}`,
  );
}

function noValue(flag: Flag, found: string): UsageError {
  const example = flag.choices?.[0] ?? flag.offers?.[0];
  const such = example ? `, such as ${example}` : "";
  return new UsageError(`Missing value of --${flag.name}: expected ${flag.value}${such}, ${found}`);
}

function repeated(flag: Flag, texts: readonly string[]): string {
  const list = flag.list || flag.value === "LIST" ? `; for all of them say --${flag.name} ${texts.join(",")}` : "";
  return `Only the last --${flag.name} counts, ${texts.at(-1)}${list}`;
}
