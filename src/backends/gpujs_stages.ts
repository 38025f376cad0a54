/**
 * The two passes over one head of one tile, as chains of gpu.js kernels of one fixed shape, `chunks × rows`:
 *
 *     keys      u = W Xᵀ,  e = ±u + base_j,  c' = max(c, max_j e),  E = g · exp(e − c'),  [S z] = E · [V 1]
 *     queries   u = X Wᵀ,  t = ±u + c + 2 b, M = max_a t,           P = g · exp(t − M),   [num den] = P · [S z]
 *
 * Biases are the same for all keys, so c is taken without them and t with those of keys and queries together.
 *
 * Products and exponentials run in gpu.js. Packing and maxima are plain JavaScript: one read per number, which costs less than
 * handing the array to another kernel.
 */
import { logWeight } from "../decay.ts";
import { ACTIVATIONS, type MapParameters } from "../feature_map.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { type Kernel, type Kernels, padDepth, type QuadShape } from "./gpujs_kernels.ts";
import { packColumns, packQuads, packValues } from "./gpujs_pack.ts";

/** Stands for −Infinity in shifts: far below every exponent, and sums of it stay finite. */
const NEVER = -1e30;

/** Sizes padded to what the kernels take, and the projections in both orders. */
export class FeatureLayout {
  /** Head width and projections, padded. */
  readonly depth: number;
  readonly projections: number;
  /** Padded features: the second half of two-fold maps starts at `projections`. */
  readonly features: number;
  /** Features that exist only as padding. */
  readonly pads: readonly number[];
  /** Values and the 1, padded. */
  readonly stride: number;
  /** Per matrix: W as quads of rows, `projections/4 × depth × 4`, and as columns, `depth × projections`. */
  readonly quads: Float32Array[] = [];
  readonly columns: Float32Array[] = [];

  constructor(readonly p: MapParameters, readonly valueDim: number) {
    const fold = p.map.featuresPerProjection;
    this.depth = padDepth(p.headDim);
    this.features = padDepth(fold * Math.ceil(p.projections / 4) * 4);
    this.projections = this.features / fold;
    this.stride = Math.ceil((valueDim + 1) / 4) * 4;
    const { headDim, projections: m } = p;
    this.pads = Array.from({ length: this.features }, (_, f) => f).filter((f) => f % this.projections >= m);
    for (let matrix = 0; matrix < p.matrices; matrix++) {
      const data = Float32Array.from(p.weights.subarray(matrix * m * headDim, (matrix + 1) * m * headDim));
      const tile: Tile = { start: 0, rows: m, cols: headDim, data };
      const quads = new Float32Array(this.projections * this.depth);
      const columns = new Float32Array(this.depth * this.projections);
      packQuads(tile, 0, headDim, 1, this.depth, quads);
      packColumns(tile, 0, headDim, 1, this.depth, this.projections, columns);
      this.quads.push(quads);
      this.columns.push(columns);
    }
  }

  /** Where feature `a` stands among the padded features. */
  place(a: number): number {
    return a < this.p.projections ? a : a - this.p.projections + this.projections;
  }

  /** Features from u: E of keys (`scale`/`xShift` per row) or P of queries. */
  kernel(kernels: Kernels, shape: QuadShape, uQuads: number, uWidth: number): Kernel {
    const { map, gain, epsilon } = this.p;
    if (map.family === "exp") return kernels.exponential(shape, uQuads, uWidth);
    if (map.family === "trig") return kernels.trigonometric(shape, uQuads, uWidth, gain);
    return kernels.pointwise(shape, ACTIVATIONS.indexOf(map.activation!), gain, epsilon);
  }
}

/** What the keys pass leaves. Valid until the stage runs again. */
export interface KeySums {
  /** `chunks × features` (padded): c' after each chunk, without biases; −Infinity where no key was seen, and for padding. */
  readonly tops: Float64Array;
  /** E, `chunks × features/4 × rows × 4`; padding holds anything. */
  readonly E: Float32Array;
  /** [S z] of each chunk alone relative to its c', `chunks × features/4 × stride × 4`. */
  readonly sums: Float32Array;
  /** [V 1], `chunks × rows × stride`. */
  readonly values: Float32Array;
}

