/** From the last rows to what is written: encodings, logits, or the classes of scBERT's finetuned head. */
import type { Backend } from "../backend.ts";
import { type FloatArray, floats, type Tile } from "../tensor.ts";
import type { DenseActivation, DenseLayout, ModelLayout, OutputLayout } from "./description.ts";
import type { Ledger } from "./ledger.ts";
import { normalise, tilesOf } from "./rows.ts";
import type { Norm, Weights } from "./weights.ts";

/** Turns tiles of last rows into tiles of outputs; disposing gives back what it holds. */
export interface OutputHead extends AsyncDisposable {
  readonly cols: number;
  run(tile: Tile): Promise<Tile>;
}

/** Columns of an output row, or the classes of a sequence. */
export function outputCols(layout: ModelLayout, encodings: boolean): number {
  const { output, dim, embedding } = layout;
  if (encodings || output.kind === "none") return dim;
  if (output.kind === "tied") return embedding!.tokens;
  if (output.kind === "scbert-classifier") return output.dense.at(-1)!.outputs;
  return output.dense.outputs;
}

/** Whether a whole sequence makes one row of outputs. */
export function isClassifier(layout: ModelLayout, encodings: boolean): boolean {
  return !encodings && layout.output.kind === "scbert-classifier";
}

/** The final norm and the output layer on a backend. */
export async function openHead(
  backend: Backend,
  weights: Weights,
  layout: ModelLayout,
  tileRows: number,
  encodings: boolean,
): Promise<OutputHead> {
  const norm = layout.finalNorm && await weights.norm(layout.finalNorm);
  const stages = encodings ? [] : await stagesOf(backend, weights, layout, tileRows);
  const { precision } = backend.limits;
  return {
    cols: outputCols(layout, encodings),
    async run(tile) {
      const data = floats(precision, tile.rows * layout.dim);
      normalise(norm, tile.data, data, tile.rows, layout.dim);
      let rows: Tile = { ...tile, data };
      for (const stage of stages) rows = { ...await stage.run(rows), start: tile.start };
      return rows;
    },
    async [Symbol.asyncDispose]() {
      for (const stage of stages) await stage.dispose();
    },
  };
}

interface Stage {
  run(tile: Tile): Promise<Tile>;
  dispose(): Promise<void>;
}

async function stagesOf(backend: Backend, weights: Weights, layout: ModelLayout, tileRows: number): Promise<Stage[]> {
  const { output, embedding, dim } = layout;
  const dense = async (layer: DenseLayout, activation?: DenseActivation): Promise<Stage> => {
    const linear = await weights.linear(backend, layer, tileRows, { activation });
    return { run: (tile) => linear.run(tile), dispose: async () => await linear[Symbol.asyncDispose]() };
  };
  switch (output.kind) {
    case "none":
    case "scbert-classifier":
      return [];
    case "tied": {
      const shape = { inputs: dim, outputs: embedding!.tokens, firstRow: 0 };
      return [await dense({ weight: embedding!.table, bias: null, ...shape })];
    }
    case "dense": {
      const last = await dense(output.dense);
      return output.norm ? [normStage(await weights.norm(output.norm), dim), last] : [last];
    }
    case "transformed":
      return [
        await dense(output.transform, output.activation),
        normStage(await weights.norm(output.norm), dim),
        await dense(output.dense),
      ];
  }
}

function normStage(norm: Norm, dim: number): Stage {
  return {
    async run(tile) {
      normalise(norm, tile.data, tile.data, tile.rows, dim);
      return tile;
    },
    async dispose() {},
  };
}

/** Operations of the output layer for `rows` rows of `sequences` sequences. */
export function outputFlops(layout: ModelLayout, encodings: boolean, rows: number, sequences: number): number {
  const { output, dim } = layout;
  const of = ({ inputs, outputs }: DenseLayout) => 2 * inputs * outputs;
  if (encodings || output.kind === "none") return 0;
  if (output.kind === "tied") return 2 * rows * dim * layout.embedding!.tokens;
  if (output.kind === "dense") return rows * of(output.dense);
  if (output.kind === "transformed") return rows * (of(output.transform) + of(output.dense));
  return 2 * rows * dim + sequences * output.dense.reduce((sum, layer) => sum + of(layer), 0);
}

/** scBERT's finetuned head for one sequence of normalised rows: one number per row, then three layers over all of them. */
export async function classify(
  weights: Weights,
  output: Extract<OutputLayout, { kind: "scbert-classifier" }>,
  rows: FloatArray,
  dim: number,
): Promise<FloatArray> {
  const kernel = await weights.tensor(output.conv.weight);
  const [bias] = await weights.tensor(output.conv.bias);
  let values = Float64Array.from({ length: rows.length / dim }, (_, i) => {
    let sum = bias;
    for (let c = 0; c < dim; c++) sum += kernel[c] * rows[i * dim + c];
    return Math.max(0, sum);
  });
  for (const [i, layer] of output.dense.entries()) {
    const last = i === output.dense.length - 1;
    const { weight, bias } = await weights.dense(layer);
    const input = values;
    values = Float64Array.from({ length: layer.outputs }, (_, o) => {
      let sum = bias?.[o] ?? 0;
      for (let l = 0; l < layer.inputs; l++) sum += weight[o * layer.inputs + l] * input[l];
      return last ? sum : Math.max(0, sum);
    });
  }
  return weights.precision === "f64" ? values : Float32Array.from(values);
}

/** The outputs of one sequence, tile by tile, in arrays of their own. */
export async function* outputTiles(
  head: OutputHead,
  x: FloatArray,
  { rows, dim, tileRows }: { readonly rows: number; readonly dim: number; readonly tileRows: number },
  ledger: Ledger,
): AsyncGenerator<Tile> {
  for (const tile of tilesOf(x, rows, dim, tileRows)) yield await ledger.book("other", () => head.run(tile));
}
