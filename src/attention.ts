/** What attention to run, in the user's terms, and how that becomes the numbers of a plan. Pure: reads no file, opens no device. */
import { alibiSlopes } from "./decay.ts";
import { UsageError } from "./errors.ts";
import { nearFarFlops } from "./near_far_flops.ts";
import {
  bindMap,
  EXACT,
  type FarField,
  featureMap,
  identity,
  type MapParameters,
  projectionsFor,
} from "./feature_map.ts";
import { drawFactored, type RowNorms } from "./projection.ts";
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

/** S in exp(S · q·k). */
export function logitScale(attention: Attention, headDim: number): number {
  const scale = attention.scale ?? 1 / Math.sqrt(headDim);
  if (!(scale > 0) || !Number.isFinite(scale)) {
    throw new UsageError(`Cannot use scale ${scale}: expected a positive number`);
  }
  return scale;
}

/** λ per key head; null without decay. Throws UsageError where it cannot be had. */
export function decayFor(attention: Attention, { heads, kvHeads }: Sizes): Float64Array | null {
  const { decay, causal, compat, nearFar } = attention;
  if (!decay) return null;
  const refuse = (why: string) =>
    new UsageError(`Cannot use --decay ${decay === "alibi" ? decay : decay.join(",")}${why}`);
  if (!causal) throw refuse(" without --causal: it is by the distance of a row to the rows before it");
  if (compat !== "exact") throw refuse(` with --compat ${compat}: that system has none; leave --compat out`);
  if (nearFar) {
    throw refuse(" with near keys and a far field, which have none: use random features or --features softmax");
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

/** The feature map with its projections for redraw `draw` (0 is the first). */
export function parametersFor(attention: Attention, sizes: Sizes, draw = 0): MapParameters {
  const map = featureMap(attention.features);
  const { headDim } = sizes;
  const scale = logitScale(attention, headDim);
  if (map.projection === "none") return bindMap(map, { headDim, scale, matrices: 1, weights: new Float64Array() });
  if (attention.projection === "none") return bindMap(map, { headDim, scale, matrices: 1, weights: identity(headDim) });
  const { given } = attention;
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
    return bindMap(map, { headDim, scale, matrices: given.matrices, weights: given.data });
  }
  const matrices = attention.compat === "exact" ? sizes.kvHeads : 1; // systems share one W among heads
  const projections = projectionsFor(map, attention.numFeatures, headDim);
  const { projection: kind, norms, seed } = attention;
  const drawn = drawFactored({ kind, projections, headDim, matrices, norms, seed, draw });
  return bindMap(map, { headDim, scale, matrices, ...drawn });
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
 * Features 2·d·m per row and head of queries and of keys, keys and queries 2·r·(d_v + 1) each; exact 2·(d + d_v) per visible pair.
 * Near keys and far fields: near_far_flops.ts.
 * Features of Hadamard factors instead 3·d'·log₂ d' additions per block of d' rows and one norm for each of m rows, which is what the
 * fast transforms need, also where a backend multiplies by the dense W.
 */
export function flopCount(attention: Attention, sizes: Sizes, parameters: MapParameters | null): number {
  const { queryRows, keyRows, heads, kvHeads, headDim, valueDim } = sizes;
  if (attention.nearFar) return nearFarFlops({ ...attention.nearFar, causal: attention.causal }, sizes);
  if (!parameters) {
    const pairs = attention.causal ? queryRows * (queryRows + 1) / 2 : queryRows * keyRows;
    return pairs * heads * 2 * (headDim + valueDim);
  }
  const perRow = projectionFlops(parameters) + 2 * parameters.features * (valueDim + 1);
  return (queryRows * heads + keyRows * kvHeads) * perRow;
}

/** About as many operations as `flopCount` says, before a projection is drawn. */
export function expectedWork(attention: Attention, sizes: Sizes): number {
  if (isExact(attention) || attention.nearFar) return flopCount(attention, sizes, null);
  const { queryRows, keyRows, heads, kvHeads, headDim, valueDim } = sizes;
  return (queryRows * heads + keyRows * kvHeads) * 2 * attention.numFeatures * (headDim + valueDim + 1);
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
