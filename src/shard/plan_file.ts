/**
 * Plans as files. A plan may come from anywhere, so every field is checked before anything is opened: sizes against each other, names of
 * files, numbers against what they stand for, and its id against all of it.
 */
import { dirname, resolve } from "node:path";
import { openFile } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { FEATURE_MAPS, featureMap } from "../feature_map.ts";
import { parseSource } from "../fit.ts";
import type { Fit, HeadFit } from "../fitted.ts";
import { MAX_RANK } from "../formats/view.ts";
import { PROJECTIONS } from "../projection.ts";
import { type DType, DTYPE_BYTES } from "../tensor.ts";
import { FieldError, Fields, jsonOf } from "../fields.ts";
import { idOfModelPlan, MODEL_PLAN_SCHEMA, type ModelPlan } from "./model_plan.ts";
import { modelContentOf } from "./model_plan_file.ts";
import {
  idOfPlan,
  PLAN_SCHEMA,
  type PlanContent,
  type PlannedInput,
  type PlannedTensor,
  type ShardPlan,
} from "./plan.ts";
import { boundsOf, filesOf, isSize, MAX_TEXT } from "./plan_fields.ts";

/** A plan of the most shards, with fitted matrices of many heads, is smaller. */
export const MAX_PLAN_BYTES = 2 ** 26;
const MAX_FEATURES = 2 ** 24;

/** Reads and checks a plan, of one attention or of a model. Throws InputError for a file that is none. */
export async function readPlan(path: string): Promise<ShardPlan | ModelPlan> {
  await using file = await openFile(path);
  if (file.byteLength > MAX_PLAN_BYTES) {
    throw new InputError(
      `Cannot read plan "${path}": it has ${file.byteLength} bytes, expected at most ${MAX_PLAN_BYTES}`,
    );
  }
  const bytes = new Uint8Array(file.byteLength);
  await file.read(bytes, 0);
  return parsePlan(new TextDecoder().decode(bytes), path);
}

/** The plan of a text; `path` names it and says where relative paths begin. Throws InputError for what is none. */
export function parsePlan(text: string, path: string): ShardPlan | ModelPlan {
  try {
    const fields = new Fields(jsonOf(text), "");
    const schema = fields.choice("schema", [PLAN_SCHEMA, MODEL_PLAN_SCHEMA]);
    const version = fields.text("version", 64);
    const at = { version, path, folder: dirname(resolve(path)) };
    if (schema === MODEL_PLAN_SCHEMA) {
      const content = modelContentOf(fields);
      return { ...content, id: idOf(fields, idOfModelPlan(version, content)), ...at };
    }
    const content = contentOf(fields);
    return { ...content, id: idOf(fields, idOfPlan(version, content)), ...at };
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    const words = `Cannot read plan "${path}": ${error.message}; make it with performer shard plan`;
    throw new InputError(words, { cause: error });
  }
}

/** The id that a plan says, which must be its last key and follow from all others. */
function idOf(fields: Fields, wanted: string): string {
  const id = fields.hash("id");
  fields.done();
  if (id !== wanted) throw new FieldError(`id is ${id}, expected ${wanted}: it was changed after it was made`);
  return id;
}

function contentOf(fields: Fields): PlanContent {
  const files = filesOf(fields);
  const input = inputOf(fields.object("input"), files.length);
  const of = fields.object("tensors");
  const tensors = {
    q: tensorOf(of.object("q")),
    k: tensorOf(of.object("k")),
    v: tensorOf(of.object("v")),
    mask: of.maybe("mask", () => tensorOf(of.object("mask"))),
  };
  of.done();
  const sizes = sizesOf(fields.object("sizes"), tensors);
  const attention = attentionOf(fields.object("attention"), sizes);
  const projectionHash = fields.maybe("projectionHash", () => fields.hash("projectionHash"));
  const fit = fields.maybe("fit", () => fitOf(fields.object("fit"), attention.features, sizes));
  const fingerprint = fields.hash("fingerprint");
  const output = outputOf(fields.object("output"), sizes);
  const shards = shardsOf(fields.object("shards"), sizes, attention.causal);
  return { files, input, tensors, sizes, attention, projectionHash, fit, fingerprint, output, shards };
}

function inputOf(fields: Fields, files: number): PlannedInput {
  const place = (key: string) => fields.maybe(key, () => fields.whole(key, 0, files - 1));
  const input: PlannedInput = {
    input: place("input"),
    q: place("q"),
    k: place("k"),
    v: place("v"),
    mask: place("mask"),
    projectionMatrix: place("projectionMatrix"),
    heads: fields.maybe("heads", () => fields.whole("heads", 1)),
    kvHeads: fields.maybe("kvHeads", () => fields.whole("kvHeads", 1)),
    layout: fields.choice("layout", ["hld", "lhd"]),
    dtype: fields.maybe("dtype", () => fields.choice("dtype", ["bf16"])),
    encode: fields.maybe("encode", () => fields.text("encode", 64)),
    rows: fields.maybe("rows", () => {
      const rows = fields.object("rows");
      const end = (key: string) => rows.maybe(key, () => rows.whole(key, Number.MIN_SAFE_INTEGER));
      const range = { start: end("start"), end: end("end") };
      rows.done();
      return range;
    }),
  };
  fields.done();
  const three = [input.q, input.k, input.v].filter((file) => file !== null).length;
  if (input.input === null ? three !== 3 : three !== 0) fields.fail("input", "one file, or q, k and v without it");
  return input;
}

