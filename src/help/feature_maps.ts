/** A page for every feature map: its formula and what it is good for. Formulas: kernels/README.md §1, docs/numerics.md. */
import { type Activation, FEATURE_MAPS, type FeatureMap } from "../feature_map.ts";
import type { Block, Topic } from "./topic.ts";

/** f of the pointwise family. */
const ACTIVATION_FORMULAS: Readonly<Record<Activation, string>> = {
  relu: "max(u, 0)",
  elu1: "u + 1 where u > 0, else e^u",
  sigmoid: "1 / (1 + e^−u)",
  exp: "e^u",
  abs: "|u|",
  gelu: "u/2 · (1 + erf(u/√2))",
  cos: "cos u",
  sin: "sin u",
  tanh: "tanh u",
  identity: "u",
  requ: "max(u, 0)²",
  "shifted-elu": "u + 1 where u > 0, else e^u",
  "leaky-relu": "max(u, 0.01 u)",
  softplus: "ln(1 + e^u)",
  square: "u²",
};

const WHERE =
  "where x = √S·q or √S·k (S is 1/√d unless --scale says otherwise) and w_1 … w_m are the rows of the projection.";

const UNBIASED =
  "φ(x)·φ(y) is exp(x·y) on average over the projections, so that the approximation is of softmax attention.";

/** Pages of maps that are not a formula with one function in it. */
const PAGES: Readonly<Record<string, { readonly body: readonly Block[]; readonly see: readonly string[] }>> = {
  hyperbolic: {
    body: [
      {
        formula: [
          "φ(x) = e^(−‖x‖²/2) / √r · ( e^(w_1·x) … e^(w_m·x), e^(−w_1·x) … e^(−w_m·x) )",
          "r = 2m",
        ],
      },
      WHERE,
      UNBIASED,
      "All features are positive, so denominators are, and outputs stay between the smallest and the largest value. A projection " +
      "serves both signs, and their errors cancel in part: with s = ‖x + y‖² and independent rows of w the variance of a weight, relative to its " +
      "square, is e^−s (e^s − 1)² / 2m. The default.",
    ],
    see: ["positive", "hyp-aderf+sderf", "error"],
  },
  positive: {
    body: [
      { formula: ["φ(x) = e^(−‖x‖²/2) / √r · ( e^(w_1·x) … e^(w_r·x) )"] },
      WHERE,
      UNBIASED,
      "The FAVOR+ of the paper. With independent rows of w the variance of a weight, relative to its square, is (e^‖x+y‖² − 1) / r: " +
      "exact for opposite x and y, and exponential in their size.",
    ],
    see: ["hyperbolic", "trigonometric", "smreg"],
  },
  trigonometric: {
    body: [
      {
        formula: ["φ(x) = e^(+‖x‖²/2) / √m · ( sin w_1·x … sin w_m·x, cos w_1·x … cos w_m·x )", "r = 2m"],
      },
      WHERE,
      UNBIASED,
      "Features have both signs: denominators may be 0 or negative (they are counted), and small weights drown in the errors of large ones. " +
      "More accurate than positive features while queries and keys are small, useless when they are not.",
    ],
    see: ["positive", "hybrid"],
  },
  hybrid: {
    body: [
      {
        formula: [
          "φ(x)·φ(y) = λ · (positive) + (1 − λ) · (trigonometric)",
          "λ = 1/2 − 1/(2n) · Σ_b sgn(τ_b·x) sgn(τ_b·y),   n = 3,   r = 3 (1 + n) m",
        ],
      },
      "λ is on average θ/π for the angle θ between x and y: positive features count where they point apart, trigonometric ones where they agree, and " +
      "each is exact there. τ_b are n more rows of the projection.",
      UNBIASED,
      "Signed. Only the backend scalar has it.",
    ],
    see: ["positive", "trigonometric"],
  },
  smreg: {
    body: [
      { formula: ["φ(x) = e^(−‖x‖²/2) / √r · ( e^(w_1·x) … e^(w_r·x) ),   ‖w_a‖ = √d"] },
      WHERE,
      "Features are bounded, and the kernel they estimate, the regularised softmax kernel of the paper, is never above exp(x·y): weights of " +
      "large queries and keys come out too small. It is nearer to softmax the larger d is.",
    ],
    see: ["positive", "projection"],
  },
  oprf: fitted("φ(x)_a = (1 − 4A)^(d/4) / √r · exp(A‖w_a‖² + √(1 − 4A) w_a·x − ‖x‖²/2)", [
    "A ≤ 0 is chosen from the mean of ‖x + y‖²: below 0 it bounds features in w, so that no single projection dominates. A = 0 is positive.",
  ]),
  sderf: fitted("φ(x)_a = 1/√r · exp(β_a + w'_a·x − ‖x‖²/2),   w'_a = Q (1 − 4A)^½ w_a", [
    "Q holds the principal directions of x + y, A = diag(A_1 … A_d) an exponent for each, and β_a = Σ_l A_l w_al² + ¼ Σ_l ln(1 − 4A_l): " +
    "oprf along every principal direction, never worse on average over the data it is fitted to.",
  ]),
  saderf: fitted("x → t ⊙ x,  y → y / t,   then oprf", [
    "t holds a number per coordinate that makes queries and keys equally large, which changes no product x·y. Where both are the same rows it is 1.",
  ]),
  aderf: fitted("x → T x,  y → T⁻¹ y,   then oprf", [
    "T is the symmetric matrix that makes the second moments of queries and keys equal, which changes no product x·y.",
  ]),
  "aderf+sderf": fitted("x → T x,  y → T⁻¹ y,   then sderf", [
    "The matrix of aderf, then an exponent per principal direction: the least variance of the maps with one sign.",
  ]),
  elu: {
    body: [
      { formula: ["φ(x)_l = x_l + 1 where x_l > 0, else e^(x_l),   r = d"] },
      "x is the query or the key as it is, without scale or projection: the map of linear transformers (arXiv 2006.16236). Weights are φ(q)·φ(k), " +
      "an attention of their own that models are trained with; the error against softmax only says how different that is.",
    ],
    see: ["cosformer", "relu", "features"],
  },
  cosformer: {
    body: [
      { formula: ["weight of key j for query i = relu(q_i)·relu(k_j) · cos(π (i − j) / 2M)", "r = 2d"] },
      "M is the longer of the two lengths: near rows weigh more (arXiv 2202.08791). No projection, an attention of its own; rows without a positive " +
      "coordinate are 0.",
    ],
    see: ["elu", "causal"],
  },
};

