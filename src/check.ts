/**
 * The error check: exact softmax on sampled query rows, beside the same rows of the approximation and of the uniform baseline.
 *
 * It reads keys and values once more, on its own, so that the throughput of the run proper stays clean.
 * Everything is a session fed by the same pass: the exact one, and one per redraw of the projection.
 */
import { type Attention, logitScale, parametersFor, type Sizes, transformFor } from "./attention.ts";
import type { Backend, Session } from "./backend.ts";
import type { Fit } from "./fitted.ts";
import type { Inputs, TileMemory } from "./inputs.ts";
import { compareOutputs } from "./metrics.ts";
import { Moments, phiOf } from "./moments.ts";
import type { AttentionShape } from "./plan.ts";
import { RandomStream } from "./random.ts";
import type { ErrorReport } from "./report.ts";
import { ValueMean } from "./rules_uniform.ts";
import { logInterval } from "./statistics.ts";
import type { Tile } from "./tensor.ts";
import { prepareTransformed } from "./transformed.ts";

/** Strata of the causal sample: the error depends on how many keys a row sees. */
const STRATA = 16;

/** `count` distinct rows of `total`, ascending; stratified over the length when causal. */
export function sampleRows(total: number, count: number, causal: boolean, seed: number): Float64Array {
  if (count >= total) return Float64Array.from({ length: total }, (_, i) => i);
  const random = new RandomStream(seed, 0x5a3b1e);
  const strata = causal ? Math.min(STRATA, count) : 1;
  const chosen = new Set<number>();
  for (let s = 0; s < strata; s++) {
    const from = Math.floor(total * s / strata);
    const to = Math.floor(total * (s + 1) / strata);
    const want = Math.min(to - from, Math.floor(count * (s + 1) / strata) - Math.floor(count * s / strata));
    const before = chosen.size;
    while (chosen.size - before < want) chosen.add(from + random.below(to - from));
  }
  return Float64Array.from(chosen).sort();
}

export interface CheckOptions {
  readonly backend: Backend;
  readonly attention: Attention;
  readonly sizes: Sizes;
  /** Of the approximation; redraws share it. */
  readonly fit: Fit | null;
  readonly shape: AttentionShape;
  /** √S, or 1 where the map does not scale: for φ̄. */
  readonly inputScale: number;
  readonly inputs: Inputs;
  /** Where tiles are read to. */
  readonly memory: TileMemory;
  readonly rows: Float64Array;
  /** The queries of those rows. */
  readonly queries: Tile;
  /** The approximation's outputs of those rows. */
  readonly approx: Tile;
  readonly redraws: number;
  readonly signal?: AbortSignal;
}

/** Measures the error of `approx`. */
export async function checkError(options: CheckOptions): Promise<ErrorReport> {
  const { backend, attention, sizes, fit, shape, inputs, rows, queries, redraws } = options;
  const { precision } = backend.limits;
  const scale = logitScale(attention, sizes.headDim);
  await using exact = await backend.prepareExact({ ...shape, scale, queryRows: rows.length });
  await exact.pose(queries, rows);
  await using draws = new AsyncDisposableStack();
  const sessions: Session[] = [];
  for (let draw = 1; draw <= redraws; draw++) {
    const plan = { ...shape, parameters: parametersFor(attention, sizes, draw, fit) };
    sessions.push(draws.use(await prepareTransformed(backend, plan, transformFor(attention, sizes, fit))));
  }
  const drawn = sessions.map(() => new Float64Array(rows.length * shape.heads * shape.valueDim));
  const uniform = new UniformBaseline(rows, shape);
  const keys = new Moments(shape.kvHeads, shape.headDim);
  const causalQueries = shape.causal && redraws > 0 ? inputs.q : null;

  for await (const { k, v, weights, q } of inputs.tiles(shape.tileRows, precision, causalQueries, options.memory)) {
    options.signal?.throwIfAborted();
    await exact.absorb(k, v, weights);
    uniform.add(v, weights);
    keys.add(k, weights);
    for (const [i, session] of sessions.entries()) {
      if (q) await pickRows(session, { q, k, v, weights }, rows, drawn[i]);
      await session.absorb(k, v, weights);
    }
  }
  if (!shape.causal) {
    for (const [i, session] of sessions.entries()) {
      await inBatches(queries, shape.tileRows, async (tile) => {
        drawn[i].set((await session.emit(tile)).data, tile.start * shape.heads * shape.valueDim);
      });
    }
  }
  const truth = await exact.emit();
  const baseline = uniform.tile();
  const compare = (approx: Tile) => compareOutputs(approx, truth, baseline, shape.heads, sizes.queryRows);
  const asked = new Moments(shape.heads, shape.headDim); // the sampled queries stand for all of them
  asked.add(queries);
  const samples = drawn.map((data) => compare({ ...truth, data }).relativeL2.value);
  return {
    ...compare(options.approx),
    phi: phiOf(asked, keys, options.inputScale),
    redraws: samples.length > 0 ? { count: samples.length, ...logInterval(samples), samples } : null,
  };
}

/** Runs `work` over pieces of at most `tileRows` rows. */
async function inBatches(tile: Tile, tileRows: number, work: (tile: Tile) => Promise<void>): Promise<void> {
  for (let start = 0; start < tile.rows; start += tileRows) {
    const rows = Math.min(tileRows, tile.rows - start);
    const data = tile.data.subarray(start * tile.cols, (start + rows) * tile.cols);
    await work({ start, rows, cols: tile.cols, data });
  }
}

/** Emits a causal tile only when it holds sampled rows, and keeps those. */
async function pickRows(
  session: Session,
  tile: { q: Tile; k: Tile; v: Tile; weights?: Tile["data"] },
  rows: Float64Array,
  into: Float64Array,
): Promise<void> {
  const { q } = tile;
  if (!rows.some((row) => row >= q.start && row < q.start + q.rows)) return;
  copySampled(await session.emit(q, tile), rows, into);
}

/** Copies those rows of an output tile that are sampled to their places in `into`. */
export function copySampled(out: Tile, rows: Float64Array, into: Float64Array | Float32Array): void {
  for (let i = 0; i < rows.length; i++) {
    const at = rows[i] - out.start;
    if (at >= 0 && at < out.rows) into.set(out.data.subarray(at * out.cols, (at + 1) * out.cols), i * out.cols);
  }
}

/** Mean of the visible values per sampled row. */
class UniformBaseline {
  readonly #mean: ValueMean;
  readonly #out: Float64Array;
  #row = 0;
  #next = 0;

  constructor(readonly rows: Float64Array, readonly shape: AttentionShape) {
    this.#mean = new ValueMean(shape);
    this.#out = new Float64Array(rows.length * shape.heads * shape.valueDim);
  }

  add(v: Tile, weights?: Tile["data"]): void {
    for (let i = 0; i < v.rows; i++) {
      this.#mean.add(v, i, weights ? weights[i] : 1);
      if (this.shape.causal && this.rows[this.#next] === this.#row) this.#write(this.#next++);
      this.#row++;
    }
  }

  #write(index: number): void {
    this.#mean.write(this.#out, index);
  }

  tile(): Tile {
    if (!this.shape.causal) { for (let i = 0; i < this.rows.length; i++) this.#write(i); }
    return { start: 0, rows: this.rows.length, cols: this.shape.heads * this.shape.valueDim, data: this.#out };
  }
}
