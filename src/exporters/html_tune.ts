/** A page about the search for the cheapest setting that reaches an error. */
import type { Chart, Series } from "../charts/chart.ts";
import { settingName } from "../setting_words.ts";
import type { Tried, TuneReport } from "../tune.ts";
import { bytesText, count, duration, figure } from "../words.ts";
import { ChartDrawer, dataTable, factTable, fragment, page, type PageContext, sentence, type Tile } from "./html.ts";
import { baseName } from "./html_attend.ts";
import { HEADER, RIGHT, rowsOf, tuneFacts, tuneTitle, tuneVerdict } from "./tune.ts";

/** Error against time. */
export const tuneCharts = (report: TuneReport): Chart[] => [front(report)];

/** The page; draws its chart. */
export async function tunePage(report: TuneReport, context: PageContext): Promise<string> {
  const { input, chosen, target, use, tried } = report;
  const drawer = new ChartDrawer();
  const said = tuneVerdict(report);
  const rows = rowsOf(report);
  // What is said of a setting stands beside its name, where narrow windows show it.
  const beside = (row: readonly string[]) => [row[0], row.at(-1)!, ...row.slice(1, -1)];
  const header = beside(HEADER.map((name) => name || "notes"));
  return page({
    title: `Cheapest attention for ${baseName(input.path)}`,
    subtitle: tuneTitle(report).split(" · ").slice(1).join(" · "),
    verdict: {
      tone: chosen ? "good" : "bad",
      words: said.filter(([name]) => name !== "use").map(([name, words]) =>
        sentence(name === "held out" ? `On rows that played no part in the choice: ${words}` : words)
      ),
    },
    tiles: tiles(report),
    warnings: [],
    sections: [
      { heading: "Error against time", body: await drawer.drawAll(tuneCharts(report)) },
      {
        heading: "What to run",
        body: [
          fragment`<pre class="command"><code>${use ?? "performer attend … --features softmax"}</code></pre>`,
          chosen
            ? null
            : fragment`<p class="caption">None of the ${tried.length} settings tried reaches ${
              figure(100 * target)
            } %.</p>`,
        ],
      },
      {
        heading: "What was tried",
        body: [
          dataTable(
            header,
            rows.map(beside),
            RIGHT,
            rows.map((row) =>
              row.at(-1)!.startsWith("chosen") ? "chosen" : row.at(-1)!.startsWith("meets") ? "good" : "plain"
            ),
          ),
          factTable(tuneFacts(report)),
        ],
      },
    ],
    report,
    context,
  });
}

function tiles({ chosen, heldOut, exact, uniformBaseline, target, input }: TuneReport): Tile[] {
  return [
    { name: "error wanted", value: `≤ ${figure(100 * target)} %`, note: "relative L2 against exact softmax" },
    ...(chosen
      ? [
        {
          name: "error reached",
          value: `${figure(100 * (heldOut ?? chosen.error).relativeL2.value)} %`,
          note: heldOut ? `on ${count(heldOut.rowsChecked)} held-out rows` : "on the sampled rows",
          tone: "good" as const,
        },
        { name: "its time", value: duration(chosen.seconds), note: `${count(input.rows / chosen.seconds)} rows/s` },
        { name: "its state", value: bytesText(chosen.stateBytes), note: "stands for all keys and values" },
      ]
      : []),
    { name: "exact attention", value: duration(exact.seconds), note: "estimated from the sampled rows" },
    { name: "mean of V", value: `${figure(100 * uniformBaseline)} %`, note: "error of ignoring attention" },
  ];
}

function front({ tried, chosen, exact, target, uniformBaseline }: TuneReport): Chart {
  const point = ({ seconds, error: { relativeL2: { value, low, high } } }: Tried) => ({
    x: seconds,
    y: value,
    low,
    high,
  });
  const group = (name: string, style: number, which: (one: Tried) => boolean): Series[] => {
    const points = tried.filter((one) => which(one) && one !== chosen).map(point);
    return points.length > 0 ? [{ name, draw: "marks", style, spread: "whiskers", points }] : [];
  };
  const best = tried.filter(({ pareto }) => pareto).map(point).sort((a, b) => a.x - b.x);
  return {
    title: "Every setting that was tried",
    caption: [
      "Marks below the dotted line of the target reach it; whiskers: 95 % intervals over the sampled rows",
      ...(best.length > 1 ? ["The line joins the settings that are best at their time"] : []),
      ...(chosen ? [`Chosen: ${settingName(chosen.attention)}`] : []),
    ],
    panels: [{
      kind: "lines",
      title: "",
      x: { title: "time for all rows (s)", scale: "log" },
      y: { title: "relative L2 error", scale: "log" },
      series: [
        ...(best.length > 1 ? [{ name: "best at their time", draw: "line" as const, style: 6, points: best }] : []),
        ...group("random features", 0, ({ attention }) => !attention.nearFar),
        ...group("near keys and far field", 2, ({ attention }) => Boolean(attention.nearFar)),
        ...(chosen
          ? [{
            name: "chosen",
            draw: "marks" as const,
            style: 1,
            spread: "whiskers" as const,
            labelled: true,
            points: [{ ...point(chosen), label: "chosen" }],
          }]
          : []),
      ],
      rules: [
        { axis: "y", at: target, label: `target ${figure(100 * target)} %` },
        { axis: "y", at: uniformBaseline, label: "mean of V (ignores attention)" },
        { axis: "x", at: exact.seconds, label: "exact attention" },
      ],
    }],
  };
}
