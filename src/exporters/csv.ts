/** A header line and one line of values (RFC 4180 quoting). */
import type { Exporter } from "./mod.ts";
import { flatten } from "./rows.ts";

const quote = (value: string | number) =>
  /[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : value;

export const csv: Exporter = (report) => {
  const columns = flatten(report);
  return [columns.map(([name]) => name), columns.map(([, value]) => quote(value))].map((row) => row.join(",") + "\n")
    .join("");
};
