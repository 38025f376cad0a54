/** k-means (Lloyd) on a sample of keys, per key head: the fixed centroids of a clustered far field. */
import type { Backend } from "./backend.ts";
import { breather } from "./in_flight.ts";
import { RandomStream } from "./random.ts";
import { type FloatArray, floats, pickRows, rowsOf, type Tile } from "./tensor.ts";
import { LentMemory } from "./tile_store.ts";

/** Rounds of Lloyd's algorithm: the error of the far field changes by less than 2 % after them. */
const ROUNDS = 8;
/** The first rounds look at every fourth row only, where that leaves enough of them: they move far, the last ones fine. */
const COARSE_ROUNDS = 4;
const COARSE_STEP = 4;
const LEAST_PER_CLUSTER = 8;

/** Rows that one layer call assigns. */
const TILE_ROWS = 1024;

export interface CentroidOptions {
  readonly heads: number;
  /** Clusters per head. */
  readonly count: number;
  readonly seed: number;
  readonly signal?: AbortSignal;
}

/**
 * `heads × count × d` centroids of the sample's keys. Assignments are dense layers of the backend, a group per head: argmax of k·c − ‖c‖²/2.
 * A cluster that loses all its keys starts again at a key drawn at random. Deterministic from `seed`.
 * @param weights one ω ≥ 0 per row; rows with 0 are left out
 */
export async function findCentroids(
  backend: Backend,
  keys: Tile,
  weights: FloatArray | undefined,
  { heads, count, seed, signal }: CentroidOptions,
): Promise<Float64Array> {
  const breathe = breather(signal);
  const d = keys.cols / heads;
  const centroids = new Float64Array(heads * count * d);
  const seen = Array.from({ length: keys.rows }, (_, i) => i).filter((i) => !weights || weights[i] > 0);
  const rows = seen.length === keys.rows ? keys : pickRows(keys, seen);
  const omega = seen.map((row) => weights?.[row] ?? 1);
  const n = seen.length;
  if (n === 0) return centroids;
  const random = Array.from({ length: heads }, (_, head) => new RandomStream(seed, 0xc1057e2 + head));
  const put = (head: number, g: number, row: number) => {
    const at = row * keys.cols + head * d;
    centroids.set(rows.data.subarray(at, at + d), (head * count + g) * d);
  };
  for (let head = 0; head < heads; head++) {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let g = 0; g < Math.min(count, n); g++) {
      const other = g + random[head].below(n - g);
      [order[g], order[other]] = [order[other], order[g]];
    }
    for (let g = 0; g < count; g++) put(head, g, order[g % n]);
  }
  using assignment = new Assignment(backend, heads, count, d, n);
  const sums = new Float64Array(heads * count * d);
  const totals = new Float64Array(heads * count);
  const step = n >= COARSE_STEP * LEAST_PER_CLUSTER * count ? COARSE_STEP : 1;
  const few = step === 1 ? rows : pickRows(rows, Array.from({ length: Math.ceil(n / step) }, (_, i) => i * step));
  for (let round = 0; round < ROUNDS; round++) {
    const [sample, every] = round < COARSE_ROUNDS ? [few, step] : [rows, 1];
    const nearest = await assignment.of(sample, centroids, breathe);
    sums.fill(0);
    totals.fill(0);
    for (let at = 0; at < sample.rows * heads; at++) {
      const row = Math.floor(at / heads);
      const weight = omega[row * every];
      const cluster = (at - row * heads) * count + nearest[at];
      totals[cluster] += weight;
      for (let l = 0; l < d; l++) sums[cluster * d + l] += weight * sample.data[at * d + l];
    }
    for (let cluster = 0; cluster < heads * count; cluster++) {
      const head = Math.floor(cluster / count);
      if (totals[cluster] === 0) put(head, cluster - head * count, random[head].below(n));
      else for (let l = 0; l < d; l++) centroids[cluster * d + l] = sums[cluster * d + l] / totals[cluster];
    }
  }
  return centroids;
}

/** Nearest centroids, in memory that is taken once. */
class Assignment implements Disposable {
  readonly #memory: LentMemory;
  readonly #products: FloatArray;
  readonly #weight: FloatArray;
  readonly #bias: FloatArray;
  readonly #nearest: Int32Array;

  constructor(
    readonly backend: Backend,
    readonly heads: number,
    readonly count: number,
    readonly d: number,
    rows: number,
  ) {
    this.#memory = new LentMemory(backend);
    this.#products = this.#memory.array(Math.min(TILE_ROWS, rows) * heads * count);
    this.#weight = floats(backend.limits.precision, heads * count * d);
    this.#bias = floats(backend.limits.precision, heads * count);
    this.#nearest = new Int32Array(rows * heads);
  }

  /** Per row and head, the number of the nearest centroid; valid until the next call. */
  async of(rows: Tile, centroids: Float64Array, breathe: () => Promise<void> | void): Promise<Int32Array> {
    const { backend, heads, count, d } = this;
    const [weight, bias, nearest] = [this.#weight, this.#bias, this.#nearest];
    weight.set(centroids);
    for (let cluster = 0; cluster < heads * count; cluster++) {
      let square = 0;
      for (let at = cluster * d; at < (cluster + 1) * d; at++) square += centroids[at] ** 2;
      bias[cluster] = -square / 2;
    }
    const plan = {
      inputs: heads * d,
      outputs: heads * count,
      groups: heads,
      weight,
      bias,
      tileRows: TILE_ROWS,
    } as const;
    await using layer = await backend.prepareLinear({ ...plan, activation: "none" });
    for (let start = 0; start < rows.rows; start += TILE_ROWS) {
      const tile = rowsOf(rows, start, Math.min(start + TILE_ROWS, rows.rows));
      const { data } = await layer.run(tile, this.#products);
      for (let at = 0; at < tile.rows * heads; at++) {
        const first = at * count;
        let [best, most] = [first, data[first]];
        for (let g = first + 1; g < first + count; g++) if (data[g] > most) [best, most] = [g, data[g]];
        nearest[start * heads + at] = best - first;
      }
      await breathe();
    }
    return nearest;
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }
}
