/**
 * The threads of a wasm backend. Each does its jobs in the order given; the main thread only waits. A job is a list of calls for one
 * thread, or tasks that the threads take from one list as they become free: a neighbour on the machine then slows one task, not all.
 *
 * Versions of who does what:
 *   1          halves of heads or rows, fixed. AMD Zen 5, 2 cores, 16,384 rows × 8 heads, r = 256: on Deno one thread worked 98 % of the
 *              time and the other 63 %; 1.66 (Deno) to 1.7 (Bun) times one thread.
 *   2  (this)  tasks taken from one list. Predicted: 1.9. Measured: 1.80 on Bun and 1.89 on Deno with 8 heads, 1.82 and 1.76 with one
 *              (medians of 5 runs in turns). What is missing is the main thread's own work, a tenth of a core.
 *
 * Starting two threads takes 40 ms on Bun and 160 ms on Deno, as long as some thousand rows do, so the first jobs run on the
 * main thread and threads start when these have taken `PATIENCE`; small jobs are done there even then. Which thread runs a job changes no bit of its result.
 */
import { Worker } from "node:worker_threads";
import { THREADS } from "../threads.ts";
import { TransientError } from "../errors.ts";
import { type Call, type Job, type Kernels, PRODUCT_BYTES, runJob } from "./wasm_module.ts";
import type { SharedMemory } from "./wasm_memory.ts";
import type { Done, WorkerStart } from "./wasm_worker.ts";

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Milliseconds of work that the main thread does itself before it starts threads. */
const PATIENCE = 80;

/**
 * Floating-point operations of a job that the main thread does itself while no thread has anything to do: 0.1 ms of work at most, where
 * waking a thread and hearing from it takes as long, and many times that on a busy machine.
 */
const SMALL = 2 ** 21;

/** Bytes of one thread's stage times. */
const STAGE_BYTES = 64;

/** Shared jobs that may be in flight at once: far more than sessions keep. */
const COUNTERS = 1024;

export class Pool {
  readonly #workers: Worker[] = [];
  readonly #waiting: Map<number, Waiting>[] = [];
  readonly #stages: number[] = [];
  readonly #trials: number[];
  /** Tasks taken of each shared job in flight, by its number modulo COUNTERS. */
  readonly #taken = new Int32Array(new SharedArrayBuffer(4 * COUNTERS));
  /** Milliseconds spent on jobs on the main thread. */
  #spent = 0;
  #last = 0;
  /** Shared jobs so far. */
  #shared = 0;
  #failure: Error | null = null;
  #idle: (() => void)[] = [];
  #closing = false;

