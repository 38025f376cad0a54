/** From samples to figures: throughput, shares of the limits, slopes over L and the crossover with exact attention. Pure. */
import type { Backend, Peak } from "./backend.ts";
import { type BenchResult, type BenchSizes, type Crossover, curvesOf, seriesOf, type Slope } from "./bench.ts";
import { EXACT } from "./feature_map.ts";
import { quantile, slopeOf } from "./statistics.ts";

/** A crossover further than this factor beyond the measured lengths is not told. */
const REACH = 16;

/** Bytes of q, k, v and the output for one row, each once, in the backend's precision. */
export function bytesPerRow(sizes: BenchSizes, precision: Backend["limits"]["precision"]): number {
  const { heads, kvHeads, headDim, valueDim } = sizes;
  return (heads + kvHeads) * (headDim + valueDim) * (precision === "f64" ? 8 : 4);
}

export type Figures = Pick<
  BenchResult,
  | "median"
  | "p5"
  | "p95"
  | "tokensPerSecond"
  | "gflops"
  | "gbps"
  | "percentOfPeak"
  | "ceilingTokensPerSecond"
  | "percentOfCeiling"
>;

/**
 * The figures of one point.
 * @param work `rows` L, `flops` operations and `rowBytes` bytes per row of one run
 * @param peak what the backend reaches by itself, null where it cannot say
 * @param copyBytes bytes read plus written per second by a copy
 */
export function figuresOf(
  seconds: readonly number[],
  work: { readonly rows: number; readonly flops: number; readonly rowBytes: number },
  peak: Peak | null,
  copyBytes: number,
): Figures {
  const sorted = seconds.toSorted((a, b) => a - b);
  const median = quantile(sorted, 0.5);
  const tokensPerSecond = work.rows / median;
  const flops = work.flops / median;
  const ceilingTokensPerSecond = copyBytes / work.rowBytes;
  return {
    median,
    p5: quantile(sorted, 0.05),
    p95: quantile(sorted, 0.95),
    tokensPerSecond,
    gflops: flops / 1e9,
    gbps: work.rowBytes * tokensPerSecond / 1e9,
    percentOfPeak: peak && 100 * flops / peak.flopsPerSecond,
    ceilingTokensPerSecond,
    percentOfCeiling: 100 * tokensPerSecond / ceilingTokensPerSecond,
  };
}

/** Log–log slope of the median time of every curve with two lengths or more. */
export function slopesOf(results: readonly BenchResult[]): Slope[] {
  return curvesOf(results).filter((points) => points.length > 1).map((points) => ({
    ...seriesOf(points[0]),
    slope: slopeOf(points.map(({ L }) => Math.log(L)), points.map(({ median }) => Math.log(median))),
    from: points[0].L,
    to: points.at(-1)!.L,
  }));
}

/** Crossover of every feature-map curve with the exact one of the same backend, threads and direction, where both share two lengths. */
export function crossoversOf(results: readonly BenchResult[]): Crossover[] {
  const curves = curvesOf(results);
  const crossovers: Crossover[] = [];
  for (const points of curves) {
    const [first] = points;
    const exact = curves.find(([other]) => {
      return other.features === EXACT && other.backend === first.backend && other.device === first.device &&
        other.threads === first.threads && other.causal === first.causal;
    });
    if (first.features === EXACT || !exact) continue;
    const shared = points.flatMap(({ L, median }) => {
      const other = exact.find((point) => point.L === L);
      return other ? [{ x: Math.log(L), lead: Math.log(median / other.median) }] : [];
    });
    if (shared.length > 1) crossovers.push({ ...seriesOf(first), ...crossing(shared) });
  }
  return crossovers;
}

/** Where a point's `lead`, ln(time of features / time of exact) over x = ln L, falls through 0. */
interface Lead {
  readonly x: number;
  readonly lead: number;
}

/** The last fall through 0, on straight lines between the points, or on the outermost line beyond them. */
function crossing(points: readonly Lead[]): Pick<Crossover, "L" | "kind" | "fasterAtEnd" | "from" | "to"> {
  const [first, last] = [points[0], points.at(-1)!];
  const from = Math.round(Math.exp(first.x));
  const to = Math.round(Math.exp(last.x));
  const fasterAtEnd = last.lead <= 0 ? "features" : "softmax";
  for (let i = points.length - 1; i > 0 && fasterAtEnd === "features"; i--) {
    const [a, b] = [points[i - 1], points[i]];
    if (a.lead > 0 && b.lead <= 0) return { L: root(a, b), kind: "interpolated", fasterAtEnd, from, to };
  }
  const [a, b] = fasterAtEnd === "softmax" ? points.slice(-2) : points.slice(0, 2);
  const L = b.lead < a.lead ? root(a, b) : NaN;
  if (!(L >= Math.max(1, from / REACH) && L <= to * REACH)) return { L: null, kind: "none", fasterAtEnd, from, to };
  return { L, kind: "extrapolated", fasterAtEnd, from, to };
}

/** The L at which the line through two points is 0. */
const root = (a: Lead, b: Lead): number => Math.exp(a.x + a.lead * (b.x - a.x) / (a.lead - b.lead));
