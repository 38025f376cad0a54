/**
 * Plain values with arrays of numbers in them as bytes that say whether they are whole: what checkpoints are written in.
 *
 *     magic (8 bytes) │ length of the text, of the numbers (float64 each) │ SHA-256 of the rest │ text (JSON) │ numbers
 *
 * Numbers keep every bit: those in arrays as they are, others as JSON writes float64, with −0, NaN and ±Infinity by name. Float32Array
 * and Float64Array are told apart; other classes have no place here.
 */
import { createHash } from "node:crypto";
import { InputError } from "./errors.ts";

const MAGIC = "PFJRNL1\n";
const HEAD = MAGIC.length + 16 + 32;

/** A value of objects, lists, texts, numbers, booleans, null and arrays of numbers; what is undefined is left out. */
export function pack(value: unknown): Uint8Array {
  const parts: Uint8Array[] = [];
  let at = 0;
  const text = new TextEncoder().encode(JSON.stringify(value, (_, part) => {
    if (part instanceof Float64Array || part instanceof Float32Array) {
      const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
      const placed = { $numbers: [at, part.length, part.BYTES_PER_ELEMENT] };
      parts.push(bytes, new Uint8Array(-bytes.length & 7));
      at += bytes.length + (-bytes.length & 7);
      return placed;
    }
    if (typeof part !== "number" || (Number.isFinite(part) && !Object.is(part, -0))) return part;
    return { $number: Object.is(part, -0) ? "-0" : String(part) };
  }));
  const bytes = new Uint8Array(HEAD + text.length + at);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setFloat64(MAGIC.length, text.length, true);
  view.setFloat64(MAGIC.length + 8, at, true);
  bytes.set(text, HEAD);
  let end = HEAD + text.length;
  for (const part of parts) {
    bytes.set(part, end);
    end += part.length;
  }
  bytes.set(hashOf(bytes), HEAD - 32);
  return bytes;
}

/** What was packed. Throws InputError for bytes that are cut short, changed, or none of ours; `name` is what it calls them. */
export function unpack(bytes: Uint8Array, name: string): unknown {
  const refuse = (what: string) => new InputError(`Cannot read "${name}": ${what}`);
  const magic = new TextDecoder("latin1").decode(bytes.subarray(0, MAGIC.length));
  if (magic !== MAGIC.slice(0, magic.length)) throw refuse("it is no journal of this version of performer");
  if (bytes.length < HEAD) throw refuse(`it ends after ${bytes.length} bytes, in the middle of its head`);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const text = view.getFloat64(MAGIC.length, true);
  const length = HEAD + text + view.getFloat64(MAGIC.length + 8, true);
  if (bytes.length !== length) throw refuse(`it has ${bytes.length} bytes, its head says ${length}`);
  const sum = hashOf(bytes);
  if (sum.some((byte, i) => byte !== bytes[HEAD - 32 + i])) throw refuse("its checksum does not match, it is damaged");
  const numbers = HEAD + text;
  try {
    return JSON.parse(new TextDecoder().decode(bytes.subarray(HEAD, numbers)), (_, part) => {
      if (part?.$number !== undefined) return Number(part.$number);
      if (part?.$numbers === undefined) return part;
      const [at, count, size] = part.$numbers as [number, number, number];
      const own = bytes.slice(numbers + at, numbers + at + count * size).buffer;
      return size === 8 ? new Float64Array(own, 0, count) : new Float32Array(own, 0, count);
    });
  } catch (error) {
    // Whole, and yet not what `pack` writes.
    throw new InputError(refuse("its text is not what performer writes").message, { cause: error });
  }
}

/** Of the lengths and all that they measure. */
const hashOf = (bytes: Uint8Array): Uint8Array =>
  createHash("sha256").update(bytes.subarray(MAGIC.length, HEAD - 32)).update(bytes.subarray(HEAD)).digest();
