/** Settings of the library's attention: what the flags of `performer attend` say, with the same defaults. */
import type { Attention, GivenProjection, NearFarSettings } from "../attention.ts";
import { UsageError } from "../errors.ts";
import { AUTO, EXACT, type FarField, TAYLOR_MAPS } from "../feature_map.ts";
import type { FitWish } from "../fitted.ts";
import { parseSource } from "../fit.ts";
import type { RowNorms } from "../projection.ts";
import type { Tensor } from "./tensor.ts";

/** Which features, and how they are drawn. */
export interface FeatureSettings {
  /**
   * A feature map (`FEATURE_MAPS` lists them), "softmax" for exact attention, "taylor1", "taylor2" or "hermite2" for moments, "auto" for
   * the best by trials on these rows. Default "hyperbolic".
   */
  readonly features?: string;
  /** r, the length of φ; 256 by default. */
  readonly numFeatures?: number;
  /** A projection by name (`PROJECTIONS`; default "orthogonal"), or W itself: `[m, d]`, or `[heads, m, d]` for one per key head. */
  readonly projection?: string | Tensor;
  /** Lengths of the rows of W: "chi" (default) as those of a Gaussian vector, "sqrtd" all √d. */
  readonly norms?: RowNorms;
  /** The same seed draws the same W on every runtime and backend; 0 by default. */
  readonly seed?: number;
  /** S in exp(S q·k); 1/√d by default. */
  readonly scale?: number;
}

/** What attention computes. */
export interface AttentionSettings extends FeatureSettings {
  /** Row i sees rows up to i. */
  readonly causal?: boolean;
  /** Causal: λ of the bias −λ (i − j), one or one per key head; "alibi": the slopes of ALiBi. */
  readonly decay?: number | readonly number[] | "alibi";
  /** Blends outputs with the mean of the values: λ, one per head, or "auto" to fit it. */
  readonly shrink?: number | readonly number[] | "auto";
  /** Keys fewer than this many rows away are exact; the others come from `far`. */
  readonly window?: number;
  /** So many keys, those farthest from the mean key, are exact for every query. */
  readonly heavy?: number;
  /** What stands for the other keys; "taylor1" by default. */
  readonly far?: FarField;
  /** Clusters of `far: "clusters"`, 128 by default. */
  readonly clusters?: number;
  /** So many of them, the heaviest for each query, are taken exactly; 0 by default. */
  readonly top?: number;
  /** Where fitted numbers come from: "fixed", "file", "prefix:N" or "sample:N". */
  readonly params?: string;
  /** Moves all keys by one vector, which exact softmax does not see: "auto" where attention is bidirectional. */
  readonly centre?: "auto" | "on" | "off";
}

/** The settings in the words of the run loop. Throws UsageError for what contradicts itself. */
export async function attentionOf(settings: AttentionSettings): Promise<Attention> {
  const { projection = "orthogonal", numFeatures = 256, norms = "chi", seed = 0, scale = null, decay } = settings;
  const nearFar = nearFarOf(settings);
  return {
    features: nearFar ? nearFar.far : settings.features ?? "hyperbolic",
    numFeatures,
    projection: typeof projection === "string" ? projection : "orthogonal",
    norms,
    seed,
    causal: settings.causal ?? false,
    scale,
    given: typeof projection === "string" ? null : await givenProjection(projection),
    compat: "exact",
    fitting: fittingOf(settings),
    nearFar,
    decay: typeof decay === "number" ? [decay] : decay ?? null,
    shrink: settings.shrink ?? null,
  };
}

function fittingOf({ params, centre = "auto" }: AttentionSettings): FitWish {
  return { params: params === undefined ? null : parseSource(params), centre };
}

/** W from a tensor: `[m, d]` or `[heads, m, d]`. */
export async function givenProjection(projection: Tensor): Promise<GivenProjection> {
  const { shape } = projection;
  if (shape.length < 2 || shape.length > 3) {
    throw new UsageError(`Cannot use a projection of shape [${shape.join(", ")}]: expected [m, d] or [heads, m, d]`);
  }
  const { data } = await projection.read("f64");
  const [path, headDim] = [projection.info.path, shape[shape.length - 1]];
  return { path, matrices: shape.length === 3 ? shape[0] : 1, headDim, data: Float64Array.from(data) };
}

function nearFarOf(settings: AttentionSettings): NearFarSettings | null {
  const { window = 0, heavy = 0, clusters = 128, features } = settings;
  const own = TAYLOR_MAPS.find((map) => map === features);
  if (!own && window + heavy === 0 && settings.far === undefined && settings.top === undefined) return null;
  if (features !== undefined && !own) {
    const why = features === AUTO
      ? "it chooses them itself"
      : features === EXACT
      ? "there every key counts exactly"
      : "random features are no far field; leave features out";
    throw new UsageError(`Cannot use near keys and a far field with features "${features}": ${why}`);
  }
  if (own && settings.far !== undefined && settings.far !== own) {
    throw new UsageError(`Cannot use far "${settings.far}" with features "${own}": give the one or the other`);
  }
  if (settings.decay !== undefined) {
    throw new UsageError("Cannot use decay with near keys and a far field: they have none");
  }
  const far = settings.far ?? own ?? "taylor1";
  const top = settings.top ?? 0;
  if (top > 0 && far !== "clusters") throw new UsageError('Cannot use top without clusters: give far: "clusters"');
  if (far === "none" && window + heavy === 0) {
    throw new UsageError('Cannot use far "none" alone: no key would be seen; give window or heavy');
  }
  const count = far === "clusters" ? clusters : 0;
  return { window, heavy, far, clusters: count, top: Math.min(top, count) };
}
