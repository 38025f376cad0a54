/**
 * The paper's Fig. 3: time against length, FAVOR+ beside exact attention and beside attention that returns V, the lower bound (there "X").
 * Points come from `bench`: measured now, or from a file that it saved.
 */
import { type BenchResult, curvesOf, type Measurement, type Setting } from "../bench.ts";
import { crossoversOf, resultsOf } from "../bench_figures.ts";
import { LEAST_SAMPLES, measureCopy, type OpenBackend, sweep, type SweepOptions } from "../bench_measure.ts";
import { type Chart, lengthAxis, type Series } from "../charts/chart.ts";
import { UsageError } from "../errors.ts";
import { EXACT } from "../feature_map.ts";
import { slopeOf } from "../statistics.ts";
import { count, duration, figure } from "../words.ts";
import type { Figure } from "./figure.ts";

export interface TimeOptions
  extends Pick<SweepOptions, "tensors" | "seed" | "samples" | "seconds" | "peakBytes" | "signal"> {
  readonly open: OpenBackend;
  readonly lengths: readonly number[];
  readonly setting: Setting;
  /** Seconds that measuring exact attention may take in all: longer L are left out. */
  readonly budget: number;
  readonly progress?: (done: number, total: number) => void;
}

/** Seconds for measuring a copy. */
const COPY_SECONDS = 0.3;

/** Measures features at every length, and exact attention while its next point fits into the budget. */
export async function measureTimes(options: TimeOptions): Promise<BenchResult[]> {
  const { open, lengths, setting } = options;
  const exact: Setting = {
    features: EXACT,
    numFeatures: null,
    projection: null,
    nearFar: null,
    causal: setting.causal,
  };
  const measured: Measurement[] = [];
  let left = options.budget, last: { L: number; seconds: number } | null = null;
  for (const [i, L] of lengths.entries()) {
    // Its time grows with L², and a point is a warm-up and some samples.
    const next: number = last ? last.seconds * (L / last.L) ** 2 * (1 + LEAST_SAMPLES) : 0;
    const settings: Setting[] = next <= left ? [setting, exact] : [setting];
    for await (const point of sweep({ ...options, progress: undefined, backends: [open], settings, lengths: [L] })) {
      measured.push(point);
      if (point.features !== EXACT) continue;
      const seconds = Math.min(...point.seconds);
      last = { L, seconds };
      left -= point.seconds.reduce((sum, one) => sum + one, seconds);
    }
    options.progress?.(i + 1, lengths.length);
  }
  return resultsOf(measured, [], measureCopy(COPY_SECONDS) / 1e9);
}

/** A slope of ln time over ln L, and where it was fitted. */
export interface FittedSlope {
  readonly slope: number;
  readonly from: number;
  readonly to: number;
  readonly points: number;
  /** Whether fixed costs are at most 1 % of every time fitted; false: there were too few such lengths, and the longest were taken. */
  readonly beyondFixed: boolean;
}

/** Times of at least this many times that of the shortest L are at most 1 % fixed costs, which that time holds. */
const BEYOND_FIXED = 100;

/**
 * The slope where fixed costs no longer count: over all L whose time is at least BEYOND_FIXED × that of the shortest, or, where fewer than
 * three are so long, over the longer half. null: fewer than three L.
 */
export function fitSlope(points: readonly Pick<BenchResult, "L" | "median">[]): FittedSlope | null {
  if (points.length < 3) return null;
  const beyond = points.filter(({ median }) => median >= BEYOND_FIXED * points[0].median);
  const chosen = beyond.length >= 3 ? beyond : points.slice(-Math.max(3, Math.ceil(points.length / 2)));
  return {
    slope: slopeOf(chosen.map(({ L }) => Math.log(L)), chosen.map(({ median }) => Math.log(median))),
    from: chosen[0].L,
    to: chosen.at(-1)!.L,
    points: chosen.length,
    beyondFixed: chosen === beyond,
  };
}

/** What the lower bound is. */
export const IDENTITY =
  "Identity: q, k and v read and V written at the speed of this machine's copy, the least any attention takes";

const nameOf = ({ features, numFeatures, causal }: BenchResult) =>
  `${features === EXACT ? "exact softmax" : `FAVOR+ ${features}, r = ${numFeatures}`}${causal ? ", causal" : ""}`;

