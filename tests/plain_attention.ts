/** An attention that tests begin with and change. */
import type { Attention } from "../src/attention.ts";

/** Bidirectional, positive features of a drawn projection, scale 1/√d, nothing given. */
export const PLAIN: Attention = {
  features: "positive",
  numFeatures: 14,
  projection: "orthogonal",
  norms: "chi",
  seed: 3,
  causal: false,
  scale: null,
  given: null,
  compat: "exact",
};
