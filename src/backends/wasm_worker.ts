/** One computing thread of the wasm backend: runs lists of kernel calls as they arrive, in order. */
import { parentPort, workerData } from "node:worker_threads";
import { type Call, chooseFastestTile, instantiate, runCalls } from "./wasm_module.ts";

/** What a thread is given when it starts. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** PRODUCT_BYTES of its own for choosing the register tile. */
  readonly trial: number;
  /** Where it adds up its stage times (five float64), or 0. */
  readonly stages: number;
}

export interface Job {
  readonly id: number;
  readonly calls: readonly Call[];
}

export interface Done {
  readonly id: number;
  /** Set when a call failed: a bug, as kernels check nothing. */
  readonly error?: string;
}

const { module, memory, trial, stages } = workerData as WorkerStart;
const kernels = instantiate(module, memory);
chooseFastestTile(kernels, trial);
kernels.profileInto(stages);

parentPort!.on("message", ({ id, calls }: Job) => {
  let done: Done = { id };
  try {
    runCalls(kernels, calls);
  } catch (error) {
    done = { id, error: (error as Error).message };
  }
  parentPort!.postMessage(done);
});
