/** PerformerLM of lucidrains/performer-pytorch, every version, and scBERT, its fork with a gene2vec table. */
import { Arguments } from "../arguments.ts";
import type {
  Description,
  ModelLayout,
  NormLayout,
  OutputLayout,
  PositionLayout,
  RotaryLayout,
  VersionRange,
} from "../description.ts";
import { Keys } from "../keys.ts";
import { compareVersions, performerVersions } from "../versions.ts";
import { type Candidate, type Family, prefixesOf } from "./family.ts";
import { layerNorm, type PerformerLayers, performerLayers } from "./layers.ts";

/** A PerformerLM under a prefix, before it is described: PerformerEncDec has two. */
export interface LanguageModel {
  readonly keys: Keys;
  readonly args: Arguments;
  readonly layout: ModelLayout;
  readonly versions: VersionRange;
  readonly scbert: boolean;
  /** Why it cannot be run, or null. */
  readonly reason: string | null;
}

/** Reads the PerformerLM whose names start with `prefix`. */
export function readLanguageModel(
  candidate: Candidate,
  prefix: string,
  options: { readonly argumentPrefix?: string; readonly causal?: boolean; readonly crossing?: boolean } = {},
): LanguageModel {
  const keys = new Keys(candidate.path, "PerformerLM", prefix, candidate.headers);
  const args = new Arguments(candidate.path, candidate.configuration, options.argumentPrefix);
  const { layers: net, performerCounter, updater } = bodyOf(keys, args, options);
  const { dim } = net;
  const table = keys.need("token_emb.weight", [null, dim]);
  args.fact("num_tokens", table.shape[0], `tensor "${table.name}"`);
  const headDim = net.layers[0].attention.headDim;
  const { positions, direct } = positionsOf(keys, args, dim);
  const rotary = rotaryOf(keys, args, headDim, net.signs.projection);
  const norm = keys.under("norm.") ? layerNorm(keys, "norm", dim) : null;
  const { output, finalNorm, toLogits } = outputOf(keys, args, { dim, tokens: table.shape[0], norm });
  const scbert = positions.kind === "gene2vec" || output.kind === "scbert-classifier" ||
    (positions.kind === "none" && !rotary && performerCounter);
  args.accept("rotary_position_emb", "axial_position_emb", "axial_position_shape", "g2v_position_emb");
  const maxLength = longest(positions, rotary, output);
  if (maxLength !== null && !args.facts.axial_position_emb) args.fact("max_seq_len", maxLength, "its position table");
  else args.accept("max_seq_len");
  const versions = performerVersions({
    ...net.signs,
    lm: true,
    performerCounter,
    updater,
    toLogits,
    toOut: keys.under("to_out."),
    norm: norm !== null,
    directPositions: direct,
    embeddedPositions: positions.kind === "absolute" && !direct,
    rotary: rotary !== null,
    positions: positions.kind !== "none",
  });
  return {
    keys,
    args,
    versions,
    scbert,
    reason: net.signs.projection
      ? null
      : "it has no projection matrices: performer-pytorch saves them from 0.11.0 on, so its random features are lost",
    layout: {
      dim,
      embedding: { table: table.name, tokens: table.shape[0] },
      positions,
      rotary: rotary && { kind: "interleaved", table: rotary.table, positions: rotary.positions },
      flow: net.flow,
      layers: net.layers,
      finalNorm,
      output,
      maxLength,
      causal: net.causal,
      kernel: net.kernel,
      activation: net.activation,
      encoder: null,
    },
  };
}

/** The layers, and the counters of redraws that date them. */
function bodyOf(
  keys: Keys,
  args: Arguments,
  options: { readonly causal?: boolean; readonly crossing?: boolean },
): { layers: PerformerLayers; performerCounter: boolean; updater: boolean } {
  // AutoregressiveWrapper keeps its model as `net`.
  const wrapped = /(^|\.)net\.$/.test(keys.prefix);
  const performerCounter = keys.get("performer.calls_since_last_redraw") !== undefined;
  const updater = keys.get("performer.proj_updater.calls_since_last_redraw") !== undefined;
  const layers = performerLayers(keys, args, "performer.", {
    causal: options.causal ?? { assumed: wrapped },
    crossing: options.crossing,
  });
  return { layers, performerCounter, updater };
}

function positionsOf(keys: Keys, args: Arguments, dim: number): { positions: PositionLayout; direct: boolean } {
  const axial = [".", "_"].map((dot) => [keys.get(`pos_emb.weights${dot}0`), keys.get(`pos_emb.weights${dot}1`)])
    .find((pair) => pair[0] && pair[1]);
  if (axial) {
    const [first, second] = axial.map((header) => header!);
    const shape = [first.shape[1], second.shape[2]] as const;
    args.fact("axial_position_emb", true, `tensor "${first.name}"`);
    args.fact("axial_position_shape", shape, `tensors "${first.name}" and "${second.name}"`);
    args.fact("rotary_position_emb", false, `tensor "${first.name}"`);
    return { positions: { kind: "axial", first: first.name, second: second.name, shape }, direct: false };
  }
  const buffer = keys.get("pos_emb.emb", [null, dim]);
  if (buffer) {
    return { positions: { kind: "sinusoid", table: buffer.name, positions: buffer.shape[0] }, direct: false };
  }
  const direct = keys.get("pos_emb.weight", [null, dim]);
  const learned = direct ?? keys.get("pos_emb.emb.weight", [null, dim]);
  if (!learned) return { positions: { kind: "none" }, direct: false };
  const source = `tensor "${learned.name}"`;
  args.fact("axial_position_emb", false, source);
  args.fact("rotary_position_emb", false, source);
  const kind = learned.dtype === "f64" ? "gene2vec" : "absolute";
  if (kind === "gene2vec") args.fact("g2v_position_emb", true, `${source}, which is float64`);
  return { positions: { kind, table: learned.name, positions: learned.shape[0] }, direct: direct !== undefined };
}

