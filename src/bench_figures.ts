/** From samples to figures: throughput, shares of the limits, slopes over L and the crossover with exact attention. Pure. */
import {
  type BenchPeak,
  type BenchResult,
  type Crossover,
  curvesOf,
  type Measurement,
  seriesOf,
  type Slope,
} from "./bench.ts";
import { EXACT } from "./feature_map.ts";
import { quantile, slopeOf } from "./statistics.ts";

/** A crossover further than this factor beyond the measured lengths is not told. */
const REACH = 16;

/** The points with their figures, curve by curve and each by growing L. */
export function resultsOf(
  measured: readonly Measurement[],
  peaks: readonly BenchPeak[],
  copyGbps: number | null,
): BenchResult[] {
  return curvesOf(measured).flat().map((point) => {
    const peak = peaks.find(({ backend, device }) => backend === point.backend && device === point.device);
    return withFigures(point, peak, copyGbps);
  });
}

function withFigures(point: Measurement, peak: BenchPeak | undefined, copyGbps: number | null): BenchResult {
  const sorted = point.seconds.toSorted((a, b) => a - b);
  const median = quantile(sorted, 0.5);
  const gflops = point.flops / median / 1e9;
  const gbps = point.bytes / median / 1e9;
  const copy = Math.max(peak?.gbps ?? 0, copyGbps ?? 0) || null;
  return {
    ...point,
    median,
    p5: quantile(sorted, 0.05),
    p95: quantile(sorted, 0.95),
    tokensPerSecond: point.L / median,
    gflops,
    gbps,
    percentOfPeak: peak?.gflops ? 100 * gflops / peak.gflops : null,
    ceilingTokensPerSecond: copy && point.L * copy * 1e9 / point.bytes,
    percentOfCeiling: copy && 100 * gbps / copy,
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

/** Crossover of every other curve with the exact one of the same backend, threads and direction, where both share two lengths. */
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
