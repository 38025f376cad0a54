/** Bytes in memory where a file is expected. */
import type { ByteSource } from "../bytes.ts";
import { InputError } from "../errors.ts";

/** A source over bytes that are already in memory; `path` names it in errors. */
export function memoryBytes(bytes: Uint8Array, path = "memory"): ByteSource {
  return {
    path,
    byteLength: bytes.length,
    async read(into, at) {
      const missing = at + into.length - bytes.length;
      if (missing > 0) {
        throw new InputError(
          `Cannot read "${path}": it ends at byte ${bytes.length}, ${missing} more bytes were expected`,
        );
      }
      into.set(bytes.subarray(at, at + into.length));
    },
    async [Symbol.asyncDispose]() {},
  };
}
