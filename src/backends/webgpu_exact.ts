/** Exact softmax on WebGPU: held query rows, keys stream by (kernels/wgsl/exact.wgsl). */
import { UnsupportedError } from "../errors.ts";
import type { ExactPlan } from "../plan.ts";
import { type FloatArray, rowsOf, type Tile } from "../tensor.ts";
import type { ExactKernels, SoftmaxParts } from "./online.ts";
import { busyWorkgroups, CHUNK, keyRanges } from "./webgpu_cut.ts";
import { BufferSet, type GpuDevice, mebibytes, Ring } from "./webgpu_device.ts";
import { RowPacker, vec4s, weightHeads, widestRow } from "./webgpu_layout.ts";
import { dispatch } from "./webgpu_tiled.ts";

const MAX_RANGES = 64;
/** Parts are kept below this where one range allows. */
const PARTS = 64 << 20;
/** Tiles after which the running float32 sums are handed to the host's float64. */
const FLUSH = 256;

interface Slot {
  readonly calls: GPUBuffer;
  readonly k: GPUBuffer;
  readonly v: GPUBuffer;
  readonly w: GPUBuffer;
  readonly visible: GPUBuffer;
  readonly group: GPUBindGroup;
}

export class WebgpuExact implements ExactKernels {
  readonly #d4: number;
  readonly #v4: number;
  readonly #valueBlocks: number;
  /** Key rows that one call can take, and ranges that a tile's keys are cut into. */
  readonly #capacity: number;
  readonly #ranges: number;
  readonly #buffers: BufferSet;
  readonly #shape: GPUBuffer;
  readonly #queries: GPUBuffer;
  readonly #parts: GPUBuffer;
  readonly #staging: Ring<GPUBuffer>;
  readonly #slots = new Ring<Slot>(() => this.#slot());
  readonly #packer = new RowPacker();
  readonly #pending = new Set<Promise<unknown>>();
  #rows = 0;
  #positions: Float64Array | null = null;
  #tiles = 0;

