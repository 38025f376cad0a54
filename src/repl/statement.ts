/** What a line of a session is. */
import type { Command } from "../commands/command.ts";
import { UsageError } from "../errors.ts";
import { nearest } from "../words.ts";
import { withoutComment, type Word, wordsOf } from "./words.ts";

export type Statement =
  | { readonly kind: "nothing" }
  | { readonly kind: "directive"; readonly name: string; readonly rest: string }
  | { readonly kind: "help"; readonly topic: string }
  | {
    readonly kind: "command";
    /** The command's name first. */
    readonly words: readonly Word[];
    readonly target: string | null;
    readonly quiet: boolean;
  }
  | { readonly kind: "js"; readonly code: string; readonly target: string | null; readonly quiet: boolean }
  | { readonly kind: "expression"; readonly text: string; readonly target: string | null; readonly quiet: boolean };

/** A name that a variable may have. */
export const NAME = /^[A-Za-z_]\w*$/;

/**
 * Reads a line, which may hold line breaks. `commands`: what may come first; `variables`: what is known. A semicolon at the end keeps
 * the result off the screen. Throws UsageError for a first word that is nothing.
 */
export function statementOf(line: string, commands: readonly Command[], variables: readonly string[]): Statement {
  let text = line.trim();
  if (text === "" || text.startsWith("#")) return { kind: "nothing" };
  if (text.startsWith(":")) {
    const [, name, rest] = /^:\s*(\S*)\s*(.*)$/s.exec(text)!;
    return { kind: "directive", name, rest: rest.trim() };
  }
  if (text.startsWith("?")) return { kind: "help", topic: text.slice(1).trim() };
  const assignment = /^([A-Za-z_]\w*)\s*=(?!=)\s*(.*)$/s.exec(text);
  const target = assignment ? assignment[1] : null;
  if (assignment) text = assignment[2].trim();
  const names = commands.map(({ name }) => name);
  if (target !== null && (names.includes(target) || target === "js" || target === "_")) {
    throw new UsageError(
      `Cannot use "${target}" as a variable: it is ${target === "_" ? "the last result" : "a command"}`,
    );
  }
  if (target !== null && text === "") {
    throw new UsageError(`Missing value: write ${target} = load FILE, or an expression`);
  }
  const script = /^js(\s+|$)(.*)$/s.exec(text);
  if (script) {
    if (script[2].trim() === "") throw new UsageError("Missing code: write js EXPR, such as js Math.sqrt(2)");
    const quiet = /;\s*$/.test(script[2]);
    return { kind: "js", code: script[2].trim(), target, quiet };
  }
  text = withoutComment(text);
  const quiet = text.endsWith(";");
  if (quiet) text = text.slice(0, -1).trim();
  const first = /^[\w-]*/.exec(text)![0];
  // Lines copied from the documentation begin with the program's name.
  const pasted = /^(\$\s+)?(npx\s+)?performer\s+/.exec(text);
  if (pasted) text = text.slice(pasted[0].length);
  if (pasted || (names.includes(first) && !/^[\w-]+[[.(]/.test(text))) {
    const words = wordsOf(text);
    if (names.includes(words[0]?.text ?? "")) return { kind: "command", words, target, quiet };
    if (pasted) throw unknown(words[0]?.text ?? "", names);
  }
  // A word before another word is no expression.
  if (/^[A-Za-z][\w-]*\s+(-\w|--\w|[\w./"'])/.test(text) && !variables.includes(first)) throw unknown(first, names);
  return { kind: "expression", text, target, quiet };
}

function unknown(word: string, names: readonly string[]): UsageError {
  const near = nearest(word, names);
  return new UsageError(`Unknown command "${word}": ${near ? `did you mean ${near}? ` : ""}:help lists what there is`);
}
