/** Dense layers on WebGPU (kernels/wgsl/dense.wgsl): W stays on the device, in as many buffers as it takes. */
import type { Linear } from "../backend.ts";
import { UnsupportedError } from "../errors.ts";
import { ACTIVATIONS } from "../feature_map.ts";
import { checkLinear, checkRows, type LinearPlan, outputWidth, ungrouped } from "../plan.ts";
import { type FloatArray, rowsOf, type Tile } from "../tensor.ts";
import { CHUNK } from "./webgpu_cut.ts";
import { BufferSet, type GpuDevice, mebibytes, Ring } from "./webgpu_device.ts";
import { RowPacker, vec4s } from "./webgpu_layout.ts";
import { dispatch } from "./webgpu_tiled.ts";

/** Rows of W that a workgroup takes. */
const SLOTS = 32;
/** Largest dispatch in one dimension that every device takes. */
const DISPATCH = 65535;

/** A part of W that one buffer holds. */
interface Round {
  /** Its first output number, and its blocks of SLOTS. */
  readonly first: number;
  readonly blocks: number;
  readonly weights: GPUBuffer;
  readonly biases: GPUBuffer;
}

interface Slot {
  readonly calls: GPUBuffer;
  readonly x: GPUBuffer;
  readonly out: GPUBuffer;
  readonly staging: GPUBuffer;
  readonly groups: readonly GPUBindGroup[];
}

export class WebgpuDense implements Linear {
  readonly #d4: number;
  readonly #width: number;
  /** Rows that one call can take. */
  readonly #capacity: number;
  readonly #buffers: BufferSet;
  readonly #shape: GPUBuffer;
  readonly #rounds: readonly Round[];
  readonly #slots = new Ring<Slot>(() => this.#slot());
  readonly #packer = new RowPacker();
  readonly #pending = new Set<Promise<unknown>>();

  private constructor(readonly gpu: GpuDevice, readonly plan: LinearPlan, readonly pipeline: GPUComputePipeline) {
    this.#d4 = vec4s(plan.inputs);
    this.#width = outputWidth(plan);
    const widest = Math.max(16 * this.#d4, 4 * this.#width);
    const fit = Math.min(Math.floor(gpu.maxBytes / widest), DISPATCH * CHUNK);
    const blockBytes = SLOTS * this.#d4 * 16;
    const most = Math.min(DISPATCH, Math.floor(gpu.maxBytes / blockBytes));
    if (fit < 1 || most < 1) {
      const needed = mebibytes(Math.max(widest, blockBytes));
      const layer = `a layer of ${plan.outputs} × ${plan.inputs} needs ${needed} in one buffer`;
      throw new UnsupportedError("webgpu", `${layer}, the device takes ${mebibytes(gpu.maxBytes)}`);
    }
    this.#capacity = Math.max(1, Math.min(plan.tileRows, fit));
    this.#buffers = new BufferSet(gpu);
    this.#shape = this.#buffers.records(1);
    const shape = new Uint32Array(12);
    shape[0] = this.#d4;
    shape[11] = ACTIVATIONS.indexOf(activationOf(plan));
    gpu.device.queue.writeBuffer(this.#shape, 0, shape);
    const rounds: Round[] = [];
    const blocks = Math.ceil(this.#width / this.#each);
    for (let block = 0; block < blocks; block += most) rounds.push(this.#round(block, Math.min(most, blocks - block)));
    this.#rounds = rounds;
  }

  static async open(gpu: GpuDevice, plan: LinearPlan): Promise<WebgpuDense> {
    checkLinear(plan);
    return new WebgpuDense(gpu, ungrouped(plan), await gpu.pipeline("dense"));
  }

  get #gated(): boolean {
    return this.plan.activation === "gelu-glu";
  }

  /** Output numbers of a block. */
  get #each(): number {
    return this.#gated ? SLOTS / 2 : SLOTS;
  }

  /** Uploads blocks of W and b, rows of whole vec4s; rows that no output has are 0. */
  #round(block: number, blocks: number): Round {
    const { inputs, weight, bias } = this.plan;
    const weights = new Float32Array(blocks * SLOTS * this.#d4 * 4);
    const biases = new Float32Array(blocks * SLOTS);
    const put = (output: number, slot: number) => {
      weights.set(weight.subarray(output * inputs, (output + 1) * inputs), slot * this.#d4 * 4);
      if (bias) biases[slot] = bias[output];
    };
    const first = block * this.#each;
    for (let i = 0; i < blocks * this.#each && first + i < this.#width; i++) {
      const slot = Math.floor(i / this.#each) * SLOTS + i % this.#each;
      put(first + i, slot);
      if (this.#gated) put(this.#width + first + i, slot + SLOTS / 2);
    }
    return { first, blocks, weights: this.#upload(weights, "weights"), biases: this.#upload(biases, "biases") };
  }

  #upload(floats: Float32Array<ArrayBuffer>, what: string): GPUBuffer {
    const buffer = this.#buffers.input(floats.byteLength, what);
    this.gpu.device.queue.writeBuffer(buffer, 0, floats);
    return buffer;
  }

  async run(x: Tile, into?: FloatArray): Promise<Tile> {
    checkRows(this.plan, x);
    const data = into?.subarray(0, x.rows * this.#width) ?? new Float32Array(x.rows * this.#width);
    const slices: Promise<void>[] = [];
    for (let from = 0; from < x.rows; from += this.#capacity) {
      const to = Math.min(x.rows, from + this.#capacity);
      slices.push(this.#slice(rowsOf(x, from, to), data.subarray(from * this.#width, to * this.#width)));
    }
    const all = Promise.all(slices);
    this.#pending.add(all);
    try {
      await all;
    } finally {
      this.#pending.delete(all);
    }
    return { start: x.start, rows: x.rows, cols: this.#width, data };
  }

  async #slice(x: Tile, data: FloatArray): Promise<void> {
    const { device } = this.gpu;
    const slot = this.#slots.take();
    device.queue.writeBuffer(slot.x, 0, this.#packer.rows(x, 1, this.plan.inputs) as Float32Array<ArrayBuffer>);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    this.#rounds.forEach(({ first, blocks }, i) => {
      const call = Uint32Array.of(x.rows, this.#width, first, this.#gated ? 1 : 0);
      device.queue.writeBuffer(slot.calls, i * 256, call);
      dispatch(pass, this.pipeline, slot.groups[i], Math.ceil(x.rows / CHUNK), blocks);
    });
    pass.end();
    encoder.copyBufferToBuffer(slot.out, 0, slot.staging, 0, data.length * 4);
    device.queue.submit([encoder.finish()]);
    await this.gpu.read(slot.staging, data.length * 4, (floats) => data.set(floats));
    this.#slots.give(slot);
  }

  #slot(): Slot {
    const buffers = this.#buffers;
    const x = buffers.input(this.#capacity * this.#d4 * 16, "inputs");
    const out = buffers.work(this.#capacity * this.#width * 4, "outputs");
    const staging = buffers.staging(this.#capacity * this.#width * 4, "outputs");
    const calls = buffers.records(this.#rounds.length);
    const groups = this.#rounds.map(({ weights, biases }, i) => {
      return this.gpu.bind(this.pipeline, this.#shape, calls, i, [x, weights, biases, out]);
    });
    return { calls, x, out, staging, groups };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#pending);
    this.#buffers.destroy();
  }
}

/** The pointwise map that a layer's activation is (of a gated layer, its gate's). */
function activationOf({ activation }: LinearPlan): typeof ACTIVATIONS[number] {
  return activation === "none" ? "identity" : activation === "gelu-glu" ? "gelu" : activation;
}
