/** The error check as pictures: how errors of rows are spread, where in the sequence and in which heads they are, and health per head. */
import type { RowSquares } from "../metrics.ts";
import type { HealthReport, Report } from "../report.ts";
import { scaleOf, showable, tickText } from "../plots/axis.ts";
import { drawHeat, type HeatLine } from "../plots/heat.ts";
import { binsOf } from "../plots/histogram.ts";
import { drawRows, type Row, sparkline } from "../plots/rows.ts";
import { MARGIN, paint, type PlotStyle, sentence, type Tone, widthOf } from "../plots/style.ts";
import { quantile } from "../statistics.ts";
import { count, figure } from "../words.ts";

/** Lines of a picture with one line per head; more heads share lines, or are counted in a sentence. */
const MOST_LINES = 16;
/** Bars of a histogram. */
const MOST_BINS = 12;
/** Positions fewer than these are no picture of a sequence. */
const FEWEST_POSITIONS = 8;

/** Lines that end with a newline; a sentence where there is nothing to draw. */
export function plotAttend({ rowSquares, health, attention, input }: Report, style: PlotStyle): string {
  if (!rowSquares || rowSquares.rows.length === 0) {
    return sentence(
      attention.numFeatures === null && !attention.nearFar
        ? "nothing to draw: exact softmax has no error"
        : "nothing to draw: no row was checked against exact softmax (--check 256 samples rows)",
      style,
    );
  }
  const parts = [
    histogram(rowSquares, style),
    ...(rowSquares.rows.length >= FEWEST_POSITIONS
      ? [(rowSquares.heads === 1 ? line : map)(rowSquares, input.firstRow, style)]
      : []),
    ...(health ? [bars(health, style)] : []),
  ];
  return parts.join("\n");
}

/** What part of the rows is drawn. */
function sampleWords({ rows, population, heads }: RowSquares): string {
  const all = rows.length === population
    ? `all ${count(rows.length)} rows`
    : `${count(rows.length)} of ${count(population)} rows, sampled`;
  return heads === 1 ? all : `${all}, × ${heads} heads`;
}

/** How many (row, head) pairs have an error of which size. */
function histogram(squares: RowSquares, style: PlotStyle): string {
  const { error, norm, base, heads } = squares;
  const pairs = heads === 1 ? "rows" : "(row, head) pairs";
  let zeros = 0, undefinedOnes = 0, lost = 0;
  const errors: number[] = [];
  for (let i = 0; i < error.length; i++) {
    const value = Math.sqrt(error[i] / norm[i]);
    if (Number.isFinite(value) && error[i] > 0 && error[i] >= base[i]) lost++;
    if (value === 0) zeros++;
    else if (!Number.isFinite(value)) undefinedOnes++;
    else errors.push(value);
  }
  const title = "errors of rows: relative L2 against exact softmax";
  const share = (part: number) => `${count(part)} of ${count(error.length)}`;
  const sample = sampleWords(squares);
  const notes = [
    ...(lost > 0 ? [`${share(lost)} ${pairs} are no nearer to exact attention than the mean of V is`] : []),
    ...(undefinedOnes > 0
      ? [`${share(undefinedOnes)} have no relative error: exact attention answers 0 there, or something is not finite`]
      : []),
  ];
  if (errors.length === 0) {
    const words = zeros > 0
      ? `all ${count(zeros)} that have an error have the error 0`
      : "none of them has an error that is a number";
    return [sentence(title, style, "bold"), ...[sample, words, ...notes].map((note) => sentence(note, style))].join("");
  }
  // A few rows that are all but exact, such as the first of a causal run, would take most of the bars.
  const sorted = Float64Array.from(errors).sort();
  const floor = scaleOf("log", [quantile(sorted, 0.1) / 10, sorted[sorted.length - 1]]).low;
  const kept = sorted.subarray(sorted.findIndex((value) => value >= floor));
  const tail = sorted.length - kept.length;
  const rows: Row[] = [
    ...(zeros > 0 ? [{ label: "0", value: zeros, text: count(zeros) }] : []),
    ...(tail > 0 ? [{ label: `below ${tickText(floor)}`, value: tail, text: count(tail), tone: "cyan" as const }] : []),
    ...binsOf(kept, MOST_BINS).map(({ from, to, count: n }) => {
      return { label: `${tickText(from)} – ${tickText(to)}`, value: n, text: count(n), tone: "cyan" as const };
    }),
  ];
  return drawRows({
    title,
    axis: { label: `number of ${pairs}`, scale: "linear" },
    rows: aligned(rows),
    bare: true,
    notes: [sample, ...notes],
  }, style);
}

/** Labels aligned to the right. */
function aligned(rows: readonly Row[]): Row[] {
  const longest = Math.max(...rows.map(({ label }) => label.length));
  return rows.map((row) => ({ ...row, label: row.label.padStart(longest) }));
}

