/** Damage to JSON: fields that are dropped, doubled, renamed or of another kind, numbers that no field can have, and text that is no JSON. */
import { one, type Pick } from "./random.ts";

/** Texts that no `JSON.stringify` writes, by the name that stands for them until the rest is written. */
const RAW: readonly string[] = [
  "1e999",
  "-1e999",
  "NaN",
  "Infinity",
  "-0",
  "0x10",
  "01",
  "1.",
  "9".repeat(400),
  "[".repeat(200) + "]".repeat(200),
  "[".repeat(100_000) + "]".repeat(100_000),
  '{"a":'.repeat(50_000) + "1" + "}".repeat(50_000),
  "[".repeat(100_000),
  '"\\ud800"',
  "'text'",
  "yes",
  "",
];

/** Values of every kind, small and absurd. */
const VALUES: readonly unknown[] = [
  null,
  true,
  false,
  0,
  1,
  -1,
  2,
  0.5,
  1e-320,
  1e308,
  2 ** 31,
  2 ** 32,
  2 ** 53 - 1,
  2 ** 53,
  -(2 ** 63),
  "",
  "0",
  "1",
  "null",
  "text",
  "x".repeat(5000),
  "\u0000",
  "\u001b[2J",
  "../../etc/passwd",
  "/etc/passwd",
  "/dev/zero",
  "a\\..\\b",
  "constructor",
  "toString",
  "__proto__",
  "positive",
  "softmax",
  "cosformer",
  "given",
  "f64",
  "0".repeat(64),
  [],
  [null],
  [0],
  [0, 1],
  [0, 0, 0],
  [-1, 1e300],
  {},
  { toString: null, valueOf: null },
  { length: 2 ** 40 },
  { then: 1, toJSON: "x" },
  { __proto__: null, constructor: { prototype: {} } },
];

/** Names that fields are given. */
const NAMES: readonly string[] = [
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "then",
  "",
  "0",
  "\u0000",
  "x".repeat(100_000),
];

/** A place in a tree: what holds it, and its key there. */
interface Place {
  readonly in: Record<string, unknown>;
  readonly key: string;
}

/** Places of a tree, the outer ones first; of long lists the first and the last. */
function placesOf(tree: unknown, found: Place[] = []): Place[] {
  if (typeof tree !== "object" || tree === null) return found;
  const keys = Object.keys(tree);
  const own = keys.length > 12 && Array.isArray(tree) ? [...keys.slice(0, 4), ...keys.slice(-2)] : keys;
  for (const key of own) found.push({ in: tree as Record<string, unknown>, key });
  for (const key of own) placesOf((tree as Record<string, unknown>)[key], found);
  return found;
}

/** Letters from which on a text is nested so deep that writing it again takes seconds. */
export const DEEP = 90_000;

/** Stands for RAW[i] until the tree is a text. */
const standIn = (i: number) => `\u0001raw ${i}\u0001`;
/** Stands before a key that is to be the one behind it once more. */
const AGAIN = "\u0001again ";

/** A value beside the one that was there: numbers nearby, lists that lost, won or swapped something. */
function beside(value: unknown, pick: Pick): unknown {
  if (typeof value === "number") {
    return one(pick, [value + 1, value - 1, -value, value * 2, value / 2, value + 2 ** 32, value * 1e6, value * 1e12]);
  }
  if (typeof value === "boolean") return !value;
  if (typeof value === "string") {
    const at = pick(value.length + 1);
    return one(pick, [value.slice(0, at), value + "x", `../${value}`, `./${value}`, `/${value}`, `${value}\n`]);
  }
  if (Array.isArray(value) && value.length > 0) {
    const [a, b] = [pick(value.length), pick(value.length)];
    const swapped = value.with(a, value[b]).with(b, value[a]);
    return one(pick, [value.slice(1), [...value, value[a]], swapped, value.toReversed(), value.flatMap((x) => [x, x])]);
  }
  return null;
}

/** One to three changes to a tree, as a text. `same` keeps it JSON. */
export function damagedJson(tree: unknown, pick: Pick, { same = false } = {}): string {
  const copy = structuredClone(tree);
  for (let left = 1 + pick(3) * pick(2); left > 0; left--) {
    const places = placesOf(copy);
    if (places.length === 0) break;
    const { in: holder, key } = one(pick, places);
    switch (pick(same ? 6 : 8)) {
      case 0:
        if (Array.isArray(holder)) holder.splice(Number(key), 1);
        else delete holder[key];
        break;
      case 1: {
        const name = one(pick, [...NAMES, ...places.map(({ key }) => key)]);
        const value = holder[key];
        delete holder[key];
        Object.defineProperty(holder, name, { value, enumerable: true, configurable: true, writable: true });
        break;
      }
      case 2: {
        const { in: other, key: place } = one(pick, places);
        [holder[key], other[place]] = [structuredClone(other[place]), structuredClone(holder[key])];
        break;
      }
      case 3:
        holder[key] = structuredClone(one(pick, VALUES));
        break;
      case 4:
      case 5:
        holder[key] = beside(holder[key], pick);
        break;
      case 6:
        holder[key] = standIn(pick(RAW.length));
        break;
      default:
        if (!Array.isArray(holder)) holder[AGAIN + key] = structuredClone(one(pick, [holder[key], ...VALUES]));
    }
  }
  return JSON.stringify(copy)
    .replace(/"\\u0001raw (\d+)\\u0001"/g, (_, i) => RAW[Number(i)])
    .replaceAll(JSON.stringify(AGAIN).slice(1, -1), "");
}
