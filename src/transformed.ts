/**
 * A session of any backend over transformed rows: keys moved by g and balanced by T⁻¹, queries balanced by T, or both turned by their
 * place in the sequence (row_transform.ts). Exact softmax is blind to the former, so only the estimate changes, and every backend gets
 * every map without kernels of its own.
 *
 * Diagonals and shifts are applied number by number while a tile is copied; dense matrices are dense layers of the backend, block by
 * block of heads. Shifts are taken from the raw numbers, before the kernels scale them.
 */
import { dense } from "../kernels/scalar/dense.ts";
import type { Backend, Linear, Session } from "./backend.ts";
import type { Plan } from "./plan.ts";
import type { RowTransform } from "./row_transform.ts";
import type { State } from "./state.ts";
import { type FloatArray, floats, type Precision, type Tile } from "./tensor.ts";
import { LentMemory } from "./tile_store.ts";

/** Fills `into` from a tile, which it has read when it returns, and says what lies there: now, or when the backend is done. */
type RowMap = (tile: Tile, into: FloatArray) => Tile | Promise<Tile>;

/** Outputs of cosformer are numerators over denominators of at least this (its reference implementation's clamp). */
const LEAST_DENOMINATOR = 1e-6;

/**
 * `backend.prepare`, with queries and keys transformed on the way. `plan.headDim` is that of the tiles, `plan.parameters.headDim` what
 * kernels see of them. Call it while no session is at work.
 */
export async function prepareTransformed(
  backend: Backend,
  plan: Plan,
  transform: RowTransform | null,
): Promise<Session> {
  if (!transform) return await backend.prepare(plan);
  await using open = new AsyncDisposableStack();
  const maps = await mapsOf(backend, plan, transform, open);
  const { headDim } = plan.parameters;
  const cols = { queries: plan.heads * headDim, keys: plan.kvHeads * headDim };
  const lent = open.use(new LentMemory(backend));
  const depth = backend.limits.inFlight + 1;
  const rooms = (each: number, map: RowMap | null) => {
    const length = plan.tileRows * each;
    return new Rooms(
      length,
      Array.from({ length: map ? depth : 0 }, () => lent.array(length)),
      backend.limits.precision,
    );
  };
  const memory = { queries: rooms(cols.queries, maps.queries), keys: rooms(cols.keys, maps.keys) };
  const session = open.use(await backend.prepare({ ...plan, headDim }));
  const least = transform.kind === "angular" ? LEAST_DENOMINATOR : null;
  return new TransformedSession(
    session,
    maps,
    memory,
    { plan, least, precision: backend.limits.precision },
    open.move(),
  );
}

interface Maps {
  /** null: queries stay as they are. */
  readonly queries: RowMap | null;
  readonly keys: RowMap;
}

async function mapsOf(
  backend: Backend,
  plan: Plan,
  transform: RowTransform,
  open: AsyncDisposableStack,
): Promise<Maps> {
  const { heads, kvHeads, headDim, tileRows } = plan;
  if (transform.kind === "angular") {
    return { queries: turned(heads, headDim, transform.length), keys: turned(kvHeads, headDim, transform.length) };
  }
  const { queries, keys, shift, kind } = transform;
  if (kind === "diagonal") {
    const each = queries && repeated(queries, headDim, heads / kvHeads);
    return { queries: each && scaled(each, null), keys: scaled(keys, shift) };
  }
  const matrices = async (blocks: Float64Array, groups: number, bias: Float64Array | null): Promise<RowMap> => {
    const width = groups * headDim;
    const layer = {
      inputs: width,
      outputs: width,
      weight: blocks,
      bias,
      activation: "none",
      tileRows,
      groups,
    } as const;
    const linear: Linear = open.use(await backend.prepareLinear(layer));
    return async (tile, into) => ({ ...await linear.run(tile, into), start: tile.start });
  };
  return {
    queries: await matrices(repeated(queries!, headDim * headDim, heads / kvHeads), heads, null),
    keys: await matrices(keys!, kvHeads, movedBy(keys!, shift, headDim)),
  };
}

/**
 * Queries in float64 as the kernels of a transformed session see them: `rows × (heads · coordinates)`.
 * @param positions row index of each row of `q`, which need not be neighbours.
 */
