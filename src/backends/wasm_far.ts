/** Near-and-far attention on the wasm threads: NearFarKernels over shared memory (kernels/wasm/assembly/near_far.ts). */
import type { KeyRows } from "../backend.ts";
import { copyFarState, emptyFarState, type FarSums, type HeavyKey } from "../far_state.ts";
import { BLOCK_ROWS, type NearFarPlan } from "../near_far.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import type { NearFarKernels } from "./near_far_session.ts";
import type { TileOutput } from "./tiled.ts";
import { MomentLayout, recordNumbers, writeFarPlan, writeHeavy } from "./wasm_far_plan.ts";
import { type Call, type Kernels, SCRATCH } from "./wasm_module.ts";
import { ClusterIds } from "./wasm_ids.ts";
import type { SharedMemory } from "./wasm_memory.ts";
import type { PlanArea } from "./wasm_plan.ts";
import type { Pool } from "./wasm_pool.ts";
import { checkNear, makeSlots, type Slot } from "./wasm_far_slots.ts";
import { Slots } from "./wasm_slots.ts";
import { Order, TopKeys } from "./wasm_top.ts";
import { causalPieces, freeRowTasks, rowPieces, rowTasks } from "./wasm_split.ts";

/** Where the rows of a call lie. */
interface Placed {
  readonly k: number;
  readonly v: number;
  readonly weights: number;
}

/** Where queries, rows and heavy keys of a call lie. */
interface Posed extends Placed {
  readonly q: number;
  /** Heavy records per key head. */
  readonly records: readonly number[];
}

/** What some queries need, besides the sums. */
interface Asked {
  readonly q: Tile;
  readonly near: KeyRows | null;
  readonly heavy: readonly (readonly (readonly HeavyKey[])[])[];
  readonly into?: FloatArray;
  /** With causal `top`: when the rows of the queries are added to those of their clusters. */
  readonly turn: ReturnType<Order["take"]> | null;
}

export class WasmFar implements NearFarKernels {
  readonly #area: PlanArea;
  readonly #layout: MomentLayout;
  readonly #owned: number[] = [];
  readonly #slots: Slots<Slot>;
  readonly #scratch: number[];
  /** Heavy records that fit per key head. */
  readonly #records: number;
  readonly #pieces: number;
  /** With `top`: the keys by cluster, to which rows are added in the order of calls. */
  readonly #top: TopKeys | null;
  #order = new Order();
  /** Causal: rows below it come with queries, which add them. */
  #emitted = 0;
  /** Queries that wait for a slot: later ones do not overtake them. */
  #late = 0;
  #ids: ClusterIds;
  readonly #spare: FarSums[] = [];
  /** Rows whose clusters are being found. */
  readonly #assigning = new Set<{ readonly start: number; readonly end: number; readonly done: Promise<unknown> }>();

