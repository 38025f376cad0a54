/**
 * Where the numbers of fitted maps come from: which rows are looked at, and the one pass over them before attention starts.
 *
 * A sample is whole pieces of rows spread evenly over the file; which rows they are depends on the number of rows alone, and moments add
 * up row by row, so that neither tiles nor backends change the fit.
 */
import { type Attention, isExact, isNone, logitScale, type Sizes } from "./attention.ts";
import { UsageError } from "./errors.ts";
import { AUTO, type FeatureMap, featureMap } from "./feature_map.ts";
import { type Fit, fitHead, type FitWish, fixedFit, needsProducts, type ParamsSource } from "./fitted.ts";
import type { Inputs } from "./inputs.ts";
import { Moments } from "./moments.ts";
import type { Precision, RowRange } from "./tensor.ts";

/** What a run does about it. */
export interface FitPlan {
  readonly source: ParamsSource;
  readonly centred: boolean;
}

const SAMPLE_ROWS = 4096;
const PREFIX_ROWS = 1024;
/** Rows of one piece of a sample. */
const PIECE = 64;
/** Rows read at once where they lie together. */
const READ_ROWS = 512;

/** "sample:4096" as the command line writes it. */
export const sourceText = (source: ParamsSource): string =>
  "rows" in source ? `${source.kind}:${source.rows}` : source.kind;

/** The opposite. Throws UsageError for anything else. */
export function parseSource(text: string): ParamsSource {
  if (text === "fixed" || text === "file") return { kind: text };
  const match = /^(prefix|sample):(\d+)$/.exec(text);
  const rows = Number(match?.[2]);
  if (!match || !Number.isSafeInteger(rows) || rows < 1) {
    throw new UsageError("expected fixed, file, prefix:N or sample:N, such as sample:4096");
  }
  return { kind: match[1] as "prefix" | "sample", rows };
}

/**
 * Settles what is fitted and from which rows, as `attention.fitting` wishes; null: nothing is, as the map has no fitted numbers and keys stay where they are.
 * @param layered inputs come from a checkpoint's layer. Throws UsageError for wishes that contradict the attention.
 */
export function planFit(attention: Attention, layered = false): FitPlan | null {
  const { params, centre } = attention.fitting ?? { params: null, centre: "auto" };
  if (attention.features === AUTO) return null; // planned when a map has been chosen
  const map = isExact(attention) || isNone(attention) || attention.nearFar ? null : featureMap(attention.features);
  if (!map || map.kernel !== "softmax" || map.family === "hybrid" || attention.compat !== "exact") {
    const what = attention.compat === "exact" ? `--features ${attention.features}` : `--compat ${attention.compat}`;
    if (centre === "on") {
      throw new UsageError(`Cannot use --centre on with ${what}: only random features of softmax can move keys`);
    }
    if (params && params.kind !== "fixed") {
      throw new UsageError(`Cannot use --params ${sourceText(params)} with ${what}: it has no numbers to fit`);
    }
    return null;
  }
  const source = params ?? defaultSource(attention, map, centre);
  if (source.kind === "fixed") {
    if (centre === "on") {
      throw new UsageError(
        `Cannot use --centre on with --params fixed: what keys are moved by comes from data, use ${
          attention.causal ? "prefix:N" : "sample:N"
        }`,
      );
    }
    return map.fitted ? { source, centred: false } : null;
  }
  const centred = centre === "on" || (centre === "auto" && !attention.causal && !attention.given && !layered);
  return map.fitted || centred ? { source, centred } : null;
}

function defaultSource({ causal, given }: Attention, map: FeatureMap, centre: FitWish["centre"]): ParamsSource {
  if (given && centre !== "on") return { kind: "fixed" };
  if (!causal) return { kind: "sample", rows: SAMPLE_ROWS };
  return map.fitted || centre === "on" ? { kind: "prefix", rows: PREFIX_ROWS } : { kind: "fixed" };
}

/** Whether the inputs are read before attention reads them: such rows cannot come from a pipe as it flows. */
export const readsAhead = (plan: FitPlan | null): boolean => plan !== null && plan.source.kind !== "fixed";

/** Fits the map of `attention` to its inputs, read at most `tileRows` at a time; without rows to look at, to none. */
export async function fitInputs(
  attention: Attention,
  sizes: Sizes,
  plan: FitPlan,
  inputs: Inputs,
  options: { readonly precision: Precision; readonly tileRows?: number; readonly signal?: AbortSignal },
): Promise<Fit | null> {
  const map = featureMap(attention.features);
  const scale = logitScale(attention, sizes.headDim);
  const none = map.fitted ? fixedFit(map, sizes.headDim, scale) : null;
  if (plan.source.kind === "fixed") return none;
  const products = needsProducts(map);
  const queries = new Moments(sizes.heads, sizes.headDim, products);
  const keys = new Moments(sizes.kvHeads, sizes.headDim, products);
  const { precision, tileRows = READ_ROWS, signal } = options;
  const most = Math.min(tileRows, READ_ROWS);
  const same = inputs.q === inputs.k;
  let rows = 0;
  for (const range of rangesOf(plan.source, sizes.keyRows)) {
    for await (const { k, weights } of inputs.keyTiles(most, precision, range)) {
      signal?.throwIfAborted();
      keys.add(k, weights);
      if (same) queries.add(k);
      rows += k.rows;
    }
  }
  for (const range of same ? [] : rangesOf(plan.source, sizes.queryRows)) {
    for await (const q of inputs.queryTiles(most, precision, undefined, range)) {
      signal?.throwIfAborted();
      queries.add(q);
    }
  }
  if (!(keys.weight > 0 && queries.weight > 0)) return none;
  const heads = Array.from({ length: sizes.kvHeads }, (_, h) => {
    return fitHead(map, queries.ofGroup(h, sizes.kvHeads), keys.ofGroup(h, sizes.kvHeads), scale, plan.centred);
  });
  return { source: sourceText(plan.source), rows, centred: plan.centred, heads };
}

/** The rows of a source, in ascending order. */
export function rangesOf(source: ParamsSource, total: number): RowRange[] {
  const most = "rows" in source ? Math.min(source.rows, total) : total;
  if (source.kind !== "sample" || PIECE * Math.ceil(most / PIECE) >= total) {
    return [{ start: 0, end: source.kind === "sample" ? total : most }];
  }
  const pieces = Math.ceil(most / PIECE);
  return Array.from({ length: pieces }, (_, i) => {
    const size = Math.min(PIECE, most - i * PIECE);
    const start = pieces === 1 ? Math.floor((total - size) / 2) : Math.floor(i * (total - PIECE) / (pieces - 1));
    return { start, end: start + size };
  });
}