export function transformedQueries(
  q: Tile,
  { heads, kvHeads, headDim }: Pick<Plan, "heads" | "kvHeads" | "headDim">,
  transform: RowTransform | null,
  positions: ArrayLike<number>,
): Tile {
  if (transform?.kind === "angular") {
    const cols = 2 * q.cols;
    const data = new Float64Array(q.rows * cols);
    const turn = turned(heads, headDim, transform.length);
    for (let i = 0; i < q.rows; i++) {
      const row = { start: positions[i], rows: 1, cols: q.cols, data: q.data.subarray(i * q.cols, (i + 1) * q.cols) };
      turn(row, data.subarray(i * cols, (i + 1) * cols));
    }
    return { ...q, cols, data };
  }
  const data = Float64Array.from(q.data.subarray(0, q.rows * q.cols));
  if (!transform?.queries) return { ...q, data };
  const times = heads / kvHeads;
  if (transform.kind === "diagonal") {
    const each = repeated(transform.queries, headDim, times);
    return { ...q, data: data.map((value, at) => value * each[at % q.cols]) };
  }
  const weight = repeated(transform.queries, headDim * headDim, times);
  const out = new Float64Array(data.length);
  dense({ inputs: q.cols, outputs: q.cols, groups: heads, weight, bias: null, activation: "none" }, q, out);
  return { ...q, data: out };
}

/** Numbers of key heads, `size` each, for each of the query heads that read them. */
function repeated(numbers: Float64Array, size: number, times: number): Float64Array {
  const out = new Float64Array(numbers.length * times);
  for (let h = 0; h < out.length / size; h++) {
    const from = Math.floor(h / times) * size;
    out.set(numbers.subarray(from, from + size), h * size);
  }
  return out;
}

/** −T⁻¹ g of every head: what a dense layer adds so that it takes g away first. */
function movedBy(blocks: Float64Array, shift: Float64Array, d: number): Float64Array {
  return shift.map((_, row) => {
    let sum = 0;
    const head = Math.floor(row / d) * d;
    for (let l = 0; l < d; l++) sum -= blocks[row * d + l] * shift[head + l];
    return sum;
  });
}

/** x → factor · (x − shift), column by column; null: 1 and 0. */
function scaled(factors: Float64Array | null, shift: Float64Array | null): RowMap {
  return (tile, into) => {
    const { rows, cols, data } = tile;
    const out = into.subarray(0, rows * cols);
    for (let at = 0; at < out.length;) {
      if (!factors) { for (let c = 0; c < cols; c++, at++) out[at] = data[at] - shift![c]; }
      else if (!shift) { for (let c = 0; c < cols; c++, at++) out[at] = factors[c] * data[at]; }
      else for (let c = 0; c < cols; c++, at++) out[at] = factors[c] * (data[at] - shift[c]);
    }
    return { ...tile, data: out };
  };
}

/** x_i → [x_i sin θ_i, x_i cos θ_i] per head, θ_i = π i / (2 · length), the first row of the sequence being i = 1. */
function turned(heads: number, width: number, length: number): RowMap {
  return (tile, into) => {
    const { rows, start, data } = tile;
    const cols = heads * 2 * width;
    for (let i = 0, from = 0, to = 0; i < rows; i++) {
      const angle = Math.PI * (start + i + 1) / (2 * length);
      const sin = Math.sin(angle), cos = Math.cos(angle);
      for (let h = 0; h < heads; h++, to += 2 * width) {
        for (let l = 0; l < width; l++, from++) {
          into[to + l] = sin * data[from];
          into[to + width + l] = cos * data[from];
        }
      }
    }
    return { ...tile, cols, data: into.subarray(0, rows * cols) };
  };
}

/** Memory for transformed tiles in flight: the backend's own, and more where a caller has more on its way than it announced. */
class Rooms {
  readonly #most: number;

  constructor(readonly length: number, readonly free: FloatArray[], readonly precision: Precision) {
    this.#most = free.length;
  }

  take(): FloatArray {
    return this.free.pop() ?? floats(this.precision, this.length);
  }

  giveBack(room: FloatArray): void {
    if (this.free.length < this.#most) this.free.push(room);
  }
}

type Own = NonNullable<Parameters<Session["emit"]>[1]>;

/** Own keys of an emitted causal tile, transformed once. */
interface OwnTile {
  readonly k: Tile;
  readonly moved: Tile | Promise<Tile>;
  readonly room: FloatArray;
  settled: Promise<unknown>;
}

interface Rules {
  readonly plan: Plan;
  readonly least: number | null;
  readonly precision: Precision;
}

class TransformedSession implements Session {
  /** Settles when all calls so far have been handed on. */
  #handed: Promise<unknown> = Promise.resolve();
  #own: OwnTile | null = null;

