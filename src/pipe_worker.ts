/** The thread of pipe_writer.ts: writes the slots of its ring as they are filled. */
import { workerData } from "node:worker_threads";
import { writeNow } from "./disk.ts";
import { CLOSED, CODES, DRAINED, FAILED, FILLED, LENGTHS, SLOT_BYTES, SLOTS } from "./pipe_ring.ts";
import { code } from "./system_errors.ts";

/** What the thread is given when it starts. */
export interface PipeStart {
  readonly fd: number;
  /** Counters and lengths: pipe_ring.ts. */
  readonly control: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
}

const { fd, ...shared } = workerData as PipeStart;
const [control, slots] = [new Int32Array(shared.control), new Uint8Array(shared.slots)];
try {
  for (let done = 0; Atomics.load(control, CLOSED) === 0;) {
    if (Atomics.load(control, FILLED) === done) {
      Atomics.wait(control, FILLED, done);
      continue;
    }
    const slot = done % SLOTS;
    const at = slot * SLOT_BYTES;
    writeNow(fd, slots.subarray(at, at + control[LENGTHS + slot]));
    Atomics.store(control, DRAINED, ++done);
    Atomics.notify(control, DRAINED);
  }
} catch (error) {
  const known = CODES.findIndex((name) => name === code(error));
  Atomics.store(control, FAILED, 1 + (known < 0 ? CODES.length - 1 : known));
  Atomics.notify(control, DRAINED);
}
