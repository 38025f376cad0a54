/** Symmetric matrices, row-major `d × d` in float64: eigenvectors and functions of the eigenvalues. */

/** M = Q diag(values) Qᵀ. */
export interface Eigen {
  /** Ascending. */
  readonly values: Float64Array;
  /** Q, `d × d`: column l is the unit eigenvector of values[l]. */
  readonly vectors: Float64Array;
}

/** Steps per eigenvalue: two or three are the rule, and no matrix is known that needs ten. */
const MOST_STEPS = 60;

/**
 * Eigenvalues and eigenvectors: Householder tridiagonalisation, then implicit QL (Golub & Van Loan §8.3). Backward stable: values are right
 * to a few roundings of the largest. O(d³), some 9 d³ multiply-adds.
 */
export function eigen(matrix: Float64Array): Eigen {
  const d = Math.round(Math.sqrt(matrix.length));
  const { diagonal, off, rows } = tridiagonalise(matrix, d);
  diagonalise(diagonal, off, rows, d);
  const order = Array.from({ length: d }, (_, l) => l).sort((a, b) => diagonal[a] - diagonal[b]);
  const vectors = new Float64Array(d * d);
  order.forEach((from, l) => {
    for (let i = 0; i < d; i++) vectors[i * d + l] = rows[from * d + i];
  });
  return { values: Float64Array.from(order, (l) => diagonal[l]), vectors };
}

/** M = Vᵀ T V with T tridiagonal. */
interface Tridiagonal {
  /** T_ll. */
  readonly diagonal: Float64Array;
  /** T_{l,l+1}, and a 0 at the end. */
  readonly off: Float64Array;
  /** V, `d × d` orthogonal: rows, so that rotations run along memory. */
  readonly rows: Float64Array;
}

/** Reflections I − β u uᵀ clear one column after another; u overwrites what is cleared. */
function tridiagonalise(matrix: Float64Array, d: number): Tridiagonal {
  const A = matrix.slice();
  const off = new Float64Array(d), betas = new Float64Array(d), w = new Float64Array(d);
  for (let k = 0; k + 1 < d; k++) {
    const u = A.subarray(k * d, (k + 1) * d); // row k is column k
    const { beta, value } = reflector(u, k + 1);
    off[k] = value;
    betas[k] = beta;
    if (beta === 0) continue;
    // A ← A − u wᵀ − w uᵀ with p = β A u and w = p − (β/2)(pᵀu) u.
    let along = 0;
    for (let i = k + 1; i < d; i++) {
      let sum = 0;
      for (let j = k + 1, at = i * d + k + 1; j < d; j++, at++) sum += A[at] * u[j];
      w[i] = beta * sum;
      along += w[i] * u[i];
    }
    for (let i = k + 1; i < d; i++) w[i] -= 0.5 * beta * along * u[i];
    for (let i = k + 1; i < d; i++) {
      const ui = u[i], wi = w[i];
      for (let j = k + 1, at = i * d + k + 1; j < d; j++, at++) A[at] -= ui * w[j] + wi * u[j];
    }
  }
  // V = H_{d−2} … H_0: V ← V H_k from the last on touches only rows and columns past k.
  const rows = new Float64Array(d * d);
  for (let i = 0; i < d; i++) rows[i * d + i] = 1;
  for (let k = d - 2; k >= 0; k--) {
    if (betas[k] === 0) continue;
    const u = A.subarray(k * d, (k + 1) * d);
    for (let i = k + 1; i < d; i++) {
      let sum = 0;
      for (let j = k + 1, at = i * d + k + 1; j < d; j++, at++) sum += rows[at] * u[j];
      sum *= betas[k];
      for (let j = k + 1, at = i * d + k + 1; j < d; j++, at++) rows[at] -= sum * u[j];
    }
  }
  return { diagonal: Float64Array.from({ length: d }, (_, l) => A[l * d + l]), off, rows };
}

/**
 * Turns `x[from …]` into u with (I − β u uᵀ) x = (value, 0, 0, …). Nothing to clear: β = 0.
 */