function rotaryOf(
  keys: Keys,
  args: Arguments,
  headDim: number,
  known: boolean,
): Extract<RotaryLayout, { kind: "interleaved" }> | null {
  const table = keys.get("layer_pos_emb.emb", known ? [null, headDim] : undefined);
  if (!table) return null;
  args.fact("rotary_position_emb", true, `tensor "${table.name}"`);
  args.fact("dim_head", table.shape[1], `tensor "${table.name}"`);
  return { kind: "interleaved", table: table.name, positions: table.shape[0] };
}

/** The last norm and the output layer, by all the names they have had. */
function outputOf(
  keys: Keys,
  args: Arguments,
  { dim, tokens, norm }: { dim: number; tokens: number; norm: NormLayout | null },
): { output: OutputLayout; finalNorm: NormLayout | null; toLogits: "none" | "plain" | "with-norm" } {
  const source = (name: string) => `tensor "${keys.prefix}${name}"`;
  if (keys.has("to_out.conv1.weight")) {
    const conv = {
      weight: keys.need("to_out.conv1.weight", [1, 1, 1, dim]).name,
      bias: keys.need("to_out.conv1.bias", [1]).name,
    };
    const fc1 = keys.dense("to_out.fc1", null, null);
    const fc2 = keys.dense("to_out.fc2", null, fc1.outputs);
    const dense = [fc1, fc2, keys.dense("to_out.fc3", null, fc2.outputs)];
    args.fact("tie_embed", false, source("to_out.conv1.weight"));
    return { output: { kind: "scbert-classifier", conv, dense }, finalNorm: norm, toLogits: "none" };
  }
  if (keys.under("to_out.")) {
    args.fact("tie_embed", false, source("to_out.weight"));
    const dense = keys.dense("to_out", tokens, dim);
    return { output: { kind: "dense", dense, norm: null }, finalNorm: norm, toLogits: "none" };
  }
  if (keys.under("to_logits.0.")) {
    const output = {
      kind: "dense",
      norm: layerNorm(keys, "to_logits.0", dim),
      dense: keys.dense("to_logits.1", tokens, dim),
    } as const;
    return { output, finalNorm: norm, toLogits: "with-norm" };
  }
  if (keys.under("to_logits.")) {
    const dense = keys.dense("to_logits", tokens, dim);
    return { output: { kind: "dense", dense, norm: null }, finalNorm: norm, toLogits: "plain" };
  }
  args.fact("tie_embed", true, "the absence of to_out");
  return { output: { kind: "tied" }, finalNorm: norm, toLogits: "none" };
}

function longest(
  positions: PositionLayout,
  rotary: { readonly positions: number } | null,
  output: OutputLayout,
): number | null {
  if (output.kind === "scbert-classifier") return output.dense[0].inputs;
  if (positions.kind === "axial") return positions.shape[0] * positions.shape[1];
  if (positions.kind !== "none") return positions.positions;
  return rotary?.positions ?? null;
}

/** The rules of a range of versions: the key maximum is one per head from 1.1.1 on, one over everything before. */
export function rulesOf(versions: VersionRange): "lucidrains" | "lucidrains-global" {
  return compareVersions(versions.to ?? "0", "1.1.0") <= 0 ? "lucidrains-global" : "lucidrains";
}

/** Adds what the keys of 1.0.9 to 1.1.4 leave open about the numerics. */
export function openRules(args: Arguments, versions: VersionRange): void {
  const { from, to } = versions;
  if (rulesOf(versions) !== "lucidrains" || (from !== null && compareVersions(from, "1.1.1") >= 0)) return;
  if (to === null) return;
  args.assumed.push({
    argument: "compat",
    value: "lucidrains",
    from: "default",
    note:
      "weights trained with performer-pytorch 1.1.0 or before take the key maximum over all heads: --compat lucidrains-global",
  });
}

export const performerLm: Family = {
  title: "PerformerLM of performer-pytorch, scBERT",
  prefixes: (names) => {
    const nets = new Set(prefixesOf(names, /^(.*?)performer\.net\./));
    return prefixesOf(names, /^(.*?)token_emb\.weight$/).filter((prefix) => nets.has(prefix));
  },
  describe(candidate, prefix): Description {
    const { keys, args, layout, versions, scbert, reason } = readLanguageModel(candidate, prefix);
    args.refuseUnknown();
    if (!scbert) openRules(args, versions);
    return {
      family: scbert ? "scbert" : "performer-lm",
      title: scbert
        ? layout.output.kind === "scbert-classifier" ? "scBERT, finetuned classifier" : "scBERT"
        : "PerformerLM (lucidrains/performer-pytorch)",
      prefix,
      versions: scbert ? { ...versions, text: "fork of 1.0.2 or before" } : versions,
      rules: scbert ? "lucidrains-global" : rulesOf(versions),
      architecture: args.facts,
      assumed: args.assumed,
      unknown: args.unknown,
      extra: keys.extra(),
      layout: reason ? null : layout,
      reason,
    };
  },
};
