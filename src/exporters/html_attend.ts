/** A page about one run of `attend`. */
import type { Chart } from "../charts/chart.ts";
import { EXACT } from "../feature_map.ts";
import type { RowSquares } from "../metrics.ts";
import { binsOf } from "../plots/histogram.ts";
import type { ErrorReport, Report, StateSummary } from "../report.ts";
import { quantile } from "../statistics.ts";
import { bytesText, count, duration, figure } from "../words.ts";
import { adviceLine, healthLine, healthTable } from "./health.ts";
import {
  ChartDrawer,
  dataTable,
  factTable,
  fragment,
  page,
  type PageContext,
  type Part,
  sentence,
  type Tile,
  type Tone,
} from "./html.ts";
import { featureWords, verdictWords } from "./text.ts";

/** Heads that a table lists; of more, the worst. */
const LISTED = 24;

/** The page; draws its charts. */
export async function attendPage(report: Report, context: PageContext): Promise<string> {
  const { rowSquares: _left, ...shown } = report; // squares of every row are for charts, not for the JSON
  const { input, attention, error, health } = report;
  const drawer = new ChartDrawer();
  const sections: { heading: string; body: Part[] }[] = [];
  if (error) {
    sections.push({
      heading: "Error against exact softmax",
      body: [
        ...await drawer.drawAll(attendCharts(report)),
        ...(error.perHead.length > 1 ? [headTable(error)] : []),
        ...(error.redraws ? [fragment`<p>${redrawWords(error.redraws)}</p>`] : []),
      ],
    });
  }
  if (health) {
    const { header, rows, right } = healthTable(health);
    const shown = worstFirst(health.heads).slice(0, LISTED);
    sections.push({
      heading: "Health per head",
      body: [
        fragment`<p class="caption">${healthLine(health)}</p>`,
        dataTable(
          header,
          shown.map((head) => rows[health.heads.indexOf(head)]),
          right,
          shown.map(({ skill }) => toneOf(skill)),
        ),
        left(health.heads.length, shown.length),
        fragment`<ul>${shown.map((head) => fragment`<li>Head ${head.head}: ${adviceLine(head)}</li>`)}</ul>`,
      ],
    });
  }
  sections.push({ heading: "Settings", body: [factTable(settings(report))] });
  return page({
    title: `Attention over ${baseName(input.path)}`,
    subtitle: `${count(input.rows)} rows${
      input.keyRows === input.rows ? "" : ` over ${count(input.keyRows)} keys`
    } × ${input.heads} head${input.heads === 1 ? "" : "s"} × ${input.headDim} · ${
      attention.causal ? "causal" : "bidirectional"
    } · ${featureWords(report)}`,
    verdict: verdictOf(report),
    tiles: tiles(report),
    warnings: report.warnings,
    sections,
    report: shown,
    context,
  });
}

/** How errors of rows are spread, where they are, and in which heads; none where nothing was checked. */
export function attendCharts({ error, rowSquares, input }: Report): Chart[] {
  if (!error) return [];
  return [
    ...(rowSquares ? [histogram(rowSquares, error)] : []),
    ...(rowSquares && rowSquares.rows.length >= FEWEST_ROWS ? [overRows(rowSquares, input.firstRow)] : []),
    ...(error.perHead.length > 1 ? [perHead(error)] : []),
  ];
}

/** The last part of a path. */
export const baseName = (path: string): string => path.split("/").at(-1) || path;

/** How good a skill is. */
export const toneOf = (skill: number): Tone =>
  skill >= 0.9 ? "good" : skill > 0.5 ? "plain" : skill > 0 ? "fair" : "bad";

const worstFirst = <T extends { readonly skill: number }>(heads: readonly T[]): T[] =>
  heads.toSorted((a, b) => rank(a) - rank(b));
/** Heads without a defined skill come last. */
const rank = ({ skill }: { readonly skill: number }) => Number.isNaN(skill) ? Infinity : skill;

/** Says which rows a table has left out. */
const left = (all: number, shown: number): Part =>
  all > shown ? fragment`<p class="caption">The ${shown} worst of ${count(all)} heads.</p>` : null;

function verdictOf({ error, attention, input, state }: Report): { tone: Tone; words: string[] } {
  if (!error) {
    const words = attention.features === EXACT
      ? "This is exact softmax attention: there is no error"
      : input.rows === 0
      ? "The input has no rows"
      : state?.in && state.in.keys > 0
      ? "The error was not measured: exact softmax needs the keys that are only in the state"
      : "The error was not checked (--check 0)";
    return { tone: "plain", words: [sentence(words)] };
  }
  const words = verdictWords(error, attention);
  const { value, low, high } = error.relativeL2;
  return {
    tone: toneOf(error.skill),
    words: [
      sentence(words),
      `The output is ${figure(100 * value)} % away from exact softmax attention` +
      `${low < high ? ` (${figure(100 * low)} to ${figure(100 * high)} % with 95 % confidence)` : ""}, on ${
        count(error.rowsChecked)
      } ` +
      `sampled rows; always answering with the mean of V would be ${figure(100 * error.uniformBaseline)} % away.`,
    ],
  };
}