/** The figure of some results of `bench`; `source` says where they are from. Throws UsageError when they hold no point. */
export function timeFigure(results: readonly BenchResult[], source: Figure["settings"]): Figure {
  const curves = curvesOf(results);
  if (curves.length === 0) throw new UsageError("Cannot draw time against length: there is no result of bench to draw");
  const several = new Set(results.map(({ backend }) => backend)).size > 1;
  const named = curves.map((points) => ({
    name: several ? `${nameOf(points[0])}, ${points[0].backend}` : nameOf(points[0]),
    points,
    fit: fitSlope(points),
    exact: points[0].features === EXACT,
  }));
  const longest = curves.reduce((most, points) => points.at(-1)!.L > most.at(-1)!.L ? points : most);
  const identity = longest.flatMap(({ L, ceilingTokensPerSecond: speed }) => speed ? [{ x: L, y: L / speed }] : []);
  const series = named.map(({ name, points }): Series => ({
    name,
    draw: "line and marks",
    spread: "whiskers",
    points: points.map(({ L, median, p5, p95 }) => ({ x: L, y: median, low: p5, high: p95 })),
  }));
  const { heads, headDim, valueDim, device } = results[0];
  const slopes = named.map(({ name, fit, exact }) => {
    if (!fit) return `${name}: no slope, which takes at least three lengths`;
    const words = fit.beyondFixed ? "" : ", the longer half, since too few take 100 × the shortest";
    return `${name}: time ~ L^${fit.slope.toFixed(2)} (expected ${exact ? 2 : 1}), fitted from L = ${
      count(fit.from)
    } to ${count(fit.to)}${words}`;
  });
  const crossovers = crossoversOf(results);
  const crossing = crossovers.map((one) => {
    const name = named.find(({ points }) =>
      points[0].features === one.features && points[0].numFeatures === one.numFeatures &&
      points[0].backend === one.backend && points[0].causal === one.causal
    )!.name;
    if (one.L === null) {
      return `${name}: ${
        one.fasterAtEnd === "features" ? "faster" : "slower"
      } than exact attention at every L measured`;
    }
    return `${name}: faster than exact attention from L ≈ ${count(one.L)}${
      one.kind === "extrapolated" ? " (extrapolated)" : ""
    }`;
  });
  const chart: Chart = {
    title: "Time of attention against length",
    caption: [
      `arXiv 2009.14794 Fig. 3, attention alone (no layers around it, no gradients): ${heads} head${
        heads === 1 ? "" : "s"
      }, d = ${headDim}` +
      `${
        valueDim === headDim ? "" : `, values ${valueDim} wide`
      }, on ${device}; marks: medians, whiskers: 5 % to 95 % of the samples`,
      "Slopes are fitted where the time is at least 100 × that of the shortest L, so that fixed costs are at most 1 % of it",
      ...(curves.length <= 3 ? [...slopes, ...crossing] : ["Slopes and crossovers are told beside the picture"]),
      ...(identity.length > 0 ? [IDENTITY] : []),
    ],
    panels: [{
      kind: "lines",
      title: "",
      x: lengthAxis(results.map(({ L }) => L)),
      y: { title: "time (s)", scale: "log" },
      series: [
        ...series,
        ...(identity.length > 0
          ? [{ name: "identity (returns V)", draw: "line" as const, style: 6, points: identity }]
          : []),
      ],
    }],
  };
  return {
    name: "3",
    title: chart.title,
    settings: { ...source, heads, headDim, valueDim, device },
    findings: [...slopes, ...crossing, slowest(results)],
    data: {
      time: named.flatMap(({ name, points }) =>
        points.map(({ L, median, p5, p95, seconds, backend, tokensPerSecond, ceilingTokensPerSecond }) => ({
          name,
          backend,
          L,
          median,
          p5,
          p95,
          samples: seconds.length,
          tokensPerSecond,
          identitySeconds: ceilingTokensPerSecond && L / ceilingTokensPerSecond,
        }))
      ),
      slopes: named.map(({ name, fit, exact }) => ({
        name,
        expected: exact ? 2 : 1,
        slope: fit?.slope ?? null,
        from: fit?.from ?? null,
        to: fit?.to ?? null,
        points: fit?.points ?? 0,
        beyondFixed: fit?.beyondFixed ?? null,
      })),
      crossovers: crossovers.map(({ features, numFeatures, backend, L, kind }) => ({
        features,
        numFeatures,
        backend,
        L,
        kind,
      })),
    },
    chart,
  };
}

function slowest(results: readonly BenchResult[]): string {
  const last = results.reduce((most, point) => point.L > most.L ? point : most);
  return `L = ${count(last.L)} takes ${duration(last.median)} with ${nameOf(last)}, ${
    figure(Math.round(last.tokensPerSecond))
  } rows/s`;
}
