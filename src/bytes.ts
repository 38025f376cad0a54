/**
 * Files and streams as bytes at positions.
 *
 * Everything is `ByteSource`: two members that can be wrapped to count, slow down or fail. Positions are plain numbers
 * and may exceed 2^32, so no shift ever touches them. Reads and writes are synchronous inside (measured fastest on both
 * runtimes) behind a promise, so that a source may also be remote.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import {
  CHUNK,
  DiskFile,
  makeFolder,
  passingFile,
  peakResident,
  readSome,
  temporaries,
  temporaryFile,
  temporaryFolder,
} from "./disk.ts";
import { isStandardOutput, outputKind, whereIs } from "./disk_names.ts";
import { InputError, UsageError } from "./errors.ts";
import { StreamSink } from "./stream_sink.ts";
import { code, endError, readError, writeError } from "./system_errors.ts";

/** Bytes that can be read at any position. */
export interface ByteSource extends AsyncDisposable {
  /** What messages call it: a path, or "standard input". */
  readonly path: string;
  readonly byteLength: number;
  /** Fills all of `into` from position `at`, or throws InputError when the bytes end before. */
  read(into: Uint8Array, at: number): Promise<void>;
  /** Throws TransientError when they are not the bytes that were opened; to be asked at the end of a pass. Absent: they cannot change. */
  unchanged?(): Promise<void>;
}

/** Bytes that are written; a file appears under its name only with `commit`, and disposing before leaves nothing. */
export interface ByteSink extends AsyncDisposable {
  readonly path: string;
  /** Pipes and devices: bytes can only be appended. */
  readonly sequential: boolean;
  write(bytes: Uint8Array, at: number): Promise<void>;
  /** Reads back what was written; only where `sequential` is false. */
  read(into: Uint8Array, at: number): Promise<void>;
  commit(): Promise<void>;
}

export { CHUNK, makeFolder, peakResident, temporaries, temporaryFolder };

/** What a spool holds in memory before it goes to disk. */
const SPOOL_MEMORY = 16 * 2 ** 20;

/** Opens a file for positioned reads. Pipes are spooled first. Throws InputError when it cannot be read. */
export async function openFile(path: string): Promise<ByteSource> {
  let fd: number;
  try {
    // Looked at first: opening a directory succeeds on Linux, and opening a device may act on it.
    refuseUnreadable(fs.statSync(path), path);
    fd = fs.openSync(path, "r");
  } catch (error) {
    throw readError(error, path);
  }
  const stat = fs.fstatSync(fd);
  if (stat.isFile()) return DiskFile.watched(path, fd);
  try {
    refuseUnreadable(stat, path);
    return await spoolDescriptor(fd, path);
  } finally {
    fs.closeSync(fd);
  }
}

/** All bytes of a file. Throws InputError when it cannot be read. */
export async function readBytes(path: string): Promise<Uint8Array<ArrayBuffer>> {
  await using file = await openFile(path);
  const bytes = new Uint8Array(file.byteLength);
  await file.read(bytes, 0);
  await file.unchanged?.();
  return bytes;
}

/** A file's text (UTF-8). Throws InputError when it cannot be read. */
export const readText = async (path: string): Promise<string> => new TextDecoder().decode(await readBytes(path));

/** Standard input as text (UTF-8), in the pieces that it comes in. */
export async function* streamText(): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(1 << 16);
  for (let count; (count = await readSome(0, buffer, "standard input")) > 0;) {
    yield decoder.decode(buffer.subarray(0, count), { stream: true });
  }
  yield decoder.decode();
}

/** What is in a folder, by name; nothing where it cannot be read. */
export function listFolder(path: string): { name: string; isFolder: boolean }[] {
  try {
    return fs.readdirSync(path, { withFileTypes: true }).map((entry) => {
      const isFolder = entry.isDirectory() || (entry.isSymbolicLink() && isFolderAt(join(path, entry.name)));
      return { name: entry.name, isFolder };
    }).sort((a, b) => a.name < b.name ? -1 : 1);
  } catch {
    return [];
  }
}

/** What a path leads to; null where that is nothing. */
function statOf(path: string): fs.Stats | null {
  try {
    return fs.statSync(path, { throwIfNoEntry: false }) ?? null;
  } catch (error) {
    if (code(error) === "ENOTDIR") return null; // Bun's word where a part of the path is a file
    throw error;
  }
}

