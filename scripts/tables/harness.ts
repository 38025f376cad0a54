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
import type { TensorSource } from "../../src/tensor.ts";

export { type DataSizes, gaussianData, Trials };

/**
 * Queries and keys around means of their own, N(0, `means`²) per coordinate, with standard deviations that fall geometrically over the
 * coordinates, from `sd · ratio` to `sd / ratio` in queries and the other way round in keys: what centring and balancing are for.
 * With u_l from 1 to −1 the logarithms are ln sd + u_l ln ratio in queries and ln sd + w_l ln ratio in keys, w = −u where `opposition` is
 * 1 and else w = −opposition · u + √(1 − opposition²) · (u in random order), which has correlation −opposition with u.
 */
export function anisotropicData(
  { length, headDim, valueDim, seed, sd, ratio, means, opposition = 1 }: DataSizes & {
    sd: number;
    ratio: number;
    means: number;
    opposition?: number;
  },
): Inputs {
  const random = new RandomStream(seed, 0x7ab1f);
  const falling = Array.from({ length: headDim }, (_, l) => headDim === 1 ? 0 : 1 - 2 * l / (headDim - 1)); // 1 … −1
  const order = opposition < 1 ? shuffled(falling, random) : falling;
  const rest = Math.sqrt(1 - opposition ** 2);
  const rows = (slopes: readonly number[]) => {
    const centre = random.normals(headDim).map((value) => means * value);
    return random.normals(length * headDim).map((value, at) => {
      const l = at % headDim;
      return centre[l] + sd * ratio ** slopes[l] * value;
    });
  };
  const [q, k] = [rows(falling), rows(falling.map((u, l) => rest * order[l] - opposition * u))];
  return inputsOf(q, k, random.normals(length * valueDim), headDim, valueDim);
}