  private constructor(readonly gpu: GpuDevice, readonly plan: ExactPlan, readonly pipeline: GPUComputePipeline) {
    const d4 = this.#d4 = vec4s(plan.headDim);
    const v4 = this.#v4 = vec4s(plan.valueDim);
    this.#valueBlocks = Math.ceil(v4 / 16);
    const blocks = Math.max(1, Math.ceil(plan.queryRows / CHUNK));
    const parts = blocks * plan.heads * this.#unit * 16;
    const queries = plan.queryRows * plan.heads * d4 * 16;
    if (Math.max(parts, queries) > gpu.maxBytes) {
      throw new UnsupportedError(
        "webgpu",
        `${plan.queryRows} query rows need ${mebibytes(Math.max(parts, queries))} in one buffer, ` +
          `the device takes ${mebibytes(gpu.maxBytes)}; ask for fewer query rows`,
      );
    }
    this.#capacity = Math.max(1, Math.min(plan.tileRows, Math.floor(gpu.maxBytes / widestRow(plan))));
    const most = Math.min(
      MAX_RANGES,
      Math.ceil(busyWorkgroups(gpu) / (blocks * plan.heads * this.#valueBlocks)),
      Math.floor(Math.min(PARTS, gpu.maxBytes) / parts),
    );
    this.#ranges = keyRanges(this.#capacity, most).ranges;
    const buffers = this.#buffers = new BufferSet(gpu);
    this.#shape = buffers.records(1);
    gpu.device.queue.writeBuffer(this.#shape, 0, Uint32Array.of(d4, v4));
    this.#queries = buffers.input(queries, "queries");
    this.#parts = buffers.work(this.#ranges * parts, "partial rows");
    this.#staging = new Ring(() => buffers.staging(this.#ranges * parts, "partial rows"));
  }

  static async open(gpu: GpuDevice, plan: ExactPlan): Promise<WebgpuExact> {
    return new WebgpuExact(gpu, plan, await gpu.pipeline("exact", { WEIGHT_HEADS: weightHeads(plan) }));
  }

  /** Vec4s of one (range, head, block). */
  get #unit(): number {
    return this.#valueBlocks * 32 + CHUNK * this.#v4;
  }

  get #partBytes(): number {
    return this.#ranges * this.plan.heads * Math.ceil(this.#rows / CHUNK) * this.#unit * 16;
  }

  pose(q: Tile, positions: ArrayLike<number>): void {
    const { plan } = this;
    if (q.rows > plan.queryRows) {
      throw new RangeError(`Cannot hold ${q.rows} query rows, expected at most ${plan.queryRows}`);
    }
    this.#write(this.#queries, this.#packer.rows(q, plan.heads, plan.headDim));
    this.#rows = q.rows;
    this.#positions = plan.causal ? Float64Array.from(positions) : null;
    this.#clear();
  }

  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<SoftmaxParts | null> {
    if (this.#rows === 0 || k.rows === 0) return Promise.resolve(null);
    const slots: Slot[] = [];
    for (let from = 0; from < k.rows; from += this.#capacity) {
      const to = Math.min(k.rows, from + this.#capacity);
      slots.push(this.#add(rowsOf(k, from, to), rowsOf(v, from, to), weights?.subarray(from, to), k.rows - from));
    }
    const rest = ++this.#tiles >= FLUSH ? this.parts() : null;
    // The slot may be written again when the device is past this call.
    return this.#track((async () => {
      await this.gpu.device.queue.onSubmittedWorkDone().catch(() => {});
      for (const slot of slots) this.#slots.give(slot);
      this.gpu.check();
      return rest;
    })());
  }

  #add(k: Tile, v: Tile, weights: FloatArray | undefined, last: number): Slot {
    const { plan, gpu } = this;
    const slot = this.#slots.take();
    this.#write(slot.k, this.#packer.rows(k, plan.kvHeads, plan.headDim));
    this.#write(slot.v, this.#packer.rows(v, plan.kvHeads, plan.valueDim));
    this.#write(slot.w, this.#packer.logWeights(k.rows, weights, plan, last));
    if (this.#positions) {
      const visible = Uint32Array.from(this.#positions, (row) => Math.min(k.rows, Math.max(0, row - k.start + 1)));
      gpu.device.queue.writeBuffer(slot.visible, 0, visible);
    }
    const { ranges, share } = keyRanges(k.rows, this.#ranges);
    const call = new DataView(new ArrayBuffer(32));
    [this.#rows, plan.heads, plan.kvHeads, k.rows, share, plan.causal ? 1 : 0].forEach((n, i) =>
      call.setUint32(4 * i, n, true)
    );
    call.setFloat32(24, plan.scale, true);
    gpu.device.queue.writeBuffer(slot.calls, 0, call.buffer as ArrayBuffer);
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    dispatch(pass, this.pipeline, slot.group, Math.ceil(this.#rows / CHUNK), plan.heads, ranges * this.#valueBlocks);
    pass.end();
    gpu.device.queue.submit([encoder.finish()]);
    return slot;
  }

  parts(): Promise<SoftmaxParts | null> {
    if (this.#tiles === 0) return Promise.resolve(null);
    const staging = this.#staging.take();
    const encoder = this.gpu.device.createCommandEncoder();
    encoder.copyBufferToBuffer(this.#parts, 0, staging, 0, this.#partBytes);
    this.gpu.device.queue.submit([encoder.finish()]);
    const [rows, bytes] = [this.#rows, this.#partBytes];
    this.#clear();
    return this.#track((async () => {
      const parts = await this.gpu.read(staging, bytes, (floats) => this.#unpack(floats, rows));
      this.#staging.give(staging);
      return parts;
    })());
  }

  /** (range, head, block) units → `parts × rows × heads`. */
  #unpack(floats: Float32Array, rows: number): SoftmaxParts {
    const { heads, valueDim } = this.plan;
    const blocks = Math.ceil(rows / CHUNK);
    const cells = this.#ranges * rows * heads;
    const top = new Float32Array(cells);
    const total = new Float32Array(cells);
    const sums = new Float32Array(cells * valueDim);
    for (let range = 0; range < this.#ranges; range++) {
      for (let h = 0; h < heads; h++) {
        for (let row = 0; row < rows; row++) {
          const unit = ((range * heads + h) * blocks + Math.floor(row / CHUNK)) * this.#unit * 4;
          const cell = (range * rows + row) * heads + h;
          top[cell] = floats[unit + row % CHUNK];
          total[cell] = floats[unit + 64 + row % CHUNK];
          const from = unit + this.#valueBlocks * 128 + (row % CHUNK) * this.#v4 * 4;
          sums.set(floats.subarray(from, from + valueDim), cell * valueDim);
        }
      }
    }
    return { parts: this.#ranges, top, total, sums };
  }

  /** The device's sums start over. */
  #clear(): void {
    this.#tiles = 0;
    if (this.#rows === 0) return;
    const encoder = this.gpu.device.createCommandEncoder();
    encoder.clearBuffer(this.#parts, 0, this.#partBytes);
    this.gpu.device.queue.submit([encoder.finish()]);
  }

  #write(buffer: GPUBuffer, floats: Float32Array): void {
    this.gpu.device.queue.writeBuffer(buffer, 0, floats as Float32Array<ArrayBuffer>);
  }

  #track<T>(call: Promise<T>): Promise<T> {
    this.#pending.add(call);
    const done = () => void this.#pending.delete(call);
    call.then(done, done);
    return call;
  }

  #slot(): Slot {
    const { plan, gpu } = this;
    const rows = this.#capacity * plan.kvHeads * 16;
    const k = this.#buffers.input(rows * this.#d4, "keys");
    const v = this.#buffers.input(rows * this.#v4, "values");
    const w = this.#buffers.input(this.#capacity * weightHeads(plan) * 4, "weights");
    const visible = this.#buffers.input(plan.queryRows * 4, "positions");
    const calls = this.#buffers.records(1);
    const group = gpu.bind(this.pipeline, this.#shape, calls, 0, [this.#queries, k, v, w, visible, this.#parts]);
    return { calls, k, v, w, visible, group };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#pending);
    this.#buffers.destroy();
  }
}
