/** One line per value: bars from zero on a linear axis, dots along a logarithmic one. And sparklines, which are one line of many values. */
import { type Placed, Scale, type ScaleKind, scaleOf, showable, ticksAcross, tickText } from "./axis.ts";
import {
  clip,
  LEAST_COLUMNS,
  legend,
  MARGIN,
  narrow,
  paint,
  paintCells,
  type PlotStyle,
  sentence,
  type Tone,
  widthOf,
} from "./style.ts";

export interface Row {
  readonly label: string;
  readonly value: number;
  /** Behind the bar; the value unless given. */
  readonly text?: string;
  readonly tone?: Tone;
}

export interface RowsChart {
  readonly title: string;
  readonly axis: { readonly label: string; readonly scale: ScaleKind; readonly text?: (value: number) => string };
  /** In this order. */
  readonly rows: readonly Row[];
  /** Lines at one value through all rows, such as a baseline. */
  readonly rules?: readonly { readonly at: number; readonly label: string; readonly tone?: Tone }[];
  /** Without ticks and axis title: what bars are of is said in the title. */
  readonly bare?: boolean;
  readonly notes?: readonly string[];
}

/** Parts of a block, an eighth more each. */
const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/** A bar of `part` (0 to 1) of `width` characters; what is above 0 is seen. */
function bar(part: number, width: number, { ascii }: PlotStyle): string {
  const length = part > 0 ? Math.min(width, Math.max(1 / 8, part * width)) : 0;
  if (ascii) return "#".repeat(Math.max(part > 0 ? 1 : 0, Math.round(length)));
  const eighths = Math.round(8 * length);
  return "█".repeat(Math.floor(eighths / 8)) + EIGHTHS[eighths % 8];
}

/** A dot at its place, with leaders to lead the eye from the label. */
function dotted(part: number, width: number, { ascii }: PlotStyle): string {
  const at = Math.round(part * (width - 1));
  return (ascii ? "." : "·").repeat(at) + (ascii ? "o" : "●");
}

const RULES = { braille: ["┊", "║"], ascii: [":", "!"] };

/** The rows as lines that end with a newline, none longer than the style's columns. */
export function drawRows(
  { title, axis, rows, rules = [], bare = false, notes = [] }: RowsChart,
  style: PlotStyle,
): string {
  const head = sentence(title, style, "bold");
  const said = notes.map((note) => sentence(note, style)).join("");
  if (rows.length === 0) return head + sentence("nothing to draw: there is no value", style) + said;
  const total = widthOf(style);
  if (total < LEAST_COLUMNS) {
    return head + sentence(`too narrow to draw: it takes ${LEAST_COLUMNS} columns`, style) + said;
  }
  const write = axis.text ?? tickText;
  const texts = rows.map(({ text, value }) => clip(narrow(text ?? write(value), style), Math.floor(total / 3), style));
  const labels = rows.map(({ label }) => clip(narrow(label, style), Math.floor(total / 3), style));
  const [first, last] = [labels, texts].map((all) => Math.max(...all.map(({ length }) => length)));
  const indent = MARGIN.length + first + 2;
  const width = total - indent - last - 2;
  const shown = rules.filter(({ at }) => showable(axis.scale, at));
  const values = [...rows.map(({ value }) => value), ...shown.map(({ at }) => at)].filter((v) =>
    showable(axis.scale, v)
  );
  const scale = barScale(axis.scale, values);
  const ticks = ticksAcross(scale, width, (value) => narrow(write(value), style));
  const log = axis.scale === "log";
  const dim = (words: string) => paint(style, "dim", words);
  const edge = style.ascii ? "|" : "│";
  const lines = rows.map(({ value, tone = "plain" }, i) => {
    const drawn = Number.isNaN(value)
      ? ""
      : log
      ? (value > 0 ? dotted(scale.at(value), width, style) : "")
      : bar(scale.at(value), width, style);
    const cells = [...drawn.padEnd(width)];
    const tones = cells.map((_, column): Tone => log && column < drawn.length - 1 ? "dim" : tone);
    for (const [r, rule] of shown.entries()) {
      const at = Math.round(scale.at(rule.at) * (width - 1));
      if (cells[at] !== " " && cells[at] !== "." && cells[at] !== "·") continue;
      cells[at] = RULES[style.ascii ? "ascii" : "braille"][r % 2];
      tones[at] = rule.tone ?? "dim";
    }
    return `${MARGIN}${labels[i].padEnd(first)} ${dim(edge)}${paintCells(style, cells, tones)} ${texts[i]}\n`;
  });
  return head + lines.join("") + (bare ? "" : foot(axis, ticks, { indent, width }, style)) +
    legend(
      shown.map(({ label, tone = "dim" }, r) => ({
        sign: RULES[style.ascii ? "ascii" : "braille"][r % 2],
        tone,
        label,
      })),
      style,
      MARGIN.length + 2,
    ) + said;
}

