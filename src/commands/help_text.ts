/** What `performer help` says of a name: also behind "?" in the REPL. */
import { UsageError } from "../errors.ts";
import { TOPICS } from "../help/mod.ts";
import { GROUPS } from "../help/topic.ts";
import { pageText, termLines, widthOf } from "../help/topic_text.ts";
import { wrapped } from "../plots/style.ts";
import { nearest } from "../words.ts";
import type { Flag } from "./command.ts";
import { COMMANDS } from "./mod.ts";

/** Every command and topic, by group. */
export function topicList(columns: number): string {
  const width = widthOf(columns);
  const named = (entries: readonly { name: string; summary: string }[]) => {
    return termLines(entries.map(({ name, summary }) => [name, summary]), width);
  };
  const sections = GROUPS.map((group) => {
    const topics = TOPICS.filter((topic) => topic.group === group);
    const names = topics.map(({ name }) => name).join(", ");
    const lines = group === "topics" ? named(topics) : wrapped(names, width - 2).map((line) => `  ${line}`);
    return [`${group[0].toUpperCase()}${group.slice(1)}:`, ...lines].join("\n");
  });
  const commands = ["Commands:", ...named(COMMANDS)].join("\n");
  const end =
    "performer help NAME explains one of these, or a flag such as --window; performer COMMAND --help is the same for a command.";
  return [commands, ...sections, wrapped(end, width).join("\n")].join("\n\n") + "\n";
}

/**
 * The page on a topic, a command or a flag, in lines of at most `columns` letters (formulas and command lines apart).
 * A command's is its --help. Throws UsageError with the nearest name for what is none.
 */
export async function topicText(name: string, columns: number): Promise<string> {
  if (COMMANDS.some((command) => command.name === name)) {
    const { commandHelp } = await import("./parse.ts");
    return commandHelp(name, columns);
  }
  const topic = TOPICS.find((topic) => topic.name === name);
  if (topic) return pageText(topic, columns);
  const flag = name.replace(/^--?/, "");
  const owners = COMMANDS.flatMap((command) => {
    return command.flags.filter((other) => other.name === flag || name === `-${other.short}`).map((flag) =>
      [command.name, flag] as const
    );
  });
  if (owners.length > 0) return flagPage(owners, columns);
  const known = [...COMMANDS, ...TOPICS].map(({ name }) => name);
  const near = nearest(
    name,
    name.startsWith("-") ? COMMANDS.flatMap(({ flags }) => flags.map(({ name }) => `--${name}`)) : known,
  );
  throw new UsageError(
    `Unknown topic "${name}": ${near ? `did you mean ${near}? ` : ""}performer help lists the topics`,
  );
}

/** A flag, with what it means to the commands that have it. */
function flagPage(owners: readonly (readonly [command: string, flag: Flag])[], columns: number): string {
  const meanings = new Map<string, string[]>();
  for (const [command, { summary, choices }] of owners) {
    const words = summary + (choices ? `: ${choices.join(", ")}` : "");
    meanings.set(words, [...meanings.get(words) ?? [], command]);
  }
  const [, { name, short, value }] = owners[0];
  const title = `${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}`;
  const width = widthOf(columns);
  const lines = [...meanings].flatMap(([words, commands]) => wrapped(`${commands.join(", ")}: ${words}`, width));
  return [title, "", ...lines].join("\n") + "\n";
}