/** The same numbers in random order (Fisher and Yates). */
function shuffled(values: readonly number[], random: RandomStream): number[] {
  const order = [...values];
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/**
 * Queries and keys in `clusters` groups: a shared centre of N(0, sd²) entries and N(0, `within`²) around it, all times `scale`. Values
 * have a centre per cluster likewise, so that attention to one's cluster matters: N(0, 1) of its own, or with `sharedCentres` that of the
 * keys, unscaled (values are then as wide as keys). With `tokens` a query is in the cluster of the key of its row, as in self-attention, else
 * in one of its own.
 */
export function clusteredData(
  { length, headDim, valueDim, seed, clusters, sd, within, scale, sharedCentres = false, tokens = false }: DataSizes & {
    clusters: number;
    sd: number;
    within: number;
    scale: number;
    sharedCentres?: boolean;
    tokens?: boolean;
  },
): Inputs {
  if (sharedCentres && valueDim !== headDim) {
    throw new RangeError(`Values around the centres of keys are ${headDim} wide, not ${valueDim}`);
  }
  const random = new RandomStream(seed, 0x7ab20);
  const centres = random.normals(clusters * headDim).map((value) => sd * value);
  const values = sharedCentres ? centres : random.normals(clusters * valueDim);
  const place = (of: Float64Array, width: number, members: readonly number[], spread: number, by: number) =>
    random.normals(length * width).map((value, at) => {
      return by * (of[members[Math.floor(at / width)] * width + at % width] + spread * value);
    });
  const members = () => Array.from({ length }, () => random.below(clusters));
  const asking = members();
  const held = tokens ? asking : members();
  const q = place(centres, headDim, asking, within, scale);
  const k = place(centres, headDim, held, within, scale);
  return inputsOf(q, k, place(values, valueDim, held, 0.5, 1), headDim, valueDim);
}

/** All numbers of a tensor of one head, in float64. */
async function numbersOf(source: TensorSource): Promise<Float64Array> {
  const { rows, width } = source.info;
  const all = new Float64Array(rows * width);
  for await (const { start, rows: count, cols, data } of source.tiles(rows, { precision: "f64" })) {
    all.set(data.subarray(0, count * cols), start * width);
  }
  return all;
}

/** What data are like, and errors of maps that the library refuses, straight from their definitions. */
export interface Defined {
  /** Standard deviation and maximum over all pairs of t = x·(y − ȳ), with x and y divided by d^¼. */
  readonly sd: number;
  readonly max: number;
  /** Relative error of kernel 1 + x·y, keys where they are: the library always centres its Taylor maps. */
  readonly uncentred: number;
  /** Relative error of kernel 1 + t + t²/2 − s²/2 with s the `sd` above: the library's hermite2 has a guard against large s, per row. */
  readonly unguarded: number;
}

/** The definitions, in float64 and without any shortcut. */
export async function defined({ q, k, v }: Inputs): Promise<Defined> {
  const [x, y, values] = await Promise.all([q, k, v].map(numbersOf));
  const d = q.info.width, dv = v.info.width, L = k.info.rows;
  const logits = new Float64Array(q.info.rows * L); // x·y
  for (let at = 0; at < logits.length; at++) {
    const i = Math.floor(at / L) * d, j = at % L * d;
    let dot = 0;
    for (let l = 0; l < d; l++) dot += x[i + l] * y[j + l];
    logits[at] = dot / Math.sqrt(d);
  }
  let squares = 0, max = -Infinity;
  const offsets = new Float64Array(q.info.rows); // x·ȳ
  for (let i = 0; i < offsets.length; i++) {
    const row = logits.subarray(i * L, (i + 1) * L);
    offsets[i] = mean(row);
    for (const t of row) {
      squares += (t - offsets[i]) ** 2;
      max = Math.max(max, t - offsets[i]);
    }
  }
  const variance = squares / logits.length;
  const kernels = [Math.exp, (_t: number, dot: number) => 1 + dot, (t: number) => 1 + t + (t * t - variance) / 2];
  const outputs = kernels.map(() => new Float64Array(dv));
  const errors = [0, 0, 0];
  for (let i = 0; i < offsets.length; i++) {
    kernels.forEach((kernel, n) => {
      let total = 0;
      const out = outputs[n].fill(0);
      for (let j = 0; j < L; j++) {
        const dot = logits[i * L + j];
        const weight = kernel(dot - offsets[i], dot);
        total += weight;
        for (let c = 0; c < dv; c++) out[c] += weight * values[j * dv + c];
      }
      for (let c = 0; c < dv; c++) {
        out[c] /= total;
        errors[n] += (n === 0 ? out[c] : out[c] - outputs[0][c]) ** 2;
      }
    });
  }
  const [uncentred, unguarded] = [errors[1], errors[2]].map((error) => Math.sqrt(error / errors[0]));
  return { sd: Math.sqrt(variance), max, uncentred, unguarded };
}

/** Whether this version has a map of that name: tables leave out columns of maps that it has not. */
export const hasMap = (name: string): boolean => {
  return name === EXACT || [...FEATURE_MAPS.map((map) => map.name), ...TAYLOR_MAPS].some((known) => known === name);
};

/** A published number as it is printed, and the trials it is a mean of; without trials it is exact. */
export interface Published {
  readonly text: string;
  readonly trials?: number;
  /** It helped to recover data that were not published in full, so that agreeing with it proves less; shown with a †. */
  readonly used?: boolean;
}

const printed = ({ text, used }: Published): string => used ? `${text}†` : text;

/** Published numbers as a table lists them: "0.86†" was used to recover the data. */
export function parsePublished(text: string, trials?: number): Published {
  return { text: text.replace("†", ""), trials, used: text.endsWith("†") };
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
export function judgeExact(ours: number, published: Published): Verdict {
  const { text } = published;
  const agrees = Math.abs(ours / Number(text) - 1) <= rounding(text) * (1 + 1e-9);
  return { text: `${short(ours, 6)} (${printed(published)})${agrees ? "" : " ✗"}`, agrees };
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
    return { text: `${own} (${printed(published)}; denominators ≤ 0)`, agrees: true };
  }
  const sigma = Math.max(0.05, standardDeviation(ours.map(Math.log)));
  const chance = 3 * sigma * Math.sqrt(1 / ours.length + 1 / (published.trials ?? Infinity));
  const agrees = Math.abs(Math.log(centre / Number(published.text))) <= chance + rounding(published.text);
  return { text: `${own} (${printed(published)})${agrees ? "" : " ✗"}`, agrees };
}

/**
 * One published number whose law has no mean, beside n draws of it: it must lie between the least and the largest of them, where one
 * more draw of the same law lies but for a chance of 2/(n + 1).
 */
export function judgeRange(draws: readonly number[], published: Published): Verdict {
  const sorted = [...draws].sort((a, b) => a - b);
  const [least, most] = [sorted[0], sorted[sorted.length - 1]];
  const open = 1 + rounding(published.text);
  const agrees = least <= Number(published.text) * open && Number(published.text) <= most * open;
  const text = `${short(least, 2)} … ${short(quantile(sorted, 0.5), 2)} … ${short(most, 2)} (${printed(published)})`;
  return { text: `${text}${agrees ? "" : " ✗"}`, agrees };
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
