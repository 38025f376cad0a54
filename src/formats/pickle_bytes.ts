/** The bytes of a pickle, read in order from a window of a file that may have to grow. */
import { Buffer } from "node:buffer";

/** Thrown when the window ends before the pickle does: read again with at least `length` bytes. */
export class NeedMore extends Error {
  constructor(readonly length: number) {
    super(`needs ${length} bytes`);
  }
}

/** Text longer than this is no name, number or path: it is passed over. */
const MAX_LINE = 2 ** 20;

/** Fields of a pickle. Throws NeedMore, or SyntaxError where the window already holds all there is. */
export class PickleBytes {
  #at = 0;
  readonly #view: DataView;
  readonly #letters: Buffer;

  constructor(readonly bytes: Uint8Array, readonly complete: boolean) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#letters = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** Bytes read so far. */
  get position(): number {
    return this.#at;
  }

  u8(): number {
    return this.bytes[this.#advance(1)];
  }

  u16(): number {
    return this.#view.getUint16(this.#advance(2), true);
  }

  i32(): number {
    return this.#view.getInt32(this.#advance(4), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4), true);
  }

  /** A length: 8 bytes of which no file needs more than 53 bits. */
  u64(): number {
    const value = Number(this.#view.getBigUint64(this.#advance(8), true));
    if (!Number.isSafeInteger(value)) throw new SyntaxError(`the pickle claims ${value} bytes`);
    return value;
  }

  f64(): number {
    return this.#view.getFloat64(this.#advance(8), false);
  }

  /** The next `length` bytes, not copied. */
  take(length: number): Uint8Array {
    if (length < 0) throw new SyntaxError(`the pickle claims ${length} bytes`);
    const start = this.#advance(length);
    return this.bytes.subarray(start, start + length);
  }

  /** A line of text in Latin-1, without its end. */
  line(): string {
    const end = this.bytes.indexOf(10, this.#at);
    const length = (end < 0 ? this.bytes.length : end) - this.#at;
    if (length > MAX_LINE) throw new SyntaxError(`the pickle has a line of more than ${MAX_LINE} bytes`);
    if (end < 0) throw this.#short(this.bytes.length + 1);
    const text = this.#letters.toString("latin1", this.#at, this.#at + length);
    this.#at += length + 1;
    return text;
  }

  #advance(length: number): number {
    const start = this.#at;
    if (start + length > this.bytes.length) throw this.#short(start + length);
    this.#at += length;
    return start;
  }

  #short(length: number): Error {
    return this.complete ? new SyntaxError("the pickle stops short") : new NeedMore(length);
  }
}

/** Bytes as the letters 0 to 255 (TextDecoder's "latin1" would be windows-1252). */
export function latin1({ buffer, byteOffset, length }: Uint8Array): string {
  return Buffer.from(buffer, byteOffset, length).toString("latin1");
}
