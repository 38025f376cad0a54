/**
 * The layers of performer-pytorch in a state_dict: `net.layers.{i}.{0,1}`, `net.blocks.{i}.{f,g}.net` (reversible), or, in the
 * first versions, `net.{j}.fn`. Under each: a norm, perhaps a token shift, then attention or feed-forward.
 */
import { InputError } from "../../errors.ts";
import { type Arguments, boolean, kernelFunction, localEra, perLayer, positive } from "../arguments.ts";
import type {
  AttentionLayout,
  DenseLayout,
  FeedForwardLayout,
  LayerLayout,
  LocalLayout,
  ModelLayout,
  NormLayout,
} from "../description.ts";
import { countUnder, type Keys } from "../keys.ts";

/** Layers and what the versions of the library can be told from. */
export interface PerformerLayers extends Pick<ModelLayout, "layers" | "flow" | "causal" | "kernel" | "activation"> {
  readonly dim: number;
  readonly signs: {
    readonly flat: boolean;
    readonly joined: boolean;
    readonly projection: boolean;
    readonly oldFeedForward: boolean;
    readonly attentionCounter: boolean;
    readonly shift: boolean;
    readonly queryBias: boolean;
    readonly outBias: boolean;
  };
}

/** Where an attention and its feed-forward stand. */
interface Pair {
  readonly attention: string;
  readonly feedForward: string;
}

/** What is fixed for all layers of a net. */
interface Settings {
  readonly keys: Keys;
  readonly dim: number;
  readonly window: number;
  readonly era: "1.4" | "1.9";
}

/**
 * Reads the layers under `root` ("performer." of a PerformerLM, "" of a Performer).
 * @param causal what the family knows of it: true or false, or the default where the tensors do not tell.
 * @param crossing PerformerEncDec's decoder: every second layer is a cross attention.
 */
export function performerLayers(
  keys: Keys,
  args: Arguments,
  root: string,
  options: { readonly causal: boolean | { readonly assumed: boolean }; readonly crossing?: boolean },
): PerformerLayers {
  const { flow, pairs } = placesOf(keys, root);
  if (pairs.length === 0) keys.need(`${root}net.layers.0.0.fn.to_q.weight`);
  const dim = dimOf(keys, pairs[0].attention);
  const causal = typeof options.causal === "boolean"
    ? options.causal
    : args.open("causal", options.causal.assumed, "rows see only rows up to their own; true or false", boolean);
  const cross = crossingOf(keys, args, pairs, options.crossing);
  const kernel = kernelOf(args);
  const selves = pairs.filter((_, i) => !cross || i % 2 === 0).map(({ attention }) => startOf(keys, attention));
  const local = localHeads(keys, args, selves, "local_attn_heads");
  const settings = { keys, dim, ...local.settings };
  const layers = pairs.map((pair, i): LayerLayout => {
    const isCross = cross && i % 2 === 1;
    const heads = isCross ? 0 : local.heads[cross ? i / 2 : i];
    return {
      attention: attentionAt(settings, pair.attention, isCross ? "cross" : "self", heads),
      feedForward: feedForwardAt(settings, pair.feedForward),
    };
  });
  reportFacts(args, layers, flow, cross);
  return { layers, flow, causal, ...kernel, dim, signs: signsOf(keys, layers, pairs) };
}

function placesOf(keys: Keys, root: string): { flow: "sequential" | "reversible"; pairs: Pair[] } {
  if (keys.under(`${root}net.blocks.`)) {
    const count = countUnder(keys, `${root}net.blocks.`);
    const pairs = Array.from({ length: count }, (_, i) => {
      return { attention: `${root}net.blocks.${i}.f.net`, feedForward: `${root}net.blocks.${i}.g.net` };
    });
    return { flow: "reversible", pairs };
  }
  if (keys.under(`${root}net.layers.`)) {
    const count = countUnder(keys, `${root}net.layers.`);
    const pairs = Array.from({ length: count }, (_, i) => {
      return { attention: `${root}net.layers.${i}.0`, feedForward: `${root}net.layers.${i}.1` };
    });
    return { flow: "sequential", pairs };
  }
  const count = countUnder(keys, `${root}net.`);
  const pairs = Array.from({ length: Math.floor(count / 2) }, (_, i) => {
    return { attention: `${root}net.${2 * i}.fn`, feedForward: `${root}net.${2 * i + 1}.fn` };
  });
  return { flow: "sequential", pairs };
}

