/** What attention to run, in the user's terms, and how that becomes the numbers of a plan. Pure: reads no file, opens no device. */
import { alibiSlopes } from "./decay.ts";
import { UsageError } from "./errors.ts";
import { nearFarFlops } from "./near_far_flops.ts";
import {
  AUTO,
  bindMap,
  coordinatesOf,
  EXACT,
  type FarField,
  type FeatureMap,
  featureMap,
  identity,
  type MapParameters,
  NONE,
  projectionsFor,
} from "./feature_map.ts";
import { type Fit, fittedProjections, type FitWish, fixedFit, type HeadFit } from "./fitted.ts";
import { drawFactored, type DrawnProjection, type RowNorms } from "./projection.ts";
import type { RowTransform } from "./row_transform.ts";
import type { RuledPlan } from "./rules_plan.ts";
import { type RulesName, rulesNamed } from "./rules_table.ts";

/** An explicit projection, `matrices × m × d`. */
export interface GivenProjection {
  readonly path: string;
  readonly matrices: number;
  readonly headDim: number;
  readonly data: Float64Array;
}

/** Near keys exactly, the others by a far field (near_far.ts). */
export interface NearFarSettings {
  readonly window: number;
  readonly heavy: number;
  readonly far: FarField;
  /** Clusters C of the clustered far field, and how many of them are taken exactly per query. */
  readonly clusters: number;
  readonly top: number;
  /** Causal: rows below it are exact softmax, so that what was chosen by them leaks nothing into them. */
  readonly exactRows?: number;
}

/** The settings a user chooses. */
export interface Attention {
  /** A feature map's name, or "softmax" for exact attention. */
  readonly features: string;
  /** r, the length of φ. */
  readonly numFeatures: number;
  readonly projection: string;
  readonly norms: RowNorms;
  readonly seed: number;
  readonly causal: boolean;
  /** Logit scale S in exp(S · q·k); 1/√d when null. */
  readonly scale: number | null;
  readonly given: GivenProjection | null;
  /** Whose numerics: "exact" is our own. */
  readonly compat: RulesName;
  /** Where fitted numbers come from, and whether keys are moved; absent: nothing was asked for. */
  readonly fitting?: FitWish;
  /** Instead of random features: `features` is then the far field's name. */
  readonly nearFar?: NearFarSettings | null;
  /**
   * λ ≥ 0 of the bias −λ (i − j) of causal attention (decay.ts): one for all key heads or one for each; "alibi": the slopes of ALiBi;
   * null: none.
   */
  readonly decay?: readonly number[] | "alibi" | null;
  /** λ of shrinkage towards the mean of the values, one for all heads or one per head; "auto" fits it; null: none. */
  readonly shrink?: number | readonly number[] | "auto" | null;
}

/** Sizes of the tensors at hand. */
export interface Sizes {
  readonly queryRows: number;
  readonly keyRows: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
}

export const isExact = (attention: Attention): boolean => attention.features === EXACT;

/** No attention at all. A far field may have this name too: then the near keys are all there is. */
export const isNone = ({ features, nearFar }: Pick<Attention, "features" | "nearFar">): boolean =>
  features === NONE && !nearFar;

/** S in exp(S · q·k). */
export function logitScale(attention: Attention, headDim: number): number {
  const scale = attention.scale ?? 1 / Math.sqrt(headDim);
  if (!(scale > 0) || !Number.isFinite(scale)) {
    throw new UsageError(`Cannot use scale ${scale}: expected a positive number`);
  }
  return scale;
}

/** Why attention of a kind has no decay; null where it has. What sweeps leave out by. */
export function withoutDecay({ nearFar, features }: Pick<Attention, "nearFar" | "features">): string | null {
  if (nearFar) return "near keys and far fields have no decay";
  if (features !== EXACT && featureMap(features).angular) return "it weighs distances by itself and has no decay";
  return null;
}

