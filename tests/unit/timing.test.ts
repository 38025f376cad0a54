/** Wall time by phase, with a clock of our own. */
import { expect, test } from "bun:test";
import { Stopwatch } from "../../src/timing.ts";

/** A promise and the function that settles it. */
function gate(): { wait: Promise<void>; open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { wait: promise, open: resolve };
}

test("works of one phase that overlap are charged once, phases each on their own", async () => {
  let now = 0;
  const watch = new Stopwatch(() => now);
  const [a, b, r] = [gate(), gate(), gate()];
  const first = watch.time("compute", () => a.wait);
  now = 1000;
  const second = watch.time("compute", () => b.wait);
  const read = watch.time("read", () => r.wait);
  now = 3000;
  a.open();
  await first;
  now = 4000;
  r.open();
  await read;
  now = 6000;
  b.open();
  await second;
  now = 7000;
  expect(watch.seconds()).toEqual({ read: 3, compute: 6, write: 0, check: 0, total: 7 });
});

test("a failure is charged, too", async () => {
  let now = 0;
  const watch = new Stopwatch(() => now);
  const failing = watch.time("write", async () => {
    now = 500;
    throw new Error("disk");
  });
  await failing.catch(() => {});
  expect(watch.seconds().write).toBe(0.5);
});