/** When a file was last changed, in milliseconds since 1970; null where there is none. */
export const changeTime = (path: string): number | null => statOf(path)?.mtimeMs ?? null;

/** Writes a text (UTF-8); the file appears under its name when it is complete. Throws UsageError for a path that cannot be written. */
export async function writeText(path: string, text: string, { executable = false } = {}): Promise<void> {
  await using sink = openOutput(path);
  await sink.write(new TextEncoder().encode(text), 0);
  await sink.commit();
  if (executable && !sink.sequential) fs.chmodSync(path, 0o755);
}

/** Makes a folder that files are to be written to, and those above it. Throws UsageError where there can be none. */
export async function makeOutputFolder(path: string): Promise<void> {
  try {
    await makeFolder(path);
  } catch (error) {
    throw writeError(error, path);
  }
}

/** Whether a path names a file that can be read once more, or written once more from its beginning: none of pipes and devices. */
export const isPlainFile = (path: string): boolean => fs.statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;

/** Whether a path names a folder that exists. */
export const isFolderAt = (path: string): boolean => statOf(path)?.isDirectory() ?? false;

/** Reads standard input to its end and makes it readable at any position. */
export function spoolStdin(): Promise<ByteSource> {
  return spoolDescriptor(0, "standard input");
}

/** Standard input for a single pass: read in order, nothing is kept but its first bytes. Short input is kept whole. */
export async function streamStdin(): Promise<ByteSource & { spool(): Promise<ByteSource> }> {
  const pipe = new PipeSource("standard input", 0);
  await pipe.start();
  return pipe;
}

/** A pipe whose head can be read again; `byteLength` is Infinity where it goes on beyond. */
class PipeSource implements ByteSource {
  byteLength = Infinity;
  #head = new Uint8Array(1 << 16);
  #position = 0;

  constructor(readonly path: string, readonly fd: number) {}

