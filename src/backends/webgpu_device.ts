/**
 * One WebGPU device: buffers, pipelines and read-back with errors that a caller can act on.
 *
 * WebGPU reports errors late and elsewhere. They are kept here and thrown by the next read-back: loss of the device and lack of
 * memory as TransientError, anything else as a plain Error, since it is a bug.
 */
import { TransientError, UnsupportedError } from "../errors.ts";
import { describe, isSoftware } from "./webgpu_adapter.ts";
import { entryOf, kernelText, type Pass } from "./webgpu_kernels.ts";

/** Usage bits of the specification; the globals of that name exist only after Dawn is loaded. */
export const USAGE = { mapRead: 1, copySrc: 4, copyDst: 8, uniform: 64, storage: 128 } as const;

/** Limits that are raised to what the adapter has. */
const WANTED = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

const WORKGROUP = 256;

export type Constants = Readonly<Record<string, number>>;

export function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0)} MiB`;
}

export class GpuDevice {
  /** Adapter runs on the CPU: little parallel work, small tiles. */
  readonly software: boolean;
  readonly description: string;
  /** Largest single buffer that a kernel can be given. */
  readonly maxBytes: number;
  readonly #subgroups: boolean;
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  #failure: Error | null = null;
  #disposed = false;
  /** Settles when the outcome of every allocation so far is known. */
  #allocations: Promise<void> = Promise.resolve();

  private constructor(readonly device: GPUDevice, info: GPUAdapterInfo, maxBytes = Infinity) {
    this.software = isSoftware(info);
    this.description = describe(info);
    const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
    this.maxBytes = Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize, maxBytes) / 256) * 256;
    this.#subgroups = device.features.has("subgroups" as GPUFeatureName);
    device.lost.then((lost) => {
      if (!this.#disposed) {
        const why = lost.message || lost.reason;
        this.#fail(new TransientError(`The graphics device was lost, try again: ${why}`, { retry: "again" }));
      }
    });
    device.addEventListener("uncapturederror", (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      event.preventDefault(); // it would be printed
      this.#fail(new Error(`WebGPU rejected a command: ${error.message}`));
    });
  }

  /** Throws UnsupportedError when the adapter is too small or gives no device. Options make it smaller than it is. */
  static async open(
    adapter: GPUAdapter,
    options: { readonly subgroups?: boolean; readonly maxBytes?: number } = {},
  ): Promise<GpuDevice> {
    if (adapter.limits.maxComputeInvocationsPerWorkgroup < WORKGROUP) {
      const has = adapter.limits.maxComputeInvocationsPerWorkgroup;
      throw new UnsupportedError("webgpu", `the adapter has ${has} invocations per workgroup, ${WORKGROUP} are needed`);
    }
    const requiredLimits = Object.fromEntries(WANTED.map((name) => [name, adapter.limits[name]]));
    const features = (options.subgroups === false ? [] : ["subgroups"]) as GPUFeatureName[];
    try {
      const device = await adapter.requestDevice({
        requiredLimits,
        requiredFeatures: features.filter((feature) => adapter.features.has(feature)),
      });
      return new GpuDevice(device, adapter.info, options.maxBytes);
    } catch (error) {
      throw new UnsupportedError("webgpu", `the adapter gives no device: ${(error as Error).message}`);
    }
  }

  #fail(error: Error): void {
    // The first failure explains the others; but losing the device or its memory explains any rejected command.
    if (!this.#failure || (error instanceof TransientError && !(this.#failure instanceof TransientError))) {
      this.#failure = error;
    }
  }

  /** Whether every call fails from now on. */
  get failed(): boolean {
    return this.#failure !== null;
  }

  /** Throws what has gone wrong so far. */
  check(): void {
    if (this.#failure) throw this.#failure;
  }

  /** A buffer whose failure to fit is thrown by the next `read`. */
  buffer(size: number, usage: number, what: string): GPUBuffer {
    if (size > this.device.limits.maxBufferSize) {
      throw new TransientError(
        `Cannot allocate ${mebibytes(size)} for ${what}: the device's limit is ` +
          `${mebibytes(this.device.limits.maxBufferSize)}; use a smaller --tile`,
        { retry: "smaller" },
      );
    }
    this.device.pushErrorScope("out-of-memory");
    const buffer = this.device.createBuffer({ size: Math.max(16, Math.ceil(size / 16) * 16), usage, label: what });
    const outcome = this.device.popErrorScope();
    this.#allocations = this.#allocations.then(async () => {
      try {
        if ((await outcome) === null) return;
      } catch {
        return; // the device is gone, which is reported as such
      }
      const text = `Not enough device memory: ${mebibytes(size)} for ${what}; use a smaller --tile`;
      this.#fail(new TransientError(text, { retry: "smaller" }));
    });
    return buffer;
  }

  /** Compiles a pass, once per set of constants. */
  pipeline(pass: Pass, constants: Constants = {}): Promise<GPUComputePipeline> {
    const key = JSON.stringify([pass, constants]);
    let pipeline = this.#pipelines.get(key);
    if (!pipeline) this.#pipelines.set(key, pipeline = this.#compile(pass, constants));
    return pipeline;
  }

  async #compile(pass: Pass, constants: Constants): Promise<GPUComputePipeline> {
    const entryPoint = entryOf(pass);
    const code = kernelText(pass, this.#subgroups);
    this.check();
    this.device.pushErrorScope("validation");
    const module = this.device.createShaderModule({ code, label: entryPoint });
    const pipeline = this.device.createComputePipelineAsync({
      layout: "auto",
      label: entryPoint,
      compute: { module, entryPoint, constants },
    });
    pipeline.catch(() => {});
    const rejected = await this.device.popErrorScope();
    if (rejected) throw new Error(`Cannot compile kernel "${entryPoint}": ${rejected.message}`);
    try {
      return await pipeline;
    } catch (error) {
      await this.#settle();
      throw new Error(`Cannot compile kernel "${entryPoint}": ${(error as Error).message}`);
    }
  }

  /** Binds call record `index` (binding 0), `buffers` (1, 2, …) and the `Shape` record (9). */
  bind(
    pipeline: GPUComputePipeline,
    shape: GPUBuffer,
    calls: GPUBuffer,
    index: number,
    buffers: readonly GPUBuffer[],
  ): GPUBindGroup {
    const numbered = Object.fromEntries(buffers.map((buffer, i) => [i + 1, buffer]));
    return this.bindAt(pipeline, calls, index, { ...numbered, 9: shape });
  }

  /** Binds call record `index` (binding 0) and buffers by their numbers: exactly those that the pass reads or writes. */
  bindAt(
    pipeline: GPUComputePipeline,
    calls: GPUBuffer,
    index: number,
    buffers: Readonly<Record<number, GPUBuffer>>,
  ): GPUBindGroup {
    return this.device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [
        { binding: 0, resource: { buffer: calls, offset: index * 256, size: 64 } },
        ...Object.entries(buffers).map(([binding, buffer]) => ({ binding: Number(binding), resource: { buffer } })),
      ],
    });
  }

  /** Waits for a staging buffer, shows its floats to `use` and unmaps it. */
  async read<T>(staging: GPUBuffer, bytes: number, use: (floats: Float32Array) => T): Promise<T> {
    try {
      const mapped = staging.mapAsync(USAGE.mapRead, 0, bytes);
      mapped.catch(() => {});
      await this.#allocations;
      this.check();
      await mapped;
    } catch (error) {
      await this.#settle();
      throw error;
    }
    this.check();
    try {
      return use(new Float32Array(staging.getMappedRange(0, bytes)));
    } finally {
      staging.unmap();
    }
  }

  /** Gives a loss or an error that is under way time to be known, then throws it. */
  async #settle(): Promise<void> {
    await this.#allocations;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const patience = new Promise<void>((resolve) => timer = setTimeout(resolve, 100));
    await Promise.race([this.device.lost.then(() => {}), patience]);
    clearTimeout(timer);
    this.check();
  }

  dispose(): void {
    this.#disposed = true;
    this.device.destroy();
  }
}

