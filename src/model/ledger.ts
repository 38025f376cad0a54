/** Where time and arithmetic go in a forward pass. */

/** "load" reads weights and hands them to the backend. */
export const PARTS = ["load", "attention", "feedForward", "other"] as const;
export type Part = (typeof PARTS)[number];

/** Seconds and floating-point operations per part. Parts follow each other, so their seconds add up. */
export class Ledger {
  readonly seconds: Record<Part, number> = { load: 0, attention: 0, feedForward: 0, other: 0 };
  readonly flops: Record<Exclude<Part, "load">, number> = { attention: 0, feedForward: 0, other: 0 };

  /** Does some work and books its time. */
  async book<T>(part: Part, work: () => T | Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await work();
    } finally {
      this.seconds[part] += (performance.now() - start) / 1000;
    }
  }
}
