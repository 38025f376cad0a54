/** One whole attention over tiles in memory, by the loops of run.ts: what a sample of `bench` is. */
import type { ExactSession, Session, Stage } from "./backend.ts";
import { InFlight } from "./in_flight.ts";
import type { AttentionShape } from "./plan.ts";
import type { FloatArray, Tile } from "./tensor.ts";

/** Something that can be run again and again. */
export interface Run {
  readonly stages: Readonly<Record<Stage, number>> | null;
  /** Pairs of the last run that whole clusters took (SessionCounts); absent where there are none, or nobody counts them. */
  readonly topPairs?: number;
  reset(): void;
  run(): Promise<void>;
}

/** Tiles of one attention. */
export interface Rows {
  readonly q: readonly Tile[];
  readonly k: readonly Tile[];
  readonly v: readonly Tile[];
  readonly inFlight: number;
  readonly breathe: () => Promise<void> | void;
}

/** Attention by a feature map. */
export class LinearRun implements Run, AsyncDisposable {
  readonly #outputs: readonly FloatArray[];

  constructor(
    readonly session: Session,
    readonly shape: AttentionShape,
    readonly rows: Rows,
    memory: (length: number) => FloatArray,
  ) {
    this.#outputs = outputsFor(shape, rows, memory);
  }

  get stages(): Readonly<Record<Stage, number>> | null {
    return this.session.stages ?? null;
  }

  reset(): void {
    this.session.reset();
  }

  async run(): Promise<void> {
    const { session, shape, rows: { q, k, v, inFlight, breathe } } = this;
    const flight = new InFlight<unknown>(inFlight);
    const into = (i: number) => this.#outputs[i % this.#outputs.length];
    for (let i = 0; i < k.length; i++) {
      if (shape.causal) await flight.push(session.emit(q[i], { k: k[i], v: v[i] }, into(i)));
      await flight.push(session.absorb(k[i], v[i]));
      await breathe();
    }
    for (let i = 0; i < q.length && !shape.causal; i++) {
      if (i === 0) await flight.drain();
      await flight.push(session.emit(q[i], null, into(i)));
      await breathe();
    }
    await flight.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

/** Exact attention. */
export class ExactRun implements Run, AsyncDisposable {
  readonly stages = null;

  constructor(readonly session: ExactSession, readonly shape: AttentionShape, readonly rows: Rows) {}

  /** `pose` forgets everything by itself. */
  reset(): void {}

  async run(): Promise<void> {
    const { session, shape, rows: { q, k, v, inFlight, breathe } } = this;
    for (const queries of q) {
      const last = queries.start + queries.rows - 1;
      await session.pose(queries, Float64Array.from({ length: queries.rows }, (_, i) => queries.start + i));
      const flight = new InFlight<unknown>(inFlight);
      for (let i = 0; i < k.length && !(shape.causal && k[i].start > last); i++) {
        await flight.push(session.absorb(k[i], v[i]));
        await breathe();
      }
      await flight.drain();
      await session.emit();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

/** Memory for outputs that are written over each other: one more than can be in flight. */
export function outputsFor(
  { tileRows, heads, valueDim }: AttentionShape,
  { inFlight }: Pick<Rows, "inFlight">,
  memory: (length: number) => FloatArray,
): FloatArray[] {
  return Array.from({ length: inFlight + 1 }, () => memory(tileRows * heads * valueDim));
}