export class KeyStage {
  readonly #x: Float32Array;
  readonly #values: Float32Array;
  /** Exponent of a key without u and biases. */
  readonly #base: Float64Array;
  readonly #xShift: Float32Array;
  readonly #yShift: Float32Array;
  readonly #tops: Float64Array;
  readonly #project: Kernel;
  readonly #features: Kernel;
  readonly #sum: Kernel;

  constructor(
    readonly layout: FeatureLayout,
    kernels: Kernels,
    readonly chunks: number,
    readonly rows: number,
    readonly decay?: Float64Array | null,
  ) {
    const { depth, features, projections, stride } = layout;
    this.#x = new Float32Array(chunks * depth * rows);
    this.#values = new Float32Array(chunks * rows * stride);
    this.#base = new Float64Array(chunks * rows);
    this.#xShift = new Float32Array(chunks * rows);
    this.#yShift = new Float32Array(chunks * features);
    this.#tops = new Float64Array(chunks * features);
    this.#project = kernels.product({ chunks, quads: projections / 4, width: rows }, depth, { a: true });
    this.#features = layout.kernel(kernels, { chunks, quads: features / 4, width: rows }, projections / 4, rows);
    this.#sum = kernels.product({ chunks, quads: features / 4, width: stride }, rows);
  }

  /** `before`: c of the padded features ahead of the tile, without biases; null when the tile stands alone. */
  run(k: Tile, v: Tile, weights: FloatArray | undefined, head: number, before: Float64Array | null): KeySums {
    const { layout, rows } = this;
    const { p, valueDim } = layout;
    packColumns(k, head, p.headDim, p.inputScale, layout.depth, rows, this.#x, weights);
    packValues(v, head, valueDim, layout.stride, this.#values, weights);
    this.#bases(k, weights, head);
    const u = this.#project(layout.quads[head % p.matrices], this.#x);
    let E: Float32Array;
    if (p.map.family === "exp") {
      for (let i = 0; i < this.#base.length; i++) this.#xShift[i] = this.#base[i];
      this.#raise(u, before);
      for (let f = 0; f < this.#tops.length; f++) this.#yShift[f] = this.#tops[f] === -Infinity ? 0 : -this.#tops[f];
      E = this.#features(u, this.#xShift, this.#yShift);
    } else {
      this.#raiseRows(before);
      E = this.#features(u, this.#xShift);
    }
    for (let at = 0; at < this.#tops.length; at += layout.features) {
      for (const f of layout.pads) this.#tops[at + f] = -Infinity;
    }
    return { tops: this.#tops, E, sums: this.#sum(E, this.#values), values: this.#values };
  }

  #bases(k: Tile, weights: FloatArray | undefined, head: number): void {
    const { p } = this.layout;
    const half = p.map.family === "exp" ? -0.5 : p.map.family === "trig" ? 0.5 : 0;
    const factor = half * p.inputScale * p.inputScale;
    for (let i = 0; i < k.rows; i++) {
      if (weights && !(weights[i] > 0)) {
        this.#base[i] = NEVER;
        continue;
      }
      let squares = 0;
      if (factor !== 0) {
        for (let at = i * k.cols + head * p.headDim, end = at + p.headDim; at < end; at++) {
          squares += k.data[at] * k.data[at];
        }
      }
      this.#base[i] = Math.max(NEVER, factor * squares + logWeight(weights, this.decay, head, i, k.rows));
    }
    this.#base.fill(NEVER, k.rows);
  }

  /**
   * c' per chunk and feature from u, `chunks × projections/4 × rows × 4`, and the bases as the kernel has them: in float32 a base of 10^10
   * is 500 off, and exponents that are taken from a c' of exact bases would overflow.
   */
  #raise(u: Float32Array, before: Float64Array | null): void {
    const { rows, layout } = this;
    const { features, projections } = layout;
    const fold = features / projections;
    for (let chunk = 0; chunk < this.chunks; chunk++) {
      for (let quad = 0; quad < projections / 4; quad++) {
        for (let part = 0; part < 4; part++) {
          let plus = NEVER, minus = NEVER;
          let at = (chunk * projections / 4 + quad) * rows * 4 + part;
          for (let i = chunk * rows, end = i + rows; i < end; i++, at += 4) {
            const base = this.#xShift[i];
            if (u[at] + base > plus) plus = u[at] + base;
            if (base - u[at] > minus) minus = base - u[at];
          }
          this.#top(chunk, quad * 4 + part, plus, before);
          if (fold === 2) this.#top(chunk, projections + quad * 4 + part, minus, before);
        }
      }
    }
  }

  /** Maps whose exponent is the row's alone: one c' per chunk; xShift becomes e^{base − c'}. */
  #raiseRows(before: Float64Array | null): void {
    const { rows, layout: { features } } = this;
    for (let chunk = 0; chunk < this.chunks; chunk++) {
      const bases = this.#base.subarray(chunk * rows, chunk * rows + rows);
      let top = NEVER;
      for (const base of bases) if (base > top) top = base;
      for (let f = 0; f < features; f++) this.#top(chunk, f, top, before);
      const c = this.#tops[chunk * features];
      for (let i = 0; i < rows; i++) {
        this.#xShift[chunk * rows + i] = bases[i] === NEVER ? 0 : Math.exp(bases[i] - c);
      }
    }
  }

  /** Rounded to float32 where the kernel subtracts it, so that it subtracts what the state says. */
  #top(chunk: number, f: number, found: number, before: Float64Array | null): void {
    const { features, p } = this.layout;
    const ahead = chunk > 0 ? this.#tops[(chunk - 1) * features + f] : before ? before[f] : -Infinity;
    const top = Math.max(ahead, found > NEVER / 2 ? found : -Infinity);
    this.#tops[chunk * features + f] = p.map.family === "exp" ? Math.fround(top) : top;
  }
}

/** What the query pass leaves. Valid until the stage runs again. */
export interface QuerySums {
  /** `chunks × rows/4 × features × 4`. */
  readonly P: Float32Array;
  /** [num den], `chunks × rows/4 × stride × 4`. */
  readonly sums: Float32Array;
}

export class QueryStage {
  readonly #x: Float32Array;
  readonly #xShift: Float32Array;
  readonly #yShift: Float32Array;
  readonly #ones: Float32Array;
  readonly #project: Kernel;
  readonly #features: Kernel;
  readonly #mix: Kernel;

