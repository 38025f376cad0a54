/**
 * Far fields of near-and-far attention (src/near_far.ts), one query row at a time: the sums Σ ωK̂ and Σ ωK̂v over the keys of a state,
 * and K̂ of single keys. `x` is the scaled query S·q.
 */
import { nearestCentroid } from "./far_keys.ts";
import {
  BLOCK_ROWS,
  type FarNumbers,
  HERMITE_LIMIT,
  type NearFarNumbers,
  type NearKeys,
  pairAt,
  QUADRATIC_LIMIT,
} from "./near_far_types.ts";

/** Sums over far keys, all relative to e^`top`, and how single keys are weighed. */
export interface FarRow {
  /** ln of what `total` and `sums` are divided by. */
  top: number;
  total: number;
  readonly sums: Float64Array;
  /** Subtracted from x·y: the same for all keys of the row. */
  shift: number;
}

export interface FarField {
  /** Prepares sums over the state's keys and, causal, over own rows `blockStart … row` (those from `near`). */
  pose(head: number, x: Float64Array, row: number, near: NearKeys | null): FarRow;
  /** ln and value of K̂ for a key of the last posed row: K̂ = value · e^log. t = x·y − shift. */
  estimate(head: number, t: number, cluster: number): { value: number; log: number };
  /** Cluster of a key, −1 where there is none. */
  clusterOf(head: number, k: ArrayLike<number>, at: number): number;
  /** With clusters: marks those whose keys are all near. */
  readonly top: Uint8Array;
}

const NONE = new Uint8Array();

/** No far field: only near keys count. */
export class NoFar implements FarField {
  readonly top = NONE;
  readonly #row: FarRow;

  constructor(plan: NearFarNumbers) {
    this.#row = { top: -Infinity, total: 0, sums: new Float64Array(plan.valueDim), shift: 0 };
  }

  pose(): FarRow {
    return this.#row;
  }

  estimate(): { value: number; log: number } {
    return { value: 0, log: -Infinity }; // 0 times e^{−M} is NaN where every near key is far below e^0
  }

  clusterOf(): number {
    return -1;
  }
}

/** Moments of t = x·y over all visible keys, re-centred exactly: Σωt = 0. */
export class TaylorFar implements FarField {
  readonly top = NONE;
  readonly #row: FarRow;
  readonly #first: Float64Array;
  readonly #second: Float64Array;
  /** Factor of t²/2, and the constant. */
  #square = 0;
  #constant = 1;

  constructor(readonly plan: NearFarNumbers, readonly state: FarNumbers) {
    this.#row = { top: 0, total: 0, sums: new Float64Array(plan.valueDim), shift: 0 };
    this.#first = new Float64Array(plan.valueDim);
    this.#second = new Float64Array(plan.valueDim);
  }

  pose(head: number, x: Float64Array, row: number, near: NearKeys | null): FarRow {
    const { plan: { kvHeads, headDim: d, valueDim, far, causal }, state: { sums } } = this;
    const { reference, n, y, v, yy, yv, yyv } = sums;
    const zeroth = this.#row.sums, first = this.#first, second = this.#second;
    const ordered = far !== "taylor1";
    let weight = n[head], sum = 0, squares = 0, offset = 0;
    first.fill(0);
    second.fill(0);
    for (let c = 0; c < valueDim; c++) zeroth[c] = v[head * valueDim + c];
    for (let l = 0; l < d; l++) {
      sum += x[l] * y[head * d + l];
      offset += x[l] * reference[head * d + l];
      addRow(first, x[l], yv, (head * d + l) * valueDim);
    }
    for (let a = 0; a < d && ordered; a++) {
      for (let b = a; b < d; b++) {
        const pair = head * d * (d + 1) / 2 + pairAt(a, b, d);
        const factor = (a === b ? 1 : 2) * x[a] * x[b];
        squares += factor * yy[pair];
        addRow(second, factor, yyv, pair * valueDim);
      }
    }
    for (let j = row - row % BLOCK_ROWS; causal && near && j <= row; j++) {
      const omega = near.weights ? near.weights[j - near.k.start] : 1;
      if (!(omega > 0)) continue;
      const cell = (j - near.k.start) * kvHeads + head;
      let t = -offset;
      for (let l = 0; l < d; l++) t += x[l] * near.k.data[cell * d + l];
      weight += omega;
      sum += omega * t;
      squares += omega * t * t;
      addRow(zeroth, omega, near.v.data, cell * valueDim);
      addRow(first, omega * t, near.v.data, cell * valueDim);
      if (ordered) addRow(second, omega * t * t, near.v.data, cell * valueDim);
    }
    const mean = weight > 0 ? sum / weight : 0;
    const variance = weight > 0 ? Math.max(0, squares / weight - mean * mean) : 0;
    this.#square = ordered ? 0.5 : 0;
    this.#constant = far === "hermite2" && variance <= HERMITE_LIMIT ? 1 - variance / 2 : 1;
    // t' = t + mean are the moments about the reference: 1 + t + t²/2 in powers of t'.
    const constant = this.#constant - mean + this.#square * mean * mean;
    const slope = 1 - 2 * this.#square * mean;
    for (let c = 0; c < valueDim; c++) zeroth[c] = constant * zeroth[c] + slope * first[c] + this.#square * second[c];
    this.#row.total = weight * (this.#constant + this.#square * variance);
    this.#row.top = weight > 0 ? 0 : -Infinity;
    this.#row.shift = offset + mean;
    return this.#row;
  }

