/** Formats of a drift report by name. Adding one is its line here. */
import { type DriftReport, type Variant, type VariantError, variantName } from "../drift.ts";
import { assumedText, bytesText, count, duration, figure } from "../words.ts";
import { aligned } from "./bench_text.ts";
import { type Cell, csvText } from "./csv.ts";
import { mdTable } from "./md.ts";
import type { ExportOptions } from "./mod.ts";

/** Turns a report into text that ends with a newline. */
export type DriftExporter = (report: DriftReport, options: ExportOptions) => string;

export const DRIFT_EXPORTERS: Readonly<Record<string, () => Promise<DriftExporter>>> = {
  text: async () => text,
  json: async () => (report) => JSON.stringify(report, null, 2) + "\n",
  csv: async () => (report) => csvText(records(report)),
  md: async () => md,
};

/** One part of the report as a table for people. */
interface Section {
  readonly name: string;
  readonly summary: string;
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** "0.231 (0.69)": an error is never shown without its skill; the baseline has a column of its own. */
const errorText = ({ relativeL2, skill }: VariantError) => `${figure(relativeL2)} (${skill.toFixed(2)})`;

const same = (a: Variant, b: Variant) => variantName(a) === variantName(b);

/** Errors of a row, the best one starred. */
function cells(results: readonly VariantError[], best: Variant, more: (result: VariantError) => string = () => "") {
  return results.map((result) => errorText(result) + more(result) + (same(result, best) ? "*" : " "));
}

function sectionsOf({ variants, layers, outputs }: DriftReport): Section[] {
  const names = variants.map(variantName);
  const measured = layers.filter(({ attention }) => attention !== null);
  const percent = (share: number | null) => share === null ? "" : ` ${(100 * share).toFixed(1)} %`;
  const topOf = new Map(outputs.results.map((result) => [variantName(result), result.top1]));
  const { kind, uniformTop1, results } = outputs;
  return [
    {
      name: "attention",
      summary: "attention outputs of a layer on the exact stream's q, k and v",
      header: ["layer", "φ̄", "uniform", ...names, "best"],
      rows: measured.map(({ layer, attention }) => {
        const { phi, results, best } = attention!;
        return [
          `${layer}`,
          figure(phi),
          figure(results[0].uniformBaseline),
          ...cells(results, best),
          verdict(results, best),
        ];
      }),
    },
    {
      name: "drift",
      summary: "hidden rows behind a layer, all layers up to it replaced",
      header: ["layer", "uniform", ...names, "best"],
      rows: layers.map(({ layer, replaced, hidden: { results, best } }) => [
        `${layer}${replaced ? "" : " (exact)"}`,
        figure(results[0].uniformBaseline),
        ...cells(results, best),
        verdict(results, best),
      ]),
    },
    {
      name: kind,
      summary: kind === "logits" ? "outputs, and the share of rows with the same top token" : "outputs",
      header: ["", "uniform", ...names, "best"],
      rows: [[
        "",
        figure(results[0].uniformBaseline) + percent(uniformTop1),
        ...cells(results, outputs.best, (result) => percent(topOf.get(variantName(result)) ?? null)),
        verdict(results, outputs.best),
      ]],
    },
  ];
}

/** The best variant, or that none is of use. */
function verdict(results: readonly VariantError[], best: Variant): string {
  const { skill, relativeL2 } = results.find((result) => same(result, best))!;
  if (Number.isNaN(relativeL2)) return "–";
  return skill > 0 ? variantName(best) : "none better than ignoring attention";
}

function facts(report: DriftReport): [name: string, words: string][] {
  const { model, backend, variants, seed, seconds, peakBytes } = report;
  const guessed = model.assumed.filter(({ from }) => from === "default");
  const projection = variants.find((variant) => variant.projection !== null)?.projection;
  return [
    ["model", model.title],
    ...(guessed.length > 0 ? [["assumed", assumedText(guessed)] as [string, string]] : []),
    ["backend", `${backend.name} · ${backend.device}`],
    ["features", variants.map(variantName).join(", ") + (projection ? `; ${projection}, seed ${seed}` : "")],
    [
      "errors",
      "relative L2 (skill) against exact softmax, * = smallest; uniform = every row gets the mean of the values it sees",
    ],
    ["time", `${duration(seconds.total)}, ${bytesText(peakBytes)} peak`],
  ];
}

function title({ model, input, layers }: DriftReport): string {
  const sequences = input.sequences === 1 ? "" : ` in ${input.sequences} sequences`;
  const parts = [
    `performer drift ${model.path}`,
    `${count(input.rows)} rows${sequences} × ${layers.length} layer${layers.length === 1 ? "" : "s"}`,
    input.causal ? "causal" : "bidirectional",
    ...(input.masked ? ["masked"] : []),
  ];
  return parts.join(" · ");
}

const text: DriftExporter = (report, { color }) => {
  const paint = (codes: readonly [number, number], words: string) =>
    color ? `\x1b[${codes[0]}m${words}\x1b[${codes[1]}m` : words;
  const line = (name: string, words: string) => `  ${paint([2, 22], name.padEnd(12))} ${words}\n`;
  let out = paint([1, 22], title(report)) + "\n" + facts(report).map(([name, words]) => line(name, words)).join("");
  for (const { name, summary, header, rows } of sectionsOf(report)) {
    if (rows.length === 0) continue;
    const right = new Set(header.slice(0, -1));
    const [head, ...body] = aligned({ header, rows, right });
    out += `\n${line(name, summary)}  ${paint([2, 22], head)}\n${body.map((row) => `  ${row}\n`).join("")}`;
  }
  for (const { message, remedy } of report.warnings) out += `\nwarning: ${message}; ${remedy}\n`;
  return out;
};

const md: DriftExporter = (report) => {
  const item = (name: string, words: string) => `* ${name}: ${words}\n`;
  return [
    `${title(report)}\n`,
    facts(report).map(([name, words]) => item(name, words)).join(""),
    ...sectionsOf(report).map(({ name, summary, header, rows }) =>
      `${name}: ${summary}\n\n${mdTable(header, rows, new Set(header.slice(0, -1)))}`
    ),
    report.warnings.map(({ message, remedy }) => item("warning", `${message}; ${remedy}`)).join(""),
  ].filter((part) => part !== "").join("\n");
};

/** One line per error. */
function records({ layers, outputs }: DriftReport): Cell[][] {
  const header = [
    "part",
    "layer",
    "features",
    "numFeatures",
    "projection",
    "relativeL2",
    "uniformBaseline",
    "skill",
    "top1",
  ];
  const line = (part: string, layer: Cell, top1: Cell, error: VariantError): Cell[] => {
    const { features, numFeatures, projection, relativeL2, uniformBaseline, skill } = error;
    return [part, layer, features, numFeatures ?? "", projection ?? "", relativeL2, uniformBaseline, skill, top1];
  };
  return [
    header,
    ...layers.flatMap(({ layer, attention }) =>
      attention?.results.map((error) => line("attention", layer, "", error)) ?? []
    ),
    ...layers.flatMap(({ layer, hidden }) => hidden.results.map((error) => line("hidden", layer, "", error))),
    ...outputs.results.map((error) => line(outputs.kind, "", error.top1 ?? "", error)),
  ];
}
