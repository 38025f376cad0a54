/**
 * Writes to a pipe on a thread of its own, so that the next rows are read and computed while a slow reader takes the last ones.
 *
 * A ring of slots in shared memory: the main thread copies bytes in, the thread writes them out, each counts what it has done. A thread
 * takes longer to start than most outputs take to write, so the first bytes are written on the main thread.
 *
 * Versions, 2 GiB of `--features none` as in bench/pipe.sh, GB/s, medians of 7 in turns on 2 busy cores of an AMD EPYC (load 6), where `cat`
 * in its place has 0.63. Predicted of 2: what `cat` has.
 *   1          written on the main thread, which reads nothing meanwhile: 0.41 on Bun, 0.27 on Deno.
 *   2  (this)  a ring and a thread: 0.53 on Bun, 0.23 on Deno, where two cores are too few for one more thread. Pipes of 1 MiB instead of
 *              64 KiB (F_SETPIPE_SZ) cut task switches to a seventh and gained nothing.
 */
import { Worker } from "node:worker_threads";
import { writeFully } from "./disk.ts";
import { CLOSED, CODES, DRAINED, FAILED, FILLED, LENGTHS, SLOT_BYTES, SLOTS } from "./pipe_ring.ts";
import { TransientError } from "./errors.ts";
import { writeError } from "./system_errors.ts";
import { THREADS } from "./threads.ts";
import type { PipeStart } from "./pipe_worker.ts";

/** Bytes written before a thread is worth its start (25 ms on Bun, 90 on Deno). */
const PATIENCE = 4 * 2 ** 20;
/** Deno numbers what a thread has opened for that thread alone; standard streams are the same for all. */
const isShared = (fd: number): boolean => fd <= 2 || !("Deno" in globalThis);

export class PipeWriter implements AsyncDisposable {
  #written = 0;
  #ring: Ring | null = null;

  constructor(readonly fd: number, readonly path: string) {}

  /** Writes all bytes, which may be used again when this settles. Throws what the pipe says, later than it says so by up to a ring. */
  async write(bytes: Uint8Array): Promise<void> {
    this.#written += bytes.length;
    if (this.#written <= PATIENCE || !isShared(this.fd)) {
      try {
        return await writeFully(this.fd, bytes, null);
      } catch (error) {
        throw writeError(error, this.path);
      }
    }
    this.#ring ??= new Ring(this.fd, this.path);
    for (let at = 0; at < bytes.length; at += SLOT_BYTES) await this.#ring.push(bytes.subarray(at, at + SLOT_BYTES));
  }

  /** Settles when everything is written. */
  async drain(): Promise<void> {
    await this.#ring?.room(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ring?.close();
    this.#ring = null;
  }
}

/** The main thread's end of the ring. */
class Ring {
  readonly #control = new Int32Array(new SharedArrayBuffer(4 * (LENGTHS + SLOTS)));
  readonly #slots = new Uint8Array(new SharedArrayBuffer(SLOTS * SLOT_BYTES));
  readonly #worker: Worker;

  constructor(fd: number, readonly path: string) {
    // Memory and not arrays over it: Deno looks at every element of an array that it passes, which takes 0.5 s and 190 MB.
    const workerData: PipeStart = { fd, control: this.#control.buffer, slots: this.#slots.buffer };
    this.#worker = new Worker(THREADS.pipe, { workerData });
    this.#worker.unref();
    // A thread that is gone writes nothing any more: whoever waits for room must not wait for ever.
    this.#worker.on("error", () => this.#lost());
    this.#worker.on("exit", () => this.#lost());
  }

  #lost(): void {
    if (Atomics.load(this.#control, CLOSED) === 0) Atomics.compareExchange(this.#control, FAILED, 0, CODES.length + 1);
  }

  async push(bytes: Uint8Array): Promise<void> {
    await this.room(SLOTS - 1);
    const filled = Atomics.load(this.#control, FILLED);
    const slot = filled % SLOTS;
    this.#slots.set(bytes, slot * SLOT_BYTES);
    this.#control[LENGTHS + slot] = bytes.length;
    Atomics.store(this.#control, FILLED, filled + 1);
    Atomics.notify(this.#control, FILLED);
  }

  /** Settles when at most `most` slots wait to be written; throws what the pipe has said. */
  async room(most: number): Promise<void> {
    for (;;) {
      const drained = Atomics.load(this.#control, DRAINED);
      const failed = Atomics.load(this.#control, FAILED);
      if (failed > CODES.length) throw lostThread(this.path);
      if (failed > 0) {
        throw writeError(Object.assign(new Error("write failed"), { code: CODES[failed - 1] }), this.path);
      }
      if (Atomics.load(this.#control, FILLED) - drained <= most) return;
      const waiting = Atomics.waitAsync(this.#control, DRAINED, drained, 100);
      if (waiting.async) await waiting.value;
    }
  }

  async close(): Promise<void> {
    Atomics.store(this.#control, CLOSED, 1);
    Atomics.notify(this.#control, FILLED);
    void this.#worker.terminate(); // a thread that waits for its reader does not hear it: the process ends all the same
  }
}

const lostThread = (path: string) =>
  new TransientError(`Cannot write "${path}": the thread that writes is gone; try again, or write to a file`);
