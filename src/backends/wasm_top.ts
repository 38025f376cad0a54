/**
 * Where the keys of each cluster lie in shared memory, for queries that take whole clusters exactly (kernels/wasm/assembly/near_top.ts):
 * lists of chunks that grow as rows pass by. The host decides where each key goes, threads copy it there.
 */
import { TransientError } from "../errors.ts";
import type { NearFarPlan } from "../near_far.ts";
import type { SharedMemory } from "./wasm_memory.ts";
import type { Pool } from "./wasm_pool.ts";

/** Most bytes that all keys and values may take: what 32-bit addresses leave beside tiles and states. */
const MOST_BYTES = 3 * 2 ** 30;
/** Keys of a chunk, and its least slab: memory is taken for many at a time. */
const CHUNK = 32;
const LEAST_BYTES = 4 << 20;

/** Some rows in their order, and the cluster of each per key head. */
export interface ClusteredRows {
  readonly start: number;
  readonly rows: number;
  /** One ω ≥ 0 per row. */
  readonly weights: ArrayLike<number> | null;
  readonly ids: readonly Int32Array[];
}

export class TopKeys {
  /** Per (key head, cluster): its keys, and the addresses of its first and last chunk. */
  readonly #counts: Int32Array;
  readonly #first: Uint32Array;
  readonly #last: Uint32Array;
  #slabs: { readonly at: number; readonly chunks: number }[] = [];
  /** Chunks given out, in the order of the slabs; and all there are. */
  #used = 0;
  #chunks = 0;
  /** The rows that were placed last. */
  #placed = { start: 0, end: 0 };

  /** `chunkBytes`: of a chunk, by the kernels; `mostBytes`: of all chunks. */
  constructor(
    readonly plan: NearFarPlan,
    readonly shared: SharedMemory,
    readonly chunkBytes: number,
    readonly mostBytes = MOST_BYTES,
  ) {
    const cells = plan.kvHeads * plan.clusters!.count;
    this.#counts = new Int32Array(cells);
    this.#first = new Uint32Array(cells);
    this.#last = new Uint32Array(cells);
  }

  /** Bytes of a directory of one key head. */
  get directoryBytes(): number {
    return 8 * this.plan.clusters!.count;
  }

  /**
   * Gives each row of weight > 0 its place at the end of its cluster's list, an int32 per row and key head at `places[head]`. Rows that were
   * placed last keep the places they have: returns whether there is anything to copy. Takes memory while nobody computes; throws
   * TransientError when there is no more, and RangeError for rows that do not follow those before.
   */
  async place(rows: ClusteredRows, places: readonly number[], pool: Pool): Promise<boolean> {
    const { start, rows: count } = rows;
    const { start: before, end } = this.#placed;
    if (start === before && start + count === end) return false;
    if (start < end) {
      throw new RangeError(
        `Cannot keep rows ${start} … ${start + count - 1} for --top after row ${end - 1}: they come in order`,
      );
    }
    const missing = this.#used + this.#wanted(rows) - this.#chunks;
    if (missing > 0) {
      await pool.idle();
      this.#grow(missing, start);
    }
    for (const [head, at] of places.entries()) {
      this.#placeHead(rows, head, new Uint32Array(this.shared.memory.buffer, at, count));
    }
    this.#placed = { start, end: start + count };
    return true;
  }

  /** Chunks that the rows need beyond those that lists have. */
  #wanted({ rows, weights, ids }: ClusteredRows): number {
    const counts = this.#counts.slice();
    let wanted = 0;
    for (const [head, some] of ids.entries()) {
      const first = head * this.plan.clusters!.count;
      for (let i = 0; i < rows; i++) {
        if (weights && !(weights[i] > 0)) continue;
        if (counts[first + some[i]]++ % CHUNK === 0) wanted++;
      }
    }
    return wanted;
  }

  #placeHead({ rows, weights, ids }: ClusteredRows, head: number, places: Uint32Array): void {
    const first = head * this.plan.clusters!.count;
    for (let i = 0; i < rows; i++) {
      places[i] = 0;
      if (weights && !(weights[i] > 0)) continue;
      const cell = first + ids[head][i];
      const before = this.#counts[cell]++;
      if (before % CHUNK === 0) this.#append(cell);
      places[i] = this.#last[cell] + 4 * (before % CHUNK);
    }
  }

  /** Ends a list with a chunk of its own. */
  #append(cell: number): void {
    let index = this.#used++, slab = 0;
    while (index >= this.#slabs[slab].chunks) index -= this.#slabs[slab++].chunks;
    const chunk = this.#slabs[slab].at + index * this.chunkBytes;
    if (this.#last[cell] === 0) this.#first[cell] = chunk;
    else this.shared.integers(this.#last[cell], 1)[0] = chunk;
    this.#last[cell] = chunk;
  }

  #grow(missing: number, rows: number): void {
    const most = Math.floor(this.mostBytes / this.chunkBytes);
    const wanted = Math.max(missing, Math.ceil(this.#chunks / 2), Math.ceil(LEAST_BYTES / this.chunkBytes));
    const chunks = Math.min(wanted, most - this.#chunks);
    const refusal = (limit: string) =>
      new TransientError(
        `Cannot keep the keys and values of more than ${rows} rows for --top: those of every cluster must be in memory, at most ${limit}; ` +
          "leave --top out, which needs none of them, or give fewer rows",
      );
    if (chunks < missing) throw refusal(`${Math.ceil(this.mostBytes / 2 ** 20)} MiB`);
    try {
      this.#slabs.push({ at: this.shared.allocate(chunks * this.chunkBytes), chunks });
    } catch (error) {
      if (error instanceof TransientError) throw refusal("what this machine has left");
      throw error;
    }
    this.#chunks += chunks;
  }

  /** Writes what a kernel needs to find the keys so far, per key head at `directories[head]`. */
  write(directories: readonly number[]): void {
    const { count } = this.plan.clusters!;
    for (const [head, at] of directories.entries()) {
      const from = head * count, to = from + count;
      const numbers = this.shared.integers(at, 2 * count);
      numbers.set(this.#counts.subarray(from, to));
      numbers.set(this.#first.subarray(from, to), count);
    }
  }

  /** Forgets all keys; keeps the memory for the next ones. */
  clear(): void {
    for (const numbers of [this.#counts, this.#first, this.#last]) numbers.fill(0);
    this.#used = 0;
    this.#placed = { start: 0, end: 0 };
  }

  /** Gives the memory back. */
  release(): void {
    for (const { at } of this.#slabs.splice(0)) this.shared.release(at);
    this.#chunks = 0;
    this.clear();
  }
}

/** Calls that have something to do in the order in which they were made. */
export class Order {
  #last: Promise<void> = Promise.resolve();

  /** A place in the order: `before` settles when all earlier ones are done. */
  take(): { readonly before: Promise<void>; done(): void } {
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last = before.then(() => promise);
    return { before, done: resolve };
  }
}
