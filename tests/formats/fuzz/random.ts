/** Numbers and files that a seed makes, the same on every machine. */

/** A whole number from 0 to `below` − 1. */
export type Pick = (below: number) => number;

/** Numbers from a seed (mulberry32). */
export function random(seed: number): Pick {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor(((x ^ (x >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}

/** One of several. */
export const one = <T>(pick: Pick, of: readonly T[]): T => of[pick(of.length)];

/** Milliseconds from now on, without those in which other work had the processor (nor those of threads beside this one). */
export function stopwatch(): () => number {
  const [start, used] = [performance.now(), process.cpuUsage()];
  return () => {
    const { user, system } = process.cpuUsage(used);
    return Math.min(performance.now() - start, (user + system) / 1000);
  };
}
