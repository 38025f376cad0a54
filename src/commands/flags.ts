/** Parsers of flag values, and the flags several commands share. */
import { BACKEND_NAMES } from "../backend.ts";
import { UsageError } from "../errors.ts";
import type { RowRange } from "../tensor.ts";
import { nearest } from "../words.ts";
import type { Flag } from "./command.ts";

/** A whole number from `least` on. */
export function wholeNumber(least: number): (text: string) => number {
  return (text) => {
    const value = /^\d[\d_]*$/.test(text) ? Number(text.replaceAll("_", "")) : NaN;
    if (!Number.isSafeInteger(value) || value < least) {
      throw new UsageError(`expected a whole number of at least ${least}`);
    }
    return value;
  };
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Bytes: "512MiB", "1.5GB", "2e9". */
export function byteSize(text: string): number {
  const match = /^\s*([0-9.]+(?:e\+?[0-9]+)?)\s*([a-z]*)\s*$/i.exec(text);
  const bytes = Math.floor(Number(match?.[1] || NaN) * (SIZE_UNITS[match?.[2].toLowerCase() ?? ""] ?? NaN));
  if (!(bytes >= 1 && Number.isSafeInteger(bytes))) throw new UsageError("expected a size such as 512MiB, 1GB or 2e9");
  return bytes;
}

/** A number above 0. */
export function positiveNumber(text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (!(value > 0 && Number.isFinite(value))) throw new UsageError("expected a number above 0");
  return value;
}

/** A number of at least 0. */
export function notNegative(text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (!(value >= 0 && Number.isFinite(value))) throw new UsageError("expected a number of at least 0");
  return value;
}

/** "alibi", or numbers of at least 0 behind commas, each of which counts: one for all key heads, or one for each. */
export function decay(text: string): "alibi" | number[] {
  if (text === "alibi") return text;
  const numbers = text.split(",").map((part) => part.trim() === "" ? NaN : Number(part));
  if (!numbers.every((lambda) => lambda >= 0 && lambda < Infinity)) {
    const near = nearest(text, ["alibi"]);
    throw new UsageError(
      `${near ? `did you mean ${near}? ` : ""}expected numbers of at least 0 such as 0.1 or 0.5,0.25, or alibi`,
    );
  }
  return numbers;
}

/** A number above 0, at most 1. */
export function probability(text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (!(value > 0 && value <= 1)) throw new UsageError("expected a number above 0, at most 1");
  return value;
}

/** "0.05" or "5%". */
export function fraction(text: string): number {
  const percent = text.endsWith("%");
  const value = Number(percent ? text.slice(0, -1) : text) / (percent ? 100 : 1);
  if (text.trim() === "" || !(value >= 0 && Number.isFinite(value))) {
    throw new UsageError("expected a number such as 0.05 or 5%");
  }
  return value;
}

/** The parts of a comma list, each parsed, repetitions dropped; errors name the part. */
export function listOf<T>(parse: (text: string) => T): (text: string) => T[] {
  return (text) => {
    const parts = text.split(",").map((part) => {
      try {
        return parse(part.trim());
      } catch (error) {
        if (!(error instanceof UsageError) || !text.includes(",")) throw error;
        throw new UsageError(`"${part.trim()}": ${error.message}`);
      }
    });
    return [...new Set(parts)];
  };
}

/** "64", or "64..1024": 64, 128, 256, 512 and 1024. */
export function doublings(text: string): number[] {
  const parse = wholeNumber(1);
  const match = /^([^.]+)\.\.([^.]+)$/.exec(text);
  if (!match && text.includes("..")) throw new UsageError("expected a range such as 64..1024");
  const [from, to] = match ? [parse(match[1]), parse(match[2])] : [parse(text), parse(text)];
  if (from > to) throw new UsageError("expected the smaller number first, such as 64..1024");
  const numbers: number[] = [];
  for (let number = from; number <= to; number *= 2) numbers.push(number);
  return numbers;
}

/** One of some names; errors list them. */
export function oneOf(names: readonly string[]): (text: string) => string {
  return (text) => {
    if (names.includes(text)) return text;
    const near = nearest(text, names);
    throw new UsageError(`${near ? `did you mean ${near}? ` : ""}expected a list of ${names.join(", ")}`);
  };
}

/** "A:B", "A:" or ":B"; negative numbers count from the end, resolved by `resolveRows`. */
export function rowSlice(text: string): { start: number | null; end: number | null } {
  const match = /^(-?\d*):(-?\d*)$/.exec(text);
  const side = (part: string) => part === "" ? null : Number(part);
  if (!match || match[1] === "-" || match[2] === "-") throw new UsageError("expected A:B, such as 0:4096 or -100:");
  return { start: side(match[1]), end: side(match[2]) };
}

/** A slice of `total` rows (or layers) as Python would read it, except that ends beyond them are errors. */
export function resolveRows(
  slice: { start: number | null; end: number | null },
  total: number,
  label: string,
  { flag, unit }: { readonly flag: string; readonly unit: string } = { flag: "--rows", unit: "rows" },
): RowRange {
  const at = (value: number | null, otherwise: number) =>
    value === null ? otherwise : value < 0 ? total + value : value;
  const range = { start: at(slice.start, 0), end: at(slice.end, total) };
  if (range.start < 0 || range.end > total || range.start > range.end) {
    throw new UsageError(`Cannot use ${flag} ${slice.start ?? ""}:${slice.end ?? ""}: ${label} has ${total} ${unit}`);
  }
  return range;
}

/** Flags of every command. */
export const COMMON_FLAGS: readonly Flag[] = [
  { name: "json", summary: "print one JSON object on stdout (docs/json.md says what is in it)" },
  { name: "jsonl", summary: "print JSON objects, one a line, each as soon as it is known" },
  { name: "quiet", short: "q", summary: "no progress and no report" },
  { name: "verbose", short: "v", summary: "more detail" },
  { name: "no-color", summary: "no colours" },
];

export const BACKEND_FLAG: Flag = {
  name: "backend",
  value: "LIST",
  summary: `auto, or an ordered list of ${BACKEND_NAMES.join(", ")}; one name alone never falls back`,
  offers: ["auto", ...BACKEND_NAMES],
  list: true,
  default: "auto",
};

export const REPORT_FLAG: Flag = {
  name: "report",
  value: "FILE",
  summary: "write a page to show as well: one .html file with charts, tables and settings",
  files: [".html"],
  writes: "file",
};

export const FORMAT_FLAG: Flag = {
  name: "format",
  value: "NAME",
  summary: "form of the report",
  choices: ["text", "json", "jsonl", "csv", "md"],
  default: "text",
};

/** The same of commands that print no table. */
export const PLAIN_FORMAT_FLAG: Flag = { ...FORMAT_FLAG, choices: ["text", "json", "jsonl"] };

export const THREADS_FLAG: Flag = {
  name: "threads",
  value: "N",
  summary: "threads that compute (wasm, onnx); one per core unless given",
  parse: wholeNumber(1),
};

export const MAX_MEMORY_FLAG: Flag = {
  name: "max-memory",
  value: "SIZE",
  summary:
    "most memory of the process, such as 512MiB or 2GB: tiles and threads are chosen to stay below it, or nothing is read (wasm, scalar)",
  parse: byteSize,
};

/** Flags of commands that draw on a terminal. */
export const PLOT_FLAGS: readonly Flag[] = [
  { name: "plot", summary: "draw plots off the terminal as well (text only)" },
  { name: "no-plot", summary: "draw no plots" },
  { name: "ascii", summary: "draw in ASCII, as for TERM=dumb and locales other than UTF-8" },
];

/** Where speeds that `auto` measured are kept: `$XDG_CACHE_HOME/performer/speeds.json`; null where there is no home. */
export function speedsFile(env: Readonly<Record<string, string | undefined>>): string | null {
  const folder = env.XDG_CACHE_HOME || (env.HOME ? `${env.HOME}/.cache` : "");
  return folder ? `${folder}/performer/speeds.json` : null;
}