/** "fn" or, below a token shift, "fn.fn". */
function attentionPath(keys: Keys, base: string): string {
  return ["fn", "fn.fn"].find((path) => keys.under(`${base}.${path}.to_q.`) || keys.under(`${base}.${path}.to_qkv.`)) ??
    "fn";
}

/** What the names of the attention at `base` start with. */
function startOf(keys: Keys, base: string): string {
  return `${base}.${attentionPath(keys, base)}.`;
}

function dimOf(keys: Keys, base: string): number {
  const start = startOf(keys, base);
  const name = keys.has(`${start}to_qkv.weight`) ? "to_qkv" : "to_q";
  return keys.need(`${start}${name}.weight`, [null, null]).shape[1];
}

/** Cross attentions have the keys of self attentions; only a token shift, which they lack, tells them apart. */
function crossingOf(keys: Keys, args: Arguments, pairs: readonly Pair[], known: boolean | undefined): boolean {
  if (known !== undefined) return known;
  const shifts = pairs.map(({ attention }) => attentionPath(keys, attention) === "fn.fn");
  if (shifts.length % 2 === 0 && shifts.every((shift, i) => shift === (i % 2 === 0))) {
    args.fact("cross_attend", true, `the token shift of every second layer only`);
    return true;
  }
  if (shifts.length % 2 === 1 || shifts[0]) {
    args.fact("cross_attend", false, shifts[0] ? "the token shift of every layer" : `the number of layers`);
    return false;
  }
  return args.open("cross_attend", false, "every second layer attends to a context; true or false", boolean);
}

/** What random features, if any, an attention uses: nothing in the tensors tells. */
export function kernelOf(args: Arguments): Pick<ModelLayout, "kernel" | "activation"> {
  args.accept("generalized_attention", "kernel_fn");
  if (
    args.open(
      "no_projection",
      false,
      "softmax over columns and rows instead of random features; true or false",
      boolean,
    )
  ) {
    return { kernel: "no-projection", activation: "relu" };
  }
  const generalized = args.open(
    "generalized_attention",
    false,
    "f(W x) instead of softmax features; true or false",
    boolean,
  );
  if (!generalized) return { kernel: "softmax", activation: "relu" };
  const activation = args.open(
    "kernel_fn",
    "relu" as const,
    "f of generalized attention, such as relu or gelu",
    kernelFunction,
  );
  return { kernel: "generalized", activation };
}

/** How many heads of each layer are local (null: nobody knows), and what their windows are. */
export interface LocalHeads {
  readonly heads: readonly (number | null)[];
  readonly settings: { readonly window: number; readonly era: "1.4" | "1.9" };
}

/** Local heads of the self attentions whose names start with `starts`; `argument` is what the constructor calls their number. */
export function localHeads(keys: Keys, args: Arguments, starts: readonly string[], argument: string): LocalHeads {
  const table = (start: string, name: string) => keys.get(`${start}local_attn.rel_pos.${name}`);
  const shaw = starts.map((start) => table(start, "weights")?.shape[1] ?? 0);
  const rotary = starts.map((start) => table(start, "inv_freq") !== undefined);
  args.accept("local_window_size", "local_attention_version");
  if (!shaw.some((count) => count > 0) && !rotary.includes(true)) {
    args.fact(argument, 0, "the absence of local_attn tensors");
    return { heads: starts.map(() => 0), settings: { window: 256, era: "1.9" } };
  }
  const window = args.open("local_window_size", 256, "rows of a window of the local heads", positive);
  if (!rotary.includes(true)) {
    args.fact(argument, shaw, "local_attn.rel_pos.weights");
    return { heads: shaw, settings: { window, era: "1.9" } };
  }
  const note = "how many of the last heads of a layer are local: a number, or one for every layer";
  const given = args.ask(argument, note, perLayer(starts.length));
  const wrong = given ? starts.findIndex((_, i) => (given[i] > 0) !== rotary[i]) : -1;
  if (wrong >= 0) {
    throw new InputError(
      `Cannot use "${args.configuration!.path}" with "${args.model}": it says ${args.prefix}${argument} = ` +
        `${JSON.stringify(given)}, but layer ${wrong} ${rotary[wrong] ? "has" : "has no"} local_attn tensors`,
    );
  }
  const which = "version of the local-attention package the outputs must equal: 1.4.x, or 1.9 and later";
  const era = args.open("local_attention_version", "1.9" as const, which, localEra);
  return { heads: rotary.map((local, i) => local ? given?.[i] ?? null : 0), settings: { window, era } };
}

