/**
 * Charts of sound data: numbers that a scale cannot show are taken out before drawing, and the caption says how many and why. What is left
 * without anything to draw has no picture, but a sentence.
 */
import { count, figure } from "../words.ts";
import type { Axis, Chart, Panel, Point, Series } from "./chart.ts";

/** Points of one series up to which all are drawn; beyond, they are thinned evenly, the first, last and extreme ones kept. */
export const MOST_POINTS = 1000;

/** A chart that can be drawn, or why not. */
export type Sound = { readonly chart: Chart } | { readonly sentence: string };

/** What was taken out, for the caption. */
class Losses {
  #notNumbers = 0;
  #notPositive = 0;
  #thinned: string[] = [];

  /** Whether an axis can show the number. */
  keeps(value: number, { scale }: Pick<Axis, "scale">): boolean {
    if (!Number.isFinite(value)) this.#notNumbers++;
    else if (scale === "log" && !(value > 0)) this.#notPositive++;
    else return true;
    return false;
  }

  thin(name: string, kept: number, all: number): void {
    this.#thinned.push(
      `${count(kept)} of the ${count(all)} points of ${name} are drawn, evenly, the extremes among them`,
    );
  }

  get sentences(): string[] {
    const points = (n: number) => `${count(n)} ${n === 1 ? "point is" : "points are"}`;
    return [
      ...(this.#notNumbers > 0 ? [`Not drawn: ${points(this.#notNumbers)} not a finite number`] : []),
      ...(this.#notPositive > 0
        ? [`Not drawn: ${points(this.#notPositive)} 0 or below, where the axis is logarithmic`]
        : []),
      ...this.#thinned,
    ];
  }
}

/** Takes out what cannot be drawn. */
export function soundChart(chart: Chart): Sound {
  const losses = new Losses();
  const panels = chart.panels.flatMap((panel) => soundPanel(panel, losses) ?? []);
  if (panels.length === 0) {
    const why = losses.sentences.map((sentence) => `. ${sentence}`).join("");
    return { sentence: `There is nothing to draw for "${chart.title}"${why}` };
  }
  const missing = chart.panels.filter(({ title }) => !panels.some((panel) => panel.title === title));
  const absent = missing.map(({ title }) => `Left out, since it has nothing to draw: ${title}`);
  return { chart: { ...chart, panels, caption: [...chart.caption, ...losses.sentences, ...absent] } };
}

function soundPanel(panel: Panel, losses: Losses): Panel | null {
  if (panel.kind === "heat") {
    if (panel.cells.some(Number.isFinite)) return panel;
    for (const cell of panel.cells) losses.keeps(cell, panel.colour);
    return null;
  }
  if (panel.kind === "bars") {
    const bars = panel.bars.filter(({ from, to, count }) => losses.keeps(from, panel.x) && to > from && count >= 0);
    const rules = panel.rules?.filter(({ at }) => losses.keeps(at, panel.x));
    return bars.some(({ count }) => count > 0) ? { ...panel, bars, rules } : null;
  }
  const { x, y } = panel;
  const series = panel.series.map((one, style): Series => {
    const kept = one.points.filter((point) => losses.keeps(point.x, x) && losses.keeps(point.y, y));
    const points = thinned(kept).map((point) => bounded(point, y));
    if (points.length < kept.length) losses.thin(one.name, points.length, kept.length);
    return { ...one, style: one.style ?? style, points };
  }).filter(({ points }) => points.length > 0);
  const rules = panel.rules?.filter(({ axis, at }) =>
    Number.isFinite(at) && (panel[axis].scale === "linear" || at > 0)
  );
  return series.length > 0 ? { ...panel, series: series.map(visible), rules } : null;
}

/** A line of one point is a mark. */
const visible = (series: Series): Series => series.points.length === 1 ? { ...series, draw: "marks" } : series;

/** Ends of a spread that an axis cannot show are those of the point. */
function bounded(point: Point, { scale }: Axis): Point {
  const { y, low = y, high = y } = point;
  const sound = (end: number) => Number.isFinite(end) && (scale === "linear" || end > 0);
  return { ...point, low: sound(low) ? low : y, high: sound(high) ? high : y };
}

/** At most about MOST_POINTS points: of each stretch its first, its lowest and its highest. */
function thinned(points: readonly Point[]): readonly Point[] {
  if (points.length <= MOST_POINTS) return points;
  const stretches = Math.floor(MOST_POINTS / 4);
  const chosen = new Set<Point>([points[0], points.at(-1)!]);
  for (let s = 0; s < stretches; s++) {
    const part = points.slice(
      Math.floor(s * points.length / stretches),
      Math.floor((s + 1) * points.length / stretches),
    );
    chosen.add(part[0]);
    chosen.add(part.reduce((least, point) => point.y < least.y ? point : least));
    chosen.add(part.reduce((most, point) => point.y > most.y ? point : most));
  }
  return points.filter((point) => chosen.has(point));
}

/** A value as a cell or a label shows it. */
export const shortFigure = (value: number): string => Number.isFinite(value) ? figure(value) : "–";
