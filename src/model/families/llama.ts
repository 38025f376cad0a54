/** Llama-style decoders as Hugging Face saves them (Llama, Mistral, Qwen2): RMSNorm, rotary positions, shared key heads, SwiGLU. */
import { InputError } from "../../errors.ts";
import { aboveZero, Arguments, boolean, positive } from "../arguments.ts";
import type { DenseActivation, LayerLayout, NormLayout, OutputLayout } from "../description.ts";
import { countUnder, Keys } from "../keys.ts";
import { type Candidate, type Family, prefixesOf } from "./family.ts";
import { activationOf, describeSoftmax, softmaxAttention, softmaxFeedForward, softmaxModel } from "./softmax.ts";

const TITLE = "Llama-style (softmax transformer)";

/** Rope variants that turn as the first one did. */
const PLAIN_ROPE = ["default"];

/** Heads of queries and of keys, their width, and the rows of k_proj and v_proj. */
interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly keyRows: number;
}

function describe(candidate: Candidate, prefix: string) {
  const keys = new Keys(candidate.path, "a Llama-style model", prefix, candidate.headers);
  const args = new Arguments(candidate.path, candidate.configuration);
  const base = keys.under("model.layers.") ? "model." : "";
  const table = keys.need(`${base}embed_tokens.weight`, [null, null]);
  const [tokens, dim] = table.shape;
  const layers = `${base}layers.`;
  const count = countUnder(keys, layers);
  args.fact("vocab_size", tokens, `tensor "${table.name}"`);
  args.fact("hidden_size", dim, `tensor "${table.name}"`);
  args.fact("num_hidden_layers", count, "the number of layers");
  const heads = headsOf(keys, args, `${layers}0.self_attn.`, dim);
  const epsilon = args.open("rms_norm_eps", 1e-6, "ε of its RMSNorms: 1e-6 or 1e-5", aboveZero);
  const activation = activationOf(args, "hidden_act", "silu");
  const theta = thetaOf(args);
  args.only("partial_rotary_factor", [1], "rotation of some columns only is not run here");
  args.accept("model_type", "max_position_embeddings", "attention_bias", "mlp_bias", "pretraining_tp");
  const layout = softmaxModel({
    dim,
    embedding: { table: table.name, tokens },
    positions: { kind: "none" },
    rotary: { kind: "half-split", theta },
    flow: "sequential",
    layers: Array.from(
      { length: count },
      (_, i) => layerAt(keys, `${layers}${i}.`, { dim, heads, epsilon, activation }),
    ),
    finalNorm: rmsNorm(keys, `${base}norm`, dim, epsilon),
    output: headOf(keys, args, { base, tokens, dim }),
    maxLength: windowOf(args),
    causal: true,
  });
  const { first } = layout.layers[0].feedForward!;
  args.fact("intermediate_size", first.outputs, `tensor "${first.weight}"`);
  return describeSoftmax({ keys, args, family: "llama", title: TITLE, prefix, layout, layers });
}

/** From the rows of q_proj and k_proj, and the width or number of heads that something else must tell. */
function headsOf(keys: Keys, args: Arguments, start: string, dim: number): Heads {
  const [rows, keyRows] = ["q_proj", "k_proj"].map((name) => keys.need(`${start}${name}.weight`, [null, dim]).shape[0]);
  const frequencies = keys.get(`${start}rotary_emb.inv_freq`, [null]);
  args.accept("head_dim", "num_attention_heads", "num_key_value_heads");
  const known = frequencies ? 2 * frequencies.shape[0] : positive(args.given("head_dim"));
  const asked = known ?? widthOf(args, rows);
  if (asked === undefined) return { heads: 1, kvHeads: 1, headDim: rows, keyRows };
  const [heads, kvHeads] = [rows / asked, keyRows / asked];
  if (![heads, kvHeads, heads / kvHeads, asked / 2].every(Number.isInteger)) {
    throw new InputError(
      `Cannot use "${keys.path}" as ${keys.title}: heads of ${asked} columns do not fit queries of ${rows} and keys of ` +
        `${keyRows}; --config says otherwise with num_attention_heads or head_dim`,
    );
  }
  args.fact("head_dim", asked, `${frequencies ? `tensor "${frequencies.name}"` : "the number of heads"}`);
  args.fact(
    "num_attention_heads",
    heads,
    `tensor "${keys.prefix}${start}q_proj.weight" with heads of ${asked} columns`,
  );
  args.fact(
    "num_key_value_heads",
    kvHeads,
    `tensor "${keys.prefix}${start}k_proj.weight" with heads of ${asked} columns`,
  );
  return { heads, kvHeads, headDim: asked, keyRows };
}

