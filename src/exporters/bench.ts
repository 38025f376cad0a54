/** Formats of a bench report by name. Adding one is its line here. */
import type { BenchReport } from "../bench.ts";
import type { ExportOptions } from "./mod.ts";

/** Turns a report into text that ends with a newline. */
export type BenchExporter = (report: BenchReport, options: ExportOptions) => string;

export const BENCH_EXPORTERS: Readonly<Record<string, () => Promise<BenchExporter>>> = {
  text: async () => (await import("./bench_text.ts")).benchText,
  json: async () => (report) => JSON.stringify(report, null, 2) + "\n",
  jsonl: async () => ({ schema, date, results }) => {
    return results.map((result) => JSON.stringify({ schema, type: "row", date, ...result }) + "\n").join("");
  },
  csv: async () => {
    const [{ csvText }, { benchRecords }] = await Promise.all([import("./csv.ts"), import("./bench_rows.ts")]);
    return (report) => csvText(benchRecords(report));
  },
  md: async () => (await import("./bench_md.ts")).benchMd,
};