/** λ per key head; null without decay. Throws UsageError where it cannot be had. */
export function decayFor(
  attention: Pick<Attention, "decay" | "causal" | "compat" | "nearFar" | "features">,
  { heads, kvHeads }: Pick<Sizes, "heads" | "kvHeads">,
): Float64Array | null {
  const { decay, causal, compat, nearFar, features } = attention;
  if (!decay) return null;
  const refuse = (why: string) =>
    new UsageError(`Cannot use --decay ${decay === "alibi" ? decay : decay.join(",")}${why}`);
  if (!causal) throw refuse(" without --causal: it is by the distance of a row to the rows before it");
  if (compat !== "exact") throw refuse(` with --compat ${compat}: that system has none; leave --compat out`);
  if (nearFar) {
    throw refuse(" with near keys and a far field, which have none: use random features or --features softmax");
  }
  if (features === AUTO) throw refuse(" with --features auto, whose near keys have none: name a feature map");
  if (features === NONE) throw refuse(" with --features none: there rows see themselves alone");
  if (features !== EXACT && featureMap(features).angular) {
    throw refuse(` with --features ${features}, which weighs distances by itself: use another map`);
  }
  if (decay === "alibi") {
    if (heads === kvHeads) return Float64Array.from(alibiSlopes(heads));
    throw refuse(
      `: ALiBi has a slope for each of ${heads} query heads, and these share ${kvHeads} key heads; give ${kvHeads} numbers instead`,
    );
  }
  if (decay.length !== 1 && decay.length !== kvHeads) {
    throw refuse(`: it has ${decay.length} numbers, expected one, or one for each of ${kvHeads} key heads`);
  }
  return Float64Array.from({ length: kvHeads }, (_, head) => decay[decay.length === 1 ? 0 : head]);
}

/** Row norms of the projection: the map's own, or those asked for. */
export const normsOf = (attention: Attention, map: FeatureMap): RowNorms => map.norms ?? attention.norms;

/**
 * The feature map with its projections for redraw `draw` (0 is the first), and with the numbers of `fit` where the map has some; maps
 * that are fitted to data take `fixedFit` without it. `transformFor` says what becomes of queries and keys before.
 */
export function parametersFor(attention: Attention, sizes: Sizes, draw = 0, fit: Fit | null = null): MapParameters {
  const map = featureMap(attention.features);
  const { headDim } = sizes;
  const scale = logitScale(attention, headDim);
  if (map.projection === "none") {
    const coordinates = coordinatesOf(map, headDim);
    return bindMap(map, { headDim: coordinates, scale, matrices: 1, weights: new Float64Array() });
  }
  if (attention.projection === "none") return bindMap(map, { headDim, scale, matrices: 1, weights: identity(headDim) });
  const drawn = projectionsOf(attention, sizes, map, draw);
  if (!map.fitted) return bindMap(map, { headDim, scale, ...drawn });
  const { heads } = fit ?? fixedFit(map, headDim, scale);
  return bindMap(map, { headDim, scale, ...fitted(heads, drawn, sizes) });
}

/** W before anything is fitted, `matrices × m × d`: as drawn first, or as given; null for maps without projection. */
export function projectionOf(attention: Attention, sizes: Sizes): Float64Array | null {
  const map = featureMap(attention.features);
  return map.projection === "none" ? null : projectionsOf(attention, sizes, map, 0).weights;
}

type Projections = Omit<DrawnProjection, "hadamard"> & {
  readonly hadamard?: DrawnProjection["hadamard"];
  matrices: number;
};

function projectionsOf(attention: Attention, sizes: Sizes, map: FeatureMap, draw: number): Projections {
  if (map.signs !== undefined) return hybridProjections(attention, sizes, map, map.signs, draw);
  const { given } = attention;
  const { headDim } = sizes;
  if (given) {
    if (given.headDim !== headDim) {
      throw new UsageError(
        `Cannot use projection matrix "${given.path}": its rows have ${given.headDim} columns, the queries have ${headDim}`,
      );
    }
    if (sizes.kvHeads % given.matrices !== 0) {
      throw new UsageError(
        `Cannot use projection matrix "${given.path}": it holds ${given.matrices} matrices for ${sizes.kvHeads} key heads`,
      );
    }
    return { matrices: given.matrices, weights: given.data };
  }
  const matrices = attention.compat === "exact" ? sizes.kvHeads : 1; // systems share one W among heads
  const projections = projectionsFor(map, attention.numFeatures, headDim);
  const { projection: kind, seed } = attention;
  const norms = normsOf(attention, map);
  return { matrices, ...drawFactored({ kind, projections, headDim, matrices, norms, seed, draw }) };
}

