/** Formats of a comparison by name. Adding one is its line here. */
import type { Best, CompareReport, CompareRow, Contender, ExactCost } from "../compare.ts";
import { EXACT } from "../feature_map.ts";
import { bytesText, count, duration, figure } from "../words.ts";
import { aligned } from "./bench_text.ts";
import { time } from "./bench_rows.ts";
import { type Cell, csvText } from "./csv.ts";
import { mdTable } from "./md.ts";
import type { ExportOptions } from "./mod.ts";

/** Turns a report into text that ends with a newline. */
export type CompareExporter = (report: CompareReport, options: ExportOptions) => string;

export const COMPARE_EXPORTERS: Readonly<Record<string, () => Promise<CompareExporter>>> = {
  text: async () => text,
  json: async () => (report) => JSON.stringify(report, null, 2) + "\n",
  csv: async () => (report) => csvText(records(report)),
  md: async () => md,
};

/** A line of the table for people, and whether it is worth a look. */
interface Line {
  readonly cells: readonly string[];
  readonly tone: "front" | "useless" | "reference" | "plain";
}

const HEADER = [
  "",
  "features",
  "m",
  "projection",
  "backend",
  "relative L2",
  "95 % interval",
  "skill",
  "tokens/s",
  "time",
];
const COSTS = ["MFLOP/token", "memory"];
const RIGHT = new Set(["m", "relative L2", "skill", "tokens/s", "time", ...COSTS]);

/** The table: exact attention first, then by error, with the mean of V in its place: rows below it are worse than ignoring attention. */
function tableOf({ rows, exact, uniformBaseline }: CompareReport): { header: string[]; lines: Line[] } {
  const better = rows.filter(({ skill }) => skill > 0).map(lineOf);
  const worse = rows.filter(({ skill }) => !(skill > 0)).map(lineOf);
  return {
    header: [...HEADER, ...COSTS],
    lines: [exactLine(exact), ...better, uniformLine(uniformBaseline), ...worse],
  };
}

const megaflops = (flops: number) => figure(flops / 1e6);
const rate = (tokens: number) => figure(Math.round(tokens));
const skillText = (skill: number) => Number.isFinite(skill) && skill > -10 ? skill.toFixed(3) : figure(skill);

function lineOf(row: CompareRow): Line {
  const { relativeL2: { value, low, high }, skill, pareto } = row;
  return {
    tone: !(skill > 0) ? "useless" : pareto ? "front" : "plain",
    cells: [
      pareto ? "*" : "",
      row.features,
      String(row.numFeatures ?? "–"),
      row.projection ?? "–",
      row.backend,
      figure(value),
      low < high ? `[${figure(low)}, ${figure(high)}]` : "–",
      skillText(skill),
      rate(row.tokensPerSecond),
      time(row.seconds),
      megaflops(row.flopsPerToken),
      bytesText(row.stateBytes),
    ],
  };
}

function exactLine({ backend, tokensPerSecond, secondsEstimated, flopsPerToken, stateBytes }: ExactCost): Line {
  const costs = [
    rate(tokensPerSecond),
    `≈ ${duration(secondsEstimated)}`,
    megaflops(flopsPerToken),
    bytesText(stateBytes),
  ];
  return { tone: "reference", cells: ["", `${EXACT} (exact)`, "–", "–", backend, "0", "–", "1", ...costs] };
}

function uniformLine(baseline: number): Line {
  return {
    tone: "reference",
    cells: ["", "mean of V (uniform)", "–", "–", "–", figure(baseline), "–", "0", "–", "–", "–", "–"],
  };
}

/** "hyperbolic, m = 256, orthogonal", with the backend where there are several. */
function nameOf({ features, numFeatures, projection, backend }: Contender, backends: number): string {
  return [
    features,
    ...(numFeatures === null ? [] : [`m = ${numFeatures}`]),
    ...(projection === null ? [] : [projection]),
    ...(backends > 1 ? [`on ${backend}`] : []),
  ].join(", ");
}

