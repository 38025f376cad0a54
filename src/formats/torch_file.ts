/** What the two layouts of torch.save have in common. */
import type { ByteSource } from "../bytes.ts";
import type { Storage } from "./torch_objects.ts";

/** A checkpoint whose pickle is read and whose storages can be found. */
export interface TorchFile {
  /** The object that was saved. */
  readonly root: unknown;
  readonly neverCalled: ReadonlySet<string>;
  readonly littleEndian: boolean;
  /** Checks that the file holds a storage, and how to reach its bytes; throws InputError where it does not. */
  storage(storage: Storage): () => Promise<{ source: ByteSource; start: number }>;
  /** Drops what was unpacked. */
  dispose(): Promise<void>;
}
