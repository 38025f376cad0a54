/** Linear attention on the wasm threads: a TileKernels over shared memory (kernels/wasm). */
import { type Stage, STAGES } from "../backend.ts";
import { visibleKeys } from "../decay.ts";
import type { Plan } from "../plan.ts";
import { copyState, emptyState, mergeInto, type State } from "../state.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import type { OwnRows, TileKernels, TileOutput } from "./tiled.ts";
import { type Call, type Kernels, SCRATCH } from "./wasm_module.ts";
import type { SharedMemory } from "./wasm_memory.ts";
import { type PlanArea, writePlan } from "./wasm_plan.ts";
import type { Pool } from "./wasm_pool.ts";
import { Slots } from "./wasm_slots.ts";
import { freeRowTasks, rowPieces, rowTasks, type Unit, units } from "./wasm_split.ts";
import { logWeightCount, StateLayout, type UnitArea, writeLogWeights } from "./wasm_state.ts";

/** Calls in flight that have areas of their own. */
export const SLOTS = 3;

/** What one call in flight works on: addresses of row 0 of each tensor. */
interface Slot {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  /** log₂ ω, per key head where there is decay. */
  readonly weights: number;
  readonly out: number;
  readonly denominators: number;
  /** Sums of the tile's keys, per piece of rows and head. */
  readonly sums: readonly UnitArea[];
  /** Causal, per unit: sums of the tile's keys, the state that answers queries, and the units' parts of rows. */
  readonly own: readonly UnitArea[];
  readonly run: readonly UnitArea[];
  readonly parts: number;
}

/** Where the tiles of one call lie, and how many keys count. */
interface Placed {
  readonly k: number;
  readonly v: number;
  /** log₂ ω of key head 0, or 0; those of the next head lie `weightStep` bytes on. */
  readonly weights: number;
  readonly weightStep: number;
  readonly seen: number;
}

/** A state as float32 units, for the version of the running state it was made from. */
interface Upload {
  readonly units: readonly UnitArea[];
  version: number;
  users: number;
}

export class WasmLinear implements TileKernels {
  readonly #area: PlanArea;
  readonly #layout: StateLayout;
  readonly #slots: Slots<Slot>;
  readonly #uploads: Upload[];
  readonly #freed: (() => void)[] = [];
  readonly #owned: number[] = [];
  /** Scratch memory per thread. */
  readonly #scratch: number[];
  /** Causal: units, and pieces per head. */
  readonly #units: Unit[];
  readonly #pieces: number;
  readonly #partBytes: number;
  readonly #spare: State[] = [];
  readonly #spareDenominators: Float32Array[] = [];
  readonly #stagesBefore: number[] | null;

  /** Allocates everything; call only while the pool is idle. */
  constructor(readonly plan: Plan, readonly pool: Pool, readonly shared: SharedMemory, readonly kernels: Kernels) {
    const { parameters, kvHeads, valueDim, causal } = plan;
    this.#area = writePlan(shared, plan);
    const { at, panel, valueLine } = this.#area;
    this.#layout = new StateLayout(shared, parameters, kvHeads, valueDim, panel, valueLine);
    const m = parameters.projections;
    this.#units = causal ? units(kvHeads, m, panel, pool.threads) : [];
    this.#pieces = Math.max(1, ...this.#units.map(({ piece }) => piece + 1));
    this.#partBytes = kernels.partsBytes(at, plan.tileRows);
    this.#uploads = Array.from({ length: causal ? 1 : 2 }, () => ({ units: this.#states(1), version: -1, users: 0 }));
    this.#slots = new Slots(Array.from({ length: causal ? 2 : SLOTS }, () => this.#slot()));
    // Causal sessions answer queries without rows of their own as well: later ones than all that was absorbed.
    const answer = Math.max(kernels.queriesScratch(at, m), causal ? kernels.causalScratch(at, m) : 0);
    const scratch = Math.max(kernels.keysScratch(at), answer);
    this.#scratch = Array.from({ length: pool.threads }, () => this.#take(scratch));
    this.#stagesBefore = pool.stages();
  }

