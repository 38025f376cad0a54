/** Curves and points on two axes. What is to be drawn is plain data; `drawChart` turns it into lines of text. */
import { Scale, type ScaleKind, scaleOf, showable, ticksAcross, ticksDown, tickText } from "./axis.ts";
import { BOTH, Canvas, type Spot } from "./canvas.ts";
import { axisWords, drawRows, foot } from "./rows.ts";
import {
  LEAST_COLUMNS,
  legend,
  type LegendEntry,
  MARGIN,
  narrow,
  paint,
  type PlotStyle,
  sentence,
  type Tone,
  widthOf,
} from "./style.ts";

export interface AxisTitle {
  /** What is measured, with its unit. */
  readonly label: string;
  readonly scale: ScaleKind;
  /** Values that get a tick where there is room, instead of round numbers. */
  readonly ticks?: readonly number[];
  readonly text?: (value: number) => string;
  /** Values above are drawn at the end of the axis, and said to be: they would squeeze the others. */
  readonly most?: number;
  /** The axis ends at the outermost values, not at round numbers. */
  readonly tight?: boolean;
}

export type Point = readonly [x: number, y: number];

export interface Series {
  /** In the legend; "" keeps it out. */
  readonly label: string;
  /** One character at every point; "" leaves the line alone. */
  readonly sign: string;
  readonly tone: Tone;
  /** Any order; drawn by growing x. */
  readonly points: readonly Point[];
  /** A line from point to point; "steps" goes across first, then down. */
  readonly joined?: boolean | "steps";
  /** Instead of points: the same y for every x, drawn as a dotted line with the sign at both ends. */
  readonly level?: number;
}

/** A line across the whole chart at one value, such as a baseline. */
export interface Rule {
  readonly axis: "x" | "y";
  readonly at: number;
  readonly label: string;
  /** Next to the line, where there is room. */
  readonly short?: string;
  readonly tone?: Tone;
}

export interface Chart {
  readonly title: string;
  readonly x: AxisTitle;
  readonly y: AxisTitle;
  readonly series: readonly Series[];
  readonly rules?: readonly Rule[];
  /** Sentences below. */
  readonly notes?: readonly string[];
  /** Lines of the drawing between its title and its axis; by the width when left out. */
  readonly height?: number;
}

const RULE_SIGNS = { y: ["╌", "-", "═", "="], x: ["┊", ":", "║", "!"] } as const;

/** The sign of the i-th rule along an axis. */
function ruleSign({ axis }: Pick<Rule, "axis">, index: number, { ascii }: PlotStyle): string {
  return RULE_SIGNS[axis][2 * (index % 2) + (ascii ? 1 : 0)];
}

/** Points that can be drawn, and sentences about the others. */
function sift({ series, x, y }: Chart) {
  let [odd, below, left] = [0, 0, 0];
  const drawn = series.map((one) => {
    const counts = one.sign === "" ? 0 : 1; // a line alone joins points that are drawn, and counted, elsewhere
    const points: Point[] = [];
    const floor: number[] = [];
    const level = one.level !== undefined && showable(y.scale, one.level) ? one.level : undefined;
    if (one.level !== undefined && level === undefined) {
      if (Number.isFinite(one.level)) below += counts;
      else odd += counts;
    }
    for (const [px, py] of one.level === undefined ? one.points : []) {
      if (!Number.isFinite(px) || !Number.isFinite(py)) odd += counts;
      else if (!showable(x.scale, px)) left += counts;
      else if (!showable(y.scale, py)) {
        below += counts;
        floor.push(px);
      } else points.push([px, py]);
    }
    return { ...one, level, points: points.sort((a, b) => a[0] - b[0]), floor };
  });
  const points = (count: number) => `${count} point${count === 1 ? "" : "s"}`;
  const atFoot = drawn.filter(({ floor, sign }) => floor.length > 0 && sign !== "").map(({ sign }) => sign);
  const beyond = (value: number) => y.most !== undefined && value > y.most;
  const above = drawn.map(({ sign, points, level = -Infinity }) => {
    return { sign, count: sign === "" ? 0 : points.filter(([, py]) => beyond(py)).length + (beyond(level) ? 1 : 0) };
  }).filter(({ count }) => count > 0);
  const notes = [
    ...(above.length > 0
      ? [
        `at the top, ${above.map(({ sign }) => sign).join(", ")}: ` +
        `${points(above.reduce((sum, { count }) => sum + count, 0))} above ${(y.text ?? tickText)(y.most!)}`,
      ]
      : []),
    ...(below > 0
      ? [
        `${atFoot.length > 0 ? `at the foot, ${atFoot.join(", ")}: ` : ""}${
          points(below)
        } with a ${y.label} of 0 or less, ` +
        "which a log scale cannot show",
      ]
      : []),
    ...(left > 0 ? [`left out: ${points(left)} with a ${x.label} of 0 or less, which a log scale cannot show`] : []),
    ...(odd > 0 ? [`left out: ${points(odd)} that ${odd === 1 ? "is" : "are"} not a finite number`] : []),
  ];
  return {
    drawn: drawn.filter(({ points, level, floor }) => points.length + floor.length > 0 || level !== undefined),
    notes,
  };
}

