/** Drives the float64 code with small problems: tiles from numbers, sessions over any cut, features as plain arrays. */
import { FeatureRow } from "../../kernels/scalar/features.ts";
import { scalar } from "../../src/backends/scalar.ts";
import type { SessionCounts } from "../../src/backend.ts";
import { bindMap, type FeatureMap, featureMap, type MapParameters } from "../../src/feature_map.ts";
import type { Plan } from "../../src/plan.ts";
import { drawFactored, drawProjection, type ProjectionOptions, type RowNorms } from "../../src/projection.ts";
import { RandomStream } from "../../src/random.ts";
import type { State } from "../../src/state.ts";
import type { Tile } from "../../src/tensor.ts";
import { KERNEL_MAPS } from "../kernel_maps.ts";
import { norm2 } from "./oracles.ts";

export type Rows = number[][];

/** `rows × cols` normal numbers of standard deviation `sd`. */
export function gaussian(seed: number, rows: number, cols: number, sd = 1): Rows {
  const random = new RandomStream(seed);
  return Array.from({ length: rows }, () => Array.from({ length: cols }, () => sd * random.normal()));
}

export const tile = (rows: readonly ArrayLike<number>[], start = 0): Tile => ({
  start,
  rows: rows.length,
  cols: rows[0]?.length ?? 0,
  data: Float64Array.from(rows.flatMap((row) => Array.from(row))),
});

export const rowsOf = ({ rows, cols, data }: Tile): Rows =>
  Array.from({ length: rows }, (_, i) => Array.from(data.subarray(i * cols, (i + 1) * cols)));

