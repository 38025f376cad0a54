/**
 * Linear attention on WebGPU: uploads, dispatches and read-back of one tile at a time (kernels/wgsl).
 *
 * Everything a call needs is queued before it returns; only its read-back is awaited, so neighbouring tiles overlap. Large
 * states are worked on in rounds of key heads, and tiles too large for one buffer in slices of rows.
 */
import { decayState } from "../../kernels/scalar/keys.ts";
import { visibleKeys } from "../decay.ts";
import { UnsupportedError } from "../errors.ts";
import type { Plan } from "../plan.ts";
import { copyState, emptyState, mergeInto, mergeLater, type State } from "../state.ts";
import { type FloatArray, rowsOf, type Tile } from "../tensor.ts";
import { type OwnRows, ownRowsOf, type TileKernels, type TileOutput } from "./tiled.ts";
import { CHUNK, cutOf, keyRanges } from "./webgpu_cut.ts";
import { BufferSet, type GpuDevice, Ring } from "./webgpu_device.ts";
import {
  concatenate,
  constantsOf,
  type Layout,
  layoutOf,
  packProjections,
  RowPacker,
  shapeRecord,
  unpackState,
  unpad,
  weightHeads,
} from "./webgpu_layout.ts";

/** Workgroup memory of causal.wgsl; the other passes fit in the 16 KiB that every device has. */
const CAUSAL_STORAGE = 23_296;

/** Key heads worked on together, the query heads that read them, and their running state on the device. */
interface Round {
  readonly kv0: number;
  readonly kv1: number;
  readonly h0: number;
  readonly h1: number;
  readonly running: GPUBuffer;
}

/** One call's upload buffers and read-back. Members that a kind of call does not need are absent. */
interface Slot {
  readonly calls: GPUBuffer;
  readonly inputs: { readonly q?: GPUBuffer; readonly k?: GPUBuffer; readonly v?: GPUBuffer; readonly w?: GPUBuffer };
  readonly output?: { readonly rows: GPUBuffer; readonly denominators: GPUBuffer; readonly staging: GPUBuffer };
  /** One state per round. */
  readonly states: readonly GPUBuffer[];
  /** Bind groups per pass and round. */
  readonly groups: Readonly<Record<string, readonly GPUBindGroup[]>>;
}

export interface Pipelines {
  readonly keys: GPUComputePipeline;
  readonly merge: GPUComputePipeline;
  readonly queries: GPUComputePipeline;
  readonly scan?: GPUComputePipeline;
  readonly causal?: GPUComputePipeline;
}

export class WebgpuTiles implements TileKernels {
  readonly #layout: Layout;
  readonly #buffers: BufferSet;
  readonly #rounds: readonly Round[];
  /** Rows that one call can take. */
  readonly #capacity: number;
  /** Ranges that a call's keys may be cut into. */
  readonly #ranges: number;
  readonly #shape: GPUBuffer;
  readonly #projections: GPUBuffer;
  readonly #partials: GPUBuffer;
  readonly #merged: GPUBuffer;
  readonly #packer = new RowPacker();
  readonly #keySlots = new Ring(() => this.#keySlot());
  readonly #querySlots = new Ring(() => this.#querySlot());
  readonly #causalSlots = new Ring(() => this.#causalSlot());
  readonly #pending = new Set<Promise<unknown>>();
  /** The numbers that the running states on the device hold. */
  #uploaded: { readonly state: State; readonly version: number } | null = null;

  private constructor(readonly gpu: GpuDevice, readonly plan: Plan, readonly pipelines: Pipelines) {
    const layout = this.#layout = layoutOf(plan);
    const unit = layout.unit * 16;
    const cut = cutOf(plan, layout, gpu);
    this.#capacity = cut.capacity;
    this.#ranges = cut.ranges;
    const buffers = this.#buffers = new BufferSet(gpu);
    this.#shape = buffers.records(1);
    gpu.device.queue.writeBuffer(this.#shape, 0, shapeRecord(plan, layout));
    const projections = packProjections(plan, layout);
    this.#projections = buffers.input(projections.byteLength, "projections");
    gpu.device.queue.writeBuffer(this.#projections, 0, projections as Float32Array<ArrayBuffer>);
    this.#partials = buffers.work(cut.partials * cut.heads * unit, "partial states");
    this.#merged = buffers.work(cut.heads * unit, "the merged state");
    this.#rounds = cut.rounds.map((round) => {
      const running = buffers.input((round.kv1 - round.kv0) * unit, "the running state");
      return { ...round, running };
    });
  }

