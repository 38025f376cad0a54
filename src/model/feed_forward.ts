/**
 * A feed-forward layer on a backend: w2(f(w1 x)), w2(gelu(first half) · second half) where it is gated, or w2(f(w1 x) · w3 x); f is
 * gelu in all Performers.
 */
import type { Backend, Linear } from "../backend.ts";
import { heard } from "../in_flight.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import type { FeedForwardLayout } from "./description.ts";
import type { Room } from "./room.ts";
import { addTile, tilesOf } from "./rows.ts";
import type { Weights } from "./weights.ts";

export class FeedForward implements AsyncDisposable {
  private constructor(
    readonly layout: FeedForwardLayout,
    readonly first: Linear,
    readonly second: Linear,
    readonly times: Linear | null,
    readonly tileRows: number,
  ) {}

  static async open(
    backend: Backend,
    weights: Weights,
    layout: FeedForwardLayout,
    tileRows: number,
  ): Promise<FeedForward> {
    const first = await weights.linear(backend, layout.first, tileRows, {
      activation: layout.gated ? "gelu-glu" : layout.activation,
    });
    const second = await weights.linear(backend, layout.second, tileRows);
    const times = layout.times && await weights.linear(backend, layout.times, tileRows);
    return new FeedForward(layout, first, second, times, tileRows);
  }

  /** Operations on `rows` rows. */
  flops(rows: number): number {
    const { first, second, times } = this.layout;
    const weights = [first, second, times].reduce((sum, part) => sum + (part ? part.inputs * part.outputs : 0), 0);
    return 2 * rows * weights;
  }

  /** target += gain · layer(x), both `rows × dim`; `signal` ends it between two tiles. */
  async run(
    x: FloatArray,
    rows: number,
    target: FloatArray,
    gain: number,
    room: Room,
    signal?: AbortSignal,
  ): Promise<void> {
    const { first, second } = this.layout;
    const most = Math.min(rows, this.tileRows);
    const hidden = room.take("hidden", most * second.inputs);
    const factors = this.times && room.take("factors", most * second.inputs);
    const result = room.take("result", most * second.outputs);
    for (const tile of tilesOf(x, rows, first.inputs, this.tileRows)) {
      await heard(signal);
      const middle = await this.first.run(tile, hidden.subarray(0, tile.rows * second.inputs));
      if (this.times) multiply(middle, await this.times.run(tile, factors!.subarray(0, tile.rows * second.inputs)));
      addTile(target, await this.second.run(middle, result.subarray(0, tile.rows * second.outputs)), gain);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.first[Symbol.asyncDispose]();
    await this.second[Symbol.asyncDispose]();
    await this.times?.[Symbol.asyncDispose]();
  }
}

/** a ← a · b, number by number. */
function multiply({ rows, cols, data }: Tile, b: Tile): void {
  for (let i = 0; i < rows * cols; i++) data[i] *= b.data[i];
}
