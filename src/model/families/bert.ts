/** BERT (arXiv 1810.04805) and RoBERTa (arXiv 1907.11692) as Hugging Face saves them: encoders with norms behind their layers. */
import { aboveZero, Arguments, boolean, positive } from "../arguments.ts";
import type {
  DenseActivation,
  DenseLayout,
  LayerLayout,
  OutputLayout,
  PositionLayout,
  TensorHeader,
} from "../description.ts";
import { countUnder, Keys } from "../keys.ts";
import { type Candidate, type Family, prefixesOf } from "./family.ts";
import {
  activationOf,
  describeSoftmax,
  headsOf,
  layerNormOf,
  sizeFact,
  softmaxAttention,
  softmaxFeedForward,
  softmaxModel,
} from "./softmax.ts";

/** What the two families differ in. */
interface Kind {
  readonly family: "bert" | "roberta";
  readonly title: string;
  readonly epsilon: number;
}

const BERT: Kind = { family: "bert", title: "BERT (softmax transformer)", epsilon: 1e-12 };
const ROBERTA: Kind = { family: "roberta", title: "RoBERTa (softmax transformer)", epsilon: 1e-5 };

const ANCHOR = /^((?:.*?\.)?)encoder\.layer\.0\.attention\.self\.query\.weight$/;

/** The base model under "bert." or "roberta.", or by itself; heads stand beside it. */
function baseOf(keys: Keys): string {
  return ["bert.", "roberta."].find((base) => keys.under(`${base}encoder.layer.`)) ?? "";
}

/** A base model alone is told by its table of token types: RoBERTa has one type. */
function kindOf(args: Arguments, base: string, types: TensorHeader | undefined): Kind {
  if (base !== "") return base === "bert." ? BERT : ROBERTA;
  const usual = types?.shape[0] === 1 ? "roberta" : "bert";
  const note = "bert or roberta, whose positions begin at 2; told by the number of token types";
  const name = args.open("model_type", usual, note, (value) => {
    return value === "bert" || value === "roberta" || value === "xlm-roberta" ? value : undefined;
  });
  return name === "bert" ? BERT : ROBERTA;
}

function describe(candidate: Candidate, prefix: string) {
  const keys = new Keys(candidate.path, "BERT or RoBERTa", prefix, candidate.headers);
  const args = new Arguments(candidate.path, candidate.configuration);
  const base = baseOf(keys);
  const table = keys.need(`${base}embeddings.word_embeddings.weight`, [null, null]);
  const [tokens, dim] = table.shape;
  const types = keys.get(`${base}embeddings.token_type_embeddings.weight`, [null, dim]);
  const kind = kindOf(args, base, types);
  args.fact("vocab_size", tokens, `tensor "${table.name}"`);
  args.fact("hidden_size", dim, `tensor "${table.name}"`);
  const layers = `${base}encoder.layer.`;
  const count = countUnder(keys, layers);
  args.fact("num_hidden_layers", count, "the number of layers");
  const heads = headsOf(keys, args, "num_attention_heads", dim);
  const activation = activationOf(args, "hidden_act", "gelu");
  const epsilon = args.open("layer_norm_eps", kind.epsilon, "ε of its LayerNorms", aboveZero);
  args.only("position_embedding_type", ["absolute"], "relative positions are not run here");
  const causal = args.open("is_decoder", false, "rows see only rows up to their own; true or false", boolean);
  args.only("add_cross_attention", [false], "cross attention is not run here");
  args.accept("model_type", "max_position_embeddings", "type_vocab_size", "pad_token_id");
  const { positions, maxLength } = positionsOf(keys, args, `${base}embeddings.position_embeddings.weight`, dim, kind);
  const layout = softmaxModel({
    dim,
    embedding: {
      table: table.name,
      tokens,
      types: types?.name ?? null,
      norm: layerNormOf(keys, `${base}embeddings.LayerNorm`, dim, epsilon),
    },
    positions,
    rotary: null,
    flow: "post-norm",
    layers: Array.from(
      { length: count },
      (_, i) => layerAt(keys, `${layers}${i}.`, { dim, heads, epsilon, activation }),
    ),
    finalNorm: null,
    output: headOf(keys, { table: table.name, tokens, dim, epsilon, activation, kind }),
    maxLength,
    causal,
  });
  sizeFact(
    args,
    "intermediate_size",
    layout.layers[0].feedForward!.first.outputs,
    layout.layers[0].feedForward!.first,
  );
  // No part of what is run: the pooled first row, next-sentence prediction, a buffer.
  for (const name of ["weight", "bias"]) {
    keys.get(`${base}pooler.dense.${name}`);
    keys.get(`cls.seq_relationship.${name}`);
  }
  keys.get(`${base}embeddings.position_ids`);
  return describeSoftmax({ keys, args, ...kind, prefix, layout, layers });
}

