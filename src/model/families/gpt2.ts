/** GPT-2 as Hugging Face saves it: a causal decoder whose dense layers are Conv1D, stored `inputs × outputs`. */
import { aboveZero, Arguments } from "../arguments.ts";
import type { DenseActivation, DenseLayout, LayerLayout, OutputLayout } from "../description.ts";
import { countUnder, Keys } from "../keys.ts";
import { type Candidate, type Family, prefixesOf } from "./family.ts";
import {
  activationOf,
  describeSoftmax,
  headsOf,
  layerNormOf,
  softmaxAttention,
  softmaxFeedForward,
  softmaxModel,
} from "./softmax.ts";

const TITLE = "GPT-2 (softmax transformer)";

function describe(candidate: Candidate, prefix: string) {
  const keys = new Keys(candidate.path, "GPT-2", prefix, candidate.headers);
  const args = new Arguments(candidate.path, candidate.configuration);
  const base = keys.under("transformer.h.") ? "transformer." : "";
  const table = keys.need(`${base}wte.weight`, [null, null]);
  const [tokens, dim] = table.shape;
  const places = keys.need(`${base}wpe.weight`, [null, dim]);
  const [positions] = places.shape;
  const layers = `${base}h.`;
  const count = countUnder(keys, layers);
  args.fact("vocab_size", tokens, `tensor "${table.name}"`);
  args.fact("n_embd", dim, `tensor "${table.name}"`);
  args.fact("n_positions", positions, `tensor "${places.name}"`);
  args.fact("n_layer", count, "the number of layers");
  const heads = headsOf(keys, args, "n_head", dim);
  const activation = activationOf(args, "activation_function", "gelu-tanh");
  const epsilon = args.open("layer_norm_epsilon", 1e-5, "ε of its LayerNorms", aboveZero);
  args.only("scale_attn_weights", [true], "attention without 1/√d is not run here");
  args.only("scale_attn_by_inverse_layer_idx", [false], "scales by layer are not run here");
  args.only("add_cross_attention", [false], "cross attention is not run here");
  args.accept("model_type", "n_ctx", "reorder_and_upcast_attn", "tie_word_embeddings");
  const layout = softmaxModel({
    dim,
    embedding: { table: table.name, tokens },
    positions: { kind: "absolute", table: places.name, positions },
    rotary: null,
    flow: "sequential",
    layers: Array.from(
      { length: count },
      (_, i) => layerAt(keys, `${layers}${i}.`, { dim, heads, epsilon, activation }),
    ),
    finalNorm: layerNormOf(keys, `${base}ln_f`, dim, epsilon),
    output: headOf(keys, tokens, dim),
    maxLength: positions,
    causal: true,
  });
  const { first } = layout.layers[0].feedForward!;
  args.fact("n_inner", first.outputs, `tensor "${first.weight}"`);
  return describeSoftmax({ keys, args, family: "gpt2", title: TITLE, prefix, layout, layers });
}

/** A Conv1D. */
function conv1d(keys: Keys, name: string, inputs: number | null, outputs: number | null): DenseLayout {
  const { name: weight, shape } = keys.need(`${name}.weight`, [inputs, outputs]);
  const bias = keys.need(`${name}.bias`, [shape[1]]).name;
  return { weight, bias, inputs: shape[0], outputs: shape[1], firstRow: 0, transposed: true };
}

function layerAt(
  keys: Keys,
  start: string,
  { dim, heads, epsilon, activation }: { dim: number; heads: number; epsilon: number; activation: DenseActivation },
): LayerLayout {
  const joined = conv1d(keys, `${start}attn.c_attn`, dim, 3 * dim);
  const [q, k, v] = [0, 1, 2].map((part) => ({ ...joined, outputs: dim, firstRow: part * dim }));
  // The causal mask and its value are buffers of older versions.
  keys.get(`${start}attn.bias`);
  keys.get(`${start}attn.masked_bias`);
  const attention = softmaxAttention({
    norm: layerNormOf(keys, `${start}ln_1`, dim, epsilon),
    q,
    k,
    v,
    out: conv1d(keys, `${start}attn.c_proj`, dim, dim),
    heads,
    kvHeads: heads,
    headDim: dim / heads,
  });
  const second = conv1d(keys, `${start}mlp.c_proj`, null, dim);
  const feedForward = softmaxFeedForward({
    norm: layerNormOf(keys, `${start}ln_2`, dim, epsilon),
    first: conv1d(keys, `${start}mlp.c_fc`, dim, second.inputs),
    second,
    activation,
  });
  return { attention, feedForward };
}

/** The output layer, which is the token embedding unless it is saved by itself. */
function headOf(keys: Keys, tokens: number, dim: number): OutputLayout {
  if (!keys.has("lm_head.weight")) return { kind: "tied" };
  return { kind: "dense", norm: null, dense: keys.dense("lm_head", tokens, dim, "none") };
}

export const gpt2: Family = {
  title: TITLE,
  prefixes: (names) => {
    return prefixesOf(names, /^((?:.*?\.)?)h\.0\.attn\.c_attn\.weight$/).map((prefix) => {
      return prefix.replace(/(^|\.)transformer\.$/, "$1");
    });
  },
  describe,
};
