/**
 * Feature maps as data.
 *
 * Every map is one rule with two factors per feature `a`: a bounded value `g_a` and an exponent `e_a`,
 *
 *     φ_a(x) = g_a(u) · exp(e_a(x)),     u = w_a · x,   x = inputScale · (raw query or key)
 *
 * | family      | g                         | e, keys                        | e, queries            |
 * |-------------|---------------------------|--------------------------------|-----------------------|
 * | `exp`       | 1                         | ±u + bias_a − ‖x‖²/2 + ln ω    | ±u + bias_a           |
 * | `trig`      | sin u, then cos u, × gain | +‖x‖²/2 + ln ω                 | 0                     |
 * | `pointwise` | gain · f(u) + epsilon     | ln ω                           | 0                     |
 * | `hybrid`    | of `exp` and of `trig`, each times parts of a share that signs estimate: kernels/scalar/hybrid.ts  |||
 *
 * so that one log-domain state `(c, z, S)` with a running maximum of `e` per feature serves all of them
 * (state.ts). ω is the key's weight. Query factors that are equal for all features cancel in the ratio and are left out.
 *
 * Source: "Rethinking Attention with Performers" (arXiv 2009.14794) §2.3, eq. 5, Lemma 1, App. D.3.
 */
import { UsageError } from "./errors.ts";

/** Scalar non-linearities of generalised kernel attention (paper Fig. 16 and google-research `fast_attention.py`). */
export const ACTIVATIONS = [
  "relu",
  "elu1",
  "sigmoid",
  "exp",
  "abs",
  "gelu",
  "cos",
  "sin",
  "tanh",
  "identity",
  "requ",
  "shifted-elu",
  "leaky-relu",
  "softplus",
  "square",
] as const;
export type Activation = (typeof ACTIVATIONS)[number];

export type Family = "exp" | "trig" | "pointwise" | "hybrid";

/** One row of the feature-map table; only `family` and `activation` name code. */
export interface FeatureMap {
  readonly name: string;
  readonly family: Family;
  /** Features per projection: 2 for hyperbolic (±w) and trigonometric (sin, cos) maps. */
  readonly featuresPerProjection: 1 | 2;
  readonly activation?: Activation;
  /** Added to every feature after the activation (pointwise family). */
  readonly epsilon?: number;
  /** "none": φ acts on the coordinates themselves (r = d) and queries and keys are not scaled. */
  readonly projection?: "none";
  /** Features may be negative, so denominators may be ≤ 0 and outputs may leave the hull of V. */
  readonly signed: boolean;
  /** What it estimates: the softmax kernel, or its own kernel. */
  readonly kernel: "softmax" | "own";
  /** Row norms that the map implies, whatever else is asked for. */
  readonly norms?: "sqrtd";
  /** What is fitted to the data (fitted.ts): how queries and keys are balanced, and exponents of ‖w‖². */
  readonly fitted?: {
    readonly balance: "none" | "diagonal" | "dense";
    readonly exponents: "one" | "directions";
  };
  /** Sign projections τ_b of the hybrid family, n: rows of W after those of its positive and its trigonometric features. */
  readonly signs?: number;
  /** φ acts on 2 d coordinates, [x sin θ, x cos θ] with θ the row's place in the sequence (transformed.ts). */
  readonly angular?: true;
  readonly summary: string;
}

const pointwise = (activation: Activation, signed: boolean, summary: string, epsilon = 1e-3): FeatureMap => ({
  name: activation,
  family: "pointwise",
  featuresPerProjection: 1,
  activation,
  epsilon,
  signed,
  kernel: "own",
  summary,
});

type Fitted = NonNullable<FeatureMap["fitted"]>;

/** A data-fitted map of the softmax kernel with one sign, and with both. */
const fitted = (name: string, fitted: Fitted, summary: string): FeatureMap[] => {
  const map = { family: "exp", signed: false, kernel: "softmax", fitted } as const;
  return [
    { ...map, name, featuresPerProjection: 1, summary },
    {
      ...map,
      name: `hyp-${name}`,
      featuresPerProjection: 2,
      summary: `${name} of ±w: r features from r/2 projections`,
    },
  ];
};

