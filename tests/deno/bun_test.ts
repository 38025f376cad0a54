/**
 * The part of `bun:test` that tests/conformance and tests/golden use, on Deno, so that the laws run on both runtimes:
 * `deno test -A --import-map tests/deno/import_map.json tests/conformance tests/golden`.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inspect as show, isDeepStrictEqual } from "node:util";

export { describe };

type Body = () => void | Promise<void>;

/** A third argument (a time limit) is left to the runner. */
export const test = Object.assign((name: string, body: Body) => void it(name, body), {
  /** Rows that are arrays are spread over the arguments; the first of them stands for %s. */
  each: (rows: readonly unknown[]) => (name: string, body: (...row: never[]) => void | Promise<void>) => {
    for (const row of rows) {
      const values = Array.isArray(row) ? row : [row];
      it(name.replace("%s", String(values[0])), () => body(...values as never[]));
    }
  },
  skip: (name: string, body: Body) => void it.skip(name, body),
});

type Pattern = RegExp | string | (new (...args: never[]) => Error);

function matches(error: unknown, wanted?: Pattern): boolean {
  if (wanted === undefined) return error !== undefined;
  if (wanted instanceof RegExp) return wanted.test(String((error as Error)?.message));
  if (typeof wanted === "string") return String((error as Error)?.message).includes(wanted);
  return error instanceof wanted;
}

/** `expect.stringContaining`: compared by `toEqual`. */
class Containing {
  constructor(readonly part: string) {}
}

/** Replaces every Containing that holds by what it was compared with. */
function resolve(expected: unknown, actual: unknown): unknown {
  if (expected instanceof Containing) return String(actual).includes(expected.part) ? actual : expected;
  if (Array.isArray(expected)) return expected.map((part, i) => resolve(part, (actual as unknown[])?.[i]));
  if (typeof expected !== "object" || expected === null || ArrayBuffer.isView(expected)) return expected;
  const entries = Object.entries(expected).filter(([, part]) => part !== undefined);
  return Object.fromEntries(entries.map(([key, part]) => [key, resolve(part, (actual as never)?.[key])]));
}

/** Without undefined members, which `toEqual` ignores. */
function bare(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(bare);
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(
    Object.entries(value).filter(([, part]) => part !== undefined).map(([k, v]) => [k, bare(v)]),
  );
}

const check = (holds: boolean, actual: unknown, how: string, expected?: unknown) => {
  if (!holds) assert.fail(`expected ${inspect(actual)} ${how} ${expected === undefined ? "" : inspect(expected)}`);
};
const inspect = (value: unknown): string => show(value, { depth: 4, maxArrayLength: 20 });

export const expect = Object.assign((actual: unknown) => ({
  toBe: (expected: unknown) => check(Object.is(actual, expected), actual, "to be", expected),
  toEqual: (expected: unknown) =>
    check(isDeepStrictEqual(bare(actual), resolve(expected, actual)), actual, "to equal", expected),
  toBeTrue: () => check(actual === true, actual, "to be true"),
  toBeLessThan: (limit: number) => check((actual as number) < limit, actual, "to be less than", limit),
  toBeLessThanOrEqual: (limit: number) => check((actual as number) <= limit, actual, "to be at most", limit),
  toBeGreaterThan: (limit: number) => check((actual as number) > limit, actual, "to be greater than", limit),
  toBeGreaterThanOrEqual: (limit: number) => check((actual as number) >= limit, actual, "to be at least", limit),
  toThrow: (wanted?: Pattern) => {
    let caught: unknown;
    try {
      (actual as () => void)();
    } catch (error) {
      caught = error;
    }
    check(matches(caught, wanted), caught, "to be thrown as", wanted);
  },
  rejects: {
    toBeInstanceOf: async (type: new (...args: never[]) => Error) => {
      const caught = await (actual as Promise<unknown>).then(() => undefined, (error) => error);
      check(caught instanceof type, caught, "to be an instance of", type);
    },
  },
}), { stringContaining: (part: string) => new Containing(part) });
