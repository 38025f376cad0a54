/** Lines of comma-separated values under a header line (RFC 4180 quoting). */
import type { Exporter } from "./mod.ts";
import { flatten } from "./rows.ts";

export type Cell = string | number;

const quote = (value: Cell) => /[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : value;

/** One line per row. */
export const csvText = (rows: readonly (readonly Cell[])[]): string => {
  return rows.map((row) => row.map(quote).join(",") + "\n").join("");
};

export const csv: Exporter = (report) => {
  const columns = flatten(report);
  return csvText([columns.map(([name]) => name), columns.map(([, value]) => value)]);
};
