/** Where a figure goes: files by suffix, each under a temporary name until it is complete. */
import { join } from "node:path";
import { isFolderAt, makeOutputFolder, openOutput } from "../bytes.ts";
import { drawPng, drawSvg, sized } from "../charts/draw.ts";
import { specOf } from "../charts/spec.ts";
import type { Json } from "../charts/spec_axis.ts";
import { soundChart } from "../charts/sound.ts";
import { PRINT } from "../charts/style.ts";
import { InputError, UsageError } from "../errors.ts";
import { csvText } from "../exporters/csv.ts";
import { type Figure, type FigureReport, flatTable } from "../figures/figure.ts";
import type { Invocation } from "./command.ts";
import { formatOf } from "./machine.ts";

type Kind = "svg" | "png" | "json" | "csv" | "spec";

/** A file to be written, and what it holds. */
export interface Target {
  readonly path: string;
  readonly kind: Kind;
}

const SUFFIXES: readonly (readonly [suffix: string, kind: Kind])[] = [
  [".vl.json", "spec"],
  [".svg", "svg"],
  [".png", "png"],
  [".json", "json"],
  [".csv", "csv"],
];
const kindOf = (path: string) => SUFFIXES.find(([suffix]) => path.toLowerCase().endsWith(suffix))?.[1];

/** The files that the flags ask for. Throws UsageError for a suffix that is none of a figure's. */
export function targetsOf(invocation: Invocation, name: string): Target[] {
  const { flags } = invocation;
  const extra: Target[] = [];
  if (flags["export-data"] !== undefined) extra.push(dataTarget(String(flags["export-data"])));
  if (flags["export-spec"] !== undefined) extra.push({ path: String(flags["export-spec"]), kind: "spec" });
  if (flags.output === undefined) {
    const printed = formatOf(invocation) !== "text";
    return extra.length > 0 || printed ? extra : [{ path: `figure-${name}.svg`, kind: "svg" }];
  }
  const path = String(flags.output);
  if (path === "-") {
    throw new UsageError("Cannot use --output -: a figure is several files; numbers go to stdout with --json");
  }
  const kind = kindOf(path);
  if (kind) return [{ path, kind }, ...extra];
  if (!path.endsWith("/") && !isFolderAt(path) && /\.\w+$/.test(path)) {
    throw new UsageError(
      `Cannot use --output ${path}: expected a name that ends in .svg, .png, .json, .csv or .vl.json, or a folder`,
    );
  }
  const all = (["svg", "png", "json", "csv"] as const).map((kind) => ({
    path: join(path, `figure-${name}.${kind}`),
    kind,
  }));
  return [...all, ...extra];
}

function dataTarget(path: string): Target {
  const kind = kindOf(path);
  if (kind === "json" || kind === "csv") return { path, kind };
  throw new UsageError(`Cannot use --export-data ${path}: expected a name that ends in .json or .csv`);
}

/** Writes the files. Throws InputError where the figure has nothing to draw. */
export async function writeFigure(
  figure: Figure,
  report: FigureReport,
  targets: readonly Target[],
  wish: number | undefined,
): Promise<void> {
  const sound = soundChart(figure.chart);
  if ("sentence" in sound) throw new InputError(sound.sentence);
  const { chart } = sound;
  const width = wish ?? (chart.panels.length > 1 ? 1100 : 760);
  const spec = specOf(chart, { theme: PRINT, width, titled: true });
  const pictured = targets.some(({ kind }) => kind === "svg" || kind === "png");
  const svg = pictured ? sized(await drawSvg(spec), width) : "";
  for (const { path, kind } of targets) {
    const bytes = kind === "png"
      ? await drawPng(svg, 2 * width)
      : new TextEncoder().encode(textOf(kind, { svg, spec, report }));
    await writeWhole(path, bytes);
  }
}

function textOf(kind: Kind, { svg, spec, report }: { svg: string; spec: Json; report: FigureReport }): string {
  if (kind === "svg") return `${svg}\n`;
  if (kind === "csv") return csvText(flatTable(report.data));
  return JSON.stringify(kind === "spec" ? spec : report, null, kind === "spec" ? 1 : 2) + "\n";
}

/** Writes a file that appears under its name only when it is complete; folders above it are made. */
async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const folder = /^(.*)\/[^/]*$/.exec(path)?.[1];
  if (folder) await makeOutputFolder(folder);
  await using sink = openOutput(path);
  await sink.write(bytes, 0);
  await sink.commit();
}
