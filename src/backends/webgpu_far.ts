/**
 * Near-and-far attention on WebGPU: uploads, dispatches and read-back of one tile at a time (kernels/wgsl/near_far.wgsl, far_*.wgsl).
 *
 * A call's rows are queued when it is made, its state when its turn comes. Bidirectional queries need one pass over one state. Causal
 * ones sum the keys of each block of 64 rows, turn the sums to those ahead of each block (far_scan.wgsl) and then answer all blocks at
 * once. No call waits for another's read-back but through the host's sums.
 */
import type { KeyRows } from "../backend.ts";
import { UnsupportedError } from "../errors.ts";
import { addSums, emptyFarState, type FarSums, type HeavyKey } from "../far_state.ts";
import { BLOCK_ROWS, type NearFarPlan } from "../near_far.ts";
import { rowsOf, type Tile } from "../tensor.ts";
import type { NearFarKernels } from "./near_far_session.ts";
import type { TileOutput } from "./tiled.ts";
import { busyWorkgroups, keyRanges } from "./webgpu_cut.ts";
import { BufferSet, type Constants, type GpuDevice, Growing, mebibytes, Ring } from "./webgpu_device.ts";
import {
  away,
  type FarLayout,
  farLayoutOf,
  FARTHEST,
  type HeavyPool,
  keyRowsOf,
  nearOf,
  packCentroids,
  packHeavy,
  packRows,
  packSums,
  unpackOutput,
  unpackSums,
} from "./webgpu_far_layout.ts";
import { concatenate, RowPacker } from "./webgpu_layout.ts";
import { dispatch } from "./webgpu_tiled.ts";

/** Sums of key ranges are kept below this where one range allows. */
const PARTIALS = 256 << 20;
/** far_scan.wgsl: workgroups of the first dimension. */
const SCAN_GROUPS = 32768;

const USES = {
  none: ["near_far:none"],
  taylor: ["near_far:taylor", "far_moments", "far_scan"],
  clusters: ["near_far:clusters", "far_assign", "far_sums", "far_scan", "far_logits"],
} as const;
type FarPass = typeof USES[keyof typeof USES][number];
type Pipelines = Readonly<Partial<Record<FarPass, GPUComputePipeline>>>;

/** Records of a call. */
const RECORD = { keys: 0, scan: 1, assign: 2, logits: 3, near: 4 } as const;

/** Buffers of one call: keys and queries with their read-back. */
class Slot {
  readonly calls: GPUBuffer;
  readonly q: Growing;
  readonly k: Growing;
  readonly v: Growing;
  readonly numbers: Growing;
  readonly assigned: Growing;
  readonly result: Growing;
  readonly staging: Growing;

  constructor(buffers: BufferSet) {
    this.calls = buffers.records(Object.keys(RECORD).length);
    this.q = new Growing(buffers, "input", "queries");
    this.k = new Growing(buffers, "input", "keys");
    this.v = new Growing(buffers, "input", "values");
    this.numbers = new Growing(buffers, "input", "weights and heavy keys");
    this.assigned = new Growing(buffers, "work", "clusters of keys");
    this.result = new Growing(buffers, "work", "outputs");
    this.staging = new Growing(buffers, "staging", "outputs");
  }
}

/** What was uploaded for some queries. */
interface Posed {
  readonly slot: Slot;
  readonly q: Tile;
  readonly near: { readonly start: number; readonly rows: number };
  readonly pool: { readonly rows: number; readonly longest: number };
}

export class WebgpuFar implements NearFarKernels {
  readonly #layout: FarLayout;
  readonly #buffers: BufferSet;
  readonly #shape: GPUBuffer;
  /** Sums of ranges or blocks. */
  readonly #partials: Growing;
  /** The state: of bidirectional queries, or ahead of the first causal block. */
  readonly #state: Growing;
  readonly #logits: Growing;
  readonly #reference: GPUBuffer;
  readonly #centroids: GPUBuffer;
  readonly #halves: GPUBuffer;
  readonly #slots: Ring<Slot>;
  readonly #packer = new RowPacker();
  readonly #pending = new Set<Promise<unknown>>();
  #uploaded: { readonly sums: FarSums; readonly version: number } | null = null;

