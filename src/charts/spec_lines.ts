/** Curves, marks and bars as layers of a specification, with a legend that shows line, dash pattern and shape of each as they are drawn. */
import type { Axis, BarPanel, LinePanel, Point, Rule, Series } from "./chart.ts";
import { domainOf } from "./scales.ts";
import { axisSpec, type Layer, type PanelSize, titleLines } from "./spec_axis.ts";
import { DASHES, SHAPES } from "./style.ts";

/** Points of a series up to which a line shows a mark at each. */
const MARKED_POINTS = 24;

/** Both axes, and where they begin and end. */
interface Frame extends PanelSize {
  readonly x: Layer;
  readonly y: Layer;
  readonly xAxis: Axis;
  readonly yAxis: Axis;
  readonly xs: readonly [number, number];
  readonly ys: readonly [number, number];
}

/** Curves and marks, rules behind them, and the legend below. */
export function lineLayers({ x, y, series, rules = [] }: LinePanel, size: PanelSize): Layer[] {
  const points = series.flatMap((one) => one.points);
  const along = (axis: "x" | "y") => rules.filter((rule) => rule.axis === axis).map(({ at }) => at);
  const xs = domainOf([...points.map((point) => point.x), ...along("x")], x);
  const ys = domainOf([...points.flatMap(({ y, low = y, high = y }) => [low, y, high]), ...along("y")], y);
  const frame: Frame = {
    ...size,
    x: { field: "x", ...axisSpec(x, xs, size, "x") },
    y: { field: "y", ...axisSpec(y, ys, size, "y") },
    xAxis: x,
    yAxis: y,
    xs,
    ys,
  };
  const styled = series.map((one, i): Styled => ({ series: one, style: styleOf(one.style ?? i, size) }));
  const places = new LabelPlaces(frame, points, rules);
  const ruled = rules.map((rule) => ruleLayers(rule, frame, places));
  return [
    ...styled.flatMap((one) => spreadLayers(one, frame)),
    ...ruled.map(({ line }) => line),
    ...styled.flatMap((one) => seriesLayers(one, frame)),
    ...ruled.flatMap(({ labels }) => labels),
    ...(series.length > 1 ? legendLayers(styled, frame) : []),
  ];
}

interface Style {
  readonly colour: string;
  readonly dash: readonly number[];
  readonly shape: string;
}
interface Styled {
  readonly series: Series;
  readonly style: Style;
}

const styleOf = (place: number, { theme }: PanelSize): Style => ({
  colour: theme.series[place % theme.series.length],
  // More names than colours: a second round has the next dash pattern and shape.
  dash: DASHES[(place + Math.floor(place / theme.series.length)) % DASHES.length],
  shape: SHAPES[(place + Math.floor(place / theme.series.length)) % SHAPES.length],
});

const pointRow = ({ x, y, low = y, high = y, label }: Point): Layer => ({
  x,
  y,
  low,
  high,
  ...(label ? { label } : {}),
});

function spreadLayers({ series: { spread, points }, style: { colour } }: Styled, { x, y }: Frame): Layer[] {
  if (!spread) return [];
  const mark = spread === "band" && points.length > 1
    ? { type: "area", fill: colour, opacity: 0.16, clip: true }
    : { type: "rule", stroke: colour, strokeWidth: 1.3, clip: true };
  return [{
    data: { values: points.map(pointRow) },
    mark,
    encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" } },
  }];
}

const joined = ({ draw }: Series) => draw !== "marks";
const marked = ({ draw, points }: Series) => draw === "marks" || (draw !== "line" && points.length <= MARKED_POINTS);

