/** `attend --weights FILE --layer N`: one attention layer of a checkpoint over rows of any length. */
import type { Attention, Sizes } from "../attention.ts";
import type { Backend } from "../backend.ts";
import { UsageError } from "../errors.ts";
import { openContainer } from "../formats/mod.ts";
import { Inputs } from "../inputs.ts";
import { storedProjection } from "../model/attention_layer.ts";
import { rotationOf } from "../model/rotation.ts";
import type { AttentionLayout, Description, ModelLayout } from "../model/description.ts";
import { type LayerSources, openLayerSources } from "../model/layer_sources.ts";
import { Weights } from "../model/weights.ts";
import { tileRowsFor } from "../plan.ts";
import type { AttendOptions } from "../run_base.ts";
import { rulesNamed } from "../rules_table.ts";
import { Stopwatch } from "../timing.ts";
import { attentionFrom } from "./attend_files.ts";
import type { Invocation } from "./command.ts";
import { describedBy, runnable } from "./model_files.ts";

/** The layer that the flags name, before any backend is open. */
export interface ChosenLayer extends AsyncDisposable {
  readonly path: string;
  readonly description: Description;
  readonly model: ModelLayout;
  readonly layout: AttentionLayout;
  readonly index: number;
  /** Reads tensors in a precision. */
  weights(precision: Backend["limits"]["precision"]): Weights;
}

/** Opens the checkpoint of `--weights`; null without one. */
export async function chooseLayer({ flags }: Invocation): Promise<ChosenLayer | null> {
  if (flags.weights === undefined) {
    if (flags.layer === undefined) return null;
    throw new UsageError("Cannot use --layer without --weights: name the checkpoint that the layer is in");
  }
  const path = String(flags.weights);
  for (const flag of ["heads", "kv-heads", "scale", "projection-matrix", "q", "k", "v", "encode"]) {
    if (flags[flag] !== undefined) {
      throw new UsageError(`Cannot use --${flag} with --weights: the layer makes its heads of the rows of one INPUT`);
    }
  }
  await using open = new AsyncDisposableStack();
  const container = open.use(await openContainer(path));
  const description = await describedBy(flags, container);
  const model = runnable(path, description);
  const index = Number(flags.layer ?? 0);
  if (index >= model.layers.length) {
    throw new UsageError(
      `Cannot use --layer ${index}: "${path}" has ${model.layers.length} layers, numbered from 0`,
    );
  }
  const layout = model.layers[index].attention;
  const held = open.move();
  return {
    path,
    description,
    model,
    layout,
    index,
    weights: (precision) => new Weights(container, precision),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** The layer's own attention, unless flags ask for other features or numerics. */
export async function layerAttention(layer: ChosenLayer, invocation: Invocation): Promise<Attention> {
  const { sources } = invocation;
  const { model, layout, description } = layer;
  const asked = await attentionFrom(invocation);
  const causal = asked.causal || (model.causal && layout.kind === "self");
  const own = sources.features === "default" && sources["num-features"] === "default" &&
    sources.projection === "default" && (layout.projection !== null || model.kernel === "no-projection");
  if (!own) return { ...asked, causal };
  const compat = sources.compat === "default" ? description.rules : asked.compat;
  const features = model.kernel === "generalized"
    ? model.activation
    : rulesNamed(compat).paired
    ? "hyperbolic"
    : "positive";
  const data = model.kernel === "no-projection" ? null : await storedProjection(layer.weights("f64"), layout);
  return {
    ...asked,
    causal,
    compat,
    features,
    projection: model.kernel === "no-projection" ? "none" : asked.projection,
    given: data && { path: layer.path, matrices: 1, headDim: layout.headDim, data },
  };
}

/** Sizes of the layer's queries, keys and values over `rows` rows. */
export function layerSizes({ layout: { heads, kvHeads, headDim, v } }: ChosenLayer, rows: number): Sizes {
  return { queryRows: rows, keyRows: rows, heads, kvHeads, headDim, valueDim: v.outputs / kvHeads };
}

/** What `attend` needs to run the layer over rows X. */
export interface OpenLayer extends AsyncDisposable {
  readonly inputs: Inputs;
  readonly sources: LayerSources;
  readonly tileRows: number;
  readonly options: NonNullable<AttendOptions["layer"]>;
}

/** Loads the layer on a backend. */
export async function openLayer(
  layer: ChosenLayer,
  backend: Backend,
  given: Inputs,
  wish: number | undefined,
): Promise<OpenLayer> {
  const { layout, model, description, path, index } = layer;
  const weights = layer.weights(backend.limits.precision);
  const watch = new Stopwatch();
  const widest = Math.max(layout.q.inputs, layout.q.outputs, layout.out.outputs);
  const tileRows = tileRowsFor(backend.limits, widest, wish);
  const rotation = await rotationOf(model.rotary, weights, given.q.info.rows);
  const sources = await openLayerSources(layout, given.q, { backend, weights, rotation, tileRows, watch });
  return {
    inputs: new Inputs(sources.q, sources.k, sources.v, given.weights, given.gaps),
    sources,
    tileRows,
    options: { path, model: description.title, index, watch, flops: (rows) => sources.flops(rows) },
    [Symbol.asyncDispose]: () => sources[Symbol.asyncDispose](),
  };
}
