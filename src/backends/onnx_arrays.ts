/** Float32 arrays as the graphs of onnx_passes.ts read and write them, from and to tiles, projections and states in float64. */
import type { Plan } from "../plan.ts";
import { copyState, emptyState, type State } from "../state.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { MASKED, projectionRows, UNSEEN } from "./onnx_passes.ts";

/** Copies of a tile's keys, values and ln ω; rows of weight 0 are zeroed, so that whatever they hold has no effect. */
export interface Keys {
  readonly rows: number;
  /** Keys of weight > 0. */
  readonly visible: number;
  readonly k: Float32Array;
  readonly v: Float32Array;
  /** `rows × kvHeads`, MASKED where the weight is 0. */
  readonly logWeights: Float32Array;
}

export function copyKeys(k: Tile, v: Tile, weights: FloatArray | undefined, kvHeads: number): Keys {
  const keys = { k: Float32Array.from(k.data), v: Float32Array.from(v.data) };
  const logWeights = new Float32Array(k.rows * kvHeads);
  let visible = k.rows;
  for (let j = 0; weights && j < k.rows; j++) {
    if (weights[j] > 0) {
      logWeights.fill(Math.log(weights[j]), j * kvHeads, (j + 1) * kvHeads);
      continue;
    }
    visible--;
    logWeights.fill(MASKED, j * kvHeads, (j + 1) * kvHeads);
    keys.k.fill(0, j * k.cols, (j + 1) * k.cols);
    keys.v.fill(0, j * v.cols, (j + 1) * v.cols);
  }
  return { rows: k.rows, visible, ...keys, logWeights };
}

/** Calls `use` with w·√S of every row and column of a key head's matrix; rows past m are those of −W (hyperbolic maps). */
function eachWeight(plan: Plan, kvHead: number, use: (row: number, column: number, w: number) => void): void {
  const { headDim, projections: m, matrices, weights, inputScale } = plan.parameters;
  const base = (kvHead % matrices) * m * headDim;
  for (let row = 0; row < projectionRows(plan.parameters); row++) {
    const scale = row < m ? inputScale : -inputScale;
    for (let l = 0; l < headDim; l++) use(row, l, scale * weights[base + (row % m) * headDim + l]);
  }
}

/** `kvHeads × rows of W × width`: W of every key head; a last column of ones takes the exponent where width = d + 1. */
export function keyWeights(plan: Plan, width: number): Float32Array {
  const m = projectionRows(plan.parameters);
  const all = new Float32Array(plan.kvHeads * m * width).fill(1);
  for (let head = 0; head < plan.kvHeads; head++) {
    eachWeight(plan, head, (row, l, w) => all[(head * m + row) * width + l] = w);
  }
  return all;
}

/** `heads × depth × rows of W`: Wᵀ of every query head; a last row of zeros is left for c where depth = d + 1. */
export function queryWeights(plan: Plan, depth: number): Float32Array {
  const { heads, kvHeads } = plan;
  const m = projectionRows(plan.parameters);
  const all = new Float32Array(heads * depth * m);
  for (let head = 0; head < heads; head++) {
    const base = head * depth * m;
    eachWeight(plan, Math.floor(head * kvHeads / heads), (row, l, w) => all[base + l * m + row] = w);
  }
  return all;
}

/** A state from sums relative to c: `kvHeads × r` (or one c a head) and [S z], `kvHeads × r × (dv + 1)`. */
export function stateOf(plan: Plan, c: Float32Array, sums: Float32Array): State {
  const { kvHeads, valueDim, parameters: { features: r } } = plan;
  const state = emptyState(kvHeads, r, valueDim);
  const perHead = c.length === kvHeads;
  for (let f = 0, at = 0, to = 0; f < kvHeads * r; f++, at++) {
    const top = c[perHead ? Math.floor(f / r) : f];
    if (top <= UNSEEN) {
      at += valueDim;
      to += valueDim;
      continue;
    }
    state.c[f] = top;
    for (const end = to + valueDim; to < end;) state.S[to++] = sums[at++];
    state.z[f] = sums[at];
  }
  return state;
}

