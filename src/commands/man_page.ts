/** The man page, from the command table and the topics. */
import { TOPICS } from "../help/mod.ts";
import { bold, escaped, italic, kept, macro, term, topicRoff } from "../help/roff.ts";
import { type Group, GROUPS } from "../help/topic.ts";
import { VERSION } from "../version.ts";
import { variableFor } from "./config.ts";
import type { Command, Flag } from "./command.ts";
import { COMMANDS, SUMMARY } from "./mod.ts";

/** When its words were last gone through. */
const DATE = "2026-11-29";

/** Flags that so many commands share are described once. */
const SHARED_BY = 6;

/** performer.1 as roff. */
export function manPage(): string {
  const shared = sharedFlags();
  return [
    `.\\" performer man prints this page.\n`,
    `.TH PERFORMER 1 "${DATE}" "performer ${VERSION}" "User Commands"\n`,
    // Names of flags and values are not broken at the ends of lines.
    ".nh\n.ad l\n",
    section("Name"),
    `performer \\- ${escaped(SUMMARY.replace(/^performer: /, ""))}\n`,
    section("Synopsis"),
    COMMANDS.map((command, i) => `${i === 0 ? "" : ".br\n"}${synopsis(command)}\n`).join(""),
    section("Description"),
    ...paragraphs([
      "Attention compares every row with every other; a Performer summarises all keys and values in a small state through random features, so that work grows with " +
      "the length only. The price is an error, which every run measures against exact softmax on sampled rows.",
      "Data goes to standard output, everything else to standard error; - stands for standard input or output.",
    ]),
    section("Commands"),
    ...COMMANDS.map((command) => commandRoff(command, shared)),
    section("Shared flags"),
    ...shared.map(flagRoff),
    ...GROUPS.map((group) => groupRoff(group)),
    section("Environment"),
    term(
      bold(variableFor({ name: "name", summary: "" })),
      `The value of a flag that is not on the command line, for example ${
        variableFor({ name: "num-features", summary: "" })
      }.`,
    ),
    term(bold("NO_COLOR") + ", " + bold("FORCE_COLOR") + ", " + bold("TERM"), "Whether reports are coloured."),
    section("Files"),
    term(italic("performer.json"), "Values of flags for the working directory, as one JSON object."),
    term(italic("$XDG_CONFIG_HOME/performer/config.json"), "The same for the user; ~/.config without that variable."),
    term(italic("$XDG_CACHE_HOME/performer/speeds.json"), "Speeds that auto measured; ~/.cache without that variable."),
  ].join("");
}

const section = (title: string): string => macro("SH", title.toUpperCase());

const paragraphs = (texts: readonly string[]): string[] =>
  texts.map((text, i) => `${i > 0 ? ".PP\n" : ""}${escaped(text)}\n`);

function synopsis({ name, arguments: args, flags }: Command): string {
  const words = args.map((argument) => argument.optional ? `[${italic(argument.name)}]` : italic(argument.name));
  return [bold(`performer ${name}`), ...words, ...(flags.length > 0 ? [`[${italic("flags")}]`] : [])].join(" ");
}

/** The flags that many commands have with the same words, in the order of the table. */
function sharedFlags(): Flag[] {
  const all = COMMANDS.flatMap(({ flags }) => flags);
  const count = (flag: Flag) => all.filter((other) => same(flag, other)).length;
  return all.filter((flag, i) => count(flag) >= SHARED_BY && all.findIndex((other) => same(flag, other)) === i);
}

const same = (a: Flag, b: Flag): boolean => a.name === b.name && a.summary === b.summary;

function commandRoff(command: Command, shared: readonly Flag[]): string {
  const { summary, arguments: args, flags, examples } = command;
  const own = flags.filter((flag) => !shared.some((other) => same(flag, other)));
  const others = flags.filter((flag) => !own.includes(flag)).map(({ name }) => `--${name}`);
  return [
    `.SS ${synopsis(command)}\n`,
    `${escaped(summary)}\n`,
    ...args.map(({ name, summary }) => term(italic(name), summary)),
    ...own.map(flagRoff),
    others.length > 0 ? `.PP\n${escaped(`Also ${others.join(", ")}: see SHARED FLAGS.`)}\n` : "",
    `.PP\nExamples:\n.PP\n${kept(examples)}`,
  ].join("");
}

function flagRoff({ name, short, value, summary, choices, default: otherwise }: Flag): string {
  const words = [
    summary + (choices ? `: ${choices.join(", ")}` : ""),
    ...(otherwise === undefined ? [] : [`(default ${Array.isArray(otherwise) ? otherwise.join(",") : otherwise})`]),
  ];
  const title = `${short ? `${bold(`-${short}`)}, ` : ""}${bold(`--${name}`)}${value ? ` ${italic(value)}` : ""}`;
  return term(title, words.join(" "));
}

function groupRoff(group: Group): string {
  return section(group) + TOPICS.filter((topic) => topic.group === group).map(topicRoff).join("");
}
