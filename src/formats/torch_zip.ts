/**
 * Checkpoints of torch 1.6 and later (torch/serialization.py `_save`): a zip of NAME/data.pkl, NAME/data/KEY for each
 * storage, and NAME/byteorder since 2.1. Tensors are read in place, and stored members not held to their checksums: torch leaves those out
 * where it is told so (`torch.serialization.set_crc32_options`).
 */
import type { ByteSource, SpoolFile } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { ForeignError } from "./container.ts";
import { MAX_PICKLE, unpickle } from "./pickle.ts";
import { Opaque, printable } from "./pickle_values.ts";
import { TorchHooks } from "./torch_objects.ts";
import type { TorchFile } from "./torch_file.ts";
import { readDirectory, type ZipEntry, ZipMember } from "./zip.ts";

/** What a zip checkpoint holds; throws ForeignError for another zip, InputError for a damaged one. */
export async function readTorchZip(source: ByteSource): Promise<TorchFile> {
  const { path } = source;
  const entries = new Map<string, ZipEntry>();
  for (const entry of await readDirectory(source)) {
    if (entries.has(entry.fileName)) {
      throw new InputError(`Cannot read "${path}": it holds "${printable(entry.fileName)}" twice`);
    }
    entries.set(entry.fileName, entry);
  }
  const pickles = [...entries.keys()].filter((name) => /^([^/]+\/)?data\.pkl$/.test(name));
  if (pickles.length === 0) throw new ForeignError(`Cannot read "${path}": it is a zip without data.pkl`);
  if (pickles.length > 1) throw new InputError(`Cannot read "${path}": it holds ${pickles.length} checkpoints`);
  const folder = pickles[0].slice(0, -"data.pkl".length);
  const spools: SpoolFile[] = [];
  try {
    const littleEndian = await isLittleEndian(source, entries.get(`${folder}byteorder`));
    const { value, hooks } = await readPickle(source, entries.get(pickles[0])!, spools);
    if (value instanceof Opaque && entries.has(`${folder}constants.pkl`)) {
      throw new InputError(
        `Cannot read "${path}": it is a TorchScript program, expected tensors; save its state_dict()`,
      );
    }
    return {
      root: value,
      neverCalled: hooks.neverCalled,
      littleEndian,
      storage({ key, count, itemBytes }) {
        const label = `storage "${printable(key)}" in "${path}"`;
        const entry = entries.get(`${folder}data/${key}`);
        if (!entry) throw new InputError(`Cannot read ${label}: the file does not hold it`);
        if (entry.uncompressedSize !== count * itemBytes) {
          throw new InputError(
            `Cannot read ${label}: it has ${entry.uncompressedSize} bytes, expected ${count * itemBytes}`,
          );
        }
        let member: Promise<ZipMember> | undefined;
        return async () => await (await (member ??= ZipMember.open(source, entry, label))).bytes(spools);
      },
      dispose: () => disposeAll(spools),
    };
  } catch (error) {
    await disposeAll(spools);
    throw error;
  }
}

async function readPickle(source: ByteSource, entry: ZipEntry, spools: SpoolFile[]) {
  const label = `"${source.path}"`;
  if (entry.uncompressedSize > MAX_PICKLE) {
    throw new InputError(
      `Cannot read ${label}: its pickle has ${entry.uncompressedSize} bytes, expected at most ${MAX_PICKLE}`,
    );
  }
  const bytes = await (await ZipMember.open(source, entry, label)).bytes(spools);
  return await unpickle(bytes.source, bytes.start, bytes.start + entry.uncompressedSize, label, () => new TorchHooks());
}

async function isLittleEndian(source: ByteSource, entry: ZipEntry | undefined): Promise<boolean> {
  if (!entry) return true;
  const label = `"${source.path}"`;
  const order = String.fromCharCode(...await (await ZipMember.open(source, entry, label)).head(16)).trim();
  if (order === "little" || order === "big") return order === "little";
  throw new InputError(`Cannot read ${label}: its byte order is "${printable(order)}", expected little or big`);
}

async function disposeAll(spools: readonly SpoolFile[]): Promise<void> {
  for (const spool of spools) await spool[Symbol.asyncDispose]();
}