  async start(): Promise<void> {
    while (this.#position < this.#head.length) {
      const count = await readSome(this.fd, this.#head.subarray(this.#position), this.path);
      if (count === 0) this.byteLength = this.#position;
      this.#position += count;
      if (count === 0) break;
    }
    this.#head = this.#head.slice(0, this.#position);
  }

  async read(into: Uint8Array, at: number): Promise<void> {
    const again = this.#head.subarray(at, at + into.length);
    into.set(again);
    for (let done = again.length; done < into.length;) {
      if (at + done !== this.#position) {
        throw new RangeError(`${this.path} is at ${this.#position}, cannot read at ${at}`);
      }
      const count = this.byteLength === Infinity ? await readSome(this.fd, into.subarray(done), this.path) : 0;
      if (count === 0) throw endError(this.path, at + done, into.length - done);
      this.#position += count;
      done += count;
    }
  }

  /** Makes it readable at any position; only before anything beyond the head was read. */
  async spool(): Promise<ByteSource> {
    if (this.#position !== this.#head.length) throw new RangeError(`${this.path} was read already`);
    const spool = new SpoolFile(this.path);
    await spool.append(this.#head);
    return this.byteLength === Infinity ? await spoolDescriptor(this.fd, this.path, spool) : spool;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** Bytes of unknown length, appended and then read anywhere: in memory up to a limit, in a temporary file beyond. */
export class SpoolFile implements ByteSource {
  readonly #memoryLimit: number;
  #memory: Uint8Array = new Uint8Array(0);
  #byteLength = 0;
  #disk?: DiskFile;
  #temporary = "";

  constructor(readonly path: string, memoryLimit = SPOOL_MEMORY) {
    this.#memoryLimit = memoryLimit;
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  /** Whether the bytes went to a temporary file. */
  get onDisk(): boolean {
    return this.#disk !== undefined;
  }

  /** Adds bytes at the end; they are copied. Throws TransientError when the temporary folder is full. */
  async append(bytes: Uint8Array): Promise<void> {
    const end = this.#byteLength + bytes.length;
    if (!this.#disk && end <= this.#memoryLimit) {
      if (end > this.#memory.length) {
        const grown = new Uint8Array(Math.min(this.#memoryLimit, Math.max(end, 2 * this.#memory.length, 4096)));
        grown.set(this.#memory.subarray(0, this.#byteLength));
        this.#memory = grown;
      }
      this.#memory.set(bytes, this.#byteLength);
    } else {
      this.#disk ??= await this.#spill();
      await this.#disk.write(bytes, this.#byteLength);
    }
    this.#byteLength = end;
  }

  async read(into: Uint8Array, at: number): Promise<void> {
    if (at + into.length > this.#byteLength) {
      throw endError(this.path, this.#byteLength, at + into.length - this.#byteLength);
    }
    if (this.#disk) await this.#disk.read(into, at);
    else into.set(this.#memory.subarray(at, at + into.length));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disk?.close();
    if (this.#temporary) temporaries.remove(this.#temporary);
    this.#memory = new Uint8Array(0);
    this.#byteLength = 0;
  }

  async #spill(): Promise<DiskFile> {
    const temporary = passingFile();
    this.#temporary = temporary.path;
    // Without a name the file goes with the process, however that ends. Where it keeps its name, the registry knows it.
    if (temporaries.remove(temporary.path)) this.#temporary = "";
    await temporary.write(this.#memory.subarray(0, this.#byteLength), 0);
    this.#memory = new Uint8Array(0);
    return temporary;
  }
}

/**
 * Opens an output. A file is written under a temporary name beside its own and renamed by `commit`; "-" and devices are
 * written as they are. Throws UsageError for a path that cannot be written.
 */
export function openOutput(path: string): ByteSink {
  if (isStandardOutput(path)) return new StreamSink("standard output", 1);
  const kind = outputKind(path);
  if (kind === "folder") throw new UsageError(`Cannot write "${path}": it is a directory, name a file in it`);
  if (kind === "pipe") return new StreamSink(path, null);
  try {
    if (kind === "device") return new StreamSink(path, fs.openSync(path, "w"));
    // A link stays a link: what it leads to is replaced, or made.
    return new FileSink(path, whereIs(path));
  } catch (error) {
    throw writeError(error, path);
  }
}

/** A temporary file for positioned writes and reads, gone when disposed: for outputs that cannot be written in order. */
export function scratchFile(): ByteSink {
  const file = passingFile();
  return new FileSink(file.path, file.path, file);
}

class FileSink implements ByteSink {
  readonly sequential = false;
  readonly #file: DiskFile;
  readonly #target: string;
  #named = false;

  constructor(readonly path: string, target: string, file = temporaryFile(target, 0o666, { name: path })) {
    this.#target = target;
    this.#file = file;
  }

  write(bytes: Uint8Array, at: number): Promise<void> {
    return this.#file.write(bytes, at);
  }

  read(into: Uint8Array, at: number): Promise<void> {
    return this.#file.read(into, at);
  }

  async commit(): Promise<void> {
    this.#file.close();
    try {
      fs.renameSync(this.#file.path, this.#target);
    } catch (error) {
      throw writeError(error, this.path);
    }
    temporaries.keep(this.#file.path);
    this.#named = true;
  }

  /** After `commit` there is nothing to remove. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#file.close();
    } finally {
      if (!this.#named) temporaries.remove(this.#file.path);
    }
  }
}

/**
 * Writes all of a text to standard output (1) or standard error (2), before returning. Throws TransientError when there is no room for
 * it, what the system says of a closed pipe (EPIPE), and nothing else about standard error: nobody could be told.
 */
export function writeStandard(fd: 1 | 2, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let done = 0; done < bytes.length;) {
    try {
      done += fs.writeSync(fd, bytes, done);
    } catch (error) {
      if (fd === 2 && !["EAGAIN", "EPIPE"].includes(code(error) ?? "")) return;
      if (code(error) !== "EAGAIN") throw writeError(error, "standard output");
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2); // a full pipe: wait a moment
    }
  }
}

async function spoolDescriptor(fd: number, name: string, spool = new SpoolFile(name)): Promise<SpoolFile> {
  const buffer = new Uint8Array(CHUNK);
  try {
    for (let count; (count = await readSome(fd, buffer, name)) > 0;) await spool.append(buffer.subarray(0, count));
    return spool;
  } catch (error) {
    await spool[Symbol.asyncDispose]();
    throw error;
  }
}

function refuseUnreadable(stat: fs.Stats, path: string): void {
  if (stat.isDirectory()) throw new InputError(`Cannot read "${path}": it is a directory, expected a file`);
  if (!stat.isFile() && !stat.isFIFO()) throw new InputError(`Cannot read "${path}": it is a device, expected a file`);
}
