/** Lines of a session cut into words, as a shell would. */
import { UsageError } from "../errors.ts";

/** A word, and where it stands in the line. */
export interface Word {
  readonly text: string;
  readonly start: number;
  readonly end: number;
  /** Some of it was quoted: it is a text, not a variable. */
  readonly quoted: boolean;
}

/**
 * Words with their quotes taken off: '…' as it is, "…" and \x for one letter. A word goes on inside brackets, so that
 * `x[0:10, 2:4]` is one. # after a space begins a comment. `open`: a quote or bracket that is still open ends with the line, for
 * completion; else UsageError.
 */
export function wordsOf(line: string, open = false): Word[] {
  const words: Word[] = [];
  let [text, start, quoted, depth] = ["", -1, false, 0];
  const end = (at: number) => {
    if (start >= 0) words.push({ text, start, end: at, quoted });
    [text, start, quoted, depth] = ["", -1, false, 0];
  };
  let i = 0;
  for (; i < line.length; i++) {
    const letter = line[i];
    if (/\s/.test(letter) && depth === 0) {
      end(i);
      continue;
    }
    if (letter === "#" && start < 0) break;
    if (start < 0) start = i;
    if (letter === "'" || letter === '"') {
      const close = closing(line, i);
      if (close < 0 && !open) throw new UsageError(`Missing ${letter}: the text that begins with it has no end`);
      const inner = line.slice(i + 1, close < 0 ? line.length : close);
      if (depth > 0) text += line.slice(i, close < 0 ? line.length : close + 1); // of an expression
      else {
        text += letter === '"' ? inner.replace(/\\(.)/gs, "$1") : inner;
        quoted = true;
      }
      i = close < 0 ? line.length : close;
      continue;
    }
    if (letter === "\\" && i + 1 < line.length) {
      text += line[++i];
      continue;
    }
    if (letter === "[" || letter === "(") depth++;
    if ((letter === "]" || letter === ")") && depth > 0) depth--;
    text += letter;
  }
  end(Math.min(i, line.length));
  return words;
}

/** Where a quote that opens at `at` is closed; -1: nowhere. */
function closing(line: string, at: number): number {
  for (let i = at + 1; i < line.length; i++) {
    if (line[i] === "\\" && line[at] === '"') i++;
    else if (line[i] === line[at]) return i;
  }
  return -1;
}

/** Whether a line is not complete: it ends with \, or inside a quote or brackets. Quotes of comments do not count. */
export function goesOn(line: string): boolean {
  if (/(^|[^\\])\\$/.test(line)) return true;
  let depth = 0;
  for (let i = 0; i < line.length; i++) {
    const letter = line[i];
    if (letter === "#" && (i === 0 || /\s/.test(line[i - 1]))) {
      const next = line.indexOf("\n", i);
      if (next < 0) break;
      i = next;
    } else if (letter === "'" || letter === '"' || letter === "`") {
      const close = closing(line, i);
      if (close < 0) return true;
      i = close;
    } else if ("([{".includes(letter)) depth++;
    else if (")]}".includes(letter)) depth--;
  }
  return depth > 0;
}

/** A line without a comment: # at its beginning or after a space, outside of quotes. */
export function withoutComment(line: string): string {
  for (let i = 0; i < line.length; i++) {
    if (line[i] === "'" || line[i] === '"') {
      const close = closing(line, i);
      if (close < 0) break;
      i = close;
    } else if (line[i] === "#" && (i === 0 || /\s/.test(line[i - 1]))) return line.slice(0, i).trimEnd();
  }
  return line;
}

/** Continued lines as one: \ at the end of a line and the line's end go, other line ends are spaces. */
export const joined = (line: string): string => line.replace(/\\\n/g, "").replace(/\n/g, " ");
