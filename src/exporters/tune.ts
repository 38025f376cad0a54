/** Formats of a tune report by name. Adding one is its line here. */
import type { ErrorSummary } from "../metrics.ts";
import { settingName } from "../setting_words.ts";
import { byError, type Tried, type TuneReport } from "../tune.ts";
import { bytesText, count, decayText, duration, figure } from "../words.ts";
import { aligned } from "./bench_text.ts";
import { type Cell, csvText } from "./csv.ts";
import { mdTable } from "./md.ts";
import type { ExportOptions } from "./mod.ts";

/** Turns a report into text that ends with a newline. */
export type TuneExporter = (report: TuneReport, options: ExportOptions) => string;

export const TUNE_EXPORTERS: Readonly<Record<string, () => Promise<TuneExporter>>> = {
  text: async () => text,
  json: async () => (report) => JSON.stringify(report, null, 2) + "\n",
  csv: async () => (report) => csvText(records(report)),
  md: async () => md,
};

export const HEADER = ["setting", "error", "95 % up to", "skill", "time", "tokens/s", "MFLOP/row", "state", ""];

export function rowsOf({ tried, exact, input, chosen, uniformBaseline }: TuneReport): string[][] {
  const shown = tried.map((one) => [
    settingName(one.attention),
    figure(one.error.relativeL2.value),
    figure(one.error.relativeL2.high),
    one.error.skill.toFixed(3),
    duration(one.seconds),
    count(input.rows / one.seconds),
    figure(one.flopsPerRow / 1e6),
    bytesText(one.stateBytes),
    notes(one, one === chosen, input.rows),
  ]);
  return [
    ["mean of V (uniform)", figure(uniformBaseline), "", "0.000", "", "", "", "", "ignores attention"],
    ...shown,
    [
      "softmax (exact)",
      "0",
      "",
      "1.000",
      duration(exact.seconds),
      count(input.rows / exact.seconds),
      figure(exact.flopsPerRow / 1e6),
      "",
      "estimated from the sampled rows",
    ],
  ];
}

function notes({ meets, pareto, rows }: Tried, chosen: boolean, all: number): string {
  const words = [
    ...(chosen ? ["chosen"] : meets ? ["meets it"] : []),
    ...(pareto ? ["best at its time"] : []),
    ...(rows < all ? [`on ${count(rows)} rows`] : []),
  ];
  return words.join(", ");
}

export function tuneTitle({ input, causal, decay, target }: TuneReport): string {
  const parts = [
    `performer tune ${input.path}`,
    `${count(input.rows)} rows × ${input.heads} head${input.heads === 1 ? "" : "s"} × ${input.headDim}`,
    causal ? "causal" : "bidirectional",
    ...(decay ? [decayText(decay)] : []),
    `error ≤ ${figure(100 * target)} %`,
  ];
  return parts.join(" · ");
}

/** What the reader should do. */
export function tuneVerdict(
  { chosen, heldOut, exact, use, target, tried, prefer, input }: TuneReport,
): [name: string, words: string][] {
  const wanted = `${figure(100 * target)} %`;
  if (!chosen) {
    // What ran on a slice only says little about the whole.
    const best = tried.filter(({ rows }) => rows === input.rows).sort(byError)[0];
    const words = best
      ? `none of the ${tried.length} settings tried reaches ${wanted} on this data; the most accurate was ` +
        `${settingName(best.attention)} at ${figure(best.error.relativeL2.value)}, at most ` +
        `${figure(best.error.relativeL2.high)} with 95 % confidence`
      : `nothing takes less arithmetic than exact attention over ${count(input.keyRows)} keys`;
    return [
      ["verdict", words],
      ["use", `--features softmax: exact attention takes about ${duration(exact.seconds)} here`],
    ];
  }
  const lines: [string, string][] = [];
  if (prefer === "time" && exact.seconds <= chosen.seconds) {
    lines.push([
      "verdict",
      `exact attention is cheaper at this length: about ${duration(exact.seconds)} against ${
        duration(chosen.seconds)
      }; ` +
      `${settingName(chosen.attention)} overtakes it at about ${count(crossover(chosen, exact, chosen.rows))} rows`,
    ]);
  } else {
    lines.push([
      "verdict",
      `${settingName(chosen.attention)} reaches ${wanted} ` +
      (prefer === "time" ? `in ${duration(chosen.seconds)}, ` : `with ${bytesText(chosen.stateBytes)} of state, `) +
      `exact attention takes about ${duration(exact.seconds)}`,
    ]);
  }
  if (heldOut) {
    const { relativeL2: { value, low, high }, rowsChecked } = heldOut;
    const interval = low === high ? "" : ` [${figure(low)}, ${figure(high)}]`;
    const rows = rowsChecked === input.rows ? "all rows" : `${count(rowsChecked)} fresh rows`;
    lines.push([
      "held out",
      `relative L2 ${figure(value)}${interval} on ${rows} · ` +
      `uniform baseline ${figure(heldOut.uniformBaseline)} · skill ${heldOut.skill.toFixed(3)}`,
    ]);
    if (heldOut.perHead.length > 1) lines.push(["per head", headsText(heldOut, target)]);
  }
  lines.push(["use", use ?? ""]);
  if (prefer === "time" && exact.seconds <= chosen.seconds) {
    lines.push(["or", "--features softmax instead: without error, and faster at this length"]);
  }
  return lines;
}