type Drawn = ReturnType<typeof sift>["drawn"];

/**
 * The chart as lines that end with a newline, none longer than the style's columns. Points that an axis cannot show are counted in a
 * sentence; with one x alone the values stand in rows, one under the other; without any there is a sentence instead.
 */
export function drawChart(chart: Chart, style: PlotStyle): string {
  const { drawn, notes } = sift(chart);
  const said = [...notes, ...(chart.notes ?? [])].map((note) => sentence(note, style)).join("");
  const title = sentence(chart.title, style, "bold");
  const xs = new Set(drawn.flatMap(({ points, floor }) => [...points.map(([px]) => px), ...floor]));
  if (drawn.length === 0) return title + sentence("nothing to draw: there is no finite number", style) + said;
  if (widthOf(style) < LEAST_COLUMNS) {
    return title + sentence(`too narrow to draw: it takes ${LEAST_COLUMNS} columns`, style) + said;
  }
  const alone = drawn.every(({ points, floor }) => points.length + floor.length <= 1);
  const across = (chart.rules ?? []).some(({ axis, at }) => axis === "x" && showable(chart.x.scale, at));
  const flat = xs.size <= 1 && alone && !across;
  return (flat ? asRows(chart, drawn, [...xs][0], style) : asCurves(chart, drawn, style)) + said;
}

/** Values at one x, or at none. */
function asRows({ title, x, y, rules = [] }: Chart, drawn: Drawn, at: number | undefined, style: PlotStyle): string {
  return drawRows({
    title: at === undefined ? title : `${title}, at ${x.label} ${(x.text ?? tickText)(at)}`,
    axis: y,
    rows: drawn.filter(({ sign }) => sign !== "").map(({ sign, label, tone, points, level }) => {
      return { label: label || sign, value: level ?? points[0]?.[1] ?? 0, tone };
    }),
    rules: rules.filter(({ axis }) => axis === "y"),
  }, style);
}

