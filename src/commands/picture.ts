/** Pictures of reports that are at hand: on the terminal, or as a file. */
import { openOutput } from "../bytes.ts";
import type { Chart, Panel } from "../charts/chart.ts";
import { InputError, UsageError } from "../errors.ts";
import type { PlotStyle } from "../plots/style.ts";

type Found = Readonly<Record<string, unknown>>;

/** How the report of a command is drawn: in characters, and as charts. Loaded when it is asked for. */
const PICTURES: Readonly<
  Record<string, { plot(report: never, style: PlotStyle): Promise<string>; charts(report: never): Promise<Chart[]> }>
> = {
  attend: {
    plot: async (report, style) => (await import("../exporters/plot_attend.ts")).plotAttend(report, style),
    charts: async (report) => (await import("../exporters/html_attend.ts")).attendCharts(report),
  },
  compare: {
    plot: async (report, style) => (await import("../exporters/plot_compare.ts")).plotCompare(report, style),
    charts: async (report) => (await import("../exporters/html_compare.ts")).compareCharts(report),
  },
  tune: {
    plot: async (report, style) => (await import("../exporters/plot_tune.ts")).plotTune(report, style),
    charts: async (report) => (await import("../exporters/html_tune.ts")).tuneCharts(report),
  },
  figure: {
    plot: async (report, style) => (await import("../exporters/plot_figure.ts")).plotFigure(report, style),
    charts: () => {
      throw new UsageError("Cannot write a figure again: performer figure writes it itself, with -o");
    },
  },
  bench: {
    plot: async (report, style) => (await import("../exporters/plot_bench.ts")).plotBench(report, style),
    charts: async (report) => (await import("../exporters/html_bench.ts")).benchCharts(report),
  },
};

function pictureOf(report: Found) {
  const picture = PICTURES[String(report.command)];
  if (picture) return picture;
  throw new UsageError(
    `Cannot draw the report of ${report.command ?? "this"}: there are pictures of ${Object.keys(PICTURES).join(", ")}`,
  );
}

/** The picture in characters. Throws UsageError for reports without one. */
export async function plotReport(report: Found, style: PlotStyle): Promise<string> {
  return await pictureOf(report).plot(report as never, style);
}

/** Writes the charts of a report, one below the other, as .svg or .png. Throws UsageError for another name. */
export async function writePicture(report: Found, path: string): Promise<void> {
  const charts = await pictureOf(report).charts(report as never);
  if (charts.length === 0) throw new InputError("Nothing to draw: no row was checked against exact softmax");
  await writeCharts(charts, path);
}

/** Writes charts as one picture. */
export async function writeCharts(charts: readonly Chart[], path: string): Promise<void> {
  const kind = /\.(svg|png)$/i.exec(path)?.[1].toLowerCase();
  if (!kind) throw new UsageError(`Cannot write "${path}": a picture's name ends in .svg or .png`);
  const [{ drawPng, drawSvg, requireDrawing, sized }, { soundChart }, { specOf }, { PRINT }] = await Promise.all([
    import("../charts/draw.ts"),
    import("../charts/sound.ts"),
    import("../charts/spec.ts"),
    import("../charts/style.ts"),
  ]);
  await requireDrawing(kind === "png");
  const panels = charts.flatMap((chart): Panel[] => {
    return chart.panels.map((panel) => ({ ...panel, title: panel.title || chart.title }));
  });
  const caption = charts.flatMap(({ caption }) => caption);
  const sound = soundChart({ title: charts[0].title, caption, panels, columns: 1 });
  if ("sentence" in sound) throw new InputError(sound.sentence);
  const svg = sized(await drawSvg(specOf(sound.chart, { theme: PRINT, width: 760, titled: true })), 760);
  await using sink = openOutput(path);
  await sink.write(kind === "png" ? await drawPng(svg, 1520) : new TextEncoder().encode(`${svg}\n`), 0);
  await sink.commit();
}
