/**
 * Reproducing a published table: data of known law, many trials through the library, and a verdict per cell.
 *
 * A cell agrees when the two means differ by no more than chance explains: |ln ours − ln published| ≤ 3 σ √(1/n + 1/n'), with σ the
 * standard deviation of ln(error) over our n trials, which stands for the published n' trials too, since they follow the same law, plus
 * what the published digits leave open. The floor of 5 % on σ stands for data that the published trials may have shared. Logarithms,
 * because errors of random features are skewed: a mean of 10 trials is now and then made by one of them.
 * Where a signed map had denominators at or below 0 in a trial, its error has no mean (a quotient by a number around 0): it is shown,
 * and not compared. Cells computed without chance must agree in every published digit.
 */
import process from "node:process";
import { EXACT, FEATURE_MAPS, TAYLOR_MAPS } from "../../src/feature_map.ts";
import { type DataSizes, gaussianData, inputsOf, Trials } from "../../src/figures/trials.ts";
import type { Inputs } from "../../src/inputs.ts";
import { RandomStream } from "../../src/random.ts";
import { mean, quantile, standardDeviation } from "../../src/statistics.ts";

export { type DataSizes, gaussianData, Trials };

/**
 * Queries and keys around means of their own, N(0, `means`²) per coordinate, with standard deviations that fall geometrically over the
 * coordinates, from `sd · ratio` to `sd / ratio` in queries and the other way round in keys: what centring and balancing are for.
 */
export function anisotropicData(
  { length, headDim, valueDim, seed, sd, ratio, means }: DataSizes & { sd: number; ratio: number; means: number },
): Inputs {
  const random = new RandomStream(seed, 0x7ab1f);
  const rows = (direction: 1 | -1) => {
    const centre = random.normals(headDim).map((value) => means * value);
    return random.normals(length * headDim).map((value, at) => {
      const l = at % headDim;
      const along = headDim === 1 ? 0 : 1 - 2 * l / (headDim - 1); // 1 … −1
      return centre[l] + sd * ratio ** (direction * along) * value;
    });
  };
  return inputsOf(rows(1), rows(-1), random.normals(length * valueDim), headDim, valueDim);
}

/**
 * Queries and keys in `clusters` groups: a shared centre of N(0, sd²) entries and N(0, `within`²) around it, all times `scale`. Values
 * have a centre per cluster likewise, so that attention to one's cluster matters.
 */
export function clusteredData(
  { length, headDim, valueDim, seed, clusters, sd, within, scale }: DataSizes & {
    clusters: number;
    sd: number;
    within: number;
    scale: number;
  },
): Inputs {
  const random = new RandomStream(seed, 0x7ab20);
  const centres = random.normals(clusters * headDim).map((value) => sd * value);
  const values = random.normals(clusters * valueDim);
  const place = (of: Float64Array, width: number, members: readonly number[], spread: number, by: number) =>
    random.normals(length * width).map((value, at) => {
      return by * (of[members[Math.floor(at / width)] * width + at % width] + spread * value);
    });
  const members = () => Array.from({ length }, () => random.below(clusters));
  const [asking, held] = [members(), members()];
  const q = place(centres, headDim, asking, within, scale);
  const k = place(centres, headDim, held, within, scale);
  return inputsOf(q, k, place(values, valueDim, held, 0.5, 1), headDim, valueDim);
}

/** Whether this version has a map of that name: tables leave out columns of maps that it has not. */
export const hasMap = (name: string): boolean => {
  return name === EXACT || [...FEATURE_MAPS.map((map) => map.name), ...TAYLOR_MAPS].some((known) => known === name);
};

/** A published number as it is printed, and the trials it is a mean of; without trials it is exact. */
export interface Published {
  readonly text: string;
  readonly trials?: number;
}

/** One cell: what we found, and whether it agrees. */
export interface Verdict {
  readonly text: string;
  readonly agrees: boolean;
}

/** Half a unit of the last printed digit, as a share of the number. */
function rounding(text: string): number {
  const [digits, exponent = "0"] = text.split("e");
  const decimals = digits.includes(".") ? digits.length - digits.indexOf(".") - 1 : 0;
  return 0.5 * 10 ** (Number(exponent) - decimals) / Math.abs(Number(text));
}

const short = (value: number, digits = 3): string => {
  const text = Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5
    ? String(Number(value.toPrecision(digits)))
    : value.toExponential(digits - 1);
  return text.replace("e+", "e");
};

/** A number without chance: every published digit must be ours. */
export function judgeExact(ours: number, { text }: Published): Verdict {
  const agrees = Math.abs(ours / Number(text) - 1) <= rounding(text) * (1 + 1e-9);
  return { text: `${short(ours, 6)} (${text})${agrees ? "" : " ✗"}`, agrees };
}

/** One measured error, and how many denominators were at or below 0. */
export interface Measured {
  readonly value: number;
  readonly nonPositive: number;
}

/** The mean of our trials, their spread and median, beside a published mean; without one there is nothing to disagree with. */
export function judgeTrials(trials: readonly Measured[], published: Published | null): Verdict {
  const ours = trials.map(({ value }) => value);
  const centre = mean(ours);
  const spread = Math.round(100 * standardDeviation(ours) / centre);
  const own = `${short(centre)} ± ${spread} %, ${short(quantile([...ours].sort((a, b) => a - b), 0.5))}`;
  if (!published) return { text: own, agrees: true };
  if (trials.some(({ nonPositive }) => nonPositive > 0)) {
    return { text: `${own} (${published.text}; denominators ≤ 0)`, agrees: true };
  }
  const sigma = Math.max(0.05, standardDeviation(ours.map(Math.log)));
  const chance = 3 * sigma * Math.sqrt(1 / ours.length + 1 / (published.trials ?? Infinity));
  const agrees = Math.abs(Math.log(centre / Number(published.text))) <= chance + rounding(published.text);
  return { text: `${own} (${published.text})${agrees ? "" : " ✗"}`, agrees };
}

/** A table with its verdict. */
export interface Table {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly notes: readonly string[];
  readonly disagreements: readonly string[];
}

/** Collects rows of verdicts. */
export class TableBuilder {
  readonly #rows: string[][] = [];
  readonly #disagreements: string[] = [];
  readonly notes: string[] = [];

  constructor(readonly title: string, readonly head: readonly string[]) {}

  add(label: string, cells: readonly (Verdict | string)[]): void {
    this.#rows.push([label, ...cells.map((cell) => typeof cell === "string" ? cell : cell.text)]);
    cells.forEach((cell, i) => {
      if (typeof cell === "string" || cell.agrees) return;
      this.#disagreements.push(`${label}, ${this.head[i + 1]}: ${cell.text}`);
    });
  }

  done(): Table {
    return {
      title: this.title,
      head: this.head,
      rows: this.#rows,
      notes: this.notes,
      disagreements: this.#disagreements,
    };
  }
}

export function markdown({ title, head, rows, notes }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const body = [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
  return [title, body, ...notes].join("\n\n");
}

/** Prints a table; the exit code is 1 where a cell disagrees. */
export function show(table: Table): void {
  console.log(markdown(table));
  if (table.disagreements.length === 0) return;
  console.error(`\nOutside its spread:\n${table.disagreements.map((cell) => `  ${cell}`).join("\n")}`);
  process.exitCode = 1;
}
