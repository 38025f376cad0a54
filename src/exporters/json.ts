/** One JSON object; numbers that JSON lacks (NaN, ±Infinity) become null. What is kept for plots is left out. */
import type { Exporter } from "./mod.ts";

export const json: Exporter = ({ rowSquares: _, ...report }) => JSON.stringify(report, null, 2) + "\n";

/** The same on one line, for logs that are appended to. */
export const jsonl: Exporter = ({ rowSquares: _, schema, ...report }) =>
  JSON.stringify({ schema, type: "summary", ...report }) + "\n";
