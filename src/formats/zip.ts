/** Zip archives (APPNOTE 6.3, zip64 included): the directory, and members read in place when stored, unpacked when deflated. */
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import * as yauzl from "yauzl";
import { type ByteSource, SpoolFile } from "../bytes.ts";
import { InputError, PerformerError } from "../errors.ts";
import { chunks, inflated, isZlib } from "./inflate.ts";
import { nearby } from "./memory.ts";

const MAX_ENTRIES = 100_000;
/** Deflate makes at most this many bytes of one: a member that declares more is a lie or a bomb. */
const MAX_DEFLATE_RATIO = 1032;

/** What the directory says of a member; its name as bytes too, which the types of yauzl leave out. */
export type ZipEntry = yauzl.Entry & { readonly fileNameRaw: Uint8Array };

/** Starts as a zip does. */
export const looksLikeZip = (head: Uint8Array): boolean =>
  head[0] === 0x50 && head[1] === 0x4b && (head[2] === 3 && head[3] === 4 || head[2] === 5 && head[3] === 6);

/** Answers yauzl, which asks for a few bytes of the directory at a time. */
class DirectoryReader extends yauzl.RandomAccessReader {
  readonly #near: ByteSource;

  constructor(source: ByteSource) {
    super();
    this.#near = nearby(source, 65_536);
  }

  override read(
    into: Buffer,
    offset: number,
    length: number,
    position: number,
    done: (error: Error | null, read?: number) => void,
  ) {
    this.#near.read(into.subarray(offset, offset + length), position).then(() => done(null, length), done);
  }
}

/** The members of a zip in the order of its directory, whose sizes fit the file. Throws InputError when it is damaged. */
export function readDirectory(source: ByteSource): Promise<ZipEntry[]> {
  return new Promise((resolve, reject) => {
    const refuse = (error: unknown) => reject(archiveError(source, error));
    const options = { lazyEntries: true, autoClose: false, validateEntrySizes: true };
    yauzl.fromRandomAccessReader(new DirectoryReader(source), source.byteLength, options, (error, zip) => {
      if (error) return refuse(error);
      const entries: ZipEntry[] = [];
      zip.on("entry", (entry: ZipEntry) => {
        entries.push(entry);
        const { fileName, relativeOffsetOfLocalHeader: start, compressedSize } = entry;
        if (entries.length > MAX_ENTRIES) refuse(new Error(`it has more than ${MAX_ENTRIES} members`));
        else if (start + 30 + compressedSize > source.byteLength) refuse(new Error(`"${fileName}" is truncated`));
        else zip.readEntry();
      });
      zip.on("error", refuse);
      zip.on("end", () => {
        zip.close();
        const shared = overlapping(entries);
        if (shared) refuse(new Error(`"${shared.fileName}" shares bytes with another member`));
        else resolve(entries);
      });
      zip.readEntry();
    });
  });
}

/** A member that begins before another ends: a few bytes that pass for any number of members. */
function overlapping(entries: readonly ZipEntry[]): ZipEntry | undefined {
  const byPlace = [...entries].sort((a, b) => a.relativeOffsetOfLocalHeader - b.relativeOffsetOfLocalHeader);
  return byPlace.find((entry, i) => {
    if (i === 0) return false;
    const { relativeOffsetOfLocalHeader: start, compressedSize, fileName } = byPlace[i - 1];
    // The same member listed twice is for the formats to refuse, by its name.
    return entry.fileName !== fileName && entry.relativeOffsetOfLocalHeader < start + 30 + compressedSize;
  });
}

function archiveError(source: ByteSource, error: unknown): Error {
  if (error instanceof PerformerError) return error;
  return new InputError(`Cannot read "${source.path}": the zip is damaged (${(error as Error).message})`, {
    cause: error,
  });
}

/** Memory for all that a file unpacks to, which stays until the file is closed; the rest goes to disk. */
const MAX_UNPACKED = 2 ** 26;

/** Adds an empty spool for one more unpacked member, with its share of the `most` bytes of memory that all may take. */
export function spoolBeside(spools: SpoolFile[], path: string, most = MAX_UNPACKED): SpoolFile {
  const taken = spools.reduce((sum, { onDisk, byteLength }) => onDisk ? sum : sum + byteLength, 0);
  const spool = new SpoolFile(path, Math.min(most / 4, Math.max(0, most - taken)));
  spools.push(spool);
  return spool;
}

/** One member of a zip. `label` names it in errors. */
export class ZipMember {
  #unpacked?: Promise<SpoolFile>;