function seriesLayers({ series, style: { colour, dash, shape } }: Styled, { x, y, theme }: Frame): Layer[] {
  const data = { values: series.points.map(pointRow) };
  const layers: Layer[] = [];
  if (joined(series)) {
    const mark = { type: "line", stroke: colour, strokeDash: dash, strokeWidth: 2, clip: true };
    layers.push({ data, mark, encoding: { x, y } });
  }
  if (marked(series)) {
    const size = series.points.length > 100 ? 20 : 55;
    layers.push({
      data,
      mark: { type: "point", fill: colour, strokeWidth: 0, opacity: 1, shape, size, clip: true },
      encoding: { x, y },
    });
  }
  if (series.labelled) {
    const named = { values: series.points.filter(({ label }) => label).map(pointRow) };
    const encoding = { x, y, text: { field: "label" } };
    layers.push(
      ...halo({ type: "text", align: "left", dx: 7, dy: -7, fontSize: 11 }, theme.ink, theme.halo).map((mark) => ({
        data: named,
        mark,
        encoding,
      })),
    );
  }
  return layers;
}

/** Text that is read over lines: once as an outline in the colour behind it, once as itself. */
const halo = (mark: Layer, colour: string, behind: string): Layer[] => [
  { ...mark, color: behind, stroke: behind, strokeWidth: 3, strokeJoin: "round", opacity: 0.85 },
  { ...mark, color: colour },
];

/** Width of a letter of the legend, of its symbol, and what lies between two names, in px. */
const [LETTER, SYMBOL, BETWEEN, LINE] = [6.5, 32, 18, 18];

/** Names below the horizontal axis, in as many lines as they need. */
function legendLayers(styled: readonly Styled[], { width, height, xAxis, theme }: Frame): Layer[] {
  const layers: Layer[] = [];
  const data = { values: [{}] };
  let left = 0, top = height + 42 + 14 * titleLines(xAxis.title, width).length;
  for (const { series, style: { colour, dash, shape } } of styled) {
    const needed = SYMBOL + series.name.length * LETTER;
    if (left > 0 && left + needed > width) [left, top] = [0, top + LINE];
    const y = { value: top };
    if (joined(series)) {
      const mark = { type: "rule", stroke: colour, strokeDash: dash, strokeWidth: 2 };
      layers.push({ data, mark, encoding: { x: { value: left }, x2: { value: left + 26 }, y } });
    }
    if (marked(series)) {
      const mark = { type: "point", fill: colour, strokeWidth: 0, opacity: 1, shape, size: 55 };
      layers.push({ data, mark, encoding: { x: { value: left + 13 }, y } });
    }
    const text = { type: "text", text: series.name, align: "left", baseline: "middle", fontSize: 11, color: theme.ink };
    layers.push({ data, mark: text, encoding: { x: { value: left + SYMBOL }, y } });
    left += needed + BETWEEN;
  }
  return layers;
}

/** A place in px. */
type Place = readonly [x: number, y: number];

/** Puts the names of rules where they hide least: of a few places along each rule the one with the fewest points and names under it. */
class LabelPlaces {
  readonly #taken: Place[];

