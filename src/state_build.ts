/** States of keys and values alone: one pass over them, or two where the map is fitted first. */
import type { Attention, Sizes } from "./attention.ts";
import type { Backend } from "./backend.ts";
import { fitInputs, planFit } from "./fit.ts";
import type { Fit } from "./fitted.ts";
import { InFlight } from "./in_flight.ts";
import type { Inputs } from "./inputs.ts";
import { shapeOf } from "./run_base.ts";
import { openSession } from "./sessions.ts";
import { requireState, type StoredState, storedState } from "./stored_state.ts";
import type { RowRange } from "./tensor.ts";
import { TileStore } from "./tile_store.ts";

/** What is built, and from what. */
export interface BuildOptions {
  /** Queries are read only where the map is fitted to them. */
  readonly inputs: Inputs;
  /** Causal where it decays. Keys stay where they are unless its wish says `centre: "on"`. */
  readonly attention: Attention;
  readonly sizes: Sizes;
  readonly backend: Backend;
  /** A state whose fit is taken over; null: the map is fitted to the inputs. */
  readonly like: StoredState | null;
  /** A state that the keys are added to, which is one of the same attention and fit; null: none. */
  readonly before: StoredState | null;
  /** Rows of which each becomes a state by itself; null: all rows become one. */
  readonly blockRows: number | null;
  readonly tileRows?: number;
  /** Called after every tile with rows done of `total`. */
  readonly progress?: (stage: string, done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Builds the states in the order of their rows. Throws UsageError for attention that has none. */
export async function* buildStates(options: BuildOptions): AsyncGenerator<StoredState> {
  const { inputs, attention, sizes, backend, before, blockRows, tileRows, progress, signal } = options;
  requireState(attention);
  const { keyRows } = sizes;
  const { precision, inFlight } = backend.limits;
  const shape = shapeOf({ ...attention, causal: Boolean(attention.decay) }, sizes, backend.limits, tileRows);
  const rows = Math.min(shape.tileRows, blockRows ?? Infinity);
  const fit = await fitOf(options, shape.tileRows);
  using store = new TileStore(backend, rows, inFlight + 1);
  for (const source of inputs.keySources) store.for(source); // before a session is at work
  const { session } = await openSession(backend, attention, sizes, { ...shape, tileRows: rows }, 0, fit);
  await using _session = session;
  for (const range of blocksOf(keyRows, blockRows)) {
    session.reset();
    if (before) await session.load(before.state);
    const absorbing = new InFlight<void>(inFlight);
    for await (const { k, v, weights } of inputs.tiles(rows, precision, null, store, range)) {
      await absorbing.push(session.absorb(k, v, weights));
      signal?.throwIfAborted();
      progress?.("keys", k.start + k.rows, keyRows);
      await new Promise((resolve) => setImmediate(resolve)); // signals and the progress line come through
    }
    await absorbing.drain();
    const seen = (before?.rows ?? 0) + range.end - range.start;
    yield storedState(attention, sizes, fit, { path: "", rows: seen, state: await session.save() });
  }
}

function* blocksOf(rows: number, blockRows: number | null): Iterable<RowRange> {
  if (blockRows === null) return yield { start: 0, end: rows };
  for (let start = 0; start < rows; start += blockRows) yield { start, end: Math.min(rows, start + blockRows) };
}

async function fitOf(options: BuildOptions, tileRows: number): Promise<Fit | null> {
  const { inputs, attention, sizes, backend: { limits: { precision } }, like, before, signal } = options;
  const given = like ?? before;
  if (given) return given.fit;
  const plan = planFit(attention);
  return plan && await fitInputs(attention, sizes, plan, inputs, { precision, tileRows, signal });
}

/** Whether queries are looked at, which is where keys alone are not enough. */
export const needsQueries = (attention: Attention): boolean => {
  const plan = planFit(attention);
  return plan !== null && plan.source.kind !== "fixed";
};
