/** NumPy's .npz: a zip of .npy members, stored or deflated. Stored members are read in place. */
import type { ByteSource, SpoolFile } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { type Contents, ForeignError, type Format, type StoredTensor } from "./container.ts";
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
    return { ...tensor, name, locate: async () => ({ source, offset }) };
  }
  const head = memoryBytes(await found.head(12 + MAX_NPY_HEADER), source.path);
  const { offset, ...tensor } = await readNpy(head, 0, entry.uncompressedSize, label);
  const locate = async () => ({ source: (await found.bytes(spools)).source, offset });
  return { ...tensor, name, locate };
}
