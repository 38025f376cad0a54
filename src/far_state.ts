/**
 * What a near-and-far session remembers of the keys it has absorbed: moments of the far field and the heavy keys (near_far.ts).
 * In float64 everywhere; kernels in float32 hand in one tile's sums at a time. Moments are mergeable by addition once they refer to the
 * same point, heavy keys by keeping the highest scores.
 */
import { type NearFarPlan, pairAt } from "./near_far.ts";

/**
 * Sums over keys, `cells` = kvHeads (Taylor) or kvHeads × C (clusters), of y' = y − reference:
 * arrays that a far field does not need are empty.
 */
export interface FarSums {
  /** `cells × d`; clusters: their centroids. */
  readonly reference: Float64Array;
  /** `cells`: Σ ω. */
  readonly n: Float64Array;
  /** `cells × d`: Σ ω y'. */
  readonly y: Float64Array;
  /** `cells × d_v`: Σ ω v. */
  readonly v: Float64Array;
  /** taylor2, hermite2: `cells × d(d+1)/2`, Σ ω y'_k y'_l (`pairAt`); clusters: `cells × d`, Σ ω y'². */
  readonly yy: Float64Array;
  /** Taylor: `cells × d × d_v`, Σ ω y' vᵀ. */
  readonly yv: Float64Array;
  /** taylor2, hermite2: `cells × d(d+1)/2 × d_v`. */
  readonly yyv: Float64Array;
}

/** One heavy key. */
export interface HeavyKey {
  readonly row: number;
  readonly score: number;
  readonly weight: number;
  /** `d` and `d_v` numbers. */
  readonly k: Float64Array;
  readonly v: Float64Array;
}

export interface FarState {
  readonly sums: FarSums;
  /** Per key head, unordered, at most `heavy` of them. */
  readonly heavy: HeavyKey[][];
  /** Where causal heavy keys are measured from, with heavy > 0: Σ ω, `kvHeads`, and Σ ω k, `kvHeads × d`. */
  readonly weight: Float64Array;
  readonly sum: Float64Array;
  /** Keys with ω > 0, and rows of any weight. */
  keys: number;
  rows: number;
}

/** The state of no keys. Taylor sums refer to 0, clusters to their centroids. */
export function emptyFarState(plan: NearFarPlan): FarState {
  const { kvHeads, headDim: d, valueDim, far, clusters, causal, heavy } = plan;
  const cells = far === "none" ? 0 : kvHeads * (far === "clusters" ? clusters!.count : 1);
  const taylor = far === "taylor1" || far === "taylor2" || far === "hermite2";
  const second = far === "taylor2" || far === "hermite2";
  const pairs = d * (d + 1) / 2;
  return {
    sums: {
      reference: far === "clusters" ? Float64Array.from(clusters!.centroids) : new Float64Array(cells * d),
      n: new Float64Array(cells),
      y: new Float64Array(cells * d),
      v: new Float64Array(cells * valueDim),
      yy: new Float64Array(second ? cells * pairs : far === "clusters" ? cells * d : 0),
      yv: new Float64Array(taylor ? cells * d * valueDim : 0),
      yyv: new Float64Array(second ? cells * pairs * valueDim : 0),
    },
    heavy: Array.from({ length: kvHeads }, () => []),
    weight: new Float64Array(causal && heavy > 0 ? kvHeads : 0),
    sum: new Float64Array(causal && heavy > 0 ? kvHeads * d : 0),
    keys: 0,
    rows: 0,
  };
}

/** An independent copy. */
export function copyFarState(state: FarState): FarState {
  const { sums } = state;
  return {
    ...state,
    sums: {
      reference: sums.reference.slice(),
      n: sums.n.slice(),
      y: sums.y.slice(),
      v: sums.v.slice(),
      yy: sums.yy.slice(),
      yv: sums.yv.slice(),
      yyv: sums.yyv.slice(),
    },
    heavy: state.heavy.map((keys) => keys.slice()),
    weight: state.weight.slice(),
    sum: state.sum.slice(),
  };
}

/** Moves the point that Taylor sums refer to, exactly: y' = y − reference for the new reference, `cells × d`. */
export function rebase(sums: FarSums, d: number, valueDim: number, reference: ArrayLike<number>): void {
  const { n, y, v, yy, yv, yyv } = sums;
  const pairs = d * (d + 1) / 2;
  const shift = new Float64Array(d);
  for (let cell = 0; cell < n.length; cell++) {
    const at = cell * d;
    let moved = false;
    for (let l = 0; l < d; l++) {
      shift[l] = reference[at + l] - sums.reference[at + l];
      moved ||= shift[l] !== 0;
      sums.reference[at + l] = reference[at + l];
    }
    if (!moved) continue;
    // Highest order first: each needs the lower ones as they were.
    for (let k = 0; k < d && yy.length > 0; k++) {
      for (let l = k; l < d; l++) {
        const pair = cell * pairs + pairAt(k, l, d);
        const [a, b] = [shift[k], shift[l]];
        for (let c = 0; c < valueDim; c++) {
          yyv[pair * valueDim + c] += a * b * v[cell * valueDim + c] - a * yv[(at + l) * valueDim + c] -
            b * yv[(at + k) * valueDim + c];
        }
        yy[pair] += a * b * n[cell] - a * y[at + l] - b * y[at + k];
      }
    }
    for (let l = 0; l < d; l++) {
      for (let c = 0; c < valueDim; c++) yv[(at + l) * valueDim + c] -= shift[l] * v[cell * valueDim + c];
      y[at + l] -= shift[l] * n[cell];
    }
  }
}

/** `into ← into + other`, sums of the same shape that refer to the same point. */
export function addSums(into: FarSums, other: FarSums): void {
  for (const name of ["n", "y", "v", "yy", "yv", "yyv"] as const) {
    const [mine, theirs] = [into[name], other[name]];
    for (let i = 0; i < mine.length; i++) mine[i] += theirs[i];
  }
}

/** Keeps the `most` highest scores, the earlier row of equals. */
export function offerHeavy(heavy: HeavyKey[], key: HeavyKey, most: number): void {
  if (most === 0) return;
  if (heavy.length < most) {
    heavy.push(key);
    return;
  }
  let least = 0;
  for (let i = 1; i < heavy.length; i++) if (lighter(heavy[i], heavy[least])) least = i;
  if (lighter(heavy[least], key)) heavy[least] = key;
}

function lighter(a: HeavyKey, b: HeavyKey): boolean {
  return a.score < b.score || (a.score === b.score && a.row > b.row);
}

/**
 * `into ← into ⊕ other` for states of one plan; `other` is left as it was. Heavy keys keep the scores they were given: those of a causal
 * pass depend on the keys before them.
 */
export function mergeFarStates(into: FarState, other: FarState, plan: NearFarPlan): void {
  const theirs = copyFarState(other);
  if (plan.far !== "clusters") rebase(theirs.sums, plan.headDim, plan.valueDim, into.sums.reference);
  addSums(into.sums, theirs.sums);
  for (const [head, keys] of theirs.heavy.entries()) {
    for (const key of keys) offerHeavy(into.heavy[head], key, plan.heavy);
  }
  for (let i = 0; i < into.weight.length; i++) into.weight[i] += theirs.weight[i];
  for (let i = 0; i < into.sum.length; i++) into.sum[i] += theirs.sum[i];
  into.keys += other.keys;
  into.rows += other.rows;
}
