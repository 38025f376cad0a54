/**
 * Bytes of a file that are held to their CRC-32 while they are read in place. Whoever reads all of them, in whatever order and pieces, hears
 * when they are damaged; who reads a part does not, as a checksum says nothing of parts.
 */
import { crc32 } from "node:zlib";
import type { ByteSource } from "../bytes.ts";
import { InputError } from "../errors.ts";

/** Bytes that were read, `start` to `end` − 1, and their CRC-32. */
interface Stretch {
  readonly start: number;
  end: number;
  crc: number;
}

/** Stretches that are remembered: one per head and batch item of tensors whose rows lie apart, and no more of files that are read at random. */
const MOST_STRETCHES = 4096;

/** A source whose bytes from `start` on, `length` of them, have a known checksum. `label` names them in errors. */
export class CheckedSource implements ByteSource {
  /** In order, with bytes between them that were not read yet. */
  #stretches: Stretch[] = [];
  #state: "open" | "whole" | "damaged" | "unknown" = "open";

  constructor(
    readonly source: ByteSource,
    readonly start: number,
    readonly length: number,
    readonly checksum: number,
    readonly label: string,
  ) {}

  get path(): string {
    return this.source.path;
  }

  get byteLength(): number {
    return this.source.byteLength;
  }

  /** Throws InputError with the read that shows that the bytes are not those of the checksum, and with all that follow. */
  async read(into: Uint8Array, at: number): Promise<void> {
    await this.source.read(into, at);
    if (this.#state === "open" && into.length > 0) this.#note(into, at);
    if (this.#state !== "damaged") return;
    await this.unchanged();
    throw new InputError(`Cannot read ${this.label}: its checksum does not match, the file is damaged`);
  }

  async unchanged(): Promise<void> {
    await this.source.unchanged?.();
  }

  /** Adds those of some bytes that were not read before. */
  #note(bytes: Uint8Array, first: number): void {
    const [begin, end] = [Math.max(first, this.start), Math.min(first + bytes.length, this.start + this.length)];
    for (let at = begin; at < end;) {
      const place = this.#after(at);
      const [before, next] = [this.#stretches[place - 1], this.#stretches[place]];
      if (before?.end > at) {
        at = before.end;
        continue;
      }
      const upTo = Math.min(end, next?.start ?? end);
      const piece = bytes.subarray(at - first, upTo - first);
      const joins = before?.end === at;
      const stretch = joins ? before : { start: at, end: upTo, crc: crc32(piece) };
      if (joins) [stretch.end, stretch.crc] = [upTo, crc32(piece, stretch.crc)];
      else this.#stretches.splice(place, 0, stretch);
      if (next?.start === upTo) {
        stretch.crc = joinedCrc(stretch.crc, next.crc, next.end - next.start);
        stretch.end = next.end;
        this.#stretches.splice(joins ? place : place + 1, 1);
      }
      at = stretch.end;
    }
    const [only] = this.#stretches;
    if (only?.start === this.start && only.end === this.start + this.length) {
      this.#state = only.crc === this.checksum ? "whole" : "damaged";
    } else if (this.#stretches.length > MOST_STRETCHES) this.#state = "unknown";
    if (this.#state !== "open") this.#stretches = [];
  }

  /** How many stretches begin at or before a byte. */
  #after(at: number): number {
    let [low, high] = [0, this.#stretches.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#stretches[middle].start <= at) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.source[Symbol.asyncDispose]();
  }
}

/** The polynomial of CRC-32, lowest power in the highest bit. */
const POLYNOMIAL = 0xedb88320;

/** CRC-32 of bytes with CRC `first`, followed by `length` bytes with CRC `second` (zlib's crc32_combine): first · x^(8 length) + second. */
export function joinedCrc(first: number, second: number, length: number): number {
  let product = first;
  // x^8, squared for every binary digit of the length.
  let power = 1 << 23;
  for (let left = length; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) product = times(power, product);
    power = times(power, power);
  }
  return (product ^ second) >>> 0;
}

/** The product of two polynomials over GF(2), modulo that of CRC-32. */
function times(a: number, b: number): number {
  let product = 0;
  for (let bit = 31; bit >= 0; bit--) {
    if ((a >>> bit) & 1) product ^= b;
    b = b & 1 ? (b >>> 1) ^ POLYNOMIAL : b >>> 1;
  }
  return product >>> 0;
}
