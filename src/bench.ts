/** What `bench` sweeps and what it finds: plain data, and the plan of the sweep. Measures nothing and prints nothing. */
import type { NearFarSettings } from "./attention.ts";
import type { Stage } from "./backend.ts";
import { EXACT, featureMap, featuresOf, projectionsFor } from "./feature_map.ts";
import type { Refusal } from "./report.ts";
import { nearFarName } from "./setting_words.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const BENCH_SCHEMA = "performer-bench/2";

/** What is varied besides backends, threads and L. */
export interface Axes {
  /** Feature maps, and "softmax" for exact attention. */
  readonly features: readonly string[];
  /** r, lengths of the feature vector. */
  readonly numFeatures: readonly number[];
  readonly projections: readonly string[];
  readonly causal: readonly boolean[];
  /** Near keys with far fields, beside the feature maps. */
  readonly nearFar?: readonly NearFarSettings[];
}

/** One mechanism. Figures that it does not have are null. */
export interface Setting {
  /** A feature map, "softmax", or near keys and a far field as `nearFarName` calls them: "window 64, heavy 64, taylor1". No two share one. */
  readonly features: string;
  readonly numFeatures: number | null;
  readonly projection: string | null;
  readonly causal: boolean;
  /** null for feature maps and exact attention. */
  readonly nearFar: NearFarSettings | null;
}

/** A setting on a backend: one curve over L. */
export interface Series extends Setting {
  /** As it was asked for, with its variant: "gpujs:cpu". */
  readonly backend: string;
  readonly device: string;
  /** Threads that compute; null where the backend does not count any. */
  readonly threads: number | null;
}

/** Sizes of one measured attention. */
export interface BenchSizes {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
}

/** One point of a curve, as it was measured. */
export interface Measurement extends Series {
  /** Rows of queries, keys and values. */
  readonly L: number;
  readonly heads: number;
  readonly headDim: number;
  readonly valueDim: number;
  /** All samples of compute time, in the order they were taken. */
  readonly seconds: readonly number[];
  /** Operations of one run, as `flopCount` counts them; keys of `top` clusters as they were taken, where a backend counts them. */
  readonly flops: number;
  /** Bytes of q, k, v and the output in the backend's precision, each once. */
  readonly bytes: number;
  /** Largest resident set of the process so far. */
  readonly peakBytes: number;
  /** Seconds per run and stage, added up over threads; null without --profile or where a backend has no stages. */
  readonly stages: Readonly<Record<Stage, number>> | null;
}

/** A point with its figures; shares of a limit are null where the limit was not measured. */
export interface BenchResult extends Measurement {
  /** Seconds: the median, and the 5 % and 95 % quantiles of the samples. */
  readonly median: number;
  readonly p5: number;
  readonly p95: number;
  /** L over the median. */
  readonly tokensPerSecond: number;
  /** 10⁹ operations per second. */
  readonly gflops: number;
  /** 10⁹ bytes per second. */
  readonly gbps: number;
  /** `gflops` over the backend's own matrix product in this run, in percent. */
  readonly percentOfPeak: number | null;
  /** Identity attention, which reads q, k and v and writes v: tokens/s at the speed of the faster copy, the backend's or this process's. */
  readonly ceilingTokensPerSecond: number | null;
  readonly percentOfCeiling: number | null;
}

/** What a backend reached by itself in this run, after the sweep. */
export interface BenchPeak {
  readonly backend: string;
  readonly device: string;
  readonly threads: number | null;
  /** 10⁹ operations per second of its matrix product; null where it has none of its own. */
  readonly gflops: number | null;
  /** 10⁹ bytes per second, read plus written, of its copy; null where it has none of its own. */
  readonly gbps: number | null;
}

/** Growth of time with length: time ~ L^slope, by least squares over all its points. */
export interface Slope extends Series {
  readonly slope: number;
  /** Shortest and longest L. */
  readonly from: number;
  readonly to: number;
}

/** The L from which a mechanism is faster than exact attention on the same backend. */
export interface Crossover extends Series {
  /** null when there is none in or near the range. */
  readonly L: number | null;
  /** "interpolated" lies between measured points, "extrapolated" beyond them. */
  readonly kind: "interpolated" | "extrapolated" | "none";
  /** Which of the two is faster at the longest measured L; "features" is the mechanism, near keys and far fields too. */
  readonly fasterAtEnd: "features" | "softmax";
  readonly from: number;
  readonly to: number;
}

/** One point beside the same point of an earlier run. */
export interface ComparedPoint extends Omit<Series, "device"> {
  readonly L: number;
  /** Median seconds of the earlier run and of this one. */
  readonly before: number;
  readonly after: number;
  /** after / before: above 1 is slower. */
  readonly ratio: number;
  /** Mann–Whitney U, one-sided in the direction of the difference. */
  readonly p: number;
  readonly verdict: "slower" | "faster" | "same";
}

