/** A feed-forward layer on a backend: w2(gelu(w1 x)), or w2(gelu(first half) · second half) where it is gated. */
import type { Backend, Linear } from "../backend.ts";
import type { FloatArray } from "../tensor.ts";
import type { FeedForwardLayout } from "./description.ts";
import type { Room } from "./room.ts";
import { addTile, tilesOf } from "./rows.ts";
import type { Weights } from "./weights.ts";

export class FeedForward implements AsyncDisposable {
  private constructor(
    readonly layout: FeedForwardLayout,
    readonly first: Linear,
    readonly second: Linear,
    readonly tileRows: number,
  ) {}

  static async open(
    backend: Backend,
    weights: Weights,
    layout: FeedForwardLayout,
    tileRows: number,
  ): Promise<FeedForward> {
    const first = await weights.linear(backend, layout.first, tileRows, {
      activation: layout.gated ? "gelu-glu" : "gelu",
    });
    const second = await weights.linear(backend, layout.second, tileRows);
    return new FeedForward(layout, first, second, tileRows);
  }

  /** Operations on `rows` rows. */
  flops(rows: number): number {
    const { first, second } = this.layout;
    return 2 * rows * (first.inputs * first.outputs + second.inputs * second.outputs);
  }

  /** target += gain · layer(x), both `rows × dim`. */
  async run(x: FloatArray, rows: number, target: FloatArray, gain: number, room: Room): Promise<void> {
    const { first, second } = this.layout;
    const most = Math.min(rows, this.tileRows);
    const hidden = room.take("hidden", most * second.inputs);
    const result = room.take("result", most * second.outputs);
    for (const tile of tilesOf(x, rows, first.inputs, this.tileRows)) {
      const middle = await this.first.run(tile, hidden.subarray(0, tile.rows * second.inputs));
      addTile(target, await this.second.run(middle, result.subarray(0, tile.rows * second.outputs)), gain);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.first[Symbol.asyncDispose]();
    await this.second[Symbol.asyncDispose]();
  }
}
