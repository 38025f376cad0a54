/**
 * The error of an attention output before any projection is drawn: first order in 1/m (delta method on the ratio Σ φφ v / Σ φφ,
 * own derivation). With A exact softmax, o its output and κ_jk = E[X_j X_k]/(K_j K_k) of one projection's estimates X of weights K,
 *
 *     E‖ô_i − o_i‖² ≈ (1/m) Σ_jk A_ij A_ik κ_jk ⟨v_j − o_i, v_k − o_i⟩      E[ô_i] − o_i ≈ −(1/m) Σ_jk A_ij A_ik κ_jk (v_j − o_i)
 *
 * For independent projections. Orthogonal ones do better: their error is at most about this.
 */
import { UsageError } from "./errors.ts";
import type { Tile } from "./tensor.ts";

export interface PredictionOptions {
  readonly map: "positive" | "hyperbolic";
  /** Projections m; a hyperbolic map has 2 m features. */
  readonly projections: number;
  /** Logit scale S in exp(S · q·k). */
  readonly scale: number;
  /** A of e^{A‖w‖² + …}, 0 when left out: see closed_forms.ts. */
  readonly quadratic?: number;
}

/** What `predictedError` expects. */
export interface PredictedError {
  /** Largest κ_jk/m: how far a single weight may be off, squared. */
  readonly worst: number;
  /** √(E‖Ô − O‖²)/‖O‖; null where `worst` is above LARGEST, where first order says nothing. */
  readonly relativeL2: number | null;
  /** Expected squared error per query, and expected error per query and value column; null likewise. */
  readonly squares: Float64Array | null;
  readonly bias: Float64Array | null;
}

/** Above this κ/m the second order is no longer small beside the first. */
const LARGEST = 0.1;

const dotAt = (a: Tile, i: number, b: Tile, j: number) => {
  let sum = 0;
  for (let l = 0; l < a.cols; l++) sum += a.data[i * a.cols + l] * b.data[j * b.cols + l];
  return sum;
};

/**
 * Predicts the error of one head, bidirectional.
 * @param q,k,v raw rows of one head; the queries may be a sample @returns see PredictedError
 * Cost: L² (d + d_v + n) for L keys and n queries, memory 4 n L numbers.
 * @throws UsageError when the tiles do not belong together, or A is out of range
 */
export function predictedError(q: Tile, k: Tile, v: Tile, options: PredictionOptions): PredictedError {
  const { map, projections: m, scale, quadratic: A = 0 } = options;
  if (q.cols !== k.cols || k.rows !== v.rows || k.rows === 0) {
    throw new UsageError(
      `Cannot predict the error of ${q.cols} columns of queries, ${k.rows} × ${k.cols} keys and ${v.rows} values: ` +
        "expected keys as wide as queries and one value per key",
    );
  }
  if (!(A < 1 / 8)) throw new UsageError(`Cannot use A = ${A}: expected less than 1/8`);
  const d = q.cols, n = q.rows, L = k.rows;
  // κ = c · exp(h ‖z_j ± z_k‖² − (‖z_j‖² + ‖z_k‖²)/2), z_j = x + y_j; a hyperbolic map is the mean of both signs.
  const log = d * Math.log1p(-4 * A) - d / 2 * Math.log1p(-8 * A);
  const h = (1 - 4 * A) / (2 * (1 - 8 * A));
  const signs = map === "hyperbolic" ? [1, -1] : [1];

  const keyNorms = Float64Array.from({ length: L }, (_, j) => scale * dotAt(k, j, k, j));
  const logits = new Float64Array(n * L);
  const queryNorms = Float64Array.from({ length: n }, (_, i) => scale * dotAt(q, i, q, i));
  let widest = 0; // largest ‖z‖²
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < L; j++) {
      logits[i * L + j] = scale * dotAt(q, i, k, j);
      widest = Math.max(widest, queryNorms[i] + keyNorms[j] + 2 * logits[i * L + j]);
    }
  }
  const worst = signs.reduce((sum, sign) => sum + Math.exp(log + (2 * h * (1 + sign) - 1) * widest), 0) /
    signs.length / m;
  if (!(worst <= LARGEST)) return { worst, relativeL2: null, squares: null, bias: null };

  const exact = softmaxOf(logits, v, n);
  const values = crossValues(exact.outputs, v, n);
  const squares = new Float64Array(n);
  const mass = new Float64Array(n * L); // Σ_k A_ij A_ik κ_jk
  for (const sign of signs) {
    const half = new Float64Array(n * L); // κ_jk A_j A_k = half_j half_k e^{2 h sign y_j·y_k}
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < L; j++) {
        const at = i * L + j, t = logits[at];
        const own = (h - 0.5) * (queryNorms[i] + keyNorms[j] + 2 * t) + h * sign * (queryNorms[i] + 2 * t);
        half[at] = exact.weights[at] * Math.exp(own + (log - Math.log(m * signs.length)) / 2);
      }
    }
    for (let j = 0; j < L; j++) {
      for (let other = 0; other <= j; other++) {
        const shared = Math.exp(2 * h * sign * scale * dotAt(k, j, k, other)) * (other < j ? 2 : 1);
        const product = dotAt(v, j, v, other);
        for (let i = 0; i < n; i++) {
          const [a, b] = [i * L + j, i * L + other];
          const covariance = half[a] * half[b] * shared;
          squares[i] += covariance * (product - values.dots[a] - values.dots[b] + values.norms[i]);
          mass[a] += covariance / 2; // a pair counts for both of its keys, a key with itself twice for one
          mass[b] += covariance / 2;
        }
      }
    }
  }
  const bias = new Float64Array(n * v.cols);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < L; j++) {
      for (let c = 0; c < v.cols; c++) {
        bias[i * v.cols + c] -= mass[i * L + j] * (v.data[j * v.cols + c] - exact.outputs[i * v.cols + c]);
      }
    }
  }
  const sum = (numbers: Float64Array) => numbers.reduce((total, value) => total + value, 0);
  return { worst, relativeL2: Math.sqrt(sum(squares) / sum(values.norms)), squares, bias };
}

/** Exact weights, `n × L`, and outputs, `n × d_v`. */
function softmaxOf(logits: Float64Array, v: Tile, n: number): { weights: Float64Array; outputs: Float64Array } {
  const L = v.rows;
  const weights = new Float64Array(n * L), outputs = new Float64Array(n * v.cols);
  for (let i = 0; i < n; i++) {
    let top = -Infinity, total = 0;
    for (let j = 0; j < L; j++) top = Math.max(top, logits[i * L + j]);
    for (let j = 0; j < L; j++) total += weights[i * L + j] = Math.exp(logits[i * L + j] - top);
    for (let j = 0; j < L; j++) {
      weights[i * L + j] /= total;
      for (let c = 0; c < v.cols; c++) outputs[i * v.cols + c] += weights[i * L + j] * v.data[j * v.cols + c];
    }
  }
  return { weights, outputs };
}

/** o_i·v_j, `n × L`, and ‖o_i‖². */
function crossValues(outputs: Float64Array, v: Tile, n: number): { dots: Float64Array; norms: Float64Array } {
  const o: Tile = { start: 0, rows: n, cols: v.cols, data: outputs };
  return {
    dots: Float64Array.from({ length: n * v.rows }, (_, at) => dotAt(o, Math.floor(at / v.rows), v, at % v.rows)),
    norms: Float64Array.from({ length: n }, (_, i) => dotAt(o, i, o, i)),
  };
}
