/**
 * What a checkpoint is: the model its tensors make, by their names, and what had to be assumed. Pure data; nothing is read here.
 */
import type { Activation } from "../feature_map.ts";
import type { Kernel, RulesName } from "../rules_table.ts";

/** A tensor of a checkpoint, as the header of its file tells it. */
export interface TensorHeader {
  readonly name: string;
  /** null: an element type this program does not read. */
  readonly dtype: string | null;
  readonly shape: readonly number[];
}

export type FamilyName =
  | "performer-lm"
  | "performer"
  | "performer-enc-dec"
  | "self-attention"
  | "scbert"
  | "molformer"
  | "molformer-ibm"
  | "bulkformer"
  | "scfoundation"
  | "bert"
  | "roberta"
  | "gpt2"
  | "llama";

/** y = x Wᵀ + b by the names of its tensors; W is `outputs × inputs`, or those rows of a taller tensor from `firstRow` on. */
export interface DenseLayout {
  readonly weight: string;
  readonly bias: string | null;
  readonly inputs: number;
  readonly outputs: number;
  readonly firstRow: number;
  /** Wᵀ is stored, `inputs × outputs` (Conv1D of GPT-2); `firstRow` is then its first column. */
  readonly transposed?: boolean;
}

/** Non-linearities between two dense layers; "gelu-tanh" is GPT-2's approximation, "silu" is x / (1 + e^{−x}). */
export type DenseActivation = "relu" | "gelu" | "gelu-tanh" | "silu";

/**
 * How a row is normalised before or after a layer ("scale": g x / max(‖x‖, 1e-5), "rms": w x / √(mean x² + ε)), or its output
 * scaled by g ("rezero").
 */
export type NormLayout =
  | { readonly kind: "layer"; readonly weight: string; readonly bias: string; readonly epsilon: number }
  | { readonly kind: "rms"; readonly weight: string; readonly epsilon: number }
  | { readonly kind: "scale"; readonly g: string }
  | { readonly kind: "rezero"; readonly g: string };

/** Rotation of queries and keys by position. */
export type RotaryLayout =
  /** Pairs (2j, 2j + 1); `table` is `positions × headDim`, sines before cosines. */
  | { readonly kind: "interleaved"; readonly table: string; readonly positions: number }
  /** Pairs (j, j + d/2); angles t · theta^{−2j/d}, rounded to float32. */
  | { readonly kind: "half-split"; readonly theta: number };

/** What is added to the token embeddings. */
export type PositionLayout =
  | { readonly kind: "none" }
  /** `table` is `positions × dim`: learned, sinusoid or gene2vec (float64). */
  | { readonly kind: "absolute" | "sinusoid" | "gene2vec"; readonly table: string; readonly positions: number }
  /** RoBERTa: tokens `padding` stand at position `padding`, the n-th other token (from 1) at `padding + n`. */
  | { readonly kind: "padded"; readonly table: string; readonly positions: number; readonly padding: number }
  /** Row p gets `first[⌊p / columns⌋] + second[p mod columns]`. */
  | {
    readonly kind: "axial";
    readonly first: string;
    readonly second: string;
    readonly shape: readonly [number, number];
  };

/** Exact attention of some heads within windows: the last `heads` heads of the layer. */
export interface LocalLayout {
  readonly heads: number;
  readonly window: number;
  /** "shaw": learned relative positions (local-attention ≤ 1.2.2); "1.4": absolute rotary; "1.9": rotary within the view. */
  readonly era: "shaw" | "1.4" | "1.9";
  /** `inv_freq` [headDim / 2], or Shaw's weights [window · windows, heads, headDim]. */
  readonly tensor: string;
}

export interface AttentionLayout {
  readonly kind: "self" | "cross";
  /** null: rows come as they are. */
  readonly norm: NormLayout | null;
  /** Token shift before the layer. */
  readonly shift: boolean;
  readonly q: DenseLayout;
  readonly k: DenseLayout;
  readonly v: DenseLayout;
  readonly out: DenseLayout;
  readonly heads: number;
  /** Heads of keys and values; query head h reads ⌊h · kvHeads / heads⌋. */
  readonly kvHeads: number;
  readonly headDim: number;
  /** Features m, and W: `m × headDim`, or `headDim × m` where `transposed`. */
  readonly features: number;
  readonly projection: { readonly name: string; readonly transposed: boolean } | null;
  readonly local: LocalLayout | null;
}