function asCurves(chart: Chart, drawn: Drawn, style: PlotStyle): string {
  const { title, x, y } = chart;
  const rules = (chart.rules ?? []).filter(({ axis, at }) => showable(axis === "x" ? x.scale : y.scale, at));
  const on = (axis: "x" | "y") => rules.filter((rule) => rule.axis === axis).map(({ at }) => at);
  const points = drawn.flatMap(({ points }) => points);
  const levels = drawn.flatMap(({ level }) => level ?? []);
  const across = scaleOf(
    x.scale,
    [...points.map(([px]) => px), ...drawn.flatMap(({ floor }) => floor), ...on("x")],
    x.tight,
  );
  const ys = [...points.map(([, py]) => py), ...levels, ...on("y")].map((value) => Math.min(value, y.most ?? Infinity));
  const down = ys.length > 0
    ? scaleOf(y.scale, ys, y.tight, drawn.some(({ floor }) => floor.length > 0))
    : new Scale(y.scale, 0.1, 1);

  const total = widthOf(style);
  const height = chart.height ?? (total >= 100 ? 15 : 12);
  const scaleText = ticksDown(down, height, y.text);
  const labels = new Map([...scaleText].map(([row, text]) => [row, clip10(narrow(text, style))]));
  const gutter = Math.max(...[...labels.values()].map(({ length }) => length));
  const indent = MARGIN.length + gutter + 2;
  const canvas = new Canvas(total - indent - 1, height, style);
  const spot = ([px, py]: Point): Spot => [across.at(px), 1 - down.at(py)];
  plot(canvas, drawn, spot);
  const signs = drawRules(canvas, rules, { across, down }, style);

  const ticks = ticksAcross(across, canvas.width, (value) => narrow((x.text ?? tickText)(value), style), x.ticks);
  const [upright, tickRight] = style.ascii ? "|+" : "│┤";
  const dim = (text: string) => paint(style, "dim", text);
  const rows = canvas.lines().map((line, row) => {
    const label = labels.get(row);
    return `${MARGIN}${dim((label ?? "").padStart(gutter))} ${dim(label === undefined ? upright : tickRight)}${line}\n`;
  });
  const entries: LegendEntry[] = [
    ...drawn.filter(({ label }) => label !== "").map(({ sign, tone, label }) => ({ sign, tone, label })),
    ...rules.map(({ label, tone = "dim" }, i) => ({ sign: signs[i].repeat(2), tone, label })),
  ];
  if (canvas.clashed) entries.push({ sign: BOTH, tone: "plain", label: "several of these" });
  return [
    sentence(title, style, "bold"),
    sentence(axisWords(y), style),
    ...rows,
    foot(x, ticks, { indent, width: canvas.width }, style),
    legend(entries, style, MARGIN.length + 2),
  ].join("");
}

/** Tick labels beyond ten characters would leave no room for the drawing. */
const clip10 = (text: string) => text.slice(0, 10);

function plot(canvas: Canvas, drawn: Drawn, spot: (point: Point) => Spot): void {
  for (const { points, joined, level, tone } of drawn) {
    const places: Spot[] = level === undefined ? points.map(spot) : [];
    for (let i = 1; joined && i < places.length; i++) {
      const [from, to] = [places[i - 1], places[i]];
      const corner: Spot = joined === "steps" ? [to[0], from[1]] : from;
      canvas.line(from, corner, tone);
      canvas.line(corner, to, tone);
    }
    if (level !== undefined) {
      const row = spot([1, level])[1];
      canvas.line([0, row], [1, row], tone, canvas.style.ascii ? 2 : 4);
    }
  }
  for (const { points, level, sign, tone, floor } of drawn) {
    if (sign === "") continue;
    if (level !== undefined) { for (const across of [0, 1]) canvas.mark([across, spot([1, level])[1]], sign, tone); }
    for (const point of points) canvas.mark(spot(point), sign, tone);
    for (const px of floor) canvas.mark([spot([px, 1])[0], 1], sign, tone);
  }
}

/** Draws the rules and their short labels; returns their signs. */
function drawRules(
  canvas: Canvas,
  rules: readonly Rule[],
  { across, down }: { readonly across: Scale; readonly down: Scale },
  style: PlotStyle,
): string[] {
  const { width, height } = canvas;
  const before = { x: 0, y: 0 };
  return rules.map((rule) => {
    const { axis, at, short, tone = "dim" } = rule;
    const sign = ruleSign(rule, before[axis]++, style);
    const words = short === undefined ? "" : narrow(short, style);
    const [column, row] = canvas.cell([across.at(at), 1 - down.at(at)]);
    const places: (readonly [column: number, row: number])[] = axis === "y"
      ? [width - words.length - 1, 1, Math.floor((width - words.length) / 2)].map((from) => [from, row])
      : Array.from({ length: height }, (_, r) => r).flatMap((r) =>
        [[column + 2, r], [column - words.length - 1, r]] as const
      );
    const place = places.find(([from, r]) => words !== "" && canvas.free(from, r, words.length));
    if (place && (axis === "y" || place[0] > 0)) canvas.text(place[0], place[1], words, tone);
    if (axis === "y") canvas.fillRow(row, sign, tone);
    else canvas.fillColumn(column, sign, tone);
    return sign;
  });
}
