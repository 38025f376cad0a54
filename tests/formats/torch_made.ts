/** Checkpoints made by hand, with lies on request. */
import { crc32 } from "node:zlib";

const bytesOf = (part: string | number[] | Uint8Array) =>
  typeof part === "string" ? Buffer.from(part, "latin1") : Uint8Array.from(part);

export function joined(...parts: (string | number[] | Uint8Array)[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts.map(bytesOf)));
}

/** A member of a zip made by hand, with what its directory says where that is not the truth. */
export interface MadeMember {
  readonly name: string | Uint8Array;
  readonly data: Uint8Array;
  /** The size it declares; the packed one is that of `data` where it is deflated. */
  readonly size?: number;
  /** How often the directory names it. */
  readonly listed?: number;
  /** `data` is deflated from bytes of this checksum. */
  readonly deflated?: number;
  /** Where the directory says it begins; nothing is written for it then. */
  readonly at?: number;
}

/** A zip of stored or deflated members. */
export function zipOf(members: readonly MadeMember[]): Uint8Array {
  const locals: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const { name, data, size = data.length, listed = 1, deflated, at: elsewhere } of members) {
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(deflated === undefined ? 0 : 8, 4);
    common.writeUInt32LE(deflated ?? crc32(data), 10);
    common.writeUInt32LE(deflated === undefined ? size : data.length, 14);
    common.writeUInt32LE(size, 18);
    common.writeUInt16LE(name.length, 22);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(elsewhere ?? at, 10);
    for (let i = 0; i < listed; i++) {
      directory.push(joined([0x50, 0x4b, 1, 2, 20, 0], common, rest, name));
    }
    if (elsewhere !== undefined) continue;
    locals.push(joined([0x50, 0x4b, 3, 4], common, name, data));
    at += locals.at(-1)!.length;
  }
  const listing = joined(...directory);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(directory.length & 0xffff, 8);
  end.writeUInt16LE(directory.length & 0xffff, 10);
  end.writeUInt32LE(listing.length, 12);
  end.writeUInt32LE(at, 16);
  return joined(...locals, listing, end);
}

/** A zip checkpoint around a pickle (without its PROTO and STOP); storages are "0", "1" … */
export function torchZip(pickle: string | Uint8Array, ...storages: Uint8Array[]): Uint8Array {
  return zipOf([
    { name: "model/data.pkl", data: joined("\x80\x02", pickle, ".") },
    ...storages.map((data, i) => ({ name: `model/data/${i}`, data })),
  ]);
}

const MAGIC = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/** A legacy checkpoint around a pickle and whatever follows it. */
export function torchLegacy(pickle: string | Uint8Array, ...rest: (string | Uint8Array)[]): Uint8Array {
  return joined(MAGIC, "\x80\x02M\xe9\x03.", "\x80\x02}.", "\x80\x02", pickle, ".", ...rest);
}

const u32 = (value: number) => String.fromCharCode(value & 255, value >> 8 & 255, value >> 16 & 255, value >>> 24);

/** BINUNICODE. */
export const word = (text: string): string => `X${u32(text.length)}${text}`;
/** BININT, negative numbers included. */
export const number = (value: number): string => `J${u32(value)}`;
/** GLOBAL. */
export const named = (module: string, name: string): string => `c${module}\n${name}\n`;
/** A tuple. */
export const tuple = (...items: string[]): string => `(${items.join("")}t`;
/** A dict. */
export const dict = (entries: Record<string, string>): string => {
  return `}(${Object.entries(entries).map(([key, value]) => word(key) + value).join("")}u`;
};
/** REDUCE. */
export const called = (callee: string, ...args: string[]): string => `${callee}${tuple(...args)}R`;

interface TensorOptions {
  key?: string;
  count?: number;
  offset?: number;
  shape?: number[];
  strides?: number[];
  type?: string;
}

/** A tensor by `_rebuild_tensor_v2`, float32 unless told otherwise: [2] on storage "0" of 2 elements. */
export function tensor({ key = "0", count = 2, offset = 0, shape = [2], strides = [1], type }: TensorOptions = {}) {
  const id = tuple(word("storage"), named("torch", type ?? "FloatStorage"), word(key), word("cpu"), number(count));
  const sizes = [tuple(...shape.map(number)), tuple(...strides.map(number))];
  return called(named("torch._utils", "_rebuild_tensor_v2"), `${id}Q`, number(offset), ...sizes, "\x89", "}");
}

/** Lists of ten times the list before, the first of a tensor: 10^levels of them. */
export function laughs(levels: number): string {
  let pickle = `${tensor()}q\x00`;
  for (let i = 1; i <= levels; i++) {
    pickle += `](${`h${String.fromCharCode(i - 1)}`.repeat(10)}eq${String.fromCharCode(i)}`;
  }
  return pickle;
}
