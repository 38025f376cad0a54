/** Areas of shared memory that calls in flight use in turn. */

export class Slots<T> {
  readonly #free: T[];
  readonly #waiting: ((slot: T) => void)[] = [];

  constructor(slots: readonly T[]) {
    this.#free = [...slots];
  }

  /** A free slot, or null. Nobody overtakes calls that wait. */
  take(): T | null {
    return this.#waiting.length > 0 ? null : this.#free.shift() ?? null;
  }

  /** The next slot that becomes free. */
  next(): Promise<T> {
    const slot = this.take();
    return slot ? Promise.resolve(slot) : new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(slot: T): void {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(slot);
    else this.#free.push(slot);
  }
}
