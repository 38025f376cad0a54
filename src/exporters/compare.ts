/** Formats of a comparison by name. Adding one is its line here. */
import type { Best, CompareReport, CompareRow, Contender, ExactCost } from "../compare.ts";
import { EXACT } from "../feature_map.ts";
import { bytesText, count, decayText, duration, figure } from "../words.ts";
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

/** A column; what it says of exact attention and of the mean of V, which have no settings. */
interface Column {
  readonly name: string;
  readonly left?: boolean;
  readonly row: (row: CompareRow) => string;
  readonly exact: (exact: ExactCost) => string;
  readonly uniform: (baseline: number) => string;
}

const none = () => "–";
const lasting = (seconds: number) => seconds < 1 ? time(seconds) : duration(seconds);
const rate = (tokens: number) => figure(Math.round(tokens));
const skillText = (skill: number) => skill > -10 ? skill.toFixed(3) : figure(skill);
const megaflops = ({ flopsPerToken }: { flopsPerToken: number }) => figure(flopsPerToken / 1e6);

const COLUMNS: readonly Column[] = [
  { name: "", left: true, row: ({ pareto }) => pareto ? "*" : "", exact: () => "", uniform: () => "" },
  {
    name: "features",
    left: true,
    row: ({ features }) => features,
    exact: () => `${EXACT} (exact)`,
    uniform: () => "mean of V (uniform)",
  },
  { name: "m", row: ({ numFeatures }) => String(numFeatures ?? "–"), exact: none, uniform: none },
  { name: "projection", left: true, row: ({ projection }) => projection ?? "–", exact: none, uniform: none },
  { name: "backend", left: true, row: ({ backend }) => backend, exact: ({ backend }) => backend, uniform: none },
  { name: "relative L2", row: ({ relativeL2 }) => figure(relativeL2.value), exact: () => "0", uniform: figure },
  {
    name: "95 % interval",
    left: true,
    row: ({ relativeL2: { low, high } }) => low < high ? `[${figure(low)}, ${figure(high)}]` : "–",
    exact: none,
    uniform: none,
  },
  { name: "skill", row: ({ skill }) => skillText(skill), exact: () => "1", uniform: () => "0" },
  {
    name: "tokens/s",
    row: ({ tokensPerSecond }) => rate(tokensPerSecond),
    exact: ({ tokensPerSecond }) => rate(tokensPerSecond),
    uniform: none,
  },
  {
    name: "time",
    row: ({ seconds }) => lasting(seconds),
    exact: ({ secondsEstimated }) => `≈ ${lasting(secondsEstimated)}`,
    uniform: none,
  },
  { name: "MFLOP/token", row: megaflops, exact: megaflops, uniform: none },
  {
    name: "memory",
    row: ({ stateBytes }) => bytesText(stateBytes),
    exact: ({ stateBytes }) => bytesText(stateBytes),
    uniform: none,
  },
];
export const RIGHT = new Set(COLUMNS.filter(({ left }) => !left).map(({ name }) => name));

/** The table: exact attention first, then by error, with the mean of V in its place: rows below it are worse than ignoring attention. */
export function tableOf(
  { rows, exact, uniformBaseline, backends }: CompareReport,
): { header: string[]; lines: Line[] } {
  const columns = COLUMNS.filter(({ name }) => name !== "backend" || backends.length > 1);
  const line = (row: CompareRow): Line => ({
    tone: !(row.skill > 0) ? "useless" : row.pareto ? "front" : "plain",
    cells: columns.map((column) => column.row(row)),
  });
  return {
    header: columns.map(({ name }) => name),
    lines: [
      { tone: "reference", cells: columns.map((column) => column.exact(exact)) },
      ...rows.filter(({ skill }) => skill > 0).map(line),
      { tone: "reference", cells: columns.map((column) => column.uniform(uniformBaseline)) },
      ...rows.filter(({ skill }) => !(skill > 0)).map(line),
    ],
  };
}

/** "hyperbolic, m = 256, orthogonal", with the backend where there are several. */
export function nameOf({ features, numFeatures, projection, backend }: Contender, backends: number): string {
  return [
    features,
    ...(numFeatures === null ? [] : [`m = ${numFeatures}`]),
    ...(projection === null ? [] : [projection]),
    ...(backends > 1 ? [`on ${backend}`] : []),
  ].join(", ");
}

type Fact = readonly [name: string, words: string];

