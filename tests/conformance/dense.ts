/** Attention written out in float64 with no state, no tiles and no stabiliser but one maximum per row; and how far one may be off. */
import { expect } from "bun:test";
import type { Precision } from "../../src/tensor.ts";
import { type Rounding, tolerance, UNIT_ROUNDOFF } from "../tolerance.ts";
import type { Problem } from "./harness.ts";

export interface Reference {
  /** `rows × heads × valueDim`; 0 for rows that see no key. */
  readonly out: Float64Array;
  /** `rows × heads`: κ = Σ|terms| / |Σ terms|, ≥ 1. */
  readonly condition: Float64Array;
  /** Largest |v|. */
  readonly reach: number;
  readonly rounding: Omit<Rounding, "precision">;
}

interface FeatureRow {
  readonly g: number[];
  readonly e: number[];
  /** |g|, plus what the dot product in it may lose relative to its own magnitude: √Σ(w_l x_l)². */
  readonly size: number[];
  /** Largest magnitude on the way to an exponent or an argument. */
  readonly reach: number;
}

const erf = (x: number): number => {
  let sum = 0;
  const steps = 1000; // Simpson's rule on [0, min(x, 7)]
  const end = Math.min(Math.abs(x), 7);
  for (let i = 0; i <= steps; i++) {
    const weight = i === 0 || i === steps ? 1 : i % 2 ? 4 : 2;
    sum += weight * Math.exp(-((end * i / steps) ** 2));
  }
  return Math.sign(x) * sum * (end / steps / 3) * 2 / Math.sqrt(Math.PI);
};

/** Definitions as a reader would write them, not as the kernels do. */
const ACTIVATIONS: Readonly<Record<string, (u: number) => number>> = {
  relu: (u) => u > 0 ? u : 0,
  elu1: (u) => 1 + (u > 0 ? u : Math.expm1(u)),
  sigmoid: (u) => 1 / (1 + Math.exp(-u)),
  exp: Math.exp,
  abs: Math.abs,
  gelu: (u) => u / 2 * (1 + erf(u / Math.SQRT2)),
  cos: Math.cos,
  sin: Math.sin,
  tanh: Math.tanh,
  identity: (u) => u,
  requ: (u) => u > 0 ? u ** 2 : 0,
  "shifted-elu": (u) => u > 0 ? u + 1 : Math.exp(u),
  "leaky-relu": (u) => Math.max(u, 0.01 * u),
  softplus: (u) => u > 30 ? u : Math.log1p(Math.exp(u)),
  square: (u) => u ** 2,
};

function features(problem: Problem, head: number, data: ArrayLike<number>, at: number, key: boolean): FeatureRow {
  const { parameters: p, headDim: d } = problem;
  const row: FeatureRow = { g: [], e: [], size: [], reach: 0 };
  let reach = 0;
  let squares = 0;
  for (let l = 0; l < d; l++) squares += (data[at + l] * p.inputScale) ** 2;
  const us: number[] = [];
  const walks: number[] = [];
  for (let a = 0; a < p.projections; a++) {
    let u = 0, walk = 0;
    for (let l = 0; l < d; l++) {
      const term = p.weights[((head % p.matrices) * p.projections + a) * d + l] * data[at + l] * p.inputScale;
      u += term;
      walk += term * term;
    }
    us.push(u);
    walks.push(Math.sqrt(walk));
    reach = Math.max(reach, Math.abs(u) + Math.sqrt(walk));
  }
  // Biases lie on the way to an exponent; −½ ln r, common to all features, cancels.
  const first = (head % p.matrices) * p.projections;
  const biases = p.bias.subarray(first, first + p.projections);
  if (p.map.family === "exp") reach += Math.max(...biases.map((bias) => Math.abs(bias + Math.log(p.features) / 2)));
  const push = (g: number, e: number, size: number) => {
    row.g.push(g);
    row.e.push(e);
    row.size.push(size);
  };
  const { family, featuresPerProjection, activation } = p.map;
  for (let copy = 0; copy < featuresPerProjection; copy++) {
    us.forEach((u, a) => {
      if (family === "exp") {
        push(1, (copy ? -u : u) + biases[a] - (key ? squares / 2 : 0), 1);
      } else if (family === "trig") {
        push(p.gain * (copy ? Math.cos(u) : Math.sin(u)), key ? squares / 2 : 0, p.gain);
      } else {
        const f = ACTIVATIONS[activation!](u);
        const slope = activation === "requ" || activation === "square" ? Math.abs(2 * u) : 1;
        push(p.gain * f + p.epsilon, 0, p.gain * (Math.abs(f) + slope * walks[a]) + p.epsilon);
      }
    });
  }
  return { ...row, reach: reach + (family === "pointwise" ? 0 : squares / 2) };
}

