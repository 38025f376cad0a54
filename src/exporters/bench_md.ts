/** A bench report as Markdown: settings, table, findings. */
import type { BenchExporter } from "./bench.ts";
import { benchTable } from "./bench_rows.ts";
import { benchTitle } from "./bench_text.ts";
import { findingLines, settingLines } from "./bench_words.ts";
import { mdTable } from "./md.ts";

export const benchMd: BenchExporter = (report) => {
  const { header, rows, right, fixed, label } = benchTable(report);
  const item = ([name, words]: readonly [string, string]) => `* ${name ? `${name}: ` : ""}${words}\n`;
  return [
    `${benchTitle(report)} · ${report.date}\n`,
    [...settingLines(report), ...(fixed ? [["fixed", fixed] as const] : [])].map(item).join(""),
    mdTable(header, rows, right),
    findingLines(report, label).map(item).join(""),
  ].filter((part) => part !== "").join("\n");
};