/** The buffers of one session: allocated through it, freed together. */
export class BufferSet {
  readonly #buffers: GPUBuffer[] = [];

  constructor(readonly gpu: GpuDevice) {}

  /** Written from the host, read by kernels. */
  input(size: number, what: string): GPUBuffer {
    return this.#make(size, USAGE.storage | USAGE.copyDst, what);
  }

  /** Written by kernels, copied from. */
  work(size: number, what: string): GPUBuffer {
    return this.#make(size, USAGE.storage | USAGE.copySrc | USAGE.copyDst, what);
  }

  /** Read on the host. */
  staging(size: number, what: string): GPUBuffer {
    return this.#make(size, USAGE.mapRead | USAGE.copyDst, what);
  }

  /** `count` uniform records. */
  records(count: number): GPUBuffer {
    return this.#make(count * 256, USAGE.uniform | USAGE.copyDst, "records");
  }

  /** Frees one buffer early: what is queued still has it. */
  free(buffer: GPUBuffer): void {
    this.#buffers.splice(this.#buffers.indexOf(buffer), 1);
    buffer.destroy();
  }

  #make(size: number, usage: number, what: string): GPUBuffer {
    const buffer = this.gpu.buffer(size, usage, what);
    this.#buffers.push(buffer);
    return buffer;
  }

  destroy(): void {
    for (const buffer of this.#buffers.splice(0)) buffer.destroy();
  }
}

/** A buffer that is replaced by a larger one when a call needs it; what it held is lost then. */
export class Growing {
  #buffer: GPUBuffer | null = null;

  constructor(readonly set: BufferSet, readonly kind: "input" | "work" | "staging", readonly what: string) {}

  /** At least `size` bytes. */
  ensure(size: number): GPUBuffer {
    if (this.#buffer && this.#buffer.size >= size) return this.#buffer;
    if (this.#buffer) this.set.free(this.#buffer);
    return this.#buffer = this.set[this.kind](size, this.what);
  }
}

/** Buffer sets that go round: taken by a call, given back when its results are read. Grows to the calls in flight. */
export class Ring<T> {
  readonly #free: T[] = [];

  constructor(readonly make: () => T) {}

  take(): T {
    return this.#free.pop() ?? this.make();
  }

  give(item: T): void {
    this.#free.push(item);
  }
}