/** What was measured and how. */
export function facts(report: CompareReport): Fact[] {
  const { backends, refused, sampling, input, attention, seconds, peakBytes, phi } = report;
  const { rowsChecked, draws, rowsTimed } = sampling;
  const drawn: readonly Fact[] = draws === 1
    ? [
      ["", `one draw of each projection, seed ${attention.seed}; the 95 % interval is over rows`],
      ["", "how much chance there is in a draw, --redraws 3 shows"],
    ]
    : [[
      "",
      `geometric mean and 95 % interval over ${draws} draws of each projection, the same for all, seed ${attention.seed}`,
    ]];
  return [
    ...backends.map(({ name, device }): Fact => ["backend", `${name} · ${device}`]),
    ...refused.map(({ name, reason }): Fact => ["", `${name} refused: ${reason}`]),
    ["error", `relative L2 against exact softmax over all keys, on ${count(rowsChecked)} rows`],
    ...drawn,
    ["skill", "1 is exact, 0 is no better than the mean of V, which ignores attention"],
    [
      "time",
      rowsTimed < input.rows
        ? `to compute all ${count(input.rows)} rows at the speed of the first ${count(rowsTimed)}`
        : `to compute all ${count(input.rows)} rows`,
    ],
    ["memory", "the state that stands for all keys and values; exact attention needs them all"],
    ["data", `mean ‖x+y‖² of queries and keys ${figure(phi)}; random features need about 4 or less`],
    ["took", `errors ${duration(seconds.errors)}, speed ${duration(seconds.speed)}, ${bytesText(peakBytes)} peak`],
  ];
}

const percent = (part: number) =>
  part > 0.9995 && part < 1 ? "over 99.9 %" : `${(100 * part).toFixed(part > 0.995 && part < 1 ? 1 : 0)} %`;

/** Which is best, and whether it is of any use. */
export function findings({ best, rows, exact, uniformBaseline, backends }: CompareReport): Fact[] {
  if (!best) return [["best", "none: no setting has an error that is a number"]];
  const name = nameOf(best, backends.length);
  const against = `relative L2 ${figure(best.relativeL2)}, where the mean of V has ${figure(uniformBaseline)}`;
  const exactTime = `exact attention takes about ${lasting(exact.secondsEstimated)}`;
  if (!best.betterThanUniform) {
    return [
      ["best", "none of these is better than the mean of V, which ignores attention"],
      ["", `${name} comes nearest: ${against}; ${exactTime}`],
    ];
  }
  const useful = rows.filter(({ skill }) => skill > 0).length;
  const speed = best.speedup > 1
    ? `${figure(best.speedup)} times as fast as exact attention`
    : `but ${exactTime}, no longer than this`;
  return [
    ...(rows.some(({ pareto }) => pareto)
      ? [["*", "nothing else is at least as good in both error and time"] as const]
      : []),
    ["best", `${name}: ${against}`],
    ["", `captures ${percent(best.skill)} of what exact attention does beyond averaging V, ${speed}`],
    ...nextWords(best, backends.length),
    [
      "",
      useful === rows.length
        ? "all of these are better than the mean of V"
        : `${useful} of ${rows.length} are better than the mean of V, which ignores attention`,
    ],
    ["use", `performer attend … ${best.flags.join(" ")}`],
  ];
}

function nextWords({ next }: Best, backends: number): Fact[] {
  if (!next) return [];
  const paired = next.draws > 1 ? `, behind in ${next.wins} of ${next.draws} draws` : "";
  return [["", `next: ${nameOf(next, backends)} with ${figure(next.relativeL2)}${paired}`]];
}

export function compareTitle({ input, attention }: CompareReport): string {
  const keys = input.keyRows === input.rows ? "" : ` over ${count(input.keyRows)} keys`;
  const shared = input.kvHeads === input.heads ? "" : ` (${input.kvHeads} key heads)`;
  const width = input.headDim === input.valueDim ? `${input.headDim}` : `${input.headDim}→${input.valueDim}`;
  return [
    `performer compare ${input.path}`,
    `${count(input.rows)} rows${keys} × ${input.heads} head${input.heads === 1 ? "" : "s"}${shared} × ${width}`,
    attention.causal ? "causal" : "bidirectional",
    ...(attention.decay ? [decayText(attention.decay)] : []),
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

const text: CompareExporter = (report, { color, picture = "" }) => {
  const paint = (style: keyof typeof CODES, words: string) =>
    color && style !== "plain" ? `\x1b[${CODES[style][0]}m${words}\x1b[${CODES[style][1]}m` : words;
  const line = ([name, words]: Fact) => `  ${paint("dim", name.padEnd(8))} ${words}\n`;
  const { header, lines } = tableOf(report);
  const [head, ...body] = aligned({ header, rows: lines.map(({ cells }) => cells), right: RIGHT });
  const warnings = report.warnings.map(({ message, remedy }) => `\nwarning: ${message}; ${remedy}\n`);
  return [
    paint("bold", compareTitle(report)) + "\n" + facts(report).map(line).join(""),
    `  ${paint("dim", head)}\n` + body.map((words, i) => `  ${paint(lines[i].tone, words)}\n`).join(""),
    ...(picture === "" ? [] : [picture]),
    findings(report).map(line).join("") + warnings.join(""),
  ].join("\n");
};

const md: CompareExporter = (report) => {
  const item = ([name, words]: Fact) =>
    `* ${name && name !== "*" ? `${name}: ` : name === "*" ? "\\*: " : ""}${words}\n`;
  const { header, lines } = tableOf(report);
  return [
    `${compareTitle(report)}\n`,
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