/** The table. Adding a map of an existing family is one row here. */
export const FEATURE_MAPS: readonly FeatureMap[] = [
  {
    name: "hyperbolic",
    family: "exp",
    featuresPerProjection: 2,
    signed: false,
    kernel: "softmax",
    summary: "exp(±w·x − ‖x‖²/2): positive, antithetic; r features from r/2 projections (paper Lemma 1)",
  },
  {
    name: "positive",
    family: "exp",
    featuresPerProjection: 1,
    signed: false,
    kernel: "softmax",
    summary: "exp(w·x − ‖x‖²/2): FAVOR+ (paper Lemma 1)",
  },
  {
    name: "trigonometric",
    family: "trig",
    featuresPerProjection: 2,
    signed: true,
    kernel: "softmax",
    summary: "e^{‖x‖²/2} (sin w·x, cos w·x): unbiased but signed; unstable for large norms (paper §2.3)",
  },
  {
    name: "hybrid",
    family: "hybrid",
    featuresPerProjection: 1,
    signs: 3,
    signed: true,
    kernel: "softmax",
    summary:
      "positive features where queries and keys point apart, trigonometric ones where they agree, by the angle between them " +
      "(arXiv 2110.04367); signed, r = 12 m, scalar only",
  },
  {
    name: "smreg",
    family: "exp",
    featuresPerProjection: 1,
    signed: false,
    kernel: "softmax",
    norms: "sqrtd",
    summary: "positive with row norms √d: the regularised softmax kernel, never above softmax (paper Theorem 1)",
  },
  ...fitted(
    "oprf",
    { balance: "none", exponents: "one" },
    "exp(A‖w‖² + √(1−4A) w·x − ‖x‖²/2), A fitted to the data: bounded in w (FAVOR++, arXiv 2205.15317)",
  ),
  ...fitted(
    "sderf",
    { balance: "none", exponents: "directions" },
    "oprf with an A per principal direction of x + y (FAVOR#, arXiv 2302.00787)",
  ),
  ...fitted(
    "saderf",
    { balance: "diagonal", exponents: "one" },
    "oprf after scaling coordinates of queries up and of keys down, to equal size (arXiv 2302.00787)",
  ),
  ...fitted(
    "aderf",
    { balance: "dense", exponents: "one" },
    "oprf after the matrix T on queries, T⁻¹ on keys that makes them most alike (arXiv 2302.00787)",
  ),
  ...fitted(
    "aderf+sderf",
    { balance: "dense", exponents: "directions" },
    "aderf, then an A per principal direction: the least variance of these maps",
  ),
  pointwise("relu", false, "max(w·x, 0) + 1e-3: generalised attention, the paper's ReLU Performer"),
  {
    name: "elu",
    family: "pointwise",
    featuresPerProjection: 1,
    activation: "elu1",
    epsilon: 0,
    projection: "none",
    signed: false,
    kernel: "own",
    summary: "elu(x) + 1 per coordinate, no projection (linear transformer, arXiv 2006.16236)",
  },
  {
    name: "cosformer",
    family: "pointwise",
    featuresPerProjection: 1,
    activation: "relu",
    epsilon: 0,
    projection: "none",
    angular: true,
    signed: false,
    kernel: "own",
    summary: "relu(q)·relu(k) cos(π(i − j)/2M), M the longer length (arXiv 2202.08791); r = 2d, no projection",
  },
  pointwise("sigmoid", false, "1/(1+e^{−w·x}) + 1e-3"),
  pointwise("exp", false, "e^{w·x} + 1e-3, without the −‖x‖²/2 of softmax features"),
  pointwise("abs", false, "|w·x| + 1e-3"),
  pointwise("gelu", true, "gelu(w·x) + 1e-3 (exact erf)"),
  pointwise("cos", true, "cos(w·x) + 1e-3"),
  pointwise("sin", true, "sin(w·x) + 1e-3"),
  pointwise("tanh", true, "tanh(w·x) + 1e-3"),
  pointwise("identity", true, "w·x + 1e-3"),
  pointwise("requ", false, "max(w·x, 0)² + 1e-3"),
  pointwise("shifted-elu", false, "u ≤ 0: e^u, u > 0: u + 1, with u = w·x, + 1e-3"),
  pointwise("leaky-relu", true, "max(w·x, 0.01 w·x) + 1e-3"),
  pointwise("softplus", false, "ln(1 + e^{w·x}) + 1e-3"),
  pointwise("square", false, "(w·x)² + 1e-3"),
];

