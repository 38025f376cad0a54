/** Backend `webgpu`: fused float32 kernels on a GPU through Dawn (npm `webgpu`), loaded when it is opened. */
import type { Backend, Driver, ExactSession, Linear, NearFarSession, Session } from "../backend.ts";
import { refuseDecay } from "../decay.ts";
import type { NearFarPlan, NearFarShape } from "../near_far.ts";
import type { ExactPlan, Limits, LinearPlan, Plan } from "../plan.ts";
import { openExact, openTiled } from "./decayed.ts";
import { DeviceNearFar } from "./near_far_session.ts";
import { requireKernels } from "./tiled.ts";
import { findAdapter } from "./webgpu_adapter.ts";
import { WebgpuDense } from "./webgpu_dense.ts";
import { GpuDevice } from "./webgpu_device.ts";
import { WebgpuExact } from "./webgpu_exact.ts";
import { WebgpuFar } from "./webgpu_far.ts";
import { farLayoutOf } from "./webgpu_far_layout.ts";
import { WebgpuTiles } from "./webgpu_tiled.ts";

/** Rows per tile: enough work to hide the upload of the next one; small where the "device" is a few cores. */
const TILE_ROWS = 8192;
const SOFTWARE_TILE_ROWS = 1024;
/** A tile has several buffers, and several tiles are in flight. */
const MAX_TILE_BYTES = 128 << 20;

export class WebgpuBackend implements Backend {
  readonly name = "webgpu";
  readonly device: string;
  readonly limits: Limits;

  constructor(readonly gpu: GpuDevice) {
    this.device = gpu.description;
    this.limits = {
      precision: "f32",
      preferredTileRows: gpu.software ? SOFTWARE_TILE_ROWS : TILE_ROWS,
      maxTileBytes: Math.min(gpu.maxBytes, MAX_TILE_BYTES),
      inFlight: 3,
    };
  }

  get lost(): boolean {
    return this.gpu.failed;
  }

  async prepare(plan: Plan): Promise<Session> {
    requireKernels(this.name, plan);
    return await openTiled(plan, (cut) => WebgpuTiles.open(this.gpu, cut));
  }

  async prepareExact(plan: ExactPlan): Promise<ExactSession> {
    return await openExact(plan, (cut) => WebgpuExact.open(this.gpu, cut));
  }

  async prepareNearFar(plan: NearFarPlan): Promise<NearFarSession> {
    refuseDecay(plan);
    return new DeviceNearFar(plan, await WebgpuFar.open(this.gpu, plan));
  }

  checkNearFar(shape: NearFarShape): void {
    farLayoutOf(shape, this.gpu);
  }

  async prepareLinear(plan: LinearPlan): Promise<Linear> {
    return await WebgpuDense.open(this.gpu, plan);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.gpu.dispose();
  }
}

export const webgpu: Driver = {
  name: "webgpu",
  open: async (options) => new WebgpuBackend(await GpuDevice.open(await findAdapter(options))),
};
