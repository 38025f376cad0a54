/**
 * Checkpoints of torch before 1.6, and of `_use_new_zipfile_serialization=False` (torch/serialization.py `_legacy_save`):
 * four pickles (a magic number, a version, facts of the machine, the object), the list of storage keys, then each storage as
 * its number of elements and its elements, little-endian on every machine.
 */
import type { ByteSource } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { unpickle } from "./pickle.ts";
import { printable } from "./pickle_values.ts";
import type { TorchFile } from "./torch_file.ts";
import { TorchHooks } from "./torch_objects.ts";

const MAGIC = 0x1950a86a20f9469cfc6cn;
const VERSION = 1001;

/** A pickle that torch.save, or somebody else, wrote: binary, or text that begins with a number or a name. */
export function looksLikePickle(head: Uint8Array): boolean {
  if (head[0] === 0x80) return head[1] <= 5;
  const text = String.fromCharCode(...head.subarray(0, 200));
  return text.startsWith(`L${MAGIC}L\n`) || /^\(?[ci][\w.]+\n[\w.]+\n/.test(text);
}

/** What a legacy checkpoint holds; throws InputError for another pickle and a damaged one. */
export async function readTorchLegacy(source: ByteSource): Promise<TorchFile> {
  const { path, byteLength } = source;
  const label = `"${path}"`;
  const read = (at: number) => unpickle(source, at, byteLength, label, () => new TorchHooks());
  const magic = await read(0);
  if (magic.value !== MAGIC) {
    const [name] = magic.hooks.neverCalled;
    throw new InputError(
      name === undefined
        ? `Cannot read ${label}: it is a pickle that torch.save did not write, expected a PyTorch checkpoint`
        : `Cannot read ${label}: it would call ${name}, which is never done; expected tensors`,
    );
  }
  const version = await read(magic.end);
  if (version.value !== VERSION) {
    throw new InputError(`Cannot read ${label}: its version is not the expected ${VERSION}`);
  }
  const machine = await read(version.end);
  const object = await read(machine.end);
  const keys = await read(object.end);
  const starts = await storageStarts(source, keys.end, keys.value, object.hooks);
  return {
    root: object.value,
    neverCalled: new Set([magic, version, machine, object, keys].flatMap(({ hooks }) => [...hooks.neverCalled])),
    littleEndian: true,
    storage({ key }) {
      const start = starts.get(key);
      if (start === undefined) {
        throw new InputError(`Cannot read storage "${printable(key)}" in ${label}: the file does not hold it`);
      }
      return async () => ({ source, start });
    },
    dispose: async () => {},
  };
}

async function storageStarts(
  source: ByteSource,
  first: number,
  keys: unknown,
  { storages }: TorchHooks,
): Promise<Map<string, number>> {
  if (!Array.isArray(keys)) throw new InputError(`Cannot read "${source.path}": its list of storages is no list`);
  const starts = new Map<string, number>();
  const size = new Uint8Array(8);
  let at = first;
  for (const key of keys) {
    const storage = typeof key === "string" ? storages.get(key) : undefined;
    if (!storage || starts.has(storage.key)) {
      throw new InputError(
        `Cannot read "${source.path}": its list of storages names one that no tensor has, or one twice`,
      );
    }
    const label = `storage "${printable(storage.key)}" in "${source.path}"`;
    const bytes = storage.count * storage.itemBytes;
    if (at + 8 + bytes > source.byteLength) {
      throw new InputError(
        `Cannot read ${label}: it is truncated, it needs ${bytes} bytes, ${
          Math.max(0, source.byteLength - at - 8)
        } are present`,
      );
    }
    await source.read(size, at);
    const count = new DataView(size.buffer).getBigInt64(0, true);
    if (count !== BigInt(storage.count)) {
      throw new InputError(`Cannot read ${label}: it has ${count} elements, expected ${storage.count}`);
    }
    starts.set(storage.key, at + 8);
    at += 8 + bytes;
  }
  return starts;
}
