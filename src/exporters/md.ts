/** A two-column Markdown table. */
import type { Exporter } from "./mod.ts";
import { flatten } from "./rows.ts";

const shown = (value: string | number) => {
  return typeof value === "number" && !Number.isInteger(value)
    ? value.toPrecision(4)
    : String(value).replaceAll("|", "\\|");
};

export const md: Exporter = (report) => {
  const rows = flatten(report).filter(([, value]) => value !== "");
  return ["| figure | value |", "|---|---|", ...rows.map(([name, value]) => `| ${name} | ${shown(value)} |`)].join(
    "\n",
  ) + "\n";
};