function tiles({ error, seconds, tokensPerSecond, peakBytes, gflopsPerSecond }: Report): Tile[] {
  const ofError: Tile[] = error
    ? [
      {
        name: "relative L2 error",
        value: figure(error.relativeL2.value),
        note: error.relativeL2.low < error.relativeL2.high
          ? `95 %: ${figure(error.relativeL2.low)} to ${figure(error.relativeL2.high)}`
          : "of all rows",
        tone: toneOf(error.skill),
      },
      {
        name: "skill",
        value: figure(Number(error.skill.toFixed(3))),
        note: "1 is exact, 0 the mean of V",
        tone: toneOf(error.skill),
      },
      { name: "uniform baseline", value: figure(error.uniformBaseline), note: "error of the mean of V" },
    ]
    : [];
  return [
    ...ofError,
    { name: "throughput", value: count(tokensPerSecond), note: `rows/s · ${figure(gflopsPerSecond)} GFLOP/s` },
    {
      name: "computing",
      value: duration(seconds.compute),
      note: `read ${duration(seconds.read)}, write ${duration(seconds.write)}, check ${duration(seconds.check)}`,
    },
    { name: "memory", value: bytesText(peakBytes), note: "peak of the process" },
  ];
}

/** Bars of the histogram, and stretches of the sequence, at most. */
const [BARS, STRETCHES] = [24, 40];
/** Rows fewer than these are no picture of a sequence. */
const FEWEST_ROWS = 16;

/** How many (row, head) pairs have an error of which size. */
function histogram({ error, norm, heads, rows, population }: RowSquares, summary: ErrorReport): Chart {
  const { uniformBaseline, rowMedian, rowP95 } = summary;
  const errors = error.map((square, i) => Math.sqrt(square / norm[i]));
  const sorted = errors.filter((value) => Number.isFinite(value) && value > 0).sort();
  // A few rows that are all but exact, such as the first of a causal run, would take most of the width.
  const floor = sorted.length > 0 ? quantile(sorted, 0.1) / 10 : 0;
  const shown = sorted.filter((value) => value >= floor);
  const few = (n: number, words: string) => n > 0 ? [`${count(n)} ${words}`] : [];
  return {
    title: "How the error is spread over rows",
    caption: [
      `Relative L2 error of ${count(rows.length)} of ${count(population)} rows${
        rows.length < population ? " (sampled)" : ""
      } × ${count(heads)} head${heads === 1 ? "" : "s"}, median ${figure(Number(rowMedian))}, 95th percentile ${
        figure(Number(rowP95))
      }`,
      ...few(sorted.length - shown.length, `below ${figure(floor)} are not drawn`),
      ...few(errors.filter((value) => value === 0).length, "without any error have no place on a logarithmic axis"),
      ...few(
        errors.filter((value) => !Number.isFinite(value)).length,
        "have an exact output of 0, so that no relative error is defined",
      ),
    ],
    panels: [{
      kind: "bars",
      title: "",
      x: { title: "relative L2 error of a row (1: as large as the exact output)", scale: "log" },
      y: { title: "rows × heads" },
      bars: binsOf(shown, BARS),
      rules: [
        { axis: "x", at: Number(rowMedian), label: "median" },
        { axis: "x", at: uniformBaseline, label: "mean of V" },
      ],
    }],
  };
}

/** Where in the sequence the error is: each point stands for a stretch of sampled rows, over all heads. */
function overRows({ error, norm, base, heads, rows }: RowSquares, firstRow: number): Chart {
  const stretches = Math.min(STRETCHES, Math.floor(rows.length / 4));
  const parts = Array.from({ length: stretches }, (_, i) => {
    const [from, to] = [Math.floor(i * rows.length / stretches), Math.floor((i + 1) * rows.length / stretches)];
    const sum = (squares: Float64Array) => squares.subarray(from * heads, to * heads).reduce((a, b) => a + b, 0);
    const place = firstRow + (rows[from] + rows[to - 1]) / 2;
    return { place, error: Math.sqrt(sum(error) / sum(norm)), base: Math.sqrt(sum(base) / sum(norm)) };
  });
  const points = (key: "error" | "base") => parts.map((part) => ({ x: part.place, y: part[key] }));
  return {
    title: "Where in the sequence the error is",
    caption: [
      `Relative L2 error of ${count(stretches)} stretches of about ${
        count(rows.length / stretches)
      } sampled rows each, over all heads`,
    ],
    panels: [{
      kind: "lines",
      title: "",
      x: { title: "row", scale: "linear" },
      y: { title: "relative L2 error", scale: "log" },
      series: [
        { name: "this attention", draw: "line", points: points("error") },
        { name: "mean of V (ignores attention)", draw: "line", style: 4, points: points("base") },
      ],
    }],
  };
}

