/** Bytes of a source as pieces, plain or unpacked. */
import { Readable } from "node:stream";
import { createGunzip, createInflateRaw } from "node:zlib";
import { type ByteSource, CHUNK } from "../bytes.ts";

/** Pieces of `length` bytes from `at`, each in memory of its own (a stream may keep several). */
export async function* chunks(source: ByteSource, at: number, length: number): AsyncGenerator<Uint8Array> {
  for (let done = 0; done < length;) {
    const piece = new Uint8Array(Math.min(CHUNK, length - done));
    await source.read(piece, at + done);
    done += piece.length;
    yield piece;
  }
}

/**
 * Unpacks pieces as they come: "gzip" (any number of members, as bgzip writes) or "raw" (a member of a zip). What the
 * pieces throw is thrown on; broken data throws the error of zlib. Leaving the loop early stops the reading.
 */
export async function* inflated(pieces: AsyncIterable<Uint8Array>, kind: "gzip" | "raw"): AsyncGenerator<Uint8Array> {
  const inflate = kind === "gzip" ? createGunzip() : createInflateRaw();
  const input = Readable.from(pieces, { objectMode: true });
  input.on("error", (error) => inflate.destroy(error));
  input.pipe(inflate);
  try {
    for await (const piece of inflate) yield piece as Uint8Array;
  } finally {
    input.destroy();
    inflate.destroy();
  }
}

/** Whether an error is zlib's word for broken data. */
export function isZlib(error: unknown): boolean {
  return /^Z_|ZLIB|^ERR_BUFFER/.test(String((error as { code?: unknown } | null)?.code));
}
