/**
 * The bytes around the members of an .npz that is written: stored zip entries "NAME.npy". Sizes are known before the first
 * element; zip64 fields are used from 4 GiB on. Format: PKWARE APPNOTE 6.3, §4.3 and §4.5.3.
 */
import { UsageError } from "../errors.ts";
import { DTYPE_BYTES } from "../tensor.ts";
import type { Frame, Frames, TensorHeader } from "./container.ts";
import type { OutputDType } from "./decode.ts";
import { npyHeader } from "./npy.ts";

/** 1980-01-01, the zero of zip dates: the same bytes for the same tensor. */
const DATE = 0x21;
const LIMIT = 0xffff_ffff;
const LIMIT_ENTRIES = 0xffff;

/** The frame of an .npz whose one member is "out.npy". */
export function npzFrame(dtype: OutputDType, shape: readonly number[]): Frame {
  const frames = npzFrames([{ name: "out", dtype, shape }]);
  return {
    head: (crc) => frames.head(0, crc),
    tail: (crc) => frames.tail([crc]),
    checksumFrom: frames.checksumFrom(0),
  };
}

/** A stored member of a zip. */
interface Member {
  readonly name: Uint8Array;
  /** The first bytes of its content. */
  readonly lead: Uint8Array;
  /** Bytes of its content, the lead included. */
  readonly size: number;
  /** Where its local header stands. */
  readonly at: number;
}

/** The frames of an .npz with one member "NAME.npy" for each tensor. Throws UsageError for a name that no zip may hold. */
export function npzFrames(tensors: readonly TensorHeader[]): Frames {
  let end = 0;
  const members = tensors.map(({ name, dtype, shape }): Member => {
    const lead = npyHeader(dtype, shape);
    const size = shape.reduce((product, n) => product * n, DTYPE_BYTES[dtype]) + lead.length;
    const member = { name: memberName(name), lead, size, at: end };
    end += localLength(member) + size;
    return member;
  });
  return {
    order: members.map((_, i) => i),
    checksumFrom: (i) => localLength(members[i]),
    head: (i, crc) => localHeader(members[i], crc),
    tail: (crcs) => directory(members, crcs, end),
  };
}

function memberName(name: string): Uint8Array {
  const bytes = new TextEncoder().encode(`${name}.npy`);
  if (/^\/|^[a-zA-Z]:|\\|\0/.test(name) || name.split("/").includes("..") || bytes.length > LIMIT_ENTRIES) {
    throw new UsageError(`Cannot write tensor "${name}" as .npz: a zip may not hold such a name, write .safetensors`);
  }
  return bytes;
}

const isBig = ({ size }: Member) => size >= LIMIT;
const localLength = (member: Member) => 30 + member.name.length + (isBig(member) ? 20 : 0);

function localHeader(member: Member, crc: number): Uint8Array {
  const { name, lead, size } = member;
  const big = isBig(member);
  const out = new Fields(localLength(member) + lead.length);
  out.u32(0x04034b50).shared(big, crc, size).u16(name.length).u16(big ? 20 : 0).bytes(name);
  if (big) out.u16(1).u16(16).u64(size).u64(size);
  return out.bytes(lead).done();
}

/** Length of the zip64 field of a directory entry: sizes and position, each only where 32 bits are too few. */
const farLength = (member: Member) => (isBig(member) ? 16 : 0) + (member.at >= LIMIT ? 8 : 0);

function directory(members: readonly Member[], crcs: readonly number[], start: number): Uint8Array {
  const extra = (member: Member) => farLength(member) > 0 ? 4 + farLength(member) : 0;
  const size = members.reduce((sum, member) => sum + 46 + member.name.length + extra(member), 0);
  const count = members.length;
  const far = start >= LIMIT || size >= LIMIT || count >= LIMIT_ENTRIES;
  const out = new Fields(size + (far ? 76 : 0) + 22);
  members.forEach((member, i) => {
    const big = isBig(member);
    out.u32(0x02014b50).u16(farLength(member) > 0 ? 45 : 20).shared(big, crcs[i], member.size);
    out.u16(member.name.length).u16(extra(member));
    // No comment, disk 0, no attributes.
    out.u16(0).u16(0).u16(0).u32(0).u32(Math.min(member.at, LIMIT)).bytes(member.name);
    if (farLength(member) === 0) return;
    out.u16(1).u16(farLength(member));
    if (big) out.u64(member.size).u64(member.size);
    if (member.at >= LIMIT) out.u64(member.at);
  });
  if (far) {
    out.u32(0x06064b50).u64(44).u16(45).u16(45).u32(0).u32(0).u64(count).u64(count).u64(size).u64(start);
    out.u32(0x07064b50).u32(0).u64(start + size).u32(1);
  }
  const shown = Math.min(count, LIMIT_ENTRIES);
  out.u32(0x06054b50).u16(0).u16(0).u16(shown).u16(shown).u32(Math.min(size, LIMIT)).u32(Math.min(start, LIMIT)).u16(0);
  return out.done();
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
