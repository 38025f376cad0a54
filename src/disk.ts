/** Descriptors and temporary files: what bytes.ts stands on. Only these two files and disk_names.ts touch node:fs. */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { changeError, code, endError, readError, writeError } from "./system_errors.ts";

/** Bytes copied at a time. */
export const CHUNK = 2 ** 20;
/** One system call moves less than 2 GiB. */
const MAX_TRANSFER = 2 ** 30;

/**
 * Largest resident set of this process in bytes, where Linux tells; null elsewhere. Unlike `getrusage` it does not count what the
 * process was forked from.
 */
export function peakResident(): number | null {
  try {
    const line = /^VmHWM:\s*(\d+) kB$/m.exec(fs.readFileSync("/proc/self/status", "latin1"));
    return line && 1024 * Number(line[1]);
  } catch {
    return null;
  }
}

/** Makes a folder and those above it. Throws UsageError where it cannot be, TransientError when the disk is full. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await fs.promises.mkdir(path, { recursive: true });
  } catch (error) {
    throw writeError(error, path);
  }
}

/** Files and folders to remove when the process ends early: cli.ts calls `removeAll` on signals and on exit. */
class Temporaries {
  readonly #paths = new Set<string>();
  /** What to say when a signal ends the process at once: what is kept on purpose, and how to go on. */
  parting: (() => string) | null = null;

  add(path: string): void {
    this.#paths.add(path);
  }

  /** Forgets a file: it was renamed to its final name. */
  keep(path: string): void {
    this.#paths.delete(path);
  }

  /** Removes one file or folder; false when the system does not let go of it yet (an open file on Windows). */
  remove(path: string): boolean {
    try {
      if (fs.lstatSync(path).isDirectory()) fs.rmSync(path, { recursive: true, force: true });
      else fs.unlinkSync(path);
    } catch (error) {
      if (code(error) !== "ENOENT") return false;
    }
    return this.#paths.delete(path);
  }