  constructor(
    readonly threads: number,
    readonly module: WebAssembly.Module,
    /** The main thread's own. */
    readonly kernels: Kernels,
    readonly shared: SharedMemory,
    readonly profile: boolean,
    /** Threads do all from the beginning, small jobs too. */
    readonly eager = false,
  ) {
    // All memory first: it must not grow while a thread chooses its tile.
    this.#trials = Array.from({ length: threads }, () => shared.allocate(PRODUCT_BYTES));
    if (profile) { for (let i = 0; i < threads; i++) this.#stages.push(shared.allocate(STAGE_BYTES)); }
    for (const at of this.#stages) shared.doubles(at, STAGE_BYTES / 8).fill(0);
    if (eager) this.start();
  }

  /** Starts the threads, if they have not been. */
  start(): void {
    while (this.#workers.length < this.threads && !this.#closing) this.#start(this.#workers.length);
  }

  #start(index: number): void {
    const { module, shared: { memory } } = this;
    const workerData: WorkerStart = {
      module,
      memory,
      trial: this.#trials[index],
      stages: this.#stages[index] ?? 0,
      taken: this.#taken,
    };
    const worker = new Worker(THREADS.compute, { workerData });
    const waiting = new Map<number, Waiting>();
    worker.on("message", ({ id, error }: Done) => {
      const one = waiting.get(id);
      waiting.delete(id);
      if (error === undefined) one?.resolve();
      else one?.reject(new Error(`wasm kernel failed: ${error}`));
      this.#settle();
    });
    worker.on("error", (error: Error) => this.#fail(`it failed with "${error.message}"`));
    worker.on("exit", (code: number) => this.#fail(`it exited with code ${code}`));
    this.#workers.push(worker);
    this.#waiting.push(waiting);
  }

  /**
   * Runs one list of calls per thread; settles when all are done. Rejects with TransientError when a thread is gone.
   * @param work about how many floating-point operations they are together
   */
  async runAll(lists: readonly (readonly Call[])[], work = Infinity): Promise<void> {
    const posts = lists.flatMap((calls, thread) => {
      return calls.length === 0
        ? []
        : [{ thread, job: { id: ++this.#last, tasks: [calls], counter: null, scratch: 0 } }];
    });
    await this.#post(posts, work);
  }

  /**
   * Runs independent tasks, each on the first thread that is free for it, so that a slow thread holds nobody up; settles when all
   * are done. No order between these tasks and those of other jobs.
   * @param scratch each thread's own memory, for calls that name SCRATCH
   * @param work about how many floating-point operations they are together
   */
  async share(tasks: readonly (readonly Call[])[], scratch: readonly number[], work = Infinity): Promise<void> {
    const counter = ++this.#shared % COUNTERS;
    this.#taken[counter] = 0;
    const threads = Array.from({ length: this.threads }, (_, thread) => thread);
    // Fewer tasks than threads go to those that have least to do.
    if (tasks.length < this.threads) threads.sort((a, b) => this.#load(a) - this.#load(b)).length = tasks.length;
    const posts = threads.map((thread) => {
      return { thread, job: { id: ++this.#last, tasks, counter, scratch: scratch[thread] } };
    });
    await this.#post(posts, work);
  }

  #load(thread: number): number {
    return this.#waiting[thread]?.size ?? 0;
  }

  /** Gives jobs to threads, each after all that this thread was given before. */
  async #post(posts: readonly { readonly thread: number; readonly job: Job }[], work: number): Promise<void> {
    if (this.#failure) throw this.#failure;
    if (this.#closing) throw new Error("the wasm backend is closed");
    // Not while a thread is at work: jobs of one thread keep their order and its memory to themselves.
    if (work <= SMALL && !this.eager && this.#waiting.every(({ size }) => size === 0)) {
      return this.#runHere(posts, false);
    }
    if (this.#workers.length === 0) {
      if (this.#spent < PATIENCE) return this.#runHere(posts);
      this.start();
    }
    await Promise.all(posts.map(({ thread, job }) => {
      return new Promise<void>((resolve, reject) => {
        this.#waiting[thread].set(job.id, { resolve, reject });
        this.#workers[thread].postMessage(job);
      });
    }));
  }

  /** Runs a few calls now, on the main thread; their memory must be no thread's. */
  here(calls: readonly Call[]): void {
    runJob(this.kernels, { id: 0, tasks: [calls], counter: null, scratch: 0 }, this.#taken);
  }

  /** Does the threads' jobs on the main thread. */
  #runHere(posts: readonly { readonly thread: number; readonly job: Job }[], counts = true): void {
    const from = performance.now();
    for (const { thread, job } of posts) {
      this.kernels.profileInto(this.#stages[thread] ?? 0);
      runJob(this.kernels, job, this.#taken);
    }
    if (counts) this.#spent += performance.now() - from;
  }

  /** Settles when no thread runs anything: only then may the memory grow. */
  async idle(): Promise<void> {
    while (this.#waiting.some((waiting) => waiting.size > 0)) {
      await new Promise<void>((resolve) => this.#idle.push(resolve));
    }
  }

  /** Seconds per stage, added up over threads; null unless profiled. */
  stages(): number[] | null {
    if (!this.profile) return null;
    const sums = new Array<number>(5).fill(0);
    for (const at of this.#stages) {
      this.shared.doubles(at, 5).forEach((ms: number, stage: number) => sums[stage] += ms / 1000);
    }
    return sums;
  }

  #settle(): void {
    for (const wake of this.#idle.splice(0)) wake();
  }

  /** A thread is gone: what waits fails, and so does all that comes. */
  #fail(how: string): void {
    if (this.#closing) return;
    this.#failure ??= new TransientError(
      `A computing thread of the wasm backend is gone: ${how}; try again, with --threads 1 or another --backend if it happens twice`,
      { retry: "again" },
    );
    for (const waiting of this.#waiting) {
      for (const { reject } of waiting.values()) reject(this.#failure);
      waiting.clear();
    }
    this.#settle();
  }

  /** Whether a thread is gone: every job fails from now on. */
  get failed(): boolean {
    return this.#failure !== null;
  }

  /** For the test of a lost thread, which must have been started. */
  async terminate(thread: number): Promise<void> {
    await this.#workers[thread].terminate();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
    const closed = new Error("the wasm backend was closed");
    for (const waiting of this.#waiting) for (const { reject } of waiting.values()) reject(closed);
  }
}