  constructor(readonly frame: Frame, points: readonly Point[], rules: readonly Rule[]) {
    const places = points.map(({ x, y }): Place => [this.#across(x), this.#up(y)]);
    // Lines are under it as well: a few places between neighbours stand for them, and along rules.
    const between = places.slice(1).flatMap(([x, y], i) => {
      const [fromX, fromY] = places[i];
      return [0.25, 0.5, 0.75].map((share): Place => [fromX + share * (x - fromX), fromY + share * (y - fromY)]);
    });
    const steps = Array.from({ length: 40 }, (_, i) => (i + 0.5) / 40);
    const along = rules.flatMap(({ axis, at }) =>
      steps.map((step): Place => {
        return axis === "x" ? [this.#across(at), step * frame.height] : [step * frame.width, this.#up(at)];
      })
    );
    this.#taken = [...places, ...between, ...along];
  }

  #share(value: number, [low, high]: readonly [number, number], { scale }: Axis): number {
    return scale === "log" ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  }

  #across(value: number): number {
    return this.frame.width * this.#share(value, this.frame.xs, this.frame.xAxis);
  }

  #up(value: number): number {
    return this.frame.height * (1 - this.#share(value, this.frame.ys, this.frame.yAxis));
  }

  /** Where the name's end stands (middle of its height, in px), and which end that is. */
  place({ axis, at, label }: Rule): { readonly x: number; readonly y: number; readonly align: "left" | "right" } {
    const { width, height } = this.frame;
    const long = 6.2 * label.length;
    const candidates = axis === "y"
      ? [-8, 9].flatMap((dy) =>
        [4, (width - long) / 2, width - long - 4].map((x) => ({ x, y: this.#up(at) + dy, align: "left" as const }))
      )
      : [8, 21, 34, height - 10, height - 23].flatMap((y) => [
        { x: this.#across(at) + 5, y, align: "left" as const },
        { x: this.#across(at) - 5, y, align: "right" as const },
      ]);
    type Candidate = typeof candidates[number];
    const from = ({ x, align }: Candidate) => align === "left" ? x : x - long;
    const inside = candidates.filter((one) => {
      return from(one) >= 0 && from(one) + long <= width + 2 && one.y >= 4 && one.y <= height - 4;
    });
    const hidden = (one: Candidate) =>
      this.#taken.filter(([x, y]) => x > from(one) - 4 && x < from(one) + long + 4 && Math.abs(y - one.y) < 8).length;
    const chosen = (inside.length > 0 ? inside : candidates)
      .reduce((best, one) => hidden(one) < hidden(best) ? one : best);
    for (let step = 0; step <= 4; step++) this.#taken.push([from(chosen) + step * long / 4, chosen.y]);
    return chosen;
  }
}

/** A dotted line, and its name where there is room. */
function ruleLayers(rule: Rule, { x, y, theme }: Frame, places: LabelPlaces): { line: Layer; labels: Layer[] } {
  const { axis, at, label } = rule;
  const stroke = { type: "rule", stroke: theme.muted, strokeDash: [2, 3], strokeWidth: 1.3, clip: true };
  const place = places.place(rule);
  const data = { values: [{ [axis]: at }] };
  // The name keeps to its rule, wherever the drawing puts that.
  const beside = axis === "x" ? { x, y: { value: place.y } } : { x: { value: place.x }, y: { value: place.y } };
  const dx = axis === "y" ? 0 : place.align === "left" ? 5 : -5;
  const mark = { type: "text", text: label, align: place.align, dx, baseline: "middle", fontSize: 10.5 };
  return {
    line: { data, mark: stroke, encoding: axis === "y" ? { y } : { x } },
    labels: halo(mark, theme.muted, theme.halo).map((mark) => ({ data, mark, encoding: beside })),
  };
}

/** A histogram. */
export function barLayers({ x, y, bars, rules = [] }: BarPanel, size: PanelSize): Layer[] {
  const xs = domainOf([...bars.flatMap(({ from, to }) => [from, to]), ...rules.map(({ at }) => at)], x);
  const ys: [number, number] = [0, 1.12 * Math.max(...bars.map(({ count }) => count))];
  const yAxis: Axis = { title: y.title, scale: "linear" };
  const frame: Frame = {
    ...size,
    x: { field: "x", ...axisSpec(x, xs, size, "x") },
    y: { field: "y", ...axisSpec(yAxis, ys, size, "y") },
    xAxis: x,
    yAxis,
    xs,
    ys,
  };
  const places = new LabelPlaces(frame, bars.map(({ from, to, count }) => ({ x: (from + to) / 2, y: count })), rules);
  const ruled = rules.map((rule) => ruleLayers(rule, frame, places));
  return [
    {
      data: { values: bars.map(({ from, to, count }) => ({ x: from, to, y: count, none: 0 })) },
      mark: { type: "rect", fill: size.theme.series[0], stroke: size.theme.halo, strokeWidth: 0.7 },
      encoding: { x: frame.x, y: frame.y, x2: { field: "to" }, y2: { field: "none" } },
    },
    ...ruled.flatMap(({ line, labels }) => [line, ...labels]),
  ];
}