  constructor(
    readonly session: Session,
    readonly maps: Maps,
    readonly memory: { readonly queries: Rooms; readonly keys: Rooms },
    readonly rules: Rules,
    readonly open: AsyncDisposableStack,
  ) {}

  get counts() {
    return this.session.counts;
  }

  get stages() {
    return this.session.stages ?? null;
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    if (this.#own?.k === k) {
      const { moved, room } = this.#own;
      this.#own = null;
      await this.#hand(moved, (tile) => this.session.absorb(tile, v, weights));
      this.memory.keys.giveBack(room);
      return;
    }
    this.#forget();
    const room = this.memory.keys.take();
    const moved = this.maps.keys(k, room);
    // What is handed on later must not change until then.
    const values = moved instanceof Promise ? { ...v, data: v.data.slice() } : v;
    const kept = moved instanceof Promise ? weights?.slice() : weights;
    await this.#hand(moved, (tile) => this.session.absorb(tile, values, kept));
    this.memory.keys.giveBack(room);
  }

  async emit(q: Tile, own?: Own | null, into?: FloatArray, denominators?: FloatArray): Promise<Tile> {
    const { least, precision, plan } = this.rules;
    const room = this.maps.queries && this.memory.queries.take();
    const moved = this.maps.queries ? this.maps.queries(q, room!) : q;
    if (own) this.#hold(own);
    const keys = own ? this.#own!.moved : null;
    const both = moved instanceof Promise ? Promise.all([moved, keys]) : [moved, keys] as [Tile, Tile | null];
    const sums = denominators ?? (least === null ? undefined : floats(precision, q.rows * plan.heads));
    const emitted = this.#hand(both, ([tile, k]) => {
      return this.session.emit(tile, own && k ? { ...own, k } : own, into, sums);
    });
    if (own) this.#own!.settled = emitted;
    const out = await emitted;
    if (room) this.memory.queries.giveBack(room);
    if (least !== null) clamp(out, sums!, least, plan.valueDim);
    return out;
  }

  /** Transforms the own keys of a causal call; the same tile object goes to `emit` and `absorb`, by which sessions know it. */
  #hold({ k }: Own): void {
    this.#forget();
    const room = this.memory.keys.take();
    this.#own = { k, room, moved: this.maps.keys(k, room), settled: Promise.resolve() };
  }

  /** Own keys that were not absorbed after all. */
  #forget(): void {
    if (!this.#own) return;
    const { room, settled } = this.#own;
    this.#own = null;
    settled.then(() => this.memory.keys.giveBack(room), () => {});
  }

  /** Hands a call on when its rows are ready and all calls before it have been handed on: at once where nothing has to be waited for. */
  #hand<R, T>(rows: R | Promise<R>, call: (rows: R) => Promise<T>): Promise<T> {
    if (!(rows instanceof Promise)) return call(rows);
    const handed = Promise.all([rows, this.#handed]).then(([ready]) => ({ result: call(ready) }));
    this.#handed = handed.catch(() => {}); // reported to who awaits this call
    return handed.then(({ result }) => result);
  }

  async save(): Promise<State> {
    await this.#handed;
    return await this.session.save();
  }

  async load(state: State): Promise<void> {
    this.#forget();
    await this.#handed;
    await this.session.load(state);
  }

  /** Call it while nothing is on its way. */
  reset(): void {
    this.#forget();
    this.session.reset();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handed;
    await this.open[Symbol.asyncDispose]();
  }
}

/** Outputs over `least` where their denominator is smaller; 0 where no feature is left, which kernels return as NaN. */
function clamp({ data }: Tile, denominators: FloatArray, least: number, valueDim: number): void {
  for (let cell = 0; cell < denominators.length; cell++) {
    const sum = denominators[cell];
    if (sum >= least) continue;
    const share = sum > 0 ? sum / least : 0;
    for (let i = cell * valueDim; i < (cell + 1) * valueDim; i++) data[i] = share > 0 ? data[i] * share : 0;
  }
}