  constructor(readonly layout: FeatureLayout, kernels: Kernels, readonly chunks: number, readonly rows: number) {
    const { depth, features, projections, stride } = layout;
    const quads = rows / 4;
    this.#x = new Float32Array(chunks * rows * depth);
    this.#xShift = new Float32Array(chunks * features);
    this.#yShift = new Float32Array(chunks * rows);
    this.#ones = new Float32Array(chunks * features).fill(1);
    this.#project = kernels.product({ chunks, quads, width: projections }, depth, { b: true });
    this.#features = layout.kernel(kernels, { chunks, quads, width: features }, quads, projections);
    this.#mix = kernels.product({ chunks, quads, width: stride }, features);
  }

  /**
   * @param c `chunks × features` exponents of the state, with the biases of keys and queries; −Infinity for padding.
   * @param right [S z], `chunks × features × stride`; rows of padded features 0.
   */
  run(q: Tile, head: number, matrix: number, c: ArrayLike<number>, right: Float32Array): QuerySums {
    const { layout } = this;
    const { p } = layout;
    packQuads(q, head, p.headDim, p.inputScale, layout.depth, this.#x);
    const u = this.#project(this.#x, layout.columns[matrix]);
    let P: Float32Array;
    if (p.map.family === "exp") {
      for (let f = 0; f < this.#xShift.length; f++) this.#xShift[f] = Math.max(NEVER, c[f]);
      this.#lower(u);
      P = this.#features(u, this.#xShift, this.#yShift);
    } else {
      P = this.#features(u, this.#ones);
    }
    return { P, sums: this.#mix(P, right) };
  }

  /** yShift = −M, M the largest t of each row; u is `chunks × rows/4 × projections × 4`. */
  #lower(u: Float32Array): void {
    const { features, projections } = this.layout;
    const shift = this.#xShift;
    const quads = this.rows / 4;
    for (let group = 0; group < this.chunks * quads; group++) {
      const shifts = Math.floor(group / quads) * features;
      for (let part = 0; part < 4; part++) {
        let top = NEVER;
        let at = group * projections * 4 + part;
        for (let f = shifts, end = f + projections; f < end; f++, at += 4) {
          if (u[at] + shift[f] > top) top = u[at] + shift[f];
          if (features > projections && shift[f + projections] - u[at] > top) top = shift[f + projections] - u[at];
        }
        this.#yShift[group * 4 + part] = top > NEVER / 2 ? -top : 0;
      }
    }
  }
}
