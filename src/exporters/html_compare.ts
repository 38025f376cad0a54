/** A page about a comparison of settings. */
import type { Chart, Rule, Series } from "../charts/chart.ts";
import type { CompareReport, CompareRow } from "../compare.ts";
import { bytesText, count, duration, figure } from "../words.ts";
import { compareTitle, facts, findings, nameOf, RIGHT, tableOf } from "./compare.ts";
import { ChartDrawer, dataTable, factTable, fragment, page, type PageContext, sentence, type Tone } from "./html.ts";
import { baseName, toneOf } from "./html_attend.ts";

const TONES: Readonly<Record<string, Tone | "chosen">> = {
  front: "good",
  useless: "bad",
  reference: "chosen",
  plain: "plain",
};

/** Error against the number of features, and against time. */
export const compareCharts = (report: CompareReport): Chart[] => [errorOverFeatures(report), errorOverTime(report)];

/** The page; draws its charts. */
export async function comparePage(report: CompareReport, context: PageContext): Promise<string> {
  const { input, best, exact, uniformBaseline, rows, phi } = report;
  const drawer = new ChartDrawer();
  const { header, lines } = tableOf(report);
  const words = findings(report).filter(([name]) => name !== "*" && name !== "use").map(([, words]) => words);
  const tone = best ? toneOf(best.skill) : "bad";
  const front = lines.some(({ tone }) => tone === "front");
  return page({
    title: `Settings compared on ${baseName(input.path)}`,
    subtitle: compareTitle(report).split(" · ").slice(1).join(" · "),
    verdict: { tone, words: words.map((words, i) => sentence(i === 0 ? `Best: ${words}` : words)) },
    tiles: best
      ? [
        {
          name: "least relative L2 error",
          value: figure(best.relativeL2),
          note: nameOf(best, report.backends.length),
          tone,
        },
        { name: "its skill", value: figure(Number(best.skill.toFixed(3))), note: "1 is exact, 0 the mean of V", tone },
        { name: "mean of V", value: figure(uniformBaseline), note: "error of ignoring attention" },
        {
          name: "exact attention",
          value: duration(exact.secondsEstimated),
          note: `${figure(best.speedup)} × the time of the best`,
        },
        { name: "mean ‖x + y‖²", value: figure(phi), note: "random features need about 4 or less" },
      ]
      : [{ name: "mean of V", value: figure(uniformBaseline), note: "error of ignoring attention" }],
    warnings: report.warnings,
    sections: [
      {
        heading: "Error and time",
        body: await drawer.drawAll(compareCharts(report)),
      },
      {
        heading: "All settings",
        body: [
          dataTable(header, lines.map(({ cells }) => cells), RIGHT, lines.map(({ tone }) => TONES[tone])),
          fragment`<p class="caption">${
            front ? "* nothing else is at least as good in both error and time. " : ""
          }Settings below the mean of V are worse than ignoring attention.</p>`,
          best
            ? fragment`
              <h3>To use the best</h3>
              <pre class="command"><code>${`performer attend … ${best.flags.join(" ")}`}</code></pre>
            `
            : null,
        ],
      },
      {
        heading: "How it was measured",
        body: [
          factTable(facts(report)),
          fragment`<p class="caption">${count(rows.length)} settings, ${bytesText(report.peakBytes)} peak memory.</p>`,
        ],
      },
    ],
    report,
    context,
  });
}

/** Rows by what one curve joins: a map with a projection on a backend. */
function curves({ rows, backends }: CompareReport): { name: string; rows: CompareRow[] }[] {
  const projections = new Set(rows.flatMap(({ projection }) => projection ?? [])).size;
  const names = Map.groupBy(
    rows,
    ({ features, projection, backend }) =>
      [features, ...(projections > 1 && projection ? [projection] : []), ...(backends.length > 1 ? [backend] : [])]
        .join(", "),
  );
  return [...names].map(([name, rows]) => ({ name, rows })).sort((a, b) => a.name < b.name ? -1 : 1);
}

const baseline = (at: number): Rule => ({ axis: "y", at, label: "mean of V (ignores attention)" });

function errorOverFeatures(report: CompareReport): Chart {
  const { sampling: { draws, rowsChecked }, uniformBaseline } = report;
  const all = curves(report).map(({ name, rows }, style) => ({ name, rows, style }));
  const series = all.flatMap(({ name, rows, style }): Series[] => {
    const points = rows.filter(({ numFeatures }) => numFeatures !== null).sort((a, b) =>
      a.numFeatures! - b.numFeatures!
    )
      .map(({ numFeatures, relativeL2: { value, low, high } }) => ({ x: numFeatures!, y: value, low, high }));
    return points.length > 0 ? [{ name, draw: "line and marks", spread: "whiskers", style, points }] : [];
  });
  const without = all.flatMap(({ name, rows }) =>
    rows.filter(({ numFeatures }) => numFeatures === null).map((row) => ({ name, row }))
  );
  return {
    title: "Error against the number of features",
    caption: [
      `Whiskers: 95 % intervals over ${draws > 1 ? `${draws} draws of the projection` : "the sampled rows"}; ${
        count(rowsChecked)
      } rows compared with exact softmax`,
      ...(without.length > 0 ? [`Dotted lines with names: attention without random features, and the mean of V`] : []),
    ],
    panels: [{
      kind: "lines",
      title: "",
      x: {
        title: "length of the feature vector m",
        scale: "log",
        ticks: [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))],
      },
      y: { title: "relative L2 error", scale: "log" },
      series,
      rules: [
        baseline(uniformBaseline),
        ...without.map(({ name, row }): Rule => ({ axis: "y", at: row.relativeL2.value, label: name })),
      ],
    }],
  };
}

function errorOverTime(report: CompareReport): Chart {
  const { rows, exact, uniformBaseline, sampling: { rowsTimed }, input } = report;
  const marks = curves(report).map(({ name, rows }, style): Series => ({
    name,
    draw: "marks",
    style,
    labelled: rows.length > 1 && rows.length <= 4,
    points: rows.map(({ seconds, relativeL2, numFeatures }) => ({
      x: seconds,
      y: relativeL2.value,
      label: numFeatures === null ? undefined : String(numFeatures),
    })),
  }));
  const front = rows.filter(({ pareto }) => pareto).sort((a, b) => a.seconds - b.seconds).map((
    { seconds, relativeL2 },
  ) => ({ x: seconds, y: relativeL2.value }));
  return {
    title: "Error against time",
    caption: [
      `Time to compute all ${count(input.rows)} rows${
        rowsTimed < input.rows ? ` at the speed of the first ${count(rowsTimed)}` : ""
      }; numbers beside marks are m`,
      ...(front.length > 1 ? ["The line joins settings that nothing else beats in both error and time"] : []),
      `Exact attention has no error and takes about ${duration(exact.secondsEstimated)}`,
    ],
    panels: [{
      kind: "lines",
      title: "",
      x: { title: "time (s)", scale: "log" },
      y: { title: "relative L2 error", scale: "log" },
      series: [
        ...(front.length > 1 ? [{ name: "best at their time", draw: "line" as const, style: 6, points: front }] : []),
        ...marks,
      ],
      rules: [baseline(uniformBaseline), { axis: "x", at: exact.secondsEstimated, label: "exact attention" }],
    }],
  };
}