  static async open(gpu: GpuDevice, plan: Plan): Promise<WebgpuTiles> {
    const { maxComputeWorkgroupStorageSize: has } = gpu.device.limits;
    if (plan.causal && has < CAUSAL_STORAGE) {
      const needed = `causal attention needs ${CAUSAL_STORAGE} bytes of workgroup memory`;
      throw new UnsupportedError("webgpu", `${needed}, the device has ${has}`);
    }
    const constants = constantsOf(plan);
    const [keys, merge, queries, scan, causal] = await Promise.all([
      gpu.pipeline("keys", constants),
      gpu.pipeline("merge"),
      gpu.pipeline("queries", constants),
      plan.causal ? gpu.pipeline("scan") : undefined,
      plan.causal ? gpu.pipeline("causal", constants) : undefined,
    ]);
    return new WebgpuTiles(gpu, plan, { keys, merge, queries, scan, causal });
  }

  keys(k: Tile, v: Tile, weights?: FloatArray): Promise<State> {
    if (k.rows <= this.#capacity) return this.#track(this.#keys({ k, v, weights }));
    const slices = this.#slices(k.rows);
    const parts = slices.map(([from, to]) => this.#track(this.#keys(ownRowsOf({ k, v, weights }, from, to))));
    return Promise.all(parts).then((states) => {
      slices.forEach(([from, to], i) => i > 0 && mergeLater(states[0], states[i], this.plan.decay, to - from));
      return states[0];
    });
  }

  queries(q: Tile, state: State, version: number): Promise<TileOutput> {
    this.#upload(state, version);
    if (q.rows <= this.#capacity) return this.#track(this.#queries(q));
    return Promise.all(this.#slices(q.rows).map(([from, to]) => this.#track(this.#queries(rowsOf(q, from, to)))))
      .then(concatenate);
  }

  causal(q: Tile, own: OwnRows, state: State, version: number): Promise<TileOutput & { readonly own: State }> {
    if (q.rows <= this.#capacity) {
      this.#upload(state, version);
      return this.#track(this.#causal(q, own));
    }
    return this.#track(this.#causalSlices(q, own, copyState(state)));
  }

  /** Slices depend on each other through the state; q and own stay valid until a causal call settles. */
  async #causalSlices(q: Tile, own: OwnRows, running: State): Promise<TileOutput & { readonly own: State }> {
    const total = emptyState(running.heads, running.features, running.valueDim);
    const { decay } = this.plan;
    const outputs: TileOutput[] = [];
    for (const [from, to] of this.#slices(q.rows)) {
      if (decay) decayState(running, decay, to - from);
      this.#upload(running, NaN);
      const output = await this.#causal(rowsOf(q, from, to), ownRowsOf(own, from, to));
      outputs.push(output);
      mergeLater(total, output.own, decay, to - from);
      mergeInto(running, output.own);
    }
    return { ...concatenate(outputs), own: total };
  }

  #slices(rows: number): [number, number][] {
    const slices: [number, number][] = [];
    for (let from = 0; from < rows; from += this.#capacity) slices.push([from, Math.min(rows, from + this.#capacity)]);
    return slices;
  }

  #track<T>(call: Promise<T>): Promise<T> {
    this.#pending.add(call);
    const done = () => void this.#pending.delete(call);
    call.then(done, done);
    return call;
  }

  #upload(state: State, version: number): void {
    if (this.#uploaded?.state === state && this.#uploaded.version === version) return;
    for (const { kv0, kv1, running } of this.#rounds) {
      this.#write(running, this.#packer.state(state, this.#layout, this.plan, kv0, kv1));
    }
    this.#uploaded = { state, version };
  }

  #write(buffer: GPUBuffer, floats: Float32Array): void {
    this.gpu.device.queue.writeBuffer(buffer, 0, floats as Float32Array<ArrayBuffer>);
  }

  #writeKeys({ inputs }: Slot, { k, v, weights }: OwnRows): number {
    const { kvHeads, headDim, valueDim } = this.plan;
    this.#write(inputs.k!, this.#packer.rows(k, kvHeads, headDim));
    this.#write(inputs.v!, this.#packer.rows(v, kvHeads, valueDim));
    this.#write(inputs.w!, this.#packer.logWeights(k.rows, weights, this.plan));
    return visibleKeys(k.rows, weights);
  }

