/** A short soak: a million rows through one process, rounds of a session in another, and what the verdicts say of made-up samples. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { RUNTIMES } from "../cli/process.ts";
import { soakSession, soakStream, wholeBlocks } from "./soak.ts";
import { type Sample, table, tenthsOf, verdicts } from "./soak_verdicts.ts";

/** Seconds are too few for memory to settle: scripts/soak.ts asks for 5 %. */
const LOOSE = 0.5;

describe.skipIf(!existsSync("/proc/self/status"))("long work in one process (needs /proc)", () => {
  test.each(Object.keys(RUNTIMES))(
    "a stream of rows on %s: flat, no descriptors left open, no drift",
    async (runtime) => {
      const { done, tenths, drift } = await soakStream(wholeBlocks(2e6), { runtime, every: 0.02 });
      expect(done).toBeGreaterThanOrEqual(2e6);
      expect(drift.length).toBe(10);
      const found = verdicts(tenths, drift, LOOSE);
      expect(found.filter(({ passed, what }) => !passed && !what.startsWith("speed"))).toEqual([]);
    },
  );

  test("rounds of attention, states and library calls in one session", async () => {
    const { tenths } = await soakSession(20, { every: 0.02 });
    const [memory] = verdicts(tenths, [], LOOSE);
    expect(memory.passed).toBe(true);
    expect(Math.max(...tenths.map(({ descriptors }) => descriptors))).toBeLessThan(30);
  });
});

/** Looks at a process whose memory, speed and descriptors are as the work has gone from 0 to 1. */
const samples = (bytes: (at: number) => number, speed = (_: number) => 1, open = (_: number) => 9): Sample[] => {
  let processorSeconds = 0;
  return Array.from({ length: 101 }, (_, i) => {
    processorSeconds += 1 / speed(i / 100);
    return { done: i, seconds: i, processorSeconds, residentBytes: bytes(i / 100), descriptors: open(i / 100) };
  });
};
const passed = (...looks: Parameters<typeof samples>) =>
  verdicts(tenthsOf(samples(...looks), 100), []).map((verdict) => verdict.passed);

describe("verdicts", () => {
  test("flat is flat, whatever the first tenth was", () => {
    expect(passed((at) => at < 0.1 ? 50e6 : 100e6)).toEqual([true, true, true]);
  });

  test("memory, speed and descriptors that drift are seen", () => {
    expect(passed((at) => 100e6 * (1 + 0.2 * at))[0]).toBe(false);
    expect(passed(() => 100e6, (at) => 1 - 0.2 * at)[1]).toBe(false);
    expect(passed(() => 100e6, undefined, (at) => 9 + Math.floor(10 * at))[2]).toBe(false);
  });

  test("outputs that drift are seen, and stand in the table", () => {
    const tenths = tenthsOf(samples(() => 100e6), 100);
    const drift = [...new Array(9).fill(1e-7), 1e-3];
    expect(verdicts(tenths, drift).at(-1)).toMatchObject({ passed: false, found: "1.0e-3 at most, 1.0e-3 at the end" });
    expect(table(tenths, "rows", drift).split("\n")[11]).toBe("| 10 | 1.0 | 1.0 | 100.0 | 9 | 1.0e-3 |");
  });

  test("too few looks are no verdict", () => {
    expect(() => tenthsOf(samples(() => 1).slice(0, 12), 1000)).toThrow("Tenth 2 was looked at 0 times");
  });
});