  private constructor(readonly gpu: GpuDevice, readonly plan: NearFarPlan, readonly pipelines: Pipelines) {
    const layout = this.#layout = farLayoutOf(plan, gpu);
    const buffers = this.#buffers = new BufferSet(gpu);
    this.#slots = new Ring(() => new Slot(buffers));
    this.#shape = buffers.records(1);
    gpu.device.queue.writeBuffer(this.#shape, 0, Uint32Array.of(layout.d4, layout.v4));
    this.#partials = new Growing(buffers, "work", "partial states");
    this.#state = new Growing(buffers, "work", "the running state");
    this.#logits = new Growing(buffers, "work", "logits of clusters");
    const clustered = layout.kind === "clusters" ? packCentroids(plan, layout) : null;
    this.#reference = buffers.input(plan.kvHeads * layout.d4 * 16, "the reference");
    this.#centroids = buffers.input(clustered?.centroids.byteLength ?? 0, "centroids");
    this.#halves = buffers.input(clustered?.halves.byteLength ?? 0, "norms of centroids");
    if (!clustered) return;
    this.#write(this.#centroids, clustered.centroids);
    this.#write(this.#halves, clustered.halves);
  }

  static async open(gpu: GpuDevice, plan: NearFarPlan): Promise<WebgpuFar> {
    const { kind } = farLayoutOf(plan, gpu);
    const { far } = plan;
    const passes = await Promise.all(USES[kind].map(async (pass): Promise<[FarPass, GPUComputePipeline]> => {
      const constants: Constants = pass === "near_far:taylor"
        ? { SQUARE: far === "taylor1" ? 0 : 0.5, HERMITE: far === "hermite2" ? 1 : 0 }
        : {};
      return [pass, await gpu.pipeline(pass, constants)];
    }));
    return new WebgpuFar(gpu, plan, Object.fromEntries(passes));
  }

  sums(keys: KeyRows, reference: Float64Array): Promise<FarSums> {
    const { plan } = this;
    const most = this.#layout.keyRows;
    const parts: Promise<FarSums>[] = [];
    for (let from = 0; from < keys.k.rows; from += most) {
      parts.push(this.#track(this.#sums(keyRowsOf(keys, from, Math.min(keys.k.rows, from + most)), reference)));
    }
    return Promise.all(parts).then((all) => {
      const total: FarSums = { ...emptyFarState(plan).sums, reference };
      for (const part of all) addSums(total, part);
      return total;
    });
  }

  async #sums(keys: KeyRows, reference: Float64Array): Promise<FarSums> {
    const { plan, gpu } = this;
    const { unit, padded, valueBlocks, kind } = this.#layout;
    const { rows } = keys.k;
    const slot = this.#slots.take();
    this.#uploadKeys(slot, keys, 0);
    if (kind === "taylor") this.#write(this.#reference, packRows(reference, plan.headDim));
    const state = plan.kvHeads * unit;
    const groups = plan.kvHeads * (kind === "taylor" ? padded / 64 * valueBlocks : 1);
    const most = Math.min(busyWorkgroups(gpu) / groups, Math.min(PARTIALS, gpu.maxBytes) / (state * 16));
    const { ranges, share } = keyRanges(rows, Math.max(1, Math.floor(most)));
    const total = slot.result.ensure(state * 16);
    const staging = slot.staging.ensure(state * 16);
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    if (kind === "clusters") this.#assign(pass, slot, rows);
    this.#keys(pass, slot, { first: 0, rows, ranges, share });
    this.#scan(pass, slot, ranges, false, total);
    pass.end();
    encoder.copyBufferToBuffer(total, 0, staging, 0, state * 16);
    gpu.device.queue.submit([encoder.finish()]);
    const sums: FarSums = { ...emptyFarState(plan).sums, reference };
    await gpu.read(staging, state * 16, (floats) => unpackSums(floats, plan, this.#layout, sums));
    this.#slots.give(slot);
    return sums;
  }

  emit(
    q: Tile,
    near: KeyRows | null,
    heavy: readonly (readonly (readonly HeavyKey[])[])[],
  ): (sums: FarSums, version: number) => Promise<TileOutput> {
    const posed: Posed[] = [];
    for (let from = 0; from < q.rows;) {
      const one = this.#pose(q, from, near, heavy);
      posed.push(one);
      from += one.q.rows;
    }
    return (sums, version) => {
      if (posed.length > 0) this.#upload(sums, version);
      return this.#track(
        Promise.all(posed.map((one) => this.#answer(one))).then((outputs) => {
          return outputs.length === 1 ? outputs[0] : concatenate(outputs);
        }),
      );
    };
  }

  /** Uploads as many queries as one call can take, from `from` on, and what they have near. */
  #pose(all: Tile, from: number, band: KeyRows | null, heavy: Parameters<NearFarKernels["emit"]>[2]): Posed {
    const { plan } = this;
    let to = Math.min(all.rows, from + this.#layout.capacity);
    let near: KeyRows | null, pool: HeavyPool;
    for (;;) {
      near = nearOf(plan, all, band, from, to);
      const states = plan.causal ? heavy.slice(from / BLOCK_ROWS, Math.ceil(to / BLOCK_ROWS)) : heavy;
      pool = packHeavy(states, all.start + from, plan, this.#layout);
      const rows = (near?.k.rows ?? 0) + pool.rows;
      if (rows <= this.#layout.keyRows && 4 * rows + pool.numbers.byteLength <= this.gpu.maxBytes) break;
      if (to - from <= BLOCK_ROWS) {
        const what = `${near?.k.rows ?? 0} near rows and ${pool.rows} heavy keys of ${plan.kvHeads} heads`;
        const most = `are too much for a buffer of ${mebibytes(this.gpu.maxBytes)}`;
        throw new UnsupportedError("webgpu", `${what} ${most}; use a smaller window or fewer heavy keys`);
      }
      to = from + Math.ceil((to - from) / (2 * BLOCK_ROWS)) * BLOCK_ROWS; // a wide window leaves room for fewer queries
    }
    const rows = near?.k.rows ?? 0;
    const q = rowsOf(all, from, to);
    const slot = this.#slots.take();
    this.#write(
      slot.q.ensure(q.rows * plan.heads * this.#layout.d4 * 16),
      this.#packer.rows(q, plan.heads, plan.headDim),
    );
    this.#uploadKeys(slot, near, pool.rows, pool.numbers.byteLength);
    const cells = rows * plan.kvHeads * 16;
    if (pool.rows > 0) {
      this.#write(slot.k.ensure(0), pool.keys, cells * this.#layout.d4);
      this.#write(slot.v.ensure(0), pool.values, cells * this.#layout.v4);
      this.gpu.device.queue.writeBuffer(slot.numbers.ensure(0), rows * 4, pool.numbers as Uint32Array<ArrayBuffer>);
    }
    // Only its place is needed from here on: the caller's numbers may be gone.
    return { slot, q: { ...q, data: new Float32Array() }, near: { start: near?.k.start ?? q.start, rows }, pool };
  }

  /** Makes room for keys, `behind` rows and `tail` bytes after their weights; writes the keys. */
  #uploadKeys(slot: Slot, keys: KeyRows | null, behind: number, tail = 0): void {
    const { kvHeads, headDim, valueDim } = this.plan;
    const rows = keys?.k.rows ?? 0;
    const k = slot.k.ensure((rows + behind) * kvHeads * this.#layout.d4 * 16);
    const v = slot.v.ensure((rows + behind) * kvHeads * this.#layout.v4 * 16);
    const numbers = slot.numbers.ensure(rows * 4 + tail);
    if (!keys) return;
    this.#write(k, this.#packer.rows(keys.k, kvHeads, headDim));
    this.#write(v, this.#packer.rows(keys.v, kvHeads, valueDim));
    const { weights } = keys;
    this.#write(numbers, weights ? Float32Array.from(weights.subarray(0, rows)) : new Float32Array(rows).fill(1));
  }

  #upload(sums: FarSums, version: number): void {
    const { plan } = this;
    if (this.#layout.kind === "none") return;
    // A later tile's sums may have put their own there.
    if (this.#layout.kind === "taylor") this.#write(this.#reference, packRows(sums.reference, plan.headDim));
    if (!plan.causal && this.#uploaded?.sums === sums && this.#uploaded.version === version) return;
    const packed = packSums(sums, plan, this.#layout);
    this.#write(this.#state.ensure(packed.byteLength), packed);
    this.#uploaded = { sums, version };
  }

  async #answer({ slot, q, near, pool }: Posed): Promise<TileOutput> {
    const { plan, gpu } = this;
    const { heads, kvHeads, causal } = plan;
    const { v4, padded, unit, valueBlocks, kind } = this.#layout;
    const blocks = Math.ceil(q.rows / BLOCK_ROWS);
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    if (kind === "clusters") this.#assign(pass, slot, near.rows + pool.rows);
    if (causal && kind !== "none") {
      this.#keys(pass, slot, { first: q.start - near.start, rows: q.rows, ranges: blocks, share: BLOCK_ROWS });
      this.#scan(pass, slot, blocks, true, this.#state.ensure(0));
    }
    const state = causal ? this.#partials : this.#state;
    if (kind === "clusters") {
      const logits = this.#logits.ensure(heads * blocks * padded * 256);
      const record = [q.rows, heads, kvHeads, blocks, causal ? 1 : 0, padded, unit];
      this.#pass(pass, "far_logits", slot, RECORD.logits, record, {
        1: slot.q.ensure(0),
        2: state.ensure(0),
        3: this.#centroids,
        4: logits,
        9: this.#shape,
      }, [blocks, heads, padded / 32]);
    }
    const outBytes = q.rows * heads * v4 * 16;
    const bytes = outBytes + heads * blocks * BLOCK_ROWS * 4;
    const result = slot.result.ensure(bytes);
    const window = Math.min(plan.window, FARTHEST);
    const exactRows = causal ? Math.max(0, away(plan.exactRows, q.start)) : 0;
    const sizes = [q.rows, heads, kvHeads, blocks, near.rows, pool.rows, pool.longest, causal ? 1 : 0];
    const record = [...sizes, away(near.start, q.start), window, exactRows];
    const rows = { 1: slot.q.ensure(0), 2: slot.k.ensure(0), 3: slot.v.ensure(0), 4: slot.numbers.ensure(0) };
    const buffers: Record<number, GPUBuffer> = { ...rows, 5: result, 9: this.#shape };
    if (kind !== "none") buffers[6] = state.ensure(0);
    if (kind === "taylor") buffers[7] = this.#reference;
    if (kind === "clusters") [buffers[7], buffers[8]] = [this.#logits.ensure(0), slot.assigned.ensure(0)];
    const groups = [blocks, heads, valueBlocks] as const;
    this.#pass(pass, `near_far:${kind}`, slot, RECORD.near, record, buffers, groups, [plan.headDim, padded, unit]);
    pass.end();
    const staging = slot.staging.ensure(bytes);
    encoder.copyBufferToBuffer(result, 0, staging, 0, bytes);
    gpu.device.queue.submit([encoder.finish()]);
    const output = await gpu.read(staging, bytes, (floats) => unpackOutput(floats, q.rows, plan, this.#layout));
    this.#slots.give(slot);
    return output;
  }

  /** Clusters of the first `rows` rows of a slot's keys. */
  #assign(pass: GPUComputePassEncoder, slot: Slot, rows: number): void {
    const { kvHeads } = this.plan;
    const { features, padded } = this.#layout;
    slot.assigned.ensure(rows * kvHeads * 4);
    if (rows === 0) return;
    this.#pass(pass, "far_assign", slot, RECORD.assign, [rows, kvHeads, features, padded], {
      1: slot.k.ensure(0),
      2: this.#centroids,
      3: this.#halves,
      4: slot.assigned.ensure(0),
      9: this.#shape,
    }, [Math.ceil(rows / 64), kvHeads, 1]);
  }

  /** Sums of each range of `share` keys. */
  #keys(
    pass: GPUComputePassEncoder,
    slot: Slot,
    { first, rows, ranges, share }: { first: number; rows: number; ranges: number; share: number },
  ): void {
    const { kvHeads, headDim } = this.plan;
    const { kind, d4, v4, features, padded, unit, valueBlocks } = this.#layout;
    const partials = this.#partials.ensure(ranges * kvHeads * unit * 16);
    const buffers = { 1: slot.k.ensure(0), 2: slot.v.ensure(0), 3: slot.numbers.ensure(0), 9: this.#shape };
    const common = [rows, share, kvHeads, first];
    if (kind === "taylor") {
      const record = [...common, headDim, features, padded, unit];
      this.#pass(pass, "far_moments", slot, RECORD.keys, record, { ...buffers, 4: this.#reference, 5: partials }, [
        ranges,
        kvHeads,
        padded / 64 * valueBlocks,
      ]);
      return;
    }
    this.#pass(pass, "far_sums", slot, RECORD.keys, [...common, padded, unit], {
      ...buffers,
      4: slot.assigned.ensure(0),
      5: this.#centroids,
      6: partials,
    }, [ranges, kvHeads, Math.ceil((1 + v4 + 2 * d4) / 64)]);
  }

  /** Sums of ranges into `running`, or of the blocks ahead of each, from `running` on. */
  #scan(pass: GPUComputePassEncoder, slot: Slot, parts: number, prefix: boolean, running: GPUBuffer): void {
    const stride = this.plan.kvHeads * this.#layout.unit;
    const groups = Math.ceil(stride / 256);
    const across = Math.min(groups, SCAN_GROUPS);
    this.#pass(pass, "far_scan", slot, RECORD.scan, [parts, stride, prefix ? 1 : 0], {
      1: this.#partials.ensure(0),
      2: running,
    }, [across, Math.ceil(groups / across), 1]);
  }

  /** One dispatch; a record of whole numbers, the scale where the pass reads it, and more whole numbers. */
  #pass(
    encoder: GPUComputePassEncoder,
    name: FarPass,
    slot: Slot,
    index: number,
    record: readonly number[],
    buffers: Readonly<Record<number, GPUBuffer>>,
    [x, y, z]: readonly [number, number, number],
    more: readonly number[] = [],
  ): void {
    const numbers = new Int32Array(16);
    numbers.set(record);
    new Float32Array(numbers.buffer)[record.length] = this.plan.scale;
    numbers.set(more, record.length + 1);
    this.gpu.device.queue.writeBuffer(slot.calls, index * 256, numbers);
    const pipeline = this.pipelines[name]!;
    dispatch(encoder, pipeline, this.gpu.bindAt(pipeline, slot.calls, index, buffers), x, y, z);
  }

  #write(buffer: GPUBuffer, floats: Float32Array, at = 0): void {
    this.gpu.device.queue.writeBuffer(buffer, at, floats as Float32Array<ArrayBuffer>);
  }

  #track<T>(call: Promise<T>): Promise<T> {
    this.#pending.add(call);
    const done = () => void this.#pending.delete(call);
    call.then(done, done);
    return call;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#pending);
    this.#buffers.destroy();
  }
}
