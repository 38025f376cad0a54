/**
 * φ of one row: values g and exponents e, φ_a = g_a · exp(e_a) (kernels/README.md §1).
 *
 * Cost: m·d multiply-adds per row and head; hyperbolic and trigonometric maps get two features from each product.
 */
import { ACTIVATION_FUNCTIONS } from "./activations.ts";
import { fillHybrid } from "./hybrid.ts";
import type { FeatureNumbers } from "./types.ts";

/** u = W x for one row: `x` = inputScale · data[at …]; writes m numbers into `u`, returns ‖x‖²/2. */
function project(p: FeatureNumbers, head: number, data: ArrayLike<number>, at: number, u: Float64Array): number {
  const { headDim, projections, weights, inputScale } = p;
  let squares = 0;
  for (let l = 0; l < headDim; l++) squares += data[at + l] * data[at + l];
  const base = (head % p.matrices) * projections * headDim;
  for (let a = 0; a < projections; a++) {
    const row = base + a * headDim;
    let dot = 0;
    for (let l = 0; l < headDim; l++) dot += weights[row + l] * data[at + l];
    u[a] = dot * inputScale;
  }
  return 0.5 * squares * inputScale * inputScale;
}

/** Reused between rows; one per kernel call. */
export class FeatureRow {
  readonly #u: Float64Array;
  readonly #f: (u: number) => number;

  constructor(readonly p: FeatureNumbers) {
    this.#u = new Float64Array(p.projections);
    this.#f = ACTIVATION_FUNCTIONS[p.map.activation ?? "identity"];
  }

  /** Key features: g and e (without ln ω) of one row into `g[out …]`, `e[out …]`. */
  key(head: number, data: ArrayLike<number>, at: number, g: Float64Array, e: Float64Array, out: number): void {
    const norm = project(this.p, head, data, at, this.#u);
    if (this.p.map.family === "hybrid") return this.#hybrid(false, norm, g, e, out);
    const exponent = this.p.map.family === "exp" ? -norm : this.p.map.family === "trig" ? norm : 0;
    this.#fill(head, exponent, g, e, out);
  }

  /** Query features; factors common to all features of the row are left out, as they cancel. */
  query(head: number, data: ArrayLike<number>, at: number, g: Float64Array, e: Float64Array): void {
    const norm = project(this.p, head, data, at, this.#u);
    if (this.p.map.family === "hybrid") return this.#hybrid(true, norm, g, e, 0);
    this.#fill(head, 0, g, e, 0);
  }

  #hybrid(query: boolean, half: number, g: Float64Array, e: Float64Array, out: number): void {
    fillHybrid(this.#u, { signs: this.p.map.signs ?? 0, gain: this.p.gain, query, half }, g, e, out);
  }

  #fill(head: number, exponent: number, g: Float64Array, e: Float64Array, out: number): void {
    const { map, projections: m, features, matrices, bias, gain, epsilon } = this.p;
    const u = this.#u;
    if (map.family === "exp") {
      const first = (head % matrices) * m;
      for (let a = 0; a < m; a++) e[out + a] = u[a] + (bias[first + a] + exponent);
      if (map.featuresPerProjection === 2) {
        for (let a = 0; a < m; a++) e[out + m + a] = (bias[first + a] + exponent) - u[a];
      }
      g.fill(1, out, out + features);
      return;
    }
    e.fill(exponent, out, out + features);
    if (map.family === "trig") {
      for (let a = 0; a < m; a++) {
        g[out + a] = gain * Math.sin(u[a]);
        g[out + m + a] = gain * Math.cos(u[a]);
      }
    } else {
      for (let a = 0; a < m; a++) g[out + a] = gain * this.#f(u[a]) + epsilon;
    }
  }
}