function positionsOf(
  keys: Keys,
  args: Arguments,
  name: string,
  dim: number,
  { family }: Kind,
): { positions: PositionLayout; maxLength: number } {
  const table = keys.need(name, [null, dim]);
  const [positions] = table.shape;
  args.fact("max_position_embeddings", positions, `tensor "${table.name}"`);
  if (family === "bert") {
    return { positions: { kind: "absolute", table: table.name, positions }, maxLength: positions };
  }
  const padding = args.open("pad_token_id", 1, "the padding token; positions begin behind it", positive);
  return { positions: { kind: "padded", table: table.name, positions, padding }, maxLength: positions - padding - 1 };
}

function layerAt(
  keys: Keys,
  start: string,
  { dim, heads, epsilon, activation }: { dim: number; heads: number; epsilon: number; activation: DenseActivation },
): LayerLayout {
  const [q, k, v] = ["query", "key", "value"].map((name) => keys.dense(`${start}attention.self.${name}`, dim, dim));
  const attention = softmaxAttention({
    norm: layerNormOf(keys, `${start}attention.output.LayerNorm`, dim, epsilon),
    q,
    k,
    v,
    out: keys.dense(`${start}attention.output.dense`, dim, dim),
    heads,
    kvHeads: heads,
    headDim: dim / heads,
  });
  const second = keys.dense(`${start}output.dense`, dim, null);
  const feedForward = softmaxFeedForward({
    norm: layerNormOf(keys, `${start}output.LayerNorm`, dim, epsilon),
    first: keys.dense(`${start}intermediate.dense`, second.inputs, dim),
    second,
    activation,
  });
  return { attention, feedForward };
}

/** The head of masked language models, whose decoder is the token embedding unless it is saved by itself. */
function headOf(
  keys: Keys,
  { table, tokens, dim, epsilon, activation, kind }: {
    table: string;
    tokens: number;
    dim: number;
    epsilon: number;
    activation: DenseActivation;
    kind: Kind;
  },
): OutputLayout {
  const [transform, norm, decoder, lone] = kind.family === "bert"
    ? [
      "cls.predictions.transform.dense",
      "cls.predictions.transform.LayerNorm",
      "cls.predictions.decoder",
      "cls.predictions.bias",
    ]
    : ["lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias"];
  if (!keys.has(`${transform}.weight`)) return { kind: "none" };
  const weight = keys.get(`${decoder}.weight`, [tokens, dim])?.name ?? table;
  const biases = [keys.get(`${decoder}.bias`, [tokens]), keys.get(lone, [tokens])];
  const dense: DenseLayout = {
    weight,
    bias: biases.find((bias) => bias)?.name ?? null,
    inputs: dim,
    outputs: tokens,
    firstRow: 0,
  };
  return {
    kind: "transformed",
    transform: keys.dense(transform, dim, dim),
    activation: kind.family === "bert" ? activation : "gelu",
    norm: layerNormOf(keys, norm, dim, epsilon),
    dense,
  };
}

export const bert: Family = {
  title: "BERT and RoBERTa (softmax transformers)",
  prefixes: (names) => prefixesOf(names, ANCHOR).map((prefix) => prefix.replace(/(^|\.)(bert|roberta)\.$/, "$1")),
  describe,
};
