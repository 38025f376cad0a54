/**
 * Merges of the last N of a sequence, where merging is associative and has no inverse (the queue of two stacks). Taking the oldest away
 * by subtracting it would leave its rounding behind: after keys that weighed e^40 nothing would be left of those that weigh 1.
 *
 *     front: each the merge of itself and all after it in front       back: items as they came, and their merge so far
 *
 * Every item is merged at most three times: into the back, into the front when it is turned over, and front with back.
 */
export class SlidingWindow<T> {
  readonly #front: T[] = [];
  readonly #back: T[] = [];
  #sum: T | null = null;

  /** @param merge later into earlier, both of which it leaves as they are. */
  constructor(readonly length: number, readonly merge: (earlier: T, later: T) => T) {
    if (!(Number.isInteger(length) && length >= 1)) {
      throw new RangeError(`A window of ${length} items: expected a whole number of at least 1`);
    }
  }

  /** Takes the next item; the merge of the last `length` in their order, or null while there are fewer. */
  push(item: T): T | null {
    if (this.#front.length + this.#back.length === this.length) this.#drop();
    this.#back.push(item);
    this.#sum = this.#sum === null ? item : this.merge(this.#sum, item);
    if (this.#front.length + this.#back.length < this.length) return null;
    const first = this.#front.at(-1);
    return first === undefined ? this.#sum : this.merge(first, this.#sum);
  }

  #drop(): void {
    if (this.#front.length === 0) {
      for (let item = this.#back.pop(); item !== undefined; item = this.#back.pop()) {
        const after = this.#front.at(-1);
        this.#front.push(after === undefined ? item : this.merge(item, after));
      }
      this.#sum = null;
    }
    this.#front.pop();
  }
}
