/** How the tour is laid out: text of a step, sentences and tables of what it measured. Nothing is longer than the columns there are. */
import { clip, MARGIN, narrow, paint, type PlotStyle, sentence, widthOf, wrapped } from "../plots/style.ts";
import type { TourStep, TourWorld } from "./step.ts";

/** Lines longer than this are hard to read. */
const READABLE = 100;

const readable = (style: PlotStyle): PlotStyle => ({ ...style, columns: Math.min(READABLE, style.columns) });

/** Lines of a chart's drawing: with the text around it a step fits a screen of 40 lines. */
export const CHART_LINES = 9;

/** A sentence of what was measured. */
export function say(world: Pick<TourWorld, "style" | "print">, text: string): void {
  world.print(sentence(text, readable(world.style), "plain"));
}

/** Columns of text, the first to the left and the others to the right. */
export function table(
  world: Pick<TourWorld, "style" | "print">,
  head: readonly string[],
  rows: readonly (readonly string[])[],
): void {
  const { style } = world;
  const all = [head, ...rows].map((cells) => cells.map((cell) => narrow(cell, style)));
  const widths = head.map((_, c) => Math.max(...all.map((cells) => cells[c].length)));
  for (const [i, cells] of all.entries()) {
    const line = cells.map((cell, c) => c === 0 ? cell.padEnd(widths[c]) : cell.padStart(widths[c])).join("  ");
    const shown = clip(line, widthOf(style) - MARGIN.length, style);
    world.print(`${MARGIN}${paint(style, i === 0 ? "bold" : "plain", shown)}\n`);
  }
}

/** Paragraphs, formulas and empty lines as TourStep has them. */
function paragraphs(text: string, style: PlotStyle): string {
  return text.split("\n").map((line) => {
    if (line.trim() === "") return "\n";
    if (!line.startsWith("    ")) return sentence(line, style, "plain");
    const indent = MARGIN + "    ";
    return wrapped(narrow(line.trim(), style), Math.max(1, widthOf(style) - indent.length))
      .map((part) => `${indent}${paint(style, "cyan", part.trimEnd())}\n`).join("");
  }).join("");
}

/**
 * Heading and text of a step: "Step 3 of 10 · …", then its paragraphs, wrapped.
 * @param index from 0 @param style how the terminal shows it; plain Unicode when left out
 */
export function pageText(
  step: TourStep,
  index: number,
  total: number,
  columns: number,
  style: Pick<PlotStyle, "ascii" | "color"> = { ascii: false, color: false },
): string {
  const look = readable({ ...style, columns });
  return sentence(`Step ${index + 1} of ${total} · ${step.title}`, look, "bold") + "\n" + paragraphs(step.text, look);
}

/** What belongs below a step's numbers: questions with their answers, and lines to try; "" where there are none. */
export function afterText(
  { questions = [], tryIt = [] }: TourStep,
  columns: number,
  style: Pick<PlotStyle, "ascii" | "color"> = { ascii: false, color: false },
): string {
  const look = readable({ ...style, columns });
  const asked = questions.map(({ ask, answer }) => sentence(ask, look, "bold") + sentence(answer, look, "plain"));
  const tried = tryIt.map((line, i) => {
    const indent = i === 0 ? `${MARGIN}Try  ` : `${MARGIN}     `;
    const parts = wrapped(narrow(line, look), Math.max(1, widthOf(look) - indent.length));
    return parts.map((part, p) => `${p === 0 ? indent : " ".repeat(indent.length)}${paint(look, "cyan", part)}\n`)
      .join("");
  });
  return [...asked, ...tried].join("");
}
