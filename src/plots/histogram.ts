/** Bins whose ends are round numbers. */
import { scaleOf, tickSets } from "./axis.ts";

/** Ten numbers a decade as round as even steps allow: the preferred numbers R10 of ISO 3, 1, 2 and 5 among them. */
const TENTHS = [1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8];

export interface Bin {
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/**
 * Ascending numbers above 0 counted between round numbers, evenly on a logarithmic scale as far as round numbers allow, in at most `most` bins
 * (at least 1). A number on a bound is in the upper bin, except at the top. Bins outside of the numbers are left out.
 */
export function binsOf(sorted: Float64Array, most: number): Bin[] {
  if (sorted.length === 0) return [];
  const scale = scaleOf("log", [sorted[0], sorted[sorted.length - 1]]);
  const sets = tickSets(scale, TENTHS);
  const bounds = [...(sets.find((set) => set.length - 1 <= most) ?? [])];
  // Coarse ticks need not reach both ends.
  if (bounds[0] !== scale.low) bounds.unshift(scale.low);
  if (bounds[bounds.length - 1] !== scale.high) bounds.push(scale.high);
  const counts = new Array<number>(bounds.length - 1).fill(0);
  for (const value of sorted) {
    const above = bounds.findIndex((bound) => value < bound);
    counts[Math.min(counts.length - 1, Math.max(0, (above < 0 ? bounds.length : above) - 1))]++;
  }
  const bins = counts.map((count, i) => ({ from: bounds[i], to: bounds[i + 1], count }));
  const [first, last] = [bins.findIndex(({ count }) => count > 0), bins.findLastIndex(({ count }) => count > 0)];
  return bins.slice(first, last + 1);
}