function tensorOf(fields: Fields): PlannedTensor {
  const tensor = {
    name: fields.text("name", MAX_TEXT),
    dtype: fields.choice("dtype", Object.keys(DTYPE_BYTES) as DType[]),
    shape: fields.list<number>("shape", 1, MAX_RANK, isSize, "sizes"),
    rows: fields.whole("rows", 0),
    heads: fields.whole("heads", 1),
    width: fields.whole("width", 0),
    firstRow: fields.whole("firstRow", 0),
  };
  fields.done();
  return tensor;
}

function sizesOf(fields: Fields, { q, k, v, mask }: PlanContent["tensors"]): PlanContent["sizes"] {
  const wanted = {
    queryRows: q.rows,
    keyRows: k.rows,
    heads: q.heads,
    kvHeads: k.heads,
    headDim: q.width,
    valueDim: v.width,
  };
  for (const [key, value] of Object.entries(wanted)) fields.whole(key, value, value);
  fields.done();
  const fits = k.width === q.width && v.rows === k.rows && v.heads === k.heads && q.heads % k.heads === 0;
  if (!fits || (mask && mask.rows !== k.rows)) throw new FieldError("its tensors do not belong together");
  return wanted;
}

function attentionOf(fields: Fields, { kvHeads }: PlanContent["sizes"]): PlanContent["attention"] {
  const lambda = (value: unknown) => typeof value === "number" && value >= 0 && value < Infinity;
  const attention = {
    features: fields.choice("features", FEATURE_MAPS.map(({ name }) => name)),
    numFeatures: fields.whole("numFeatures", 1, MAX_FEATURES),
    projection: fields.choice("projection", Object.keys(PROJECTIONS)),
    norms: fields.choice("norms", ["chi", "sqrtd"]),
    seed: fields.whole("seed", 0),
    causal: fields.flag("causal"),
    scale: fields.maybe("scale", () => fields.number("scale")),
    decay: fields.maybe("decay", () => {
      return fields.any("decay") === "alibi"
        ? "alibi" as const
        : fields.list<number>("decay", 1, kvHeads, lambda, "numbers of at least 0, or alibi");
    }),
  };
  fields.done();
  if (attention.scale !== null && !(attention.scale > 0)) fields.fail("scale", "a number above 0");
  if (attention.decay && !attention.causal) fields.fail("decay", "null where attention is not causal");
  return attention;
}

function fitOf(fields: Fields, features: string, { kvHeads, headDim: d }: PlanContent["sizes"]): Fit {
  const source = fields.text("source", 64);
  try {
    parseSource(source);
  } catch {
    fields.fail("source", "where it comes from, such as sample:4096");
  }
  const rows = fields.whole("rows", 0);
  const centred = fields.flag("centred");
  const found = fields.list<unknown>("heads", 1, kvHeads, () => true, "heads");
  fields.done();
  if (found.length !== 1 && found.length !== kvHeads) fields.fail("heads", `1 or ${kvHeads} heads`);
  const map = featureMap(features);
  if (map.kernel !== "softmax") throw new FieldError(`fit is given, ${features} has none`);
  const heads = found.map((value, h) => headOf(new Fields(value, `fit.heads[${h}]`), d));
  return { source, rows, centred, heads };
}

function headOf(fields: Fields, d: number): HeadFit {
  /** A statistic; NaN is null in JSON. */
  const statistic = (key: string) => fields.maybe(key, () => fields.number(key)) ?? NaN;
  const head: HeadFit = {
    shift: fields.maybe("shift", () => fields.numbers("shift", [d])),
    balance: fields.maybe("balance", () => {
      const of = fields.object("balance");
      const T = of.numbers("T", [d, d * d]);
      const inverse = of.numbers("inverse", [T.length]);
      of.done();
      return { T, inverse };
    }),
    exponents: fields.numbers("exponents", [0, 1, d]),
    directions: fields.maybe("directions", () => fields.numbers("directions", [d * d])),
    phiBefore: statistic("phiBefore"),
    phi: statistic("phi"),
    logVariance: statistic("logVariance"),
  };
  fields.done();
  // Beyond it the variance of a feature is infinite.
  if (head.exponents.some((a) => a >= 1 / 8)) fields.fail("exponents", "numbers below 1/8");
  return head;
}

function outputOf(fields: Fields, { queryRows, heads, valueDim }: PlanContent["sizes"]): PlanContent["output"] {
  const dtype = fields.choice("dtype", ["f32", "f64", "f16"]);
  const shape = fields.list<number>("shape", 2, 4, isSize, "sizes");
  fields.done();
  const size = shape.reduce((product, n) => product * n, 1);
  if (size !== queryRows * heads * valueDim) fields.fail("shape", `${queryRows * heads * valueDim} numbers in all`);
  return { dtype, shape };
}

function shardsOf(
  fields: Fields,
  { keyRows, queryRows }: PlanContent["sizes"],
  causal: boolean,
): PlanContent["shards"] {
  const shards = { keys: boundsOf(fields, "keys", keyRows), queries: boundsOf(fields, "queries", queryRows) };
  fields.done();
  if (shards.keys.length !== shards.queries.length) fields.fail("queries", "as many bounds as of keys");
  if (causal && shards.keys.some((row, i) => row !== shards.queries[i])) {
    fields.fail("queries", "the bounds of keys, as attention is causal");
  }
  return shards;
}
