/**
 * What `drift` finds: how far a model moves from exact attention when feature maps take its place, layer by layer (the compatibility
 * experiment of arXiv 2009.14794 §4.3 and figure 14). Plain data; exporters turn it into text.
 */
import { EXACT, featureMap, OWN } from "./feature_map.ts";
import type { ErrorFigures } from "./metrics.ts";
import type { Refusal, Warning } from "./report.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const DRIFT_SCHEMA = "performer-drift/1";

/** What takes the place of exact attention: a feature map's name, "softmax" or "own", and the length of φ. */
export interface Variant {
  readonly features: string;
  /** null: no features. */
  readonly numFeatures: number | null;
  readonly projection: string | null;
}

/** One variant's error. The baseline answers with the mean of the visible values, in one layer or in all of them. */
export interface VariantError extends Variant, ErrorFigures {}

/** One layer. */
export interface LayerDrift {
  readonly layer: number;
  /** Its attention was replaced (`--layer`). */
  readonly replaced: boolean;
  /** Attention outputs of the variants on the exact stream's q, k and v; null where nothing was replaced. */
  readonly attention: {
    readonly heads: number;
    readonly kvHeads: number;
    readonly headDim: number;
    /** Mean ‖x + y‖² of scaled queries and keys: random features need about 4 or less. */
    readonly phi: number;
    readonly results: readonly VariantError[];
    readonly best: Variant;
  } | null;
  /** Hidden rows behind the layer, of streams that had the variant (or the baseline) in all replaced layers so far. */
  readonly hidden: { readonly results: readonly VariantError[]; readonly best: Variant };
}

/** What arrives at the end. */
export interface OutputDrift {
  /** "rows" where the model has no output layer. */
  readonly kind: "logits" | "rows";
  readonly cols: number;
  /** Share of rows whose largest logit stays the same: null for rows. */
  readonly uniformTop1: number | null;
  readonly results: readonly (VariantError & { readonly top1: number | null })[];
  readonly best: Variant;
}

/** The measurements. */
export interface DriftFindings {
  readonly variants: readonly Variant[];
  readonly layers: readonly LayerDrift[];
  readonly outputs: OutputDrift;
  /** (row, head) pairs with a denominator ≤ 0, per variant, on the exact stream. */
  readonly nonPositive: readonly number[];
}

export interface DriftReport extends Omit<DriftFindings, "nonPositive"> {
  readonly schema: typeof DRIFT_SCHEMA;
  readonly command: "drift";
  readonly model: {
    readonly path: string;
    readonly family: string;
    readonly title: string;
    readonly assumed: readonly {
      readonly argument: string;
      readonly value: unknown;
      readonly from: "config" | "default";
    }[];
    readonly [more: string]: unknown;
  };
  readonly backend: { readonly name: string; readonly device: string; readonly refused: readonly Refusal[] };
  readonly input: {
    readonly path: string;
    readonly sequences: number;
    readonly rows: number;
    readonly masked: boolean;
    readonly causal: boolean;
  };
  readonly seed: number;
  readonly seconds: { readonly total: number };
  readonly peakBytes: number;
  readonly warnings: readonly Warning[];
}

/** The variant with the smallest error; of equals the one with fewer features. */
export function bestOf<T extends VariantError>(results: readonly T[]): Variant {
  const [best] = [...results].sort((a, b) =>
    (Number.isNaN(a.relativeL2) ? Infinity : a.relativeL2) - (Number.isNaN(b.relativeL2) ? Infinity : b.relativeL2) ||
    (a.numFeatures ?? Infinity) - (b.numFeatures ?? Infinity)
  );
  const { features, numFeatures, projection } = best;
  return { features, numFeatures, projection };
}

/** "hyperbolic 256", "softmax". */
export function variantName({ features, numFeatures }: Variant): string {
  return numFeatures === null ? features : `${features} ${numFeatures}`;
}

/** What a reader must be told. `ownKernel`: the checkpoint's own features do not estimate softmax. */
export function driftWarnings(
  { variants, layers, outputs, nonPositive }: DriftFindings,
  ownKernel: boolean,
): Warning[] {
  const warnings: Warning[] = [];
  const most = Math.max(0, ...variants.map(({ numFeatures }) => numFeatures ?? 0));
  const more = `Try more features (-m ${4 * most}), fewer layers (--layer A:B), or train the model with its features`;
  const lost = layers.filter(({ attention }) => attention && attention.results.every(({ skill }) => skill <= 0));
  if (lost.length > 0) {
    const large = lost.filter(({ attention }) => attention!.phi > 4).length;
    const why = large > 0
      ? `queries and keys are large in ${large} of these layers (φ̄ above 4, which random features need). `
      : "";
    warnings.push({
      code: "no-skill",
      message: `In ${layersText(lost.map(({ layer }) => layer))} no approximation is better than ignoring attention: ` +
        `the mean of V is as close to exact softmax`,
      remedy: why + more,
    });
  }
  const useless = outputs.results.filter(({ skill }) => skill <= 0);
  if (useless.length > 0) {
    warnings.push({
      code: "no-skill",
      message:
        `With ${useless.map(variantName).join(", ")} the ${outputs.kind} are no better than those of the model ` +
        `that ignores attention`,
      remedy: more,
    });
  } else if (outputs.results.every(({ skill }) => skill < 0.5)) {
    warnings.push({
      code: "low-skill",
      message: `Less than half of what attention does to the ${outputs.kind} is captured`,
      remedy: more,
    });
  }
  const other = variants.filter(({ features }) =>
    features === OWN ? ownKernel : features !== EXACT && featureMap(features).kernel === "own"
  );
  if (other.length > 0) {
    warnings.push({
      code: "own-kernel",
      message:
        `${other.map(variantName).join(", ")}: its own attention, whose distance from softmax is a difference, ` +
        `not an error`,
      remedy: "use --features hyperbolic to approximate softmax",
    });
  }
  nonPositive.forEach((count, i) => {
    if (count === 0) return;
    warnings.push({
      code: "non-positive",
      message: `${variantName(variants[i])}: ${count} row-heads have a denominator ≤ 0 or beyond float range`,
      remedy: "use a positive map such as --features hyperbolic",
    });
  });
  return warnings;
}

/** [0, 1, 2, 5] → "layers 0 to 2, 5". */
function layersText(layers: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const layer of layers) {
    const last = runs.at(-1);
    if (last && last[1] === layer - 1) last[1] = layer;
    else runs.push([layer, layer]);
  }
  const text = runs.map(([from, to]) => from === to ? `${from}` : `${from} to ${to}`).join(", ");
  return `layer${layers.length === 1 ? "" : "s"} ${text}`;
}