/** Columns of a head, from how many share the rows of q_proj; undefined, and recorded as unknown, where nothing tells. */
function widthOf(args: Arguments, rows: number): number | undefined {
  const heads = positive(args.given("num_attention_heads")) ??
    args.ask("num_attention_heads", "query heads of a layer; the tensors do not tell", positive);
  return heads === undefined ? undefined : rows / heads;
}

/** The base of the rotation; scaled rotations are refused. transformers 5 keeps both in `rope_parameters`. */
function thetaOf(args: Arguments): number {
  for (const name of ["rope_scaling", "rope_parameters"]) {
    const given = args.given(name) as { rope_type?: unknown; type?: unknown } | undefined;
    const type = given?.rope_type ?? given?.type;
    if (type === undefined || PLAIN_ROPE.includes(String(type))) continue;
    throw new InputError(
      `Cannot use ${name} of "${args.configuration!.path}": positions scaled by "${type}" are not run here, ` +
        `expected none`,
    );
  }
  const inner = args.given("rope_parameters") as { rope_theta?: unknown } | undefined;
  const nested = aboveZero(inner?.rope_theta);
  const note = "base of the rotary positions: 10000, or 500000 and more in later models";
  if (nested === undefined) return args.open("rope_theta", 10000, note, aboveZero);
  args.assumed.push({ argument: "rope_theta", value: nested, from: "config", note });
  return nested;
}

/** Attention within a window is full attention of sequences that the window holds. */
function windowOf(args: Arguments): number | null {
  args.accept("max_window_layers", "layer_types");
  const window = positive(args.given("sliding_window"));
  return window === undefined || args.given("use_sliding_window") === false ? null : window;
}

function rmsNorm(keys: Keys, name: string, dim: number, epsilon: number): NormLayout {
  return { kind: "rms", weight: keys.need(`${name}.weight`, [dim]).name, epsilon };
}

function layerAt(
  keys: Keys,
  start: string,
  { dim, heads, epsilon, activation }: { dim: number; heads: Heads; epsilon: number; activation: DenseActivation },
): LayerLayout {
  const { keyRows, ...shape } = heads;
  const inner = shape.heads * shape.headDim;
  const projected = (name: string, rows: number) => keys.dense(`${start}self_attn.${name}`, rows, dim);
  keys.get(`${start}self_attn.rotary_emb.inv_freq`);
  const attention = softmaxAttention({
    norm: rmsNorm(keys, `${start}input_layernorm`, dim, epsilon),
    q: projected("q_proj", inner),
    k: projected("k_proj", keyRows),
    v: projected("v_proj", keyRows),
    out: keys.dense(`${start}self_attn.o_proj`, dim, inner),
    ...shape,
  });
  const second = keys.dense(`${start}mlp.down_proj`, dim, null);
  const feedForward = softmaxFeedForward({
    norm: rmsNorm(keys, `${start}post_attention_layernorm`, dim, epsilon),
    first: keys.dense(`${start}mlp.gate_proj`, second.inputs, dim),
    second,
    activation,
  }, keys.dense(`${start}mlp.up_proj`, second.inputs, dim));
  return { attention, feedForward };
}

/** lm_head, or the token embedding: the tensors of a tied model and of one without a head are the same. */
function headOf(
  keys: Keys,
  args: Arguments,
  { base, tokens, dim }: { base: string; tokens: number; dim: number },
): OutputLayout {
  args.accept("tie_word_embeddings");
  if (keys.has("lm_head.weight")) {
    return { kind: "dense", norm: null, dense: keys.dense("lm_head", tokens, dim, "none") };
  }
  const note = "the output layer is the token embedding; it has no lm_head.weight";
  return { kind: args.open("tie_word_embeddings", base !== "", note, boolean) ? "tied" : "none" };
}

export const llama: Family = {
  title: TITLE,
  prefixes: (names) => {
    return prefixesOf(names, /^((?:.*?\.)?)layers\.0\.self_attn\.q_proj\.weight$/).map((prefix) => {
      return prefix.replace(/(^|\.)model\.$/, "$1");
    });
  },
  describe,
};
