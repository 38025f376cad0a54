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

/** The same bytes for many small reads near each other: `window` bytes are read at once and kept. Does not own the source. */
export function nearby(source: ByteSource, window: number): ByteSource {
  let [kept, start] = [new Uint8Array(0), 0];
  return {
    path: source.path,
    byteLength: source.byteLength,
    async read(into, at) {
      if (!(at >= start && at + into.length <= start + kept.length)) {
        const length = Math.min(window, source.byteLength - at);
        if (!(length >= into.length)) return await source.read(into, at);
        [kept, start] = [new Uint8Array(length), at];
        await source.read(kept, at);
      }
      into.set(kept.subarray(at - start, at - start + into.length));
    },
    async [Symbol.asyncDispose]() {},
  };
}