  #call(slot: Slot, index: number, numbers: number[]): void {
    this.gpu.device.queue.writeBuffer(slot.calls, index * 256, new Uint32Array(numbers));
  }

  async #keys(own: OwnRows): Promise<State> {
    const { k } = own;
    const { plan, pipelines } = this;
    const { featureBlocks, valueBlocks, unit } = this.#layout;
    const slot = this.#keySlots.take();
    const keys = this.#writeKeys(slot, own);
    const { ranges, share } = keyRanges(k.rows, this.#ranges);
    const encoder = this.gpu.device.createCommandEncoder();
    this.#rounds.forEach(({ kv0, kv1 }, i) => {
      this.#call(slot, 2 * i, [k.rows, share, plan.kvHeads, kv0]);
      this.#call(slot, 2 * i + 1, [ranges]);
      const pass = encoder.beginComputePass();
      dispatch(pass, pipelines.keys, slot.groups.keys[i], ranges, kv1 - kv0, featureBlocks * valueBlocks);
      if (ranges > 1) dispatch(pass, pipelines.merge, slot.groups.merge[i], this.#stateGroups(), kv1 - kv0);
      pass.end();
      const state = ranges > 1 ? this.#merged : this.#partials;
      encoder.copyBufferToBuffer(state, 0, slot.states[i], 0, (kv1 - kv0) * unit * 16);
    });
    this.gpu.device.queue.submit([encoder.finish()]);
    const state = await this.#readState(slot);
    state.keys = keys;
    this.#keySlots.give(slot);
    return state;
  }

  async #queries(q: Tile): Promise<TileOutput> {
    const { plan } = this;
    const slot = this.#querySlots.take();
    this.#write(slot.inputs.q!, this.#packer.rows(q, plan.heads, plan.headDim));
    const encoder = this.gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    this.#rounds.forEach(({ kv0, h0, h1 }, i) => {
      this.#call(slot, i, [q.rows, plan.heads, plan.kvHeads, h0, kv0]);
      const blocks = Math.ceil(q.rows / CHUNK);
      if (h1 > h0) {
        dispatch(pass, this.pipelines.queries, slot.groups.queries[i], blocks, h1 - h0, this.#layout.valueBlocks);
      }
    });
    pass.end();
    this.#copyOutput(encoder, slot, q.rows);
    this.gpu.device.queue.submit([encoder.finish()]);
    const output = await this.#readOutput(slot, q.rows);
    this.#querySlots.give(slot);
    return output;
  }

  async #causal(q: Tile, own: OwnRows): Promise<TileOutput & { readonly own: State }> {
    const { plan, pipelines } = this;
    const { featureBlocks, valueBlocks, unit } = this.#layout;
    const slot = this.#causalSlots.take();
    this.#write(slot.inputs.q!, this.#packer.rows(q, plan.heads, plan.headDim));
    const keys = this.#writeKeys(slot, own);
    const chunks = Math.ceil(q.rows / CHUNK);
    const encoder = this.gpu.device.createCommandEncoder();
    this.#rounds.forEach(({ kv0, kv1, h0, h1 }, i) => {
      this.#call(slot, 3 * i, [q.rows, CHUNK, plan.kvHeads, kv0]);
      this.#call(slot, 3 * i + 1, [chunks]);
      this.#call(slot, 3 * i + 2, [q.rows, plan.heads, plan.kvHeads, h0, kv0, kv1 - kv0]);
      const pass = encoder.beginComputePass();
      dispatch(pass, pipelines.keys, slot.groups.keys[i], chunks, kv1 - kv0, featureBlocks * valueBlocks);
      dispatch(pass, pipelines.scan!, slot.groups.scan[i], this.#stateGroups(), kv1 - kv0);
      if (h1 > h0) dispatch(pass, pipelines.causal!, slot.groups.causal[i], chunks, h1 - h0, valueBlocks);
      pass.end();
      encoder.copyBufferToBuffer(this.#merged, 0, slot.states[i], 0, (kv1 - kv0) * unit * 16);
    });
    this.#copyOutput(encoder, slot, q.rows);
    this.gpu.device.queue.submit([encoder.finish()]);
    const [output, state] = await Promise.all([this.#readOutput(slot, q.rows), this.#readState(slot)]);
    state.keys = keys;
    this.#causalSlots.give(slot);
    return { ...output, own: state };
  }

  /** Workgroups of merge.wgsl and scan.wgsl per head. */
  #stateGroups(): number {
    return Math.ceil(4 * this.#layout.r4 * this.#layout.v4 / 256);
  }

  #copyOutput(encoder: GPUCommandEncoder, { output }: Slot, rows: number): void {
    const [bytes, tail] = this.#outputBytes(rows);
    encoder.copyBufferToBuffer(output!.rows, 0, output!.staging, 0, bytes);
    encoder.copyBufferToBuffer(output!.denominators, 0, output!.staging, bytes, tail);
  }

  #outputBytes(rows: number): [number, number] {
    return [rows * this.plan.heads * this.#layout.v4 * 16, rows * this.plan.heads * 4];
  }

  #readOutput({ output }: Slot, rows: number): Promise<TileOutput> {
    const [bytes, tail] = this.#outputBytes(rows);
    const cells = rows * this.plan.heads;
    return this.gpu.read(output!.staging, bytes + tail, (floats) => ({
      out: unpad(floats, cells, this.plan.valueDim),
      denominators: floats.slice(bytes / 4, bytes / 4 + cells),
    }));
  }

  async #readState(slot: Slot): Promise<State> {
    const { plan } = this;
    const state = emptyState(plan.kvHeads, plan.parameters.features, plan.valueDim);
    await Promise.all(
      this.#rounds.map(({ kv0, kv1 }, i) =>
        this.gpu.read(slot.states[i], (kv1 - kv0) * this.#layout.unit * 16, (floats) => {
          unpackState(floats, this.#layout, plan, state, kv0, kv1);
        })
      ),
    );
    return state;
  }

  #keyInputs(): { k: GPUBuffer; v: GPUBuffer; w: GPUBuffer } {
    const rows = this.#capacity * this.plan.kvHeads * 16;
    return {
      k: this.#buffers.input(rows * this.#layout.d4, "keys"),
      v: this.#buffers.input(rows * this.#layout.v4, "values"),
      w: this.#buffers.input(this.#capacity * weightHeads(this.plan) * 4, "weights"),
    };
  }

  #stateStaging(): GPUBuffer[] {
    return this.#rounds.map(({ kv0, kv1 }) => this.#buffers.staging((kv1 - kv0) * this.#layout.unit * 16, "a state"));
  }

  #outputBuffers(): NonNullable<Slot["output"]> {
    const [bytes, tail] = this.#outputBytes(this.#capacity);
    return {
      rows: this.#buffers.work(bytes, "outputs"),
      denominators: this.#buffers.work(tail, "denominators"),
      staging: this.#buffers.staging(bytes + tail, "outputs"),
    };
  }

  #queryInput(): GPUBuffer {
    return this.#buffers.input(this.#capacity * this.plan.heads * this.#layout.d4 * 16, "queries");
  }

  #keySlot(): Slot {
    const inputs = this.#keyInputs();
    const calls = this.#buffers.records(2 * this.#rounds.length);
    const { gpu, pipelines } = this;
    const keyBuffers = [inputs.k, inputs.v, inputs.w, this.#projections, this.#partials];
    const groups = {
      keys: this.#rounds.map((_, i) => gpu.bind(pipelines.keys, this.#shape, calls, 2 * i, keyBuffers)),
      merge: this.#rounds.map((_, i) =>
        gpu.bind(pipelines.merge, this.#shape, calls, 2 * i + 1, [this.#partials, this.#merged])
      ),
    };
    return { calls, inputs, states: this.#stateStaging(), groups };
  }

  #querySlot(): Slot {
    const q = this.#queryInput();
    const calls = this.#buffers.records(this.#rounds.length);
    const output = this.#outputBuffers();
    const groups = {
      queries: this.#rounds.map(({ running }, i) =>
        this.gpu.bind(this.pipelines.queries, this.#shape, calls, i, [
          q,
          this.#projections,
          running,
          output.rows,
          output.denominators,
        ])
      ),
    };
    return { calls, inputs: { q }, output, states: [], groups };
  }

  #causalSlot(): Slot {
    const q = this.#queryInput();
    const { k, v, w } = this.#keyInputs();
    const calls = this.#buffers.records(3 * this.#rounds.length);
    const output = this.#outputBuffers();
    const { gpu, pipelines } = this;
    const partials = this.#partials;
    const keyBuffers = [k, v, w, this.#projections, partials];
    const causalBuffers = [q, ...keyBuffers, output.rows, output.denominators];
    const groups = {
      keys: this.#rounds.map((_, i) => gpu.bind(pipelines.keys, this.#shape, calls, 3 * i, keyBuffers)),
      scan: this.#rounds.map(({ running }, i) =>
        gpu.bind(pipelines.scan!, this.#shape, calls, 3 * i + 1, [running, partials, this.#merged])
      ),
      causal: this.#rounds.map((_, i) => gpu.bind(pipelines.causal!, this.#shape, calls, 3 * i + 2, causalBuffers)),
    };
    return { calls, inputs: { q, k, v, w }, output, states: this.#stateStaging(), groups };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#pending);
    this.#buffers.destroy();
  }
}

/** One kernel of a pass. */
export function dispatch(
  pass: GPUComputePassEncoder,
  pipeline: GPUComputePipeline,
  group: GPUBindGroup,
  x: number,
  y = 1,
  z = 1,
): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(x, y, z);
}