function barScale(kind: ScaleKind, values: readonly number[]): Scale {
  if (kind === "log") return values.length > 0 ? scaleOf("log", values) : new Scale("log", 0.1, 1);
  const most = Math.max(0, ...values);
  return new Scale("linear", 0, most > 0 ? most : 1);
}

/** A horizontal axis below a drawing of `width` characters that begins at `indent`: line, ticks, and what is measured. */
export function foot(
  axis: { readonly label: string; readonly scale: ScaleKind },
  ticks: readonly Placed[],
  { indent, width }: { readonly indent: number; readonly width: number },
  style: PlotStyle,
): string {
  const [corner, flat, tick] = style.ascii ? "+-+" : "└─┬";
  const dim = (words: string) => paint(style, "dim", words);
  const base = Array.from({ length: width }, () => flat);
  for (const { at } of ticks) base[at] = tick;
  let below = "";
  for (const { from, text } of ticks) below = below.padEnd(from) + text;
  const words = narrow(axisWords(axis), style);
  const inset = Math.max(0, Math.floor((width - words.length) / 2));
  return `${" ".repeat(indent - 1)}${dim(corner + base.join(""))}\n${" ".repeat(indent)}${dim(below)}\n` +
    (words.length <= width ? `${" ".repeat(indent + inset)}${dim(words)}\n` : sentence(words, style));
}

/** What an axis measures, and how. */
export const axisWords = ({ label, scale }: { readonly label: string; readonly scale: ScaleKind }): string => {
  return `${label}${scale === "log" ? ", log scale" : ""}`;
};

const SPARKS = { blocks: "▁▂▃▄▅▆▇█", ascii: "_.-=^" };

/**
 * Values as one line of at most `width` characters, the least lowest; several values to a character show the largest of them. What is
 * not a number (or, on a logarithmic scale, not above 0) is a space. Lines that are to be compared share a scale.
 */
export function sparkline(
  values: ArrayLike<number>,
  width: number,
  style: PlotStyle,
  kind: ScaleKind = "linear",
  given?: Scale,
): string {
  const length = Math.max(0, Math.min(Math.floor(width), values.length));
  const cells = Array.from({ length }, (_, c) => {
    const [from, to] = [Math.floor(values.length * c / length), Math.floor(values.length * (c + 1) / length)];
    let most = NaN;
    for (let i = from; i < to; i++) {
      if (showable(kind, values[i]) && !(values[i] <= most)) most = values[i];
    }
    return most;
  });
  const usable = cells.filter((value) => !Number.isNaN(value));
  if (usable.length === 0) return " ".repeat(length);
  const scale = given ?? scaleOf(kind, usable, true);
  const signs = [...(style.ascii ? SPARKS.ascii : SPARKS.blocks)];
  return cells.map((value) => Number.isNaN(value) ? " " : signs[Math.round(scale.at(value) * (signs.length - 1))]).join(
    "",
  );
}