/** Rows for positive features, for trigonometric ones and for signs, each kind drawn for itself: they must not depend on each other. */
function hybridProjections(
  attention: Attention,
  sizes: Sizes,
  map: FeatureMap,
  signs: number,
  draw: number,
): Projections {
  const { given, projection: kind, norms, seed, numFeatures } = attention;
  const { headDim, kvHeads } = sizes;
  if (given) {
    throw new UsageError(`Cannot use projection matrix "${given.path}" with --features ${map.name}: it draws its own`);
  }
  const rows = projectionsFor(map, numFeatures, headDim);
  const m = (rows - signs) / 2;
  const most = Math.max(m, signs);
  const drawn = drawFactored({ kind, projections: most, headDim, matrices: 3 * kvHeads, norms, seed, draw });
  const weights = new Float64Array(kvHeads * rows * headDim);
  for (let i = 0; i < 3 * kvHeads; i++) {
    const part = i % 3;
    const from = i * most * headDim;
    const to = (Math.floor(i / 3) * rows + part * m) * headDim;
    weights.set(drawn.weights.subarray(from, from + (part < 2 ? m : signs) * headDim), to);
  }
  return { matrices: kvHeads, weights };
}

/** Projections and exponents of fitted heads, a matrix for each where heads differ. W' is no product of Hadamard factors any more. */
function fitted(heads: readonly HeadFit[], { matrices, weights }: Projections, { kvHeads, headDim }: Sizes) {
  const count = heads.length === 1 ? matrices : kvHeads;
  const size = weights.length / matrices;
  const all = {
    matrices: count,
    weights: new Float64Array(count * size),
    beta: new Float64Array(count * size / headDim),
  };
  for (let i = 0; i < count; i++) {
    const from = (i % matrices) * size;
    const one = fittedProjections(heads[i % heads.length], weights.subarray(from, from + size), headDim);
    all.weights.set(one.weights, i * size);
    all.beta.set(one.beta, i * size / headDim);
  }
  return all;
}

/** What becomes of queries and keys before the kernels see them; null: nothing. */
export function transformFor(attention: Attention, sizes: Sizes, fit: Fit | null): RowTransform | null {
  if (isExact(attention) || isNone(attention)) return null;
  const { kvHeads, headDim, queryRows, keyRows } = sizes;
  if (featureMap(attention.features).angular) return { kind: "angular", length: Math.max(1, queryRows, keyRows) };
  if (!fit || fit.heads.every(({ shift, balance }) => !shift && !balance)) return null;
  const heads = Array.from({ length: kvHeads }, (_, h) => fit.heads[h % fit.heads.length]);
  const shift = Float64Array.from(heads.flatMap((head) => Array.from(head.shift ?? new Float64Array(headDim))));
  const dense = heads.some(({ balance }) => balance && balance.T.length > headDim);
  if (heads.every(({ balance }) => !balance)) return { kind: "diagonal", queries: null, keys: null, shift };
  const none = dense ? identity(headDim) : new Float64Array(headDim).fill(1);
  const joined = (part: "T" | "inverse") => {
    return Float64Array.from(heads.flatMap(({ balance }) => Array.from(balance?.[part] ?? none)));
  };
  return { kind: dense ? "dense" : "diagonal", queries: joined("T"), keys: joined("inverse"), shift };
}

/** The plan of attention under another system's numerics; throws UsageError for settings that the system does not have. */
export function ruledPlanFor(
  attention: Attention,
  sizes: Sizes,
  parameters: MapParameters,
  tileRows: number,
): RuledPlan {
  const { compat, causal, projection, given } = attention;
  const { heads, kvHeads, headDim, valueDim } = sizes;
  const refuse = (what: string) => new UsageError(`Cannot use --compat ${compat} ${what}`);
  if (kvHeads !== heads) throw refuse(`with ${kvHeads} key heads for ${heads} query heads: it has as many of both`);
  if (attention.scale !== null) throw refuse("with --scale: its scale is 1/√d");
  if (given && given.matrices !== 1) throw refuse(`with ${given.matrices} projection matrices: its heads share one`);
  const { map } = parameters;
  const noProjection = projection === "none";
  const paired = rulesNamed(compat).paired;
  if (!noProjection && map.kernel === "softmax" && map.name !== (paired ? "hyperbolic" : "positive")) {
    throw refuse(`with --features ${map.name}: its softmax features are ${paired ? "hyperbolic" : "positive"}`);
  }
  if (map.projection === "none") throw refuse(`with --features ${map.name}: it has no such map`);
  return {
    rules: compat,
    kernel: noProjection ? "no-projection" : map.kernel === "softmax" ? "softmax" : "generalized",
    activation: map.activation ?? "relu",
    projection: parameters.weights,
    heads,
    headDim,
    valueDim,
    causal,
    tileRows,
  };
}

