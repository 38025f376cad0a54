/** Plans of models as files: every field is checked before anything is opened. */
import { RULES } from "../rules_table.ts";
import { Fields } from "../fields.ts";
import type { ModelPlanContent, PlannedLayer, PlannedModel } from "./model_plan.ts";
import { boundsOf, filesOf, isSize, MAX_TEXT } from "./plan_fields.ts";

/** Layers of one model, at most. */
const MAX_LAYERS = 10_000;
/** Sizes of a model, at most. */
const MAX_SIZE = 2 ** 24;

/** What a plan of a model says. Throws FieldError where it does not hold together. */
export function modelContentOf(fields: Fields): ModelPlanContent {
  const files = filesOf(fields);
  const input = inputOf(fields.object("input"), files.length);
  const model = modelOf(fields.object("model"));
  const encodings = fields.flag("encodings");
  const output = outputOf(fields.object("output"));
  const bounds = boundsOf(fields, "shards", output.shape.at(-2)!);
  return { files, input, model, encodings, output, shards: { keys: bounds, queries: bounds } };
}

function inputOf(fields: Fields, files: number): ModelPlanContent["input"] {
  const place = (key: string) => fields.whole(key, 0, files - 1);
  const input = {
    model: place("model"),
    tokens: place("tokens"),
    mask: fields.maybe("mask", place),
    config: fields.maybe("config", place),
    part: fields.maybe("part", () => fields.text("part", MAX_TEXT)),
  };
  fields.done();
  return input;
}

function modelOf(fields: Fields): PlannedModel {
  const model = {
    title: fields.text("title", MAX_TEXT),
    dim: fields.whole("dim", 1, MAX_SIZE),
    flow: fields.choice("flow", ["sequential", "reversible", "post-norm", "bare"]),
    causal: fields.flag("causal"),
    kernel: fields.choice("kernel", ["softmax", "generalized", "no-projection"]),
    rules: fields.choice("rules", RULES.map(({ name }) => name)),
    layers: fields.list<unknown>("layers", 1, MAX_LAYERS, () => true, "layers").map(layerOf),
  };
  fields.done();
  return model;
}

function layerOf(value: unknown, i: number): PlannedLayer {
  const fields = new Fields(value, `model.layers[${i}]`);
  const layer = {
    heads: fields.whole("heads", 1, MAX_SIZE),
    headDim: fields.whole("headDim", 1, MAX_SIZE),
    features: fields.whole("features", 1, MAX_SIZE),
    projectionHash: fields.maybe("projectionHash", () => fields.hash("projectionHash")),
  };
  fields.done();
  return layer;
}

/** One sequence of rows, with an axis of sequences before it or without. */
function outputOf(fields: Fields): ModelPlanContent["output"] {
  const dtype = fields.choice("dtype", ["f32", "f64", "f16"]);
  const shape = fields.list<number>("shape", 2, 3, isSize, "sizes");
  if (shape.includes(0) || (shape.length === 3 && shape[0] !== 1)) {
    fields.fail("shape", "[L, columns] or [1, L, columns]");
  }
  fields.done();
  return { dtype, shape };
}
