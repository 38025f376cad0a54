/**
 * Outputs that outlive a run that was ended: written in place under a name of their own (`OUT.partial`), which becomes `OUT` when they are
 * complete. Beside them stands a journal (`OUT.journal`, run_journal.ts) of what in them can be relied on.
 *
 * What holds after a power cut is a matter of order alone: rows are synced before a journal that claims them gets its name, and a
 * journal goes only after the output has its own.
 */
import { dirname } from "node:path";
import type { ByteSink } from "./bytes.ts";
import { type Disk, disk as ownDisk, type OpenFile } from "./disk.ts";
import { whereIs } from "./disk_names.ts";
import { InputError } from "./errors.ts";

/** What the files of one output are called. */
export interface PartialNames {
  readonly output: string;
  readonly partial: string;
  readonly journal: string;
  /** A journal that is being written, which nobody reads. */
  readonly next: string;
}

/** A link stays a link: names are those of the file that it leads to. */
export function partialNames(path: string): PartialNames {
  const output = whereIs(path);
  return { output, partial: `${output}.partial`, journal: `${output}.journal`, next: `${output}.journal.next` };
}

/** An output that is written in place. */
export class PartialOutput implements ByteSink {
  readonly sequential = false;
  readonly #file: OpenFile;

  /** `create`: begins it, and what was there under its name goes; else goes on with it. */
  constructor(
    readonly path: string,
    readonly names: PartialNames,
    options: { readonly create: boolean },
    readonly disk: Disk = ownDisk,
  ) {
    this.#file = disk.open(names.partial, options);
    if (!options.create) return;
    this.#file.sync();
    disk.syncFolder(dirname(names.partial));
  }

  /** Its number in the file system, which it keeps under its later name. */
  get inode(): number {
    const identity = this.disk.identity(this.names.partial);
    if (!identity) throw new InputError(`Cannot find "${this.names.partial}": it was removed while it was written`);
    return identity.inode;
  }

  write(bytes: Uint8Array, at: number): Promise<void> {
    return this.#file.write(bytes, at);
  }

  read(into: Uint8Array, at: number): Promise<void> {
    return this.#file.read(into, at);
  }

  /** Returns when what was written would be there after a power cut. */
  sync(): void {
    this.#file.sync();
  }

  async commit(): Promise<void> {
    const { partial, output } = this.names;
    this.#file.sync();
    this.#file.close();
    this.disk.rename(partial, output);
    this.disk.syncFolder(dirname(output));
  }

  /** Closes it; what is written stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#file.close();
  }
}

/** The bytes of a journal; null where there is none. */
export async function readJournal({ journal }: PartialNames, disk: Disk = ownDisk): Promise<Uint8Array | null> {
  const size = disk.identity(journal)?.size;
  if (size === undefined) return null;
  const bytes = new Uint8Array(size);
  const file = disk.open(journal, { create: false });
  try {
    await file.read(bytes, 0);
  } finally {
    file.close();
  }
  return bytes;
}

/** Puts a journal in the place of the one before; at any moment one of them is there whole. */
export async function replaceJournal(names: PartialNames, bytes: Uint8Array, disk: Disk = ownDisk): Promise<void> {
  const { next, journal } = names;
  const file = disk.open(next, { create: true });
  try {
    await file.write(bytes, 0);
    file.sync();
  } finally {
    file.close();
  }
  disk.rename(next, journal);
  disk.syncFolder(dirname(journal));
}

/** Removes a journal: its output is complete and has its name. */
export function removeJournal({ next, journal }: PartialNames, disk: Disk = ownDisk): void {
  disk.remove(journal);
  disk.remove(next);
  disk.syncFolder(dirname(journal));
}
