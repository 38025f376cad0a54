/** Health per head as a table and lines, for people. */
import type { HeadHealth, HealthReport } from "../report.ts";
import { count, figure } from "../words.ts";

interface Column {
  readonly name: string;
  readonly of: (head: HeadHealth) => number | null | undefined;
  readonly text?: (value: number) => string;
  /** Left out where all heads have 0. */
  readonly rare?: true;
}

const percent = (part: number): string => `${figure(100 * part)} %`;

const COLUMNS: readonly Column[] = [
  { name: "head", of: ({ head }) => head, text: String },
  { name: "‖x+y‖²", of: ({ phiBefore }) => phiBefore },
  { name: "as seen", of: ({ phi }) => phi },
  { name: "Σ H", of: ({ logVariance }) => logVariance },
  { name: "N_eff p5", of: ({ effectiveFeatures }) => effectiveFeatures?.p5 },
  { name: "median", of: ({ effectiveFeatures }) => effectiveFeatures?.median },
  { name: "p95", of: ({ effectiveFeatures }) => effectiveFeatures?.p95 },
  { name: "ln Z bias", of: ({ logNormaliserBias }) => logNormaliserBias },
  { name: "≤ 0", of: ({ nonPositive }) => nonPositive, text: percent, rare: true },
  { name: "empty", of: ({ emptyRows }) => emptyRows, text: percent, rare: true },
  { name: "relative L2", of: ({ relativeL2 }) => relativeL2 },
  { name: "uniform", of: ({ uniformBaseline }) => uniformBaseline },
  { name: "skill", of: ({ skill }) => skill, text: (value) => value.toFixed(3) },
];

/** One row per head; figures that no head has are left out. */
export function healthTable({ heads }: HealthReport) {
  const columns = COLUMNS.filter(({ of, rare }) => heads.some((head) => rare ? (of(head) ?? 0) > 0 : of(head) != null));
  const header = [...columns.map(({ name }) => name), "verdict"];
  const rows = heads.map((head) => [
    ...columns.map(({ of, text = figure }) => {
      const value = of(head);
      return value == null ? "–" : text(value);
    }),
    head.verdict,
  ]);
  return { header, rows, right: new Set(header.slice(0, -1)) };
}

/** The verdict and the advice of a head in one line. */
export const adviceLine = ({ summary, advice }: HeadHealth): string => advice ? `${summary}; ${advice}` : summary;

/** What the table is of, and what share of all rows was treated specially. */
export function healthLine({ rows, featureRows, emptyRows, nonPositive, recomputed }: HealthReport): string {
  const special = [[emptyRows, "see no key"], [nonPositive, "divide by ≤ 0"], [recomputed, "recomputed in float64"]];
  const seen = special.filter(([part]) => Number(part) > 0).map(([part, words]) => `${percent(Number(part))} ${words}`);
  return [
    `per head, of ${count(rows)} sampled rows`,
    ...(featureRows > 0 && featureRows < rows ? [`features of ${count(featureRows)} of them`] : []),
    `of all rows ${seen.length > 0 ? seen.join(", ") : "none is special"}`,
  ].join(" · ");
}