  /** Allocates everything; call only while the pool is idle. Throws UnsupportedError for what there are no kernels or no room for. */
  constructor(
    readonly plan: NearFarPlan,
    readonly pool: Pool,
    readonly shared: SharedMemory,
    readonly kernels: Kernels,
  ) {
    const { kvHeads, tileRows, causal, heavy, clusters } = plan;
    const top = clusters?.top ?? 0;
    this.#ids = new ClusterIds(kvHeads, clusters?.count ?? 0);
    checkNear(plan);
    this.#area = writeFarPlan(shared, plan);
    const keys = this.#top = top > 0 ? new TopKeys(plan, shared, kernels.chunkBytes(this.#area.at)) : null;
    const bytes = kernels.farBytes(this.#area.at);
    this.#layout = new MomentLayout(shared, plan, bytes / 4);
    this.#records = heavy === 0 ? 0 : heavy + (causal ? tileRows : 0);
    this.#pieces = rowPieces(kvHeads, pool.threads);
    const records = this.#records * recordNumbers(plan) * 4;
    const sizes = { moments: bytes, pieces: this.#pieces, records, directory: keys?.directoryBytes ?? 0 };
    this.#slots = new Slots(makeSlots(plan, sizes, (size) => this.#take(size)));
    const scratch = Math.max(kernels.nearFarScratch(this.#area.at), kernels.farScratch(this.#area.at));
    this.#scratch = Array.from({ length: pool.threads }, () => this.#take(scratch));
  }

  #take(bytes: number): number {
    const at = this.shared.allocate(bytes);
    this.#owned.push(at);
    return at;
  }

  /** Addresses of rows: where they lie, if they were lent, else a slot's area they are copied to. */
  #place(slot: Slot, { k, v, weights }: KeyRows): Placed {
    const at = this.shared.put(slot.k, k.data);
    if (weights) this.shared.floats(slot.weights, weights.length).set(weights);
    return {
      k: at,
      v: v.data === k.data ? at : this.shared.put(slot.v, v.data),
      weights: weights ? slot.weights : 0,
    };
  }

  #keep({ k, v, weights }: KeyRows): KeyRows {
    const keys = { ...k, data: this.shared.keep(k.data) };
    return {
      k: keys,
      v: v.data === k.data ? keys : { ...v, data: this.shared.keep(v.data) },
      weights: weights?.slice(),
    };
  }

  async sums(keys: KeyRows, reference: Float64Array): Promise<FarSums> {
    const { start, rows } = keys.k, end = start + rows;
    const ids = this.#ids;
    // Causal rows are added by the queries that come with them, so that blocks of queries find those before them.
    const turn = this.#top && end > this.#emitted ? this.#order.take() : null;
    const alone = turn !== null && this.plan.causal;
    let slot = alone ? null : this.#slots.take();
    let placed = slot && this.#place(slot, keys);
    if (!slot || !placed) {
      const kept = this.#keep(keys);
      if (alone) await turn.before; // without a slot, which those before may need
      slot = await this.#slots.next();
      placed = this.#place(slot, kept);
    }
    const assigned = this.#sums(slot, placed, rows, reference).then((sums) => {
      if (slot.ids !== 0) ids.put(start, this.#idsOf(slot, rows, 0, rows));
      return sums;
    });
    const assigning = { start, end, done: assigned.catch(() => {}) };
    this.#assigning.add(assigning);
    try {
      const sums = await assigned;
      this.#assigning.delete(assigning);
      if (turn) await this.#keepRows(slot, placed, { start, rows, from: 0, of: rows }, turn.before);
      return sums;
    } finally {
      turn?.done();
      this.#assigning.delete(assigning);
      this.#slots.give(slot);
    }
  }

