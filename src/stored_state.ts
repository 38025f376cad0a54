/**
 * A state together with all that makes its numbers mean something: the map, its projection, what it was fitted to, how far keys decay.
 * States of one fingerprint add up, whatever files and machines they come from. Plain data; state_file.ts writes and reads it.
 */
import { createHash } from "node:crypto";
import {
  type Attention,
  decayFor,
  type GivenProjection,
  logitScale,
  normsOf,
  projectionOf,
  type Sizes,
} from "./attention.ts";
import { InputError, UsageError } from "./errors.ts";
import { AUTO, EXACT, featureMap, featuresOf, NONE, projectionsFor } from "./feature_map.ts";
import { type Fit, fixedFit, type HeadFit } from "./fitted.ts";
import type { RowNorms } from "./projection.ts";
import { copyState, emptyState, mergeInto, mergeLater, type State } from "./state.ts";

/** Raised when the file changes its meaning. */
export const STATE_SCHEMA = "performer-state/1";

/** What `settings.projection` is called where W is part of the state. */
export const GIVEN = "given";

/** The settings that decide what a state's numbers are. Values that a map does not read are null, so that equal states have equal settings. */
export interface StoredSettings {
  readonly features: string;
  /** r, the length of φ. */
  readonly numFeatures: number;
  /** Rows of W; null: the map has none. */
  readonly projections: number | null;
  /** A projection by name, or "given". */
  readonly projection: string | null;
  readonly norms: RowNorms | null;
  readonly seed: number | null;
  /** S of exp(S q·k). */
  readonly scale: number | null;
  /** λ per key head. */
  readonly decay: readonly number[] | null;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  /** Whose numerics; states of other systems have no sums that add up. */
  readonly compat: "exact";
  /** Which rows the map was fitted to: "fixed", "file", "prefix:N" or "sample:N", how many, and whether keys are moved. */
  readonly params: { readonly source: string; readonly rows: number; readonly centred: boolean } | null;
}

/** A state that can be written, merged with its like and continued. */
export interface StoredState {
  /** What messages call it: the file it came from. */
  readonly path: string;
  readonly settings: StoredSettings;
  /** W where it was given. */
  readonly given: GivenProjection | null;
  /** What the map was fitted to. */
  readonly fit: Fit | null;
  /** Rows absorbed, masked ones counted. */
  readonly rows: number;
  readonly state: State;
}

/** Why attention of a kind has no state that could be kept; null where it has one. */
export function withoutState({ features, nearFar, compat, shrink }: Attention): string | null {
  if (nearFar) return "near keys and far fields need their keys again";
  if (features === EXACT) return "exact attention needs all its keys again";
  if (features === AUTO) return "it may choose near keys, which have none; name a feature map";
  if (features === NONE) return "without attention there is none";
  if (featureMap(features).angular) return "it needs the length of the sequence first";
  if (compat !== "exact") return `that of --compat ${compat} cannot be continued`;
  if (shrink !== null && shrink !== undefined) return "it does not hold the mean of the values, which --shrink needs";
  return null;
}

/** Throws UsageError for attention without a state that could be kept. */
export function requireState(attention: Attention): void {
  const why = withoutState(attention);
  if (why) throw new UsageError(`Cannot keep a state of "${attention.features}": ${why}`);
}

/**
 * A state as it is kept.
 * @param attention what it was made with, @param fit what its map was fitted to. Throws UsageError where there is no such state.
 */
export function storedState(
  attention: Attention,
  sizes: Sizes,
  fit: Fit | null,
  kept: Pick<StoredState, "path" | "rows" | "state">,
): StoredState {
  requireState(attention);
  const map = featureMap(attention.features);
  const { kvHeads, headDim, valueDim } = sizes;
  const scale = logitScale(attention, headDim);
  const fitted = fit ?? (map.fitted ? fixedFit(map, headDim, scale) : null);
  const plain = map.projection === "none";
  const { given } = attention;
  const projections = plain
    ? null
    : given
    ? given.data.length / given.matrices / headDim
    : projectionsFor(map, attention.numFeatures, headDim);
  const decay = decayFor(attention, sizes);
  const settings: StoredSettings = {
    features: map.name,
    numFeatures: plain ? headDim : featuresOf(map, projections!),
    projections,
    projection: plain ? null : given ? GIVEN : attention.projection,
    norms: plain || given ? null : normsOf(attention, map),
    seed: plain || given ? null : attention.seed,
    scale: plain ? null : scale,
    decay: decay && [...decay],
    kvHeads,
    headDim,
    valueDim,
    compat: "exact",
    params: fitted && { source: fitted.source, rows: fitted.rows, centred: fitted.centred },
  };
  return { ...kept, settings, given: plain ? null : given, fit: fitted };
}

