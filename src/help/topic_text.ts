/** Topics as text for a terminal. */
import { wrapped } from "../plots/style.ts";
import type { Block, Group, Topic } from "./topic.ts";

/** Lines of a page are no longer, however wide the terminal is. */
const MOST_COLUMNS = 100;
const LEAST_COLUMNS = 40;

/** What a name of a group is. */
const KINDS: Readonly<Record<Group, string>> = {
  topics: "",
  "feature maps": " (feature map)",
  "far fields": " (far field)",
  projections: " (projection)",
  backends: " (backend)",
  numerics: " (numerics of --compat)",
};

/** How long lines of pages may be on a terminal. */
export const widthOf = (columns: number): number => Math.max(LEAST_COLUMNS, Math.min(MOST_COLUMNS, columns));

/** A page, its lines at most as long as the terminal is wide; formulas and command lines are never broken. */
export function pageText(topic: Topic, columns: number): string {
  const width = widthOf(columns);
  const { name, group, summary, body, examples, see } = topic;
  return [
    wrapped(`${name}${KINDS[group]}: ${summary}`, width).join("\n"),
    ...body.map((block) => blockText(block, width)),
    ...(examples.length > 0 ? [`Examples:\n${examples.map((line) => `  ${line}`).join("\n")}`] : []),
    ...(see.length > 0 ? [wrapped(`See also: ${see.join(", ")}`, width).join("\n")] : []),
  ].join("\n\n") + "\n";
}

function blockText(block: Block, width: number): string {
  if (typeof block === "string") return wrapped(block, width).join("\n");
  if ("formula" in block) return block.formula.map((line) => `    ${line}`).join("\n");
  return termLines(block.terms, width).join("\n");
}

/** Terms with their words beside them. */
export function termLines(terms: readonly (readonly [term: string, words: string])[], width: number): string[] {
  const column = Math.min(20, Math.max(...terms.map(([term]) => term.length))) + 4;
  return terms.flatMap(([term, words]) => {
    const lines = wrapped(words, width - column);
    if (term.length + 4 > column) return [`  ${term}`, ...lines.map((line) => " ".repeat(column) + line)];
    return lines.map((line, i) => (i === 0 ? `  ${term}`.padEnd(column) : " ".repeat(column)) + line);
  });
}
