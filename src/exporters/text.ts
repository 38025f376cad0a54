/** The report for people. */
import { EXACT, FEATURE_MAPS, NONE } from "../feature_map.ts";
import type { ErrorReport, HealthReport, Report, StateSummary } from "../report.ts";
import { rulesNamed } from "../rules_table.ts";
import { bytesText, count, decayText, duration, figure } from "../words.ts";
import { aligned } from "./bench_text.ts";
import { adviceLine, healthLine, healthTable } from "./health.ts";
import type { Exporter } from "./mod.ts";

type Paint = (style: "bold" | "dim" | "green" | "yellow" | "red", text: string) => string;

const CODES = { bold: [1, 22], dim: [2, 22], green: [32, 39], yellow: [33, 39], red: [31, 39] } as const;

export const text: Exporter = (report, { color, verbose, picture = "" }) => {
  const paint: Paint = (style, words) => color ? `\x1b[${CODES[style][0]}m${words}\x1b[${CODES[style][1]}m` : words;
  const lines = [title(report, paint)];
  const line = (name: string, words: string) => lines.push(`  ${paint("dim", name.padEnd(12))} ${words}`);
  line("backend", `${report.backend.name} · ${report.backend.device}`);
  for (const { name, reason } of report.backend.refused) line("", paint("dim", `${name} refused: ${reason}`));
  line("features", featureWords(report) + chosenWords(report));
  if (report.attention.shrink) line("shrinkage", `λ per head ${report.attention.shrink.map(figure).join(", ")}`);
  const { compat, params } = report.attention;
  if (params) line("fitted", fittedLine(params, verbose));
  if (compat !== "exact" || report.layer) line("numerics", `${compat}: ${rulesNamed(compat).summary}`);
  if (report.layer) {
    const { path, model, index } = report.layer;
    line("layer", `${index} of ${path} (${model}); the error is that of its heads, before the output projection`);
  }
  if (report.state) { for (const words of stateLines(report.state)) line("state", words); }
  if (report.resumed) line("resumed", resumedWords(report));
  line("throughput", throughput(report));
  if (report.stages) line("stages", stages(report.stages));
  const { peakBytes, maxBytes } = report;
  line("memory", `${bytesText(peakBytes)} peak${maxBytes === null ? "" : ` of at most ${bytesText(maxBytes)}`}`);
  if (report.output) {
    line("output", `${report.output.path} · ${report.output.dtype} [${report.output.shape.join(", ")}]`);
  }
  for (const [name, words] of errorLines(report, paint, verbose)) line(name, words);
  if (report.health) lines.push(...healthLines(report.health, paint));
  if (picture !== "") lines.push("", picture.trimEnd(), ...(report.warnings.length > 0 ? [""] : []));
  for (const warning of report.warnings) {
    line(paint("yellow", "warning").padEnd(color ? 22 : 12), warning.message);
    line("", warning.remedy);
  }
  return lines.join("\n") + "\n";
};

/** What a run went on from, and what it left. */
function* stateLines({ in: before, out }: NonNullable<Report["state"]>): Iterable<string> {
  const words = ({ path, rows, keys }: StateSummary) => `${path} · ${count(rows)} rows, ${count(keys)} keys`;
  if (before) yield `goes on from ${words(before)}`;
  if (out) yield `written to ${words(out)}`;
}

const TONES = {
  good: "green",
  fair: "yellow",
  poor: "red",
  "no-skill": "red",
  own: "yellow",
  empty: "yellow",
} as const;

/** A table with one row per head, and one line per head of what it means. */
function healthLines(health: HealthReport, paint: Paint): string[] {
  const [header, ...rows] = aligned(healthTable(health));
  return [
    `  ${paint("dim", "health".padEnd(12))} ${healthLine(health)}`,
    `  ${paint("dim", header)}`,
    ...rows.map((row, i) => `  ${paint(TONES[health.heads[i].verdict], row)}`),
    ...health.heads.map((head) => `  ${paint("dim", `head ${head.head}`.padEnd(12))} ${adviceLine(head)}`),
  ];
}

