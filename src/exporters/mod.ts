/** Report formats by name. Adding one is a file and its line here. */
import type { Report } from "../report.ts";

export interface ExportOptions {
  /** ANSI colours. */
  readonly color: boolean;
  readonly verbose: boolean;
  /** Drawn already, for the text format to put where it reads best. */
  readonly picture?: string;
}

/** Turns a report into text that ends with a newline. */
export type Exporter = (report: Report, options: ExportOptions) => string;

export const EXPORTERS: Readonly<Record<string, () => Promise<Exporter>>> = {
  text: async () => (await import("./text.ts")).text,
  json: async () => (await import("./json.ts")).json,
  jsonl: async () => (await import("./json.ts")).jsonl,
  csv: async () => (await import("./csv.ts")).csv,
  md: async () => (await import("./md.ts")).md,
};
