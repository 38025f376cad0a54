/** What ordinary (softmax) transformers of Hugging Face have in common. */
import { InputError } from "../../errors.ts";
import { denseActivation } from "../activations.ts";
import { type Arguments, positive } from "../arguments.ts";
import type {
  AttentionLayout,
  DenseActivation,
  DenseLayout,
  Description,
  FamilyName,
  FeedForwardLayout,
  ModelLayout,
  NormLayout,
} from "../description.ts";
import type { Keys } from "../keys.ts";

/** Columns of a head where nothing tells: what BERT and GPT-2 of every size have. */
const HEAD_DIM = 64;

/** An attention layer without random features. */
export function softmaxAttention(
  parts: Pick<AttentionLayout, "norm" | "q" | "k" | "v" | "out" | "heads" | "kvHeads" | "headDim">,
): AttentionLayout {
  return { ...parts, kind: "self", shift: false, features: 0, projection: null, local: null };
}

/** A feed-forward layer; `times` is the up_proj of a gated one. */
export function softmaxFeedForward(
  parts: Pick<FeedForwardLayout, "norm" | "first" | "second" | "activation">,
  times: DenseLayout | null = null,
): FeedForwardLayout {
  return { ...parts, shift: false, gated: false, times };
}

/** A whole model of exact attention. */
export function softmaxModel(
  parts: Omit<ModelLayout, "kernel" | "activation" | "encoder">,
): ModelLayout {
  return { ...parts, kernel: "exact-softmax", activation: "relu", encoder: null };
}

/** The number of heads of rows `dim` wide: from the configuration, else `dim / 64`, else unknown (1 stands for it). */
export function headsOf(keys: Keys, args: Arguments, name: string, dim: number): number {
  const note = `heads of a layer; the tensors do not tell`;
  const heads = dim % HEAD_DIM === 0
    ? args.open(name, dim / HEAD_DIM, `${note}, heads of ${HEAD_DIM} columns are usual`, positive)
    : args.ask(name, note, positive) ?? 1;
  if (dim % heads !== 0) {
    throw new InputError(
      `Cannot use "${
        args.configuration!.path
      }" with "${keys.path}": ${name} = ${heads} heads in rows of ${dim} columns, ` +
        `expected a divisor`,
    );
  }
  return heads;
}

/** The activation of the feed-forward layers. */
export function activationOf(args: Arguments, name: string, usual: DenseActivation): DenseActivation {
  return args.open(name, usual, "what feed-forward layers apply: gelu, gelu_new, relu or silu", denseActivation);
}

/** Facts of a dense layer's shape. */
export function sizeFact(args: Arguments, name: string, value: number, { weight }: DenseLayout): void {
  args.fact(name, value, `tensor "${weight}"`);
}

/** A LayerNorm under the names of PyTorch, or of TensorFlow as the first BERT checkpoints have them (gamma, beta). */
export function layerNormOf(keys: Keys, name: string, dim: number, epsilon: number): NormLayout {
  const [weight, bias] = keys.has(`${name}.gamma`) ? ["gamma", "beta"] : ["weight", "bias"];
  return {
    kind: "layer",
    weight: keys.need(`${name}.${weight}`, [dim]).name,
    bias: keys.need(`${name}.${bias}`, [dim]).name,
    epsilon,
  };
}

/** The description of a model; tensors in its layers that nobody asked for would change its outputs, so it is not run. */
export function describeSoftmax(
  { keys, args, ...model }: {
    readonly keys: Keys;
    readonly args: Arguments;
    readonly family: FamilyName;
    readonly title: string;
    readonly prefix: string;
    readonly layout: ModelLayout;
    /** What the names of its layers start with, without the prefix. */
    readonly layers: string;
  },
): Description {
  args.refuseUnknown();
  const extra = keys.extra();
  const stranger = extra.find(({ name }) => name.startsWith(model.prefix + model.layers));
  const reason = stranger ? `its layers have tensors that are not known here, such as "${stranger.name}"` : null;
  return {
    family: model.family,
    title: model.title,
    prefix: model.prefix,
    versions: null,
    rules: "exact",
    architecture: args.facts,
    assumed: args.assumed,
    unknown: args.unknown,
    extra,
    layout: reason ? null : model.layout,
    reason,
  };
}
