/** The bench of the tour: small tensors of known law, and attention over them by the reference backend, in float64. */
import { FeatureRow } from "../../kernels/scalar/features.ts";
import { parametersFor } from "../attention.ts";
import type { Backend } from "../backend.ts";
import { scalar } from "../backends/scalar.ts";
import { bindMap, featureMap, type MapParameters, projectionsFor } from "../feature_map.ts";
import { attentionOf } from "../figures/trials.ts";
import { drawProjection } from "../projection.ts";
import { RandomStream } from "../random.ts";
import type { Tile } from "../tensor.ts";
import type { TourWorld } from "./step.ts";

/** Lets Ctrl-C through, and stops where it came: called between pieces of work. Throws the signal's reason. */
export async function breathe({ signal }: Pick<TourWorld, "signal">): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
  signal.throwIfAborted();
}

/** Queries, keys and values of one head, row by row, in raw units: x = q/d^¼, y = k/d^¼. */
export interface Head {
  readonly rows: number;
  readonly width: number;
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
}

/** `rows` rows of d = `width`: queries and keys with independent N(0, sd²) entries, values N(0, 1). */
export function gaussianHead(sizes: { rows: number; width: number; sd: number; seed: number }): Head {
  const { rows, width, sd, seed } = sizes;
  const random = new RandomStream(seed, 0x70a7);
  const drawn = (scale: number) => random.normals(rows * width).map((value) => scale * value);
  return { rows, width, q: drawn(sd), k: drawn(sd), v: drawn(1) };
}

/** Self-attention over such rows: they are queries, keys and values. */
export function selfHead(sizes: { rows: number; width: number; sd: number; seed: number }): Head {
  const head = gaussianHead(sizes);
  return { ...head, k: head.q, v: head.q };
}

/** A feature map as the steps name one. */
export interface MapWish {
  readonly features: string;
  /** r, the length of φ. */
  readonly count: number;
  readonly projection: "orthogonal" | "iid";
  readonly seed: number;
  /** Which draw of W; the first, 0, when left out. */
  readonly draw?: number;
}

/** The map over heads of this width, with its projection. */
export function mapOver({ width }: Pick<Head, "width">, wish: MapWish): MapParameters {
  const { features, count, projection, seed, draw = 0 } = wish;
  const attention = attentionOf({ features, numFeatures: count, projection, seed });
  const sizes = { queryRows: 0, keyRows: 0, heads: 1, kvHeads: 1, headDim: width, valueDim: width };
  return parametersFor(attention, sizes, draw);
}

/** W of a map whose x and y are as they are: nothing divides them by d^¼. `m × width` numbers. */
export function drawW(width: number, { features, count, projection, seed, draw = 0 }: MapWish): Float64Array {
  const map = featureMap(features);
  const sizes = { projections: projectionsFor(map, count, width), headDim: width, matrices: 1 };
  return drawProjection({ kind: projection, ...sizes, norms: "chi", seed, draw });
}

/** φ itself, of rows x and y: φ(x)·φ(y) estimates exp(x·y). Attention never needs it whole. */
export class Kernel {
  readonly #row: FeatureRow;
  readonly #g: Float64Array;
  readonly #e: Float64Array;

  constructor(readonly parameters: MapParameters) {
    this.#row = new FeatureRow(parameters);
    this.#g = new Float64Array(parameters.features);
    this.#e = new Float64Array(parameters.features);
  }

  /** The map of that name over the rows of W. */
  static of(features: string, width: number, weights: Float64Array): Kernel {
    return new Kernel(bindMap(featureMap(features), { headDim: width, scale: 1, matrices: 1, weights }));
  }

  /** φ of the row that begins at `at`: r numbers. */
  features(data: ArrayLike<number>, at = 0): Float64Array {
    this.#row.key(0, data, at, this.#g, this.#e, 0);
    return this.#g.map((value, a) => value * Math.exp(this.#e[a]));
  }