  estimate(_head: number, t: number): { value: number; log: number } {
    return { value: this.#constant + t + this.#square * t * t, log: 0 };
  }

  clusterOf(): number {
    return -1;
  }
}

/** target += factor · source[at …]. */
function addRow(target: Float64Array, factor: number, source: ArrayLike<number>, at: number): void {
  for (let c = 0; c < target.length; c++) target[c] += factor * source[at + c];
}

/** Each cluster's keys as a Gaussian about their mean. */
export class ClusterFar implements FarField {
  readonly top: Uint8Array;
  readonly #row: FarRow;
  /** ln K̂ per cluster for the last posed row. */
  readonly #log: Float64Array;

  constructor(readonly plan: NearFarNumbers, readonly state: FarNumbers) {
    const { count } = plan.clusters!;
    this.top = new Uint8Array(count);
    this.#log = new Float64Array(count);
    this.#row = { top: 0, total: 0, sums: new Float64Array(plan.valueDim), shift: 0 };
  }

  pose(head: number, x: Float64Array): FarRow {
    const { plan: { headDim: d, valueDim }, state: { sums: { reference, n, y, v, yy } } } = this;
    const { count, top } = this.plan.clusters!;
    const row = this.#row;
    row.top = -Infinity;
    row.total = 0;
    row.sums.fill(0);
    for (let g = 0; g < count; g++) {
      const cell = head * count + g;
      let linear = 0, quadratic = 0;
      for (let l = 0; l < d && n[cell] > 0; l++) {
        const mean = y[cell * d + l] / n[cell];
        linear += x[l] * (reference[cell * d + l] + mean);
        quadratic += 0.5 * x[l] * x[l] * Math.max(0, yy[cell * d + l] / n[cell] - mean * mean);
      }
      this.#log[g] = n[cell] > 0 ? linear + Math.min(quadratic, QUADRATIC_LIMIT) : -Infinity;
      if (this.#log[g] > row.top) row.top = this.#log[g];
    }
    for (let g = 0; g < count; g++) {
      const cell = head * count + g;
      if (!(n[cell] > 0)) continue;
      const factor = Math.exp(this.#log[g] - row.top);
      row.total += factor * n[cell];
      addRow(row.sums, factor, v, cell * valueDim);
    }
    this.#chooseTop(head, top);
    return row;
  }

  /** Marks the clusters with the largest n K̂, the first of equals. */
  #chooseTop(head: number, most: number): void {
    const { n } = this.state.sums;
    const count = this.top.length;
    this.top.fill(0);
    for (let chosen = 0; chosen < Math.min(most, count); chosen++) {
      let best = -1, highest = -Infinity;
      for (let g = 0; g < count; g++) {
        const mass = this.#log[g] + Math.log(n[head * count + g]);
        if (!this.top[g] && mass > highest) [best, highest] = [g, mass];
      }
      if (best < 0) return;
      this.top[best] = 1;
    }
  }

  estimate(_head: number, _t: number, cluster: number): { value: number; log: number } {
    return { value: cluster < 0 ? 0 : 1, log: cluster < 0 ? 0 : this.#log[cluster] };
  }

  clusterOf(head: number, k: ArrayLike<number>, at: number): number {
    return nearestCentroid(this.plan, head, k, at);
  }
}