/** Linear attention: Σ_j ω_j φ(q_i)·φ(k_j) v_j over its own sum. */
export function dense(problem: Problem): Reference {
  const { q, k, v, weights, heads, kvHeads, headDim, valueDim, causal, decay, parameters } = problem;
  const out = new Float64Array(q.rows * heads * valueDim);
  const condition = new Float64Array(q.rows * heads).fill(1);
  let queryReach = 0, keyReach = 0;
  for (let head = 0; head < heads; head++) {
    const kv = Math.floor(head * kvHeads / heads);
    const keys = Array.from({ length: k.rows }, (_, j) => {
      return features(problem, kv, k.data, j * k.cols + kv * headDim, true);
    });
    for (const { reach } of keys) keyReach = Math.max(keyReach, reach);
    for (let i = 0; i < q.rows; i++) {
      const query = features(problem, kv, q.data, i * q.cols + head * headDim, false);
      queryReach = Math.max(queryReach, query.reach);
      let top = -Infinity;
      const visible = causal ? Math.min(i + 1, k.rows) : k.rows;
      const seen = Array.from({ length: visible }, (_, j) => j).filter((j) => !weights || weights[j] > 0);
      const bias = (j: number) => Math.log(weights?.[j] ?? 1) - (decay?.[kv] ?? 0) * (i - j);
      const log = (j: number, a: number) => query.e[a] + keys[j].e[a] + bias(j);
      for (const j of seen) for (let a = 0; a < query.g.length; a++) top = Math.max(top, log(j, a));
      let total = 0, size = 0;
      const at = (i * heads + head) * valueDim;
      for (const j of seen) {
        let weight = 0;
        for (let a = 0; a < query.g.length; a++) {
          const factor = Math.exp(log(j, a) - top);
          weight += query.g[a] * keys[j].g[a] * factor;
          size += query.size[a] * keys[j].size[a] * factor;
        }
        total += weight;
        for (let c = 0; c < valueDim; c++) out[at + c] += weight * v.data[(j * kvHeads + kv) * valueDim + c];
      }
      if (seen.length === 0) continue;
      for (let c = 0; c < valueDim; c++) out[at + c] /= total;
      condition[i * heads + head] = size / Math.abs(total);
    }
  }
  const terms = Math.max(k.rows, parameters.features);
  return {
    out,
    condition,
    reach: reachOf(v.data),
    rounding: { exponent: queryReach + keyReach + decayReach(problem), terms },
  };
}

/** Largest log weight of decay that float32 kernels are given (src/decay.ts): λ · rows, but no more than 46. */
function decayReach({ decay, k }: Problem): number {
  return decay ? Math.min(46, Math.max(...decay) * k.rows) : 0;
}

/** Exact softmax in two passes. */
export function denseExact(problem: Problem): Reference {
  const { q, k, v, weights, heads, kvHeads, headDim, valueDim, causal, decay, scale } = problem;
  const out = new Float64Array(q.rows * heads * valueDim);
  let exponent = 0;
  for (let i = 0; i < q.rows; i++) {
    for (let head = 0; head < heads; head++) {
      const kv = Math.floor(head * kvHeads / heads);
      const logits: number[] = [];
      for (let j = 0; j < (causal ? Math.min(i + 1, k.rows) : k.rows); j++) {
        let dot = 0, walk = 0;
        for (let l = 0; l < headDim; l++) {
          const term = scale * q.data[(i * heads + head) * headDim + l] * k.data[(j * kvHeads + kv) * headDim + l];
          dot += term;
          walk += term * term;
        }
        exponent = Math.max(exponent, Math.abs(dot) + Math.sqrt(walk));
        logits.push(dot + Math.log(weights?.[j] ?? 1) - (decay?.[kv] ?? 0) * (i - j));
      }
      const top = Math.max(...logits);
      if (top === -Infinity) continue;
      const shares = logits.map((logit) => Math.exp(logit - top));
      const total = shares.reduce((x, y) => x + y, 0);
      for (let c = 0; c < valueDim; c++) {
        let sum = 0;
        shares.forEach((share, j) => sum += share * v.data[(j * kvHeads + kv) * valueDim + c]);
        out[(i * heads + head) * valueDim + c] = sum / total;
      }
    }
  }
  const condition = new Float64Array(q.rows * heads).fill(1);
  return {
    out,
    condition,
    reach: reachOf(v.data),
    rounding: { exponent: exponent + decayReach(problem), terms: k.rows },
  };
}

const reachOf = (data: ArrayLike<number>): number =>
  Array.from(data).reduce((most, x) => Math.max(most, Math.abs(x)), 0);

/** Passes when every output is as near to the reference as its rounding allows; says which is the worst otherwise. */
export function expectNear(actual: ArrayLike<number>, reference: Reference, precision: Precision): void {
  const { out, condition, reach, rounding } = reference;
  expect(actual.length).toBe(out.length);
  const valueDim = out.length / condition.length;
  const relative = tolerance({ ...rounding, precision });
  let worst = { excess: 0, text: "" };
  for (let at = 0; at < out.length; at++) {
    const kappa = condition[Math.floor(at / valueDim)];
    if (relative * kappa > 0.1) continue; // the denominator is all rounding: nothing can be said
    const allowed = relative * kappa * (reach + Math.abs(out[at])) + Math.abs(out[at]) * UNIT_ROUNDOFF[precision];
    const error = Math.abs(actual[at] - out[at]);
    if (!(error <= allowed) && !(error / allowed <= worst.excess)) {
      const where = `at ${at}: ${actual[at]} for ${out[at]}, off by ${error}, allowed ${allowed} (κ = ${kappa})`;
      worst = { excess: Number.isNaN(error) ? Infinity : error / allowed, text: where };
    }
  }
  expect(worst.text).toBe("");
}