function reflector(x: Float64Array, from: number): { beta: number; value: number } {
  let largest = 0, rest = 0;
  for (let i = from; i < x.length; i++) largest = Math.max(largest, Math.abs(x[i]));
  for (let i = from + 1; i < x.length; i++) rest = Math.max(rest, Math.abs(x[i]));
  if (!(rest > 0)) return { beta: 0, value: x[from] };
  let squares = 0;
  for (let i = from; i < x.length; i++) {
    x[i] /= largest; // squares neither vanish nor overflow
    squares += x[i] * x[i];
  }
  const norm = Math.sqrt(squares), head = x[from];
  const value = head > 0 ? -norm : norm;
  x[from] = head - value; // no cancellation: the signs differ
  return { beta: 1 / (squares - head * value), value: value * largest };
}

/** Implicit QL with Wilkinson's shift: `diagonal` becomes the eigenvalues, row l of `rows` the eigenvector of diagonal[l]. */
function diagonalise(diagonal: Float64Array, off: Float64Array, rows: Float64Array, d: number): void {
  for (let l = 0; l < d; l++) {
    for (let step = 0; step < MOST_STEPS; step++) {
      let end = l;
      while (end + 1 < d && !negligible(off[end], diagonal[end], diagonal[end + 1])) end++;
      if (end === l) break;
      const half = (diagonal[l + 1] - diagonal[l]) / (2 * off[l]);
      const root = Math.hypot(half, 1);
      let g = diagonal[end] - diagonal[l] + off[l] / (half + (half < 0 ? -root : root));
      let s = 1, c = 1, p = 0, i = end - 1;
      for (; i >= l; i--) {
        const f = s * off[i], b = c * off[i];
        const r = Math.hypot(f, g);
        off[i + 1] = r;
        if (r === 0) { // the matrix falls apart here
          diagonal[i + 1] -= p;
          off[end] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = diagonal[i + 1] - p;
        const t = (diagonal[i] - g) * s + 2 * c * b;
        p = s * t;
        diagonal[i + 1] = g + p;
        g = c * t - b;
        turn(rows, i * d, d, c, s);
      }
      if (i >= l) continue;
      diagonal[l] -= p;
      off[l] = g;
      off[end] = 0;
    }
  }
}

/** Whether an off-diagonal number is below the rounding of its neighbours; so is NaN, which ends the search. */
function negligible(off: number, before: number, after: number): boolean {
  return !(Math.abs(off) > Number.EPSILON / 2 * (Math.abs(before) + Math.abs(after)));
}

/** Rotates the row at `at` and the next one. */
function turn(rows: Float64Array, at: number, d: number, c: number, s: number): void {
  for (const end = at + d; at < end; at++) {
    const upper = rows[at], lower = rows[at + d];
    rows[at + d] = s * upper + c * lower;
    rows[at] = c * upper - s * lower;
  }
}

/** Q diag(f(values)) Qᵀ. */
export function spectral({ values, vectors }: Eigen, f: (value: number) => number): Float64Array {
  const d = values.length;
  const scaled = new Float64Array(d * d);
  for (let i = 0; i < d; i++) for (let l = 0; l < d; l++) scaled[i * d + l] = vectors[i * d + l] * f(values[l]);
  const out = new Float64Array(d * d);
  for (let i = 0; i < d; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let l = 0; l < d; l++) sum += scaled[i * d + l] * vectors[j * d + l];
      out[i * d + j] = out[j * d + i] = sum;
    }
  }
  return out;
}

/** A B A of symmetric A and B, symmetric itself. */
export function sandwich(A: Float64Array, B: Float64Array): Float64Array {
  const d = Math.round(Math.sqrt(A.length));
  const out = product(product(A, B, d), A, d);
  for (let i = 0; i < d; i++) {
    for (let j = 0; j < i; j++) out[i * d + j] = out[j * d + i] = (out[i * d + j] + out[j * d + i]) / 2;
  }
  return out;
}

function product(A: Float64Array, B: Float64Array, d: number): Float64Array {
  const out = new Float64Array(d * d);
  for (let i = 0; i < d; i++) {
    for (let k = 0; k < d; k++) {
      const a = A[i * d + k];
      for (let j = 0; j < d; j++) out[i * d + j] += a * B[k * d + j];
    }
  }
  return out;
}

/** M x. */
export function times(M: Float64Array, x: ArrayLike<number>): Float64Array {
  const d = x.length;
  return Float64Array.from({ length: d }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < d; j++) sum += M[i * d + j] * x[j];
    return sum;
  });
}
