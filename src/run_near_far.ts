/**
 * Near-and-far attention over files: the keys pass by once for the far field and once more beside the queries that have them near.
 *
 *     bidirectional:  for (k, v): absorb          causal:  for (q, k, v): write(emit(q, near(q))); absorb
 *                     for q: write(emit(q, near(q)))
 */
import type { Attention, Sizes } from "./attention.ts";
import type { Backend, KeyRows, NearFarSession, SessionCounts } from "./backend.ts";
import { UnsupportedError, UsageError } from "./errors.ts";
import { fitNearFar, type FittedNearFar, nearFarShape } from "./fit_near_far.ts";
import { InFlight } from "./in_flight.ts";
import { BLOCK_ROWS, nearRows } from "./near_far.ts";
import { type NearMemory, NearReader, NearRows } from "./near_rows.ts";
import { ApproximateRun, type AttendOptions, type Emitted, shapeOf } from "./run_base.ts";
import type { FloatArray, Tile } from "./tensor.ts";
import { LentMemory } from "./tile_store.ts";
import { timed } from "./timing.ts";

/** Most bytes of keys, and of values, that one call may have near. */
const NEAR_BYTES = 512 << 20;

/**
 * Throws UnsupportedError where a backend will not take an attention on tensors of these sizes, before anything is read. `tileRows`: rows
 * per tile the user asked for. Attentions without near keys and far field are not looked at.
 */
export function checkAccepted(backend: Backend, attention: Attention, sizes: Sizes, tileRows?: number): void {
  if (!attention.nearFar) return;
  const { heads, kvHeads, headDim, valueDim, queryRows, keyRows } = sizes;
  // A tensor without heads or columns is refused elsewhere, in words of its own.
  if (Math.min(heads, kvHeads, headDim, valueDim) < 1) return;
  const shape = shapeOf(attention, sizes, backend.limits, tileRows);
  backend.checkNearFar?.(nearFarShape(attention, shape, { queryRows, keyRows }));
}

export class NearFarRun extends ApproximateRun {
  readonly parameters = null;
  #fitted: FittedNearFar | null = null;

  constructor(options: AttendOptions, sizes: Sizes) {
    const tile = options.tileRows && Math.ceil(options.tileRows / BLOCK_ROWS) * BLOCK_ROWS;
    super({ ...options, tileRows: tile }, sizes);
  }

  /** What was fitted; null before `attend`. */
  get fitted(): FittedNearFar | null {
    return this.#fitted;
  }

  protected get inputScale(): number {
    return Math.sqrt(this.options.attention.scale ?? this.sizes.headDim ** -0.5);
  }

  async attend(): Promise<SessionCounts> {
    const { attention, inputs, backend, signal } = this.options;
    const { heads, valueDim, queryRows } = this.sizes;
    if (!backend.prepareNearFar) {
      throw new UnsupportedError(backend.name, "it has no kernels for near keys and far fields");
    }
    this.#fitted = await this.watch.time("compute", () => fitNearFar(attention, this.shape, inputs, backend, signal));
    const { plan } = this.#fitted;
    await using session = await backend.prepareNearFar(plan);
    using near = new LentNear(this, plan);
    this.store.reserveOutputs(Math.min(plan.tileRows, queryRows) * heads * valueDim);
    if (plan.causal) await this.#causal(session, near);
    else await this.#bidirectional(session, near);
    return { ...session.counts };
  }

