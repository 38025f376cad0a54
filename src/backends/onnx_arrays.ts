/** Float32 arrays as the graphs of onnx_passes.ts read and write them, from and to tiles, projections and states in float64. */
import { logWeight } from "../decay.ts";
import { stateBiases } from "../feature_map.ts";
import type { Plan } from "../plan.ts";
import type { State } from "../state.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { MASKED, projectionRows, UNSEEN } from "./onnx_passes.ts";

/** Arrays that are used again, by length: fresh memory is slow to touch. */
export class Spare {
  readonly #arrays = new Map<number, Float32Array[]>();

  /** `length` numbers, whatever they hold. */
  take(length: number): Float32Array {
    return this.#arrays.get(length)?.pop() ?? new Float32Array(length);
  }

  /** A copy of `data`. */
  copy(data: FloatArray): Float32Array {
    const array = this.take(data.length);
    array.set(data);
    return array;
  }

  give(...arrays: readonly Float32Array[]): void {
    for (const array of arrays) {
      const held = this.#arrays.get(array.length);
      if (held) held.push(array);
      else this.#arrays.set(array.length, [array]);
    }
  }
}

/** Copies of a tile's keys, values and ln ω with decay; rows of weight 0 are zeroed, so that whatever they hold has no effect. */
export interface Keys {
  readonly rows: number;
  /** Keys of weight > 0. */
  readonly visible: number;
  readonly k: Float32Array;
  readonly v: Float32Array;
  /** `rows × kvHeads`, MASKED where the weight is 0. */
  readonly logWeights: Float32Array;
}

export function copyKeys(
  spare: Spare,
  k: Tile,
  v: Tile,
  weights: FloatArray | undefined,
  kvHeads: number,
  decay?: Float64Array | null,
): Keys {
  const keys = { k: spare.copy(k.data), v: spare.copy(v.data), logWeights: spare.take(k.rows * kvHeads) };
  keys.logWeights.fill(0);
  let visible = k.rows;
  for (let j = 0; (weights || decay) && j < k.rows; j++) {
    if (!weights || weights[j] > 0) {
      for (let h = 0; h < kvHeads; h++) keys.logWeights[j * kvHeads + h] = logWeight(weights, decay, h, j, k.rows);
      continue;
    }
    visible--;
    keys.logWeights.fill(MASKED, j * kvHeads, (j + 1) * kvHeads);
    keys.k.fill(0, j * k.cols, (j + 1) * k.cols);
    keys.v.fill(0, j * v.cols, (j + 1) * v.cols);
  }
  return { rows: k.rows, visible, ...keys };
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

/**
 * Fills a state, every number of it but `keys`, from c (`kvHeads × r`, or one a head) and sums relative to it: [S z],
 * `kvHeads × r × (dv + 1)`; or S/z alone, `kvHeads × r × dv`, with `share` = 1/z. `biases` (stateBiases) are what c lacks.
 */
export function fillState(
  state: State,
  biases: Float64Array,
  c: Float32Array,
  sums: Float32Array,
  share?: Float32Array,
): void {
  const { valueDim } = state;
  const perC = state.c.length / c.length;
  const width = sums.length / state.c.length;
  for (let f = 0, at = 0, to = 0; f < state.c.length; f++) {
    const top = c[Math.floor(f / perC)];
    if (top <= UNSEEN) {
      state.c[f] = -Infinity;
      state.z[f] = 0;
      state.S.fill(0, to, to += valueDim);
      at += width;
      continue;
    }
    const factor = share ? 1 / share[f] : 1;
    state.c[f] = top + biases[f];
    for (let i = 0; i < valueDim; i++) state.S[to++] = factor * sums[at + i];
    state.z[f] = share ? factor : sums[at + valueDim];
    at += width;
  }
}

/** A state as the query pass reads it. */
export interface Upload {
  readonly version: number;
  /** Wᵀ, with c + bias in its last rows for the family `exp`. */
  readonly weights: Float32Array;
  /** [S z], `kvHeads × r × (dv + 1)`. */
  readonly sums: Float32Array;
  /** Per key head: it has seen no key. */
  readonly empty: readonly boolean[];
}

/** c + bias, the bias of queries, relative to the largest of its head; [S z] times what float32 cannot hold of it. `weights` is of `queryWeights`. */
export function upload(plan: Plan, state: State, version: number, weights: Float32Array): Upload {
  const { heads, kvHeads, parameters: { features: r, map } } = plan;
  const exp = map.family === "exp";
  const biases = stateBiases(plan.parameters, kvHeads);
  const raised = state.c.map((c, f) => c + biases[f]);
  const tops = Array.from({ length: kvHeads }, (_, head) => {
    return raised.subarray(head * r, (head + 1) * r).reduce((x, y) => Math.max(x, y), -Infinity);
  });
  const rounded = Float32Array.from(raised, (c, f) => {
    return c === -Infinity ? UNSEEN : exp ? c - tops[Math.floor(f / r)] : 0;
  });
  const withC = exp ? weights.slice() : weights;
  const depth = weights.length / heads / r;
  for (let head = 0; exp && head < heads; head++) {
    const kvHead = Math.floor(head * kvHeads / heads);
    withC.set(rounded.subarray(kvHead * r, (kvHead + 1) * r), (head * depth + depth - 1) * r);
  }
  const sums = new Float32Array(state.c.length * (state.valueDim + 1));
  fillSums(sums, state, (f) => tops[Math.floor(f / r)] + rounded[f] - biases[f]);
  return {
    version,
    weights: withC,
    sums,
    empty: tops.map((top) => top === -Infinity),
  };
}

/** c without biases and [S z] ahead of a causal tile; c is one number a head for families whose exponent is the row's alone. */
export function uploadCausal(plan: Plan, state: State, spare: Spare): { c: Float32Array; sums: Float32Array } {
  const { kvHeads, parameters: { features: r, map } } = plan;
  const c = spare.take(kvHeads * (map.family === "exp" ? r : 1)).fill(UNSEEN);
  const perC = state.c.length / c.length;
  const biases = stateBiases(plan.parameters, kvHeads);
  for (let f = 0; f < state.c.length; f++) {
    const at = Math.floor(f / perC);
    c[at] = Math.max(c[at], state.c[f] - biases[f]);
  }
  const sums = spare.take(state.c.length * (state.valueDim + 1));
  fillSums(sums, state, (f) => c[Math.floor(f / perC)] + biases[f]);
  return { c, sums };
}

/** [S z] · e^{c − to}; of features without a key, 0. */
function fillSums(sums: Float32Array, state: State, to: (f: number) => number): void {
  const { valueDim } = state;
  for (let f = 0, at = 0, from = 0; f < state.c.length; f++) {
    const scale = state.c[f] === -Infinity ? 0 : Math.exp(state.c[f] - to(f));
    for (const end = from + valueDim; from < end;) sums[at++] = scale * state.S[from++];
    sums[at++] = scale * state.z[f];
  }
}
