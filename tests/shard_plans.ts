/** Plans of shards that tests read, damage and forge. */
import { featureMap } from "../src/feature_map.ts";
import { fitHead } from "../src/fitted.ts";
import { idOfModelPlan, type ModelPlan, type ModelPlanContent } from "../src/shard/model_plan.ts";
import { cutShards, idOfPlan, type PlanContent, type ShardPlan } from "../src/shard/plan.ts";
import { wave } from "./cli/process.ts";

export const SIZES = { queryRows: 100, keyRows: 100, heads: 4, kvHeads: 2, headDim: 3, valueDim: 5 };
/** Stands for any SHA-256. */
export const HASH = "0123456789abcdef".repeat(4);

/** A fit with every kind of number in it. */
function fit() {
  const moments = (seed: number) => ({
    mean: Float64Array.from({ length: 3 }, (_, i) => wave(seed + i)),
    squares: Float64Array.from({ length: 3 }, (_, i) => 1 + wave(seed + i) ** 2),
    products: Float64Array.from({ length: 9 }, (_, i) => i % 4 === 0 ? 1 + wave(seed + i % 3) ** 2 : 0),
  });
  const heads = [1, 2].map((seed) => fitHead(featureMap("saderf"), moments(seed), moments(seed + 9), 0.5, true));
  return { source: "sample:4096", rows: 100, centred: true, heads };
}

/** A causal attention over 100 rows in seven shards, with a fit and decay. */
export function planContent(): PlanContent {
  const tensor = (heads: number, width: number) => {
    return { name: "", dtype: "f32" as const, shape: [heads, 100, width], rows: 100, heads, width, firstRow: 0 };
  };
  return {
    files: ["q.npy", "data/k.npy", "/far/v.npy"].map((path) => ({ path, bytes: 128, probe: HASH })),
    input: {
      input: null,
      q: 0,
      k: 1,
      v: 2,
      mask: null,
      projectionMatrix: null,
      heads: null,
      kvHeads: null,
      layout: "hld",
      dtype: null,
      encode: null,
      rows: { start: null, end: -1 },
    },
    tensors: { q: tensor(4, 3), k: tensor(2, 3), v: tensor(2, 5), mask: null },
    sizes: SIZES,
    attention: {
      features: "saderf",
      numFeatures: 16,
      projection: "orthogonal",
      norms: "chi",
      seed: 0,
      causal: true,
      scale: 0.5,
      decay: [0.1, 1e-300],
    },
    projectionHash: HASH,
    fit: fit(),
    fingerprint: HASH,
    output: { dtype: "f32", shape: [4, 100, 5] },
    shards: cutShards(SIZES, 7),
  };
}

/** A plan as it is read from `path`. */
export const planOf = (made: PlanContent, path = "plan.json"): ShardPlan => {
  return { ...made, version: "1.2.3", id: idOfPlan("1.2.3", made), path, folder: "/" };
};

/** A checkpoint of two layers over 100 rows. */
export function modelPlan(path = "plan.json"): ModelPlan {
  const layer = { heads: 4, headDim: 16, features: 44, projectionHash: HASH };
  const made: ModelPlanContent = {
    files: ["model.pt", "tokens.npy"].map((path) => ({ path, bytes: 128, probe: HASH })),
    input: { model: 0, tokens: 1, mask: null, config: null, part: null },
    model: {
      title: "PerformerLM",
      dim: 64,
      flow: "reversible",
      causal: true,
      kernel: "softmax",
      rules: "lucidrains",
      layers: [layer, { ...layer, projectionHash: null }],
    },
    encodings: false,
    output: { dtype: "f32", shape: [1, 100, 50] },
    shards: cutShards({ keyRows: 100, queryRows: 100 }, 7),
  };
  return { ...made, version: "1.2.3", id: idOfModelPlan("1.2.3", made), path, folder: "/" };
}
