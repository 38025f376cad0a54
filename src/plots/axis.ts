/** Axes: where a value lies between two ends, which values get a tick, and how ticks are written. */

export type ScaleKind = "log" | "linear";

/** Farthest values of a logarithmic axis; what lies beyond is drawn at its end. */
const SMALLEST = 1e-300;
const LARGEST = 1e300;

const STEPS = [1, 2, 5];
const FINER = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];

/** 10^k as the number that is written so: Math.pow is not always that. */
const power = (k: number): number => Number(`1e${k}`);
/** k with 10^k ≤ value < 10^(k+1), for values above 0. */
const decade = (value: number): number => {
  const k = Math.floor(Math.log10(value));
  return value < power(k) ? k - 1 : value >= power(k + 1) ? k + 1 : k;
};
/** s · 10^k as the decimal that is written so. */
const times = (s: number, k: number): number => Number(`${s}e${k}`);

/** The largest of 1, 2, 5 × 10^k at or below a value above 0, and the least at or above it. */
function snapDown(value: number): number {
  const k = decade(value);
  return times(STEPS.findLast((step) => times(step, k) <= value) ?? 1, k);
}
function snapUp(value: number): number {
  const k = decade(value);
  const step = STEPS.find((step) => times(step, k) >= value);
  return step === undefined ? power(k + 1) : times(step, k);
}

/** The values of a scale from its low to its high end. */
export class Scale {
  constructor(readonly kind: ScaleKind, readonly low: number, readonly high: number) {}

  /** From 0 at the low end to 1 at the high end; values beyond are at the end they are nearest to. */
  at(value: number): number {
    const { low, high } = this;
    const part = this.kind === "log"
      ? (Math.log(Math.max(value, SMALLEST)) - Math.log(low)) / (Math.log(high) - Math.log(low))
      : (value / 2 - low / 2) / (high / 2 - low / 2);
    // Ends so close that they differ by nothing have only a middle.
    return Number.isNaN(part) ? 0.5 : Math.min(1, Math.max(0, part));
  }
}

/** Whether an axis can show a value. */
export const showable = (kind: ScaleKind, value: number): boolean =>
  Number.isFinite(value) && (kind === "linear" || value > 0);

/**
 * A scale that holds all values (finite, above 0 if logarithmic; at least one). Ends are round numbers, or with `tight` those of the
 * values; one value alone gets room on both sides, and `foot` asks for room below the least of a logarithmic axis.
 */
export function scaleOf(kind: ScaleKind, values: readonly number[], tight = false, foot = false): Scale {
  let low = Infinity, high = -Infinity;
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (kind === "log") {
    [low, high] = [low, high].map((value) => Math.min(LARGEST, Math.max(SMALLEST, value)));
    if (!tight || low === high) [low, high] = [snapDown(low), snapUp(high)];
    if (low === high) [low, high] = [snapDown(low / 1.5), snapUp(high * 1.5)];
    if (foot) low = Math.max(SMALLEST / 10, snapDown(low / 1.5));
    return new Scale(kind, low, high);
  }
  if (low === high) {
    const room = Math.abs(low) / 2 || 1;
    [low, high] = [low - room, low + room].map((value) =>
      Math.max(-Number.MAX_VALUE, Math.min(Number.MAX_VALUE, value))
    );
  }
  if (tight) return new Scale(kind, low, high);
  const step = linearStep(low, high, 5);
  const [from, to] = [Math.floor(low / step) * step, Math.ceil(high / step) * step];
  return new Scale(
    kind,
    Number.isFinite(from) ? Math.min(from, low) : low,
    Number.isFinite(to) ? Math.max(to, high) : high,
  );
}

/** 1, 2 or 5 × 10^k, of which about `parts` go into an interval. */
function linearStep(low: number, high: number, parts: number): number {
  return snapUp(Math.max(Number.MIN_VALUE * 1e16, high / parts - low / parts));
}

/**
 * Ticks at round numbers, in sets from the finest to the coarsest. Each is ascending, and within the scale. On a logarithmic axis the
 * finest is 1, 2 and 5 × 10^k; where those are few, or `finest` (from 1, below 10) is given, there is a finer one.
 */