  async #bidirectional(session: NearFarSession, memory: NearMemory): Promise<void> {
    const { inputs, backend: { limits: { precision, inFlight } } } = this.options;
    const { watch, store, sizes, reading } = this;
    const { plan } = this.#fitted!;
    const absorbing = new InFlight<void>(inFlight);
    const keys = timed(watch, reading, inputs.tiles(plan.tileRows, precision, null, store));
    for await (const { k, v, weights } of keys) {
      await absorbing.push(watch.time("compute", () => session.absorb(k, v, weights)));
      this.shrinkage?.absorb({ v, weights });
      this.step("keys", k.start + k.rows, sizes.keyRows);
      await this.breathe();
    }
    await absorbing.drain();
    const emitted: Emitted[] = [];
    const emitting = this.emitting(emitted);
    await using reader = new NearReader(inputs, plan.tileRows, precision, memory);
    for await (const q of timed(watch, reading, inputs.queryTiles(plan.tileRows, precision, store))) {
      this.keepQueries(q);
      const rows = nearRows(plan, q.start, q.start + q.rows, sizes.keyRows);
      const near = plan.window > 0 ? await watch.time(reading, () => reader.rows(rows.start, rows.end)) : null;
      await emitting.push(this.#emit(session, q, near, null));
      await this.writeAll(emitted);
      this.step("queries", q.start + q.rows, sizes.queryRows);
      await this.breathe();
    }
    await emitting.drain();
    await this.writeAll(emitted);
  }

  async #emit(session: NearFarSession, q: Tile, near: KeyRows | null, own: KeyRows | null): Promise<Emitted> {
    const memory = this.store.output();
    return await this.watch.time("compute", async () => {
      return { tile: await session.emit(q, near, memory), memory, own };
    });
  }

  async #causal(session: NearFarSession, memory: NearMemory): Promise<void> {
    const { inputs, backend: { limits: { precision } } } = this.options;
    const { watch, store, sizes, reading } = this;
    const { plan } = this.#fitted!;
    const emitted: Emitted[] = [];
    const emitting = this.emitting(emitted);
    const held = new NearRows(memory);
    for await (const tiles of timed(watch, reading, inputs.tiles(plan.tileRows, precision, inputs.q, store))) {
      const q = tiles.q!;
      this.keepQueries(q);
      held.push(tiles);
      const rows = nearRows(plan, q.start, q.start + q.rows, sizes.keyRows);
      const near = held.take(rows.start, rows.end);
      const outputs = this.#emit(session, q, near, tiles);
      const absorbed = watch.time("compute", () => session.absorb(tiles.k, tiles.v, tiles.weights));
      absorbed.catch(() => {}); // awaited with the outputs
      await emitting.push(outputs.then(async (done) => {
        await absorbed;
        return done;
      }));
      await this.writeAll(emitted);
      this.step("rows", q.start + q.rows, sizes.queryRows);
      await this.breathe();
    }
    await emitting.drain();
    await this.writeAll(emitted);
  }
}

/** Near rows in the backend's own memory, as many of each as calls may be in flight, and one more. */
class LentNear implements NearMemory, Disposable {
  readonly #memory: LentMemory;
  readonly #turns: Record<"k" | "v", FloatArray[]>;

  constructor(run: NearFarRun, plan: FittedNearFar["plan"]) {
    const { backend } = run.options;
    this.#memory = new LentMemory(backend);
    const { kvHeads, headDim, valueDim, window, exactRows, tileRows, causal } = plan;
    const around = Math.max(0, window - 1) * (causal ? 1 : 2);
    const rows = window === 0 && !causal ? 0 : Math.min(
      run.sizes.keyRows,
      Math.min(tileRows, run.sizes.queryRows) + Math.max(around, exactRows),
    );
    const bytes = rows * kvHeads * Math.max(headDim, valueDim) * (backend.limits.precision === "f64" ? 8 : 4);
    if (bytes > NEAR_BYTES) {
      const [what, less] = exactRows > around
        ? [`${plan.clusters?.count} clusters with --causal`, "fewer clusters"]
        : [`--window ${window}`, "a smaller window"];
      throw new UsageError(
        `Cannot use ${what}: the keys near a tile take ${Math.ceil(bytes / 2 ** 20)} MiB, at most ` +
          `${NEAR_BYTES / 2 ** 20} are taken; use ${less}, or --features softmax for exact attention`,
      );
    }
    const take = (width: number) =>
      Array.from({ length: backend.limits.inFlight + 1 }, () => this.#memory.array(rows * kvHeads * width));
    this.#turns = { k: take(headDim), v: take(valueDim) };
  }

  next(role: "k" | "v"): FloatArray {
    const turns = this.#turns[role];
    turns.push(turns.shift()!);
    return turns.at(-1)!;
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }
}
