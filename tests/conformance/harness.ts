/** Problems to run on a backend, and the run loops that run them. */
import type { Backend, Session } from "../../src/backend.ts";
import { bindMap, featureMap, type MapParameters, projectionsFor } from "../../src/feature_map.ts";
import type { ExactPlan, Plan } from "../../src/plan.ts";
import { drawFactored } from "../../src/projection.ts";
import { RandomStream } from "../../src/random.ts";
import type { Tile } from "../../src/tensor.ts";

export interface Sizes {
  readonly map?: string;
  readonly features?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly matrices?: number;
  readonly headDim?: number;
  readonly valueDim?: number;
  readonly queryRows?: number;
  readonly keyRows?: number;
  readonly causal?: boolean;
  /** λ per key head. */
  readonly decay?: readonly number[];
  /** Standard deviation of queries and keys. */
  readonly spread?: number;
  readonly weighted?: boolean;
  readonly projection?: string;
  /** Standard deviation of the exponents β of the exp family, other ones for each matrix; 0 leaves them out. */
  readonly beta?: number;
  readonly seed?: number;
}

/** One attention to compute: numbers, parameters and sizes. */
export interface Problem {
  readonly q: Tile;
  readonly k: Tile;
  readonly v: Tile;
  readonly weights?: Float32Array;
  readonly parameters: MapParameters;
  readonly scale: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly causal: boolean;
  readonly decay?: Float64Array;
}

/** Seeded normal numbers; the defaults are odd on purpose. */
export function makeProblem(sizes: Sizes = {}): Problem {
  const { heads = 2, kvHeads = heads, headDim = 5, valueDim = 3, causal = false, spread = 0.8 } = sizes;
  const { keyRows = 37, matrices = 1, seed = 1 } = sizes;
  const queryRows = sizes.queryRows ?? keyRows;
  const map = featureMap(sizes.map ?? "hyperbolic");
  const scale = headDim ** -0.5;
  const projections = projectionsFor(map, sizes.features ?? 14, headDim);
  const draw = {
    kind: sizes.projection ?? "orthogonal",
    projections,
    headDim,
    matrices,
    norms: "chi",
    seed,
    draw: 0,
  } as const;
  const { weights, hadamard } = map.projection === "none"
    ? { weights: new Float64Array(), hadamard: undefined }
    : drawFactored(draw);
  const beta = sizes.beta
    ? Float64Array.from(new RandomStream(seed, 78).normals(matrices * projections), (value) => sizes.beta! * value)
    : undefined;
  const random = new RandomStream(seed, 77);
  const tile = (rows: number, cols: number, sd: number): Tile => {
    return { start: 0, rows, cols, data: Float32Array.from(random.normals(rows * cols), (value) => sd * value) };
  };
  return {
    q: tile(queryRows, heads * headDim, spread),
    k: tile(keyRows, kvHeads * headDim, spread),
    v: tile(keyRows, kvHeads * valueDim, 1),
    weights: sizes.weighted ? Float32Array.from({ length: keyRows }, (_, j) => [1, 0, 2.5, 0.25][j % 4]) : undefined,
    parameters: bindMap(map, { headDim, scale, matrices, weights, hadamard, beta }),
    scale,
    heads,
    kvHeads,
    headDim,
    valueDim,
    causal,
    decay: sizes.decay && Float64Array.from(sizes.decay),
  };
}

/** Rows `from … to−1` as a tile of their own. */
export function rowsOf(tile: Tile, from: number, to: number): Tile {
  return { start: from, rows: to - from, cols: tile.cols, data: tile.data.slice(from * tile.cols, to * tile.cols) };
}

/** The same tile with its rows in another order. */
export function reorder(tile: Tile, order: readonly number[]): Tile {
  const data = new Float32Array(tile.data.length);
  order.forEach((from, to) => data.set(tile.data.subarray(from * tile.cols, (from + 1) * tile.cols), to * tile.cols));
  return { ...tile, data };
}

/** The same tile with every number replaced. */
export function mapTile(tile: Tile, change: (value: number, at: number) => number): Tile {
  return { ...tile, data: Float32Array.from(tile.data, change) };
}

/** A seeded permutation of 0 … n−1. */
export function shuffled(n: number, seed = 9): number[] {
  const random = new RandomStream(seed);
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** Row ranges of at most `tileRows` rows. */
export function* cuts(rows: number, tileRows: number): Iterable<[from: number, to: number]> {
  for (let from = 0; from < rows; from += tileRows) yield [from, Math.min(rows, from + tileRows)];
}

export function planFor(problem: Problem, tileRows: number): Plan {
  const { parameters, heads, kvHeads, headDim, valueDim, causal, decay } = problem;
  return { parameters, heads, kvHeads, headDim, valueDim, causal, decay, tileRows };
}

/** The run loop of linear attention, cut into tiles of `tileRows`. */
export async function attend(session: Session, problem: Problem, tileRows: number): Promise<Float64Array> {
  const { q, k, v, weights, causal, heads, valueDim } = problem;
  const out = new Float64Array(q.rows * heads * valueDim);
  const keys = ([from, to]: [number, number]) => {
    return { k: rowsOf(k, from, to), v: rowsOf(v, from, to), weights: weights?.slice(from, to) };
  };
  if (causal) {
    for (const cut of cuts(k.rows, tileRows)) {
      const own = keys(cut);
      out.set((await session.emit(rowsOf(q, ...cut), own)).data, cut[0] * heads * valueDim);
      await session.absorb(own.k, own.v, own.weights);
    }
  } else {
    for (const cut of cuts(k.rows, tileRows)) {
      const own = keys(cut);
      await session.absorb(own.k, own.v, own.weights);
    }
    for (const cut of cuts(q.rows, tileRows)) {
      out.set((await session.emit(rowsOf(q, ...cut))).data, cut[0] * heads * valueDim);
    }
  }
  return out;
}

/** `attend` in a session of its own. */
export async function run(backend: Backend, problem: Problem, tileRows = problem.k.rows): Promise<Float64Array> {
  const most = Math.max(1, tileRows, problem.causal ? 0 : Math.min(tileRows, problem.q.rows));
  await using session = await backend.prepare(planFor(problem, most));
  return await attend(session, problem, most);
}

/** Exact softmax, `queryRows` held at a time. */
export async function runExact(
  backend: Backend,
  problem: Problem,
  tileRows = problem.k.rows,
  queryRows = problem.q.rows,
): Promise<Float64Array> {
  const { q, k, v, weights, heads, kvHeads, headDim, valueDim, causal, decay, scale } = problem;
  const plan: ExactPlan = {
    heads,
    kvHeads,
    headDim,
    valueDim,
    causal,
    decay,
    scale,
    queryRows,
    tileRows: Math.max(1, tileRows),
  };
  await using session = await backend.prepareExact(plan);
  const out = new Float64Array(q.rows * heads * valueDim);
  for (const [from, to] of cuts(q.rows, queryRows)) {
    await session.pose(rowsOf(q, from, to), Array.from({ length: to - from }, (_, i) => from + i));
    for (const cut of cuts(k.rows, tileRows)) {
      await session.absorb(rowsOf(k, ...cut), rowsOf(v, ...cut), weights?.slice(...cut));
    }
    out.set((await session.emit()).data, from * heads * valueDim);
  }
  return out;
}
