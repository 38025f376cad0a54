/** What a bench report says below its table, line by line, for people. */
import type { BenchReport, Crossover, Series } from "../bench.ts";
import { STAGES } from "../backend.ts";
import { count, figure } from "../words.ts";
import { time } from "./bench_rows.ts";

/** A heading and a sentence. */
export type Line = readonly [name: string, words: string];

/** What ran on what: machine, backends with their limits, refusals. */
export function settingLines({ machine, peaks, copyGbps, refused }: BenchReport): Line[] {
  const { processor, threads, runtime, system } = machine;
  const copy = copyGbps === null ? "" : ` · copy ${figure(copyGbps)} GB/s by 1 thread`;
  return [
    ["machine", `${processor}, ${threads} ${threads === 1 ? "thread" : "threads"} · ${runtime} · ${system}${copy}`],
    ...peaks.map(({ backend, device, gflops, gbps }): Line => {
      const parts = [
        gflops === null ? "peak –" : `peak ${figure(gflops)} GFLOP/s`,
        ...(gbps === null ? [] : [`copy ${figure(gbps)} GB/s`]),
      ];
      return ["backend", [backend, device, ...parts].join(" · ")];
    }),
    ...refused.map(({ name, reason }): Line => ["", `${name} refused: ${reason}`]),
  ];
}

/** Slopes, crossovers, stages, comparison. */
export function findingLines(report: BenchReport, label: (series: Series) => string): Line[] {
  const { slopes, crossovers, results, complete } = report;
  const lines: Line[] = slopes.map((slope) => [
    "slope",
    `${label(slope)}: time ~ L^${slope.slope.toFixed(2)} from L ${count(slope.from)} to ${count(slope.to)}`,
  ]);
  for (const crossover of crossovers) lines.push(["crossover", `${label(crossover)}: ${crossoverWords(crossover)}`]);
  for (const result of results) {
    const { stages } = result;
    if (!stages) continue;
    const parts = STAGES.map((stage) => `${stage} ${time(stages[stage])}`);
    lines.push(["stages", `${label(result)}, L ${count(result.L)}: ${parts.join(", ")}`]);
  }
  if (!complete) lines.push(["interrupted", "what was measured until then is above"]);
  return [...lines, ...comparisonLines(report)];
}

function crossoverWords({ L, kind, fasterAtEnd, from, to }: Crossover): string {
  if (L === null) {
    const faster = fasterAtEnd === "features" ? "faster" : "slower";
    return `${faster} than exact attention at every L from ${count(from)} to ${count(to)}, no crossover near`;
  }
  const beyond = L < from ? `below ${count(from)}` : `beyond ${count(to)}`;
  const how = kind === "extrapolated" ? ` (extrapolated ${beyond})` : "";
  return `faster than exact attention from L ≈ ${count(L)}${how}`;
}

function comparisonLines({ comparison }: BenchReport): Line[] {
  if (!comparison) return [];
  const { points, path, date, meanRatio, threshold, alpha, unmatched, missing, sameMachine } = comparison;
  const of = (verdict: string) => points.filter((point) => point.verdict === verdict).length;
  const left = [
    ...(unmatched > 0 ? [`${unmatched} not in the saved run`] : []),
    ...(missing > 0 ? [`${missing} of the saved run not measured`] : []),
  ];
  return [
    [
      "compared",
      [`${path} of ${date}: ${of("slower")} slower, ${of("faster")} faster, ${of("same")} the same`, ...left].join(
        ", ",
      ),
    ],
    [
      "",
      `by more than ${figure(100 * threshold)} % at p ≤ ${alpha}; time ${figure(meanRatio)} × in the geometric mean`,
    ],
    ...(sameMachine ? [] : [["", "the saved run is from another machine or runtime"] as const]),
  ];
}
