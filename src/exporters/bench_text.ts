/** A bench report for people. */
import type { BenchReport } from "../bench.ts";
import type { BenchExporter } from "./bench.ts";
import { type BenchTable, benchTable } from "./bench_rows.ts";
import { decayText } from "../words.ts";
import { findingLines, type Line, settingLines } from "./bench_words.ts";

const CODES = { bold: [1, 22], dim: [2, 22], green: [32, 39], red: [31, 39] } as const;

export const benchText: BenchExporter = (report, { color, picture = "" }) => {
  const paint = (style: keyof typeof CODES, words: string) => {
    return color ? `\x1b[${CODES[style][0]}m${words}\x1b[${CODES[style][1]}m` : words;
  };
  const line = ([name, words]: Line) => `  ${paint("dim", name.padEnd(12))} ${words}\n`;
  const table = benchTable(report);
  const parts = [
    paint("bold", benchTitle(report)) + "\n" +
    [...settingLines(report), ...(table.fixed ? [["fixed", table.fixed] as const] : [])].map(line).join(""),
    aligned(table).map((text, i) => {
      const verdict = text.endsWith("slower") ? "red" : text.endsWith("faster") ? "green" : null;
      return `  ${i === 0 ? paint("dim", text) : verdict ? paint(verdict, text) : text}\n`;
    }).join(""),
    picture,
    findingLines(report, table.label).map(line).join(""),
  ];
  return parts.filter((part) => part !== "").join("\n");
};

/** One line about what was measured. */
export function benchTitle({ settings }: BenchReport): string {
  const { input, decay, seed, spread, heads, kvHeads, headDim, valueDim } = settings;
  const rows = input === "synthetic" ? `synthetic rows, seed ${seed}, spread ${spread}` : `${input}, seed ${seed}`;
  const shared = kvHeads === heads ? "" : ` (${kvHeads} key heads)`;
  const width = headDim === valueDim ? `${headDim}` : `${headDim}→${valueDim}`;
  return `performer bench · ${rows} · ${heads} head${heads === 1 ? "" : "s"}${shared} × ${width}` +
    (decay ? ` · ${decayText(decay)}` : "");
}

/** Lines of a table whose columns are aligned, the header first. */
export function aligned({ header, rows, right }: Pick<BenchTable, "header" | "rows" | "right">): string[] {
  const widths = header.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i].length)));
  return [header, ...rows].map((row) => {
    return row.map((text, i) => right.has(header[i]) ? text.padStart(widths[i]) : text.padEnd(widths[i])).join("  ")
      .trimEnd();
  });
}
