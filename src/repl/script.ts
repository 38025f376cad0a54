/** A session as a shell script: commands as they were run, and the lines that made their tensors. */
import { shellLine } from "../words.ts";
import type { TensorValue, Value } from "./values.ts";

/** Something a session did that a script can do again. */
export type LogEntry =
  | {
    readonly kind: "command";
    readonly line: string;
    /** Without variables: the command's name first, settings of the session as flags. */
    readonly words: readonly string[];
  }
  | {
    /** A line that made a tensor. */
    readonly kind: "made";
    readonly line: string;
    readonly target: string;
    /** The code after the name: an expression, or js and JavaScript. */
    readonly code: string;
    readonly path: string;
    /** What its names stood for. */
    readonly needs: readonly (readonly [string, Value])[];
  }
  | {
    /** A tensor that was written to a file of the person's own. */
    readonly kind: "saved";
    readonly line: string;
    readonly value: TensorValue;
    readonly path: string;
  }
  | {
    /** A line that changed no file. */
    readonly kind: "note";
    readonly line: string;
    readonly gave: string;
  };

/** What a session did, in order. Longer logs share their entries with shorter ones, so that states to go back to cost nothing. */
export class Log {
  /** Entries beyond `length` are those of a longer log, or of what was undone. */
  readonly #shared: LogEntry[];

  private constructor(shared: LogEntry[], readonly length: number) {
    this.#shared = shared;
  }

  static readonly EMPTY = new Log([], 0);

  /** With one more. */
  with(entry: LogEntry): Log {
    const last = this.#shared.length === this.length;
    const shared = last && this.length > 0 ? this.#shared : this.#shared.slice(0, this.length);
    shared.push(entry);
    return new Log(shared, this.length + 1);
  }

  get entries(): LogEntry[] {
    return this.#shared.slice(0, this.length);
  }
}

/** Names of words in code that a session knows, whatever the language of the code. */
export function wordsKnown(code: string, variables: ReadonlyMap<string, Value>): (readonly [string, Value])[] {
  const bare = code.replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/g, " ");
  const words = [...bare.matchAll(/(?<![\w.])[A-Za-z_]\w*/g)].map(([word]) => word);
  return [...new Set(words)].filter((word) => variables.has(word)).map((word) => [word, variables.get(word)!] as const);
}

/**
 * The script. Temporary files of the session become files of a folder of the script's own, `$work`; `owns` tells them. `$PERFORMER` is the
 * program, when it is not `performer`.
 */
export function scriptOf(log: readonly LogEntry[], cwd: string, owns: (path: string) => boolean): string {
  const word = (text: string): string => {
    const at = /^(--[\w-]+=)?(.*)$/s.exec(text)!;
    return owns(at[2]) ? `${at[1] ?? ""}"$work"/${at[2].split("/").at(-1)}` : shellLine([text]);
  };
  const wanted = neededPaths(log, owns);
  const lines = log.flatMap((entry) => {
    const said = entry.line.split("\n").map((line) => `# ${line}`);
    switch (entry.kind) {
      case "command":
        return [...said, `$PERFORMER ${entry.words.map(word).join(" ")}`, ""];
      case "note":
        return [...said, `#   gave ${entry.gave}`, ""];
      case "saved":
        return [
          ...said,
          sessionLine([...loads(SAVED, entry.value), `save ${SAVED} `, file(entry.path, ";")], owns),
          "",
        ];
      case "made":
        return [...said, wanted.has(entry.path) ? madeAgain(entry, owns) : "#   made a tensor that nothing reads", ""];
    }
  });
  return `#!/usr/bin/env bash
# A session of performer as commands. PERFORMER names the program, if it is not on the path.
set -euo pipefail
cd ${shellLine([cwd])}
PERFORMER=\${PERFORMER:-performer}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

${lines.join("\n")}`;
}

/** Temporary files that something later in the log reads. */
function neededPaths(log: readonly LogEntry[], owns: (path: string) => boolean): Set<string> {
  const needed = new Set<string>();
  for (const entry of log.toReversed()) {
    if (entry.kind === "saved") needed.add(entry.value.path);
    else if (entry.kind === "command") {
      entry.words.map((text) => text.replace(/^--[\w-]+=/, "")).filter(owns).forEach((path) => needed.add(path));
    } else if (entry.kind === "made" && needed.has(entry.path)) {
      for (const [, value] of entry.needs) if ("path" in value && owns(value.path)) needed.add(value.path);
    }
  }
  return needed;
}

/** What a script calls the last result, and what it saves, which need no name in a session. */
const LAST = "last_result";
const SAVED = "saved";

/** Parts of a line; a part with a path may lie in the script's folder. */
type Part = string | { readonly path: string; readonly then: string };

const file = (path: string, then: string): Part => ({ path, then });

/** Lines that give a name its value again; each ends with a part that ends with a semicolon. */
function loads(name: string, value: Value): Part[] {
  if (value.kind === "plain") return [`${name} = js ${JSON.stringify(value.value)};`];
  if (value.kind === "report") return [];
  const opened = `${name} = load `;
  if (value.kind === "model") return [opened, file(value.path, ";")];
  const { rows } = value;
  if (value.kind === "tensor" && !value.alone) {
    const slice = rows ? `[${rows.start}:${rows.end}]` : "";
    return [opened, file(value.path, ";"), `${name} = ${name}[${JSON.stringify(value.member)}]${slice};`];
  }
  const flags = { ...value.flags, ...(rows ? { rows: `${rows.start}:${rows.end}` } : {}) };
  const said = Object.entries(flags).map(([flag, text]) => ` --${flag} ${text}`).join("");
  return [opened, file(value.path, `${said};`)];
}

/** The line that makes a tensor again. */
function madeAgain(
  { target, code, path, needs }: LogEntry & { kind: "made" },
  owns: (path: string) => boolean,
): string {
  const named = code.replace(/;\s*$/, "").replace(/(?<![\w.])_(?!\w)/g, LAST);
  const known = needs.flatMap(([name, value]) => loads(name === "_" ? LAST : name, value));
  return sessionLine([...known, `${target} = ${named};`, `save ${target} `, file(path, ";")], owns);
}

/** `$PERFORMER repl -q -c LINE -c LINE …`: a part that ends with a semicolon ends a line. */
function sessionLine(parts: readonly Part[], owns: (path: string) => boolean): string {
  let text = "$PERFORMER repl -q";
  let begun = false;
  for (const part of parts) {
    const [front, then] = typeof part === "string"
      ? ["", part]
      : [`"${part.path.replace(/["\\]/g, "\\$&")}"`, part.then];
    const inFolder = typeof part !== "string" && owns(part.path);
    const own = inFolder ? `"'"$work"'/${part.path.split("/").at(-1)}"` : quoted(front);
    text += `${begun ? "" : " -c '"}${own}${quoted(then)}`;
    begun = !then.endsWith(";");
    if (!begun) text += "'";
  }
  return text;
}

/** Text within single quotes of a shell. */
const quoted = (text: string): string => text.replaceAll("'", `'\\''`);
