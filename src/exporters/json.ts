/** One JSON object; numbers that JSON lacks (NaN, ±Infinity) become null. */
import type { Exporter } from "./mod.ts";

export const json: Exporter = (report) => JSON.stringify(report, null, 2) + "\n";
