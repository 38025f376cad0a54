/**
 * Which versions of performer-pytorch write these keys. Every marker narrows an inclusive range; what arguments can also bring
 * about (biases, rotary positions) only narrows it where no version allows the contrary.
 *
 * Source: the state_dict of every tag of lucidrains/performer-pytorch, 0.0.1 to 1.1.4.
 */
import type { VersionRange } from "./description.ts";

export const LATEST = "1.1.4";

/** One sign in the keys: holds from `from` to `to`, both inclusive. */
interface Marker {
  readonly present: boolean;
  readonly says: string;
  readonly from?: string;
  readonly to?: string;
}

/** Signs found by the families; `lm` says that embeddings and output layer are there to be judged. */
export interface Signs {
  readonly lm: boolean;
  /** `net.{j}.fn.…` instead of `net.layers.{i}.{0,1}` or `net.blocks`. */
  readonly flat: boolean;
  readonly joined: boolean;
  readonly projection: boolean;
  readonly oldFeedForward: boolean;
  readonly attentionCounter: boolean;
  readonly performerCounter: boolean;
  readonly updater: boolean;
  readonly shift: boolean;
  readonly queryBias: boolean;
  readonly outBias: boolean;
  readonly toLogits: "none" | "plain" | "with-norm";
  readonly toOut: boolean;
  readonly norm: boolean;
  readonly directPositions: boolean;
  readonly embeddedPositions: boolean;
  readonly rotary: boolean;
  readonly positions: boolean;
}

/** The range of versions that all signs allow. */
export function performerVersions(signs: Signs): VersionRange {
  const { lm } = signs;
  const old = !signs.updater && !signs.performerCounter;
  const markers: readonly Marker[] = [
    { present: signs.flat, says: "layers in one list", to: "0.1.0" },
    { present: !signs.flat, says: "layers in pairs", from: "0.0.6" },
    { present: signs.joined, says: "to_qkv in one tensor", to: "0.7.2" },
    { present: !signs.joined, says: "to_q, to_k, to_v", from: "0.7.3" },
    { present: signs.oldFeedForward, says: "feed-forward net.0, net.2", to: "0.4.x" },
    { present: !signs.oldFeedForward, says: "feed-forward w1, w2", from: "0.5.0" },
    { present: lm && signs.toLogits === "plain", says: "to_logits", to: "0.7.3" },
    { present: lm && signs.toLogits === "with-norm", says: "to_logits.0, .1", from: "0.3.0", to: "0.7.3" },
    { present: lm && signs.toLogits === "plain" && !signs.norm, says: "to_logits without a norm", to: "0.2.1" },
    { present: lm && signs.toLogits !== "none" && signs.norm, says: "norm", from: "0.4.0" },
    { present: lm && signs.toLogits === "with-norm" && !signs.norm, says: "no norm beside to_logits", to: "0.3.x" },
    { present: lm && !signs.joined && signs.toLogits === "none", says: "no to_logits", from: "0.7.4" },
    { present: signs.attentionCounter, says: "calls_since_last_redraw in every layer", from: "0.10.0", to: "0.13.x" },
    { present: signs.projection, says: "projection_matrix", from: "0.11.0" },
    { present: !signs.projection, says: "no projection_matrix", to: "0.10.x" },
    { present: signs.performerCounter, says: "performer.calls_since_last_redraw", from: "0.14.0", to: "1.0.8" },
    { present: old && signs.projection && !signs.attentionCounter, says: "no counter of redraws" },
    { present: lm && signs.toOut, says: "to_out", from: "0.14.4" },
    { present: lm && signs.directPositions, says: "pos_emb.weight", to: "0.14.x" },
    { present: lm && signs.embeddedPositions, says: "pos_emb.emb.weight", from: "0.15.0" },
    { present: lm && signs.rotary, says: "rotary buffers", from: "1.0.0" },
    {
      present: lm && signs.rotary && !signs.positions,
      says: "layer_pos_emb without pos_emb",
      from: "1.0.3",
      to: "1.0.3",
    },
    {
      present: lm && signs.rotary && signs.positions && signs.performerCounter && !signs.queryBias && signs.outBias,
      says: "out biases without query biases",
      from: "1.0.2",
    },
    { present: lm && !signs.joined && !signs.queryBias, says: "no query biases", from: "1.0.2" },
    { present: !signs.joined && !signs.outBias, says: "no out biases", from: "1.0.7" },
    { present: signs.updater, says: "proj_updater", from: "1.0.9" },
    { present: signs.shift, says: "token shift", from: "1.1.0" },
  ];
  const present = markers.filter((marker) => marker.present);
  const from = present.reduce<string | null>((most, marker) => later(most, marker.from ?? null), null);
  const to = present.reduce<string>((least, marker) => earlier(least, marker.to ?? LATEST), LATEST);
  const says = present.filter((marker) => marker.from ?? marker.to).map((marker) => marker.says);
  return { from, to, text: rangeText(from, to, signs.flat), markers: says };
}

/** "1.0.9 … 1.1.4"; the flat layout was left at 0.0.6, came back in 0.1.0 and was left for good. */
function rangeText(from: string | null, to: string, flat: boolean): string {
  if (flat) return "≤ 0.0.5 or 0.1.0";
  if (from === null) return `≤ ${to}`;
  return from === to ? from : `${from} … ${to}`;
}

/** Negative, 0 or positive as a < b, a = b, a > b; "x" stands for any number. */
export function compareVersions(a: string, b: string): number {
  const parts = (version: string) => version.split(".").map((part) => part === "x" ? Infinity : Number(part));
  const [left, right] = [parts(a), parts(b)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const [x, y] = [left[i] ?? 0, right[i] ?? 0];
    if (x !== y) return x < y ? -1 : 1;
  }
  return 0;
}

function later(a: string | null, b: string | null): string | null {
  if (a === null || b === null) return a ?? b;
  return compareVersions(a, b) >= 0 ? a : b;
}

function earlier(a: string, b: string): string {
  return compareVersions(a, b) <= 0 ? a : b;
}
