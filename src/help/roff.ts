/** Topics and words as roff, for the man page: the macros of man(7), ASCII only, so that no encoding can go wrong. */
import type { Block, Topic } from "./topic.ts";

const NAMED: Readonly<Record<string, string>> = {
  "\\": "\\e",
  "-": "\\-",
  "'": "\\(aq",
  "`": "\\(ga",
  "^": "\\(ha",
  "~": "\\(ti",
  '"': "\\(dq",
};

/** Text that roff shows as it is, on one line. */
export function escaped(text: string): string {
  const letters = Array.from(text.replace(/\s*\n\s*/g, " "), (letter) => {
    if (NAMED[letter]) return NAMED[letter];
    const code = letter.codePointAt(0)!;
    return code < 127 ? letter : `\\[u${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
  // A dot at the beginning of a line would be a macro.
  return letters.join("").replace(/^\./, "\\&.");
}

/** A macro with one argument. */
export const macro = (name: string, text: string): string => `.${name} "${escaped(text)}"\n`;

export const bold = (text: string): string => `\\fB${escaped(text)}\\fR`;
export const italic = (text: string): string => `\\fI${escaped(text)}\\fR`;

/** A term and what it means; `term` is roff already. */
export const term = (term: string, words: string): string => `.TP\n${term}\n${escaped(words)}\n`;

/** Lines that are kept as they are. */
export const kept = (lines: readonly string[]): string => {
  return `.RS 4\n.nf\n${lines.map((line) => `${escaped(line)}\n`).join("")}.fi\n.RE\n`;
};

const blockRoff = (block: Block): string => {
  if (typeof block === "string") return `.PP\n${escaped(block)}\n`;
  if ("formula" in block) return `.PP\n${kept(block.formula)}`;
  return block.terms.map(([name, words]) => term(bold(name), words)).join("");
};

/** A page as a subsection. */
export function topicRoff({ name, summary, body, examples }: Topic): string {
  const lines = examples.length > 0 ? `.PP\n${kept(examples)}` : "";
  return macro("SS", name) + `${escaped(summary)}\n` + body.map(blockRoff).join("") + lines;
}
