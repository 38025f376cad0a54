/** Exact softmax on the wasm threads: an ExactKernels over shared memory (kernels/wasm/assembly/exact.ts). */
import type { ExactPlan } from "../plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import type { ExactKernels, SoftmaxParts } from "./online.ts";
import type { Call, Kernels } from "./wasm_module.ts";
import type { SharedMemory } from "./wasm_memory.ts";
import { type PlanArea, writeExactPlan } from "./wasm_plan.ts";
import type { Pool } from "./wasm_pool.ts";
import { Slots } from "./wasm_slots.ts";
import { BLOCK, cut } from "./wasm_split.ts";
import { logWeightCount, writeLogWeights } from "./wasm_state.ts";

/** Keys summed in float32 before the sums go to the host's float64. */
const FLUSH = 8192;
/** Exponents below this mean "no key seen". */
const NONE = -9e29;

interface Slot {
  readonly k: number;
  readonly v: number;
  /** log₂ ω, per key head where there is decay. */
  readonly weights: number;
  /** One int32 per held query: the last row of the tile it may see. */
  readonly limits: number;
}

export class WasmExact implements ExactKernels {
  readonly #area: PlanArea;
  readonly #slots: Slots<Slot>;
  readonly #owned: number[] = [];
  readonly #scratch: number[];
  /** Held queries: per head, blocks of 64 rows. */
  readonly #held: number;
  /** Where queries lie until they are packed. */
  readonly #queries: number;
  readonly #blockBytes: number;
  readonly #headBytes: number;
  #rows = 0;
  #positions: ArrayLike<number> = [];
  /** Keys absorbed since the last flush. */
  #pending = 0;
  /** Settles when absorbs may be given to the threads again: closed while sums are read. */
  #gate: Promise<unknown> = Promise.resolve();
  /** Settles when every absorb so far is done. */
  #done: Promise<unknown> = Promise.resolve();

