/**
 * The contract of a whole checkpoint on many machines: one sequence cut by rows, and in every layer the three steps of one attention. Keys of
 * layer l + 1 are made of rows behind layer l, so that every layer is a barrier; what is between layers are files.
 *
 * Names of folders and files follow from numbers of layers and shards alone.
 */
import { join } from "node:path";
import {
  idOfLines,
  linesOf,
  type PartsPlan,
  type PlanContent,
  type PlannedFile,
  sha256,
  shardName,
  type ShardPlan,
  textOfLines,
} from "./plan.ts";
import { STATE_SUFFIX } from "../state_file.ts";

/** Raised when a key of a plan of a model changes its meaning or goes away. */
export const MODEL_PLAN_SCHEMA = "performer-model-plan/1";

/** The sums of one layer. */
export interface PlannedLayer {
  readonly heads: number;
  readonly headDim: number;
  /** Length of φ. */
  readonly features: number;
  /** SHA-256 of W in float64; null: it has none. */
  readonly projectionHash: string | null;
}

/** What a checkpoint was found to be; a task refuses one that it finds to be something else. */
export interface PlannedModel {
  readonly title: string;
  readonly dim: number;
  readonly flow: string;
  readonly causal: boolean;
  readonly kernel: string;
  /** The numerics that the checkpoint was trained with; tasks compute with those of `exact`, the only ones whose keys add up. */
  readonly rules: string;
  readonly layers: readonly PlannedLayer[];
}

/** What a plan of a model says. */
export interface ModelPlanContent {
  readonly files: readonly PlannedFile[];
  /** Places in `files`, and the prefix of the tensors. */
  readonly input: {
    readonly model: number;
    readonly tokens: number;
    readonly mask: number | null;
    readonly config: number | null;
    readonly part: string | null;
  };
  readonly model: PlannedModel;
  /** The rows before the output layer instead of its outputs. */
  readonly encodings: boolean;
  readonly output: PlanContent["output"];
  /** Shard i has rows `keys[i]` up to `keys[i + 1]` of every layer; queries are the same rows. */
  readonly shards: PlanContent["shards"];
}

/** A plan of a model that was made or read. */
export interface ModelPlan extends ModelPlanContent, Pick<ShardPlan, "version" | "id" | "path" | "folder"> {}

/** One layer of it: what its states and parts are found by. */
export interface LayerPlan extends PartsPlan {
  readonly layer: number;
  /** Sums of one of its states. */
  readonly sums: PlannedLayer;
  /** Streams side by side in rows between layers. */
  readonly streams: number;
}

export const isModelPlan = (plan: ShardPlan | ModelPlan): plan is ModelPlan => "model" in plan;

/** Residual streams between layers: one, or the two of reversible layers. */
export const streamsOf = ({ flow }: Pick<PlannedModel, "flow">): number => flow === "reversible" ? 2 : 1;

/** How many rows a plan has. */
export const rowsOfPlan = ({ shards }: Pick<ModelPlan, "shards">): number => shards.keys.at(-1)!;

/**
 * A layer of a plan, with an id of its own: states of one layer are none of another. Rows behind it are float64 whatever computed them,
 * streams side by side; behind the last layer they are the outputs.
 */
export function layerPlan(plan: ModelPlan, layer: number): LayerPlan {
  const { id, path, shards, model } = plan;
  const streams = streamsOf(model);
  const between = { dtype: "f64", shape: [rowsOfPlan(plan), streams * model.dim] } as const;
  const output = layer === model.layers.length - 1 ? plan.output : between;
  return {
    layer,
    id: sha256(`${id} layer ${layer}`),
    path: `${path}, layer ${layer}`,
    shards,
    output,
    sizes: { heads: 1, valueDim: output.shape.at(-1)! },
    input: { layout: "hld" },
    attention: model,
    sums: model.layers[layer],
    streams,
  };
}

/** Where the files of a layer are. */
export interface LayerPlaces {
  readonly states: string;
  /** What merge writes: a file, or for causal models a folder with a file for every shard. */
  readonly merged: string;
  readonly rows: string;
}

/** Places of a layer in the folder of a run. */
export function placesOf(
  { model: { layers, causal } }: Pick<ModelPlan, "model">,
  root: string,
  layer: number,
): LayerPlaces {
  const digits = Math.max(2, String(layers.length - 1).length);
  const folder = join(root, `layer${String(layer).padStart(digits, "0")}`);
  return {
    states: join(folder, "states"),
    merged: join(folder, causal ? "prefix" : `kv${STATE_SUFFIX}`),
    rows: join(folder, "rows"),
  };
}

/** The file of the state that a shard's rows attend to. */
export const seenBy = (plan: ModelPlan, { merged }: LayerPlaces, id: number): string =>
  plan.model.causal ? join(merged, shardName(plan, id) + STATE_SUFFIX) : merged;

/** The keys of a plan in their one order. */
function linesOfPlan(version: string, content: ModelPlanContent): string[] {
  const { files, input, model, encodings, output, shards } = content;
  return linesOf({
    schema: MODEL_PLAN_SCHEMA,
    version,
    files: files.map(({ path, bytes, probe }) => ({ path, bytes, probe })),
    input: {
      model: input.model,
      tokens: input.tokens,
      mask: input.mask,
      config: input.config,
      part: input.part,
    },
    model: {
      title: model.title,
      dim: model.dim,
      flow: model.flow,
      causal: model.causal,
      kernel: model.kernel,
      rules: model.rules,
      layers: model.layers.map(({ heads, headDim, features, projectionHash }) => {
        return { heads, headDim, features, projectionHash };
      }),
    },
    encodings,
    output: { dtype: output.dtype, shape: output.shape },
    shards: shards.keys,
  });
}

/** SHA-256 of what a plan says. */
export const idOfModelPlan = (version: string, content: ModelPlanContent): string =>
  idOfLines(linesOfPlan(version, content));

/** A plan as its file holds it. */
export const modelPlanText = (plan: ModelPlan): string => textOfLines(linesOfPlan(plan.version, plan), plan.id);
