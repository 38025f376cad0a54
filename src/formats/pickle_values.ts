/**
 * What a pickle may hold, as data: None is null, a dict is a Map, lists, tuples and sets are arrays, bytes are Uint8Array,
 * integers beyond 2^53 are bigint. A class or function is only ever a name.
 */
import { plain } from "../words.ts";

/** The name of a class or function. Nothing is looked up by it. */
export class Global {
  readonly name: string;

  constructor(module: string, name: string) {
    this.name = printable(`${module}.${name}`);
  }
}

/** The result of a call that was not made, or a value too long to be kept; `name` says of what. */
export class Opaque {
  /** The state that the pickle would have given it. */
  state: unknown = null;

  constructor(readonly name: string) {}
}

/** Values that hold other values. */
export type Holder = Map<unknown, unknown> | readonly unknown[];

/** Whether a value is a dict, list, tuple or set. */
export const isHolder = (value: unknown): value is Holder => value instanceof Map || Array.isArray(value);

/** Keys and values of a dict, positions and values of a list. */
export function entriesOf(holder: Holder): Iterable<[unknown, unknown]> {
  return holder instanceof Map ? holder.entries() : (holder as unknown[]).entries();
}

/** A name from a file, short and without control characters, which a terminal would obey. */
export const printable = (text: string): string => plain(text, 200);

const MAX_NODES = 2000;
const MAX_DEPTH = 12;
const MAX_TEXT = 65_536;

/** A value as text: strings as they are, the rest as JSON; null where it is too much for a line of metadata. */
export function metadataText(value: unknown): string | null {
  if (value === null) return null;
  let nodes = 0;
  let letters = 0;
  const copied = (inner: unknown, depth: number): unknown => {
    // Depth also ends cycles, and the count what is shared a billion times.
    if (++nodes > MAX_NODES || depth > MAX_DEPTH) throw new RangeError("too much");
    if (typeof inner === "string" && (letters += inner.length) > MAX_TEXT) throw new RangeError("too much");
    if (typeof inner === "bigint") return String(inner);
    if (typeof inner === "number") return Number.isFinite(inner) ? inner : String(inner);
    if (inner instanceof Opaque) return inner.state instanceof Map ? copied(inner.state, depth + 1) : `<${inner.name}>`;
    if (inner instanceof Global) return inner.name;
    if (inner instanceof Uint8Array) return `<${inner.length} bytes>`;
    if (!isHolder(inner)) return typeof inner === "object" && inner !== null ? `<${inner}>` : inner;
    // Before it is gone through: a long one may be named a thousand times.
    if ((inner instanceof Map ? inner.size : inner.length) > MAX_NODES) throw new RangeError("too much");
    if (!(inner instanceof Map)) return inner.map((item) => copied(item, depth + 1));
    return Object.fromEntries([...inner].map(([key, item]) => [copied(keyText(key), depth), copied(item, depth + 1)]));
  };
  try {
    const text = typeof value === "string" ? value : JSON.stringify(copied(value, 0));
    return text.length > MAX_TEXT ? null : text;
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** The key of a dict as part of a name. */
export function keyText(key: unknown): string {
  if (typeof key === "string") return key;
  return key === null || typeof key !== "object" ? String(key) : "(…)";
}
