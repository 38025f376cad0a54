/**
 * A model in parts: one layer of some rows of a sequence. Keys of all parts of a layer add up (`keysOfRows`); with their sum, rows pass the
 * layer by themselves (`rowsThrough`), and behind the last one they become outputs.
 */
import type { Backend } from "../backend.ts";
import { InputError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import { type PlannedLayer, type PlannedModel, streamsOf } from "../shard/model_plan.ts";
import { sha256 } from "../shard/plan.ts";
import type { State } from "../state.ts";
import { type FloatArray, floats, type Tile } from "../tensor.ts";
import { storedProjection } from "./attention_layer.ts";
import type { Description, ModelLayout } from "./description.ts";
import type { Sequence } from "./embedding.ts";
import { Ledger } from "./ledger.ts";
import { isClassifier, outputCols } from "./output.ts";
import { Pass, type Streams } from "./pass.ts";
import { Room } from "./room.ts";
import { Weights } from "./weights.ts";

/** Why a model cannot be cut by rows; null where it can. */
export function whyWhole(layout: ModelLayout, encodings: boolean): string | null {
  if (layout.kernel === "exact-softmax") return "its attention is exact softmax, whose keys have no sum of fixed size";
  if (isClassifier(layout, encodings)) {
    return "its classifier looks at all rows of a sequence together; --encodings gives the rows before it";
  }
  for (const [index, { attention, feedForward }] of layout.layers.entries()) {
    if (attention.kind === "cross") return `layer ${index} attends to another sequence (cross attention)`;
    if (attention.local) {
      return `layer ${index} has ${attention.local.heads} local heads, whose windows reach across the edges of shards`;
    }
    if (attention.shift || feedForward?.shift) {
      return `layer ${index} shifts tokens, so that a shard's rows need those beside them in another`;
    }
  }
  return null;
}

/** What a plan says of one layer. */
async function plannedLayer(weights: Weights, layout: ModelLayout, index: number): Promise<PlannedLayer> {
  const { heads, headDim, ...attention } = layout.layers[index].attention;
  const W = layout.kernel === "no-projection"
    ? new Float64Array()
    : await storedProjection(weights, { ...attention, heads, headDim });
  return {
    heads,
    headDim,
    features: W.length > 0 ? W.length / headDim : headDim,
    projectionHash: W.length > 0 ? sha256(W) : null,
  };
}

/** What a plan says of a model. */
export async function plannedModel(
  container: Container,
  { title, rules }: Description,
  layout: ModelLayout,
): Promise<PlannedModel> {
  const weights = new Weights(container, "f64");
  const { dim, flow, causal, kernel } = layout;
  const layers: PlannedLayer[] = [];
  for (const index of layout.layers.keys()) layers.push(await plannedLayer(weights, layout, index));
  return { title, dim, flow, causal, kernel, rules, layers };
}

/** Some rows of a sequence at one layer of an open model. */
export interface LayerTask {
  readonly container: Container;
  readonly description: Description;
  readonly layout: ModelLayout;
  /** As planned. */
  readonly model: PlannedModel;
  readonly backend: Backend;
  readonly layer: number;
  /** The rows, with their positions; their tokens are only looked at for layer 0. */
  readonly sequence: Sequence;
  /** Rows behind the layer before, `rows × streams·dim` in any precision; null at layer 0. */
  readonly rows: FloatArray | null;
  readonly encodings: boolean;
  /** Columns of the outputs, as planned. */
  readonly cols: number;
  readonly tileRows?: number;
  /** Name of the input, for messages. */
  readonly input: string;
  readonly signal?: AbortSignal;
}

/**
 * Throws InputError where a checkpoint is not the one that was planned: in what it is, or in the numbers of W of the layer. A plan may come
 * from somebody else, so that whether it can be cut is asked again.
 */
async function requirePlanned(task: LayerTask, weights: Weights): Promise<void> {
  const { container, description: { title, rules }, layout, model, layer, encodings } = task;
  const { dim, flow, causal, kernel, layers: { length: layers } } = layout;
  const found = { title, dim, flow, causal, kernel, rules, layers, columns: outputCols(layout, encodings) };
  const planned = { ...model, layers: model.layers.length, columns: task.cols };
  const names = Object.keys(found) as (keyof typeof found)[];
  const other = names.find((name) => found[name] !== planned[name]);
  let what = other ? `its ${other} is ${found[other]}, planned was ${planned[other]}` : whyWhole(layout, encodings);
  if (!what && JSON.stringify(await plannedLayer(weights, layout, layer)) !== JSON.stringify(model.layers[layer])) {
    what = `the projection or the sizes of layer ${layer} are not those that were planned`;
  }
  if (what) throw new InputError(`Cannot use "${container.path}": ${what}; plan again`);
}

/** Opens what a task needs for `work`, and gives it back. */
async function passing<T>(task: LayerTask, work: (pass: Pass, streams: Streams[]) => Promise<T>): Promise<T> {
  const { container, layout, backend, sequence, encodings, tileRows, input, signal, rows, model } = task;
  const weights = new Weights(container, backend.limits.precision);
  await requirePlanned(task, weights);
  using room = new Room(backend);
  const options = {
    container,
    layout,
    rules: "exact",
    backend,
    sequences: [sequence],
    encodings,
    tileRows,
    input,
    signal,
  } as const;
  const pass = new Pass(options, weights, new Ledger(), room);
  // As `first` has them: rows that are given stay in the precision of their file.
  const precision = layout.embedding ? weights.precision : "f64";
  const streams = rows ? [apart(rows, streamsOf(model), layout.dim, precision)] : await pass.first();
  return await work(pass, streams);
}

/** What the keys of a layer that are made of these rows come to. */
export async function keysOfRows(task: LayerTask): Promise<State> {
  const [state] = await passing(task, (pass, streams) => pass.keys(task.layer, streams));
  return state;
}

/**
 * Takes rows through a layer: writes the rows behind it, `rows × streams·dim`, or behind the last layer the outputs.
 * @param state all keys of the layer; causal: those before these rows.
 */
export async function rowsThrough(task: LayerTask, state: State, write: (tile: Tile) => Promise<void>): Promise<void> {
  const { layer, layout, sequence: { length } } = task;
  await passing(task, async (pass, streams) => {
    await pass.layer(layer, streams, [state]);
    if (layer === layout.layers.length - 1) {
      for await (const { tile } of pass.output(pass.last(streams))) await write(tile);
      return;
    }
    const [own] = streams;
    const data = together(own, layout.dim);
    await write({ start: 0, rows: length, cols: own.length * layout.dim, data });
  });
}

/** Streams of `rows × streams·dim`, each `rows × dim`. */
function apart(data: FloatArray, streams: number, dim: number, precision: "f32" | "f64"): Streams {
  const rows = data.length / streams / dim;
  return Array.from({ length: streams }, (_, s) => {
    const stream = floats(precision, rows * dim);
    for (let row = 0; row < rows; row++) {
      const at = (row * streams + s) * dim;
      stream.set(data.subarray(at, at + dim), row * dim);
    }
    return stream;
  });
}

/** The inverse of `apart`. */
function together(streams: Streams, dim: number): FloatArray {
  if (streams.length === 1) return streams[0];
  const rows = streams[0].length / dim;
  const data = floats(streams[0] instanceof Float64Array ? "f64" : "f32", rows * streams.length * dim);
  for (const [s, stream] of streams.entries()) {
    for (let row = 0; row < rows; row++) {
      data.set(stream.subarray(row * dim, (row + 1) * dim), (row * streams.length + s) * dim);
    }
  }
  return data;
}