function normAt(keys: Keys, base: string, dim: number): NormLayout {
  const scale = keys.get(`${base}.g`);
  if (scale) {
    if (scale.shape.reduce((a, b) => a * b, 1) !== 1) keys.need(`${base}.g`, [1]);
    return { kind: scale.shape.length === 0 ? "rezero" : "scale", g: scale.name };
  }
  return layerNorm(keys, `${base}.norm`, dim);
}

/** A LayerNorm `name.weight`, `name.bias` [dim]. */
export function layerNorm(keys: Keys, name: string, dim: number, epsilon = 1e-5): NormLayout {
  const weight = keys.need(`${name}.weight`, [dim]).name;
  return { kind: "layer", weight, bias: keys.need(`${name}.bias`, [dim]).name, epsilon };
}

function attentionAt(settings: Settings, base: string, kind: "self" | "cross", local: number | null): AttentionLayout {
  const { keys, dim } = settings;
  const path = attentionPath(keys, base);
  return {
    kind,
    norm: normAt(keys, base, dim),
    shift: path === "fn.fn",
    ...attentionTensors(settings, `${base}.${path}.`, local),
  };
}

/** The tensors of one (Self|Cross)Attention whose names start with `start`. `local` null: local heads, but nobody knows how many. */
export function attentionTensors(
  { keys, dim, window, era }: Settings,
  start: string,
  local: number | null,
): Omit<AttentionLayout, "kind" | "norm" | "shift"> {
  const projection = keys.get(`${start}fast_attention.projection_matrix`, [null, null]);
  const out = keys.dense(`${start}to_out`, dim, null);
  const inner = out.inputs;
  const [q, k, v] = keys.has(`${start}to_qkv.weight`)
    ? joined(keys.dense(`${start}to_qkv`, 3 * inner, dim))
    : ["to_q", "to_k", "to_v"].map((name) => keys.dense(start + name, inner, dim));
  keys.get(`${start}fast_attention.calls_since_last_redraw`);
  const headDim = projection?.shape[1] ?? inner;
  const heads = projection ? headsOf(keys, q, headDim, projection.name) : 1;
  return {
    q,
    k,
    v,
    out,
    heads,
    kvHeads: heads,
    headDim,
    features: projection?.shape[0] ?? 0,
    projection: projection ? { name: projection.name, transposed: false } : null,
    local: localAt(keys, `${start}local_attn.rel_pos.`, local, { window, era, heads, headDim }),
  };
}

/** How many heads of `headDim` columns a layer makes; throws InputError where they are no whole number. */
export function headsOf(keys: Keys, { weight, outputs }: DenseLayout, headDim: number, projection: string): number {
  if (outputs % headDim === 0) return outputs / headDim;
  throw new InputError(
    `Cannot use "${keys.path}" as ${keys.title}: tensor "${weight}" makes ${outputs} columns, ` +
      `no multiple of the ${headDim} of "${projection}"`,
  );
}

function joined(all: DenseLayout): DenseLayout[] {
  const outputs = all.outputs / 3;
  return [0, 1, 2].map((part) => ({ ...all, outputs, firstRow: part * outputs }));
}

