/** JSON from somebody else, key by key: each value is checked when it is taken, and keys that nobody took are refused. */
import { brief } from "./words.ts";

/** What is wrong, and where: "sizes.heads is 0, expected a whole number from 1 to …". */
export class FieldError extends Error {}

/** Digits of SHA-256. */
const HASH = /^[0-9a-f]{64}$/;

/** Levels that objects and lists may be nested, and how many of them and of keys there may be: as values they take many times their length. */
const [MOST_LEVELS, MOST_PARTS] = [32, 1e6];

/** The value of a JSON text. Throws FieldError for none, and before it is parsed for one that would take much more memory than its letters. */
export function jsonOf(text: string): unknown {
  requireModest(text);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FieldError(`it is not JSON (${(error as Error).message})`, { cause: error });
  }
}

const [QUOTE, COLON, OPEN, BACKSLASH, CLOSE, BRACE, END] = [...'":[\\]{}'].map((sign) => sign.charCodeAt(0));

function requireModest(text: string): void {
  let [parts, level] = [0, 0];
  for (let i = 0; i < text.length; i++) {
    const sign = text.charCodeAt(i);
    if (sign === QUOTE) {
      for (i++; i < text.length && text.charCodeAt(i) !== QUOTE; i++) if (text.charCodeAt(i) === BACKSLASH) i++;
    } else if (sign === OPEN || sign === BRACE) {
      parts++;
      if (++level > MOST_LEVELS) throw new FieldError(`it is nested deeper than ${MOST_LEVELS} levels`);
    } else if (sign === CLOSE || sign === END) level--;
    else if (sign === COLON) parts++;
    if (parts > MOST_PARTS) throw new FieldError(`it has more than ${MOST_PARTS} keys, objects and lists`);
  }
}

/** An object of a JSON text. */
export class Fields {
  readonly #values: Record<string, unknown>;
  readonly #taken = new Set<string>();

  /** Throws FieldError where `value` is no object; `at` is its place in the text, "" for the whole. */
  constructor(value: unknown, readonly at: string) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new FieldError(`${at || "it"} is ${brief(value)}, expected an object`);
    }
    this.#values = value as Record<string, unknown>;
  }

  /** Throws FieldError for a key that was not taken. */
  done(): void {
    const other = Object.keys(this.#values).find((key) => !this.#taken.has(key));
    if (other !== undefined) throw new FieldError(`${this.#place(other)} is not known here`);
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#values, key);
  }

  any(key: string): unknown {
    this.#taken.add(key);
    if (!Object.hasOwn(this.#values, key)) throw new FieldError(`${this.#place(key)} is missing`);
    return this.#values[key];
  }

  fail(key: string, expected: string): never {
    throw new FieldError(`${this.#place(key)} is ${brief(this.#values[key])}, expected ${expected}`);
  }

  object(key: string): Fields {
    return new Fields(this.any(key), this.#place(key));
  }

  /** null, or what `read` makes of it. */
  maybe<T>(key: string, read: (key: string) => T): T | null {
    return this.any(key) === null ? null : read(key);
  }

  text(key: string, most: number): string {
    const value = this.any(key);
    if (typeof value !== "string" || value.length > most) this.fail(key, `a text of at most ${most} letters`);
    return value as string;
  }

  hash(key: string): string {
    const value = this.any(key);
    if (typeof value !== "string" || !HASH.test(value)) this.fail(key, "64 hexadecimal digits");
    return value as string;
  }

  choice<T extends string>(key: string, choices: readonly T[]): T {
    const value = this.any(key);
    if (!choices.includes(value as T)) this.fail(key, `one of ${choices.join(", ")}`);
    return value as T;
  }

  flag(key: string): boolean {
    const value = this.any(key);
    if (typeof value !== "boolean") this.fail(key, "true or false");
    return value as boolean;
  }

  whole(key: string, least: number, most: number = Number.MAX_SAFE_INTEGER): number {
    const value = this.any(key);
    if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most) {
      this.fail(
        key,
        most === Number.MAX_SAFE_INTEGER
          ? `a whole number of at least ${least}`
          : `a whole number from ${least} to ${most}`,
      );
    }
    return value as number;
  }

  number(key: string): number {
    const value = this.any(key);
    if (typeof value !== "number" || !Number.isFinite(value)) this.fail(key, "a number");
    return value as number;
  }

  /** A list of `least` to `most` values, each of which `fits`. */
  list<T>(key: string, least: number, most: number, fits: (value: unknown) => boolean, expected: string): T[] {
    const value = this.any(key);
    const fine = Array.isArray(value) && value.length >= least && value.length <= most && value.every(fits);
    if (!fine) this.fail(key, `${least === most ? least : `${least} to ${most}`} ${expected}`);
    return value as T[];
  }

  /** Finite numbers, as many as one of `lengths`. */
  numbers(key: string, lengths: readonly number[]): Float64Array {
    const value = this.any(key);
    const fine = Array.isArray(value) && lengths.includes(value.length) &&
      value.every((one) => typeof one === "number" && Number.isFinite(one));
    if (!fine) this.fail(key, `${lengths.join(" or ")} numbers`);
    return Float64Array.from(value as number[]);
  }

  #place(key: string): string {
    return this.at === "" ? key : `${this.at}.${key}`;
  }
}