/** A state of these settings that has seen no key. */
export function emptyLike({ settings, given, fit }: StoredState): StoredState {
  const { kvHeads, numFeatures, valueDim } = settings;
  return { path: "", settings, given, fit, rows: 0, state: emptyState(kvHeads, numFeatures, valueDim) };
}

/** The attention that a state is one of; `causal` where rows are to see those before them alone, as decay wants it. */
export function attentionOfState({ settings, given }: StoredState, causal: boolean): Attention {
  const { features, numFeatures, projection, norms, seed, scale, decay } = settings;
  return {
    features,
    numFeatures,
    projection: projection === null || given ? "orthogonal" : projection,
    norms: norms ?? "chi",
    seed: seed ?? 0,
    causal,
    scale,
    given,
    compat: "exact",
    fitting: { params: { kind: "fixed" }, centre: "off" },
    nearFar: null,
    decay,
    shrink: null,
  };
}

/** Names the settings in the order of the file: the text that the fingerprint is taken of. */
export function settingsText(settings: StoredSettings): string {
  const { features, numFeatures, projections, projection, norms, seed, scale, decay } = settings;
  const { kvHeads, headDim, valueDim, compat, params } = settings;
  const rows = params && { source: params.source, rows: params.rows, centred: params.centred };
  const map = { features, numFeatures, projections, projection, norms, seed, scale, decay };
  return JSON.stringify({ ...map, kvHeads, headDim, valueDim, compat, params: rows });
}

