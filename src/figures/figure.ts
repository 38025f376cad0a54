/** What a figure is: data in tables, findings in words, and the chart that shows them. Plain data; nothing here computes or draws. */
import type { Chart } from "../charts/chart.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const FIGURE_SCHEMA = "performer-figure/1";

export type Value = string | number | boolean | null;
/** One line of a table of data. */
export type Row = Readonly<Record<string, Value>>;

export interface Figure {
  /** "2", "theorem", … */
  readonly name: string;
  readonly title: string;
  /** Everything that decides the numbers, seeds and numbers of trials among it. */
  readonly settings: Readonly<Record<string, Value | readonly Value[]>>;
  /** What the figure shows, in sentences. */
  readonly findings: readonly string[];
  /** All numbers of the chart and more, by table. */
  readonly data: Readonly<Record<string, readonly Row[]>>;
  readonly chart: Chart;
}

/** A figure as one JSON object. */
export interface FigureReport extends Omit<Figure, "chart"> {
  readonly schema: typeof FIGURE_SCHEMA;
  readonly command: "figure";
  /** null: computed from formulas, on no backend. */
  readonly backend: { readonly name: string; readonly device: string } | null;
  readonly seconds: number;
  readonly caption: readonly string[];
}

/** All tables as one: a column `table`, then every column that any of them has, empty where a table has not. */
export function flatTable(data: Figure["data"]): (string | number)[][] {
  const tables = Object.entries(data).filter(([, rows]) => rows.length > 0);
  const columns = [...new Set(tables.flatMap(([, rows]) => Object.keys(rows[0])))];
  const cell = (value: Value | undefined) =>
    value === null || value === undefined ? "" : typeof value === "boolean" ? String(value) : value;
  return [
    ["table", ...columns],
    ...tables.flatMap(([table, rows]) => rows.map((row) => [table, ...columns.map((name) => cell(row[name]))])),
  ];
}
