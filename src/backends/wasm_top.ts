/** Keys grouped by cluster in shared memory, for queries that take whole clusters exactly (kernels/wasm/assembly/near_top.ts). */
import type { KeyRows } from "../backend.ts";
import { TransientError } from "../errors.ts";
import type { HeavyKey } from "../far_state.ts";
import type { NearFarPlan } from "../near_far.ts";
import type { SharedMemory } from "./wasm_memory.ts";
import { paddedValues } from "./wasm_plan.ts";

/** Most bytes that all keys and values may take. */
const MOST_BYTES = 2 ** 31;

/** Rows of one tile and their clusters per key head. */
interface Kept {
  readonly start: number;
  readonly rows: number;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly weights: Float32Array | null;
  readonly ids: readonly Int32Array[];
}

export class GroupedKeys {
  #tiles: Kept[] = [];
  #rows = 0;
  /** Per key head, where its keys lie; and of which version. */
  #areas: number[] = [];
  #version = -1;

  constructor(readonly plan: NearFarPlan, readonly shared: SharedMemory) {}

  #bytesPerRow(): number {
    const { headDim, valueDim } = this.plan;
    return 4 * (Math.ceil(headDim / 4) * 4 + paddedValues(valueDim) + 2);
  }

  /** Copies rows and their clusters (one int32 per row, at `ids[head]`). Throws TransientError when they are too many. */
  keep({ k, v, weights }: KeyRows, ids: readonly Int32Array[]): void {
    this.#rows += k.rows;
    const bytes = this.#rows * this.plan.kvHeads * this.#bytesPerRow();
    if (bytes > MOST_BYTES) {
      throw new TransientError(
        `Cannot keep more than ${this.#rows - k.rows} keys in memory for --top: they take ${
          MOST_BYTES / 2 ** 30
        } GiB; ` +
          "leave --top out, which needs none of them",
      );
    }
    this.#tiles.push({
      start: k.start,
      rows: k.rows,
      k: Float32Array.from(k.data),
      v: Float32Array.from(v.data),
      weights: weights ? Float32Array.from(weights) : null,
      ids: ids.map((some) => some.slice()),
    });
  }

  clear(): void {
    this.#tiles = [];
    this.#rows = 0;
    this.#version = -1;
  }

  /** Addresses per key head of the keys of this version, without the heavy ones; call it while the pool is idle. */
  areas(version: number, heavy: readonly (readonly HeavyKey[])[]): readonly number[] {
    if (version === this.#version) return this.#areas;
    this.release();
    this.#version = version;
    this.#areas = heavy.map((keys, head) => this.#write(head, new Set(keys.map(({ row }) => row))));
    return this.#areas;
  }

  #write(head: number, without: ReadonlySet<number>): number {
    const { headDim: d, valueDim, kvHeads, clusters } = this.plan;
    const count = clusters!.count;
    const counts = new Int32Array(count + 1);
    const taken = (tile: Kept, i: number) => (tile.weights?.[i] ?? 1) > 0 && !without.has(tile.start + i);
    for (const tile of this.#tiles) {
      for (let i = 0; i < tile.rows; i++) if (taken(tile, i)) counts[tile.ids[head][i] + 1]++;
    }
    for (let g = 0; g < count; g++) counts[g + 1] += counts[g];
    const total = counts[count];
    const row = Math.ceil(d / 4) * 4, line = paddedValues(valueDim);
    const bytes = (count + 1 + 2 * total) * 4 + 16 + total * (row + line) * 4;
    const area = this.shared.allocate(bytes);
    this.shared.integers(area, count + 1).set(counts);
    const rowsAt = area + (count + 1) * 4;
    const omegasAt = rowsAt + total * 4;
    const keysAt = Math.ceil((omegasAt + total * 4) / 16) * 16;
    const rows = this.shared.integers(rowsAt, total), omegas = this.shared.floats(omegasAt, total);
    const keys = this.shared.floats(keysAt, total * row).fill(0);
    const values = this.shared.floats(keysAt + total * row * 4, total * line).fill(0);
    const next = counts.slice(0, count);
    for (const tile of this.#tiles) {
      for (let i = 0; i < tile.rows; i++) {
        if (!taken(tile, i)) continue;
        const at = next[tile.ids[head][i]]++;
        rows[at] = tile.start + i;
        omegas[at] = tile.weights?.[i] ?? 1;
        const cell = i * kvHeads + head;
        keys.set(tile.k.subarray(cell * d, (cell + 1) * d), at * row);
        values.set(tile.v.subarray(cell * valueDim, (cell + 1) * valueDim), at * line);
      }
    }
    return area;
  }

  /** Gives the memory back. */
  release(): void {
    for (const area of this.#areas.splice(0)) this.shared.release(area);
  }
}
