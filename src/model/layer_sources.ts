/**
 * One attention layer of a checkpoint as tensors that are computed while they are read: rows X become queries, keys and values tile
 * by tile, and outputs pass the output projection on their way to the file. So `attend` runs a layer over files of any length.
 */
import type { Backend, Linear } from "../backend.ts";
import { UsageError } from "../errors.ts";
import { type Stopwatch, timed } from "../timing.ts";
import {
  type FloatArray,
  floats,
  type TensorInfo,
  type TensorSink,
  type TensorSource,
  type Tile,
  type TileOptions,
} from "../tensor.ts";
import { rotate, type Rotation } from "./rotation.ts";
import type { AttentionLayout, DenseLayout } from "./description.ts";
import type { Weights } from "./weights.ts";

/** The dense layers of an attention layer on a backend. */
export interface LayerSources extends AsyncDisposable {
  readonly q: TensorSource;
  readonly k: TensorSource;
  readonly v: TensorSource;
  /** A sink of heads' outputs that writes rows of the layer's output to `inner`. */
  sink(inner: TensorSink): TensorSink;
  /** Operations of the four projections for `rows` rows. */
  flops(rows: number): number;
}

/** Opens a layer over rows `x`, `L × dim`. Throws UsageError for local heads, cross attention and rows of another width. */
export async function openLayerSources(
  layout: AttentionLayout,
  x: TensorSource,
  options: { backend: Backend; weights: Weights; rotation: Rotation | null; tileRows: number; watch: Stopwatch },
): Promise<LayerSources> {
  const { backend, weights, rotation, tileRows, watch } = options;
  const { heads, headDim } = layout;
  refuse(layout, x.info);
  await using open = new AsyncDisposableStack();
  const linear = async (dense: DenseLayout) => open.use(await weights.linear(backend, dense, tileRows));
  const source = async (dense: DenseLayout, turned: boolean) => {
    const { outputs } = dense;
    const shape = { heads: outputs / headDim, width: headDim };
    return new ProjectedSource(x, await linear(dense), shape, turned ? rotation : null, watch);
  };
  const sources = {
    q: await source(layout.q, true),
    k: await source(layout.k, true),
    v: await source(layout.v, false),
  };
  const out = await linear(layout.out);
  const all = [layout.q, layout.k, layout.v, layout.out];
  const held = open.move();
  return {
    ...sources,
    sink: (inner) => new ProjectedSink(inner, out, watch, heads * headDim),
    flops: (rows) => all.reduce((sum, { inputs, outputs }) => sum + 2 * rows * inputs * outputs, 0),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function refuse({ kind, local, q }: AttentionLayout, { path, heads, width, rows }: TensorInfo): void {
  if (kind === "cross") {
    throw new UsageError("Cannot use --layer: it is cross attention, whose keys come from other rows");
  }
  if (local) {
    throw new UsageError(
      `Cannot use --layer: ${local.heads} of its heads are local; \`performer run\` runs such layers within their model`,
    );
  }
  if (heads === 1 && width === q.inputs) return;
  throw new UsageError(
    `Cannot run "${path}" through the layer: it is ${rows} rows of ${
      heads === 1 ? "" : `${heads} × `
    }${width} columns, ` +
      `expected one sequence [L, ${q.inputs}]; \`performer run\` takes batches`,
  );
}

/** Rows of a dense layer over the rows of a file. */
class ProjectedSource implements TensorSource {
  readonly info: TensorInfo;

  constructor(
    readonly x: TensorSource,
    readonly dense: Linear,
    { heads, width }: { readonly heads: number; readonly width: number },
    readonly rotation: Rotation | null,
    readonly watch: Stopwatch,
  ) {
    this.info = { ...x.info, heads, width };
  }

  async *tiles(tileRows: number, { range, precision = "f32", memory }: TileOptions = {}): AsyncIterable<Tile> {
    const { heads, width } = this.info;
    const most = tileRows * heads * width;
    const room = memory ?? [floats(precision, most)];
    let turn = 0;
    for await (const x of timed(this.watch, "read", this.x.tiles(tileRows, { range, precision }))) {
      const into: FloatArray = room[turn++ % room.length].subarray(0, x.rows * heads * width);
      const tile = { ...await this.watch.time("compute", () => this.dense.run(x, into)), start: x.start };
      rotate(this.rotation, tile, width);
      yield tile;
    }
  }

  /** The file and the layer are closed by who opened them. */
  async [Symbol.asyncDispose](): Promise<void> {}
}

/** Applies the output projection to what is written. */
class ProjectedSink implements TensorSink {
  constructor(readonly inner: TensorSink, readonly dense: Linear, readonly watch: Stopwatch, readonly cols: number) {}

  async write(tile: Tile): Promise<void> {
    const rows = { ...tile, cols: this.cols, data: tile.data.subarray(0, tile.rows * this.cols) };
    const out = await this.watch.time("compute", () => this.dense.run(rows));
    await this.inner.write({ ...out, start: tile.start });
  }

  async finish(): Promise<void> {
    await this.inner.finish();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.inner[Symbol.asyncDispose]();
  }
}
