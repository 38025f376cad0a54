/**
 * Residues of FASTA or plain text, plain or gzip (several members and bgzip included), as one long string of letters.
 *
 * A ">" opens a record only at the start of a line; ";" starts a comment line there (in text, only before the first letter). Letters are upper-cased, white space and the
 * gap and stop signs "-", "." and "*" are kept out. Up to 16 MiB stay in memory, more goes to a temporary file.
 */
import { type ByteSource, openFile, SpoolFile, spoolStdin } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { chunks, inflated, isZlib } from "./inflate.ts";

/** One sequence of a file. */
export interface SequenceRecord {
  /** First word of the header line; "" for text without headers. */
  readonly name: string;
  readonly start: number;
  readonly length: number;
}

/** Letters at positions, across all records. */
export interface Residues extends AsyncDisposable {
  readonly path: string;
  readonly format: "fasta" | "text";
  readonly length: number;
  readonly records: readonly SequenceRecord[];
  read(into: Uint8Array, at: number): Promise<void>;
}

const [NEWLINE, RETURN, GREATER, SEMICOLON] = [10, 13, 62, 59];

/** Opens a file or "-" (standard input); throws InputError when it holds no letters or is not text. */
export async function openResidues(path: string): Promise<Residues> {
  await using source = path === "-" ? await spoolStdin() : await openFile(path);
  const spool = new SpoolFile(source.path);
  try {
    const parser = new Parser(spool, source.path);
    for await (const piece of plainBytes(source)) await parser.feed(piece);
    await source.unchanged?.();
    const records = await parser.finish();
    if (spool.byteLength === 0) throw new InputError(`Cannot read "${source.path}": it holds no sequence`);
    return {
      path: source.path,
      format: parser.fasta ? "fasta" : "text",
      length: spool.byteLength,
      records,
      read: (into, at) => spool.read(into, at),
      [Symbol.asyncDispose]: () => spool[Symbol.asyncDispose](),
    };
  } catch (error) {
    await spool[Symbol.asyncDispose]();
    throw error;
  }
}

/** Looks like FASTA or gzip to `inspect`. */
export const looksLikeSequence = (head: Uint8Array) => head[0] === GREATER || (head[0] === 0x1f && head[1] === 0x8b);

async function* plainBytes(source: ByteSource): AsyncGenerator<Uint8Array> {
  const magic = new Uint8Array(Math.min(2, source.byteLength));
  await source.read(magic, 0);
  if (magic[0] !== 0x1f || magic[1] !== 0x8b) return yield* chunks(source, 0, source.byteLength);
  try {
    yield* inflated(chunks(source, 0, source.byteLength), "gzip");
  } catch (error) {
    if (!isZlib(error)) throw error;
    throw new InputError(`Cannot read "${source.path}": its gzip data is corrupt (${(error as Error).message})`, {
      cause: error,
    });
  }
}

type Line = "start" | "header" | "comment" | "residues";

class Parser {
  fasta = false;
  #line: Line = "start";
  #header = "";
  #any = false;
  readonly #records: { name: string; start: number }[] = [];
  readonly #keep: Uint8Array;
  readonly #out = new Uint8Array(1 << 16);
  #filled = 0;

  constructor(readonly spool: SpoolFile, readonly path: string) {
    // 0: drop, otherwise the upper-case letter; 255 marks bytes that no text has.
    this.#keep = Uint8Array.from({ length: 256 }, (_, byte) => {
      if (byte >= 97 && byte <= 122) return byte - 32;
      if (byte >= 65 && byte <= 90) return byte;
      return byte < 9 || (byte > 13 && byte < 27) ? 255 : 0;
    });
  }

  async feed(bytes: Uint8Array): Promise<void> {
    for (let i = 0; i < bytes.length; i++) {
      if (this.#line === "residues") i = this.#letters(bytes, i);
      if (i === bytes.length) break;
      const byte = bytes[i];
      if (byte === NEWLINE || byte === RETURN) {
        if (this.#line === "header") await this.#open();
        this.#line = "start";
        continue;
      }
      if (this.#line === "start") {
        if (byte === GREATER && (this.fasta || !this.#any)) {
          this.fasta = true;
          this.#line = "header";
          this.#header = "";
          continue;
        }
        this.#line = byte === SEMICOLON && (this.fasta || !this.#any) ? "comment" : "residues";
      }
      if (this.#line === "header") {
        if (this.#header.length < 1000) this.#header += String.fromCharCode(byte);
      } else if (this.#line === "residues") {
        const letter = this.#keep[byte];
        if (letter === 255) {
          throw new InputError(
            `Cannot read "${this.path}" as a sequence: it holds byte ${byte}, expected FASTA or plain text`,
          );
        }
        if (letter === 0) continue;
        this.#any = true;
        if (this.#filled === this.#out.length) await this.#flush();
        this.#out[this.#filled++] = letter;
      }
    }
  }

  /** Takes letters up to the first byte that is none; most of a genome goes through this loop. */
  #letters(bytes: Uint8Array, from: number): number {
    const keep = this.#keep;
    const out = this.#out;
    let filled = this.#filled;
    let i = from;
    for (; i < bytes.length && filled < out.length; i++) {
      const letter = keep[bytes[i]];
      if (letter === 0 || letter === 255) break;
      out[filled++] = letter;
    }
    if (i > from) this.#any = true;
    this.#filled = filled;
    return i;
  }

  async finish(): Promise<SequenceRecord[]> {
    if (this.#line === "header") await this.#open();
    await this.#flush();
    const starts = this.#records.length > 0 ? this.#records : [{ name: "", start: 0 }];
    return starts.map(({ name, start }, i) => ({
      name,
      start,
      length: (starts[i + 1]?.start ?? this.spool.byteLength) - start,
    }));
  }

  async #open(): Promise<void> {
    await this.#flush();
    this.#records.push({ name: this.#header.trim().split(/\s+/)[0], start: this.spool.byteLength });
  }

  async #flush(): Promise<void> {
    await this.spool.append(this.#out.subarray(0, this.#filled));
    this.#filled = 0;
  }
}