type Fact = readonly [name: string, words: string];

/** What was measured and how. */
function facts(report: CompareReport): Fact[] {
  const { backends, refused, sampling: { rowsChecked, draws, rowsTimed }, input, attention, seconds, peakBytes, phi } =
    report;
  const drawn = draws === 1
    ? `1 draw of each projection (seed ${attention.seed}; --redraws 3 shows how much chance there is), interval over rows`
    : `${draws} paired draws of each projection (seed ${attention.seed}), geometric mean and interval over draws`;
  const timed = rowsTimed < input.rows
    ? `measured on the first ${count(rowsTimed)} rows; time is that of all ${count(input.rows)}, computing alone`
    : `measured on all ${count(rowsTimed)} rows, computing alone`;
  return [
    ...backends.map(({ name, device }): Fact => ["backend", `${name} · ${device}`]),
    ...refused.map(({ name, reason }): Fact => ["", `${name} refused: ${reason}`]),
    ["error", `relative L2 against exact softmax on ${count(rowsChecked)} rows, all keys; ${drawn}`],
    ["skill", "1 is exact, 0 is no better than the mean of V, which ignores attention"],
    ["speed", `${timed}; memory is the state that stands for all keys and values`],
    ["data", `mean ‖x+y‖² of queries and keys ${figure(phi)}; random features need about 4 or less`],
    [
      "took",
      `errors ${duration(seconds.errors)}, speed ${duration(seconds.speed)}, ${bytesText(peakBytes)} peak`,
    ],
  ];
}

const percent = (part: number) => `${(100 * part).toFixed(part > 0.995 && part < 1 ? 2 : 0)} %`;

/** Which is best, and whether it is of any use. */
function findings({ best, rows, exact, uniformBaseline, backends }: CompareReport): Fact[] {
  if (!best) return [["best", "none: no setting has an error that is a number"]];
  const name = nameOf(best, backends.length);
  const against = `relative L2 ${figure(best.relativeL2)}, the mean of V has ${figure(uniformBaseline)}`;
  if (!best.betterThanUniform) {
    return [
      ["best", `none of these is better than the mean of V: ${name} comes nearest with ${against}`],
      ["", `exact attention would take about ${duration(exact.secondsEstimated)}`],
    ];
  }
  const useful = rows.filter(({ skill }) => skill > 0).length;
  return [
    ...(rows.some(({ pareto }) => pareto) ? [["*", "nothing else has both less error and less time"] as const] : []),
    ["best", `${name}: ${against}; captures ${percent(best.skill)} of what exact attention does beyond averaging V,`],
    ["", speedWords(best, exact)],
    ...nextWords(best, backends.length),
    [
      "",
      useful === rows.length
        ? "all of these are better than the mean of V"
        : `${useful} of ${rows.length} are better than the mean of V`,
    ],
  ];
}

function speedWords({ speedup }: Best, { secondsEstimated }: ExactCost): string {
  const exact = `exact attention takes about ${duration(secondsEstimated)}`;
  return speedup > 1 ? `${figure(speedup)} times as fast as exact attention` : `but ${exact} here, which is less`;
}

function nextWords({ next, backend }: Best, backends: number): Fact[] {
  if (!next) return [];
  const name = nameOf(
    { ...next, backend: next.backend === backend ? "" : next.backend },
    next.backend === backend ? 1 : backends,
  );
  const paired = next.draws > 1 ? `, behind in ${next.wins} of ${next.draws} paired draws` : "";
  return [["", `next is ${name} with ${figure(next.relativeL2)}${paired}`]];
}

