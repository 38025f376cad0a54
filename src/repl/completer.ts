/** TAB: what the word under the cursor may become. */
import { dirname, join } from "node:path";
import { listFolder } from "../bytes.ts";
import { completionsFor } from "../commands/completion.ts";
import type { Command } from "../commands/command.ts";
import { PER_RUN } from "../commands/config.ts";
import { DIRECTIVES } from "./directives.ts";
import { FUNCTIONS } from "./functions.ts";
import type { Session } from "./session.ts";
import type { Value } from "./values.ts";
import { type Word, wordsOf } from "./words.ts";

/** Words that the end of a line may become: [words, the part of the line that they replace]. What node:readline wants. */
export type Completion = [words: string[], part: string];

/** Completes a line up to the cursor. Never throws: a line that cannot be read has nothing to complete. */
export function complete(line: string, session: Session): Completion {
  const { commands } = session;
  const { variables } = session.state;
  const topic = /^\s*\?(\S*)$/.exec(line);
  if (topic) return [topicsOf(session).filter((name) => name.startsWith(topic[1])), topic[1]];
  const directive = /^\s*:([\w-]*)$/.exec(line);
  if (directive) {
    return [
      Object.keys(DIRECTIVES).filter((name) => name.startsWith(directive[1])).map((name) => `${name} `),
      directive[1],
    ];
  }
  const asked = /^\s*:([\w-]+)\s+(.*)$/s.exec(line);
  if (asked) return ofDirective(asked[1], asked[2], session);
  const rest = line.replace(/^\s*[A-Za-z_]\w*\s*=(?!=)\s*/, "").replace(/^\s*(watch|npx performer|performer)\s+/, "");
  const code = /^\s*js\s/.test(rest);
  const words = code ? [] : wordsOf(rest, true);
  const typed = lastWord(rest, words);
  if (code || words.length === 0 || (words.length === 1 && typed !== "")) {
    const own = code ? [] : [...commands.map(({ name }) => `${name} `), "js "];
    return ofExpression(rest, variables, own);
  }
  const command = commands.find(({ name }) => name === words[0].text);
  if (!command) return ofExpression(rest, variables, []);
  const before = (typed === "" ? words : words.slice(0, -1)).map(({ text }) => text);
  const found = completionsFor([...before, typed], commands);
  const files = found.files
    ? filesLike(typed.slice(found.filesFrom), found.files).map((name) => typed.slice(0, found.filesFrom) + name)
    : [];
  const names = found.files || command.name === "save" || command.name === "plot" || command.name === "del"
    ? [...variables.keys()].filter((name) => name !== "_" && name.startsWith(typed)).map((name) => `${name} `)
    : [];
  const inside = /[[.(]/.test(typed) && variables.has(/^\w*/.exec(typed)![0])
    ? ofExpression(typed, variables, [])[0]
    : [];
  const values = found.values.map(({ text }) => text.endsWith("=") || text.endsWith(":") ? text : `${text} `);
  const raw = words.at(-1) && typed !== "" ? rest.slice(words.at(-1)!.start) : "";
  if (inside.length > 0) return [inside, ofExpression(typed, variables, [])[1]];
  return [[...names, ...values, ...files.map(quotedWhereNeeded)], raw];
}

/** The word that the cursor is at the end of; "" between words. */
function lastWord(rest: string, words: readonly Word[]): string {
  const last = words.at(-1);
  return last && last.end >= rest.length ? last.text : "";
}

/** A name or a member at the end of an expression. */
function ofExpression(text: string, variables: ReadonlyMap<string, Value>, own: readonly string[]): Completion {
  const chain = /([A-Za-z_]\w*(?:\.\w+|\[[^\]]*\])*)\.(\w*)$/.exec(text);
  if (chain) {
    const members = membersOf(chain[1], variables);
    return [members.filter((name) => name.startsWith(chain[2])), chain[2]];
  }
  const part = /[A-Za-z_][\w-]*$/.exec(text)?.[0] ?? "";
  const alone = text.trim() === part;
  const names = [
    ...(alone ? own : []),
    ...[...variables.keys()].filter((name) => name !== "_"),
    ...Object.keys(FUNCTIONS).map((name) => `${name}(`),
  ];
  return [names.filter((name) => name.startsWith(part)), part];
}

/** Names of what is inside a value, without evaluating anything. */
function membersOf(chain: string, variables: ReadonlyMap<string, Value>): string[] {
  const [first, ...inner] = chain.split(".");
  const value = variables.get(first.replace(/\[.*$/, ""));
  if (!value) return [];
  if (value.kind === "tensor" && inner.length === 0) {
    const own = ["shape", "rows", "heads", "width", "dtype", "path", "head("];
    return value.report ? [...new Set([...own, "report", ...Object.keys(value.report)])] : own;
  }
  if (value.kind === "inputs" || value.kind === "model") return value.members.map(({ name }) => name);
  let at: unknown = value.kind === "report"
    ? value.report
    : value.kind === "tensor"
    ? { ...value.report, report: value.report }
    : value.value;
  for (const name of inner) {
    at = typeof at === "object" && at !== null ? (at as Record<string, unknown>)[name] : undefined;
  }
  return typeof at === "object" && at !== null ? Object.keys(at) : [];
}

function ofDirective(name: string, rest: string, session: Session): Completion {
  const words = rest.split(/\s+/);
  const typed = words.at(-1)!;
  const beginning = (all: readonly string[]): Completion => [all.filter((text) => text.startsWith(typed)), typed];
  if (name === "help" || name === "h") return beginning(topicsOf(session));
  if (name === "time") return beginning(["on", "off"]);
  if (name === "save-script") return [filesLike(typed, []), typed];
  if (name === "unset") return beginning(Object.keys(session.state.settings));
  if (name === "backend") return beginning(valuesOfFlag("backend", typed, session.commands));
  if (name !== "set") return [[], ""];
  if (words.length === 1) {
    const flags = [...new Set(session.commands.flatMap(({ flags }) => flags.map((flag) => flag.name)))];
    return beginning(flags.filter((flag) => !PER_RUN.has(flag)).map((flag) => `${flag} `));
  }
  const flags = session.commands.flatMap(({ flags }) =>
    flags.filter((flag) => flag.name === words[0] || flag.short === words[0])
  );
  if (flags.length > 0 && flags.every((flag) => !flag.value)) return beginning(["on", "off"]);
  return [valuesOfFlag(flags[0]?.name ?? "", typed, session.commands), typed];
}

/** What a flag's value may become, in the first command that has the flag. */
function valuesOfFlag(name: string, typed: string, commands: readonly Command[]): string[] {
  const command = commands.find(({ flags }) => flags.some((flag) => flag.name === name));
  return command ? completionsFor([command.name, `--${name}`, typed], commands).values.map(({ text }) => text) : [];
}

/** What `?` knows by itself; the topics of `help` are offered where that command is. */
function topicsOf({ commands, state: { variables } }: Session): string[] {
  const help = commands.some(({ name }) => name === "help") ? completionsFor(["help", ""], commands).values : [];
  const names = [
    ...commands.map(({ name }) => name),
    ...Object.keys(FUNCTIONS),
    ...Object.keys(DIRECTIVES).map((name) => `:${name}`),
    ...help.map(({ text }) => text),
    ...[...variables.keys()].filter((name) => name !== "_"),
  ];
  return [...new Set(names)];
}

/** Files and folders whose names begin so; `endings`: how files must end, [] any. Hidden ones where the name begins with a point. */
function filesLike(typed: string, endings: readonly string[]): string[] {
  const folder = typed.endsWith("/") ? typed : typed.includes("/") ? dirname(typed) : "";
  const part = typed.endsWith("/") ? "" : typed.split("/").at(-1)!;
  return listFolder(folder || ".").filter(({ name, isFolder }) => {
    if (!name.startsWith(part) || (name.startsWith(".") && !part.startsWith("."))) return false;
    return isFolder || endings.length === 0 || endings.some((ending) => name.toLowerCase().endsWith(ending));
  }).map(({ name, isFolder }) => {
    const path = typed.startsWith("./") && folder === "." ? `./${name}` : folder ? join(folder, name) : name;
    return isFolder ? `${path}/` : `${path} `;
  });
}

/** A file's name as a word of a line. */
function quotedWhereNeeded(name: string): string {
  const end = name.endsWith(" ") ? " " : "";
  const text = end ? name.slice(0, -1) : name;
  return /[\s"'#()[\]\\]/.test(text) ? `'${text.replaceAll("'", "'\\''")}'${end}` : name;
}
