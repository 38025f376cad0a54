/** The numerics profiles of `--compat`: what each system does to features and denominators. Sources: docs/models.md. */
import { UsageError } from "./errors.ts";

/** A profile by its name. */
export type RulesName =
  | "exact"
  | "lucidrains"
  | "lucidrains-causal"
  | "lucidrains-global"
  | "google"
  | "fast-transformers"
  | "molformer"
  | "molformer-ibm";

/**
 * What attention is made of: softmax features, f(W x) + ε, performer-pytorch's `no_projection` (softmax over queries' columns and
 * keys' rows), or every pair of rows: the attention of ordinary transformers.
 */
export type Kernel = "softmax" | "generalized" | "no-projection" | "exact-softmax";

/** Numbers of a profile; sources in docs/models.md. */
export interface Rules {
  readonly name: RulesName;
  readonly summary: string;
  /** ε of softmax features, φ = e^{…} + ε. */
  readonly epsilon: number;
  /** ε of generalised features, φ = f(u) + ε. */
  readonly generalisedEpsilon: number;
  /** What the largest key projection is taken over: nothing, the head, every head and batch item, or the keys so far. */
  readonly keyTop: "none" | "head" | "all" | "prefix";
  /** Added to Σ φ(k) of causal attention, features carrying their 1/√m. */
  readonly causalDelta: number;
  /** How a denominator D becomes a divisor: D, D + ε, max(D, ε), or D + 2ε where |D| ≤ ε. */
  readonly divisor: { readonly kind: "plain" | "add" | "clamp" | "nudge"; readonly epsilon: number };
  /** Rows are scaled by d^{−1/4} before generalised maps. */
  readonly scalesGeneralised: boolean;
  /** Softmax features come in pairs e^{±u}. */
  readonly paired: boolean;
  /** A mask removes keys, or only their values: then masked keys stay in denominators. */
  readonly masks: "keys" | "values";
  readonly kernels: readonly Kernel[];
}

const PLAIN = { kind: "plain", epsilon: 0 } as const;
const LUCIDRAINS = {
  epsilon: 1e-4,
  generalisedEpsilon: 1e-3,
  causalDelta: 1e-6,
  divisor: PLAIN,
  scalesGeneralised: true,
  paired: false,
  masks: "values",
  kernels: ["softmax", "generalized", "no-projection"],
} as const;
const MOLFORMER = {
  epsilon: 0,
  generalisedEpsilon: 0,
  keyTop: "none",
  causalDelta: 0,
  scalesGeneralised: false,
  paired: false,
  masks: "keys",
  kernels: ["generalized"],
} as const;

/** The table. */
export const RULES: readonly Rules[] = [
  {
    ...LUCIDRAINS,
    name: "exact",
    summary: "no ε, a running maximum per feature: what the mathematics says",
    epsilon: 0,
    keyTop: "none",
    causalDelta: 0,
    masks: "keys",
    kernels: [...LUCIDRAINS.kernels, "exact-softmax"],
  },
  {
    ...LUCIDRAINS,
    name: "lucidrains",
    summary:
      "performer-pytorch ≥ 1.1.1: ε = 1e-4, key maximum per head over the whole sequence (causal rows see it: it leaks the future)",
    keyTop: "head",
  },
  {
    ...LUCIDRAINS,
    name: "lucidrains-causal",
    summary:
      "as lucidrains with the key maximum over the keys so far: blind to the future, and what decoding can equal",
    keyTop: "prefix",
  },
  {
    ...LUCIDRAINS,
    name: "lucidrains-global",
    summary: "performer-pytorch ≤ 1.1.0, scBERT, scFoundation: key maximum over heads and batch items",
    keyTop: "all",
  },
  {
    ...LUCIDRAINS,
    name: "google",
    summary: "google-research fast_attention.py (JAX): ε = 1e-6, key maximum per head",
    epsilon: 1e-6,
    keyTop: "head",
    causalDelta: 0,
    divisor: { kind: "nudge", epsilon: 1e-6 },
    scalesGeneralised: false,
    kernels: ["softmax", "generalized"],
  },
  {
    ...LUCIDRAINS,
    name: "fast-transformers",
    summary: "idiap Favor: pairs e^{±u}, no maximum, denominators + 1e-6",
    epsilon: 0,
    generalisedEpsilon: 0,
    keyTop: "none",
    causalDelta: 0,
    divisor: { kind: "add", epsilon: 1e-6 },
    paired: true,
    masks: "keys",
    kernels: ["softmax", "generalized"],
  },
  {
    ...MOLFORMER,
    name: "molformer",
    summary: "MoLFormer (Hugging Face): relu(W x) of unscaled rows, denominators at least 1e-6",
    divisor: { kind: "clamp", epsilon: 1e-6 },
  },
  {
    ...MOLFORMER,
    name: "molformer-ibm",
    summary: "MoLFormer (IBM): relu(W x) of unscaled rows, denominators + 1e-6",
    divisor: { kind: "add", epsilon: 1e-6 },
  },
];

/** Whether causal rows depend on later keys: a maximum over all keys sets the weight of ε. */
export function leaksFuture(name: RulesName): boolean {
  const { keyTop, epsilon } = rulesNamed(name);
  return epsilon > 0 && (keyTop === "head" || keyTop === "all");
}

/** The profile with the same ε that a running state can follow. */
export function statefulRules(name: RulesName): RulesName {
  return name === "lucidrains" || name === "lucidrains-global" ? "lucidrains-causal" : name;
}

/** Finds a profile; throws UsageError with the list otherwise. */
export function rulesNamed(name: string): Rules {
  const found = RULES.find((rules) => rules.name === name);
  if (!found) throw new UsageError(`Unknown --compat ${name}, expected one of ${RULES.map((r) => r.name).join(", ")}`);
  return found;
}
