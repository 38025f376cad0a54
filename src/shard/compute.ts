/**
 * What a task of one shard computes, by the run loop of run.ts over its rows alone: keys into a state, or queries into outputs by the state
 * of all keys (bidirectional) or of those before its own (causal).
 */
import { type Attention, parametersFor, type Sizes, transformFor } from "../attention.ts";
import type { Backend, Session, SessionCounts } from "../backend.ts";
import type { Fit } from "../fitted.ts";
import { InFlight } from "../in_flight.ts";
import type { Inputs } from "../inputs.ts";
import type { AttentionShape } from "../plan.ts";
import { type Emitted, shapeOf } from "../run_base.ts";
import type { State } from "../state.ts";
import type { RowRange, TensorSink } from "../tensor.ts";
import { TileStore } from "../tile_store.ts";
import { Stopwatch, timed } from "../timing.ts";
import { prepareTransformed } from "../transformed.ts";

/** What all tasks of a plan share, with inputs and a backend open. `sizes` are those of the whole. */
export interface ShardTask {
  readonly inputs: Inputs;
  readonly attention: Attention;
  readonly sizes: Sizes;
  readonly fit: Fit | null;
  readonly backend: Backend;
  /** Rows per tile that were asked for. */
  readonly tileRows?: number;
  readonly signal?: AbortSignal;
  readonly progress?: (stage: string, done: number, total: number) => void;
}

/** Seconds of a task. */
export type Seconds = ReturnType<Stopwatch["seconds"]>;

/** A session of the task's attention, and memory for its tiles; both are closed together. */
class Work implements AsyncDisposable {
  readonly watch = new Stopwatch();

  private constructor(
    readonly task: ShardTask,
    readonly shape: AttentionShape,
    readonly store: TileStore,
    readonly session: Session,
  ) {}

  static async open(task: ShardTask): Promise<Work> {
    const { attention, sizes, backend, fit } = task;
    const shape = shapeOf(attention, sizes, backend.limits, task.tileRows);
    const store = new TileStore(backend, shape.tileRows, backend.limits.inFlight + 1);
    try {
      const parameters = parametersFor(attention, sizes, 0, fit);
      const session = await prepareTransformed(backend, { ...shape, parameters }, transformFor(attention, sizes, fit));
      return new Work(task, shape, store, session);
    } catch (error) {
      store[Symbol.dispose]();
      throw error;
    }
  }

  /** After a tile: lets signals and the progress line through. */
  async step(stage: string, done: number, total: number): Promise<void> {
    this.task.signal?.throwIfAborted();
    this.task.progress?.(stage, done, total);
    await new Promise((resolve) => setImmediate(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
    this.store[Symbol.dispose]();
  }
}

/** The state of the keys of a range alone. */
export async function mapRows(task: ShardTask, range: RowRange): Promise<{ state: State; seconds: Seconds }> {
  await using work = await Work.open(task);
  const { session, shape, store, watch } = work;
  const { precision, inFlight } = task.backend.limits;
  const absorbing = new InFlight<void>(inFlight);
  const tiles = task.inputs.tiles(shape.tileRows, precision, null, store, range);
  for await (const { k, v, weights } of timed(watch, "read", tiles)) {
    await absorbing.push(watch.time("compute", () => session.absorb(k, v, weights)));
    await work.step("keys", k.start + k.rows - range.start, range.end - range.start);
  }
  const state = await watch.time("compute", async () => {
    await absorbing.drain();
    return await session.save();
  });
  return { state, seconds: watch.seconds() };
}

/**
 * Writes the outputs of a range of queries to a sink of as many rows.
 * @param state all keys; causal: those before the range, whose own rows follow here.
 */
export async function applyRows(
  task: ShardTask,
  range: RowRange,
  state: State,
  sink: TensorSink,
): Promise<{ counts: SessionCounts; seconds: Seconds }> {
  await using work = await Work.open(task);
  const { session, shape, store, watch } = work;
  const { inputs, sizes, backend: { limits: { precision, inFlight } } } = task;
  const rows = range.end - range.start;
  store.reserveOutputs(Math.min(shape.tileRows, rows) * sizes.heads * sizes.valueDim);
  await session.load(state);
  const emitted: Emitted[] = [];
  const emitting = new InFlight<Emitted>(inFlight, async (done) => void emitted.push(done));
  const write = async () => {
    for (const { tile, memory } of emitted.splice(0)) {
      await watch.time("write", () => sink.write({ ...tile, start: tile.start - range.start }));
      store.giveBack(memory);
    }
  };
  if (shape.causal) {
    const tiles = inputs.tiles(shape.tileRows, precision, inputs.q, store, range);
    for await (const own of timed(watch, "read", tiles)) {
      const q = own.q!;
      const memory = store.output();
      await emitting.push(watch.time("compute", async () => {
        const out = session.emit(q, own, memory);
        const absorbed = session.absorb(own.k, own.v, own.weights);
        const [tile] = await Promise.all([out, absorbed]);
        return { tile, memory, own };
      }));
      await write();
      await work.step("rows", q.start + q.rows - range.start, rows);
    }
  } else {
    for await (const q of timed(watch, "read", inputs.queryTiles(shape.tileRows, precision, store, range))) {
      const memory = store.output();
      await emitting.push(watch.time("compute", async () => {
        return { tile: await session.emit(q, null, memory), memory, own: null };
      }));
      await write();
      await work.step("queries", q.start + q.rows - range.start, rows);
    }
  }
  await emitting.drain();
  await write();
  await watch.time("write", () => sink.finish());
  return { counts: { ...session.counts }, seconds: watch.seconds() };
}
