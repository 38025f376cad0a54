/** NumPy's .npz: a zip of .npy members, stored or deflated. Stored members are read in place, and held to their checksums. */
import type { ByteSource, SpoolFile } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { CheckedSource } from "./checked.ts";
import { type Contents, ForeignError, type Format, type StoredTensor } from "./container.ts";
import { chunks } from "./inflate.ts";
import { memoryBytes, nearby } from "./memory.ts";
import { MAX_NPY_HEADER, readNpy } from "./npy.ts";
import { npzFrame, npzFrames } from "./npz_frame.ts";
import { looksLikeZip, readDirectory, type ZipEntry, ZipMember } from "./zip.ts";

/** The .npz format: members "q.npy", "k.npy" … are tensors "q", "k" …; other members are passed over. */
export const npz: Format = {
  name: "npz",
  suffix: ".npz",
  matches: looksLikeZip,
  async open(source): Promise<Contents> {
    const spools: SpoolFile[] = [];
    const entries = await readDirectory(source);
    const tensors = new Map<string, StoredTensor>();
    const near = nearby(source, 4096);
    for (const entry of entries) {
      if (!entry.fileName.endsWith(".npy")) continue;
      const tensor = await member(source, near, entry, spools);
      if (tensors.has(tensor.name)) {
        throw new InputError(`Cannot read "${source.path}": it holds "${tensor.name}" twice`);
      }
      tensors.set(tensor.name, tensor);
    }
    if (tensors.size === 0) throw noTensors(source, entries);
    return {
      tensors: [...tensors.values()],
      metadata: {},
      async [Symbol.asyncDispose]() {
        for (const spool of spools) await spool[Symbol.asyncDispose]();
      },
    };
  },
  frame: npzFrame,
  frames: npzFrames,
};

function noTensors(source: ByteSource, entries: readonly ZipEntry[]): InputError {
  const torch = entries.some(({ fileName }) => fileName.endsWith("data.pkl"));
  return new ForeignError(
    `Cannot read "${source.path}": it is a ${
      torch ? "PyTorch checkpoint" : "zip without .npy members"
    }, expected an .npz`,
  );
}

/** `near` are the bytes of the source for its headers. */
async function member(
  source: ByteSource,
  near: ByteSource,
  entry: ZipEntry,
  spools: SpoolFile[],
): Promise<StoredTensor> {
  const name = entry.fileName.slice(0, -4);
  const label = `tensor "${name}" in "${source.path}"`;
  const found = await ZipMember.open(source, entry, label, near);
  if (found.isStored) {
    const { offset, ...tensor } = await readNpy(near, found.start, found.start + entry.uncompressedSize, label);
    const { uncompressedSize, crc32 } = entry;
    const checked = new CheckedSource(source, found.start, uncompressedSize, crc32, label);
    let around: Promise<void> | undefined;
    const locate = async () => {
      await (around ??= readAround(checked, offset, tensor.byteLength));
      return { source: checked, offset };
    };
    return { ...tensor, name, locate };
  }
  const head = memoryBytes(await found.head(12 + MAX_NPY_HEADER), source.path);
  const { offset, ...tensor } = await readNpy(head, 0, entry.uncompressedSize, label);
  const locate = async () => ({ source: (await found.bytes(spools)).source, offset });
  return { ...tensor, name, locate };
}

/** Reads what of a member is no element of its array, which the checksum is of as well: the header, and whatever stands behind. */
async function readAround(checked: CheckedSource, offset: number, length: number): Promise<void> {
  const { start, length: all } = checked;
  for await (const _ of chunks(checked, start, offset - start)) { /* seen by `checked` */ }
  for await (const _ of chunks(checked, offset + length, start + all - offset - length)) { /* likewise */ }
}
