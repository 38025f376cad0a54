/** Calls on their way: as many as a backend takes at once, in order. */

/** Keeps at most `depth` results on their way and hands them on in order. */
export class InFlight<T> {
  readonly #queue: Promise<T>[] = [];

  constructor(readonly depth: number, readonly take: (value: T) => Promise<void> = async () => {}) {}

  async push(value: Promise<T>): Promise<void> {
    value.catch(() => {}); // awaited below, in order
    this.#queue.push(value);
    if (this.#queue.length >= this.depth) await this.take(await this.#queue.shift()!);
  }

  async drain(): Promise<void> {
    while (this.#queue.length > 0) await this.take(await this.#queue.shift()!);
  }
}

/** Milliseconds after which a backend that never waits lets signals and messages through. */
const BREATH = 100;

/** Lets signals and messages through when the last time was `every` milliseconds ago; throws when the signal was aborted. */
export function breather(signal?: AbortSignal, every = BREATH): () => Promise<void> | void {
  let last = performance.now();
  return () => {
    if (performance.now() - last < every) return;
    return new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
      last = performance.now();
      signal?.throwIfAborted();
    });
  };
}

/** Between two pieces of work: lets signals through, and throws where one ended it. Without a signal it does nothing. */
export async function heard(signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return;
  await new Promise<void>((resolve) => setImmediate(resolve));
  signal.throwIfAborted();
}
