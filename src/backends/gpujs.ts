/**
 * Backend `gpujs`: float32 kernels compiled by gpu.js, to WebAssembly with vectors or to plain JavaScript; runs everywhere.
 *
 * Measured on one core of a 3.2 GHz Zen 3, heads 1 or 8, d = d_v = 64, r = 256, tiles of 1024 rows, in GFLOP/s (features,
 * [S z] and [num den]; exponentials take a quarter of the time and are not counted):
 *
 * | mode   | Bun 1.4.5          | Deno 2.9.6         |
 * |--------|--------------------|--------------------|
 * | webasm | 2.8–3.9, causal 2.1–2.5 | 2.8–3.1, causal 2.0–2.4 |
 * | cpu    | 1.5–1.7, causal 1.7–1.9 | 1.3–1.4, causal 1.1–1.3 |
 *
 * Workers (gpu.js `asyncMode`) are not used. They make a product 1.5 times faster on two cores (Bun 6.5 → 3.6 ms, Deno
 * 12.5 → 8.1), but each kernel starts its own pool (8 kernels: 16 threads), and gpu.js 2.24.1 starts them on neither runtime
 * unless URL.revokeObjectURL (Bun) or globalThis.Worker (Deno) is replaced under everybody else.
 */
import type { Backend, Driver, ExactSession, Linear, OpenOptions, Session } from "../backend.ts";
import { UnsupportedError, UsageError } from "../errors.ts";
import type { ExactPlan, Limits, LinearPlan, Plan } from "../plan.ts";
import { openExact, openTiled } from "./decayed.ts";
import { GpuJsDense } from "./gpujs_dense.ts";
import { GpuJsExactKernels } from "./gpujs_exact.ts";
import { GpuJs, type GpuJsMode, type GpuJsModule, Kernels, loadGpuJs } from "./gpujs_kernels.ts";
import { GpuJsTileKernels } from "./gpujs_linear.ts";
import { requireKernels } from "./tiled.ts";

/** Modes by name, with the reason why one is refused. */
const MODES: Readonly<Record<string, string | null>> = {
  webasm: null,
  cpu: null,
  webgpu: "gpu.js reads every WebGPU result back before the next kernel starts; use --backend webgpu instead",
  headlessgl: 'its addon "gl" does not load on Bun or Deno; use gpujs:webasm or gpujs:cpu',
};

class GpuJsBackend implements Backend {
  readonly name = "gpujs";
  readonly device: string;
  readonly limits: Limits = { precision: "f32", preferredTileRows: 1024, maxTileBytes: 256 << 10, inFlight: 1 };

  constructor(readonly gpu: GpuJs) {
    this.device = `gpu.js ${gpu.mode} (synchronous)`;
  }

  async prepare(plan: Plan): Promise<Session> {
    requireKernels(this.name, plan);
    return await openTiled(plan, (cut) => new GpuJsTileKernels(cut, new Kernels(this.gpu)));
  }

  async prepareExact(plan: ExactPlan): Promise<ExactSession> {
    return await openExact(plan, (cut) => new GpuJsExactKernels(cut, new Kernels(this.gpu)));
  }

  async prepareLinear(plan: LinearPlan): Promise<Linear> {
    return new GpuJsDense(plan, new Kernels(this.gpu));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.gpu[Symbol.asyncDispose]();
  }
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
      return new GpuJsBackend(probed(module, mode));
    } catch (error) {
      reasons.push(`${mode}: ${(error as Error).message}`);
    }
  }
  throw new UnsupportedError(name, reasons.join("; "));
}

/** A gpu.js that multiplied two small matrices; throws when the mode does not compile here or computes something else. */
function probed(module: GpuJsModule, mode: GpuJsMode): GpuJs {
  const gpu = new GpuJs(module, mode);
  using kernels = new Kernels(gpu);
  const product = kernels.product({ chunks: 1, quads: 1, width: 4 }, 4);
  const a = Float32Array.from({ length: 16 }, (_, at) => at); // row c, column l at 4l + c
  const identity = Float32Array.from({ length: 16 }, (_, at) => (at % 5 === 0 ? 1 : 0));
  const result = product(a, identity);
  if (!a.every((value, at) => value === result[at])) throw new Error("a product of two 4 × 4 matrices came out wrong");
  return gpu;
}

export const gpujs: Driver = {
  name: "gpujs",
  open,
};
