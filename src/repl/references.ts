/** Variables in command lines: words that name a value are replaced by what a shell would have to be given. */
import { changeTime } from "../bytes.ts";
import type { Command, Flag } from "../commands/command.ts";
import { flagNamed, flagsGiven } from "../commands/command_words.ts";
import { UsageError } from "../errors.ts";
import { evaluate, type Scope } from "./evaluate.ts";
import { parseExpression } from "./expression.ts";
import { aloneFile } from "./tensors.ts";
import { nearest } from "../words.ts";
import { NAME } from "./statement.ts";
import { kindWord, type TensorValue, type Value } from "./values.ts";
import type { Word } from "./words.ts";

/** A name, and what may follow it: slices, members and heads. */
const REFERENCE = /^([A-Za-z_]\w*)(\[[^\]]*\]|\.\w+(\([^)]*\))?)*$/;

/** Words of a command as a shell would take them, without its variables. */
export async function resolveWords(words: readonly Word[], command: Command, scope: Scope): Promise<string[]> {
  const resolved = [words[0].text];
  const added: Record<string, string> = {};
  const given = flagsGiven(command, words.slice(1).map(({ text }) => text));
  const takesRows = command.flags.some(({ name }) => name === "rows") && !given.has("rows");
  for (let i = 1; i < words.length; i++) {
    const { text, quoted } = words[i];
    const before = flagNamed(command, words[i - 1].text);
    const flag = before?.value ? before : null;
    const [front, rest] = /^--[\w-]+=/.test(text)
      ? [text.slice(0, text.indexOf("=") + 1), text.slice(text.indexOf("=") + 1)]
      : ["", text];
    const value = quoted ? null : await referenceIn(rest, flag, scope);
    if (!value) {
      if (!quoted && flag === null) refuseUnknown(text, command, scope);
      resolved.push(text);
      continue;
    }
    const alone = flag === null && front === "";
    const { path, flags } = await textOf(value, { scope, command, view: alone && takesRows });
    resolved.push(front + path);
    // How it was loaded goes with it, unless the line says otherwise.
    const { rows, ...reading } = flags;
    const roles = flag === null || ["q", "k", "v"].includes(flag.name)
      ? { ...reading, ...(alone ? { rows } : {}) }
      : {};
    for (const [name, said] of Object.entries(roles)) {
      if (said !== undefined && !given.has(name) && command.flags.some((own) => own.name === name)) {
        added[name] ??= said;
      }
    }
  }
  return [...resolved, ...Object.entries(added).flatMap(([name, said]) => [`--${name}`, said])];
}

/** A name that is neither a variable nor a file, where a file is wanted, is a mistyped variable. Throws UsageError. */
function refuseUnknown(text: string, command: Command, { variables }: Scope): void {
  const takesFiles = command.arguments.some(({ name, files, choices }) => {
    return !choices && (files !== undefined || /INPUT|FILE|MODEL|TOKENS/.test(name));
  });
  if (!takesFiles || command.arguments[0].choices || !NAME.test(text) || changeTime(text) !== null) return;
  const near = nearest(text, [...variables.keys()].filter((name) => name !== "_"));
  throw new UsageError(
    `Unknown name "${text}": it is neither a variable nor a file${
      near ? `; did you mean ${near}?` : ", :vars lists the variables"
    }`,
  );
}

/** The value that a word names; null where it is a plain word. */
async function referenceIn(word: string, flag: Flag | null, scope: Scope): Promise<Value | null> {
  const match = REFERENCE.exec(word);
  if (!match || !scope.variables.has(match[1]) || flag?.choices?.includes(word)) return null;
  // genes.npy is a file where there is one, whatever genes is.
  if (word !== match[1] && !word.includes("[") && changeTime(word) !== null) return null;
  return await evaluate(parseExpression(word), scope);
}

interface Wanted {
  readonly scope: Scope;
  readonly command: Command;
  /** The command itself takes rows and ways of reading. */
  readonly view: boolean;
}

/** A value as a word, and the flags that go with it. */
async function textOf(
  value: Value,
  { scope: { workspace }, view }: Wanted,
): Promise<{ path: string; flags: Partial<Record<string, string>> }> {
  if (value.kind === "model") return { path: value.path, flags: {} };
  if (value.kind === "inputs") {
    if (value.rows && !view) {
      throw new UsageError("Cannot use rows of an input here: name its parts, such as qkv[0:10].q");
    }
    return { path: value.path, flags: { ...value.flags, ...rowsFlag(value.rows) } };
  }
  if (value.kind === "tensor") {
    const simple = value.alone && (view || !value.rows);
    const file: TensorValue = simple ? value : await aloneFile(workspace, value);
    return { path: file.path, flags: { ...file.flags, ...rowsFlag(file.rows) } };
  }
  if (value.kind === "plain" && ["number", "string", "boolean"].includes(typeof value.value)) {
    return { path: String(value.value), flags: {} };
  }
  throw new UsageError(`Cannot use a ${kindWord(value)} in a command: expected a tensor, a number or a text`);
}

const rowsFlag = (rows: { start: number; end: number } | null) => rows ? { rows: `${rows.start}:${rows.end}` } : {};
