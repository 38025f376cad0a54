/** Plans as files: the same bytes again, and nothing that does not hold together. */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { InputError } from "../../src/errors.ts";
import {
  cutShards,
  evenBounds,
  pathInPlan,
  planText,
  rangesOfShard,
  shardName,
  type ShardPlan,
} from "../../src/shard/plan.ts";
import { isModelPlan, layerPlan, type ModelPlan, modelPlanText, placesOf } from "../../src/shard/model_plan.ts";
import { MAX_PLAN_BYTES, parsePlan, readPlan } from "../../src/shard/plan_file.ts";
import { idList } from "../../src/shard/report.ts";
import { scratch } from "../cli/process.ts";
import { HASH, modelPlan, planContent, planOf, SIZES } from "../shard_plans.ts";

const plan = (): ShardPlan => planOf(planContent(), "runs/plan.json");

/** The plan with something changed, and an id that agrees with it. */
function forged(change: (plan: Record<string, unknown>) => void, text = planText(plan())): string {
  const made = JSON.parse(text);
  delete made.id;
  change(made);
  const lines = Object.entries(made).map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`);
  const id = createHash("sha256").update(lines.join("\n")).digest("hex");
  return JSON.stringify({ ...made, id });
}

// deno-lint-ignore no-explicit-any
type Loose = any;

describe("a plan", () => {
  test("comes back from its text as it was, with every number of its fit", () => {
    const made = plan();
    const read = parsePlan(planText(made), made.path) as ShardPlan;
    expect({ ...read, folder: "/" }).toEqual(made);
    expect(read.folder).toEndWith("/runs");
    expect(planText(read)).toBe(planText(made));
    expect(read.fit!.heads[1].directions).toEqual(made.fit!.heads[1].directions);
    expect(parsePlan(forged(() => {}), "plan.json").id).toBe(made.id);
  });

  const WRONG: readonly (readonly [words: string, change: (plan: Loose) => void])[] = [
    ["schema is", (plan) => plan.schema = "performer-plan/2"],
    ["sizes is missing", (plan) => delete plan.sizes],
    ["extra is not known here", (plan) => plan.extra = 1],
    ["input.extra is not known here", (plan) => plan.input.extra = 1],
    ["files is []", (plan) => plan.files = []],
    ["files[0].path", (plan) => plan.files[0].path = "../q.npy"],
    ["files[0].path", (plan) => plan.files[0].path = "data/../../q.npy"],
    ["files[0].path", (plan) => plan.files[0].path = "data\\..\\..\\q.npy"],
    ["files[0].path", (plan) => plan.files[0].path = "/data/../etc/passwd"],
    ["files[0].path", (plan) => plan.files[0].path = "a//b.npy"],
    ["files[0].path", (plan) => plan.files[0].path = "q\u0000.npy"],
    ["files[0].path", (plan) => plan.files[0].path = "-"],
    ["files[0].path", (plan) => plan.files[0].path = ""],
    ["files[1].bytes is -1", (plan) => plan.files[1].bytes = -1],
    ["files[1].bytes is 1.5", (plan) => plan.files[1].bytes = 1.5],
    ["files[2].probe", (plan) => plan.files[2].probe = HASH.toUpperCase()],
    ["input.q is 3, expected a whole number from 0 to 2", (plan) => plan.input.q = 3],
    ["input.input is 0, expected one file", (plan) => plan.input.input = 0],
    ["input.layout", (plan) => plan.input.layout = "dlh"],
    ["input.rows.start", (plan) => plan.input.rows.start = "0"],
    ["tensors.q.dtype", (plan) => plan.tensors.q.dtype = "f8"],
    ["tensors.q.shape", (plan) => plan.tensors.q.shape = new Array(65).fill(1)],
    ["sizes.keyRows is 99, expected a whole number from 100 to 100", (plan) => plan.sizes.keyRows = 99],
    ["its tensors do not belong together", (plan) => {
      plan.tensors.k.heads = 3;
      plan.sizes.kvHeads = 3;
    }],
    ["attention.features", (plan) => plan.attention.features = "softmax"],
    ["attention.features", (plan) => plan.attention.features = "__proto__"],
    ["attention.numFeatures", (plan) => plan.attention.numFeatures = 1e12],
    ["attention.projection", (plan) => plan.attention.projection = "constructor"],
    ["attention.seed", (plan) => plan.attention.seed = -1],
    ["attention.scale", (plan) => plan.attention.scale = 0],
    ["attention.decay", (plan) => plan.attention.decay = [-1]],
    ["attention.decay", (plan) => plan.attention.decay = [1, 1, 1]],
    ["attention.decay", (plan) => plan.attention.causal = false],
    ["projectionHash", (plan) => plan.projectionHash = "abc"],
    ["fit.source", (plan) => plan.fit.source = "guessed"],
    ["fit.heads", (plan) => plan.fit.heads = []],
    ["fit.heads[0].shift", (plan) => plan.fit.heads[0].shift = [0]],
    ["fit.heads[1].balance.T", (plan) => plan.fit.heads[1].balance = { T: [1], inverse: [1] }],
    ["fit.heads[0].directions", (plan) => plan.fit.heads[0].directions = [1]],
    ["fit.heads[0].exponents", (plan) => plan.fit.heads[0].exponents = [0.2]],
    ["fit.heads[0].exponents", (plan) => plan.fit.heads[0].exponents = ["0"]],
    ["fit is given, relu has none", (plan) => plan.attention.features = "relu"],
    ["output.shape", (plan) => plan.output.shape = [4, 100, 4]],
    ["output.dtype", (plan) => plan.output.dtype = "i32"],
    ["shards.keys", (plan) => plan.shards.keys = [0, 50, 50, 100]],
    ["shards.keys", (plan) => plan.shards.keys = [1, 100]],
    ["shards.keys", (plan) => plan.shards.keys = [0, 99]],
    ["shards.keys", (plan) => plan.shards.keys = [0, 60, 40, 100]],
    ["shards.queries", (plan) => plan.shards.queries = [0, 100]],
    [
      "shards.queries",
      (plan) => plan.shards.queries = plan.shards.queries.map((row: number, i: number) => i === 1 ? row + 1 : row),
    ],
  ];
  test.each(WRONG)("is refused: %s", (words, change) => {
    const read = () => parsePlan(forged(change as (plan: Record<string, unknown>) => void), "plan.json");
    expect(read).toThrow(InputError);
    expect(read).toThrow(words);
  });

  test("is refused where it was changed after it was made, and where it is none", () => {
    expect(() => parsePlan(planText(plan()).replace('"seed":0', '"seed":1'), "plan.json")).toThrow(
      "it was changed after it was made",
    );
    for (const text of ["", "{", "[]", "null", '"plan"', "{}"]) {
      expect(() => parsePlan(text, "plan.json")).toThrow(InputError);
    }
  });

  test("is refused before it is parsed where that would take far more memory than its letters, or more levels than there are", () => {
    const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
    const text = planText(plan());
    const words: [string, string][] = [
      [deep, "nested deeper than 32 levels"],
      [text.replace('"seed":0', `"seed":${deep}`), "nested deeper than 32 levels"],
      [`[${"{},".repeat(1_000_001)}0]`, "more than 1000000 keys, objects and lists"],
      [text.replace('"path":"q.npy"', () => `"path":"q.npy${"[{:".repeat(40)}\\\""`), "files[0].path"],
    ];
    for (const [text, why] of words) {
      expect(() => parsePlan(text, "plan.json")).toThrow(InputError);
      if (why !== "files[0].path") expect(() => parsePlan(text, "plan.json")).toThrow(why);
      else expect(() => parsePlan(text, "plan.json")).toThrow("it was changed after it was made");
    }
  });

  test("is refused unread where it is too large", async () => {
    const { path, remove } = scratch();
    await Bun.write(path("plan.json"), new Uint8Array(MAX_PLAN_BYTES + 1));
    await expect(readPlan(path("plan.json"))).rejects.toThrow("expected at most");
    remove();
  });
});

describe("a plan of a model", () => {
  test("comes back from its text as it was", () => {
    const made = modelPlan("runs/plan.json");
    const read = parsePlan(modelPlanText(made), made.path) as ModelPlan;
    expect({ ...read, folder: "/" }).toEqual(made);
    expect(modelPlanText(read)).toBe(modelPlanText(made));
    expect([isModelPlan(read), isModelPlan(plan())]).toEqual([true, false]);
    expect(parsePlan(forged(() => {}, modelPlanText(made)), "plan.json").id).toBe(made.id);
  });

  test("has layers whose states and rows are not each other's, in folders by number", () => {
    const made = modelPlan("runs/plan.json");
    const [first, last] = [layerPlan(made, 0), layerPlan(made, 1)];
    expect(new Set([made.id, first.id, last.id]).size).toBe(3);
    expect([first.output, last.output]).toEqual([{ dtype: "f64", shape: [100, 128] }, made.output]);
    expect(placesOf(made, "run", 1)).toEqual({
      states: "run/layer01/states",
      merged: "run/layer01/prefix",
      rows: "run/layer01/rows",
    });
  });

  const WRONG: readonly (readonly [words: string, change: (plan: Loose) => void])[] = [
    ["schema is", (plan) => plan.schema = "performer-model-plan/2"],
    ["extra is not known here", (plan) => plan.extra = 1],
    ["files[0].path", (plan) => plan.files[0].path = "../model.pt"],
    ["input.model is 2", (plan) => plan.input.model = 2],
    ["input.tokens is null", (plan) => plan.input.tokens = null],
    ["model.flow", (plan) => plan.model.flow = "sideways"],
    ["model.kernel", (plan) => plan.model.kernel = "exact-softmax"],
    ["model.rules", (plan) => plan.model.rules = "__proto__"],
    ["model.layers is []", (plan) => plan.model.layers = []],
    ["model.layers[1].features is 0", (plan) => plan.model.layers[1].features = 0],
    ["model.layers[0].projectionHash", (plan) => plan.model.layers[0].projectionHash = "abc"],
    ["encodings", (plan) => plan.encodings = 1],
    ["output.shape", (plan) => plan.output.shape = [2, 100, 50]],
    ["shards is", (plan) => plan.shards = [0, 50, 99]],
  ];
  test.each(WRONG)("is refused: %s", (words, change) => {
    const text = forged(change as (plan: Record<string, unknown>) => void, modelPlanText(modelPlan("runs/plan.json")));
    expect(() => parsePlan(text, "plan.json")).toThrow(InputError);
    expect(() => parsePlan(text, "plan.json")).toThrow(words);
  });

  test("is refused where it was changed after it was made", () => {
    const text = modelPlanText(modelPlan("runs/plan.json")).replace('"encodings": false', '"encodings": true');
    expect(() => parsePlan(text, "plan.json")).toThrow("it was changed after it was made");
  });
});

test("bounds are as equal as they can be, and cover all rows", () => {
  expect(evenBounds(10, 4)).toEqual([0, 3, 6, 8, 10]);
  expect(evenBounds(4, 4)).toEqual([0, 1, 2, 3, 4]);
  const bounds = evenBounds(1e15 + 7, 4096);
  expect([bounds.length, bounds.at(-1)]).toEqual([4097, 1e15 + 7]);
  expect(Math.max(...bounds.slice(1).map((row, i) => row - bounds[i])) - Math.floor((1e15 + 7) / 4096)).toBe(1);
  expect(rangesOfShard({ shards: cutShards({ ...SIZES, queryRows: 30 }, 4) }, 1)).toEqual({
    keys: { start: 25, end: 50 },
    queries: { start: 8, end: 16 },
  });
});

test("files of shards are named by their number alone", () => {
  const of = (count: number) => ({ shards: { keys: new Array(count + 1).fill(0), queries: [] } });
  expect([shardName(of(64), 7), shardName(of(20_000), 7), shardName(of(10_000), 9999)]).toEqual([
    "0007",
    "00007",
    "9999",
  ]);
});

test("paths are below the plan's folder, or absolute", () => {
  expect(pathInPlan("/data/run", "/data/run/q.npy")).toBe("q.npy");
  expect(pathInPlan("/data/run", "/data/run/in/q.npy")).toBe("in/q.npy");
  expect(pathInPlan("/data/run", "/data/q.npy")).toBe("/data/q.npy");
  expect(pathInPlan("/data/run", "/data/run/..q.npy")).toBe("..q.npy");
  expect(() => pathInPlan("/data", "/data/q\n.npy")).toThrow("control characters");
});

test("lists of shards are short", () => {
  expect([idList([]), idList([3]), idList([3, 17, 18, 19, 21])]).toEqual(["", "3", "3,17-19,21"]);
});
