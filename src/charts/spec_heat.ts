/** Heat maps as layers of a specification. */
import type { HeatPanel } from "./chart.ts";
import { domainOf, logTicks, tickText } from "./scales.ts";
import { type Layer, type PanelSize, titleLines, wrapped } from "./spec_axis.ts";
import { MISSING } from "./style.ts";

/** A grid of colours with its legend, curves over it and values inside. */
export function heatLayers(panel: HeatPanel, { width, height }: PanelSize): Layer[] {
  const { columns, rows, cells, colour, lines = [], labelled, upwards } = panel;
  const numeric = [...columns.values, ...rows.values].every((value) => typeof value === "number");
  const room = width / columns.values.length; // px of a cell
  const digits = room > 45 ? 3 : 2;
  const values = rows.values.flatMap((_, i) =>
    columns.values.map((_, j) => {
      const value = cells[i * columns.values.length + j];
      return {
        ...edges("x", columns.values, j, numeric),
        ...edges("y", rows.values, i, numeric),
        value: Number.isFinite(value) ? value : null,
        text: Number.isFinite(value) ? tickText(Number(value.toPrecision(digits))) : "–",
      };
    })
  );
  const side = (name: "x" | "y", { title, values }: HeatPanel["columns"]): Layer => {
    const titled = titleLines(title, name === "x" ? width : height);
    if (!numeric) {
      const every = Math.max(1, Math.ceil(values.length / (name === "x" ? Math.floor(width / 18) : 24)));
      const shown = values.filter((_, i) => i % every === 0);
      const axis = {
        title: titled,
        labelAngle: name === "x" && values.some((value) => String(value).length > 4) ? -35 : 0,
        values: shown,
      };
      return { field: name, type: "ordinal", sort: null, axis: { ...axis, ticks: false, domain: false } };
    }
    const ends = domainEdges(values as number[]);
    const reversed = name === "y" && !upwards;
    const axis = { title: titled, grid: false, tickCount: 7 };
    return {
      field: `${name}0`,
      type: "quantitative",
      scale: { domain: ends, nice: false, zero: false, reverse: reversed },
      axis,
    };
  };
  const [x, y] = [side("x", columns), side("y", rows)];
  const domain = colour.domain ??
    domainOf(cells.filter((cell) => Number.isFinite(cell) && (colour.scale === "linear" || cell > 0)), colour);
  const ticks = colour.ticks ?? (colour.scale === "log" ? logTicks(domain, 6) : null);
  const scale = {
    type: colour.scale,
    domain,
    clamp: true,
    ...(colour.kind === "diverging"
      ? { scheme: "blueorange", ...(colour.middle === undefined ? {} : { domainMid: colour.middle }) }
      : { scheme: "viridis", reverse: true }),
  };
  const legend = {
    title: wrapped(colour.title, 17),
    gradientLength: Math.max(60, Math.min(180, height - 60)),
    gradientThickness: 10,
    ...(ticks
      ? {
        values: ticks,
        labelExpr: `(${
          JSON.stringify(Object.fromEntries(ticks.map((value) => [String(value), tickText(value)])))
        })[datum.value] || datum.label`,
      }
      : { tickCount: 5 }),
  };
  const fill = {
    field: "value",
    type: "quantitative",
    scale,
    legend,
  };
  const wide = numeric ? { x2: { field: "x1" }, y2: { field: "y1" } } : {};
  const shown = values.filter(({ value }) => value !== null);
  const missing = values.filter(({ value }) => value === null);
  const layers: Layer[] = [
    { data: { values: shown }, mark: { type: "rect", strokeWidth: 0 }, encoding: { x, y, ...wide, fill } },
    { data: { values: missing }, mark: { type: "rect", strokeWidth: 0, fill: MISSING }, encoding: { x, y, ...wide } },
  ];
  if (labelled && room > 26) layers.push(cellLabels(values, { x, y }, panel, domain));
  for (const { name, points } of lines) {
    const at = (axis: Layer) => ({ ...axis, field: axis === x ? "x" : "y" });
    const rows = points.map(({ x, y }, order) => ({ x, y, order }));
    layers.push({
      data: { values: rows },
      mark: { type: "line", stroke: "#000000", strokeWidth: 1.8, clip: true },
      encoding: { x: at(x), y: at(y), order: { field: "order" } },
    });
    if (!name) continue;
    const middle = rows.slice(Math.floor(rows.length / 2), Math.floor(rows.length / 2) + 1).map((row) => ({
      ...row,
      name,
    }));
    layers.push({
      data: { values: middle },
      mark: { type: "text", color: "#000000", align: "left", dx: 5, fontSize: 11, fontWeight: "bold" },
      encoding: { x: at(x), y: at(y), text: { field: "name" } },
    });
  }
  return layers;
}

/** Values inside cells, dark on light ones and light on dark ones. */
function cellLabels(
  values: readonly Layer[],
  { x, y }: { x: Layer; y: Layer },
  { colour }: HeatPanel,
  domain: readonly [number, number],
): Layer {
  const at = colour.scale === "log" ? Math.log : (value: number) => value;
  const dark = (value: number) => {
    const share = (at(value) - at(domain[0])) / (at(domain[1]) - at(domain[0]));
    return colour.kind === "sequential" ? share > 0.45 : share < 0.12 || share > 0.88;
  };
  const rows = values.map((row) => ({
    ...row,
    tone: typeof row.value === "number" && dark(row.value) ? "light" : "dark",
  }));
  return {
    data: { values: rows },
    mark: { type: "text", fontSize: 10 },
    encoding: {
      x,
      y,
      text: { field: "text" },
      color: {
        field: "tone",
        type: "nominal",
        scale: { domain: ["light", "dark"], range: ["#ffffff", "#111111"] },
        legend: null,
      },
    },
  };
}

/**
 * Both ends of a cell around its centre; the name itself where there are names. A cell reaches a little under the next one, which is
 * drawn over it, so that no seam is left where pixels are not whole.
 */
function edges(name: "x" | "y", values: readonly (number | string)[], i: number, numeric: boolean): Layer {
  if (!numeric) return { [name]: String(values[i]) };
  const [low, high] = cellEdges(values as number[], i);
  const under = i < values.length - 1 ? UNDER * (high - low) : 0;
  return { [`${name}0`]: low, [`${name}1`]: high + under };
}

/** Share of a cell that lies under the next. */
const UNDER = 0.08;

function cellEdges(values: readonly number[], i: number): [number, number] {
  const step = (a: number, b: number) => (values[b] - values[a]) / 2;
  const before = i > 0 ? step(i - 1, i) : values.length > 1 ? step(0, 1) : 0.5;
  const after = i < values.length - 1 ? step(i, i + 1) : values.length > 1 ? step(i - 1, i) : 0.5;
  return [values[i] - before, values[i] + after];
}

const domainEdges = (
  values: readonly number[],
): [number, number] => [cellEdges(values, 0)[0], cellEdges(values, values.length - 1)[1]];