/** What may stand for the keys that are not near a query (near_far.ts). */
export const FAR_FIELDS = ["none", "taylor1", "taylor2", "hermite2", "clusters"] as const;
/** A far field by its name. */
export type FarField = typeof FAR_FIELDS[number];

/** Far fields that need no near keys: attention by themselves. */
export const TAYLOR_MAPS: readonly FarField[] = ["taylor1", "taylor2", "hermite2"];

/** The name that asks for exact attention instead of a feature map. */
export const EXACT = "softmax";
/** The name that asks for no attention at all: every row sees itself alone, so that the output is V (run_none.ts). */
export const NONE = "none";
/** The name that leaves the choice to trials on the inputs (choose.ts). */
export const AUTO = "auto";
/** The name that asks for the features a checkpoint brings along, under its own numerics. */
export const OWN = "own";

/** Finds a map by name; throws UsageError with the list otherwise. */
export function featureMap(name: string): FeatureMap {
  const found = FEATURE_MAPS.find((map) => map.name === name);
  if (!found) {
    const names = [...FEATURE_MAPS.map((map) => map.name), EXACT].join(", ");
    throw new UsageError(`Unknown feature map "${name}", expected one of ${names}`);
  }
  return found;
}

/**
 * Projection rows as products w_a = n_a · (N D₃ N D₂ N D₁)[i, :d], N = H/√size with Sylvester's H: what a fast Walsh–Hadamard
 * transform applies in O(size · log size) per block of `size` rows. Row a stands in block ⌊a / size⌋ at i = a mod size.
 */
export interface HadamardFactors {
  /** d' = 2^⌈log₂ d⌉; inputs are padded with zeros to it. */
  readonly size: number;
  /** `matrices × blocks × 3 × size` of ±1: D₁, D₂, D₃ of each block; blocks = ⌈m / size⌉. */
  readonly signs: Float64Array;
  /** Row norms n, `matrices × m`, float32-representable. */
  readonly norms: Float64Array;
}

/** A feature map with its numbers: all a kernel needs. */
export interface MapParameters {
  readonly map: FeatureMap;
  /** Width d of queries and keys. */
  readonly headDim: number;
  /** Projections m and features r = m · featuresPerProjection. */
  readonly projections: number;
  readonly features: number;
  /** Number of projection matrices; key head h uses matrix `h % matrices`. */
  readonly matrices: number;
  /** x = inputScale · raw row (√scale for softmax kernels, 1 for maps without projection). */
  readonly inputScale: number;
  /** W, `matrices × m × d`, row-major. Float32-representable unless given by the user in float64. */
  readonly weights: Float64Array;
  /** Set when W is a product of Hadamard factors; W itself is always there too. */
  readonly hadamard: HadamardFactors | null;
  /**
   * Added to the exponents of the `exp` family, of queries and keys and for both signs: `matrices × m`, projection a of matrix i at
   * `i · m + a`. β_a − ½ ln r: with β = 0, φ·φ estimates exp(x·y). Zeros for the other families, which do not read it.
   */
  readonly bias: Float64Array;
  /** Factor on g (trig, pointwise, hybrid): 1/√m. */
  readonly gain: number;
  readonly epsilon: number;
}

/**
 * Bias of every feature of every key head, `kvHeads × r`, in the order of a state's c (state.ts). A device may leave biases out of its
 * keys' exponents and of its queries': its c is then lower by the bias, and what it lacks in t = e + c of a query is twice the bias.
 */
export function stateBiases({ matrices, projections, features, bias }: MapParameters, kvHeads: number): Float64Array {
  return Float64Array.from({ length: kvHeads * features }, (_, f) => {
    const matrix = Math.floor(f / features) % matrices;
    return bias[matrix * projections + f % features % projections];
  });
}

/** The `d × d` identity. */
export function identity(d: number): Float64Array {
  const rows = new Float64Array(d * d);
  for (let i = 0; i < d; i++) rows[i * d + i] = 1;
  return rows;
}

/** Coordinates that kernels see of queries and keys `headDim` wide. */
export const coordinatesOf = (map: FeatureMap, headDim: number): number => map.angular ? 2 * headDim : headDim;