export interface FeedForwardLayout {
  readonly norm: NormLayout;
  readonly shift: boolean;
  readonly first: DenseLayout;
  readonly second: DenseLayout;
  readonly activation: DenseActivation;
  /** The first half of the first layer's outputs is activated and multiplies the second. */
  readonly gated: boolean;
  /** A layer of the same rows whose outputs multiply the activated ones (up_proj of SwiGLU). */
  readonly times: DenseLayout | null;
}

export interface LayerLayout {
  readonly attention: AttentionLayout;
  /** null: a single attention layer. */
  readonly feedForward: FeedForwardLayout | null;
}

/** From the last hidden rows to the outputs. */
export type OutputLayout =
  | { readonly kind: "none" }
  | { readonly kind: "dense"; readonly dense: DenseLayout; readonly norm: NormLayout | null }
  /** The token embedding itself, transposed. */
  | { readonly kind: "tied" }
  /** MoLFormer, BERT: decoder(LayerNorm(activation(transform x))). */
  | {
    readonly kind: "transformed";
    readonly transform: DenseLayout;
    readonly activation: DenseActivation;
    readonly norm: NormLayout;
    readonly dense: DenseLayout;
  }
  /** scBERT: relu(conv1) per row, then fc1, fc2, fc3 over all rows of the sequence. */
  | {
    readonly kind: "scbert-classifier";
    readonly conv: { readonly weight: string; readonly bias: string };
    readonly dense: readonly DenseLayout[];
  };

/** `table` is `tokens × dim`; row 0 of `types` is added to every row, and `norm` comes after all sums. */
export interface EmbeddingLayout {
  readonly table: string;
  readonly tokens: number;
  readonly types?: string | null;
  readonly norm?: NormLayout | null;
}

/** All that a forward pass needs to know, but for the numbers. */
export interface ModelLayout {
  readonly dim: number;
  /** null: rows are given as they are, `L × dim`. */
  readonly embedding: EmbeddingLayout | null;
  readonly positions: PositionLayout;
  readonly rotary: RotaryLayout | null;
  /** "bare": the attention layer alone, neither norm nor residual. */
  readonly flow: "sequential" | "reversible" | "post-norm" | "bare";
  readonly layers: readonly LayerLayout[];
  readonly finalNorm: NormLayout | null;
  readonly output: OutputLayout;
  /** Longest sequence, or null where nothing limits it. */
  readonly maxLength: number | null;
  readonly causal: boolean;
  readonly kernel: Kernel;
  readonly activation: Activation;
  /** PerformerEncDec: what makes the context of the cross attention. */
  readonly encoder: ModelLayout | null;
}

/** A value that the tensors do not tell. */
export interface Assumption {
  /** Constructor argument, as `--config` names it. */
  readonly argument: string;
  readonly value: unknown;
  readonly from: "config" | "default";
  /** Why it matters and how to tell it. */
  readonly note: string;
}

export interface Description {
  readonly family: FamilyName;
  /** Name and source, for people. */
  readonly title: string;
  /** What all its tensors are called before their own names: "module.", "net." …, or "". */
  readonly prefix: string;
  /** Range of performer-pytorch versions with these keys, null for other families. */
  readonly versions: VersionRange | null;
  readonly rules: RulesName;
  /** Constructor arguments that the tensors tell. */
  readonly architecture: Readonly<Record<string, unknown>>;
  readonly assumed: readonly Assumption[];
  /** Arguments without which it cannot run, each with the reason. */
  readonly unknown: readonly string[];
  /** Tensors under the prefix that the family does not have, with the nearest name it has. */
  readonly extra: readonly { readonly name: string; readonly nearest: string | null }[];
  /** null: recognised, but not run; `reason` says why. */
  readonly layout: ModelLayout | null;
  readonly reason: string | null;
}

/** An inclusive range; null = open. `markers` are the keys it was read from, with what each tells. */
export interface VersionRange {
  readonly from: string | null;
  readonly to: string | null;
  readonly text: string;
  readonly markers: readonly string[];
}