  /** φ(x)·φ(y). */
  estimate(x: ArrayLike<number>, y: ArrayLike<number>): number {
    return dot(this.features(x), this.features(y));
  }

  /** Σ_j φ(x_i)·φ(y_j) for every row i of a head: what its outputs are divided by. */
  sums({ rows, width, q, k }: Head): Float64Array {
    const z = new Float64Array(this.parameters.features);
    for (let j = 0; j < rows; j++) for (const [a, value] of this.features(k, j * width).entries()) z[a] += value;
    return Float64Array.from({ length: rows }, (_, i) => dot(this.features(q, i * width), z));
  }
}

/** a·b. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** Attention of one head by the reference backend. */
export class Lab implements AsyncDisposable {
  constructor(readonly backend: Backend) {}

  static async open(): Promise<Lab> {
    return new Lab(await scalar.open({ named: true }));
  }

  /** Outputs with features, `rows × width`; `keyWeights` holds one ω per key. */
  async linear(
    head: Head,
    parameters: MapParameters,
    { causal = false, keyWeights }: { causal?: boolean; keyWeights?: Float64Array } = {},
  ): Promise<Float64Array> {
    await using session = await this.backend.prepare({ ...shapeOf(head, causal), parameters });
    const [q, k, v] = tilesOf(head);
    if (causal) return (await session.emit(q, { k, v, weights: keyWeights })).data as Float64Array;
    await session.absorb(k, v, keyWeights);
    return (await session.emit(q)).data as Float64Array;
  }

  /** Outputs of exact softmax, `rows × width`, and ln Σ_j ω_j exp(x_i·y_j) of every row. */
  async softmax(head: Head, keyWeights?: Float64Array): Promise<{ outputs: Float64Array; logSums: Float64Array }> {
    const { rows, width } = head;
    const plan = { ...shapeOf(head, false), scale: 1 / Math.sqrt(width), queryRows: rows };
    await using session = await this.backend.prepareExact(plan);
    const [q, k, v] = tilesOf(head);
    await session.pose(q, new Float64Array(rows));
    await session.absorb(k, v, keyWeights);
    const { top, total } = await session.normalisers();
    const outputs = (await session.emit()).data as Float64Array;
    return { outputs, logSums: top.map((value, i) => value + Math.log(total[i])) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.backend[Symbol.asyncDispose]();
  }
}

/** One head as backends want it described. */
export const shapeOf = ({ rows, width }: Pick<Head, "rows" | "width">, causal: boolean) => {
  return { heads: 1, kvHeads: 1, headDim: width, valueDim: width, causal, tileRows: rows };
};

function tilesOf({ rows, width, q, k, v }: Head): [Tile, Tile, Tile] {
  const tile = (data: Float64Array): Tile => ({ start: 0, rows, cols: width, data });
  return [tile(q), tile(k), tile(v)];
}

/** Every row the mean of the values: attention that ignores queries and keys. */
export function meanOfValues({ width, v }: Head): Float64Array {
  const mean = meanRow(v, width);
  return v.map((_, i) => mean[i % width]);
}

/** Mean of rows of `width` numbers. */
export function meanRow(rows: Float64Array, width: number): Float64Array {
  const mean = new Float64Array(width);
  for (let at = 0; at < rows.length; at++) mean[at % width] += rows[at] * width / rows.length;
  return mean;
}

/** Mean of ‖x + y‖² over all pairs of queries and keys. */
export function meanSquaredSum({ rows, width, q, k }: Pick<Head, "rows" | "width" | "q" | "k">): number {
  return (dot(q, q) / rows + dot(k, k) / rows + 2 * dot(meanRow(q, width), meanRow(k, width))) / Math.sqrt(width);
}

/** ‖approx − exact‖ / ‖exact‖. */
export function relativeError(approx: ArrayLike<number>, exact: ArrayLike<number>): number {
  let error = 0, norm = 0;
  for (let i = 0; i < exact.length; i++) {
    error += (approx[i] - exact[i]) ** 2;
    norm += exact[i] ** 2;
  }
  return Math.sqrt(error / norm);
}