export function tickSets({ kind, low, high }: Scale, finest?: readonly number[]): number[][] {
  const inside = (value: number) => value >= low && value <= high;
  if (kind === "linear") {
    return [8, 5, 3, 2, 1].map((parts) => {
      const step = linearStep(low, high, parts);
      const first = Math.ceil(low / step);
      const count = Math.min(100, Math.floor(high / step) - first + 1);
      // −0 is written 0.
      return Array.from({ length: Math.max(0, count) }, (_, i) => Number(((first + i) * step).toPrecision(12)) || 0)
        .filter(inside);
    }).filter((set) => set.length > 0);
  }
  const [from, to] = [decade(low), decade(high)];
  const decades = Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const of = (steps: readonly number[]) => decades.flatMap((k) => steps.map((step) => times(step, k))).filter(inside);
  const coarser = [2, 3, 5, 10, 20, 50, 100].map((every) =>
    decades.filter((k) => k % every === 0).map(power).filter(inside)
  );
  const usual = of(STEPS);
  const finer = finest ?? (usual.length < 4 ? FINER : null);
  const sets = [...(finer ? [of(finer)] : []), usual, decades.map(power).filter(inside), ...coarser];
  return sets.filter((set) => set.length > 0);
}

/** "0.05", "1024", "16.4k", "1M", "2e-7": three digits, whole numbers below 10,000 in full. */
export function tickText(value: number): string {
  const size = Math.abs(value);
  const digits = (part: number) => String(Number(part.toPrecision(3)));
  if (size === 0) return "0";
  if (Number.isInteger(value) && size < 1e4) return String(value);
  if (size >= 1e12 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  const unit = size >= 1e9 ? 3 : size >= 1e6 ? 2 : size >= 1e4 ? 1 : 0;
  return `${digits(value / 1000 ** unit)}${["", "k", "M", "G"][unit]}`;
}

export interface Placed {
  /** Where the tick is, from 0. */
  readonly at: number;
  /** First column of its label. */
  readonly from: number;
  readonly text: string;
}

/** Labels below a horizontal axis of `length` characters, centred on their ticks; those that would touch another are left out. */
function place(ticks: readonly number[], scale: Scale, length: number, text: (value: number) => string): Placed[] {
  const placed: Placed[] = [];
  // The ends first, so that a reader can tell how far the axis goes; then the others.
  const order = [...ticks.slice(0, 1), ...(ticks.length > 1 ? ticks.slice(-1) : []), ...ticks.slice(1, -1)];
  for (const value of order) {
    const at = Math.round(scale.at(value) * (length - 1));
    const words = text(value);
    if (words.length > length) continue;
    const from = Math.min(length - words.length, Math.max(0, at - Math.floor(words.length / 2)));
    const free = placed.every((other) => from > other.from + other.text.length || from + words.length < other.from);
    if (free && placed.every((other) => other.at !== at)) placed.push({ at, from, text: words });
  }
  return placed.sort((a, b) => a.from - b.from);
}

/** Ticks of a horizontal axis: those wanted where there are some, else the finest set whose labels all fit. */
export function ticksAcross(
  scale: Scale,
  length: number,
  text: (value: number) => string = tickText,
  wanted: readonly number[] = [],
): Placed[] {
  const inside = [...new Set(wanted)].filter((value) => value >= scale.low && value <= scale.high).sort((a, b) =>
    a - b
  );
  if (inside.length > 1) return place(inside, scale, length, text);
  const sets = tickSets(scale);
  const fitting = sets.find((set) => {
    const placed = place(set, scale, length, text);
    // Labels that barely fit are hard to read.
    return placed.length === set.length && placed.reduce((sum, { text }) => sum + text.length + 3, 0) <= length;
  });
  return place(fitting ?? sets[sets.length - 1] ?? [scale.low, scale.high], scale, length, text);
}

/** Labels of a vertical axis of `length` rows, the high end on top, one in two rows at most; by row. */
export function ticksDown(
  scale: Scale,
  length: number,
  text: (value: number) => string = tickText,
): Map<number, string> {
  const rowOf = (value: number) => Math.round((1 - scale.at(value)) * (length - 1));
  const apart = (set: readonly number[]) => {
    const rows = set.map(rowOf);
    return rows.every((row, i) => i === 0 || rows[i - 1] - row >= 2);
  };
  const sets = tickSets(scale);
  const chosen = sets.find((set) => set.length > 1 && apart(set)) ?? sets.find(apart) ?? [scale.low];
  const labels = new Map(chosen.map((value) => [rowOf(value), text(value)]));
  // Ends are round numbers; where there is room, they say how far the axis goes.
  for (const end of [scale.high, scale.low]) {
    const row = rowOf(end);
    if (![row - 1, row, row + 1].some((near) => labels.has(near))) labels.set(row, text(end));
  }
  return labels;
}
