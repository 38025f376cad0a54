/** NumPy's .npz: a zip of .npy members, stored or deflated, zip64 included (APPNOTE 6.3). Stored members are read in place. */
import { Readable } from "node:stream";
import { createInflateRaw } from "node:zlib";
import * as yauzl from "yauzl";
import { type ByteSource, chunks, SpoolFile } from "../bytes.ts";
import { InputError } from "../errors.ts";
import type { Contents, Format, Frame, StoredTensor } from "./container.ts";
import { npyHeader, readNpy } from "./npy.ts";

const MAX_ENTRIES = 100_000;
/** A .npy header is within this many inflated bytes, or the member is refused. */
const HEAD_BYTES = 1 << 20;

export const npz: Format = {
  name: "npz",
  suffix: ".npz",
  matches: (head) => head[0] === 0x50 && head[1] === 0x4b && (head[2] === 3 || head[2] === 5),
  async open(source): Promise<Contents> {
    const spools: SpoolFile[] = [];
    const { zip, entries } = await readDirectory(source);
    const tensors: StoredTensor[] = [];
    for (const entry of entries) {
      if (!entry.fileName.endsWith(".npy")) continue;
      tensors.push(await member(source, zip, entry, spools));
    }
    return {
      tensors,
      metadata: {},
      async [Symbol.asyncDispose]() {
        zip.close();
        for (const spool of spools) await spool[Symbol.asyncDispose]();
      },
    };
  },
  frame: zipFrame,
};

class SourceReader extends yauzl.RandomAccessReader {
  constructor(readonly source: ByteSource) {
    super();
  }

  override _readStreamForRange(start: number, end: number): Readable {
    return Readable.from(chunks(this.source, start, end - start));
  }
}

function readDirectory(source: ByteSource): Promise<{ zip: yauzl.ZipFile; entries: yauzl.Entry[] }> {
  return new Promise((resolve, reject) => {
    const refuse = (error: unknown) => reject(archiveError(source, error));
    const options = { lazyEntries: true, autoClose: false, validateEntrySizes: true };
    yauzl.fromRandomAccessReader(new SourceReader(source), source.byteLength, options, (error, zip) => {
      if (error) return refuse(error);
      const entries: yauzl.Entry[] = [];
      zip.on("entry", (entry: yauzl.Entry) => {
        entries.push(entry);
        if (entries.length > MAX_ENTRIES) refuse(new Error(`it has more than ${MAX_ENTRIES} members`));
        else zip.readEntry();
      });
      zip.on("error", refuse);
      zip.on("end", () => resolve({ zip, entries }));
      zip.readEntry();
    });
  });
}

function archiveError(source: ByteSource, error: unknown): InputError {
  if (error instanceof InputError) return error;
  return new InputError(`Cannot read "${source.path}": ${(error as Error).message}`, { cause: error });
}

async function member(source: ByteSource, zip: yauzl.ZipFile, entry: yauzl.Entry, spools: SpoolFile[]): Promise<StoredTensor> {
  const name = entry.fileName.slice(0, -4);
  const label = `tensor "${name}" in "${source.path}"`;
  if (entry.isEncrypted()) throw new InputError(`Cannot read ${label}: it is encrypted`);
  if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8) {
    throw new InputError(`Cannot read ${label}: compression method ${entry.compressionMethod}, expected stored or deflated`);
  }
  const start = await dataStart(source, zip, entry);
  if (start + entry.compressedSize > source.byteLength) throw new InputError(`Cannot read ${label}: it is truncated`);
  if (entry.compressionMethod === 0) return { ...await readNpy(source, start, start + entry.uncompressedSize, label), name };
  const head = new SpoolFile(label);
  for await (const piece of inflate(source, start, entry, label)) {
    await head.append(piece);
    if (head.byteLength >= HEAD_BYTES) break;
  }
  const { offset, ...tensor } = await readNpy(head, 0, entry.uncompressedSize, label);
  let unpacked: Promise<SpoolFile> | undefined;
  const unpack = async () => {
    const spool = new SpoolFile(source.path);
    spools.push(spool);
    for await (const piece of inflate(source, start, entry, label)) {
      if (spool.byteLength + piece.length > entry.uncompressedSize) {
        throw new InputError(`Cannot read ${label}: it unpacks to more than the ${entry.uncompressedSize} bytes it declares`);
      }
      await spool.append(piece);
    }
    if (spool.byteLength !== entry.uncompressedSize) {
      throw new InputError(`Cannot read ${label}: it unpacks to ${spool.byteLength} bytes, ${entry.uncompressedSize} declared`);
    }
    return spool;
  };
  return { ...tensor, name, locate: async () => ({ source: await (unpacked ??= unpack()), offset }) };
}

