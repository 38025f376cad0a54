/** States of seeded rows, for tests of what is done with states. */
import { type Attention, decayFor, logitScale, type Sizes } from "../src/attention.ts";
import type { Backend } from "../src/backend.ts";
import { openFirst, parseBackendList } from "../src/backends/mod.ts";
import { featureMap } from "../src/feature_map.ts";
import { type Fit, fitHead } from "../src/fitted.ts";
import { Moments } from "../src/moments.ts";
import { RandomStream } from "../src/random.ts";
import { openSession } from "../src/sessions.ts";
import { type StoredState, storedState } from "../src/stored_state.ts";
import type { FloatArray, Tile } from "../src/tensor.ts";

/** Settings of a test, the defaults odd on purpose. */
export const attentionWith = (changes: Partial<Attention> = {}): Attention => ({
  features: "hyperbolic",
  numFeatures: 14,
  projection: "orthogonal",
  norms: "chi",
  seed: 3,
  causal: true,
  scale: null,
  given: null,
  compat: "exact",
  ...changes,
});

/** Sizes of a test: two key heads, more query heads where there are to be some. */
export const sizesWith = (rows: number, heads = 2): Sizes => {
  return { queryRows: rows, keyRows: rows, heads, kvHeads: 2, headDim: 5, valueDim: 3 };
};

/** Queries, keys, values and weights: float32-representable, so that every backend has the same numbers. */
export function rowsWith({ heads, kvHeads, headDim, valueDim, keyRows: rows }: Sizes, seed = 1) {
  const random = new RandomStream(seed, 5);
  const tile = (cols: number, sd: number, mean: number): Tile => ({
    start: 0,
    rows,
    cols,
    data: Float32Array.from(random.normals(rows * cols), (value) => sd * value + mean),
  });
  const [q, k, v] = [
    tile(heads * headDim, 0.7, 0.2),
    tile(kvHeads * headDim, 0.9, -0.3),
    tile(kvHeads * valueDim, 1, 0),
  ];
  return { q, k, v, weights: Float32Array.from({ length: rows }, (_, j) => [1, 0.5, 0, 2][j % 4]) };
}

/** What the map of an attention is fitted to by these rows. */
export function fitWith(attention: Attention, sizes: Sizes, rows: ReturnType<typeof rowsWith>, centred = true): Fit {
  const { heads, kvHeads, headDim } = sizes;
  const [queries, keys] = [new Moments(heads, headDim, true), new Moments(kvHeads, headDim, true)];
  queries.add(rows.q);
  keys.add(rows.k);
  const map = featureMap(attention.features);
  const scale = logitScale(attention, headDim);
  return {
    source: "file",
    rows: rows.k.rows,
    centred,
    heads: Array.from({ length: kvHeads }, (_, h) => {
      return fitHead(map, queries.ofGroup(h, kvHeads), keys.ofGroup(h, kvHeads), scale, centred);
    }),
  };
}

/** The scalar backend. */
export async function openScalar(): Promise<Backend> {
  return (await openFirst(parseBackendList("scalar"))).backend;
}

/** The state of rows `from … to−1`, of all of them by default. */
export async function stateWith(
  attention: Attention,
  sizes: Sizes,
  rows: { readonly k: Tile; readonly v: Tile; readonly weights?: FloatArray },
  { fit = null, path = "made.safetensors", from = 0, to = rows.k.rows }: {
    readonly fit?: Fit | null;
    readonly path?: string;
    readonly from?: number;
    readonly to?: number;
  } = {},
): Promise<StoredState> {
  await using backend = await openScalar();
  const shape = {
    ...sizes,
    causal: attention.causal,
    decay: decayFor(attention, sizes),
    tileRows: Math.max(1, to - from),
  };
  const { session } = await openSession(backend, attention, sizes, shape, 0, fit);
  await using _session = session;
  const part = (tile: Tile): Tile => {
    return { ...tile, start: 0, rows: to - from, data: tile.data.subarray(from * tile.cols, to * tile.cols) };
  };
  if (to > from) await session.absorb(part(rows.k), part(rows.v), rows.weights?.subarray(from, to));
  return storedState(attention, sizes, fit, { path, rows: to - from, state: await session.save() });
}