  /** Clusters of rows `from … from + rows − 1` of the `of` rows that a slot has, per key head. */
  #idsOf(slot: Slot, of: number, from: number, rows: number): Int32Array[] {
    return Array.from({ length: this.plan.kvHeads }, (_, head) => {
      return this.shared.integers(slot.ids + (head * of + from) * 4, rows);
    });
  }

  /** With `top`: adds rows whose clusters are known to these, when all earlier ones have been. */
  async #keepRows(
    slot: Slot,
    { k, v, weights }: Placed,
    { start, rows, from, of }: { start: number; rows: number; from: number; of: number },
    before: Promise<void>,
  ): Promise<void> {
    const { kvHeads, headDim, valueDim } = this.plan;
    await before;
    const weightsAt = weights && weights + from * 4;
    const kept = await this.#top!.place(
      {
        start,
        rows,
        weights: weights ? this.shared.floats(weightsAt, rows) : null,
        ids: this.#idsOf(slot, of, from, rows),
      },
      slot.places,
      this.pool,
    );
    this.#top!.write(slot.directories);
    if (!kept) return;
    const keys = k + from * kvHeads * headDim * 4, values = v + from * kvHeads * valueDim * 4;
    await this.pool.share(
      freeRowTasks(kvHeads, rows, this.pool.threads).map(({ head, rows: piece }): Call[] => {
        const where = [keys, values, weightsAt, start, piece.from, piece.to, slot.places[head]];
        return [["keepRows", this.#area.at, head, ...where]];
      }),
      this.#scratch,
    );
  }

  async #sums(slot: Slot, { k, v, weights }: Placed, rows: number, reference: Float64Array): Promise<FarSums> {
    const { kvHeads, headDim: d, far } = this.plan;
    const plan = this.#area.at;
    if (far !== "clusters") {
      for (const [head, at] of slot.references.entries()) {
        this.shared.floats(at, d).set(reference.subarray(head * d, (head + 1) * d));
      }
    }
    const tasks = rowTasks(kvHeads, rows, this.#pieces).map(({ head, rows: { from, to }, piece }): Call[] => {
      const sums = slot.sums[piece * kvHeads + head];
      const ids = slot.ids === 0 ? 0 : slot.ids + head * rows * 4;
      const assign: Call[] = slot.ids === 0 ? [] : [["assignRows", plan, head, k, from, to, ids, SCRATCH]];
      return [
        ...assign,
        ["clearFar", plan, sums, slot.references[head]],
        ["farSums", plan, head, k, v, weights, ids, from, to, sums, SCRATCH],
      ];
    });
    await this.pool.share(tasks, this.#scratch);
    const sums = this.#spare.pop() ?? emptyFarState(this.plan).sums;
    for (const numbers of Object.values(sums)) numbers.fill(0);
    sums.reference.set(reference);
    for (const [i, area] of slot.sums.entries()) this.#layout.add(area, i % kvHeads, sums);
    return sums;
  }

  recycle(sums: FarSums): void {
    this.#spare.push(sums);
  }

  forget(): void {
    this.#ids = new ClusterIds(this.plan.kvHeads, this.plan.clusters?.count ?? 0);
    this.#top?.clear();
    this.#emitted = 0;
  }

  emit(
    q: Tile,
    near: KeyRows | null,
    heavy: Asked["heavy"],
    into?: FloatArray,
  ): (sums: FarSums, version: number) => Promise<TileOutput> {
    const turn = this.#top && this.plan.causal ? this.#order.take() : null;
    if (turn) this.#emitted = Math.max(this.#emitted, q.start + q.rows);
    const asked: Asked = { q, near, heavy, into, turn };
    const slot = this.#late === 0 ? this.#slots.take() : null;
    if (slot) {
      const placed = this.#pose(slot, asked);
      return (sums, version) => {
        this.#upload(slot, sums, version);
        return this.#answer(slot, asked, placed);
      };
    }
    this.#late++;
    const kept: Asked = {
      ...asked,
      q: { ...q, data: this.shared.keep(q.data) },
      near: near && this.#keep(near),
      heavy: heavy.map((block) => block.map((keys) => keys.slice())),
    };
    return async (sums, version) => {
      const copy = copyFarState({ ...emptyFarState(this.plan), sums }).sums;
      const slot = await this.#slots.next();
      this.#late--;
      const placed = this.#pose(slot, kept);
      this.#upload(slot, copy, version);
      return await this.#answer(slot, kept, placed);
    };
  }

  /** Puts everything but the sums into a slot. */
  #pose(slot: Slot, { q, near, heavy }: Asked): Posed {
    const { kvHeads } = this.plan;
    const records = Array.from({ length: kvHeads }, (_, head) => {
      const lists = heavy.map((block) => block[head]);
      return this.#records === 0 ? 0 : writeHeavy(this.shared, this.plan, lists, slot.heavy[head], this.#records);
    });
    const placed = near ? this.#place(slot, near) : { k: 0, v: 0, weights: 0 };
    return { ...placed, q: this.shared.put(slot.q, q.data), records };
  }

  #upload(slot: Slot, sums: FarSums, version: number): void {
    if (slot.version === version && !this.plan.causal) return;
    slot.version = version;
    for (const [head, area] of slot.moments.entries()) this.#layout.write(sums, head, area);
  }

  async #answer(slot: Slot, asked: Asked, placed: Posed): Promise<TileOutput> {
    const { q, near, into, turn } = asked;
    const { heads, valueDim } = this.plan;
    try {
      if (near) await this.#assign(slot, near.k, placed.k);
      if (turn) {
        const rows = { start: q.start, rows: q.rows, from: q.start - near!.k.start, of: near!.k.rows };
        await this.#keepRows(slot, placed, rows, turn.before);
        turn.done();
      } else this.#top?.write(slot.directories);
      const length = q.rows * heads * valueDim;
      const mine = into?.subarray(0, length) as Float32Array | undefined;
      const lent = mine ? this.shared.addressOf(mine) : null;
      const counters = this.shared.integers(slot.counters, heads).fill(0);
      await this.pool.share(this.#tasks(slot, asked, placed, lent ?? slot.out), this.#scratch);
      // Slices of shared memory are slow on Bun: 0.2 s at L = 65,536.
      const denominators = new Float32Array(q.rows * heads);
      denominators.set(this.shared.floats(slot.denominators, q.rows * heads));
      const pairs = this.#top ? counters.reduce((sum, taken) => sum + taken, 0) : undefined;
      return { out: lent === null ? this.shared.floats(slot.out, length).slice() : mine!, denominators, pairs };
    } finally {
      turn?.done();
      this.#slots.give(slot);
    }
  }

  /** The cluster of every near row: known from when it was absorbed, or found now. */
  async #assign(slot: Slot, { start, rows }: Tile, k: number): Promise<void> {
    if (slot.ids === 0) return;
    const end = start + rows;
    // Causal: the queries' own rows are being absorbed.
    await Promise.all([...this.#assigning].map((other) => other.start < end && other.end > start ? other.done : null));
    const { from, to } = this.#ids.known(start, end);
    for (let head = 0; head < this.plan.kvHeads && from < to; head++) {
      const area = slot.ids + (head * rows + from - start) * 4;
      this.#ids.copy(head, from, to, this.shared.integers(area, to - from));
    }
    const missing = from < to ? [{ from: start, to: from }, { from: to, to: end }] : [{ from: start, to: end }];
    const tasks = missing.flatMap((range) => {
      return freeRowTasks(this.plan.kvHeads, range.to - range.from, this.pool.threads).map((task): Call[] => {
        const [first, last] = [task.rows.from, task.rows.to].map((row) => range.from - start + row);
        return [["assignRows", this.#area.at, task.head, k, first, last, slot.ids + task.head * rows * 4, SCRATCH]];
      });
    });
    if (tasks.length > 0) await this.pool.share(tasks, this.#scratch);
  }

  #tasks(slot: Slot, { q, near }: Asked, placed: Posed, out: number): Call[][] {
    const { heads, kvHeads, causal } = this.plan;
    const rows = near?.k.rows ?? 0;
    const { threads } = this.pool;
    const pieces = causal
      ? rowTasks(heads, q.rows, causalPieces(heads, threads)).filter(({ rows: { from, to } }) => from < to)
      : freeRowTasks(heads, q.rows, threads);
    return pieces.map(({ head, rows: { from, to } }): Call[] => {
      const keyHead = Math.floor(head * kvHeads / heads);
      const blocks = [from / BLOCK_ROWS, Math.ceil(to / BLOCK_ROWS)];
      const ids = slot.ids === 0 ? 0 : slot.ids + keyHead * rows * 4;
      const keys = [placed.k, placed.v, placed.weights, ids, near?.k.start ?? 0, rows];
      const heavy = [slot.heavy[keyHead], placed.records[keyHead]];
      const where = [
        slot.moments[keyHead],
        slot.directories[keyHead] ?? 0,
        out,
        slot.denominators,
        slot.counters + head * 4,
        SCRATCH,
      ];
      const what = [head, keyHead, placed.q, q.rows, q.start, ...blocks];
      return [["nearFar", this.#area.at, ...what, ...keys, ...heavy, ...where]];
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.idle();
    this.#area.release();
    this.#top?.release();
    for (const at of this.#owned.splice(0)) this.shared.release(at);
  }
}
