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