function localAt(
  keys: Keys,
  start: string,
  count: number | null,
  { window, era, heads, headDim }: { window: number; era: "1.4" | "1.9"; heads: number; headDim: number },
): LocalLayout | null {
  const shaw = keys.get(`${start}weights`, [null, null, headDim]);
  const rotary = keys.get(`${start}inv_freq`, [headDim / 2]);
  if (count === 0 || !(shaw ?? rotary)) return null;
  if (count !== null && count > heads) {
    throw new InputError(
      `Cannot use "${keys.path}" as ${keys.title}: ${count} local heads of ${heads} heads in a layer`,
    );
  }
  return { heads: count ?? 0, window, era: shaw ? "shaw" : era, tensor: (shaw ?? rotary)!.name };
}

function feedForwardAt({ keys, dim }: Settings, base: string): FeedForwardLayout {
  const starts = ["fn.fn.", "fn.fn.fn.", "fn."].map((path) => `${base}.${path}`);
  const named = (start: string) => keys.has(`${start}w1.weight`) || keys.has(`${start}net.0.weight`);
  const start = starts.find(named) ?? starts[0];
  const old = keys.has(`${start}net.0.weight`);
  const second = keys.dense(start + (old ? "net.2" : "w2"), dim, null);
  const first = keys.dense(start + (old ? "net.0" : "w1"), null, dim);
  const gated = first.outputs === 2 * second.inputs;
  if (!gated && first.outputs !== second.inputs) keys.dense(start + (old ? "net.0" : "w1"), second.inputs, dim);
  const shift = start === starts[1];
  return { norm: normAt(keys, base, dim), shift, first, second, gated, activation: "gelu", times: null };
}

/** Everything the layers tell of the arguments of Performer. */
function reportFacts(args: Arguments, layers: readonly LayerLayout[], flow: ModelLayout["flow"], cross: boolean): void {
  const [{ attention, feedForward }] = layers;
  const of = (name: string) => `tensor "${name}"`;
  attentionFacts(args, attention);
  args.fact("depth", cross ? layers.length / 2 : layers.length, "the number of layers");
  args.fact("use_scalenorm", attention.norm!.kind === "scale", "the norms of its layers");
  // With both, use_scalenorm wins and no ReZero is made.
  args.accept("use_rezero");
  if (attention.norm!.kind !== "scale") {
    args.fact("use_rezero", attention.norm!.kind === "rezero", "the norms of its layers");
  }
  args.fact("ff_glu", feedForward!.gated, of(feedForward!.first.weight));
  args.fact("ff_mult", feedForward!.second.inputs / attention.q.inputs, of(feedForward!.second.weight));
  args.fact("reversible", flow === "reversible", "the names of its layers");
  args.fact("shift_tokens", attention.shift, "the names of its layers");
}

/** What one attention tells of its arguments. */
export function attentionFacts(
  args: Arguments,
  { q, out, projection, features, heads, headDim }: AttentionLayout,
): void {
  const of = (name: string) => `tensor "${name}"`;
  args.fact("dim", q.inputs, of(q.weight));
  args.accept("heads", "dim_head", "nb_features");
  if (projection) {
    const source = `${of(projection.name)} [${features}, ${headDim}]`;
    args.fact("heads", heads, `${of(q.weight)} [${q.outputs}, ${q.inputs}] with ${source}`);
    args.fact("dim_head", headDim, source);
    args.fact("nb_features", features, source);
  }
  args.fact("qkv_bias", q.bias !== null, q.bias ? of(q.bias) : "the absence of to_q.bias");
  args.fact("attn_out_bias", out.bias !== null, out.bias ? of(out.bias) : "the absence of to_out.bias");
}

function signsOf(
  keys: Keys,
  layers: readonly LayerLayout[],
  pairs: readonly Pair[],
): PerformerLayers["signs"] {
  const [{ attention, feedForward }] = layers;
  const start = startOf(keys, pairs[0].attention);
  return {
    flat: pairs[0].attention.endsWith(".fn"),
    joined: attention.q.weight.endsWith("to_qkv.weight"),
    projection: attention.projection !== null,
    oldFeedForward: feedForward!.first.weight.endsWith("net.0.weight"),
    attentionCounter: keys.has(`${start}fast_attention.calls_since_last_redraw`),
    shift: attention.shift,
    queryBias: attention.q.bias !== null,
    outBias: attention.out.bias !== null,
  };
}
