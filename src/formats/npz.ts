/** NumPy's .npz: a zip of .npy members, stored or deflated, zip64 included (APPNOTE 6.3). Stored members are read in place. */
import { Readable } from "node:stream";
import { crc32 } from "node:zlib";
import * as yauzl from "yauzl";
import { type ByteSource, SpoolFile } from "../bytes.ts";
import { InputError, PerformerError } from "../errors.ts";
import type { Contents, Format, StoredTensor } from "./container.ts";
import { chunks, inflated, isZlib } from "./inflate.ts";
import { memoryBytes } from "./memory.ts";
import { MAX_NPY_HEADER, readNpy } from "./npy.ts";
import { npzFrame } from "./npz_frame.ts";

const MAX_ENTRIES = 100_000;
/** Deflate makes at most this many bytes of one: a member that declares more is a lie or a bomb. */
const MAX_DEFLATE_RATIO = 1032;

/** The .npz format: members "q.npy", "k.npy" … are tensors "q", "k" …; other members are passed over. */
export const npz: Format = {
  name: "npz",
  suffix: ".npz",
  matches: (head) =>
    head[0] === 0x50 && head[1] === 0x4b && (head[2] === 3 && head[3] === 4 || head[2] === 5 && head[3] === 6),
  async open(source): Promise<Contents> {
    const spools: SpoolFile[] = [];
    const { zip, entries } = await readDirectory(source);
    const tensors: StoredTensor[] = [];
    for (const entry of entries) {
      if (!entry.fileName.endsWith(".npy")) continue;
      const tensor = await member(source, zip, entry, spools);
      if (tensors.some(({ name }) => name === tensor.name)) {
        throw new InputError(`Cannot read "${source.path}": it holds "${tensor.name}" twice`);
      }
      tensors.push(tensor);
    }
    if (tensors.length === 0) throw noTensors(source, entries);
    return {
      tensors,
      metadata: {},
      async [Symbol.asyncDispose]() {
        zip.close();
        for (const spool of spools) await spool[Symbol.asyncDispose]();
      },
    };
  },
  frame: npzFrame,
};

function noTensors(source: ByteSource, entries: readonly yauzl.Entry[]): InputError {
  const torch = entries.some(({ fileName }) => fileName.endsWith("data.pkl"));
  return new InputError(
    `Cannot read "${source.path}": it is a ${
      torch ? "PyTorch checkpoint" : "zip without .npy members"
    }, expected an .npz`,
  );
}

/** yauzl asks for ranges as streams. */
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

function archiveError(source: ByteSource, error: unknown): Error {
  if (error instanceof PerformerError) return error;
  return new InputError(`Cannot read "${source.path}": the zip is damaged (${(error as Error).message})`, {
    cause: error,
  });
}

async function member(
  source: ByteSource,
  zip: yauzl.ZipFile,
  entry: yauzl.Entry,
  spools: SpoolFile[],
): Promise<StoredTensor> {
  const name = entry.fileName.slice(0, -4);
  const label = `tensor "${name}" in "${source.path}"`;
  if (entry.isEncrypted()) throw new InputError(`Cannot read ${label}: it is encrypted`);
  if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8) {
    throw new InputError(
      `Cannot read ${label}: compression method ${entry.compressionMethod}, expected stored or deflated`,
    );
  }
  const start = await dataStart(source, zip, entry);
  if (start + entry.compressedSize > source.byteLength) throw new InputError(`Cannot read ${label}: it is truncated`);
  if (entry.compressionMethod === 0) {
    return { ...await readNpy(source, start, start + entry.uncompressedSize, label), name };
  }
  if (entry.uncompressedSize > (entry.compressedSize + 16) * MAX_DEFLATE_RATIO) {
    throw new InputError(
      `Cannot read ${label}: ${entry.compressedSize} bytes cannot unpack to the ${entry.uncompressedSize} it declares`,
    );
  }
  const head = await inflatedHead(source, start, entry, label);
  const { offset, ...tensor } = await readNpy(head, 0, entry.uncompressedSize, label);
  let unpacked: Promise<SpoolFile> | undefined;
  const locate = async () => ({ source: await (unpacked ??= unpack(source, start, entry, label, spools)), offset });
  return { ...tensor, name, locate };
}

/** As much of a deflated member as its .npy header may take. */
async function inflatedHead(source: ByteSource, start: number, entry: yauzl.Entry, label: string): Promise<ByteSource> {
  const head = new Uint8Array(Math.min(entry.uncompressedSize, 12 + MAX_NPY_HEADER));
  let length = 0;
  try {
    for await (const piece of inflated(chunks(source, start, entry.compressedSize), "raw")) {
      const part = piece.subarray(0, head.length - length);
      head.set(part, length);
      length += part.length;
      if (length === head.length) break;
    }
  } catch (error) {
    throw inflateError(error, label);
  }
  return memoryBytes(head.subarray(0, length), source.path);
}

async function unpack(
  source: ByteSource,
  start: number,
  entry: yauzl.Entry,
  label: string,
  spools: SpoolFile[],
): Promise<SpoolFile> {
  const spool = new SpoolFile(source.path);
  spools.push(spool);
  const declared = entry.uncompressedSize;
  let crc = 0;
  try {
    for await (const piece of inflated(chunks(source, start, entry.compressedSize), "raw")) {
      if (spool.byteLength + piece.length > declared) {
        throw new InputError(`Cannot read ${label}: it unpacks to more than the ${declared} bytes it declares`);
      }
      crc = crc32(piece, crc);
      await spool.append(piece);
    }
  } catch (error) {
    throw inflateError(error, label);
  }
  if (spool.byteLength !== declared) {
    throw new InputError(`Cannot read ${label}: it unpacks to ${spool.byteLength} bytes, ${declared} declared`);
  }
  if (crc !== entry.crc32) {
    throw new InputError(`Cannot read ${label}: its checksum does not match, the file is damaged`);
  }
  return spool;
}

/** Broken data; a full disk or a failed read stays what it is. */
function inflateError(error: unknown, label: string): Error {
  if (error instanceof PerformerError || !isZlib(error)) return error as Error;
  return new InputError(`Cannot read ${label}: its compressed data is corrupt (${(error as Error).message})`, {
    cause: error,
  });
}

function dataStart(source: ByteSource, zip: yauzl.ZipFile, entry: yauzl.Entry): Promise<number> {
  type Local = { fileDataStart: number };
  type Reader = {
    readLocalFileHeader(entry: yauzl.Entry, options: object, done: (error: Error | null, local: Local) => void): void;
  };
  return new Promise((resolve, reject) => {
    (zip as unknown as Reader).readLocalFileHeader(entry, { minimal: true }, (error, local) => {
      if (error) reject(archiveError(source, error));
      else resolve(local.fileDataStart);
    });
  });
}