function title({ input, attention }: CompareReport): string {
  const keys = input.keyRows === input.rows ? "" : ` over ${count(input.keyRows)} keys`;
  const shared = input.kvHeads === input.heads ? "" : ` (${input.kvHeads} key heads)`;
  const width = input.headDim === input.valueDim ? `${input.headDim}` : `${input.headDim}→${input.valueDim}`;
  return [
    `performer compare ${input.path}`,
    `${count(input.rows)} rows${keys} × ${input.heads} head${input.heads === 1 ? "" : "s"}${shared} × ${width}`,
    attention.causal ? "causal" : "bidirectional",
    ...(attention.masked ? ["masked"] : []),
    ...(input.encoding ? [input.encoding] : []),
    ...(attention.norms === "chi" ? [] : [`norms ${attention.norms}`]),
  ].join(" · ");
}

const CODES = {
  bold: [1, 22],
  dim: [2, 22],
  front: [32, 39],
  useless: [31, 39],
  reference: [36, 39],
  plain: [0, 0],
} as const;

const text: CompareExporter = (report, { color }) => {
  const paint = (style: keyof typeof CODES, words: string) =>
    color && style !== "plain" ? `\x1b[${CODES[style][0]}m${words}\x1b[${CODES[style][1]}m` : words;
  const line = ([name, words]: Fact) => `  ${paint("dim", name.padEnd(8))} ${words}\n`;
  const { header, lines } = tableOf(report);
  const [head, ...body] = aligned({ header, rows: lines.map(({ cells }) => cells), right: RIGHT });
  const warnings = report.warnings.map(({ message, remedy }) => `\nwarning: ${message}; ${remedy}\n`);
  return [
    paint("bold", title(report)) + "\n" + facts(report).map(line).join(""),
    `  ${paint("dim", head)}\n` + body.map((words, i) => `  ${paint(lines[i].tone, words)}\n`).join(""),
    findings(report).map(line).join("") + warnings.join(""),
  ].join("\n");
};

const md: CompareExporter = (report) => {
  const item = ([name, words]: Fact) =>
    `* ${name && name !== "*" ? `${name}: ` : name === "*" ? "\\*: " : ""}${words}\n`;
  const { header, lines } = tableOf(report);
  return [
    `${title(report)}\n`,
    facts(report).map(item).join(""),
    mdTable(header, lines.map(({ cells }) => cells), RIGHT),
    findings(report).map(item).join("") +
    report.warnings.map(({ message, remedy }) => item(["warning", `${message}; ${remedy}`])).join(""),
  ].join("\n");
};

/** One line per setting with full numbers, exact attention and the mean of V among them. */
function records({ rows, exact, uniformBaseline }: CompareReport): Cell[][] {
  const records: Record<string, Cell>[] = rows.map((row) => ({
    features: row.features,
    numFeatures: row.numFeatures ?? "",
    projection: row.projection ?? "",
    backend: row.backend,
    relativeL2: row.relativeL2.value,
    relativeL2Low: row.relativeL2.low,
    relativeL2High: row.relativeL2.high,
    intervalOver: row.intervalOver,
    uniformBaseline: row.uniformBaseline,
    skill: row.skill,
    draws: row.draws.count,
    tokensPerSecond: row.tokensPerSecond,
    seconds: row.seconds,
    flopsPerToken: row.flopsPerToken,
    stateBytes: row.stateBytes,
    nonPositive: row.nonPositive,
    pareto: String(row.pareto),
  }));
  const { backend, tokensPerSecond, secondsEstimated: seconds, flopsPerToken, stateBytes } = exact;
  const references: Record<string, Cell>[] = [
    { features: EXACT, backend, relativeL2: 0, skill: 1, tokensPerSecond, seconds, flopsPerToken, stateBytes },
    { features: "uniform", relativeL2: uniformBaseline, skill: 0 },
  ];
  const header = Object.keys(records[0]);
  const line = (record: Record<string, Cell>) => header.map((name) => record[name] ?? "");
  return [header, ...[...records, ...references.map((one) => ({ uniformBaseline, ...one }))].map(line)];
}
