/**
 * The bytes around the one member of an .npz that is written: a stored zip entry "out.npy". Sizes are known before the
 * first element; zip64 fields are used from 4 GiB on. Format: PKWARE APPNOTE 6.3, §4.3 and §4.5.3.
 */
import { DTYPE_BYTES } from "../tensor.ts";
import type { Frame } from "./container.ts";
import type { OutputDType } from "./decode.ts";
import { npyHeader } from "./npy.ts";

const NAME = new TextEncoder().encode("out.npy");
/** 1980-01-01, the zero of zip dates: the same bytes for the same tensor. */
const DATE = 0x21;
const LIMIT = 0xffff_ffff;

/** The frame of an .npz whose one member is "out.npy". */
export function npzFrame(dtype: OutputDType, shape: readonly number[]): Frame {
  const header = npyHeader(dtype, shape);
  const size = header.length + shape.reduce((a, b) => a * b, DTYPE_BYTES[dtype]);
  return zipFrame(header, size);
}

/** The frame of a zip whose one stored member has `size` bytes and begins with `lead`. */
export function zipFrame(lead: Uint8Array, size: number): Frame {
  const big = size >= LIMIT;
  const extra = big ? 20 : 0;
  const local = 30 + NAME.length + extra;
  return {
    checksumFrom: local,
    head: (crc) => {
      const out = new Fields(local + lead.length);
      out.u32(0x04034b50).shared(big, crc, size).u16(NAME.length).u16(extra).bytes(NAME);
      if (big) out.u16(1).u16(16).u64(size).u64(size);
      return out.bytes(lead).done();
    },
    tail: (crc) => {
      const directoryStart = local + size;
      const directorySize = 46 + NAME.length + extra;
      const far = directoryStart >= LIMIT;
      const out = new Fields(directorySize + (far ? 76 : 0) + 22);
      out.u32(0x02014b50).u16(big ? 45 : 20).shared(big, crc, size).u16(NAME.length).u16(extra);
      out.u16(0).u16(0).u16(0).u32(0).u32(0).bytes(NAME); // no comment, disk 0, no attributes, entry at byte 0
      if (big) out.u16(1).u16(16).u64(size).u64(size);
      if (far) {
        out.u32(0x06064b50).u64(44).u16(45).u16(45).u32(0).u32(0).u64(1).u64(1).u64(directorySize).u64(directoryStart);
        out.u32(0x07064b50).u32(0).u64(directoryStart + directorySize).u32(1);
      }
      out.u32(0x06054b50).u16(0).u16(0).u16(1).u16(1).u32(directorySize).u32(far ? LIMIT : directoryStart).u16(0);
      return out.done();
    },
  };
}

/** Little-endian fields, one after the other. */
class Fields {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(length: number) {
    this.#bytes = new Uint8Array(length);
    this.#view = new DataView(this.#bytes.buffer);
  }

  u16(value: number): this {
    this.#view.setUint16(this.#at, value, true);
    this.#at += 2;
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.#at, value, true);
    this.#at += 4;
    return this;
  }

  u64(value: number): this {
    return this.u32(value % 2 ** 32).u32(Math.floor(value / 2 ** 32));
  }

  bytes(value: Uint8Array): this {
    this.#bytes.set(value, this.#at);
    this.#at += value.length;
    return this;
  }

  /** The fields that a local header and a directory entry have in common: version to sizes; stored, UTF-8 name. */
  shared(big: boolean, crc: number, size: number): this {
    const shown = big ? LIMIT : size;
    return this.u16(big ? 45 : 20).u16(0x800).u16(0).u16(0).u16(DATE).u32(crc).u32(shown).u32(shown);
  }

  done(): Uint8Array {
    if (this.#at !== this.#bytes.length) throw new RangeError(`zip fields: ${this.#at} of ${this.#bytes.length} bytes`);
    return this.#bytes;
  }
}
