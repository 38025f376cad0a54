/** A bench report as a picture: tokens/s against length, one curve per row of settings. */
import { type BenchReport, curvesOf } from "../bench.ts";
import { drawChart } from "../plots/chart.ts";
import { letterAt, type PlotStyle, toneAt } from "../plots/style.ts";
import { benchTable } from "./bench_rows.ts";

/** Lines that end with a newline. */
export function plotBench(report: BenchReport, style: PlotStyle): string {
  const { label } = benchTable(report);
  const curves = curvesOf(report.results);
  const lengths = [...new Set(report.results.map(({ L }) => L))].sort((a, b) => a - b);
  return drawChart({
    title: lengths.length > 1 ? "throughput against length" : "throughput",
    x: { label: "rows L", scale: "log", ticks: lengths, tight: true },
    y: { label: "tokens/s (query rows per second)", scale: "log" },
    series: curves.map((points, i) => ({
      label: label(points[0]),
      sign: letterAt(i),
      tone: toneAt(i),
      points: points.map(({ L, tokensPerSecond }) => [L, tokensPerSecond]),
      joined: true,
    })),
  }, style);
}