/** Relative L2 of heads (down) over stretches of sampled rows (across). */
function map(squares: RowSquares, firstRow: number, style: PlotStyle): string {
  const { rows, heads, error, norm, base } = squares;
  const each = Math.ceil(heads / MOST_LINES);
  const over = (head: number, from: number, to: number) => {
    let e = 0, n = 0, b = 0;
    for (let i = from; i < to; i++) {
      const at = i * heads + head;
      e += error[at];
      n += norm[at];
      b += base[at];
    }
    return { value: Math.sqrt(e / n), crossed: Number.isFinite(e) && n > 0 && e > 0 && e >= b };
  };
  const lines = Array.from({ length: Math.ceil(heads / each) }, (_, line): HeatLine => {
    const [first, last] = [line * each, Math.min(heads, (line + 1) * each) - 1];
    // The worst head of a line: one that is bad among many must be seen.
    const cell = (from: number, to: number) => {
      let worst = over(first, from, to);
      for (let head = first + 1; head <= last; head++) {
        const found = over(head, from, to);
        if (!(found.value <= worst.value)) worst = { ...found, crossed: found.crossed || worst.crossed };
        else if (found.crossed) worst = { ...worst, crossed: true };
      }
      return worst;
    };
    return {
      label: first === last ? `head ${first}` : `heads ${first}–${last}`,
      text: figure(cell(0, rows.length).value),
      cell,
    };
  });
  const grouped = each > 1 ? `, in each line the worst of ${each} heads` : "";
  return drawHeat({
    title: `where the errors are: relative L2 per head along the rows, and over all of them${grouped}`,
    length: rows.length,
    lines,
    across: [
      `row ${count(firstRow + rows[0])}`,
      `${count(rows.length)} ${rows.length === squares.population ? "" : "sampled "}rows in order`,
      `row ${count(firstRow + rows[rows.length - 1])}`,
    ],
    crossedLabel: "no nearer than the mean of V",
  }, style);
}

/** Relative L2 of one head over stretches of sampled rows, beside that of the mean of V, as lines of one scale. */
function line({ rows, error, norm, base, population }: RowSquares, firstRow: number, style: PlotStyle): string {
  const names = ["error", "mean of V"];
  const indent = MARGIN.length + names[1].length + 1;
  const width = Math.max(1, Math.min(rows.length, widthOf(style) - indent - 8));
  const root = (squares: Float64Array, from: number, to: number) => {
    const sum = (of: Float64Array) => of.subarray(from, to).reduce((total, value) => total + value, 0);
    return Math.sqrt(sum(squares) / sum(norm));
  };
  const lines = [error, base].map((squares) => {
    const cells = Array.from({ length: width }, (_, c) => {
      return root(squares, Math.floor(rows.length * c / width), Math.floor(rows.length * (c + 1) / width));
    });
    return { cells, all: figure(root(squares, 0, rows.length)) };
  });
  const values = lines.flatMap(({ cells }) => cells).filter((value) => showable("log", value));
  const title = sentence("where the errors are: relative L2 along the rows, and over all of them", style, "bold");
  if (!lines[0].cells.some((value) => showable("log", value))) {
    return title + sentence("nothing to draw: no stretch has an error above 0", style);
  }
  const scale = scaleOf("log", values);
  const drawn = lines.map(({ cells, all }, i) => {
    const tone = i === 0 ? "cyan" : "dim";
    return `${MARGIN}${names[i].padEnd(names[1].length)} ${
      paint(style, tone, sparkline(cells, width, style, "log", scale))
    }  ${all}\n`;
  });
  const ends = [`row ${count(firstRow + rows[0])}`, `row ${count(firstRow + rows[rows.length - 1])}`];
  const part = rows.length === population ? "" : " sampled";
  return title + drawn.join("") +
    `${" ".repeat(indent)}${
      paint(style, "dim", ends[0] + ends[1].padStart(Math.max(ends[1].length + 1, width - ends[0].length)))
    }\n` +
    sentence(
      `${count(rows.length)}${part} rows in order; heights from ${tickText(scale.low)} to ${
        tickText(scale.high)
      }, log scale`,
      style,
    );
}

const TONES: Readonly<Record<HealthReport["heads"][number]["verdict"], Tone>> = {
  good: "green",
  fair: "yellow",
  poor: "red",
  "no-skill": "red",
  own: "yellow",
  empty: "yellow",
};

/** Skill of each head; of very many, the worst. */
function bars({ heads }: HealthReport, style: PlotStyle): string {
  const worst = heads.toSorted((a, b) => rank(a.skill) - rank(b.skill)).slice(0, MOST_LINES);
  const shown = heads.length > MOST_LINES ? worst : heads;
  return drawRows({
    title: `skill per head: 0 is no better than the mean of V, 1 is exact`,
    axis: { label: "skill", scale: "linear" },
    rows: shown.map(({ head, skill, verdict }) => ({
      label: `head ${head}`,
      value: skill,
      text: `${Number.isNaN(skill) ? "–" : skill.toFixed(3)} ${verdict}`,
      tone: TONES[verdict],
    })),
    rules: [{ at: 1, label: "exact attention" }],
    bare: true,
    notes: heads.length > MOST_LINES
      ? [`the worst ${MOST_LINES} of ${count(heads.length)} heads; the table has the others`]
      : [],
  }, style);
}

/** Numbers first, the worst of them first. */
const rank = (skill: number): number => Number.isNaN(skill) ? Infinity : skill;
