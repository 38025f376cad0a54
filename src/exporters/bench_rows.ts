/** The rows of a bench report: as records with full numbers for machines, and as a table in words for people. */
import { type BenchReport, type BenchResult, type ComparedPoint, pointKey, type Series } from "../bench.ts";
import { STAGES } from "../backend.ts";
import { bytesText, count, figure } from "../words.ts";

type Cell = string | number;

/** Settings of near keys and far fields, in the order of their columns. */
const NEAR_FAR = ["window", "heavy", "far", "clusters", "top"] as const;

/** A header and one row per point, samples left out; empty where a point has no such figure. */
export function benchRecords(report: BenchReport): Cell[][] {
  const compared = comparedPoints(report);
  const anyNearFar = report.results.some(({ nearFar }) => nearFar);
  const rows = report.results.map((result): Record<string, Cell> => {
    const { seconds, stages, nearFar, ...figures } = result;
    const old = compared(result);
    return {
      ...Object.fromEntries(Object.entries(figures).map(([name, value]) => [name, cell(value)])),
      samples: seconds.length,
      ...(anyNearFar ? Object.fromEntries(NEAR_FAR.map((name) => [name, nearFar?.[name] ?? ""])) : {}),
      ...(report.settings.profile
        ? Object.fromEntries(STAGES.map((stage) => [`${stage}Seconds`, stages?.[stage] ?? ""]))
        : {}),
      ...(report.comparison
        ? { before: old?.before ?? "", ratio: old?.ratio ?? "", p: old?.p ?? "", verdict: old?.verdict ?? "" }
        : {}),
    };
  });
  return rows.length === 0 ? [] : [Object.keys(rows[0]), ...rows.map((row) => Object.values(row))];
}

const cell = (value: string | number | boolean | null): Cell => {
  return value === null ? "" : typeof value === "boolean" ? String(value) : value;
};

/** Finds the comparison of a point, where there is one. */
function comparedPoints({ comparison, settings }: BenchReport): (result: BenchResult) => ComparedPoint | undefined {
  const { heads, headDim, valueDim } = settings;
  const byKey = new Map(
    comparison?.points.map((point) => [pointKey({ ...point, heads, headDim, valueDim }), point]),
  );
  return (result) => byKey.get(pointKey(result));
}

/** A column of the table. */
interface Column {
  readonly name: string;
  readonly text: (result: BenchResult) => string;
}

/** What tells curves apart; "–" where a curve has no such thing. */
const IDENTITY: readonly { readonly name: string; readonly text: (series: Series) => string }[] = [
  { name: "backend", text: ({ backend }) => backend },
  { name: "threads", text: ({ threads }) => String(threads ?? "–") },
  { name: "features", text: ({ features }) => features },
  { name: "m", text: ({ numFeatures }) => String(numFeatures ?? "–") },
  { name: "projection", text: ({ projection }) => projection ?? "–" },
  { name: "mode", text: ({ causal }) => causal ? "causal" : "bidirectional" },
];

const FIGURES: readonly Column[] = [
  { name: "L", text: ({ L }) => count(L) },
  { name: "median", text: ({ median }) => time(median) },
  { name: "p5", text: ({ p5 }) => time(p5) },
  { name: "p95", text: ({ p95 }) => time(p95) },
  { name: "tokens/s", text: ({ tokensPerSecond }) => figure(Math.round(tokensPerSecond)) },
  { name: "GFLOP/s", text: ({ gflops }) => figure(gflops) },
  { name: "GB/s", text: ({ gbps }) => figure(gbps) },
  { name: "% of peak", text: ({ percentOfPeak }) => percentOfPeak === null ? "–" : figure(percentOfPeak) },
  { name: "% of ceiling", text: ({ percentOfCeiling }) => percentOfCeiling === null ? "–" : figure(percentOfCeiling) },
  { name: "memory", text: ({ peakBytes }) => bytesText(peakBytes) },
];

/** Seconds as "1.23 s", "45.6 ms" or "7.89 µs". */
export function time(seconds: number): string {
  if (seconds >= 1) return `${figure(seconds)} s`;
  return seconds >= 1e-3 ? `${figure(seconds * 1e3)} ms` : `${figure(seconds * 1e6)} µs`;
}

/** The table for people. What is the same in all rows is told once, in `fixed`. */
export interface BenchTable {
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Columns of numbers. */
  readonly right: ReadonlySet<string>;
  readonly fixed: string;
  /** Names a curve by what tells it from the others. */
  readonly label: (series: Series) => string;
}

export function benchTable(report: BenchReport): BenchTable {
  const { results } = report;
  const named = IDENTITY.map((column) => {
    const values = new Set(results.map(column.text).filter((text) => text !== "–"));
    return { ...column, values: [...values] };
  });
  // Threads follow from the backend, whose line names them, unless they were varied.
  const threads = Map.groupBy(results, ({ backend }) => backend).values()
    .some((points) => new Set(points.map((point) => point.threads)).size > 1);
  const varying = named.filter(({ name, values }) => name === "threads" ? threads : values.length > 1);
  const fixed = named.filter(({ name, values }) => name !== "threads" && values.length === 1);
  const compared = comparedPoints(report);
  const columns: readonly Column[] = [
    ...varying,
    ...FIGURES,
    ...(report.comparison ? [{ name: "against saved", text: (result: BenchResult) => change(compared(result)) }] : []),
  ];
  return {
    header: columns.map(({ name }) => name),
    rows: results.map((result) => columns.map(({ text }) => text(result))),
    right: new Set(["threads", "m", ...FIGURES.map(({ name }) => name)]),
    fixed: fixed.map(({ name, values }) => `${name} ${values[0]}`).join(", "),
    label: (series) => {
      const parts = varying.map(({ name, text }) => [name, text(series)]).filter(([, text]) => text !== "–").map((
        [name, text],
      ) => name === "threads" ? `× ${text} thread${text === "1" ? "" : "s"}` : name === "m" ? `m ${text}` : text);
      return parts.join(" ") || series.features;
    },
  };
}

function change(point: ComparedPoint | undefined): string {
  if (!point) return "–";
  const p = point.p < 1e-4 ? "p < 0.0001" : `p ${figure(point.p)}`;
  return `${figure(point.ratio)} × time, ${p}, ${point.verdict}`;
}
