/** Parts of performer-pytorch without embeddings: Performer, SelfAttention, and scFoundation's decoder, a Performer and a norm. */
import { Arguments, boolean } from "../arguments.ts";
import type { Description, ModelLayout, NormLayout } from "../description.ts";
import { Keys } from "../keys.ts";
import { performerVersions } from "../versions.ts";
import { type Family, prefixesOf, withTensor } from "./family.ts";
import {
  attentionFacts,
  attentionTensors,
  kernelOf,
  layerNorm,
  localHeads,
  type PerformerLayers,
  performerLayers,
} from "./layers.ts";
import { openRules, rulesOf } from "./performer_lm.ts";

/** A model of rows `L × dim` in, `L × dim` out. */
function rowsModel(net: Omit<PerformerLayers, "signs">, finalNorm: NormLayout | null): ModelLayout {
  const { dim, flow, layers, causal, kernel, activation } = net;
  return {
    dim,
    embedding: null,
    positions: { kind: "none" },
    rotary: null,
    flow,
    layers,
    finalNorm,
    output: { kind: "none" },
    maxLength: null,
    causal,
    kernel,
    activation,
    encoder: null,
  };
}

/** Signs that only a PerformerLM shows. */
const NO_LM = {
  lm: false,
  toLogits: "none",
  toOut: false,
  norm: false,
  directPositions: false,
  embeddedPositions: false,
  rotary: false,
  positions: false,
} as const;

const MISSING_PROJECTION = "it has no projection matrices, so its random features are lost";

export const performer: Family = {
  title: "Performer of performer-pytorch (BulkFormer's blocks)",
  prefixes: (names) =>
    prefixesOf(names, /^((?:.*?\.)?)net\.(?:(?:layers\.\d+\.\d+|blocks\.\d+\.f\.net|\d+)\.).*\bto_(?:q|qkv)\.weight$/)
      .filter((prefix) => !prefix.endsWith("performer.")),
  describe(candidate, prefix): Description {
    const keys = new Keys(candidate.path, "Performer", prefix, candidate.headers);
    const args = new Arguments(candidate.path, candidate.configuration);
    const performerCounter = keys.get("calls_since_last_redraw") !== undefined;
    const updater = keys.get("proj_updater.calls_since_last_redraw") !== undefined;
    const net = performerLayers(keys, args, "", { causal: { assumed: false } });
    args.refuseUnknown();
    const versions = performerVersions({ ...net.signs, ...NO_LM, performerCounter, updater });
    openRules(args, versions);
    return {
      family: "performer",
      title: "Performer (lucidrains/performer-pytorch)",
      prefix,
      versions,
      rules: rulesOf(versions),
      architecture: args.facts,
      assumed: args.assumed,
      unknown: args.unknown,
      extra: keys.extra(),
      layout: net.signs.projection ? rowsModel(net, null) : null,
      reason: net.signs.projection ? null : MISSING_PROJECTION,
    };
  },
};

export const scFoundation: Family = {
  title: "scFoundation's Performer decoder",
  prefixes: (names) => {
    const found = prefixesOf(names, /^((?:.*\.)?decoder\.)performer\.net\.layers\.\d+\.0\..*to_q\.weight$/);
    const whole = new Set(withTensor(found, names, "token_emb.weight"));
    return found.filter((prefix) => !whole.has(prefix));
  },
  describe(candidate, prefix): Description {
    const keys = new Keys(candidate.path, "scFoundation decoder", prefix, candidate.headers);
    const args = new Arguments(candidate.path, candidate.configuration);
    keys.get("performer.calls_since_last_redraw");
    const net = performerLayers(keys, args, "performer.", { causal: false, crossing: false });
    args.accept("causal", "cross_attend", "max_seq_len");
    args.refuseUnknown();
    const layout = rowsModel(net, layerNorm(keys, "norm", net.dim));
    return {
      family: "scfoundation",
      title: "scFoundation, its Performer decoder with the norm behind it",
      prefix,
      versions: null,
      rules: "lucidrains-global",
      architecture: args.facts,
      assumed: args.assumed,
      unknown: args.unknown,
      extra: keys.extra(),
      layout,
      reason: null,
    };
  },
};

export const selfAttention: Family = {
  title: "SelfAttention of performer-pytorch",
  prefixes: (names) => {
    const found = prefixesOf(names, /^((?:.*\.)?)fast_attention\.projection_matrix$/);
    return withTensor(found.filter((prefix) => !/(^|\.)fn\.$/.test(prefix)), names, "to_q.weight");
  },
  describe(candidate, prefix): Description {
    const keys = new Keys(candidate.path, "SelfAttention", prefix, candidate.headers);
    const args = new Arguments(candidate.path, candidate.configuration);
    const dim = keys.need("to_q.weight", [null, null]).shape[1];
    const causal = args.open("causal", false, "rows see only rows up to their own; true or false", boolean);
    const kernel = kernelOf(args);
    const local = localHeads(keys, args, [""], "local_heads");
    const tensors = attentionTensors({ keys, dim, ...local.settings }, "", local.heads[0]);
    const attention = { kind: "self", norm: null, shift: false, ...tensors } as const;
    attentionFacts(args, attention);
    args.refuseUnknown();
    const versions = performerVersions({
      ...NO_LM,
      flat: false,
      joined: false,
      projection: true,
      oldFeedForward: false,
      attentionCounter: keys.has("fast_attention.calls_since_last_redraw"),
      shift: false,
      queryBias: attention.q.bias !== null,
      outBias: attention.out.bias !== null,
      performerCounter: false,
      updater: false,
    });
    openRules(args, versions);
    const layers = [{ attention, feedForward: null }];
    return {
      family: "self-attention",
      title: "SelfAttention (lucidrains/performer-pytorch)",
      prefix,
      versions,
      rules: rulesOf(versions),
      architecture: args.facts,
      assumed: args.assumed,
      unknown: args.unknown,
      extra: keys.extra(),
      layout: rowsModel({ dim, flow: "bare", layers, causal, ...kernel }, null),
      reason: null,
    };
  },
};
