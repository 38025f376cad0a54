/** Eigenvectors by another method than src/symmetric.ts, slower and as simple as it gets: what that is compared with. */
import type { Eigen } from "../../src/symmetric.ts";

/** Sweeps over all pairs; quadratic convergence needs fewer than ten at any size we meet. */
const MOST_SWEEPS = 40;

/** Eigenvalues and eigenvectors by cyclic Jacobi rotations (Golub & Van Loan §8.5): accurate to rounding, O(d³) per sweep. */
export function jacobiEigen(matrix: Float64Array): Eigen {
  const d = Math.round(Math.sqrt(matrix.length));
  const A = matrix.slice();
  const V = new Float64Array(d * d); // rows are eigenvectors, so that rotations run along memory
  for (let i = 0; i < d; i++) V[i * d + i] = 1;
  for (let sweep = 0; sweep < MOST_SWEEPS && !diagonal(A, d); sweep++) {
    for (let p = 0; p < d; p++) for (let q = p + 1; q < d; q++) rotate(A, V, d, p, q);
  }
  const order = Array.from({ length: d }, (_, l) => l).sort((a, b) => A[a * d + a] - A[b * d + b]);
  const vectors = new Float64Array(d * d);
  order.forEach((from, l) => {
    for (let i = 0; i < d; i++) vectors[i * d + l] = V[from * d + i];
  });
  return { values: Float64Array.from(order, (l) => A[l * d + l]), vectors };
}

function diagonal(A: Float64Array, d: number): boolean {
  let off = 0, all = 0;
  for (let i = 0; i < d; i++) {
    for (let j = 0; j < d; j++) {
      const square = A[i * d + j] ** 2;
      all += square;
      if (i !== j) off += square;
    }
  }
  return !(off > 1e-32 * all); // off-diagonal below rounding; NaN ends it too
}

/** Turns the plane (p, q) so that A_pq becomes 0. */
function rotate(A: Float64Array, V: Float64Array, d: number, p: number, q: number): void {
  const apq = A[p * d + q];
  if (apq === 0) return;
  const theta = (A[q * d + q] - A[p * d + p]) / (2 * apq);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1), s = t * c;
  for (let i = 0; i < d; i++) {
    const ip = A[i * d + p], iq = A[i * d + q];
    A[i * d + p] = c * ip - s * iq;
    A[i * d + q] = s * ip + c * iq;
  }
  for (const M of [A, V]) {
    for (let i = 0; i < d; i++) {
      const pi = M[p * d + i], qi = M[q * d + i];
      M[p * d + i] = c * pi - s * qi;
      M[q * d + i] = s * pi + c * qi;
    }
  }
  A[p * d + q] = A[q * d + p] = 0;
}
