/** Writes many tensors into one file, piece by piece; the file gets its name when it is complete. */
import { crc32 } from "node:zlib";
import { openOutput } from "../bytes.ts";
import { UsageError } from "../errors.ts";
import { DTYPE_BYTES } from "../tensor.ts";
import type { TensorHeader } from "./container.ts";
import { outputFormat } from "./sink.ts";

/** A tensor and where its elements come from: bytes in C order, little-endian, each piece borrowed. */
export interface WrittenTensor extends TensorHeader {
  pieces(): AsyncIterable<Uint8Array>;
}

/**
 * Writes tensors in the format that the name of the output asks for (.safetensors, .npz, and .npy for one tensor) and
 * returns the size of the file in bytes. Only .safetensors keeps `metadata`. Throws UsageError for what the format or the
 * path cannot take, TransientError when the disk is full; nothing is left behind then.
 */
export async function writeTensors(
  path: string,
  tensors: readonly WrittenTensor[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<number> {
  const format = outputFormat(path);
  const frames = format.frames!(tensors, metadata);
  await using output = openOutput(path);
  if (output.sequential && frames.order.some((i) => frames.checksumFrom(i) !== null)) {
    throw new UsageError(`Cannot write ${format.suffix} to "${path}": it is a pipe, write .safetensors or name a file`);
  }
  let at = 0;
  const write = async (bytes: Uint8Array) => {
    await output.write(bytes, at);
    at += bytes.length;
  };
  const crcs = new Array<number>(tensors.length).fill(0);
  for (const i of frames.order) {
    const { name, dtype, shape } = tensors[i];
    const start = at;
    const head = frames.head(i, 0);
    const from = frames.checksumFrom(i);
    await write(head);
    const first = at;
    let crc = from === null ? 0 : crc32(head.subarray(from));
    for await (const piece of tensors[i].pieces()) {
      if (from !== null) crc = crc32(piece, crc);
      await write(piece);
    }
    const wanted = shape.reduce((product, n) => product * n, DTYPE_BYTES[dtype]);
    if (at - first !== wanted) throw new RangeError(`tensor "${name}": ${at - first} of ${wanted} bytes were written`);
    if (from !== null) await output.write(frames.head(i, crc), start);
    crcs[i] = crc;
  }
  await write(frames.tail(crcs));
  await output.commit();
  return at;
}
