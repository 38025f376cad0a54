/** The compiled kernels (kernels/wasm/*.wasm) and what they export. */
import { assets } from "../assets.ts";
import { UnsupportedError } from "../errors.ts";

/** Exports of kernels/wasm/assembly/index.ts; documented there. All arguments are numbers; pointers are bytes. */
export interface Kernels {
  chooseTile(tile: number): void;
  profileInto(at: number): void;
  clearState(plan: number, count: number, state: number): void;
  stateBytes(plan: number, count: number): number;
  keysScratch(plan: number): number;
  queriesScratch(plan: number, count: number): number;
  causalScratch(plan: number, count: number): number;
  partsBytes(plan: number, rows: number): number;
  exactScratch(plan: number): number;
  denseScratch(inputs: number): number;
  heldBytes(plan: number): number;
  forget(plan: number, held: number): void;
  pose(plan: number, head: number, q: number, rows: number, held: number): void;
  productRounds(at: number, rounds: number): void;
  copyRounds(to: number, from: number, bytes: number, rounds: number): void;
  keys(...args: number[]): void;
  queries(...args: number[]): void;
  combine(...args: number[]): void;
  causal(...args: number[]): void;
  absorb(...args: number[]): void;
  dense(...args: number[]): void;
  farBytes(plan: number): number;
  farScratch(plan: number): number;
  nearFarScratch(plan: number): number;
  clearFar(...args: number[]): void;
  farSums(...args: number[]): void;
  assignRows(...args: number[]): void;
  nearFar(...args: number[]): void;
  chunkBytes(plan: number): number;
  keepRows(...args: number[]): void;
}

/** Exported functions by name with their arguments. */
export type Call = readonly [name: keyof Kernels, ...args: number[]];

/** As an argument: the scratch memory of the thread that runs the call. */
export const SCRATCH = -1;

/** Work for one thread, or for whoever takes it. */
export interface Job {
  readonly id: number;
  /** Each is done by one thread, which runs its calls in order. */
  readonly tasks: readonly (readonly Call[])[];
  /** Where in `taken` the tasks are counted that some thread has taken, or null: all are the thread's. */
  readonly counter: number | null;
  /** The thread's scratch memory (SCRATCH), or 0. */
  readonly scratch: number;
}

/** Does a thread's part of a job. */
export function runJob(kernels: Kernels, { tasks, counter, scratch }: Job, taken: Int32Array): void {
  if (counter === null) {
    for (const calls of tasks) runCalls(kernels, calls, scratch);
    return;
  }
  for (let i: number; (i = Atomics.add(taken, counter, 1)) < tasks.length;) runCalls(kernels, tasks[i], scratch);
}

function runCalls(kernels: Kernels, calls: readonly Call[], scratch: number): void {
  for (const [name, ...args] of calls) {
    const known = args.map((arg) => arg === SCRATCH ? scratch : arg);
    (kernels[name] as (...args: number[]) => void)(...known);
  }
}

/** Builds of the kernels, the one to prefer first. */
export const BUILDS = ["relaxed", "simd"] as const;
export type Build = typeof BUILDS[number];

/** Compiles the first build this engine accepts, or the one asked for; throws UnsupportedError. */
export async function compileKernels(wanted?: Build): Promise<{ module: WebAssembly.Module; build: Build }> {
  let reason = "";
  for (const build of wanted ? [wanted] : BUILDS) {
    const bytes = await assets.kernel(build);
    try {
      return { module: await WebAssembly.compile(bytes), build };
    } catch (error) {
      reason = `this engine refuses its ${build} build (${(error as Error).message})`;
    }
  }
  throw new UnsupportedError("wasm", reason);
}

/** An instance over shared memory. Every thread has its own; they have no data of their own in that memory. */
export function instantiate(module: WebAssembly.Module, memory: WebAssembly.Memory): Kernels {
  const instance = new WebAssembly.Instance(module, { env: { memory, now: () => performance.now() } });
  return instance.exports as unknown as Kernels;
}

/** Numbers that `productRounds` works on. */
export const PRODUCT_BYTES = 40 * 1024;

/** Floating-point operations of one round. */
export const PRODUCT_FLOPS = 2 * 16 * 64 * 64;

/**
 * Times both register tiles for a few milliseconds and chooses the faster. The choice changes no bit of any result: both add up
 * the same products in the same order.
 * @param scratch PRODUCT_BYTES of memory
 */
export function chooseFastestTile(kernels: Kernels, scratch: number): number {
  const rounds = 16;
  const best = [Infinity, Infinity];
  const start = performance.now();
  // Interleaved, so that warming up and other work hit both alike.
  for (let run = 0; run < 60 && performance.now() - start < 5; run++) {
    for (const tile of [0, 1]) {
      kernels.chooseTile(tile);
      const from = performance.now();
      kernels.productRounds(scratch, rounds);
      best[tile] = Math.min(best[tile], performance.now() - from);
    }
  }
  const fastest = best[0] <= best[1] ? 0 : 1;
  kernels.chooseTile(fastest);
  return fastest;
}
