/**
 * Health per head (`attend --health`): how large queries and keys are, what variance that predicts, how many features count, how far
 * denominators are from softmax's normalisers, the error, and what follows from all of it.
 *
 * Everything but the shares of all rows is of the sampled query rows of the error check, and of a sample of keys. The keys pass once more
 * in the pass that the check makes anyway.
 */
import { type Attention, logitScale, type Sizes } from "./attention.ts";
import type { SessionCounts } from "./backend.ts";
import { FEATURE_MAPS, type FeatureMap, featureMap } from "./feature_map.ts";
import { type Fit, fitHead, reviewFit } from "./fitted.ts";
import { adviseHead, type HeadFigures } from "./health_advice.ts";
import { FeatureSums } from "./health_features.ts";
import type { KeyTiles } from "./inputs.ts";
import type { ErrorSummary } from "./metrics.ts";
import { type HeadMoments, meanSquaredSum, Moments } from "./moments.ts";
import type { HeadHealth, HealthReport, Quantiles } from "./report.ts";
import { type References, type SampledPass, sampleRows, type Watcher } from "./sampled_rows.ts";
import { mean, quantile } from "./statistics.ts";
import { pickRows } from "./tensor.ts";

/** Keys that sizes are taken from. */
const SAMPLED_KEYS = 2048;

export interface HealthOptions {
  readonly attention: Attention;
  readonly sizes: Sizes;
  /** What the map of the run was fitted to. */
  readonly fit: Fit | null;
  /** Inputs come from a checkpoint's layer. */
  readonly layered: boolean;
  /** The settings are those of `--features auto`. */
  readonly chosen: boolean;
}

/** Second moments of sampled keys. */
class KeySample implements Watcher {
  readonly asksInStep = false;
  readonly moments: Moments;
  readonly #rows: Float64Array;
  #next = 0;

  constructor({ shape: { kvHeads, headDim } }: SampledPass, { sizes, attention }: HealthOptions) {
    this.moments = new Moments(kvHeads, headDim, true);
    this.#rows = sampleRows(sizes.keyRows, SAMPLED_KEYS, false, attention.seed + 5);
  }

  async absorb({ k, weights }: KeyTiles): Promise<void> {
    const places: number[] = [];
    while (this.#rows[this.#next] < k.start + k.rows) places.push(this.#rows[this.#next++] - k.start);
    this.moments.add(pickRows(k, places), weights && Float64Array.from(places, (place) => weights[place]));
  }

  async finish(): Promise<void> {}
}

/** Watches the pass of the error check, and reports on each head when it has ended. */
export class HealthCheck implements AsyncDisposable {
  readonly #keys: KeySample;

  private constructor(
    readonly pass: SampledPass,
    readonly options: HealthOptions,
    readonly features: FeatureSums | null,
  ) {
    this.#keys = new KeySample(pass, options);
  }

  static async open(pass: SampledPass, options: HealthOptions): Promise<HealthCheck> {
    const { attention, sizes, fit } = options;
    // Other systems' features are made otherwise; near keys have none.
    const own = !attention.nearFar && attention.compat === "exact";
    return new HealthCheck(pass, options, own ? await FeatureSums.open(pass, attention, sizes, fit) : null);
  }

  get watchers(): readonly Watcher[] {
    return this.features ? [this.#keys, this.features] : [this.#keys];
  }

  /** After the pass. `error`: of the run's outputs; `counts`: of all its rows. */
  async report(references: References, error: ErrorSummary, counts: SessionCounts): Promise<HealthReport> {
    const { sizes: { heads, queryRows } } = this.options;
    const asked = new Moments(heads, this.pass.shape.headDim, true);
    asked.add(this.pass.queries);
    const exact = await references.logTotals();
    const all = queryRows * heads;
    return {
      rows: this.pass.rows.length,
      featureRows: this.features?.places.length ?? 0,
      emptyRows: counts.emptyRows / all,
      nonPositive: counts.nonPositive / all,
      recomputed: counts.recomputed / all,
      heads: Array.from({ length: heads }, (_, head) => this.#head(head, asked, exact, error)),
    };
  }

  #head(head: number, asked: Moments, exact: Float64Array, error: ErrorSummary): HeadHealth {
    const { attention, sizes, fit, layered, chosen } = this.options;
    const { heads, kvHeads, headDim } = sizes;
    const scale = logitScale(attention, headDim);
    const keyHead = Math.floor(head * kvHeads / heads);
    const x = asked.ofGroup(head, heads);
    const y = this.#keys.moments.ofGroup(keyHead, kvHeads);
    const map = softmaxMap(attention);
    const fitted = fit && fit.heads[keyHead % fit.heads.length];
    const sizesSeen = map && reviewFit(map, fitted, x, y, scale);
    const column = (cells: Float64Array) => cells.filter((_, cell) => cell % heads === head);
    const own = column(exact);
    const figures: HeadFigures = {
      head,
      phiBefore: sizesSeen?.phiBefore ?? scale * meanSquaredSum(x, y),
      phi: sizesSeen?.phi ?? null,
      logVariance: sizesSeen?.logVariance ?? null,
      ...this.#features(column, own),
      emptyRows: share(own, (value) => value === -Infinity),
      ...error.perHead[head],
    };
    const centred = fit?.centred ?? false;
    return {
      ...figures,
      ...adviseHead(figures, { attention, sizes, layered, chosen, centred, predict: map && predictor(x, y, scale) }),
    };
  }

  /** @param exact softmax's log normalisers of the head's rows. */
  #features(
    column: (cells: Float64Array) => Float64Array,
    exact: Float64Array,
  ): Pick<HeadFigures, "effectiveFeatures" | "logNormaliserBias" | "nonPositive"> {
    if (!this.features) return { effectiveFeatures: null, logNormaliserBias: null, nonPositive: null };
    const totals = column(this.features.logTotals);
    const estimatesSoftmax = this.features.parameters.map.kernel === "softmax";
    const biases = totals.map((total, i) => total - exact[this.features!.places[i]]).filter(Number.isFinite);
    return {
      effectiveFeatures: quantiles(column(this.features.effective).filter(Number.isFinite)),
      logNormaliserBias: estimatesSoftmax && biases.length > 0 ? mean(biases) : null,
      nonPositive: share(totals, Number.isNaN),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.features?.[Symbol.asyncDispose]();
  }
}

/** The map whose variance follows from the sizes of its inputs; null: none, or no formula is known. */
function softmaxMap(attention: Attention): FeatureMap | null {
  const map = FEATURE_MAPS.find(({ name }) => name === attention.features);
  return map && map.kernel === "softmax" && map.family !== "hybrid" && attention.projection !== "none" ? map : null;
}

/** Σ H(λ) that another map, fitted to this head, would have. */
const predictor = (x: HeadMoments, y: HeadMoments, scale: number) => (features: string, centred: boolean): number =>
  fitHead(featureMap(features), x, y, scale, centred).logVariance;

const share = (values: Float64Array, of: (value: number) => boolean): number => {
  return values.length === 0 ? 0 : values.filter(of).length / values.length;
};

function quantiles(values: Float64Array): Quantiles | null {
  if (values.length === 0) return null;
  const sorted = values.sort();
  return { p5: quantile(sorted, 0.05), median: quantile(sorted, 0.5), p95: quantile(sorted, 0.95) };
}
