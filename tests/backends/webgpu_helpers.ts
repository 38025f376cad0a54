/** Small random problems, run on a backend and on the float64 reference. */
import type { Backend, SessionCounts } from "../../src/backend.ts";
import { bindMap, featureMap, projectionsFor } from "../../src/feature_map.ts";
import type { Plan } from "../../src/plan.ts";
import type { FloatArray, Tile } from "../../src/tensor.ts";

/** mulberry32. */
export function generator(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function normals(length: number, random: () => number, size = 1): Float32Array {
  return Float32Array.from(
    { length },
    () => size * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}

export interface Problem {
  readonly plan: Plan;
  readonly q: Tile;
  readonly k: Tile;
  readonly v: Tile;
  readonly weights?: FloatArray;
}

export interface ProblemOptions {
  readonly map?: string;
  readonly features?: number;
  readonly matrices?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly headDim?: number;
  readonly valueDim?: number;
  readonly rows?: number;
  readonly causal?: boolean;
  readonly tileRows?: number;
  readonly size?: number;
  /** Share of keys with weight 0; the others get weights in 0…2. */
  readonly masked?: number;
  readonly seed?: number;
}

export function problem(options: ProblemOptions): Problem {
  const { heads = 2, headDim = 8, valueDim = 8, rows = 100, features = 32, matrices = 1, causal = false, size = 1 } =
    options;
  const { kvHeads = heads, tileRows = rows } = options;
  const random = generator(options.seed ?? 1);
  const map = featureMap(options.map ?? "hyperbolic");
  const m = projectionsFor(map, features, headDim);
  const weights = Float64Array.from(normals(matrices * m * headDim, random));
  const parameters = bindMap(map, { headDim, scale: 1 / Math.sqrt(headDim), matrices, weights });
  const tile = (width: number, scale: number): Tile => ({
    start: 0,
    rows,
    cols: width,
    data: normals(rows * width, random, scale),
  });
  const q = tile(heads * headDim, size);
  const k = tile(kvHeads * headDim, size);
  const v = tile(kvHeads * valueDim, 1);
  const { masked } = options;
  const omega = masked === undefined
    ? undefined
    : Float32Array.from({ length: rows }, () => random() < masked ? 0 : 2 * random());
  return { plan: { heads, kvHeads, headDim, valueDim, causal, tileRows, parameters }, q, k, v, weights: omega };
}

export function slice(tile: Tile, from: number, to: number): Tile {
  return {
    start: tile.start + from,
    rows: to - from,
    cols: tile.cols,
    data: tile.data.slice(from * tile.cols, to * tile.cols),
  };
}

/** All outputs, with the rows cut into tiles of `plan.tileRows`, and the session's counts. */
export async function run(
  backend: Backend,
  { plan, q, k, v, weights }: Problem,
): Promise<{ out: Float64Array; counts: SessionCounts }> {
  await using session = await backend.prepare(plan);
  const out = new Float64Array(q.rows * plan.heads * plan.valueDim);
  const tiles: { from: number; k: Tile; v: Tile; q: Tile; weights?: FloatArray }[] = [];
  for (let from = 0; from < q.rows; from += plan.tileRows) {
    const to = Math.min(q.rows, from + plan.tileRows);
    tiles.push({
      from,
      k: slice(k, from, to),
      v: slice(v, from, to),
      q: slice(q, from, to),
      weights: weights?.slice(from, to),
    });
  }
  const keep = (from: number, tile: Tile) => out.set(tile.data, from * plan.heads * plan.valueDim);
  if (plan.causal) {
    for (const tile of tiles) {
      keep(tile.from, await session.emit(tile.q, tile));
      await session.absorb(tile.k, tile.v, tile.weights);
    }
  } else {
    await Promise.all(tiles.map((tile) => session.absorb(tile.k, tile.v, tile.weights)));
    await Promise.all(tiles.map(async (tile) => keep(tile.from, await session.emit(tile.q))));
  }
  return { out, counts: { ...session.counts } };
}

/** ‖got − want‖ / ‖want‖, or ‖got‖ when all is to be 0. */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < want.length; i++) {
    difference += (got[i] - want[i]) ** 2;
    norm += want[i] ** 2;
  }
  return Math.sqrt(difference / (norm || 1));
}
