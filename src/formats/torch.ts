/**
 * PyTorch's checkpoints (.pt, .pth, .bin, .ckpt): the pickle is read as data, nothing in it is called, and the tensors of the
 * model are read where they stand. Names are those of the state dict; metadata says what it was wrapped in ("wrapper"), what
 * was left out ("left_out": optimisers and the like) and what the pickle would have called ("never_called").
 */
import { InputError } from "../errors.ts";
import type { Contents, Format, StoredTensor } from "./container.ts";
import { Opaque } from "./pickle_values.ts";
import type { TorchFile } from "./torch_file.ts";
import { looksLikePickle, readTorchLegacy } from "./torch_legacy.ts";
import type { TorchTensor } from "./torch_objects.ts";
import { stateOf } from "./torch_state.ts";
import { readTorchZip } from "./torch_zip.ts";
import { strides } from "./view.ts";
import { looksLikeZip } from "./zip.ts";

/** Elements that repeats of stored ones may come to: by `expand` (or 64 for each stored one), and by rows that overlap, which are slower. */
const MAX_EXPANDED = 2 ** 25;
const MAX_OVERLAPPING = 2 ** 20;

/** The checkpoints of torch.save; only read. */
export const torch: Format = {
  name: "torch",
  suffix: ".pt",
  matches: (head) => looksLikeZip(head) || looksLikePickle(head) || isTar(head),
  async open(source): Promise<Contents> {
    const head = new Uint8Array(Math.min(512, source.byteLength));
    await source.read(head, 0);
    if (isTar(head)) {
      throw new InputError(
        `Cannot read "${source.path}": it is a tar archive, as torch before 0.1.10 wrote; load and save it with a newer torch`,
      );
    }
    const file = await (looksLikeZip(head) ? readTorchZip(source) : readTorchLegacy(source));
    try {
      const { tensors, metadata } = stateOf(file.root, file.neverCalled, source.path);
      return {
        tensors: placed(tensors, file, source.path),
        metadata: Object.fromEntries(metadata),
        [Symbol.asyncDispose]: () => file.dispose(),
      };
    } catch (error) {
      await file.dispose();
      throw error;
    }
  },
};

/** "ustar" at its place. */
const isTar = (head: Uint8Array) => String.fromCharCode(...head.subarray(257, 262)) === "ustar";

/** The tensors with their place in the file, each checked against its storage. */
function placed(named: ReadonlyMap<string, TorchTensor | Opaque>, file: TorchFile, path: string): StoredTensor[] {
  const ways = new Map<string, ReturnType<TorchFile["storage"]>>();
  const firsts = new Map<string, string>();
  return [...named].map(([name, tensor]): StoredTensor => {
    if (tensor instanceof Opaque) return unreadable(name, tensor, path);
    const { storage, dtype, typeName, itemBytes, shape, offset } = tensor;
    const count = checkedCount(tensor, `tensor "${name}" in "${path}"`);
    let way = ways.get(storage.key);
    if (!way) ways.set(storage.key, way = file.storage(storage));
    const place = [storage.key, offset, itemBytes, shape, tensor.strides].join("/");
    const sameAs = firsts.get(place);
    if (sameAs === undefined) firsts.set(place, name);
    const reach = way;
    return {
      name,
      dtype,
      typeName,
      shape,
      byteLength: count * itemBytes,
      ...layout(tensor, count),
      littleEndian: file.littleEndian,
      storage: storage.key,
      ...sameAs === undefined ? {} : { sameAs },
      async locate() {
        const { source, start } = await reach();
        return { source, offset: start + offset * itemBytes };
      },
    };
  });
}

function unreadable(name: string, { name: typeName }: Opaque, path: string): StoredTensor {
  return {
    name,
    dtype: null,
    typeName,
    shape: [],
    byteLength: 0,
    order: "C",
    littleEndian: true,
    async locate() {
      throw new InputError(`Cannot read tensor "${name}" in "${path}": it would call ${typeName}, which is never done`);
    },
  };
}

/** Elements of a tensor; throws InputError where they are not all in its storage. */
function checkedCount({ storage, shape, strides, offset, itemBytes }: TorchTensor, label: string): number {
  if (shape.includes(0)) return 0;
  const count = shape.reduce((product, n) => product * n, 1);
  const last = shape.reduce((end, n, i) => end + (n - 1) * strides[i], offset);
  const held = Math.floor(storage.count * storage.itemBytes / itemBytes);
  if (!(last < held)) {
    throw new InputError(`Cannot read ${label}: shape [${shape.join(", ")}] goes beyond the ${held} elements stored`);
  }
  const distinct = shape.reduce((product, n, i) => strides[i] === 0 ? product : product * n, 1);
  if (count > Math.max(MAX_EXPANDED, 64 * held) || distinct > Math.max(MAX_OVERLAPPING, held)) {
    throw new InputError(`Cannot read ${label}: shape [${shape.join(", ")}] repeats ${held} stored elements too often`);
  }
  return count;
}

/** C or Fortran order where the strides are just that. */
function layout(tensor: TorchTensor, count: number): Pick<StoredTensor, "order" | "strides"> {
  const { shape, strides: given } = tensor;
  const is = (order: "C" | "F") => strides(shape, order).every((step, i) => shape[i] === 1 || step === given[i]);
  if (count === 0 || is("C")) return { order: "C" };
  return is("F") ? { order: "F" } : { order: "C", strides: given };
}