function title({ command, input, attention }: Report, paint: Paint): string {
  const keys = input.keyRows === input.rows ? "" : ` over ${count(input.keyRows)} keys`;
  const shared = input.kvHeads === input.heads ? "" : ` (${input.kvHeads} key heads)`;
  const width = input.headDim === input.valueDim ? `${input.headDim}` : `${input.headDim}→${input.valueDim}`;
  const parts = [
    `performer ${command} ${input.path}`,
    `${count(input.rows)} rows${keys} × ${input.heads} head${input.heads === 1 ? "" : "s"}${shared} × ${width}`,
    attention.causal ? "causal" : "bidirectional",
    ...(attention.decay ? [decayText(attention.decay)] : []),
    ...(attention.masked ? ["masked"] : []),
    ...(input.encoding ? [input.encoding] : []),
  ];
  return paint("bold", parts[0]) + " · " + parts.slice(1).join(" · ");
}

/** The attention in words. */
export function featureWords({ attention }: Report): string {
  if (attention.nearFar) {
    return nearFar(attention.nearFar) + (attention.seed === null ? "" : `, seed ${attention.seed}`);
  }
  if (attention.features === NONE) return "none: every row sees itself alone, the output is V";
  if (attention.numFeatures === null) return "exact softmax";
  return [
    `${attention.features}, m = ${attention.numFeatures}`,
    ...(attention.projection ? [attention.projection] : []),
    ...(attention.seed === null ? [] : [`seed ${attention.seed}`]),
  ].join(", ");
}

/** What an earlier run had done. */
function resumedWords({ resumed, input }: Report): string {
  const { rows, keyRows } = resumed!;
  const from = rows === input.rows
    ? "after the last row"
    : rows > 0 || keyRows === input.keyRows
    ? `from row ${count(rows)}`
    : `from key row ${count(keyRows)}`;
  return `${from}; times are those of all runs together`;
}

/** How `--features auto` came to its choice. */
function chosenWords({ attention: { chosen, features, causal } }: Report): string {
  if (!chosen) return "";
  if (features === EXACT) return " (chosen: at this length nothing takes less arithmetic)";
  return causal ? " (chosen by trials on the first rows)" : " (chosen by trials on this input)";
}

/** Means over heads. */
function fittedLine(
  { source, rows, centred, heads }: NonNullable<Report["attention"]["params"]>,
  verbose: boolean,
): string {
  if (rows === 0) return `${source}: to no rows, as if entries were independent and N(0, 1)`;
  const mean = (key: "phiBefore" | "phi" | "logVariance") =>
    figure(heads.reduce((sum, head) => sum + head[key], 0) / heads.length);
  const rest = source === "file" ? "" : ` (${source})`;
  return [
    `to ${count(rows)} rows${rest}`,
    ...(centred ? ["keys re-centred, which softmax does not see"] : []),
    `mean ‖x+y‖² ${mean("phiBefore")} → ${mean("phi")}`,
    ...(verbose ? [`ln(1 + m · relative variance) ${mean("logVariance")}`] : []),
  ].join(" · ");
}

/** Near keys and the far field in words. */
function nearFar(
  { window, heavy, far, clusters, top, exactRows = 0, fit }: NonNullable<Report["attention"]["nearFar"]>,
): string {
  const near = [
    ...(exactRows > 0 ? [`the first ${count(exactRows)} rows`] : []),
    ...(window > 0 ? [`window ${count(window)}`] : []),
    ...(heavy > 0 ? [`${count(heavy)} heavy keys`] : []),
    ...(top > 0 ? [`the keys of the top ${count(top)} clusters`] : []),
  ];
  const field = far === "clusters" ? `${count(clusters)} clusters` : far;
  const fitted = fit.source === "none" ? "" : `, fitted to ${count(fit.rows)} rows (${fit.source})`;
  return `${near.length > 0 ? `${near.join(", ")} exactly; ` : ""}far field ${field}${fitted}`;
}

