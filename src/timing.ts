/** Wall time by phase. */

export type Phase = "read" | "compute" | "write" | "check";

/** Adds up the time spent in each phase. Phases may overlap when a backend computes while the next tile is read. */
export class Stopwatch {
  readonly #started: number;
  #earlier = 0;
  readonly #spent: Record<Phase, number> = { read: 0, compute: 0, write: 0, check: 0 };
  /** Works under way per phase, and since when there is any. */
  readonly #open: Record<Phase, { count: number; since: number }> = {
    read: { count: 0, since: 0 },
    compute: { count: 0, since: 0 },
    write: { count: 0, since: 0 },
    check: { count: 0, since: 0 },
  };

  /** @param now milliseconds of a monotonic clock */
  constructor(readonly now: () => number = () => performance.now()) {
    this.#started = now();
  }

  /** Charges the time in which at least one work of the phase is under way. */
  async time<T>(phase: Phase, work: () => Promise<T>): Promise<T> {
    const open = this.#open[phase];
    if (open.count++ === 0) open.since = this.now();
    try {
      return await work();
    } finally {
      if (--open.count === 0) this.#spent[phase] += this.now() - open.since;
    }
  }

  /** Adds what an earlier run spent, which this one goes on with. */
  add(seconds: Record<Phase | "total", number>): void {
    for (const phase of ["read", "compute", "write", "check"] as const) this.#spent[phase] += 1000 * seconds[phase];
    this.#earlier += 1000 * seconds.total;
  }

  /** Seconds per phase and in all so far. */
  seconds(): Record<Phase | "total", number> {
    const { read, compute, write, check } = this.#spent;
    return {
      read: read / 1000,
      compute: compute / 1000,
      write: write / 1000,
      check: check / 1000,
      total: (this.#earlier + this.now() - this.#started) / 1000,
    };
  }
}

/** Iterates while charging the time spent waiting for the next item to a phase. */
export async function* timed<T>(watch: Stopwatch, phase: Phase, items: AsyncIterable<T>): AsyncIterable<T> {
  const iterator = items[Symbol.asyncIterator]();
  try {
    while (true) {
      const next = await watch.time(phase, () => iterator.next());
      if (next.done) return;
      yield next.value;
    }
  } finally {
    await iterator.return?.();
  }
}