/** A state from averages S/z and 1/z, of the keys pass of the family `exp`. */
export function stateOfAverages(plan: Plan, c: Float32Array, share: Float32Array, averages: Float32Array): State {
  const { kvHeads, valueDim, parameters: { features: r } } = plan;
  const state = emptyState(kvHeads, r, valueDim);
  for (let f = 0; f < kvHeads * r; f++) {
    if (c[f] <= UNSEEN) continue;
    const z = 1 / share[f];
    state.c[f] = c[f];
    state.z[f] = z;
    for (let at = f * valueDim, end = at + valueDim; at < end; at++) state.S[at] = z * averages[at];
  }
  return state;
}

/** A state as the query pass reads it. */
export interface Upload {
  readonly version: number;
  /** Wᵀ, with c in its last rows for the family `exp`. */
  readonly weights: Float32Array;
  /** [S z], `kvHeads × r × (dv + 1)`. */
  readonly sums: Float32Array;
  /** Per key head: it has seen no key. */
  readonly empty: readonly boolean[];
  /** In float64, for rows that float32 cannot answer; null where there are none. */
  readonly state: State | null;
}

/** c relative to the largest of its head; [S z] times what float32 cannot hold of it. `weights` is of `queryWeights`. */
export function upload(plan: Plan, state: State, version: number, weights: Float32Array): Upload {
  const { heads, kvHeads, parameters: { features: r, map } } = plan;
  const exp = map.family === "exp";
  const tops = Array.from({ length: kvHeads }, (_, head) => {
    return state.c.subarray(head * r, (head + 1) * r).reduce((x, y) => Math.max(x, y), -Infinity);
  });
  const rounded = Float32Array.from(state.c, (c, f) => {
    return c === -Infinity ? UNSEEN : exp ? c - tops[Math.floor(f / r)] : 0;
  });
  const withC = exp ? weights.slice() : weights;
  const depth = weights.length / heads / r;
  for (let head = 0; exp && head < heads; head++) {
    const kvHead = Math.floor(head * kvHeads / heads);
    withC.set(rounded.subarray(kvHead * r, (kvHead + 1) * r), (head * depth + depth - 1) * r);
  }
  return {
    version,
    weights: withC,
    sums: sumsRelativeTo(state, (f) => tops[Math.floor(f / r)] + rounded[f]),
    empty: tops.map((top) => top === -Infinity),
    state: exp || map.signed ? null : copyState(state),
  };
}

/** c and [S z] ahead of a causal tile; c is one number a head for families whose exponent is the row's alone. */
export function uploadCausal(plan: Plan, state: State): { c: Float32Array; sums: Float32Array } {
  const { kvHeads, parameters: { features: r, map } } = plan;
  const c = new Float32Array(kvHeads * (map.family === "exp" ? r : 1)).fill(UNSEEN);
  const perCell = kvHeads * r / c.length;
  for (let f = 0; f < kvHeads * r; f++) {
    const cell = Math.floor(f / perCell);
    c[cell] = Math.max(c[cell], state.c[f]);
  }
  return { c, sums: sumsRelativeTo(state, (f) => c[Math.floor(f / perCell)]) };
}

/** [S z] · e^{c − to}, features without a key 0. */
function sumsRelativeTo(state: State, to: (f: number) => number): Float32Array {
  const { valueDim } = state;
  const sums = new Float32Array(state.c.length * (valueDim + 1));
  for (let f = 0, at = 0, from = 0; f < state.c.length; f++) {
    const scale = state.c[f] === -Infinity ? 0 : Math.exp(state.c[f] - to(f));
    for (const end = from + valueDim; from < end;) sums[at++] = scale * state.S[from++];
    sums[at++] = scale * state.z[f];
  }
  return sums;
}
