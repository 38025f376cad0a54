/** A page for every far field of near-and-far attention. Definitions: src/near_far.ts, docs/near-and-far.md. */
import type { Topic } from "./topic.ts";

const TAYLOR =
  "t = x·(y − c) for query x, key y and c the mean of the visible keys, a shift that softmax does not see. Nothing is drawn at random.";

const field = (name: string, page: Omit<Topic, "name" | "group">): Topic => ({ name, group: "far fields", ...page });

export const FAR_FIELD_TOPICS: readonly Topic[] = [
  field("taylor1", {
    summary: "weights 1 + t of centred keys: the cheapest far field, and the default of --window and --heavy",
    body: [
      { formula: ["far weight = 1 + t"] },
      TAYLOR,
      "Softmax to first order: it needs the mean of the values and how they vary with the keys. Alone it is accurate while |t| stays below 1.",
    ],
    examples: [
      "performer attend qkv.npz --window 64 --heavy 64 --far taylor1",
      "performer attend qkv.npz --features taylor1",
    ],
    see: ["taylor2", "near-and-far"],
  }),
  field("taylor2", {
    summary: "weights 1 + t + t²/2 of centred keys",
    body: [
      { formula: ["far weight = 1 + t + t²/2"] },
      TAYLOR,
      "Softmax to second order; weights are at least 1/2. About 2d² d_v operations per row and head: for narrow heads (d up to about 80).",
    ],
    examples: [
      "performer attend qkv.npz --window 64 --heavy 64 --far taylor2",
      "performer attend qkv.npz --features taylor2",
    ],
    see: ["taylor1", "hermite2", "near-and-far"],
  }),
  field("hermite2", {
    summary: "taylor2 less half the variance of t: more accurate where keys are spread evenly",
    body: [
      { formula: ["far weight = 1 + t + t²/2 − σ²/2", "σ² the variance of t over the visible keys"] },
      TAYLOR,
      "Where σ² is above 1.5, taylor2 takes its place. It costs as much, and is the more accurate of the two while t varies little.",
    ],
    examples: [
      "performer attend qkv.npz --features hermite2 --shrink auto",
      "performer attend qkv.npz --window 16 --far hermite2",
    ],
    see: ["taylor2", "near-and-far"],
  }),
  field("clusters", {
    summary: "keys in C clusters, each as if Gaussian around its mean: keys found by content",
    body: [
      { formula: ["far weight of a key = exp(x·ȳ + ½ Σ_c x_c² s_c²)", "ȳ and s² mean and variance of its cluster"] },
      "Written clusters:C, such as clusters:64. Centroids come from a sample of keys (causal: from the first rows, which are then exact). With --top K all " +
      "keys of the K clusters that weigh most for a query are exact; wasm and scalar have that.",
    ],
    examples: [
      "performer attend qkv.npz --window 32 --far clusters:64",
      "performer attend qkv.npz --window 32 --far clusters:32 --top 8",
    ],
    see: ["near-and-far", "taylor1"],
  }),
];
