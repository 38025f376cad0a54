/** Backend `wasm`: SIMD kernels on every core, over shared memory. Runs wherever there are threads; no native code. */
import * as os from "node:os";
import type { Backend, Driver, ExactSession, Linear, NearFarSession, OpenOptions, Peak, Session } from "../backend.ts";
import { UsageError } from "../errors.ts";
import { refuseDecay } from "../decay.ts";
import type { NearFarPlan, NearFarShape } from "../near_far.ts";
import type { ExactPlan, Limits, LinearPlan, Plan } from "../plan.ts";
import type { FloatArray } from "../tensor.ts";
import { openExact, openTiled } from "./decayed.ts";
import { requireKernels } from "./tiled.ts";
import { WasmDense } from "./wasm_dense.ts";
import { DeviceNearFar } from "./near_far_session.ts";
import { WasmFar } from "./wasm_far.ts";
import { checkNear } from "./wasm_far_slots.ts";
import { WasmExact } from "./wasm_exact.ts";
import { SLOTS, WasmLinear } from "./wasm_linear.ts";
import { SharedMemory } from "./wasm_memory.ts";
import {
  type Build,
  BUILDS,
  type Call,
  compileKernels,
  instantiate,
  type Kernels,
  PRODUCT_BYTES,
  PRODUCT_FLOPS,
} from "./wasm_module.ts";
import { Pool } from "./wasm_pool.ts";

/** More threads than this are a slip of the keyboard. */
const MOST_THREADS = 256;

export class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly device: string;
  readonly threads: number;
  readonly limits: Limits = { precision: "f32", preferredTileRows: 2048, maxTileBytes: 8 << 20, inFlight: SLOTS };

  constructor(readonly pool: Pool, readonly shared: SharedMemory, readonly kernels: Kernels, build: Build) {
    const { threads } = pool;
    this.threads = threads;
    const simd = build === "relaxed" ? "relaxed simd128" : "simd128";
    this.device = `${simd} × ${threads} ${threads === 1 ? "thread" : "threads"}`;
  }

  get lost(): boolean {
    return this.pool.failed;
  }

  async prepare(plan: Plan): Promise<Session> {
    requireKernels(this.name, plan);
    await this.pool.idle();
    return await openTiled(plan, (cut) => new WasmLinear(cut, this.pool, this.shared, this.kernels));
  }

  async prepareExact(plan: ExactPlan): Promise<ExactSession> {
    await this.pool.idle();
    return await openExact(plan, (cut) => new WasmExact(cut, this.pool, this.shared, this.kernels));
  }

  async prepareNearFar(plan: NearFarPlan): Promise<NearFarSession> {
    refuseDecay(plan);
    await this.pool.idle();
    return new DeviceNearFar(plan, new WasmFar(plan, this.pool, this.shared, this.kernels));
  }

  checkNearFar(shape: NearFarShape): void {
    checkNear(shape);
  }

  async prepareLinear(plan: LinearPlan): Promise<Linear> {
    await this.pool.idle();
    return new WasmDense(plan, this.pool, this.shared, this.kernels);
  }

  allocate(length: number): Float32Array {
    return this.shared.lend(length);
  }

  release(array: FloatArray): void {
    this.shared.release(array.byteOffset);
  }

  async measurePeak(seconds: number): Promise<Peak> {
    await this.pool.idle();
    this.pool.start();
    const { threads } = this.pool;
    const bytes = 32 << 20;
    const areas = Array.from({ length: threads }, () => this.shared.allocate(2 * bytes));
    try {
      const product = await this.#rate(seconds / 2, (i, rounds) => ["productRounds", areas[i], rounds], PRODUCT_BYTES);
      const copy = await this.#rate(
        seconds / 2,
        (i, rounds) => ["copyRounds", areas[i], areas[i] + bytes, bytes, rounds],
        0,
      );
      return { flopsPerSecond: product * PRODUCT_FLOPS * threads, bytesPerSecond: copy * 2 * bytes * threads };
    } finally {
      areas.forEach((at) => this.shared.release(at));
    }
  }

  /** Rounds per second of a call that all threads make at once, the best of several tries. `clear`: bytes set to 0 before. */
  async #rate(seconds: number, call: (thread: number, rounds: number) => Call, clear: number): Promise<number> {
    const lists = (rounds: number) => Array.from({ length: this.pool.threads }, (_, i) => [call(i, rounds)]);
    if (clear > 0) {
      for (const [[, at]] of lists(1)) this.shared.floats(at as number, clear / 4).fill(0);
    }
    let best = 0;
    let rounds = 1;
    await this.pool.runAll(lists(1)); // memory that nobody has touched yet is slow
    const end = performance.now() + 1000 * seconds;
    do {
      const start = performance.now();
      await this.pool.runAll(lists(rounds));
      const spent = (performance.now() - start) / 1000;
      best = Math.max(best, rounds / spent);
      if (spent < seconds / 10) rounds *= 2;
    } while (performance.now() < end);
    return best;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool[Symbol.asyncDispose]();
  }
}

export const wasm = {
  name: "wasm",
  async open(
    { variant, threads = os.availableParallelism(), profile = false, eager = false }: OpenOptions,
  ): Promise<WasmBackend> {
    const build = BUILDS.find((name) => name === variant);
    if (variant !== undefined && !build) {
      throw new UsageError(
        `Unknown variant "wasm:${variant}", expected ${BUILDS.map((name) => `wasm:${name}`).join(" or ")}`,
      );
    }
    if (threads > MOST_THREADS) throw new UsageError(`Cannot use ${threads} threads: expected at most ${MOST_THREADS}`);
    const shared = new SharedMemory();
    const compiled = await compileKernels(build);
    const kernels = instantiate(compiled.module, shared.memory);
    const pool = new Pool(threads, compiled.module, kernels, shared, profile, eager);
    return new WasmBackend(pool, shared, kernels, compiled.build);
  },
} as const satisfies Driver;
