/** Markdown tables. */
import { adviceLine, healthTable } from "./health.ts";
import type { Exporter } from "./mod.ts";
import { flatten } from "./rows.ts";

const shown = (value: string | number) => {
  return typeof value === "number" && !Number.isInteger(value)
    ? value.toPrecision(4)
    : String(value).replaceAll("|", "\\|");
};

/** A table; columns named in `right` are aligned there. */
export function mdTable(
  header: readonly string[],
  rows: readonly (readonly (string | number)[])[],
  right: ReadonlySet<string> = new Set(),
): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.map(shown).join(" | ")} |\n`;
  return line(header) + `|${header.map((name) => right.has(name) ? "---:" : "---").join("|")}|\n` +
    rows.map(line).join("");
}

export const md: Exporter = (report) => {
  const figures = mdTable(["figure", "value"], flatten(report).filter(([, value]) => value !== ""));
  if (!report.health) return figures;
  const { header, rows, right } = healthTable(report.health);
  const advice = report.health.heads.map((head) => `* head ${head.head}: ${adviceLine(head)}\n`).join("");
  return `${figures}\n${mdTable(header, rows, right)}\n${advice}`;
};
