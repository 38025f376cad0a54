/** Backend `gpujs`: float32 kernels compiled by gpu.js, to WebAssembly with vectors or to plain JavaScript; runs everywhere. */
import type { Backend, Driver, ExactSession, OpenOptions, Session } from "../backend.ts";
import { UnsupportedError, UsageError } from "../errors.ts";
import type { ExactPlan, Limits, Plan } from "../plan.ts";
import { GpuJsExactKernels } from "./gpujs_exact.ts";
import { type GpuJsMode, Kernels, loadGpuJs } from "./gpujs_kernels.ts";
import { GpuJsTileKernels } from "./gpujs_linear.ts";
import { OnlineExactSession } from "./online.ts";
import { TiledSession } from "./tiled.ts";

/** Modes by name, with the reason why one is refused. `webasm` runs on one thread: see "workers" below. */
const MODES: Readonly<Record<string, string | null>> = {
  webasm: null,
  cpu: null,
  webgpu: "gpu.js reads every WebGPU result back before the next kernel starts; use --backend webgpu instead",
  headlessgl: 'its addon "gl" does not load on Bun or Deno; use gpujs:webasm or gpujs:cpu',
};

type GpuJsModule = NonNullable<Awaited<ReturnType<typeof loadGpuJs>>>;

class GpuJsBackend implements Backend {
  readonly name = "gpujs";
  readonly device: string;
  readonly limits: Limits = { precision: "f32", preferredTileRows: 1024, maxTileBytes: 16 << 20, inFlight: 1 };

  constructor(readonly module: GpuJsModule, readonly mode: GpuJsMode) {
    this.device = `gpu.js ${mode} (synchronous)`;
  }

  async prepare(plan: Plan): Promise<Session> {
    return new TiledSession(plan, new GpuJsTileKernels(plan, new Kernels(this.module, this.mode)));
  }

  async prepareExact(plan: ExactPlan): Promise<ExactSession> {
    return new OnlineExactSession(plan, new GpuJsExactKernels(plan, new Kernels(this.module, this.mode)));
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

async function open({ variant }: OpenOptions): Promise<Backend> {
  if (variant !== undefined && !(variant in MODES)) {
    throw new UsageError(`Unknown gpu.js mode "${variant}", expected one of ${Object.keys(MODES).join(", ")}`);
  }
  const name = variant ? `gpujs:${variant}` : "gpujs";
  const refused = variant && MODES[variant];
  if (refused) throw new UnsupportedError(name, refused);
  const module = await loadGpuJs();
  if (!module) throw new UnsupportedError(name, 'the package "gpu.js" is not installed; run npm ci');
  const reasons: string[] = [];
  for (const mode of variant ? [variant as GpuJsMode] : ["webasm", "cpu"] as const) {
    try {
      await probe(module, mode);
      return new GpuJsBackend(module, mode);
    } catch (error) {
      reasons.push(`${mode}: ${(error as Error).message}`);
    }
  }
  throw new UnsupportedError(name, reasons.join("; "));
}

/** Multiplies two small matrices; throws when the mode does not compile here or computes something else. */
async function probe(module: GpuJsModule, mode: GpuJsMode): Promise<void> {
  await using kernels = new Kernels(module, mode);
  const product = kernels.product({ chunks: 1, quads: 1, width: 4 }, 4);
  const a = Float32Array.from({ length: 16 }, (_, at) => at); // row c, column l at 4l + c
  const identity = Float32Array.from({ length: 16 }, (_, at) => (at % 5 === 0 ? 1 : 0));
  const result = product(a, identity);
  if (!a.every((value, at) => value === result[at])) throw new Error("a product of two 4 × 4 matrices came out wrong");
}

export const gpujs: Driver = {
  name: "gpujs",
  summary: "float32 kernels compiled by gpu.js to WebAssembly or JavaScript",
  open,
};
