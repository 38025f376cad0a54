/**
 * Charts as Vega-Lite specifications: plain JSON, which `--export-spec` writes and any Vega editor opens. Everything that can be decided
 * from the data is decided here (ends of axes, labelled values, styles), so that the drawing is the same wherever it is drawn.
 */
import type { Chart, Panel } from "./chart.ts";
import { type Layer, type PanelSize, wrapped } from "./spec_axis.ts";
import { heatLayers } from "./spec_heat.ts";
import { barLayers, lineLayers } from "./spec_lines.ts";
import type { Theme } from "./style.ts";

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
  const usual = Math.round(Math.min(360, Math.max(200, each * (heat ? 0.9 : 0.75))));
  const height = options.height ?? Math.min(usual, ...chart.panels.map(mostHeight));
  const alone = chart.panels.length === 1;
  const single = alone && !heat;
  const panels = chart.panels.map((panel) => panelSpec(panel, options, single ? width : each, height, single));
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
  const body = alone ? { ...panels[0], title } : {
    concat: panels,
    columns,
    spacing: 28,
    align: chart.panels.length > columns ? "each" : "none",
    title,
    resolve: INDEPENDENT,
  };
  return {
    $schema: SCHEMA,
    ...body,
    ...(single ? { autosize: { type: "fit-x", contains: "padding" } } : {}),
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
    },
    concat: { spacing: 28 },
  };
}

/** Rows with names need no more than a line of text and some room each. */
function mostHeight(panel: Panel): number {
  const named = panel.kind === "heat" && panel.rows.values.some((value) => typeof value === "string");
  return named ? Math.max(80, 34 * panel.rows.values.length) : Infinity;
}

/** What an upright axis takes of a panel that is as wide as the picture. */
const SINGLE_AXIS = 72;

function panelSpec(
  panel: Panel,
  { theme, titled }: SpecOptions,
  width: number,
  height: number,
  single: boolean,
): Layer {
  const title = titled && panel.title
    ? { text: wrapped(panel.title, width / 6.4), fontSize: 12, anchor: "start", fontWeight: "bold", color: theme.ink }
    : undefined;
  const size: PanelSize = { width: single ? width - SINGLE_AXIS : width, height, theme };
  const layers = panel.kind === "lines"
    ? lineLayers(panel, size)
    : panel.kind === "bars"
    ? barLayers(panel, size)
    : heatLayers(panel, size);
  return { title, width, height, layer: layers };
}