  /** Allocates everything; call only while the pool is idle. */
  constructor(readonly plan: ExactPlan, readonly pool: Pool, readonly shared: SharedMemory, readonly kernels: Kernels) {
    const { heads, kvHeads, headDim, valueDim, tileRows, queryRows } = plan;
    this.#area = writeExactPlan(shared, plan);
    const blocks = Math.ceil(Math.max(1, queryRows) / BLOCK);
    this.#blockBytes = kernels.heldBytes(this.#area.at);
    this.#headBytes = blocks * this.#blockBytes;
    this.#held = this.#take(heads * this.#headBytes);
    this.#queries = this.#take(queryRows * heads * headDim * 4);
    this.#slots = new Slots(Array.from({ length: 3 }, (): Slot => ({
      k: this.#take(tileRows * kvHeads * headDim * 4),
      v: this.#take(tileRows * kvHeads * valueDim * 4),
      weights: this.#take(4 * logWeightCount(plan, tileRows)),
      limits: this.#take(blocks * BLOCK * 4),
    })));
    this.#scratch = Array.from({ length: pool.threads }, () => this.#take(kernels.exactScratch(this.#area.at)));
  }

  #take(bytes: number): number {
    const at = this.shared.allocate(bytes);
    this.#owned.push(at);
    return at;
  }

  pose(q: Tile, positions: ArrayLike<number>): void {
    this.#rows = q.rows;
    this.#positions = Float64Array.from(positions);
    this.#pending = 0;
    this.shared.floats(this.#queries, q.data.length).set(q.data);
    // Packing is a small part of the work and nothing else runs now: the main thread does it.
    for (let head = 0; head < this.plan.heads; head++) {
      this.kernels.pose(this.#area.at, head, this.#queries, q.rows, this.#held + head * this.#headBytes);
    }
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<SoftmaxParts | null> {
    let tiles = { k: k.data, v: v.data, weights };
    let slot = this.#slots.take();
    let placed: Placed | null = slot ? this.#place(slot, tiles, k) : null;
    if (!slot) {
      const held = this.shared.keep(tiles.k);
      tiles = { k: held, v: tiles.v === tiles.k ? held : this.shared.keep(tiles.v), weights: weights?.slice() };
      slot = await this.#slots.next();
      placed = this.#place(slot, tiles, k);
    }
    this.#pending += k.rows;
    const flush = this.#pending >= FLUSH;
    if (flush) this.#pending = 0;
    const before = this.#done;
    const work = (async () => {
      await this.#gate;
      const { heads, headDim, valueDim } = this.plan;
      const pairs = Math.ceil(this.#rows / BLOCK) * BLOCK * k.rows * heads;
      await this.pool.runAll(this.#calls(k.rows, placed!), pairs * 2 * (headDim + valueDim));
    })();
    this.#done = Promise.all([before, work]);
    this.#done.catch(() => {}); // reported to the caller below
    try {
      if (!flush) {
        await work;
        return null;
      }
      const read = this.#done.then(() => this.#read());
      this.#gate = read.catch(() => {});
      return await read;
    } finally {
      this.#slots.give(slot);
    }
  }

  #place(slot: Slot, tiles: { k: FloatArray; v: FloatArray; weights?: FloatArray }, { start, rows }: Tile): Placed {
    const k = this.shared.put(slot.k, tiles.k);
    const v = tiles.v === tiles.k ? k : this.shared.put(slot.v, tiles.v);
    const { decay } = this.plan;
    const weighted = Boolean(tiles.weights || decay);
    if (weighted) {
      const log = this.shared.floats(slot.weights, logWeightCount(this.plan, rows));
      writeLogWeights(log, rows, tiles.weights, this.plan);
    }
    if (this.plan.causal) {
      const limits = this.shared.integers(slot.limits, Math.ceil(this.#rows / BLOCK) * BLOCK);
      limits.fill(-1);
      for (let i = 0; i < this.#rows; i++) limits[i] = Math.max(-1, Math.min(2 ** 30, this.#positions[i] - start));
    }
    return {
      k,
      v,
      weights: weighted ? slot.weights : 0,
      weightStep: decay ? 4 * rows : 0,
      limits: this.plan.causal ? slot.limits : 0,
    };
  }

  /** Heads are shared out; with fewer heads than that takes, blocks of queries are. */
  #calls(rows: number, { k, v, weights, weightStep, limits }: Placed): Call[][] {
    const { heads, kvHeads } = this.plan;
    const { threads } = this.pool;
    const blocks = Math.ceil(this.#rows / BLOCK);
    const even = heads % threads === 0;
    const headRanges = even ? cut(heads, threads, 1) : Array.from({ length: threads }, () => ({ from: 0, to: heads }));
    const blockRanges = even ? headRanges.map(() => ({ from: 0, to: blocks })) : cut(blocks, threads, 1);
    return headRanges.map((range, thread) => {
      const some = blockRanges[thread];
      const calls: Call[] = [];
      for (let head = range.from; head < range.to && some.from < some.to; head++) {
        const key = Math.floor(head * kvHeads / heads);
        const what = [key, k, v, weights + key * weightStep, 0, rows];
        const where = [this.#held + head * this.#headBytes, some.from, some.to, limits, this.#scratch[thread]];
        calls.push(["absorb", this.#area.at, ...what, ...where]);
      }
      return calls;
    });
  }

  async parts(): Promise<SoftmaxParts | null> {
    await this.#done;
    return this.#read();
  }

  /** Takes the sums out of the held blocks and starts them over. */
  #read(): SoftmaxParts {
    const { heads, headDim, valueDim } = this.plan;
    const rows = this.#rows;
    const line = this.#area.valueLine;
    const result = {
      parts: 1,
      top: new Float32Array(rows * heads),
      total: new Float32Array(rows * heads),
      sums: new Float32Array(rows * heads * valueDim),
    };
    for (let head = 0; head < heads; head++) {
      for (let from = 0; from < rows; from += BLOCK) {
        const at = this.#held + head * this.#headBytes + from / BLOCK * this.#blockBytes;
        const block = this.shared.floats(at + headDim * BLOCK * 4, BLOCK * (2 + line));
        for (let i = 0; i < Math.min(BLOCK, rows - from); i++) {
          const cell = (from + i) * heads + head;
          result.top[cell] = block[i] < NONE ? -Infinity : block[i] * Math.LN2;
          result.total[cell] = block[BLOCK + i];
          const sums = 2 * BLOCK + i * line;
          for (let c = 0; c < valueDim; c++) result.sums[cell * valueDim + c] = block[sums + c];
        }
        this.kernels.forget(this.#area.at, at);
      }
    }
    return result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.idle();
    this.#area.release();
    for (const at of this.#owned.splice(0)) this.shared.release(at);
  }
}

interface Placed {
  readonly k: number;
  readonly v: number;
  /** log₂ ω of key head 0, or 0; those of the next head lie `weightStep` bytes on. */
  readonly weights: number;
  readonly weightStep: number;
  readonly limits: number;
}