/** Hands out given numbers instead of random ones, so that Gram–Schmidt can be fed a matrix and a Hadamard block its signs. */
export class GivenNumbers extends RandomStream {
  #next = 0;
  constructor(readonly numbers: number[]) {
    super(0);
  }
  override normal(): number {
    return this.numbers[this.#next++];
  }
  override below(): number {
    return this.numbers[this.#next++];
  }
}

/** A few maps, and every map that is one of its own to kernels, by name. */
export const SOFTMAX_MAPS = ["positive", "hyperbolic", "trigonometric"] as const;
export const ALL_MAPS = KERNEL_MAPS.map((map) => map.name);
export const POSITIVE_MAPS = KERNEL_MAPS.filter((map) => !map.signed).map((map) => map.name);

interface ParameterOptions extends Partial<Omit<ProjectionOptions, "headDim" | "projections">> {
  readonly headDim: number;
  readonly projections?: number;
  /** Logit scale; 1 makes raw rows the scaled rows of the formulas. */
  readonly scale?: number;
  /** Explicit W, `m × d`. */
  readonly W?: readonly ArrayLike<number>[];
}

export function parametersOf(map: string | FeatureMap, options: ParameterOptions): MapParameters {
  const { headDim, projections = headDim, scale = 1, matrices = 1, W } = options;
  const { kind = "orthogonal", norms = "chi", seed = 1, draw = 0 } = options;
  const drawn = W
    ? { weights: Float64Array.from(W.flatMap((w) => Array.from(w))) }
    : drawFactored({ kind, projections, headDim, matrices, norms, seed, draw });
  return bindMap(typeof map === "string" ? featureMap(map) : map, { headDim, scale, matrices, ...drawn });
}

/** W of matrix `head` as rows. */
export const projectionRows = (p: MapParameters, head = 0): Rows =>
  Array.from({ length: p.projections }, (_, a) => {
    const at = ((head % p.matrices) * p.projections + a) * p.headDim;
    return Array.from(p.weights.subarray(at, at + p.headDim));
  });

/** φ of one raw row as the kernels compute it; a query's factor h(x), which they leave out, is put back. */
export class Features {
  readonly #row: FeatureRow;
  readonly #g: Float64Array;
  readonly #e: Float64Array;

  constructor(readonly p: MapParameters) {
    this.#row = new FeatureRow(p);
    this.#g = new Float64Array(p.features);
    this.#e = new Float64Array(p.features);
  }

  key(row: readonly number[], head = 0): Float64Array {
    this.#row.key(head, Float64Array.from(row), 0, this.#g, this.#e, 0);
    return this.#g.map((g, a) => g * Math.exp(this.#e[a]));
  }

  query(row: readonly number[], head = 0): Float64Array {
    this.#row.query(head, Float64Array.from(row), 0, this.#g, this.#e);
    const half = 0.5 * this.p.inputScale ** 2 * norm2(row);
    const { family } = this.p.map;
    const h = family === "exp" ? -half : family === "trig" ? half : 0;
    return this.#g.map((g, a) => g * Math.exp(this.#e[a] + h));
  }

  /** φ(x)·φ(y). */
  estimate(x: readonly number[], y: readonly number[]): number {
    const key = this.key(y);
    return this.query(x).reduce((sum, value, a) => sum + value * key[a], 0);
  }
}

export interface Problem {
  readonly Q: Rows;
  readonly K: Rows;
  readonly V: Rows;
  readonly weights?: readonly number[];
}

export interface RunOptions {
  readonly causal?: boolean;
  /** Lengths of successive tiles; the last repeats. Default: one tile. */
  readonly cuts?: readonly number[];
  readonly heads?: number;
  readonly kvHeads?: number;
}

/** [from, to) of successive tiles of `rows` rows. */
function tilesOf(rows: number, cuts: readonly number[] = [rows]): [number, number][] {
  const tiles: [number, number][] = [];
  for (let from = 0, i = 0; from < rows; i++) {
    const to = Math.min(rows, from + cuts[Math.min(i, cuts.length - 1)]);
    tiles.push([from, to]);
    from = to;
  }
  return tiles;
}

const part = ({ K, V, weights }: Problem, from: number, to: number) => ({
  k: tile(K.slice(from, to), from),
  v: tile(V.slice(from, to), from),
  weights: weights && Float64Array.from(weights.slice(from, to)),
});

export interface LinearResult {
  readonly out: Rows;
  readonly counts: SessionCounts;
  readonly state: State;
}

/** Linear attention through a Session of the scalar backend. */
export async function linear(p: MapParameters, problem: Problem, options: RunOptions = {}): Promise<LinearResult> {
  const { causal = false, heads = 1, kvHeads = heads } = options;
  const { Q, K, V } = problem;
  const valueDim = (V[0]?.length ?? 0) / kvHeads;
  const tileRows = Math.max(Q.length, K.length);
  const plan: Plan = { heads, kvHeads, headDim: p.headDim, valueDim, causal, tileRows, parameters: p };
  await using backend = await scalar.open({ named: true });
  await using session = await backend.prepare(plan);
  const out: Rows = [];
  if (!causal) {
    for (const [from, to] of tilesOf(K.length, options.cuts)) {
      const { k, v, weights } = part(problem, from, to);
      await session.absorb(k, v, weights);
    }
  }
  for (const [from, to] of tilesOf(Q.length, options.cuts)) {
    const own = causal ? part(problem, from, to) : undefined;
    out.push(...rowsOf(await session.emit(tile(Q.slice(from, to), from), own)));
    if (own) await session.absorb(own.k, own.v, own.weights);
  }
  return { out, counts: { ...session.counts }, state: await session.save() };
}

/** Exact softmax through an ExactSession of the scalar backend. */
export async function softmax(scale: number, problem: Problem, options: RunOptions = {}): Promise<Rows> {
  const { causal = false, heads = 1, kvHeads = heads } = options;
  const { Q, K, V } = problem;
  const headDim = Q[0].length / heads, valueDim = V[0].length / kvHeads;
  const shape = { heads, kvHeads, headDim, valueDim, causal, tileRows: K.length, queryRows: Q.length };
  await using backend = await scalar.open({ named: true });
  await using session = await backend.prepareExact({ ...shape, scale });
  await session.pose(tile(Q), Q.map((_, i) => i));
  for (const [from, to] of tilesOf(K.length, options.cuts)) {
    const { k, v, weights } = part(problem, from, to);
    await session.absorb(k, v, weights);
  }
  return rowsOf(await session.emit());
}

/** Largest |a − b| relative to the largest |b|, over everything; NaN anywhere gives NaN. */
export function distance(a: readonly ArrayLike<number>[], b: readonly ArrayLike<number>[]): number {
  let most = 0, size = 0;
  if (a.length !== b.length) return NaN;
  for (let i = 0; i < b.length; i++) {
    if (a[i].length !== b[i].length) return NaN;
    for (let c = 0; c < b[i].length; c++) {
      const gap = Math.abs(a[i][c] - b[i][c]);
      if (!(gap <= most)) most = gap; // also when gap is NaN
      if (Number.isNaN(most)) return NaN;
      size = Math.max(size, Math.abs(b[i][c]));
    }
  }
  return most === 0 ? 0 : most / size;
}

/** Running mean and variance of samples, and how far the mean is from what it should be. */
export class Sample {
  n = 0;
  mean = 0;
  #squares = 0;

  add(value: number): void {
    this.n++;
    const gap = value - this.mean;
    this.mean += gap / this.n;
    this.#squares += gap * (value - this.mean);
  }

  get variance(): number {
    return this.#squares / (this.n - 1);
  }

  get standardError(): number {
    return Math.sqrt(this.variance / this.n);
  }

  z(expected: number): number {
    return (this.mean - expected) / this.standardError;
  }
}

/** x, y with ‖x+y‖² = s and ‖x−y‖² = δ along two fixed orthonormal directions that favour no axis. */
export function pairWith(d: number, s: number, delta: number): [number[], number[]] {
  const a = Array.from({ length: d }, () => Math.sqrt(s / d));
  const b = Array.from({ length: d }, (_, l) => (l % 2 ? -1 : 1) * Math.sqrt(delta / d));
  return [a.map((value, l) => (value + b[l]) / 2), a.map((value, l) => (value - b[l]) / 2)];
}

export interface Draws {
  readonly maps: readonly string[];
  readonly kind: string;
  readonly d: number;
  readonly m: number;
  readonly draws: number;
  readonly norms?: RowNorms;
  /** The number that squared errors are taken about. */
  readonly target: number;
}

/** Estimates of many independent draws of W, the same W for every map: mean, and squared error about the target. */
export function sample({ maps, kind, d, m, draws, norms = "chi", target }: Draws, x: number[], y: number[]) {
  const results = maps.map((name) => ({ name, estimate: new Sample(), squared: new Sample() }));
  for (let draw = 0; draw < draws; draw++) {
    const W = drawProjection({ kind, projections: m, headDim: d, matrices: 1, norms, seed: 2020, draw });
    for (const result of results) {
      const p = parametersOf(result.name, { headDim: d, W: [W] });
      const value = new Features(p).estimate(x, y);
      result.estimate.add(value);
      result.squared.add((value - target) ** 2);
    }
  }
  return results;
}