function throughput(report: Report): string {
  const { read, compute, write, check } = report.seconds;
  if (report.attention.features === NONE && !report.attention.nearFar) {
    const speed = `${figure(report.input.bytes / report.seconds.total / 1e9)} GB/s of input`;
    return `${count(report.tokensPerSecond)} tokens/s · ${speed} · read ${duration(read)}, write ${duration(write)}`;
  }
  const phases = [`read ${duration(read)}`, `compute ${duration(compute)}`, `write ${duration(write)}`];
  if (check > 0) phases.push(`error check ${duration(check)}`);
  return `${count(report.tokensPerSecond)} tokens/s · ${figure(report.gflopsPerSecond)} GFLOP/s · ${phases.join(", ")}`;
}

function stages(seconds: NonNullable<Report["stages"]>): string {
  const all = Object.values(seconds).reduce((sum, part) => sum + part, 0);
  const parts = Object.entries(seconds).map(([stage, part]) => {
    return `${stage} ${duration(part)} (${Math.round(100 * part / all)} %)`;
  });
  return parts.join(" · ") + ", over all threads";
}

/** Whether there are keys that exact softmax cannot be asked about. */
const goesOn = ({ state }: Report): boolean => (state?.in?.keys ?? 0) > 0;

function errorLines(report: Report, paint: Paint, verbose: boolean): [string, string][] {
  const { error, attention } = report;
  if (!error) {
    return [[
      "error",
      attention.features === EXACT
        ? "none: this is exact softmax"
        : attention.features === NONE
        ? "not checked: this is no attention, for timing files and pipes"
        : goesOn(report)
        ? "not measured: keys of the state are only sums"
        : "not checked (--check 256 samples rows)",
    ]];
  }
  const { relativeL2: { value, low, high } } = error;
  const interval = low === high ? "" : ` [${figure(low)}, ${figure(high)}]`;
  const tone = error.skill > 0.5 ? "green" : error.skill > 0 ? "yellow" : "red";
  const lines: [string, string][] = [
    [
      "error",
      `relative L2 ${paint(tone, figure(value))}${interval} on ${count(error.rowsChecked)} rows · ` +
      `uniform baseline ${figure(error.uniformBaseline)} · skill ${paint(tone, error.skill.toFixed(3))}`,
    ],
    ["", verdictWords(error, attention)],
  ];
  if (error.redraws) {
    const { count: n, value, low, high } = error.redraws;
    lines.push([
      "redraws",
      `relative L2 ${figure(value)} [${figure(low)}, ${figure(high)}] over ${n} draws of the projection`,
    ]);
  }
  if (verbose) {
    const named = (name: string) => figure(Number(error[name]));
    lines.push([
      "",
      `rows: median ${named("rowMedian")}, p95 ${named("rowP95")}, max ${named("rowMax")} · ` +
      `cosine ${named("cosine")} · mse ${named("mse")} · max abs ${named("maxAbs")} · mean ‖x+y‖² ${figure(error.phi)}`,
    ]);
    if (error.perHead.length > 1) {
      const worst = error.perHead.map((head, h) => ({ h, ...head })).sort((a, b) => a.skill - b.skill)[0];
      lines.push([
        "",
        `worst head ${worst.h}: relative L2 ${figure(worst.relativeL2)}, skill ${worst.skill.toFixed(3)}`,
      ]);
    }
  }
  return lines;
}

/** One sentence that says what the numbers mean. */
export function verdictWords(error: ErrorReport, { features: name, decay }: Report["attention"]): string {
  if (FEATURE_MAPS.find((map) => map.name === name)?.kernel === "own") {
    return `${name} is an attention of its own; this is its distance from softmax`;
  }
  const percent = (part: number) => `${(100 * part).toFixed(part > 0.995 && part < 1 ? 2 : 0)} %`;
  if (error.skill <= 0) return `no better than answering every query with the ${decay ? "decayed " : ""}mean of V`;
  return `captures ${percent(error.skill)} of what exact attention does beyond ${
    decay ? "a decayed mean of" : "averaging"
  } V`;
}