/** Operations of W x for one row and head: see flopCount. */
function projectionFlops({ map, headDim, projections, hadamard }: MapParameters): number {
  if (map.projection === "none") return 0;
  if (!hadamard) return 2 * headDim * projections;
  const blocks = Math.ceil(projections / hadamard.size);
  return blocks * 3 * hadamard.size * Math.log2(hadamard.size) + projections;
}

/**
 * Floating-point operations, a multiply-add counting two; exponentials and changes of sign are not counted.
 * Features 2·d·m per row and head of queries and of keys, keys and queries 2·r·(d_v + 1) each, 2·d² more where a dense matrix balances
 * them first; exact 2·(d + d_v) per visible pair. Near keys and far fields: near_far_flops.ts.
 * Features of Hadamard factors instead 3·d'·log₂ d' additions per block of d' rows and one norm for each of m rows, which is what the
 * fast transforms need, also where a backend multiplies by the dense W. `balanced`: whether there is such a matrix.
 */
export function flopCount(
  attention: Attention,
  sizes: Sizes,
  parameters: MapParameters | null,
  balanced = parameters?.map.fitted?.balance === "dense",
): number {
  const { queryRows, keyRows, heads, kvHeads, headDim, valueDim } = sizes;
  if (isNone(attention)) return 0;
  if (attention.nearFar) return nearFarFlops({ ...attention.nearFar, causal: attention.causal }, sizes);
  if (!parameters) {
    const pairs = attention.causal ? queryRows * (queryRows + 1) / 2 : queryRows * keyRows;
    return pairs * heads * 2 * (headDim + valueDim);
  }
  const balance = balanced ? 2 * headDim * headDim : 0;
  const perRow = balance + projectionFlops(parameters) + 2 * parameters.features * (valueDim + 1);
  return (queryRows * heads + keyRows * kvHeads) * perRow;
}

/** Operations of near keys and a far field, with the pairs that whole clusters took as a session counted them. */
export function countedFlops({ nearFar, causal }: Attention, sizes: Sizes, topPairs: number | undefined): number {
  return nearFarFlops({ ...nearFar!, causal, topPairs }, sizes);
}

/** About as many operations as `flopCount` says, before a projection is drawn. */
export function expectedWork(attention: Attention, sizes: Sizes): number {
  if (isExact(attention) || isNone(attention) || attention.nearFar) return flopCount(attention, sizes, null);
  return positiveFlops(attention.numFeatures, sizes);
}

/** Operations of that many positive features, whose projection is dense. */
export function positiveFlops(numFeatures: number, sizes: Sizes): number {
  const { queryRows, keyRows, heads, kvHeads, headDim, valueDim } = sizes;
  return (queryRows * heads + keyRows * kvHeads) * 2 * numFeatures * (headDim + valueDim + 1);
}

/** Checks that queries, keys and values belong together. */
export function checkSizes(sizes: Sizes, valueRows: number, keyDim: number, valueHeads: number, causal: boolean): void {
  const { queryRows, keyRows, heads, kvHeads, headDim } = sizes;
  if (keyDim !== headDim) throw new UsageError(`Keys are ${keyDim} wide per head, queries ${headDim}: they must agree`);
  if (valueRows !== keyRows) throw new UsageError(`There are ${valueRows} values for ${keyRows} keys: they must agree`);
  if (valueHeads !== kvHeads) throw new UsageError(`Values have ${valueHeads} heads, keys ${kvHeads}: they must agree`);
  if (kvHeads === 0 || heads % kvHeads !== 0) {
    throw new UsageError(`Cannot share ${kvHeads} key heads among ${heads} query heads: expected a divisor`);
  }
  if (causal && queryRows !== keyRows) {
    throw new UsageError(`Causal attention needs as many queries as keys, there are ${queryRows} and ${keyRows}`);
  }
}