  private constructor(
    readonly source: ByteSource,
    readonly entry: ZipEntry,
    readonly label: string,
    /** Where its bytes stand, packed or not. */
    readonly start: number,
  ) {}

  /** Reads the header in front of the member, from `near`; throws InputError where it cannot be what the directory says. */
  static async open(source: ByteSource, entry: ZipEntry, label: string, near = source): Promise<ZipMember> {
    if (entry.isEncrypted()) throw new InputError(`Cannot read ${label}: it is encrypted`);
    if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8) {
      throw new InputError(
        `Cannot read ${label}: compression method ${entry.compressionMethod}, expected stored or deflated`,
      );
    }
    if (entry.compressionMethod === 8 && entry.uncompressedSize > (entry.compressedSize + 16) * MAX_DEFLATE_RATIO) {
      throw new InputError(
        `Cannot read ${label}: ${entry.compressedSize} bytes cannot unpack to the ${entry.uncompressedSize} it declares`,
      );
    }
    const local = new Uint8Array(30);
    await near.read(local, entry.relativeOffsetOfLocalHeader);
    const view = new DataView(local.buffer);
    if (view.getUint32(0, true) !== 0x04034b50) {
      throw new InputError(`Cannot read ${label}: the zip is damaged (it is not where the directory says)`);
    }
    const name = new Uint8Array(Math.min(view.getUint16(26, true), source.byteLength));
    const place = entry.relativeOffsetOfLocalHeader + local.length;
    if (place + name.length <= source.byteLength) await near.read(name, place);
    if (Buffer.compare(name, entry.fileNameRaw) !== 0) {
      throw new InputError(`Cannot read ${label}: the zip is damaged (its header has another name than the directory)`);
    }
    // The lengths of the name and of the extra fields, which may differ from those in the directory.
    const start = entry.relativeOffsetOfLocalHeader + 30 + view.getUint16(26, true) + view.getUint16(28, true);
    if (start + entry.compressedSize > source.byteLength) throw new InputError(`Cannot read ${label}: it is truncated`);
    return new ZipMember(source, entry, label, start);
  }

  get isStored(): boolean {
    return this.entry.compressionMethod === 0;
  }

  /** Its bytes: in the file itself, or unpacked once, which `spools` must be disposed for. */
  async bytes(spools: SpoolFile[]): Promise<{ source: ByteSource; start: number }> {
    if (this.isStored) return { source: this.source, start: this.start };
    return { source: await (this.#unpacked ??= this.#unpack(spools)), start: 0 };
  }

  /** As much from the beginning of its bytes as there is, up to `length`. */
  async head(length: number): Promise<Uint8Array> {
    const head = new Uint8Array(Math.min(this.entry.uncompressedSize, length));
    let filled = 0;
    for await (const piece of this.#pieces()) {
      const part = piece.subarray(0, head.length - filled);
      head.set(part, filled);
      filled += part.length;
      if (filled === head.length) break;
    }
    return head.subarray(0, filled);
  }

  async #unpack(spools: SpoolFile[]): Promise<SpoolFile> {
    const spool = spoolBeside(spools, this.source.path);
    const { uncompressedSize: declared, crc32: checksum } = this.entry;
    let crc = 0;
    for await (const piece of this.#pieces()) {
      if (spool.byteLength + piece.length > declared) {
        throw new InputError(`Cannot read ${this.label}: it unpacks to more than the ${declared} bytes it declares`);
      }
      crc = crc32(piece, crc);
      await spool.append(piece);
    }
    await this.source.unchanged?.();
    if (spool.byteLength !== declared) {
      throw new InputError(`Cannot read ${this.label}: it unpacks to ${spool.byteLength} bytes, ${declared} declared`);
    }
    if (crc !== checksum) {
      throw new InputError(`Cannot read ${this.label}: its checksum does not match, the file is damaged`);
    }
    return spool;
  }

  async *#pieces(): AsyncGenerator<Uint8Array> {
    const packed = chunks(this.source, this.start, this.entry.compressedSize);
    if (this.isStored) return yield* packed;
    try {
      yield* inflated(packed, "raw");
    } catch (error) {
      // Broken data; a full disk or a failed read stays what it is.
      if (error instanceof PerformerError || !isZlib(error)) throw error;
      throw new InputError(`Cannot read ${this.label}: its compressed data is corrupt (${(error as Error).message})`, {
        cause: error,
      });
    }
  }
}