  /** Removes every temporary file and folder that still exists. Synchronous, so that it may run in an exit handler. */
  removeAll(): void {
    for (const path of [...this.#paths]) this.remove(path);
  }
}

/** The temporary files of this process. */
export const temporaries: Temporaries = new Temporaries();

/** How a file stood when it was opened. */
interface Stand {
  readonly size: bigint;
  readonly mtimeNs: bigint;
}

/** What messages call a file, and what they add where it has no room. */
export interface Named {
  readonly name: string;
  readonly wayOut?: string;
}

/** An open file. `byteLength` is its size when opened, or the end of what was written. */
export class DiskFile {
  #fd: number;
  #byteLength: number;
  readonly #named: Named;
  /** Of a file that others may write to. */
  #stand: Stand | null = null;

  constructor(readonly path: string, fd: number, byteLength: number, named: Named = { name: path }) {
    this.#fd = fd;
    this.#byteLength = byteLength;
    this.#named = named;
  }

  /** A file that is only read, as it stands now: from here on a change is noticed. */
  static watched(path: string, fd: number): DiskFile {
    const stand = fs.fstatSync(fd, { bigint: true });
    const file = new DiskFile(path, fd, Number(stand.size));
    file.#stand = stand;
    return file;
  }

  /**
   * Throws TransientError when a watched file has another size or time of change than when it was opened. Costs one system call, so
   * that every pass can end with it. A file that was replaced under its name is still the old one here, and has not changed.
   */
  async unchanged(): Promise<void> {
    if (!this.#stand) return;
    const { size, mtimeNs } = fs.fstatSync(this.#fd, { bigint: true });
    if (size === this.#stand.size && mtimeNs === this.#stand.mtimeNs) return;
    throw changeError(this.path, Number(this.#stand.size), Number(size));
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  async read(into: Uint8Array, at: number): Promise<void> {
    // Beyond 2^53 the system is not asked: no file ends there.
    if (at + into.length > Number.MAX_SAFE_INTEGER) throw endError(this.path, this.#byteLength, into.length);
    for (let done = 0; done < into.length;) {
      const wanted = Math.min(MAX_TRANSFER, into.length - done);
      let count: number;
      try {
        count = fs.readSync(this.#fd, into, done, wanted, at + done);
      } catch (error) {
        throw readError(error, this.path);
      }
      if (count === 0) {
        await this.unchanged(); // it may have been cut off since
        throw endError(this.path, at + done, into.length - done);
      }
      done += count;
    }
  }

  async write(bytes: Uint8Array, at: number): Promise<void> {
    try {
      await writeFully(this.#fd, bytes, at);
    } catch (error) {
      throw this.#writeError(error);
    }
    this.#byteLength = Math.max(this.#byteLength, at + bytes.length);
  }

  /** Returns when all that was written would be there after a power cut. */
  sync(): void {
    try {
      fs.fdatasyncSync(this.#fd);
    } catch (error) {
      throw writeError(error, this.path);
    }
  }

  /** What has been written may only now turn out to have no room (network file systems). */
  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    try {
      fs.closeSync(fd);
    } catch (error) {
      throw this.#writeError(error);
    }
  }

  #writeError(error: unknown): Error {
    return writeError(error, this.#named.name, this.#named.wayOut);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/** Makes a folder of our own among the temporary ones; it is registered for removal, with all that is in it. */
export function temporaryFolder(name: string): string {
  const path = fs.mkdtempSync(join(tmpdir(), `${name}-`));
  temporaries.add(path);
  return path;
}

/** Creates a new file beside `target` under a name nobody has; the name is registered for removal. Messages call it `named`. */
export function temporaryFile(target: string, mode: number, named: Named = { name: target }): DiskFile {
  const path = join(dirname(target), `.${basename(target)}.${crypto.randomUUID()}.tmp`);
  try {
    const fd = fs.openSync(path, "wx+", mode);
    temporaries.add(path);
    return new DiskFile(path, fd, 0, named);
  } catch (error) {
    throw writeError(error, named.name, named.wayOut);
  }
}

/** What tells one file from another, and a file from itself before a change. */
export interface FileIdentity {
  /** With links followed. */
  readonly path: string;
  /** Number of the file in its file system: it stays through a change of name. */
  readonly inode: number;
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly changed: number;
}

/** An open file of `Disk`. */
export type OpenFile = Pick<DiskFile, "read" | "write" | "sync" | "close">;

/** The calls that outputs which outlive a power cut are made of (partial_output.ts); tests cut the power between any two of them. */
export interface Disk {
  /** Opens a file for positioned writes and reads, as it is or (`create`) new and empty. It is nobody's temporary. */
  open(path: string, options: { readonly create: boolean }): OpenFile;
  /** Of a regular file; null where there is none at that path. */
  identity(path: string): FileIdentity | null;
  rename(from: string, to: string): void;
  /** Removes a file where there is one. */
  remove(path: string): void;
  /** Returns when the names in a folder would be there after a power cut. Systems without such a call do so on their own. */
  syncFolder(path: string): void;
}

/** The disk of this machine. */
export const disk: Disk = {
  open(path, { create }) {
    try {
      const fd = fs.openSync(path, create ? "w+" : "r+");
      return new DiskFile(path, fd, fs.fstatSync(fd).size);
    } catch (error) {
      throw writeError(error, path);
    }
  },

  identity(path) {
    const stat = fs.statSync(path, { throwIfNoEntry: false });
    if (!stat?.isFile()) return null;
    return { path: fs.realpathSync(path), inode: stat.ino, size: stat.size, changed: stat.mtimeMs };
  },

  rename(from, to) {
    try {
      fs.renameSync(from, to);
    } catch (error) {
      throw writeError(error, to);
    }
  },

  remove(path) {
    try {
      fs.unlinkSync(path);
    } catch (error) {
      if (code(error) !== "ENOENT") throw writeError(error, path);
    }
  },

  syncFolder(path) {
    let fd: number | null = null;
    try {
      fd = fs.openSync(path, "r");
      fs.fsyncSync(fd);
    } catch (error) {
      const none = ["EISDIR", "EPERM", "EINVAL", "EACCES", "ENOTSUP"]; // not for folders, or not on this system
      if (!none.includes(code(error) ?? "")) throw writeError(error, path);
    } finally {
      if (fd !== null) fs.closeSync(fd);
    }
  },
};

/** A file in the temporary folder, as `temporaryFile` makes one. */
export function passingFile(): DiskFile {
  const folder = tmpdir();
  const wayOut = "; free some there, or set TMPDIR to a folder that has more";
  return temporaryFile(join(folder, "performer"), 0o600, { name: folder, wayOut });
}

/** The next bytes of a pipe, at least one; 0 at its end. */
export async function readSome(fd: number, into: Uint8Array, name: string): Promise<number> {
  for (;;) {
    try {
      return fs.readSync(fd, into, 0, Math.min(CHUNK, into.length), null);
    } catch (error) {
      if (code(error) === "EOF") return 0; // Windows reports the end of a pipe as an error.
      if (code(error) !== "EAGAIN") throw readError(error, name);
      await pause();
    }
  }
}

/**
 * Opens a named pipe for writing when somebody reads it. Until then it is asked again and again, since a call that waits for the reader would
 * keep Ctrl-C and SIGTERM from being heard. Throws what the system says.
 */
export async function openPipe(path: string): Promise<number> {
  for (;;) {
    try {
      const probe = openRead(path);
      try {
        return fs.openSync(path, "w"); // does not wait any more, and its writes do
      } finally {
        fs.closeSync(probe);
      }
    } catch (error) {
      if (code(error) !== "ENXIO") throw error;
      await pause();
    }
  }
}

/** Lets whoever waits for the first bytes of a named pipe see its end. */
export function endPipe(path: string): void {
  try {
    fs.closeSync(openRead(path));
  } catch {
    return; // nobody waits
  }
}

/** Opens a named pipe that somebody reads; ENXIO where nobody does. */
const openRead = (path: string) => fs.openSync(path, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK);

/** Closes a descriptor of our own. */
export const closeDescriptor = (fd: number): void => fs.closeSync(fd);

/** Writes all of `bytes` at a position, or at the end of a pipe (null). Throws what the system says. */
export async function writeFully(fd: number, bytes: Uint8Array, at: number | null): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const wanted = Math.min(MAX_TRANSFER, bytes.length - done);
    try {
      done += fs.writeSync(fd, bytes, done, wanted, at === null ? null : at + done);
    } catch (error) {
      if (code(error) !== "EAGAIN") throw error;
      await pause();
    }
  }
}

/** Writes all of `bytes` at the end of a pipe before returning: for threads, which may wait. Throws what the system says. */
export function writeNow(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) {
    try {
      done += fs.writeSync(fd, bytes, done, bytes.length - done, null);
    } catch (error) {
      if (code(error) !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2); // a full pipe: wait a moment
    }
  }
}

/** A pipe that is not ready: wait a moment, as node:fs cannot poll. */
function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 2));
}