function perHead({ perHead, rowsChecked }: ErrorReport): Chart {
  const worst = worstFirst(perHead.map((head, index) => ({ ...head, index })))[0];
  const points = (key: "relativeL2" | "uniformBaseline") =>
    perHead.map((head, index) => ({
      x: index,
      y: head[key],
      label: index === worst.index ? `head ${index}` : undefined,
    }));
  return {
    title: "Error of every head",
    caption: [
      `On ${count(rowsChecked)} sampled rows; a head above its mean of V is better served by ignoring attention`,
      `Least skill: head ${worst.index}, ${figure(worst.skill)}`,
    ],
    panels: [{
      kind: "lines",
      title: "",
      x: { title: "head", scale: "linear", domain: [-0.5, perHead.length - 0.5], ticks: headTicks(perHead.length) },
      y: { title: "relative L2 error", scale: "log" },
      series: [
        { name: "this attention", draw: "marks", points: points("relativeL2"), labelled: true },
        {
          name: "mean of V (ignores attention)",
          draw: "marks",
          style: 4,
          points: points("uniformBaseline").map(({ x, y }) => ({ x, y })),
        },
      ],
    }],
  };
}

/** Whole numbers of heads. */
function headTicks(heads: number): number[] {
  const step = [1, 2, 4, 8, 16, 32, 64, 128, 256].find((step) => heads / step <= 8) ?? Math.ceil(heads / 8);
  return Array.from({ length: Math.ceil(heads / step) }, (_, i) => i * step);
}

function headTable({ perHead }: ErrorReport): readonly Part[] {
  const heads = worstFirst(perHead.map((head, index) => ({ ...head, index })));
  const shown = heads.slice(0, LISTED);
  const header = ["head", "relative L2", "mean of V", "skill"];
  const rows = shown.map((
    { index, relativeL2, uniformBaseline, skill },
  ) => [String(index), figure(relativeL2), figure(uniformBaseline), figure(Number(skill.toFixed(3)))]);
  return [
    dataTable(header, rows, new Set(header), shown.map(({ skill }) => toneOf(skill))),
    left(heads.length, shown.length),
  ];
}

function redrawWords({ count: draws, value, low, high }: NonNullable<ErrorReport["redraws"]>): string {
  return `Over ${draws} more draws of the projection, on the same rows, the error is ${figure(value)}${
    low < high ? ` (95 %: ${figure(low)} to ${figure(high)})` : ""
  }.`;
}

function settings(report: Report): [string, string][] {
  const { backend, input, attention, output, layer, error, state } = report;
  const seen = (summary: StateSummary | null | undefined) => {
    return summary ? `${summary.path} · ${count(summary.rows)} rows, ${count(summary.keys)} keys` : "";
  };
  return [
    [
      "input",
      `${input.path} · ${input.dtype} · ${bytesText(input.bytes)}${
        input.firstRow > 0 ? ` · from row ${count(input.firstRow)}` : ""
      }${input.encoding ? ` · ${input.encoding}` : ""}`,
    ],
    ["backend", `${backend.name} · ${backend.device}`],
    ...backend.refused.map(({ name, reason }): [string, string] => ["", `${name} refused: ${reason}`]),
    ["attention", featureWords(report)],
    ["norms", attention.norms ?? ""],
    ["logit scale", figure(attention.scale)],
    ["decay", attention.decay ? attention.decay.map(figure).join(", ") : ""],
    ["shrinkage", attention.shrink ? attention.shrink.map(figure).join(", ") : ""],
    [
      "fitted",
      attention.params
        ? `to ${count(attention.params.rows)} rows (${attention.params.source})${
          attention.params.centred ? ", keys re-centred" : ""
        }`
        : "",
    ],
    ["numerics", attention.compat === "exact" ? "" : attention.compat],
    ["mask", attention.masked ? "yes" : ""],
    ["state in", seen(state?.in)],
    ["state out", seen(state?.out)],
    ["layer", layer ? `${layer.index} of ${layer.path} (${layer.model})` : ""],
    ["mean ‖x + y‖²", error ? figure(error.phi) : ""],
    ["output", output ? `${output.path} · ${output.dtype} [${output.shape.join(", ")}]` : ""],
  ];
}
