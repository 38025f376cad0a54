/** The instructions of a pickle that are one value: None, booleans, numbers, text and bytes. */
import { Buffer } from "node:buffer";
import { latin1, type PickleBytes } from "./pickle_bytes.ts";
import { Opaque } from "./pickle_values.ts";

/** Text that is kept; protocol 2 writes whole arrays of numpy as text. */
const MAX_TEXT = 2 ** 20;
/** Bytes of one integer; the states of random generators are the longest in use. */
const MAX_INTEGER = 1024;

const text = new TextDecoder();

/** The value of an instruction, named as in pickletools; throws SyntaxError for one that is none. */
export function readScalar(code: number, input: PickleBytes): unknown {
  switch (code) {
    case 0x4e: // NONE
      return null;
    case 0x88: // NEWTRUE
      return true;
    case 0x89: // NEWFALSE
      return false;
    case 0x49: { // INT; "00" and "01" are the booleans of protocol 0
      const line = input.line();
      return line === "00" ? false : line === "01" ? true : integer(line);
    }
    case 0x4c: // LONG
      return integer(input.line().replace(/L$/, ""));
    case 0x4b: // BININT1
      return input.u8();
    case 0x4d: // BININT2
      return input.u16();
    case 0x4a: // BININT
      return input.i32();
    case 0x8a: // LONG1
      return wholeNumber(input.take(input.u8()));
    case 0x8b: // LONG4
      return wholeNumber(input.take(input.i32()));
    case 0x46: // FLOAT
      return Number(input.line().replace("inf", "Infinity"));
    case 0x47: // BINFLOAT
      return input.f64();
    case 0x53: // STRING
    case 0x56: // UNICODE
      return unescaped(input.line(), code === 0x53);
    case 0x54: // BINSTRING
      return long(input.take(input.i32()), latin1);
    case 0x55: // SHORT_BINSTRING
      return latin1(input.take(input.u8()));
    case 0x8c: // SHORT_BINUNICODE
      return text.decode(input.take(input.u8()));
    case 0x58: // BINUNICODE
      return long(input.take(input.u32()), (bytes) => text.decode(bytes));
    case 0x8d: // BINUNICODE8
      return long(input.take(input.u64()), (bytes) => text.decode(bytes));
    case 0x43: // SHORT_BINBYTES
      return input.take(input.u8());
    case 0x42: // BINBYTES
      return input.take(input.u32());
    case 0x8e: // BINBYTES8
    case 0x96: // BYTEARRAY8
      return input.take(input.u64());
    default:
      throw new SyntaxError(`the pickle has an unknown instruction 0x${code.toString(16)}`);
  }
}

/** Little-endian two's complement of any length. */
function wholeNumber(bytes: Uint8Array): number | bigint | Opaque {
  if (bytes.length > MAX_INTEGER) return new Opaque(`an integer of ${bytes.length} bytes`);
  if (bytes.length === 0) return 0;
  const digits = Buffer.from(bytes).reverse().toString("hex");
  return narrowed(BigInt.asIntN(8 * bytes.length, BigInt(`0x${digits}`)));
}

/** Digits of protocol 0 as a number. */
export function integer(line: string): number | bigint {
  if (line.length > 2 * MAX_INTEGER || !/^-?\d+$/.test(line)) throw new SyntaxError("the pickle has a broken number");
  return narrowed(BigInt(line));
}

const narrowed = (value: bigint) => Number.isSafeInteger(Number(value)) ? Number(value) : value;

function long(bytes: Uint8Array, decode: (bytes: Uint8Array) => string): string | Opaque {
  return bytes.length > MAX_TEXT ? new Opaque(`a text of ${bytes.length} bytes`) : decode(bytes);
}

/** A string as protocol 0 writes it: quoted as Python's repr does, or with \u escapes only. */
function unescaped(line: string, quoted: boolean): string {
  if (!quoted) {
    return line.replace(/\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})/g, (all, four, eight) => {
      const point = parseInt(four ?? eight, 16);
      return point <= 0x10ffff ? String.fromCodePoint(point) : all;
    });
  }
  const match = /^(['"])(.*)\1$/s.exec(line.trim());
  if (!match) throw new SyntaxError("the pickle has a string without quotes");
  const letters: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };
  return match[2].replace(/\\(x[0-9a-fA-F]{2}|.)/gs, (_, escape: string) => {
    return escape.length === 3 ? String.fromCharCode(parseInt(escape.slice(1), 16)) : letters[escape] ?? escape;
  });
}
