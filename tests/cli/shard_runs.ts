/** `performer shard` as its tests run it. */
import { expect } from "bun:test";
import { inside } from "./process.ts";

/** Runs `performer shard ARGS`. */
export async function shard(...args: readonly string[]) {
  return await inside(["shard", ...args]);
}

/** The same, which must work. */
export async function done(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await shard(...args);
  expect([args[0], stderr, code]).toEqual([args[0], "", 0]);
  return stdout;
}

const largest = (values: readonly number[]) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/** Largest difference, relative to the largest number. */
export function distance(a: readonly number[], b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return largest(a.map((value, i) => value - b[i])) / largest(b);
}