/** The same error of each head, and which of them exceed the target that all together meet. */
function headsText({ perHead }: ErrorSummary, target: number): string {
  const above = perHead.flatMap(({ relativeL2 }, head) => relativeL2 > target ? [head] : []);
  const words = perHead.map(({ relativeL2 }) => figure(relativeL2)).join(", ");
  return above.length > 0
    ? `${words}: above ${figure(100 * target)} % in head${above.length === 1 ? "" : "s"} ${above.join(", ")}`
    : words;
}

/** Rows at which a setting of linear cost takes as long as exact attention, whose cost is quadratic. */
function crossover(chosen: Tried, exact: TuneReport["exact"], rows: number): number {
  return rows * chosen.seconds / exact.seconds;
}

export function tuneFacts(report: TuneReport): [name: string, words: string][] {
  const { backend, leftOut, seconds } = report;
  return [
    ["backend", `${backend.name} · ${backend.device}`],
    ["errors", "relative L2 against exact softmax on sampled rows; skill 0 is the mean of V, 1 is exact"],
    ...leftOut.map(({ name, reason }): [string, string] => ["left out", `${name}: ${reason}`]),
    ["time", duration(seconds.total)],
  ];
}

export const RIGHT = new Set(HEADER.slice(1, -1));

const text: TuneExporter = (report, { color, picture = "" }) => {
  const paint = (codes: readonly [number, number], words: string) =>
    color ? `\x1b[${codes[0]}m${words}\x1b[${codes[1]}m` : words;
  const line = ([name, words]: [string, string]) => `  ${paint([2, 22], name.padEnd(12))} ${words}\n`;
  const [head, ...body] = aligned({ header: HEADER, rows: rowsOf(report), right: RIGHT });
  return paint([1, 22], tuneTitle(report)) + "\n" + tuneFacts(report).map(line).join("") + "\n" +
    `  ${paint([2, 22], head)}\n${
      body.map((row) => `  ${row.includes("chosen") ? paint([32, 39], row) : row}\n`).join("")
    }\n` +
    (picture === "" ? "" : `${picture}\n`) + tuneVerdict(report).map(line).join("");
};

const md: TuneExporter = (report) => {
  const item = ([name, words]: [string, string]) => `* ${name}: ${words}\n`;
  return `${tuneTitle(report)}\n\n${tuneFacts(report).map(item).join("")}\n${
    mdTable(HEADER, rowsOf(report), RIGHT)
  }\n` +
    tuneVerdict(report).map(item).join("");
};

/** One line per setting that ran. */
function records({ tried, chosen }: TuneReport): Cell[][] {
  return [
    [
      "setting",
      "relativeL2",
      "high",
      "uniformBaseline",
      "skill",
      "seconds",
      "flopsPerRow",
      "stateBytes",
      "rows",
      "meets",
      "pareto",
      "chosen",
    ],
    ...tried.map((one): Cell[] => {
      const { error: { relativeL2, uniformBaseline, skill }, seconds, flopsPerRow, stateBytes, rows } = one;
      const flags = [one.meets, one.pareto, one === chosen].map(Number);
      return [
        settingName(one.attention),
        relativeL2.value,
        relativeL2.high,
        uniformBaseline,
        skill,
        seconds,
        flopsPerRow,
        stateBytes,
        rows,
        ...flags,
      ];
    }),
  ];
}
