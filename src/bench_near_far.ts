/** Near-and-far attention over rows in memory, by the loops of run_near_far.ts: what a sample of `bench` is. */
import type { Attention } from "./attention.ts";
import type { Backend, KeyRows, NearFarSession } from "./backend.ts";
import { NO_NEAR_FAR } from "./backends/mod.ts";
import { outputsFor, type Rows, type Run } from "./bench_runs.ts";
import { type BenchTensors, type Role, startsOf } from "./bench_tensors.ts";
import { UnsupportedError } from "./errors.ts";
import { fitNearFar } from "./fit_near_far.ts";
import { InFlight } from "./in_flight.ts";
import { type NearFarPlan, nearRows } from "./near_far.ts";
import { nearExcess, reachOf } from "./near_rows.ts";
import type { AttentionShape } from "./plan.ts";
import type { FloatArray } from "./tensor.ts";

/** Where rows and outputs lie, and which rows. */
export interface NearFarRoom {
  readonly tensors: BenchTensors;
  /** L. */
  readonly length: number;
  /** Arrays of that many numbers. */
  readonly memory: (length: number) => FloatArray;
  /** The backend reads `memory` in place: rows are laid out in it. */
  readonly lends: boolean;
  readonly breathe: () => Promise<void> | void;
  readonly signal?: AbortSignal;
}

/**
 * Fits what must be fitted and lays the rows out so that those near a tile lie together: neither is part of what is timed.
 * Throws UnsupportedError for what the backend cannot take, and for windows that `attend` refuses too.
 */
export async function openNearFar(
  backend: Backend,
  attention: Attention,
  shape: AttentionShape,
  { tensors, length, memory, lends, breathe, signal }: NearFarRoom,
): Promise<NearFarRun> {
  if (!backend.prepareNearFar) throw new UnsupportedError(backend.name, NO_NEAR_FAR);
  const { precision, inFlight } = backend.limits;
  const { plan } = await fitNearFar(attention, shape, tensors.inputs(length, shape.tileRows), backend, signal);
  const { tileRows } = plan;
  const reach = reachOf(plan) ?? undefined;
  if (reach) {
    const widest = Math.max(tensors.cols("k"), tensors.cols("v"));
    const excess = nearExcess(plan, reach, length, widest, precision);
    if (excess) throw new UnsupportedError(backend.name, excess);
  }
  const lay = (role: Role, around = reach) =>
    tensors.rows(role, { length, tileRows, precision, reach: around, memory: lends ? memory : undefined });
  const laid = { q: lay("q", undefined), k: lay("k"), v: lay("v") };
  const tiles = startsOf(length, tileRows).map((start) => {
    const end = Math.min(length, start + tileRows);
    const rows = (role: Role, from: number, to: number) => laid[role].around(start, from, to);
    const { start: from, end: to } = nearRows(plan, start, end, length);
    return {
      q: rows("q", start, end),
      k: rows("k", start, end),
      v: rows("v", start, end),
      near: reach ? { k: rows("k", from, to), v: rows("v", from, to) } : null,
    };
  });
  const outputs = outputsFor(plan, { inFlight }, memory);
  return new NearFarRun(await backend.prepareNearFar(plan), plan, tiles, outputs, { inFlight, breathe });
}

/** Rows of a tile, and the keys and values near its queries. */
export interface NearTile extends Readonly<Record<Role, KeyRows["k"]>> {
  readonly near: KeyRows | null;
}

export class NearFarRun implements Run, AsyncDisposable {
  /** Sessions of near keys measure none. */
  readonly stages = null;

  constructor(
    readonly session: NearFarSession,
    readonly plan: NearFarPlan,
    readonly tiles: readonly NearTile[],
    readonly outputs: readonly FloatArray[],
    readonly calls: Pick<Rows, "inFlight" | "breathe">,
  ) {}

  get topPairs(): number | undefined {
    return this.session.counts.topPairs;
  }

  reset(): void {
    this.session.reset();
  }

  async run(): Promise<void> {
    const { session, plan, tiles, calls: { inFlight, breathe } } = this;
    const flight = new InFlight<unknown>(inFlight);
    const emit = (i: number) => session.emit(tiles[i].q, tiles[i].near, this.outputs[i % this.outputs.length]);
    for (const [i, { k, v }] of tiles.entries()) {
      const own = plan.causal ? [emit(i)] : [];
      await flight.push(Promise.all([...own, session.absorb(k, v)]));
      await breathe();
    }
    for (let i = 0; i < tiles.length && !plan.causal; i++) {
      if (i === 0) await flight.drain();
      await flight.push(emit(i));
      await breathe();
    }
    await flight.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}
