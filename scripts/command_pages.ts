/** Pages of documentation made from the command table: one per command, and their list in docs/README.md. */
import type { Argument, Command, Flag, Offers } from "../src/commands/command.ts";
import { settable, variableFor } from "../src/commands/config.ts";
import { COMMANDS } from "../src/commands/mod.ts";

/** Pages that explain what a command shows, by command. */
const MORE: Readonly<Record<string, readonly string[]>> = {
  attend: [
    "numerics.md",
    "features.md",
    "near-and-far.md",
    "state.md",
    "backends.md",
    "resume.md",
    "batch.md",
    "reliability.md",
  ],
  compare: ["compare.md", "features.md"],
  tune: ["choosing.md", "near-and-far.md"],
  state: ["state.md", "features.md"],
  run: ["models.md"],
  generate: ["models.md"],
  drift: ["models.md"],
  bench: ["bench.md"],
  figure: ["figures.md"],
  shard: ["shard.md", "scale.md"],
  inspect: ["formats.md", "models.md"],
  convert: ["formats.md", "models.md"],
  backends: ["backends.md"],
  doctor: ["configuration.md"],
  explain: ["json.md"],
  repl: ["repl.md", "library.md"],
};
const [BEGIN, END] = ["<!-- commands: made by scripts/build_docs.ts -->", "<!-- end of commands -->"];

/** Every page by its path from the repository's root. */
export function commandPages(commands: readonly Command[] = COMMANDS): Map<string, string> {
  return new Map(commands.map((command) => [`docs/commands/${command.name}.md`, pageOf(command)]));
}

/** docs/README.md with its list of commands made anew; throws where the marks of the list are missing. */
export function withCommandList(index: string, commands: readonly Command[] = COMMANDS): string {
  const [begin, end] = [index.indexOf(BEGIN), index.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`Cannot find "${BEGIN}" and "${END}" in docs/README.md`);
  const rows = commands.map(({ name, summary }) => `| [${name}](commands/${name}.md) | ${cell(summary)} |`);
  const list = ["| command | does |", "|---|---|", ...rows].join("\n");
  return `${index.slice(0, begin + BEGIN.length)}\n\n${list}\n\n${index.slice(end)}`;
}

function pageOf(command: Command): string {
  const { name, summary, flags, examples } = command;
  const more = (MORE[name] ?? []).map((page) => `[${page.replace(".md", "")}](../${page})`);
  return [
    `# performer ${name}`,
    "<!-- Made from the command table by `bun scripts/build_docs.ts`; change src/commands instead. -->",
    `${summary[0].toUpperCase()}${summary.slice(1)}.${more.length > 0 ? ` More: ${more.join(", ")}.` : ""}`,
    ["```text", usage(command), "```"].join("\n"),
    ...(command.arguments.length > 0
      ? ["## Arguments", table(["argument", "what"], command.arguments.map(argumentRow))]
      : []),
    ...(flags.length > 0
      ? [
        "## Flags",
        table(["flag", "default", "environment", "what"], flags.map(flagRow)),
        "A flag with a variable can also be set by it or in a configuration file: [configuration](../configuration.md).",
      ]
      : []),
    "## Examples",
    ["```sh", ...examples, "```"].join("\n"),
  ].join("\n\n") + "\n";
}

function usage({ name, arguments: args, flags }: Command): string {
  const places = args.map(({ name, optional, many }) => {
    const place = many ? `${name}…` : name;
    return optional ? `[${place}]` : place;
  });
  return ["performer", name, ...places, ...(flags.length > 0 ? ["[flags]"] : [])].join(" ");
}

function argumentRow(argument: Argument): string[] {
  const { name, summary, optional, many } = argument;
  const often = [optional && "may be left out", many && "may be several"].filter(Boolean).join(", ");
  return [`\`${name}\``, `${summary}${often ? ` (${often})` : ""}${choicesOf(argument)}`];
}

/** The only values, with what they are where that is known. */
function choicesOf({ choices, meanings }: Offers): string {
  const one = (choice: string) => `\`${choice}\`${meanings?.[choice] ? ` (${meanings[choice]})` : ""}`;
  return choices ? `: ${choices.map(one).join(", ")}` : "";
}

function flagRow(flag: Flag): string[] {
  const long = `--${flag.name}${flag.value ? ` ${flag.value}` : ""}`;
  const names = flag.short ? `\`-${flag.short}\`, \`${long}\`` : `\`${long}\``;
  return [
    names,
    defaultOf(flag),
    settable(flag) ? `\`${variableFor(flag)}\`` : "",
    `${flag.summary}${choicesOf(flag)}`,
  ];
}

function defaultOf(flag: Flag): string {
  if (flag.default === undefined) return "";
  return `\`${Array.isArray(flag.default) ? flag.default.join(",") : String(flag.default)}\``;
}

function table(head: readonly string[], rows: readonly string[][]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(cell).join(" | ")} |`;
  return [line(head), `|${"---|".repeat(head.length)}`, ...rows.map(line)].join("\n");
}

/** Text that does not end its cell. */
const cell = (text: string): string => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
