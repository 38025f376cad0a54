/** A comparison as a picture: error against the number of features, one curve per map and projection. */
import type { CompareReport, CompareRow } from "../compare.ts";
import { drawChart, type Series } from "../plots/chart.ts";
import { drawRows } from "../plots/rows.ts";
import { letterAt, type PlotStyle, toneAt } from "../plots/style.ts";
import { figure } from "../words.ts";

/** Curves beyond these are hard to tell apart; the table has them all. */
const MOST_CURVES = 8;
const MOST_ROWS = 16;

const ERROR = { label: "relative L2 error against exact softmax", scale: "log" } as const;

/** Lines that end with a newline. */
export function plotCompare({ rows, uniformBaseline }: CompareReport, style: PlotStyle): string {
  const lengths = [...new Set(rows.flatMap(({ numFeatures }) => numFeatures ?? []))].sort((a, b) => a - b);
  const severalKinds = new Set(rows.flatMap(({ projection }) => projection ?? [])).size > 1;
  const curveOf = ({ features, projection }: CompareRow) =>
    severalKinds && projection !== null ? `${features}, ${projection}` : features;
  const baseline = {
    axis: "y",
    at: uniformBaseline,
    label: `mean of V, ${figure(uniformBaseline)}: what ignores attention`,
    short: "mean of V",
  } as const;
  const left = (shown: number, all: number) =>
    all > shown ? [`the best ${shown} of ${all}; the table has the others`] : [];
  // Rows come by error: the best is the first, and A.
  if (lengths.length < 2) {
    const settings = [...Map.groupBy(rows, (row) => {
      return row.numFeatures === null ? curveOf(row) : `${curveOf(row)}, m = ${row.numFeatures}`;
    })];
    return drawRows({
      title: "error of each setting",
      axis: ERROR,
      rows: settings.slice(0, MOST_ROWS).map(([label, rows], i) => {
        const value = errorAt(rows);
        return { label, value, text: figure(value), tone: toneAt(i) };
      }),
      rules: [baseline],
      notes: left(MOST_ROWS, settings.length),
    }, style);
  }
  const errors = rows.map(({ relativeL2: { value } }) => value).filter(Number.isFinite);
  const squeezed = Math.max(...errors) > 3 * uniformBaseline && Math.min(...errors) < uniformBaseline;
  const curves = [...Map.groupBy(rows, curveOf)];
  return drawChart({
    title: "error against the number of features",
    x: { label: "number of features m", scale: "log", ticks: lengths, text: String, tight: true },
    // What is far worse than the mean of V would squeeze the curves that are of use.
    y: { ...ERROR, ...(squeezed ? { most: 2 * uniformBaseline } : {}) },
    series: curves.slice(0, MOST_CURVES).map(([label, rows], i): Series => {
      const common = { sign: letterAt(i), tone: toneAt(i) };
      if (rows[0].numFeatures === null) {
        return { ...common, label: `${label} (has no m)`, points: [], level: errorAt(rows) };
      }
      const byLength = Map.groupBy(rows, ({ numFeatures }) => numFeatures!);
      return { ...common, label, points: [...byLength].map(([m, rows]) => [m, errorAt(rows)]), joined: true };
    }),
    rules: [baseline],
    notes: left(MOST_CURVES, curves.length),
  }, style);
}

/** Backends make the same estimate but for rounding: the least of them. */
const errorAt = (rows: readonly CompareRow[]): number => {
  const values = rows.map(({ relativeL2: { value } }) => value).filter((value) => !Number.isNaN(value));
  return values.length > 0 ? Math.min(...values) : NaN;
};
