/**
 * The text in front of a .npy: a Python dictionary literal, parsed as data and nothing else.
 * Format: numpy/lib/_format_impl.py.
 */
import type { DType } from "../tensor.ts";
import { MAX_RANK } from "./view.ts";

/** What a header says. */
export interface NpyHeader {
  /** null: a type this program does not read. */
  readonly dtype: DType | null;
  readonly typeName: string;
  /** Bytes of one element, or 0 where the type has no fixed size that this program knows. */
  readonly itemSize: number;
  readonly littleEndian: boolean;
  readonly order: "C" | "F";
  readonly shape: readonly number[];
}

type Literal = string | number | boolean | null | Literal[] | Map<string, Literal>;

/** Nesting that real headers (structured types) stay far below. */
const MAX_DEPTH = 16;

/** Parses a header; throws SyntaxError saying what is wrong with it. */
export function parseNpyHeader(text: string): NpyHeader {
  const header = new LiteralReader(text).document();
  if (!(header instanceof Map)) throw new SyntaxError("the header is not a dictionary");
  const order = header.get("fortran_order");
  if (typeof order !== "boolean") throw new SyntaxError("fortran_order is not True or False");
  const shape = header.get("shape");
  if (!Array.isArray(shape) || !shape.every((n): n is number => Number.isSafeInteger(n) && (n as number) >= 0)) {
    throw new SyntaxError("shape is not a tuple of sizes");
  }
  if (shape.length > MAX_RANK) throw new SyntaxError(`shape has ${shape.length} axes, expected at most ${MAX_RANK}`);
  const count = shape.reduce((a, b) => a * b, 1);
  if (!Number.isSafeInteger(count * 8)) throw new SyntaxError(`shape (${shape.join(", ")}) is beyond any file`);
  const descr = header.get("descr");
  if (descr === undefined) throw new SyntaxError("descr is missing");
  return { ...describe(descr), order: order ? "F" : "C", shape };
}

/** numpy's letter and size, as ours. */
const TYPES: Readonly<Record<string, DType>> = {
  f2: "f16",
  f4: "f32",
  f8: "f64",
  i1: "i8",
  i2: "i16",
  i4: "i32",
  i8: "i64",
  u1: "u8",
  u2: "u16",
  u4: "u32",
  u8: "u64",
  b1: "bool",
  "?": "bool",
};

/** What people call the types that are refused. */
const REFUSED: Readonly<Record<string, string>> = {
  O: "Python objects",
  c: "complex numbers",
  U: "text",
  S: "byte strings",
  a: "byte strings",
  M: "dates",
  m: "time spans",
  f: "extended floats",
};

function describe(descr: Literal): Pick<NpyHeader, "dtype" | "typeName" | "itemSize" | "littleEndian"> {
  const unread = { dtype: null, itemSize: 0, littleEndian: true };
  if (typeof descr !== "string") return { ...unread, typeName: "records (structured)" };
  const match = /^([<>|=]?)([A-Za-z?])(\d*)(\[.*\])?$/.exec(descr);
  if (!match) return { ...unread, typeName: `"${descr.slice(0, 40)}"` };
  const [, order, letter, size] = match;
  const littleEndian = order !== ">";
  const dtype = TYPES[letter + size];
  if (dtype) return { dtype, typeName: dtype, itemSize: Number(size || 1), littleEndian };
  if (letter === "V") return { dtype: null, typeName: `V${size}`, itemSize: Number(size), littleEndian };
  return { ...unread, typeName: letter in REFUSED ? `"${descr}" (${REFUSED[letter]})` : `"${descr}"` };
}

const STRING = /(?:'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)")/y;
/** Python 2 wrote long integers with an L. */
const INTEGER = /(-?\d+)L?(?![\w.])/y;
const WORD = /(True|False|None)\b/y;
const SPACE = /[ \t\r\n]*/y;

/** Strings, integers, True, False, None, tuples, lists and dictionaries with string keys. */
class LiteralReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): Literal {
    const value = this.#value(0);
    this.#space();
    if (this.#at < this.#text.length) throw this.#unexpected();
    return value;
  }

  #value(depth: number): Literal {
    if (depth > MAX_DEPTH) throw new SyntaxError("the header is nested too deep");
    this.#space();
    const start = this.#text[this.#at];
    if (start === "{") return this.#dictionary(depth);
    if (start === "(") return this.#sequence(")", depth);
    if (start === "[") return this.#sequence("]", depth);
    const string = this.#take(STRING);
    if (string) return string[1] ?? string[2];
    const integer = this.#take(INTEGER);
    if (integer) return Number(integer[1]);
    const word = this.#take(WORD);
    if (!word) throw this.#unexpected();
    return word[1] === "None" ? null : word[1] === "True";
  }

  #sequence(close: string, depth: number): Literal[] {
    const values: Literal[] = [];
    this.#at++;
    while (!this.#skip(close)) {
      values.push(this.#value(depth + 1));
      if (this.#skip(",")) continue;
      if (!this.#skip(close)) throw this.#unexpected();
      break;
    }
    return values;
  }

  #dictionary(depth: number): Map<string, Literal> {
    const entries = new Map<string, Literal>();
    this.#at++;
    while (!this.#skip("}")) {
      const key = this.#value(depth + 1);
      if (typeof key !== "string" || !this.#skip(":")) throw this.#unexpected();
      entries.set(key, this.#value(depth + 1));
      if (this.#skip(",")) continue;
      if (!this.#skip("}")) throw this.#unexpected();
      break;
    }
    return entries;
  }

  #space(): void {
    this.#take(SPACE);
  }

  #skip(token: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== token) return false;
    this.#at++;
    return true;
  }

  #take(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match) this.#at += match[0].length;
    return match;
  }

  #unexpected(): SyntaxError {
    const rest = this.#text.slice(this.#at, this.#at + 20).trimEnd();
    return new SyntaxError(
      rest === "" ? "the header stops short" : `the header is no literal at ${JSON.stringify(rest)}`,
    );
  }
}