function dataStart(source: ByteSource, zip: yauzl.ZipFile, entry: yauzl.Entry): Promise<number> {
  type Local = { fileDataStart: number };
  type Reader = { readLocalFileHeader(entry: yauzl.Entry, options: object, done: (error: Error | null, local: Local) => void): void };
  return new Promise((resolve, reject) => {
    (zip as unknown as Reader).readLocalFileHeader(entry, { minimal: true }, (error, local) => {
      if (error) reject(archiveError(source, error));
      else resolve(local.fileDataStart);
    });
  });
}

async function* inflate(source: ByteSource, start: number, entry: yauzl.Entry, label: string): AsyncGenerator<Uint8Array> {
  const packed = Readable.from(chunks(source, start, entry.compressedSize));
  const stream = createInflateRaw();
  packed.on("error", (error) => stream.destroy(error));
  packed.pipe(stream);
  try {
    for await (const piece of stream) yield piece as Uint8Array;
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`Cannot read ${label}: its compressed data is corrupt (${(error as Error).message})`, { cause: error });
  } finally {
    packed.destroy();
    stream.destroy();
  }
}

const MEMBER = "out.npy";
const LIMIT = 0xffffffff;

/** A stored archive of one member, in zip64 form where a size needs it. */
function zipFrame(dtype: "f16" | "f32" | "f64", shape: readonly number[]): Frame {
  const header = npyHeader(dtype, shape);
  const data = shape.reduce((product, n) => product * n, 1) * { f16: 2, f32: 4, f64: 8 }[dtype];
  const size = header.length + data;
  const big = size >= LIMIT;
  const name = new TextEncoder().encode(MEMBER);
  const local = (crc: number) => {
    const extra = big ? 20 : 0;
    const view = new DataView(new ArrayBuffer(30 + name.length + extra));
    view.setUint32(0, 0x04034b50, true);
    view.setUint16(4, big ? 45 : 20, true);
    view.setUint16(12, 0x21, true); // 1980-01-01: outputs are reproducible
    view.setUint32(14, crc, true);
    view.setUint32(18, big ? LIMIT : size, true);
    view.setUint32(22, big ? LIMIT : size, true);
    view.setUint16(26, name.length, true);
    view.setUint16(28, extra, true);
    const bytes = new Uint8Array(view.buffer);
    bytes.set(name, 30);
    if (big) zip64Extra(view, 30 + name.length, [size, size]);
    return bytes;
  };
  const headLength = local(0).length;
  const tail = (crc: number) => {
    const extra = big ? 20 : 0;
    const directory = new DataView(new ArrayBuffer(46 + name.length + extra));
    directory.setUint32(0, 0x02014b50, true);
    directory.setUint16(4, 45, true);
    directory.setUint16(6, big ? 45 : 20, true);
    directory.setUint16(14, 0x21, true);
    directory.setUint32(16, crc, true);
    directory.setUint32(20, big ? LIMIT : size, true);
    directory.setUint32(24, big ? LIMIT : size, true);
    directory.setUint16(28, name.length, true);
    directory.setUint16(30, extra, true);
    new Uint8Array(directory.buffer).set(name, 46);
    if (big) zip64Extra(directory, 46 + name.length, [size, size]);
    const at = headLength + size;
    return concat([new Uint8Array(directory.buffer), ...(big ? zip64End(directory.byteLength, at) : []), end(directory.byteLength, at)]);
  };
  return { head: (crc) => concat([local(crc), header]), tail, checksumFrom: headLength };
}

function zip64Extra(view: DataView, at: number, values: number[]): void {
  view.setUint16(at, 1, true);
  view.setUint16(at + 2, 8 * values.length, true);
  values.forEach((value, i) => view.setBigUint64(at + 4 + 8 * i, BigInt(value), true));
}

function zip64End(directory: number, at: number): Uint8Array[] {
  const record = new DataView(new ArrayBuffer(56));
  record.setUint32(0, 0x06064b50, true);
  record.setBigUint64(4, 44n, true);
  record.setUint16(12, 45, true);
  record.setUint16(14, 45, true);
  record.setBigUint64(24, 1n, true);
  record.setBigUint64(32, 1n, true);
  record.setBigUint64(40, BigInt(directory), true);
  record.setBigUint64(48, BigInt(at), true);
  const locator = new DataView(new ArrayBuffer(20));
  locator.setUint32(0, 0x07064b50, true);
  locator.setBigUint64(8, BigInt(at + directory), true);
  locator.setUint32(16, 1, true);
  return [new Uint8Array(record.buffer), new Uint8Array(locator.buffer)];
}

function end(directory: number, at: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(22));
  view.setUint32(0, 0x06054b50, true);
  view.setUint16(8, 1, true);
  view.setUint16(10, 1, true);
  view.setUint32(12, directory, true);
  view.setUint32(16, Math.min(at, LIMIT), true);
  return new Uint8Array(view.buffer);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
