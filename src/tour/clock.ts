/** Times of one Transformer block's parts on this machine: what the first steps of the tour compare. */
import type { Backend } from "../backend.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { attentionOf, inMemory } from "../figures/trials.ts";
import { Inputs } from "../inputs.ts";
import type { Point } from "../plots/chart.ts";
import { RandomStream } from "../random.ts";
import { attend } from "../run.ts";
import { floats, type Tile } from "../tensor.ts";
import { breathe } from "./lab.ts";
import type { TourWorld } from "./step.ts";

/** The block: 4 heads of 64, and an MLP of 256 → 1024 → 256. */
export const BLOCK = { heads: 4, headDim: 64, width: 256, inner: 1024 };

/** Short runs are repeated until they took this many seconds in all, and the fastest counts. */
const LEAST_SECONDS = 0.03;
/** Rows that threads and code are warmed up with. */
const WARM_ROWS = 128;

/** Lengths whose exact attention would take more milliseconds are left out: a step takes a moment. */
const MOST_MS = 1500;

/** Whether twice the last length may be timed as well: two lengths always are. @param exact (length, milliseconds) of exact attention */
export function goesOn(exact: readonly Point[]): boolean {
  return exact.length < 2 || 4 * exact[exact.length - 1][1] <= MOST_MS;
}

/** Length at which two curves over the same lengths meet first, straight between points on logarithmic axes; null where they do not. */
export function crossing(first: readonly Point[], second: readonly Point[]): number | null {
  const gap = first.map(([, y], i) => Math.log(y / second[i][1]));
  for (let i = 1; i < gap.length; i++) {
    if (gap[i - 1] < 0 === gap[i] < 0) continue;
    const [from, to] = [Math.log(first[i - 1][0]), Math.log(first[i][0])];
    return Math.exp(from + (to - from) * gap[i - 1] / (gap[i - 1] - gap[i]));
  }
  return null;
}

export class BlockClock implements AsyncDisposable {
  readonly #numbers: Float64Array;

  constructor(readonly backend: Backend, readonly world: TourWorld, readonly longest: number) {
    this.#numbers = new RandomStream(1, 0xc10c).normals(longest * BLOCK.width).map((value) => value / 2);
  }

  /** On threads and SIMD where there are any. */
  static async open(world: TourWorld, longest: number): Promise<BlockClock> {
    const { backend } = await openFirst(parseBackendList("wasm,scalar"), { eager: true });
    const clock = new BlockClock(backend, world, longest);
    try {
      await clock.attention(WARM_ROWS, "softmax");
      await clock.attention(WARM_ROWS, 64);
    } catch (error) {
      await backend[Symbol.asyncDispose]();
      throw error;
    }
    return clock;
  }

  /** Seconds of the attention of `length` rows: exact, or with r features. */
  attention(length: number, features: "softmax" | number): Promise<number> {
    const { heads, headDim, width } = BLOCK;
    const rows = this.#numbers.subarray(0, length * width);
    const tensor = (name: string) => inMemory(name, rows, headDim, heads);
    const trial = features === "softmax"
      ? { features, numFeatures: 0, projection: "orthogonal", seed: 0 }
      : { features: "hyperbolic", numFeatures: features, projection: "orthogonal", seed: 0 };
    const options = { backend: this.backend, refused: [], check: 0, redraws: 0, sink: null, encoding: null } as const;
    return this.#fastest(async () => {
      const inputs = new Inputs(tensor("q"), tensor("k"), tensor("v"), null);
      const { signal } = this.world;
      const { seconds } = await attend({
        ...options,
        inputs,
        attention: attentionOf(trial),
        peakBytes: () => 0,
        signal,
      });
      return seconds.compute;
    });
  }

  /** Seconds of the MLP over `length` rows. */
  async mlp(length: number): Promise<number> {
    const { width, inner } = BLOCK;
    const weight = new Float32Array(width * inner).fill(1 / width);
    const plan = { bias: null, weight, tileRows: 256 } as const;
    await using up = await this.backend.prepareLinear({ ...plan, inputs: width, outputs: inner, activation: "gelu" });
    await using down = await this.backend.prepareLinear({ ...plan, inputs: inner, outputs: width, activation: "none" });
    const data = floats(this.backend.limits.precision, 256 * width);
    data.set(this.#numbers.subarray(0, data.length));
    return await this.#fastest(async () => {
      let seconds = 0;
      for (let start = 0; start < length; start += 256) {
        const rows = Math.min(256, length - start);
        const tile: Tile = { start, rows, cols: width, data: data.subarray(0, rows * width) };
        const before = performance.now();
        await down.run(await up.run(tile));
        seconds += (performance.now() - before) / 1000;
        if (start % 1024 === 0) await breathe(this.world);
      }
      return seconds;
    });
  }

  async #fastest(run: () => Promise<number>): Promise<number> {
    let least = Infinity;
    for (let spent = 0, times = 0; spent < LEAST_SECONDS && times < 5; times++) {
      await breathe(this.world);
      const seconds = await run();
      spent += seconds;
      least = Math.min(least, seconds);
    }
    return least;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.backend[Symbol.asyncDispose]();
  }
}
