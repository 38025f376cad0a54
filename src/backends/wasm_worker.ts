/** One computing thread of the wasm backend: does its jobs as they arrive, in order. */
import { parentPort, workerData } from "node:worker_threads";
import { chooseFastestTile, instantiate, type Job, runJob } from "./wasm_module.ts";

/** What a thread is given when it starts. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** PRODUCT_BYTES of its own for choosing the register tile. */
  readonly trial: number;
  /** Where it adds up its stage times (five float64), or 0. */
  readonly stages: number;
  /** How many tasks of a shared job have been taken. */
  readonly taken: Int32Array;
}

export interface Done {
  readonly id: number;
  /** Set when a call failed: a bug, as kernels check nothing. */
  readonly error?: string;
}

const { module, memory, trial, stages, taken } = workerData as WorkerStart;
const kernels = instantiate(module, memory);
chooseFastestTile(kernels, trial);
kernels.profileInto(stages);

parentPort!.on("message", (job: Job) => {
  let done: Done = { id: job.id };
  try {
    runJob(kernels, job, taken);
  } catch (error) {
    done = { id: job.id, error: (error as Error).message };
  }
  parentPort!.postMessage(done);
});
