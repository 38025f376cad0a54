/**
 * Charts as Vega-Lite specifications: plain JSON, which `--export-spec` writes and any Vega editor opens. Everything that can be decided
 * from the data is decided here (ends of axes, labelled values, styles), so that the drawing is the same wherever it is drawn.
 */
import type { Axis, BarPanel, Chart, LinePanel, Panel, Point, Rule, Series } from "./chart.ts";
import { domainOf } from "./scales.ts";
import { axisSpec, type Json, type Layer, UPRIGHT, wrapped } from "./spec_axis.ts";
import { heatLayers } from "./spec_heat.ts";
import { DASHES, SHAPES, type Theme } from "./style.ts";

export interface SpecOptions {
  readonly theme: Theme;
  /** Width of the whole picture in px. */
  readonly width: number;
  /** Height of one panel's drawing in px. */
  readonly height?: number;
  /** Title and caption inside the picture; a page says them itself. */
  readonly titled: boolean;
}

const SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json";
/** Points of a series up to which a line shows a mark at each. */
const MARKED_POINTS = 24;
/** Space beside a panel's drawing: its axis and the next panel's distance; and the legend of colours. */
const BESIDE = 92;
const COLOURS = 104;

/** Panels have legends of their own. */
const INDEPENDENT = {
  scale: { color: "independent", fill: "independent", shape: "independent", strokeDash: "independent" },
};

/** The specification of a chart of sound data (sound.ts). */
export function specOf(chart: Chart, options: SpecOptions): Layer {
  const { theme, width, titled } = options;
  const columns = Math.min(chart.columns ?? chart.panels.length, chart.panels.length);
  const heats = chart.panels.slice(0, columns).filter(({ kind }) => kind === "heat").length;
  const heat = heats > 0;
  const each = Math.max(120, Math.floor((width - heats * COLOURS - 24) / columns) - BESIDE);
  const height = options.height ?? Math.round(Math.min(360, Math.max(200, each * (heat ? 0.9 : 0.75))));
  const alone = chart.panels.length === 1;
  const panels = chart.panels.map((panel) => panelSpec(panel, options, alone && !heat ? width : each, height));
  const caption = chart.caption.flatMap((sentence) => wrapped(`${sentence}.`, width / 6));
  const title = titled
    ? {
      text: wrapped(chart.title, width / 9),
      subtitle: caption,
      anchor: "start",
      frame: "bounds",
      fontSize: 15,
      subtitleFontSize: 11,
      subtitleLineHeight: 15,
      subtitlePadding: 5,
      offset: 14,
    }
    : undefined;
  const body = alone
    ? { ...panels[0], title }
    : { concat: panels, columns, spacing: 28, align: "each", title, resolve: INDEPENDENT };
  return {
    $schema: SCHEMA,
    ...body,
    ...(alone && !heat ? { autosize: { type: "fit-x", contains: "padding" } } : {}),
    padding: titled ? 12 : 4,
    config: configOf(theme),
  };
}

function configOf({ ink, muted, grid, background, font }: Theme): Layer {
  return {
    aria: false,
    background,
    font,
    view: { stroke: null },
    title: { color: ink, subtitleColor: muted, fontWeight: "bold", align: "left" },
    axis: {
      labelColor: muted,
      titleColor: ink,
      gridColor: grid,
      domainColor: muted,
      tickColor: muted,
      labelFontSize: 11,
      titleFontSize: 12,
      titleFontWeight: "normal",
      labelLimit: 0,
      titleLimit: 0,
    },
    legend: {
      labelColor: ink,
      titleColor: ink,
      labelFontSize: 11,
      titleFontSize: 11,
      titleFontWeight: "normal",
      labelLimit: 0,
      titleLimit: 0,
      symbolSize: 70,
      symbolStrokeWidth: 2,
    },
    concat: { spacing: 28 },
  };
}

function panelSpec(panel: Panel, options: SpecOptions, width: number, height: number): Layer {
  const { theme, titled } = options;
  const title = titled && panel.title
    ? { text: wrapped(panel.title, width / 6.4), fontSize: 12, anchor: "start", fontWeight: "bold", color: theme.ink }
    : undefined;
  const layers = panel.kind === "lines"
    ? lineLayers(panel, theme, width)
    : panel.kind === "bars"
    ? barLayers(panel, theme)
    : heatLayers(panel, width);
  return { title, width, height, layer: layers };
}

function lineLayers({ x, y, series, rules = [] }: LinePanel, theme: Theme, width: number): Layer[] {
  const points = series.flatMap((one) => one.points);
  const along = (axis: "x" | "y") => rules.filter((rule) => rule.axis === axis).map(({ at }) => at);
  const xs = domainOf([...points.map((point) => point.x), ...along("x")], x);
  const ys = domainOf([...points.flatMap(({ y, low = y, high = y }) => [low, y, high]), ...along("y")], y);
  const encodings = { x: { field: "x", ...axisSpec(x, xs, width) }, y: { field: "y", ...axisSpec(y, ys, UPRIGHT) } };
  const layers: Layer[] = [];
  const place = (one: Series) => one.style ?? series.indexOf(one);
  for (const one of series) {
    if (!one.spread) continue;
    const colour = theme.series[place(one) % theme.series.length];
    const mark = one.spread === "band"
      ? { type: "area", fill: colour, opacity: 0.16, clip: true }
      : { type: "rule", stroke: colour, strokeWidth: 1.3, clip: true };
    layers.push({
      data: { values: one.points.map(pointRow) },
      mark,
      encoding: { x: encodings.x, y: { ...encodings.y, field: "low" }, y2: { field: "high" } },
    });
  }
  layers.push(...rules.flatMap((rule) => ruleLayers(rule, encodings, theme, { xs, ys, x, y, width })));
  layers.push(...markLayers(series, place, encodings, theme, width));
  return layers;
}

