/** MoLFormer-XL in both layouts: Hugging Face (ibm/MoLFormer-XL-both-10pct) and IBM's Lightning checkpoints. */
import { Arguments } from "../arguments.ts";
import type { AttentionLayout, Description, LayerLayout, ModelLayout, OutputLayout } from "../description.ts";
import { countUnder, Keys } from "../keys.ts";
import { type Candidate, type Family, prefixesOf } from "./family.ts";
import { headsOf, layerNorm } from "./layers.ts";

/** Names of one layout, and where its numerics differ. */
interface Names {
  readonly family: "molformer" | "molformer-ibm";
  readonly title: string;
  readonly layers: string;
  readonly embedding: string;
  readonly qkv: readonly [string, string, string];
  readonly features: string;
  readonly out: string;
  readonly norm1: string;
  readonly first: string;
  readonly second: string;
  readonly norm2: string;
  readonly finalNorm: string;
  readonly head: readonly [string, string, string];
  readonly epsilon: number;
}

const HF: Names = {
  family: "molformer",
  title: "MoLFormer (Hugging Face layout)",
  layers: "encoder.layer.",
  embedding: "embeddings.word_embeddings",
  qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
  features: "attention.self.feature_map.weight",
  out: "attention.output.dense",
  norm1: "attention.output.LayerNorm",
  first: "intermediate.dense",
  second: "output.dense",
  norm2: "output.LayerNorm",
  finalNorm: "LayerNorm",
  head: ["lm_head.transform.dense", "lm_head.transform.LayerNorm", "lm_head.decoder"],
  epsilon: 1e-12,
};

const IBM: Names = {
  family: "molformer-ibm",
  title: "MoLFormer (IBM layout)",
  layers: "blocks.layers.",
  embedding: "tok_emb",
  qkv: ["attention.query_projection", "attention.key_projection", "attention.value_projection"],
  features: "attention.inner_attention.feature_map.omega",
  out: "attention.out_projection",
  norm1: "norm1",
  first: "linear1",
  second: "linear2",
  norm2: "norm2",
  finalNorm: "blocks.norm",
  head: ["lang_model.embed", "lang_model.ln_f", "lang_model.head"],
  epsilon: 1e-5,
};

/** HF's base model stands under "molformer.", its head beside that; IBM's all stands together. */
function describe(candidate: Candidate, prefix: string, names: Names): Description {
  const keys = new Keys(candidate.path, names.title, prefix, candidate.headers);
  const args = new Arguments(candidate.path, candidate.configuration);
  const base = names.family === "molformer" && keys.under(`molformer.${names.layers}`) ? "molformer." : "";
  const count = countUnder(keys, base + names.layers);
  const table = keys.need(`${base}${names.embedding}.weight`, [null, null]);
  const [tokens, dim] = table.shape;
  args.fact("vocab_size", tokens, `tensor "${table.name}"`);
  args.fact("hidden_size", dim, `tensor "${table.name}"`);
  args.fact("num_hidden_layers", count, "the number of layers");
  const layers = Array.from({ length: count }, (_, i) => layerAt(keys, `${base}${names.layers}${i}.`, dim, names));
  const { heads, features, projection } = layers[0].attention;
  args.fact("num_attention_heads", heads, `tensor "${projection!.name}"`);
  args.fact("num_random_features", features, `tensor "${projection!.name}"`);
  args.fact(
    "intermediate_size",
    layers[0].feedForward!.first.outputs,
    `tensor "${layers[0].feedForward!.first.weight}"`,
  );
  args.accept("hidden_act", "max_position_embeddings", "feature_map_kernel", "layer_norm_eps", "linear_attention_eps");
  args.accept(
    "deterministic_eval",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "model_type",
  );
  args.accept("hidden_dropout_prob", "embedding_dropout_prob", "initializer_range", "architectures", "torch_dtype");
  const layout: ModelLayout = {
    dim,
    embedding: { table: table.name, tokens },
    positions: { kind: "none" },
    rotary: { kind: "half-split", theta: 10000 },
    flow: "post-norm",
    layers,
    finalNorm: layerNorm(keys, base + names.finalNorm, dim, names.epsilon),
    output: headOf(keys, dim, tokens, names),
    maxLength: null,
    causal: false,
    kernel: "generalized",
    activation: "relu",
    encoder: null,
  };
  args.refuseUnknown();
  return {
    family: names.family,
    title: names.title,
    prefix,
    versions: null,
    rules: names.family,
    architecture: args.facts,
    assumed: args.assumed,
    unknown: args.unknown,
    extra: keys.extra().filter(({ name }) => !/(classifier|^|\.)(net\.|classifier\.)|position_ids$/.test(name)),
    layout,
    reason: null,
  };
}

function layerAt(keys: Keys, start: string, dim: number, names: Names): LayerLayout {
  const features = keys.need(start + names.features, [null, null]); // d × m, the transpose of W
  const [headDim, count] = features.shape;
  const [q, k, v] = names.qkv.map((name) => keys.dense(start + name, dim, dim));
  keys.get(`${start}attention.rotaryemb.inv_freq`);
  keys.get(`${start}attention.self.rotary_embeddings.inv_freq`);
  const attention: AttentionLayout = {
    kind: "self",
    norm: layerNorm(keys, start + names.norm1, dim, names.epsilon),
    shift: false,
    q,
    k,
    v,
    out: keys.dense(start + names.out, dim, dim),
    heads: headsOf(keys, q, headDim, features.name),
    kvHeads: headsOf(keys, q, headDim, features.name),
    headDim,
    features: count,
    projection: { name: features.name, transposed: true },
    local: null,
  };
  const second = keys.dense(start + names.second, dim, null);
  const feedForward = {
    norm: layerNorm(keys, start + names.norm2, dim, names.epsilon),
    shift: false,
    first: keys.dense(start + names.first, second.inputs, dim),
    second,
    gated: false,
    activation: "gelu",
    times: null,
  } as const;
  return { attention, feedForward };
}

function headOf(keys: Keys, dim: number, tokens: number, names: Names): OutputLayout {
  const [transform, norm, decoder] = names.head;
  if (!keys.has(`${transform}.weight`)) return { kind: "none" };
  return {
    kind: "transformed",
    transform: keys.dense(transform, dim, dim),
    activation: "gelu",
    norm: layerNorm(keys, norm, dim, names.epsilon),
    dense: keys.dense(decoder, tokens, dim),
  };
}

export const molformer: Family = {
  title: "MoLFormer (Hugging Face and IBM layouts)",
  prefixes: (names) => {
    const hf = prefixesOf(names, /^((?:.*?\.)?)encoder\.layer\.0\.attention\.self\.feature_map\.weight$/);
    const ibm = prefixesOf(names, /^((?:.*?\.)?)blocks\.layers\.0\.attention\.inner_attention\.feature_map\.omega$/);
    return [...hf.map((prefix) => prefix.replace(/molformer\.$/, "")), ...ibm];
  },
  describe(candidate, prefix) {
    const ibm = candidate.headers.some(({ name }) => name.startsWith(`${prefix}${IBM.layers}`));
    return describe(candidate, prefix, ibm ? IBM : HF);
  },
};
