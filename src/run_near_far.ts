/**
 * Near-and-far attention over files: the keys pass by once for the far field and once more beside the queries that have them near.
 *
 *     bidirectional:  for (k, v): absorb          causal:  for (q, k, v): write(emit(q, near(q))); absorb
 *                     for q: write(emit(q, near(q)))
 */
import type { Attention, Sizes } from "./attention.ts";
import type { Backend, KeyRows, NearFarSession, SessionCounts } from "./backend.ts";
import { UnsupportedError, UsageError } from "./errors.ts";
import type { FarState } from "./far_state.ts";
import { fitNearFar, type FittedNearFar, nearFarShape } from "./fit_near_far.ts";
import { InFlight } from "./in_flight.ts";
import type { TileMemory } from "./inputs.ts";
import { BLOCK_ROWS } from "./near_far.ts";
import { type FrameMemory, frameRows, nearExcess, NearReader, type Reach, reachOf } from "./near_rows.ts";
import { ApproximateRun, type AttendOptions, type Emitted, shapeOf } from "./run_base.ts";
import type { FloatArray, TensorSource, Tile } from "./tensor.ts";
import { LentMemory } from "./tile_store.ts";
import { timed } from "./timing.ts";

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

/** Whether states can be kept: with `top`, clusters' keys are no part of them. */
export const canKeep = ({ clusters }: { readonly clusters: { readonly top: number } | null }): boolean =>
  !((clusters?.top ?? 0) > 0);

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
    const { heads, valueDim, queryRows, keyRows } = this.sizes;
    if (!backend.prepareNearFar) {
      throw new UnsupportedError(backend.name, "it has no kernels for near keys and far fields");
    }
    this.#fitted = this.last
      ? this.last.fit as FittedNearFar
      : await this.watch.time("compute", () => fitNearFar(attention, this.shape, inputs, backend, signal));
    const { plan } = this.#fitted;
    await using session = await backend.prepareNearFar(plan);
    const reach = reachOf(plan);
    using frames = reach && new Frames(this, plan, reach);
    this.store.reserveOutputs(Math.min(plan.tileRows, queryRows) * heads * valueDim);
    await this.takeUp();
    if (this.last?.state) await session.load(this.last.state as FarState);
    const others = plan.causal ? this.store : null;
    const first = Math.ceil(this.rest.queries.start / plan.tileRows);
    await using reader = reach && frames &&
      new NearReader(inputs, plan, reach, backend.limits.precision, frames, others, first);
    if (plan.causal) await this.#causal(session, reader!);
    else await this.#bidirectional(session, reader, frames ? { for: (source) => frames.frames(source) } : this.store);
    await this.#save(session, keyRows, queryRows, null);
    return this.countsSoFar(session.counts);
  }

  /** Writes a checkpoint where it is time, when `settle` has finished and written what is on its way. */
  async #keep(session: NearFarSession, keyRows: number, rows: number, settle: () => Promise<void>): Promise<void> {
    if (!this.options.journal?.due || !canKeep(this.#fitted!.plan)) return;
    await settle();
    await this.#save(session, keyRows, rows, await session.save());
  }

  async #save(session: NearFarSession, keyRows: number, rows: number, state: FarState | null): Promise<void> {
    const kept = { ...this.checkpoint(keyRows, rows, session.counts), fit: this.#fitted, state };
    await this.options.journal?.save(kept);
  }

  /** `memory`: where the keys that only pass by are read to. */
  async #bidirectional(session: NearFarSession, reader: NearReader | null, memory: TileMemory): Promise<void> {
    const { inputs, backend: { limits: { precision, inFlight } } } = this.options;
    const { watch, store, sizes, reading } = this;
    const { plan } = this.#fitted!;
    const absorbing = new InFlight<void>(inFlight);
    const keys = timed(watch, reading, inputs.tiles(plan.tileRows, precision, null, memory, this.rest.keys));
    for await (const { k, v, weights } of keys) {
      await absorbing.push(watch.time("compute", () => session.absorb(k, v, weights)));
      this.shrinkage?.absorb({ v, weights });
      this.step("keys", k.start + k.rows, sizes.keyRows);
      await this.#keep(session, k.start + k.rows, 0, () => absorbing.drain());
      await this.breathe();
    }
    await absorbing.drain();
    const emitted: Emitted[] = [];
    const emitting = this.emitting(emitted);
    const settle = async () => {
      await emitting.drain();
      await this.writeAll(emitted);
    };
    const queries = reader?.queries(store) ??
      inputs.queryTiles(plan.tileRows, precision, store, this.rest.queries);
    for await (const q of timed(watch, reading, queries)) {
      this.keepQueries(q);
      const near = reader?.near(q.start, q.start + q.rows) ?? null;
      await emitting.push(this.#emit(session, q, near, null));
      await this.writeAll(emitted);
      this.step("queries", q.start + q.rows, sizes.queryRows);
      await this.#keep(session, sizes.keyRows, q.start + q.rows, settle);
      await this.breathe();
    }
    await settle();
  }

  async #emit(session: NearFarSession, q: Tile, near: KeyRows | null, own: KeyRows | null): Promise<Emitted> {
    const memory = this.store.output();
    return await this.watch.time("compute", async () => {
      return { tile: await session.emit(q, near, memory), memory, own };
    });
  }

  async #causal(session: NearFarSession, reader: NearReader): Promise<void> {
    const { watch, sizes, reading } = this;
    const emitted: Emitted[] = [];
    const emitting = this.emitting(emitted);
    const settle = async () => {
      await emitting.drain();
      await this.writeAll(emitted);
    };
    while (true) {
      const tiles = await watch.time(reading, () => reader.next());
      if (!tiles) break;
      const q = tiles.q!;
      this.keepQueries(q);
      const outputs = this.#emit(session, q, reader.near(q.start, q.start + q.rows), tiles);
      const absorbed = watch.time("compute", () => session.absorb(tiles.k, tiles.v, tiles.weights));
      absorbed.catch(() => {}); // awaited with the outputs
      await emitting.push(outputs.then(async (done) => {
        await absorbed;
        return done;
      }));
      await this.writeAll(emitted);
      this.step("rows", q.start + q.rows, sizes.queryRows);
      await this.#keep(session, q.start + q.rows, q.start + q.rows, settle);
      await this.breathe();
    }
    await settle();
  }
}

/** Frames in the backend's own memory: rows near calls in flight, and those being read. */
class Frames implements FrameMemory, Disposable {
  readonly #memory: LentMemory;
  readonly #frames = new Map<TensorSource, FloatArray[]>();

  constructor(
    { options: { backend, inputs }, sizes: { keyRows } }: NearFarRun,
    plan: FittedNearFar["plan"],
    reach: Reach,
  ) {
    this.#memory = new LentMemory(backend);
    const rows = frameRows(Math.min(plan.tileRows, keyRows), reach);
    for (const source of inputs.keySources) {
      const cols = source.info.heads * source.info.width;
      const excess = nearExcess(plan, reach, keyRows, cols, backend.limits.precision);
      if (excess) throw new UsageError(`Cannot use ${excess}`);
      const count = backend.limits.inFlight + 1;
      this.#frames.set(source, Array.from({ length: count }, () => this.#memory.array(rows * cols)));
    }
  }

  frames(source: TensorSource): readonly FloatArray[] {
    return this.#frames.get(source)!;
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }
}