const sha256 = (...parts: (string | Float64Array)[]): string => {
  const hash = createHash("sha256");
  for (const part of parts) {
    hash.update(typeof part === "string" ? part : new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  }
  return hash.digest("hex");
};

/** W of settings is drawn once: states of one kind come in numbers. */
const drawn = new Map<string, string>();

/** SHA-256 of W before anything is fitted, in float64; null for maps without projection. */
export function projectionHash(stored: StoredState): string | null {
  if (stored.settings.projection === null) return null;
  if (stored.given) return sha256(stored.given.data);
  const { features, numFeatures, projection, norms, seed, kvHeads, headDim } = stored.settings;
  const key = JSON.stringify([features, numFeatures, projection, norms, seed, kvHeads, headDim]);
  let hash = drawn.get(key);
  if (hash === undefined) {
    const W = projectionOf(attentionOfState(stored, true), sizesOfState(stored));
    drawn.set(key, hash = sha256(W!));
  }
  return hash;
}

/** Sizes of an attention over a state, of as many query heads as key heads unless another number is given. */
export function sizesOfState({ settings }: Pick<StoredState, "settings">, heads = settings.kvHeads): Sizes {
  const { kvHeads, headDim, valueDim } = settings;
  return { queryRows: 0, keyRows: 0, heads, kvHeads, headDim, valueDim };
}

/** Numbers of a fit that outputs depend on, and what each says. "fixed" ones follow from the settings. */
const FIT_PARTS = ["shift", "balance", "inverse", "exponents", "directions"] as const;
/** What the numbers of one fit are called. */
export type FitPart = typeof FIT_PARTS[number];

/** Numbers of a fit by name, `heads × …`: those of all heads, or none. */
export function fitParts(fit: Fit | null, headDim: number): ReadonlyMap<FitPart, Float64Array> {
  const parts = new Map<FitPart, Float64Array>();
  if (!fit || fit.source === "fixed") return parts;
  const { heads } = fit;
  const dense = heads.some(({ balance }) => balance !== null && balance.T.length > headDim);
  const none = dense
    ? Float64Array.from({ length: headDim * headDim }, (_, at) => at % (headDim + 1) === 0 ? 1 : 0)
    : new Float64Array(headDim).fill(1);
  const balanced = heads.some(({ balance }) => balance !== null);
  const numbers = (head: HeadFit, part: FitPart): Float64Array => {
    if (part === "shift") return head.shift ?? new Float64Array();
    if (part === "exponents") return head.exponents;
    if (part === "directions") return head.directions ?? new Float64Array();
    if (!balanced) return new Float64Array();
    return (part === "balance" ? head.balance?.T : head.balance?.inverse) ?? none;
  };
  for (const part of FIT_PARTS) {
    const all = Float64Array.from(heads.flatMap((head) => Array.from(numbers(head, part))));
    if (all.length > 0) parts.set(part, all);
  }
  return parts;
}

/** SHA-256 over settings, W as drawn and the numbers that were fitted: states with the same one add up. */
export function fingerprintOf(stored: StoredState): string {
  const { settings, fit } = stored;
  const parts = [...fitParts(fit, settings.headDim)].map(([name, numbers]) => `${name} ${sha256(numbers)}`);
  const W = projectionHash(stored) ?? "none";
  return sha256([STATE_SCHEMA, settingsText(settings), `projection ${W}`, ...parts].join("\n"));
}

/** SHA-256 over what was seen: rows, keys and sums. Files that were damaged on their way are found by it. */
export const digestOf = ({ rows, state: { keys, c, z, S } }: Pick<StoredState, "rows" | "state">): string => {
  return sha256(`${rows} ${keys}\n`, c, z, S);
};

const said = (value: unknown): string => {
  if (value === null) return "none";
  return Array.isArray(value) ? value.join(",") : String(value);
};

/** Every setting in which a state differs from another: "features is positive, expected hyperbolic". None where they add up. */
export function explainDifference(found: StoredState, expected: StoredState): string[] {
  const differences: string[] = [];
  const compare = (name: string, mine: unknown, theirs: unknown) => {
    if (said(mine) !== said(theirs)) differences.push(`${name} is ${said(mine)}, expected ${said(theirs)}`);
  };
  const [{ params, ...settings }, { params: wanted, ...others }] = [found.settings, expected.settings];
  for (const name of Object.keys(JSON.parse(settingsText(found.settings))).filter((name) => name !== "params")) {
    compare(name, settings[name as keyof typeof settings], others[name as keyof typeof others]);
  }
  compare("params", params?.source ?? null, wanted?.source ?? null);
  compare("rows fitted to", params?.rows ?? null, wanted?.rows ?? null);
  compare("centred", params?.centred ?? false, wanted?.centred ?? false);
  if (differences.length > 0) return differences;
  if (projectionHash(found) !== projectionHash(expected)) {
    differences.push("the projection matrix holds other numbers");
  }
  const [mine, theirs] = [found, expected].map(({ fit, settings }) => fitParts(fit, settings.headDim));
  const other = FIT_PARTS.filter((part) => {
    const [a, b] = [mine.get(part), theirs.get(part)];
    return a?.length !== b?.length || (a && b && a.some((value, at) => value !== b[at]));
  });
  if (other.length > 0) {
    differences.push(
      `it was fitted to other rows, so that ${other.join(", ")} differ${other.length === 1 ? "s" : ""}; ` +
        "states that are to be merged are made with one fit (--like)",
    );
  }
  return differences;
}

/** Throws InputError that names every difference, where two states do not add up. */
export function requireLike(found: StoredState, expected: StoredState, doing: string): void {
  const differences = explainDifference(found, expected);
  if (differences.length === 0) return;
  throw new InputError(`Cannot ${doing} "${found.path}": ${differences.join("; ")} as in "${expected.path}"`);
}

/** Two states as one, `later` behind `earlier`; both stay as they are. They must be of one kind (`requireLike`). */
export function mergePair(earlier: StoredState, later: StoredState): StoredState {
  const state = copyState(earlier.state);
  absorbLater(earlier.settings, state, later);
  return { ...earlier, rows: earlier.rows + later.rows, state };
}

function absorbLater({ decay }: StoredSettings, into: State, { state, rows }: StoredState): void {
  if (decay) mergeLater(into, state, decay, rows);
  else mergeInto(into, state);
}

/**
 * One state of many, in float64 and in their order, which matters where there is decay: each holds the rows after those of the one before.
 * The states stay as they are. Throws InputError naming the first that does not belong, UsageError where there is none.
 */
export async function mergeStates(states: Iterable<StoredState> | AsyncIterable<StoredState>): Promise<StoredState> {
  let merged: StoredState | null = null;
  for await (const next of states) {
    if (!merged) {
      merged = { ...next, state: copyState(next.state) };
      continue;
    }
    requireLike(next, merged, "merge");
    absorbLater(merged.settings, merged.state, next);
    merged = { ...merged, rows: merged.rows + next.rows };
  }
  if (!merged) throw new UsageError("Cannot merge states: none was given");
  return merged;
}