const pointRow = ({ x, y, low = y, high = y, label }: Point): Layer => ({
  x,
  y,
  low,
  high,
  ...(label ? { label } : {}),
});

/** Lines and marks in one legend: colour, dash pattern and shape all stand for the name. */
function markLayers(
  series: readonly Series[],
  place: (one: Series) => number,
  { x, y }: { readonly x: Layer; readonly y: Layer },
  theme: Theme,
  width: number,
): Layer[] {
  const names = series.map(({ name }) => name);
  const ranged = (range: readonly Json[]) => ({
    domain: names,
    range: series.map((one) => range[place(one) % range.length]),
  });
  const longest = Math.max(...names.map(({ length }) => length));
  const legend = {
    title: null,
    orient: "bottom",
    columns: Math.max(1, Math.min(names.length, Math.floor((width + 40) / (longest * 6.4 + 40)))),
    symbolStrokeWidth: 2,
  };
  const named = { field: "series", type: "nominal", legend: names.length > 1 || series[0].name ? legend : null };
  const colour = { ...named, scale: ranged(theme.series) };
  const rows = (chosen: readonly Series[]): Layer[] =>
    chosen.flatMap((one) => one.points.map((point): Layer => ({ ...pointRow(point), series: one.name })));
  const lines = series.filter(({ draw }) => draw !== "marks");
  const marked = series.filter(({ draw, points }) =>
    draw !== "line" && points.length <= MARKED_POINTS || draw === "marks"
  );
  const layers: Layer[] = [];
  const shape = { ...named, scale: ranged(SHAPES) };
  if (lines.length > 0) {
    layers.push({
      data: { values: rows(lines) },
      mark: { type: "line", strokeWidth: 2, clip: true },
      encoding: { x, y, color: colour, strokeDash: { ...named, scale: ranged(DASHES) } },
    });
  }
  if (marked.length > 0) {
    const many = marked.some(({ points }) => points.length > 100);
    layers.push({
      data: { values: rows(marked) },
      mark: { type: "point", filled: true, size: many ? 22 : 60, clip: true },
      encoding: { x, y, color: colour, shape },
    });
  }
  const labelled = series.filter((one) => one.labelled);
  if (labelled.length > 0) {
    layers.push({
      data: { values: rows(labelled).filter((row) => "label" in row) },
      mark: { type: "text", align: "left", dx: 7, dy: -6, fontSize: 11, color: theme.ink },
      encoding: { x, y, text: { field: "label" } },
    });
  }
  return layers;
}

/** A dotted line with its name, at the end where there is room. */
function ruleLayers(
  { axis, at, label }: Rule,
  { x, y }: { readonly x: Layer; readonly y: Layer },
  theme: Theme,
  { xs, ys, x: xAxis, y: yAxis, width }: {
    readonly xs: readonly [number, number];
    readonly ys: readonly [number, number];
    readonly x: Axis;
    readonly y: Axis;
    readonly width: number;
  },
): Layer[] {
  const share = (value: number, [low, high]: readonly [number, number], { scale }: Axis) =>
    scale === "log" ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  const values = [{ x: axis === "x" ? at : xs[0], y: axis === "y" ? at : ys[1], label }];
  const stroke = { type: "rule", stroke: theme.muted, strokeDash: [2, 3], strokeWidth: 1.3, clip: true };
  const text = { type: "text", fontSize: 10.5, color: theme.muted };
  if (axis === "y") {
    const below = share(at, ys, yAxis) > 0.9;
    return [
      { data: { values }, mark: stroke, encoding: { y } },
      {
        data: { values },
        mark: { ...text, align: "left", dx: 4, dy: below ? 9 : -7 },
        encoding: { x, y, text: { field: "label" } },
      },
    ];
  }
  const left = share(at, xs, xAxis) > 1 - (label.length * 6 + 10) / width;
  return [
    { data: { values }, mark: stroke, encoding: { x } },
    {
      data: { values },
      mark: { ...text, align: left ? "right" : "left", dx: left ? -4 : 4, dy: 7 },
      encoding: { x, y, text: { field: "label" } },
    },
  ];
}

function barLayers({ x, y, bars, rules = [] }: BarPanel, theme: Theme): Layer[] {
  const xs = domainOf([...bars.flatMap(({ from, to }) => [from, to]), ...rules.map(({ at }) => at)], x);
  const top = Math.max(...bars.map(({ count }) => count));
  const ys: [number, number] = [0, top * 1.12];
  const across: Axis = { title: y.title, scale: "linear" };
  const encodings = {
    x: { field: "from", ...axisSpec(x, xs, 400) },
    y: { field: "count", ...axisSpec(across, ys, UPRIGHT) },
  };
  return [
    {
      data: { values: bars.map(({ from, to, count }) => ({ from, to, count, none: 0 })) },
      mark: {
        type: "rect",
        fill: theme.series[0],
        stroke: theme.background ?? "none",
        strokeWidth: 0.5,
        opacity: 0.85,
      },
      encoding: { ...encodings, x2: { field: "to" }, y2: { field: "none" } },
    },
    ...rules.flatMap((rule) => {
      const fields = { x: { ...encodings.x, field: "x" }, y: { ...encodings.y, field: "y" } };
      return ruleLayers(rule, fields, theme, { xs, ys, x, y: across, width: 400 });
    }),
  ];
}
