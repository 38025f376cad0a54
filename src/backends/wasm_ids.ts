/**
 * Which cluster each row belongs to, as found when it was absorbed, so that it need not be found again when the row is near a query: an
 * assignment costs as much as a query's product with all centroids. Of many rows the last ones are kept, in bounded memory; the others
 * are assigned once more.
 */

/** Most bytes for a session. */
const MOST_BYTES = 16 << 20;
/** Numbers of clusters that 16 bits tell apart. */
const MOST_CLUSTERS = 1 << 16;

export class ClusterIds {
  /** Rows of a ring. */
  readonly #room: number;
  /** Per key head, a ring; made with the first rows. */
  #rings: Uint16Array[] = [];
  /** Rows that are known: `from ≤ row < to`. */
  #from = 0;
  #to = 0;

  constructor(readonly kvHeads: number, readonly count: number, bytes = MOST_BYTES) {
    this.#room = Math.floor(bytes / (2 * kvHeads));
  }

  /** Rows of `start … end − 1` that are known: one range, perhaps empty. */
  known(start: number, end: number): { from: number; to: number } {
    const from = Math.max(start, this.#from), to = Math.min(end, this.#to);
    return from < to ? { from, to } : { from: start, to: start };
  }

  /** Remembers the clusters of rows from `start` on, an array per key head. Rows that do not follow those before replace them. */
  put(start: number, ids: readonly Int32Array[]): void {
    const rows = ids[0].length;
    if (rows > this.#room || this.count > MOST_CLUSTERS) return;
    if (this.#rings.length === 0) this.#rings = ids.map(() => new Uint16Array(this.#room));
    if (start !== this.#to) this.#from = start;
    this.#to = start + rows;
    this.#from = Math.max(this.#from, this.#to - this.#room);
    for (const [head, some] of ids.entries()) {
      this.#pieces(
        start,
        this.#to,
        (at, from, to) => this.#rings[head].set(some.subarray(from - start, to - start), at),
      );
    }
  }

  /** Writes the clusters of known rows `from … to − 1` of one key head. */
  copy(head: number, from: number, to: number, into: Int32Array): void {
    this.#pieces(
      from,
      to,
      (at, first, end) => into.set(this.#rings[head].subarray(at, at + end - first), first - from),
    );
  }

  /** Calls `visit` for what lies together in the ring. */
  #pieces(from: number, to: number, visit: (at: number, from: number, to: number) => void): void {
    while (from < to) {
      const at = from % this.#room;
      const end = Math.min(to, from + this.#room - at);
      visit(at, from, end);
      from = end;
    }
  }
}
