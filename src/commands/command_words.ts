/** A command line as words of the table: which are flags, values and arguments, whole or half typed, right or wrong. */
import type { Argument, Command, Flag } from "./command.ts";

/** A word, or the part of one after "=". */
export type Word =
  | { readonly kind: "flag"; readonly flag: Flag }
  /** `joined`: in one word with its flag, as "--name=text" or "-ntext". */
  | { readonly kind: "value"; readonly flag: Flag; readonly text: string; readonly joined: boolean }
  | { readonly kind: "argument"; readonly argument: Argument; readonly text: string }
  /** No such flag, as it was typed, without "=" and what follows. */
  | { readonly kind: "unknown flag"; readonly text: string }
  /** More arguments than the command takes. */
  | { readonly kind: "excess"; readonly text: string };

export interface CommandWords {
  readonly words: readonly Word[];
  /** The flag whose value the next word would be. */
  readonly open: Flag | null;
  /** The argument that the next word would be. */
  readonly next: Argument | null;
  /** After "--", which makes all words arguments. */
  readonly ended: boolean;
}

/** "--num-features" or "-m" of a command. */
export function flagNamed({ flags }: Command, word: string): Flag | undefined {
  return flags.find(({ name, short }) => word === `--${name}` || (short !== undefined && word === `-${short}`));
}

/** What the words after a command's name are, read as the parser reads them. */
export function readWords(command: Command, line: readonly string[]): CommandWords {
  const words: Word[] = [];
  let open: Flag | null = null;
  let ended = false;
  let place = 0;
  for (const text of line) {
    if (open) {
      words.push({ kind: "value", flag: open, text, joined: false });
      open = null;
    } else if (ended || !/^-./.test(text)) {
      const argument: Argument | undefined = command.arguments[place];
      if (!argument?.many) place++;
      words.push(argument ? { kind: "argument", argument, text } : { kind: "excess", text });
    } else if (text === "--") {
      ended = true;
    } else if (text.startsWith("--")) {
      const [, name, value] = /^(.*?)(?:=(.*))?$/s.exec(text)!;
      const flag = flagNamed(command, name);
      words.push(flag ? { kind: "flag", flag } : { kind: "unknown flag", text: name });
      if (value !== undefined) {
        if (flag) words.push({ kind: "value", flag, text: value, joined: true });
      } else if (flag?.value) open = flag;
    } else {
      open = readShort(command, text, words);
    }
  }
  return { words, open, next: command.arguments[place] ?? null, ended };
}

/** Values that a line gives to flags, by name, however they are written; the last counts, and null is a switch. */
export function flagsGiven(command: Command, line: readonly string[]): Map<string, string | null> {
  const given = new Map<string, string | null>();
  for (const word of readWords(command, line).words) {
    if (word.kind === "flag") given.set(word.flag.name, null);
    else if (word.kind === "value") given.set(word.flag.name, word.text);
  }
  return given;
}

/** "-q", "-qv", "-m64": switches together, or a flag with its value. Returns the flag whose value is still to come. */
function readShort(command: Command, text: string, words: Word[]): Flag | null {
  for (let at = 1; at < text.length; at++) {
    const flag = flagNamed(command, `-${text[at]}`);
    if (!flag) {
      words.push({ kind: "unknown flag", text: at === 1 ? text : `-${text[at]}` });
      return null;
    }
    words.push({ kind: "flag", flag });
    if (!flag.value) continue;
    if (at + 1 === text.length) return flag;
    words.push({ kind: "value", flag, text: text.slice(at + 1), joined: true });
    return null;
  }
  return null;
}