  #take(bytes: number): number {
    const at = this.shared.allocate(bytes);
    this.#owned.push(at);
    return at;
  }

  /** Whole-head units for `pieces` pieces of rows. */
  #states(pieces: number): UnitArea[] {
    const projections = { from: 0, to: this.plan.parameters.projections };
    return Array.from({ length: pieces * this.plan.kvHeads }, (_, i) => {
      return { head: i % this.plan.kvHeads, projections, at: this.#take(this.#layout.bytes(projections)) };
    });
  }

  #slot(): Slot {
    const { heads, kvHeads, headDim, valueDim, causal, tileRows } = this.plan;
    const bytes = (width: number) => tileRows * width * 4;
    const k = this.#take(bytes(Math.max(kvHeads, causal ? 0 : heads) * headDim));
    const v = this.#take(bytes(Math.max(kvHeads, causal ? 0 : heads) * valueDim));
    const unitAreas = () =>
      this.#units.map(({ head, projections }) => {
        return { head, projections, at: this.#take(this.#layout.bytes(projections)) };
      });
    return {
      k,
      v,
      // A bidirectional call is either keys or queries.
      q: causal ? this.#take(bytes(heads * headDim)) : k,
      out: causal ? this.#take(bytes(heads * valueDim)) : v,
      weights: this.#take(4 * logWeightCount(this.plan, tileRows)),
      denominators: this.#take(bytes(heads)),
      sums: this.#states(rowPieces(kvHeads, this.pool.threads)),
      own: unitAreas(),
      run: unitAreas(),
      parts: this.#pieces > 1 ? this.#take(heads * this.#pieces * this.#partBytes) : 0,
    };
  }

  /** Fills a slot as soon as there is one and works on it. Tiles are copied before this returns. */
  async #inSlot<P, T>(
    fill: (slot: Slot) => P,
    hold: () => void,
    work: (slot: Slot, placed: P) => Promise<T>,
  ): Promise<T> {
    let slot = this.#slots.take();
    let placed: P;
    if (slot) {
      placed = fill(slot);
    } else {
      hold();
      slot = await this.#slots.next();
      placed = fill(slot);
    }
    try {
      return await work(slot, placed);
    } finally {
      this.#slots.give(slot);
    }
  }

  #keepRows({ k, v, weights }: OwnRows): OwnRows {
    const keys = { ...k, data: this.shared.keep(k.data) };
    const values = k.data === v.data ? keys : { ...v, data: this.shared.keep(v.data) };
    return { k: keys, v: values, weights: weights?.slice() };
  }

  /** Addresses of keys and values; one copy serves both when they are the same numbers. */
  #putKeys(slot: Slot, { k, v, weights }: OwnRows): Placed {
    const at = this.shared.put(slot.k, k.data);
    const { decay } = this.plan;
    const weighted = Boolean(weights || decay);
    if (weighted) {
      const log = this.shared.floats(slot.weights, logWeightCount(this.plan, k.rows));
      writeLogWeights(log, k.rows, weights, this.plan);
    }
    return {
      k: at,
      v: k.data === v.data ? at : this.shared.put(slot.v, v.data),
      weights: weighted ? slot.weights : 0,
      weightStep: decay ? 4 * k.rows : 0,
      seen: visibleKeys(k.rows, weights),
    };
  }

  async keys(k: Tile, v: Tile, weights?: FloatArray): Promise<State> {
    let own: OwnRows = { k, v, weights };
    return await this.#inSlot(
      (slot) => this.#putKeys(slot, own),
      () => void (own = this.#keepRows(own)),
      async (slot, put) => {
        const { kvHeads, parameters: { projections, matrices } } = this.plan;
        const plan = this.#area.at;
        const pieces = rowPieces(kvHeads, this.pool.threads);
        const tasks = rowTasks(kvHeads, k.rows, pieces).map(({ head, rows, piece }): Call[] => {
          const sums = slot.sums[piece * kvHeads + head].at;
          const where = [put.k, put.v, put.weights + head * put.weightStep, rows.from, rows.to, sums, SCRATCH];
          return [
            ["clearState", plan, projections, sums],
            ["keys", plan, head, head % matrices, 0, projections, ...where],
          ];
        });
        await this.pool.share(tasks, this.#scratch, this.#work(k.rows * kvHeads));
        const state = this.#read(slot.sums.slice(0, kvHeads), put.seen);
        for (let i = kvHeads; i < slot.sums.length; i += kvHeads) {
          const piece = this.#read(slot.sums.slice(i, i + kvHeads), 0);
          mergeInto(state, piece);
          this.recycle(piece);
        }
        return state;
      },
    );
  }

  #read(sums: readonly UnitArea[], keys: number): State {
    const { kvHeads, valueDim, parameters: { features } } = this.plan;
    const state = this.#spare.pop() ?? emptyState(kvHeads, features, valueDim);
    this.#layout.read(sums, state);
    state.keys = keys;
    return state;
  }

  reuse({ buffer }: Float32Array): void {
    this.#spareDenominators.push(new Float32Array(buffer));
  }

  keep(data: FloatArray): FloatArray {
    return this.shared.keep(data);
  }

  recycle(state: State): void {
    this.#spare.push(state);
  }

  async queries(q: Tile, state: State, version: number, into?: Float32Array): Promise<TileOutput> {
    const upload = this.#upload(state, version);
    let data = q.data;
    return await this.#inSlot(
      (slot) => this.shared.put(slot.q, data),
      () => void (data = this.shared.keep(data)),
      async (slot, at) => {
        const ready = await upload;
        try {
          return await this.#answer(q.rows, at, slot, ready, into);
        } finally {
          ready.users--;
          if (ready.users === 0) { for (const wake of this.#freed.splice(0)) wake(); }
        }
      },
    );
  }

  async #answer(
    rows: number,
    q: number,
    slot: Slot,
    { units: states }: Upload,
    into?: Float32Array,
  ): Promise<TileOutput> {
    const { heads, parameters: { projections, matrices } } = this.plan;
    const plan = this.#area.at;
    const out = this.#outAddress(slot, into);
    const tasks = freeRowTasks(heads, rows, this.pool.threads).map(({ head, rows: { from, to } }): Call[] => {
      const key = this.#keyHead(head);
      const what = [plan, head, key % matrices, 0, projections, q, from, to];
      return [["queries", ...what, states[key].at, out, slot.denominators, 0, SCRATCH]];
    });
    await this.pool.share(tasks, this.#scratch, this.#work(rows * heads));
    return this.#output(rows, slot, into);
  }

  /** Floating-point operations of the features of some rows and heads, and of what is summed or answered by them. */
  #work(cells: number): number {
    const { headDim, valueDim, parameters: { projections, features } } = this.plan;
    return cells * 2 * (headDim * projections + features * (valueDim + 1));
  }

  #keyHead(head: number): number {
    return Math.floor(head * this.plan.kvHeads / this.plan.heads);
  }

  /** Where outputs are written: to `into` itself when that is shared memory. */
  #outAddress(slot: Slot, into?: Float32Array): number {
    return (into && this.shared.addressOf(into)) ?? slot.out;
  }

  #output(rows: number, slot: Slot, into?: Float32Array): TileOutput {
    const { heads, valueDim } = this.plan;
    const out = into ?? new Float32Array(rows * heads * valueDim);
    if (this.#outAddress(slot, into) === slot.out) out.set(this.shared.floats(slot.out, out.length));
    const room = this.#spareDenominators.pop() ?? new Float32Array(this.plan.tileRows * heads);
    const denominators = room.subarray(0, rows * heads);
    denominators.set(this.shared.floats(slot.denominators, rows * heads));
    return { out, denominators };
  }

  /** The state in shared memory; written now, or from a copy made now as soon as older versions are no longer read. */
  async #upload(state: State, version: number): Promise<Upload> {
    const known = this.#uploads.find((upload) => upload.version === version);
    if (known) {
      known.users++;
      return known;
    }
    let held = state;
    for (;;) {
      const free = this.#uploads.find(({ users }) => users === 0);
      if (free) {
        free.users++;
        free.version = version;
        for (const unit of free.units) this.#layout.write(held, unit);
        return free;
      }
      if (held === state) held = copyState(state);
      await new Promise<void>((resolve) => this.#freed.push(resolve));
    }
  }

  async causal(
    q: Tile,
    own: OwnRows,
    state: State,
    _version: number,
    into?: Float32Array,
  ): Promise<TileOutput & { readonly own: State }> {
    let [base, rows, data] = [state, own, q.data];
    return await this.#inSlot(
      (slot) => {
        for (const unit of slot.run) this.#layout.write(base, unit);
        return { at: this.shared.put(slot.q, data), put: this.#putKeys(slot, rows) };
      },
      () => void ([base, rows, data] = [copyState(state), this.#keepRows(own), this.shared.keep(data)]),
      async (slot, { at, put }) => {
        const out = this.#outAddress(slot, into);
        const { heads, kvHeads } = this.plan;
        const work = this.#work(q.rows * (heads + kvHeads));
        await this.pool.share(this.#causalTasks(q.rows, slot, at, put, out), this.#scratch, work);
        if (this.#pieces > 1) await this.pool.share(this.#combineTasks(q.rows, slot, out), this.#scratch, work);
        return { ...this.#output(q.rows, slot, into), own: this.#read(slot.own, put.seen) };
      },
    );
  }

  #causalTasks(rows: number, slot: Slot, q: number, { k, v, weights, weightStep }: Placed, out: number): Call[][] {
    const { heads, kvHeads, parameters: { matrices } } = this.plan;
    const group = heads / kvHeads;
    const plan = this.#area.at;
    const stride = this.#pieces * this.#partBytes;
    return this.#units.map(({ head, piece, projections: { from, to } }, index): Call[] => {
      const [run, sums] = [slot.run[index].at, slot.own[index].at];
      const parts = this.#pieces > 1 ? slot.parts + head * group * stride + piece * this.#partBytes : 0;
      const what = [head, group, head % matrices, from, to - from, q, k, v, weights + head * weightStep, rows];
      const where = [run, sums, out, slot.denominators, parts, stride, SCRATCH];
      return [["clearState", plan, to - from, sums], ["causal", plan, ...what, ...where]];
    });
  }

  #combineTasks(rows: number, slot: Slot, out: number): Call[][] {
    const stride = this.#pieces * this.#partBytes;
    return freeRowTasks(this.plan.heads, rows, this.pool.threads).map(({ head, rows: { from, to } }) => {
      const parts = slot.parts + head * stride;
      return [["combine", this.#area.at, head, this.#pieces, parts, this.#partBytes, from, to, out, slot.denominators]];
    });
  }

  /** Seconds per stage since this session began; null unless profiled. */
  stages(): Readonly<Record<Stage, number>> | null {
    const now = this.pool.stages();
    if (!now) return null;
    return Object.fromEntries(STAGES.map((stage, i) => [stage, now[i] - this.#stagesBefore![i]])) as Record<
      Stage,
      number
    >;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.idle();
    this.#area.release();
    for (const at of this.#owned.splice(0)) this.shared.release(at);
  }
}
