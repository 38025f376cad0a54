/** The shared memory of pipe_writer.ts and its thread: slots of bytes, and control words. */
export const SLOTS = 4;
export const SLOT_BYTES = 2 ** 20;

/** Places of the control words. */
export const FILLED = 0;
export const DRAINED = 1;
export const FAILED = 2;
export const CLOSED = 3;
/** Bytes in each slot follow. */
export const LENGTHS = 4;

/** Errors of a write that a thread passes on, as FAILED − 1; the last stands for all others. */
export const CODES = ["EPIPE", "ENOSPC", "EDQUOT", "EIO", "EFBIG", "EUNKNOWN"] as const;
