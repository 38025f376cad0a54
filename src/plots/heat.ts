/** A table of numbers as shades: one line per thing, one character per stretch of positions. */
import { showable, tickText } from "./axis.ts";
import {
  clip,
  LEAST_COLUMNS,
  legend,
  type LegendEntry,
  MARGIN,
  narrow,
  paint,
  paintCells,
  type PlotStyle,
  sentence,
  type Tone,
  widthOf,
} from "./style.ts";

export interface HeatCell {
  /** NaN: nothing is known, and nothing is drawn. */
  readonly value: number;
  /** Drawn as "x" in red, whatever the value. */
  readonly crossed?: boolean;
}

export interface HeatLine {
  readonly label: string;
  /** Behind the shades. */
  readonly text: string;
  /** Of positions from … to − 1. */
  cell(from: number, to: number): HeatCell;
}

export interface HeatMap {
  readonly title: string;
  /** Positions across; several share a character where there are more than fit. */
  readonly length: number;
  readonly lines: readonly HeatLine[];
  /** Names of the first and the last position, and of what lies between them. */
  readonly across: readonly [first: string, middle: string, last: string];
  /** What crossed cells mean. */
  readonly crossedLabel: string;
  /** What empty cells mean; "no error is defined" when left out. */
  readonly emptyLabel?: string;
  readonly notes?: readonly string[];
}

const SHADES = { blocks: ["░", "▒", "▓", "█"], ascii: [".", "-", "+", "#"] };
const CROSS = "x";

/** The map as lines that end with a newline, none longer than the style's columns. */
export function drawHeat(
  { title, length, lines, across, crossedLabel, emptyLabel = "no error is defined", notes = [] }: HeatMap,
  style: PlotStyle,
): string {
  const head = sentence(title, style, "bold");
  const said = notes.map((note) => sentence(note, style)).join("");
  const total = widthOf(style);
  if (length === 0 || lines.length === 0) return head + sentence("nothing to draw: there is no value", style) + said;
  if (total < LEAST_COLUMNS) {
    return head + sentence(`too narrow to draw: it takes ${LEAST_COLUMNS} columns`, style) + said;
  }
  const labels = lines.map(({ label }) => clip(narrow(label, style), Math.floor(total / 4), style));
  const texts = lines.map(({ text }) => clip(narrow(text, style), Math.floor(total / 4), style));
  const [first, last] = [labels, texts].map((all) => Math.max(...all.map(({ length }) => length)));
  const indent = MARGIN.length + first + 1;
  const width = Math.min(length, total - indent - last - 2);
  const grid = lines.map((line) => {
    return Array.from({ length: width }, (_, c) => {
      return line.cell(Math.floor(length * c / width), Math.floor(length * (c + 1) / width));
    });
  });
  const cells = grid.flat();
  const shading = shadingOf(cells.filter(({ crossed }) => !crossed).map(({ value }) => value));
  const shades = style.ascii ? SHADES.ascii : SHADES.blocks;
  const levelOf = (value: number) => shading.bounds.filter((bound) => value > bound).length;
  const rows = grid.map((row, i) => {
    const signs = row.map(({ value, crossed }) => crossed ? CROSS : Number.isNaN(value) ? " " : shades[levelOf(value)]);
    const tones = row.map(({ crossed }): Tone => crossed ? "red" : "cyan");
    return `${MARGIN}${labels[i].padEnd(first)} ${paintCells(style, signs, tones)}  ${texts[i]}`.trimEnd() + "\n";
  });
  const used = new Set(
    cells.filter(({ value, crossed }) => !crossed && !Number.isNaN(value)).map(({ value }) => levelOf(value)),
  );
  const entries: LegendEntry[] = [
    ...shades.map((sign, level) => ({ sign, tone: "cyan" as const, label: shadeLabel(shading, level), level }))
      .filter(({ level }) => used.has(level)),
    ...(cells.some(({ crossed }) => crossed) ? [{ sign: CROSS, tone: "red" as const, label: crossedLabel }] : []),
    ...(cells.some(({ value, crossed }) => !crossed && Number.isNaN(value))
      ? [{ sign: style.ascii ? "(blank)" : "␣", tone: "plain" as const, label: emptyLabel }]
      : []),
  ];
  return head + rows.join("") +
    `${" ".repeat(indent)}${paint(style, "dim", between(across, width, total - indent, style))}\n` +
    legend(entries, style, MARGIN.length + 2) + said;
}

interface Shading {
  /** Bounds between shades, ascending. */
  readonly bounds: readonly number[];
  readonly high: number;
}

/** Values that differ by less than these factors get one, two or three shades: more would show what does not matter. */
const FACTORS = [1.1, 1.4, 2];

/** Part of the values that share the lightest shade, however small they are: a few that are nearly 0 say nothing of the others. */
const LIGHTEST = 0.1;

/** Round bounds, evenly on a logarithmic scale up to the largest value. */
function shadingOf(values: readonly number[]): Shading {
  const sorted = values.filter((value) => showable("log", value)).sort((a, b) => a - b);
  const high = sorted[sorted.length - 1] ?? 0;
  const low = sorted[Math.floor(LIGHTEST * sorted.length)] ?? Infinity;
  const parts = 1 + FACTORS.filter((factor) => high / factor >= low).length;
  const exact = Array.from({ length: parts - 1 }, (_, i) => {
    return Math.exp(Math.log(low) + (Math.log(high) - Math.log(low)) * (i + 1) / parts);
  });
  const rounded = [1, 2, 3].map((digits) => exact.map((bound) => Number(bound.toPrecision(digits))));
  const distinct = (set: readonly number[]) =>
    new Set(set).size === set.length && set.every((bound) => bound >= low && bound < high);
  return { bounds: rounded.find(distinct) ?? exact, high };
}

function shadeLabel({ bounds, high }: Shading, level: number): string {
  if (bounds.length === 0) {
    return high === 0 ? "0" : `up to ${tickText(high)}`;
  }
  return level < bounds.length ? `up to ${tickText(bounds[level])}` : `above ${tickText(bounds[bounds.length - 1])}`;
}

/** The names of both ends and of the middle, as far as they fit. */
function between([first, middle, last]: HeatMap["across"], width: number, room: number, style: PlotStyle): string {
  const [a, b, c] = [first, middle, last].map((text) => narrow(text, style));
  const arrow = style.ascii ? "->" : "→";
  const spread = width - a.length - b.length - c.length;
  if (spread >= 4) {
    const left = Math.floor(spread / 2);
    return `${a}${" ".repeat(left)}${b}${" ".repeat(spread - left)}${c}`;
  }
  return clip(a.length + c.length + 2 <= width ? a + c.padStart(width - a.length) : `${a} ${arrow} ${c}`, room, style);
}
