/** A page about a sweep of `bench`. */
import { type BenchReport, curvesOf } from "../bench.ts";
import { type Chart, lengthAxis, type Series } from "../charts/chart.ts";
import { IDENTITY, timeFigure } from "../figures/time.ts";
import { bytesText, count, figure } from "../words.ts";
import { benchTable } from "./bench_rows.ts";
import { benchTitle } from "./bench_text.ts";
import { findingLines, settingLines } from "./bench_words.ts";
import { ChartDrawer, dataTable, factTable, page, type PageContext, type Tile } from "./html.ts";

/** Time and throughput against length. */
export function benchCharts(report: BenchReport): Chart[] {
  const { chart } = timeFigure(report.results, {});
  return [{ ...chart, caption: [chart.caption[0], IDENTITY] }, throughput(report, benchTable(report).label)];
}

/** The page; draws its charts. */
export async function benchPage(report: BenchReport, context: PageContext): Promise<string> {
  const drawer = new ChartDrawer();
  const { header, rows, right, fixed, label } = benchTable(report);
  const found = findingLines(report, label).filter(([name]) => name !== "stages");
  const slower = report.comparison?.regressions ?? 0;
  const fastest = report.results.reduce((most, point) => point.tokensPerSecond > most.tokensPerSecond ? point : most);
  return page({
    title: "Speed of attention",
    subtitle: [benchTitle(report).split(" · ").slice(1).join(" · "), fixed].filter((part) => part !== "").join(" · "),
    verdict: {
      tone: slower > 0 ? "bad" : "plain",
      words: [
        `${count(fastest.tokensPerSecond)} rows/s at best: ${label(fastest)} at L = ${count(fastest.L)}.`,
        ...found.map(([name, words]) => name === "slope" || name === "" ? words : `${name}: ${words}`).slice(0, 6),
      ],
    },
    tiles: tiles(report, fastest),
    warnings: [],
    sections: [
      {
        heading: "Over length",
        body: await drawer.drawAll(benchCharts(report)),
      },
      { heading: "All points", body: [dataTable(header, rows, right)] },
      { heading: "Machine and findings", body: [factTable([...settingLines(report), ...findingLines(report, label)])] },
    ],
    report,
    context,
  });
}

function tiles({ results, copyGbps, peaks }: BenchReport, fastest: BenchReport["results"][number]): Tile[] {
  const peak = Math.max(0, ...peaks.map(({ gflops }) => gflops ?? 0));
  return [
    { name: "best throughput", value: count(fastest.tokensPerSecond), note: "rows/s" },
    { name: "arithmetic", value: figure(Math.max(...results.map(({ gflops }) => gflops))), note: "GFLOP/s at most" },
    ...(peak > 0 ? [{ name: "peak of the backend", value: figure(peak), note: "GFLOP/s of its matrix product" }] : []),
    ...(copyGbps ? [{ name: "memory copy", value: figure(copyGbps), note: "GB/s by one thread" }] : []),
    {
      name: "memory",
      value: bytesText(Math.max(...results.map(({ peakBytes }) => peakBytes))),
      note: "peak of the process",
    },
  ];
}

function throughput({ results }: BenchReport, label: ReturnType<typeof benchTable>["label"]): Chart {
  return {
    title: "Throughput against length",
    caption: ["Rows per second; marks: medians, whiskers: 5 % to 95 % of the samples"],
    panels: [{
      kind: "lines",
      title: "",
      x: lengthAxis(results.map(({ L }) => L)),
      y: { title: "throughput (rows/s)", scale: "log" },
      series: curvesOf(results).map((points): Series => ({
        name: label(points[0]),
        draw: "line and marks",
        spread: "whiskers",
        points: points.map(({ L, median, p5, p95 }) => ({ x: L, y: L / median, low: L / p95, high: L / p5 })),
      })),
    }],
  };
}