/** r, the length of φ of a map with that many rows of W: 3 (1 + n) m of a hybrid map with 2 m + n rows. */
export const featuresOf = (map: FeatureMap, projections: number): number =>
  map.signs === undefined
    ? projections * map.featuresPerProjection
    : 3 * (1 + map.signs) * (projections - map.signs) / 2;

/** How many projections a map needs for `numFeatures` features; throws RangeError when it cannot be met. */
export function projectionsFor(map: FeatureMap, numFeatures: number, headDim: number): number {
  if (map.projection === "none") return coordinatesOf(map, headDim);
  if (!Number.isInteger(numFeatures) || numFeatures < 1) {
    throw new UsageError(`Cannot use ${numFeatures} features: expected a whole number of at least 1`);
  }
  if (map.signs !== undefined) {
    const each = 3 * (1 + map.signs);
    if (numFeatures % each === 0) return 2 * numFeatures / each + map.signs;
    const near = Math.max(1, Math.round(numFeatures / each)) * each;
    throw new UsageError(
      `Cannot use ${numFeatures} features with "${map.name}": give a multiple of ${each} such as ${near}`,
    );
  }
  if (numFeatures % map.featuresPerProjection !== 0) {
    throw new UsageError(
      `Cannot use ${numFeatures} features with "${map.name}": it makes 2 features per projection, ` +
        `so give an even number such as ${numFeatures + 1}`,
    );
  }
  return numFeatures / map.featuresPerProjection;
}

/**
 * Binds a map to projections.
 * @param options.headDim coordinates that kernels see (`coordinatesOf`).
 * @param weights `matrices × m × d`; ignored (identity) for maps without projection.
 * @param scale the logit scale S in exp(S · q·k); softmax has S = 1/√d.
 * @param beta `matrices × m` exponents β of the `exp` family (dense-exponential maps, exp(β_a ± w_a·x − ‖x‖²/2)); zeros if left out.
 *   RangeError when there are fewer or more, when one is not finite, or for another family, whose features have no such factor.
 */
export function bindMap(
  map: FeatureMap,
  options: {
    headDim: number;
    scale: number;
    matrices: number;
    weights: Float64Array;
    hadamard?: HadamardFactors | null;
    beta?: Float64Array;
  },
): MapParameters {
  const { headDim, beta } = options;
  if (beta && map.family !== "exp") {
    throw new RangeError(
      `Cannot add to the exponents of "${map.name}": only maps of the exp family have them, leave beta out`,
    );
  }
  if (map.projection === "none") {
    return {
      map,
      headDim,
      projections: headDim,
      features: headDim,
      matrices: 1,
      inputScale: 1,
      weights: identity(headDim),
      hadamard: null,
      bias: new Float64Array(headDim),
      gain: 1,
      epsilon: map.epsilon ?? 0,
    };
  }
  const projections = options.weights.length / (options.matrices * headDim);
  if (!Number.isInteger(projections) || projections < 1) {
    throw new RangeError(
      `Projection has ${options.weights.length} numbers, expected ${options.matrices} × m × ${headDim}`,
    );
  }
  const features = featuresOf(map, projections);
  if (!Number.isInteger(features) || features < 1) {
    throw new RangeError(`"${map.name}" has ${projections} projections, expected 2 m and ${map.signs} for signs`);
  }
  const bias = new Float64Array(options.matrices * projections);
  if (beta && beta.length !== bias.length) {
    throw new RangeError(
      `Exponents beta have ${beta.length} numbers, expected ${options.matrices} × ${projections}, one per projection`,
    );
  }
  if (beta && !beta.every(Number.isFinite)) throw new RangeError("Exponents beta have a number that is not finite");
  if (map.family === "exp") {
    for (let a = 0; a < bias.length; a++) bias[a] = (beta?.[a] ?? 0) - 0.5 * Math.log(features);
  }
  const rows = map.signs === undefined ? projections : (projections - map.signs) / 2;
  return {
    map,
    headDim,
    projections,
    features,
    matrices: options.matrices,
    inputScale: Math.sqrt(options.scale),
    weights: options.weights,
    hadamard: options.hadamard ?? null,
    bias,
    gain: map.family === "exp" ? 1 : 1 / Math.sqrt(rows),
    epsilon: map.epsilon ?? 0,
  };
}