function fitted(formula: string, words: readonly string[]): { body: Block[]; see: string[] } {
  return {
    body: [
      { formula: [formula] },
      ...words,
      UNBIASED,
      "Numbers come from some rows of the data, which --params names: sample:N (spread over the file), prefix:N, file, or fixed for none. " +
      "Keys are re-centred first, unless --centre off.",
    ],
    see: ["features", "choosing"],
  };
}

/** The same features of w and −w. */
function bothSigns(name: string): { body: Block[]; see: string[] } {
  const one = name.replace("hyp-", "");
  return {
    body: [
      { formula: [`φ(x) = 1/√2 · ( ${one} of w_a, then ${one} of −w_a ),   r = 2m`] },
      `The map ${one} with each projection used for both signs: at the same number of features half the projections, and less variance, above all ` +
      "where queries and keys are small." + (one === "aderf+sderf" ? " The least variance of all maps here." : ""),
      UNBIASED,
    ],
    see: [one, "hyperbolic", "features"],
  };
}

function pointwise({ activation, signed, epsilon }: FeatureMap): { body: Block[]; see: string[] } {
  return {
    body: [
      {
        formula: [
          "φ(x)_a = f(w_a·x)/√r + ε",
          `f(u) = ${ACTIVATION_FORMULAS[activation!]},   ε = ${epsilon}`,
        ],
      },
      WHERE,
      "Generalised attention: weights are φ(q)·φ(k), which is not softmax's kernel but E f(w·x) f(w·y). It is for models that were trained with it; the " +
      "error against softmax only says how different that is.",
      ...(signed ? ["f has both signs: denominators may be 0 or negative, and are counted where they are."] : []),
    ],
    see: ["features", activation === "relu" ? "elu" : "relu"],
  };
}

function pageOf(map: FeatureMap): { readonly body: readonly Block[]; readonly see: readonly string[] } {
  return PAGES[map.name] ?? (map.name.startsWith("hyp-") ? bothSigns(map.name) : pointwise(map));
}

/** Features that a map of this kind can have as few of as 64. */
function exampleOf({ name, family, projection }: FeatureMap): string[] {
  if (family === "hybrid") return [`performer attend qkv.npz --features ${name} -m 192 --backend scalar`];
  return [`performer attend qkv.npz --features ${name}${projection === "none" ? "" : " -m 256"}`];
}

export const FEATURE_MAP_TOPICS: readonly Topic[] = [
  ...FEATURE_MAPS.map((map): Topic => ({
    name: map.name,
    group: "feature maps",
    summary: map.summary,
    ...pageOf(map),
    examples: exampleOf(map),
  })),
  {
    name: "softmax",
    group: "feature maps",
    summary: "no features: exact attention, streamed, at a cost that grows with the square of the length",
    body: [
      { formula: ["out_i = Σ_j e^(S q_i·k_j) v_j / Σ_j e^(S q_i·k_j)"] },
      "Keys stream by while queries are held, with a running maximum, so that memory does not grow with the length. At a few thousand rows it is often the " +
      "better choice: performer tune says so where it is.",
    ],
    examples: ["performer attend qkv.npz --features softmax", "performer bench --features hyperbolic,softmax"],
    see: ["attention", "choosing"],
  },
];