/** This run against a saved one. */
export interface Comparison {
  readonly path: string;
  readonly date: string;
  /** Whether processor, threads and runtime are the same. */
  readonly sameMachine: boolean;
  /** Differences of the median up to this fraction do not count. */
  readonly threshold: number;
  /** Largest p at which a difference counts. */
  readonly alpha: number;
  readonly points: readonly ComparedPoint[];
  /** Geometric mean of the ratios: near the ratio of every row when the machine, not the code, became slower. */
  readonly meanRatio: number;
  /** Points of this run that the saved one lacks, and the other way round. */
  readonly unmatched: number;
  readonly missing: number;
  readonly regressions: number;
}

export interface BenchSettings extends BenchSizes, Required<Axes> {
  /** "synthetic", or the file the rows are from. */
  readonly input: string;
  readonly lengths: readonly number[];
  /** λ per key head of causal attention (decay.ts); null: none. */
  readonly decay: readonly number[] | null;
  readonly seed: number;
  /** Standard deviation of synthetic entries; null for a file. */
  readonly spread: number | null;
  readonly samples: number;
  readonly seconds: number;
  /** Rows per tile that were asked for; null leaves it to the backend. */
  readonly tileRows: number | null;
  readonly profile: boolean;
}

export interface BenchReport {
  readonly schema: typeof BENCH_SCHEMA;
  readonly command: "bench";
  /** ISO 8601, when the run began. */
  readonly date: string;
  readonly machine: {
    readonly processor: string;
    readonly threads: number;
    readonly memory: number;
    readonly runtime: string;
    readonly system: string;
  };
  readonly settings: BenchSettings;
  /** False when the sweep was interrupted. */
  readonly complete: boolean;
  readonly refused: readonly Refusal[];
  readonly peaks: readonly BenchPeak[];
  /** 10⁹ bytes per second, read plus written, of one copying thread of this process; null when interrupted. */
  readonly copyGbps: number | null;
  /** Curve by curve, each by growing L. */
  readonly results: readonly BenchResult[];
  readonly slopes: readonly Slope[];
  readonly crossovers: readonly Crossover[];
  readonly comparison: Comparison | null;
}

/**
 * The settings of a sweep, without repetitions: exact attention has no features, and a map without projection has as many as
 * `headDim`. Feature maps come first, near keys and far fields after them. Throws UsageError for a number of features that a map cannot have.
 */
export function settingsOf(axes: Axes, headDim: number): Setting[] {
  const settings = new Map<string, Setting>();
  const add = (setting: Setting) => settings.set(JSON.stringify(setting), setting);
  for (const causal of axes.causal) {
    for (const features of axes.features) {
      if (features === EXACT) {
        add({ features, numFeatures: null, projection: null, causal, nearFar: null });
        continue;
      }
      const map = featureMap(features);
      for (const wanted of axes.numFeatures) {
        const numFeatures = featuresOf(map, projectionsFor(map, wanted, headDim));
        for (const kind of axes.projections) {
          const projection = map.projection === "none" ? null : kind;
          add({ features, numFeatures, projection, causal, nearFar: null });
        }
      }
    }
    for (const nearFar of axes.nearFar ?? []) {
      add({ features: nearFarName(nearFar), numFeatures: null, projection: null, causal, nearFar });
    }
  }
  return [...settings.values()];
}

/** What makes two points the same measurement, in two runs too: everything but the device's description. */
export function pointKey(
  point: Omit<Series, "device"> & Pick<BenchResult, "L" | "heads" | "headDim" | "valueDim">,
): string {
  const { backend, threads, features, numFeatures, projection, causal, L, heads, headDim, valueDim } = point;
  return JSON.stringify([backend, threads, features, numFeatures, projection, causal, L, heads, headDim, valueDim]);
}

/** What makes two points lie on one curve. */
export function seriesKey({ backend, device, threads, features, numFeatures, projection, causal }: Series): string {
  return JSON.stringify([backend, device, threads, features, numFeatures, projection, causal]);
}

/** The curve a point lies on. */
export function seriesOf(
  { backend, device, threads, features, numFeatures, projection, causal, nearFar }: Series,
): Series {
  return { backend, device, threads, features, numFeatures, projection, causal, nearFar };
}

/** Points by curve, in the order the curves began; each curve by growing L. */
export function curvesOf<P extends Measurement>(results: readonly P[]): P[][] {
  const curves = Map.groupBy(results, seriesKey);
  return [...curves.values()].map((points) => points.toSorted((a, b) => a.L - b.L));
}
