/**
 * Commands in the documentation. A fence of language `sh` holds commands, a line each; one without a language that begins with `$ `
 * shows a session: commands behind `$ `, and what they print. Scripts (`ts`) and sessions of the REPL have tests of their own. A comment before the fence says
 * what differs: `<!-- exit 1 -->`, or `<!-- not run: reason -->`.
 */

/** One command line of a page. */
export interface ShownCommand {
  readonly line: number;
  /** As a shell reads it, continued lines joined. */
  readonly text: string;
  /** What the page shows that it prints. */
  readonly output: readonly string[];
}

export interface Fence {
  /** Of the fence itself, from 1. */
  readonly line: number;
  readonly language: string;
  readonly commands: readonly ShownCommand[];
  readonly code: string;
  /** Exit code that the page announces. */
  readonly exit: number;
  /** Why it is not run. */
  readonly notRun: string | null;
}

/** The fences of a page in order. */
export function fencesOf(markdown: string): Fence[] {
  const fences: Fence[] = [];
  const lines = markdown.split("\n");
  let note = "";
  for (let at = 0; at < lines.length; at++) {
    const open = /^```(\S*)\s*$/.exec(lines[at]);
    if (!open) {
      const comment = /^<!--\s*(.*?)\s*-->$/.exec(lines[at]);
      if (comment) note = comment[1];
      else if (lines[at].trim() !== "") note = "";
      continue;
    }
    const end = lines.indexOf("```", at + 1);
    if (end < 0) throw new Error(`the fence of line ${at + 1} does not end`);
    const body = lines.slice(at + 1, end);
    fences.push({
      line: at + 1,
      language: open[1],
      commands: commandsOf(open[1], body, at + 2),
      code: body.join("\n"),
      exit: Number(/^exit (\d+)/.exec(note)?.[1] ?? 0),
      notRun: /^not run: (.+)$/.exec(note)?.[1] ?? null,
    });
    note = "";
    at = end;
  }
  return fences;
}

function commandsOf(language: string, body: readonly string[], first: number): ShownCommand[] {
  const session = language === "" && body[0]?.startsWith("$ ");
  if (!session && language !== "sh") return [];
  const commands: { line: number; text: string; output: string[] }[] = [];
  for (let i = 0; i < body.length; i++) {
    if (session && !body[i].startsWith("$ ")) {
      commands.at(-1)!.output.push(body[i]);
      continue;
    }
    const line = first + i;
    let text = session ? body[i].slice(2) : body[i];
    while (text.endsWith("\\")) text = text.slice(0, -1) + body[++i].trim();
    if (text.trim() !== "" && !text.startsWith("#")) commands.push({ line, text, output: [] });
  }
  return commands;
}

/**
 * The words of a simple command: quotes, variables and a comment at its end are understood. Null where it takes a shell: pipes,
 * redirections, lists, patterns, substitutions.
 */
export function wordsOf(text: string, variables: ReadonlyMap<string, string> = new Map()): string[] | null {
  const words: string[] = [];
  const part = /'([^']*)'|"([^"$`\\]*)"|\$(\w+)|([^\s'"$`\\|&;<>()*?~#]+|(?<=\S)#)|(\s+)|(#.*$)/y;
  let word: string | null = null;
  while (part.lastIndex < text.length) {
    const match = part.exec(text);
    if (!match) return null;
    const [, single, double, name, plain, space, comment] = match;
    if (space !== undefined || comment !== undefined) {
      if (word !== null) words.push(word);
      word = null;
      continue;
    }
    const value = name === undefined ? single ?? double ?? plain : variables.get(name);
    if (value === undefined) return null;
    word = (word ?? "") + value;
  }
  if (word !== null) words.push(word);
  return words;
}

/** Words that name the lines of a report: two spaces, the label, and its value in a column of its own. */
export function labelsOf(output: readonly string[]): string[] {
  return output.map((line) => /^ {2}([a-z]+(?: [a-z]+)*) {2,}\S/.exec(line)?.[1]).filter((label) =>
    label !== undefined
  );
}
