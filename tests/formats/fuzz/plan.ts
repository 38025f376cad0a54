/** Plans of shards and notes of parts (src/shard): refused, or just what the file says, with ranges that cover all rows once and in order. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { dirname, isAbsolute, join, resolve, sep } from "node:path";
import { isModelPlan, modelPlanText } from "../../../src/shard/model_plan.ts";
import { notePart, partOptions, readPart, surveyParts } from "../../../src/shard/parts.ts";
import {
  cutShards,
  placeOf,
  type PlanContent,
  planText,
  rangesOfShard,
  shardCount,
  shardName,
  type ShardPlan,
} from "../../../src/shard/plan.ts";
import { readPlan } from "../../../src/shard/plan_file.ts";
import { summaryOf } from "../../../src/shard/report.ts";
import { HASH, modelPlan, planContent, planOf, SIZES } from "../../shard_plans.ts";
import { bytesOf, type Kind, refusedOr, requireEqual } from "./case.ts";
import { damagedJson, DEEP } from "./json.ts";
import { one, type Pick } from "./random.ts";

const CAUSAL = planContent();
const PLAIN: PlanContent = {
  ...CAUSAL,
  files: [{ path: "qkv.npz", bytes: 4000, probe: HASH }, { path: "mask.npy", bytes: 200, probe: HASH }],
  input: { ...CAUSAL.input, input: 0, q: null, k: null, v: null, mask: 1, rows: null },
  tensors: { ...CAUSAL.tensors, mask: { ...CAUSAL.tensors.q, heads: 1, width: 1, shape: [100], dtype: "bool" } },
  attention: { ...CAUSAL.attention, features: "elu", causal: false, decay: null, scale: null },
  projectionHash: null,
  fit: null,
  shards: cutShards(SIZES, 100),
};

const MODEL_PLAN = modelPlan();
const textOf = (content: PlanContent) => planText(planOf(content));
const encoded = (text: string) => new TextEncoder().encode(text);
const decoded = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** SHA-256 of the lines of a plan but the last, as docs/shard.md says of its `id`. */
function idOf(made: Record<string, unknown>): string {
  const entries = Object.entries(made).filter(([key]) => key !== "id");
  const lines = entries.map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`);
  return createHash("sha256").update(lines.join("\n")).digest("hex");
}

/** Cuts that cover something else than all rows, once and in order. */
function recut(plan: Record<string, unknown>, pick: Pick): void {
  const cuts = plan.shards as { keys: number[] } | number[];
  const keys = Array.isArray(cuts) ? cuts : cuts.keys;
  const at = pick(keys.length);
  const bounds = one(pick, [
    keys.with(at, keys[at] + 1),
    keys.with(at, keys[(at + 1) % keys.length]),
    keys.with(at, -1),
    keys.toSpliced(at, 1),
    keys.toReversed(),
    [...keys, 101],
    [0, 0, 100],
    [0, 100],
    [0],
    Array.from({ length: 150_000 }, (_, i) => i),
  ]);
  plan.shards = Array.isArray(cuts)
    ? bounds
    : one(pick, [{ keys: bounds, queries: bounds }, { keys: bounds, queries: keys }]);
}

const aimed = (bytes: Uint8Array, pick: Pick) => encoded(damagedJson(JSON.parse(decoded(bytes)), pick));

function forged(bytes: Uint8Array, pick: Pick): Uint8Array {
  const plan = JSON.parse(decoded(bytes));
  if (pick(4) === 0) {
    recut(plan, pick);
    plan.id = idOf(plan);
    return encoded(JSON.stringify(plan));
  }
  const text = damagedJson(plan, pick);
  if (text.length > DEEP) return encoded(text);
  try {
    const damaged = JSON.parse(text);
    return encoded(JSON.stringify({ ...damaged, id: idOf(damaged) }));
  } catch {
    return encoded(text);
  }
}

async function judge(path: string, bytes: Uint8Array, step: (name: string) => void): Promise<string> {
  step("read");
  const plan = await refusedOr(path, () => readPlan(path));
  if (!plan) return "refused";
  const text = isModelPlan(plan) ? modelPlanText(plan) : planText(plan);
  const said = JSON.parse(decoded(bytes));
  requireEqual("the plan", sorted(JSON.parse(text)), sorted(said));
  requireEqual("its id", plan.id, idOf(JSON.parse(text)));
  if (isModelPlan(plan)) {
    const { keys, queries } = plan.shards;
    requireEqual("rows of queries", queries, keys);
    const rises = keys.every((row, i) => i === 0 ? row === 0 : row > keys[i - 1]);
    if (!rises || keys.at(-1) !== plan.output.shape.at(-2)) throw new Error(`shards begin at [${keys}]`);
  } else requireWhole(plan);
  for (const file of plan.files) {
    const place = placeOf(plan, file);
    const below = resolve(place).startsWith(resolve(dirname(path)) + sep);
    if (place.split(sep).includes("..") || !(isAbsolute(file.path) || below)) throw new Error(`names ${file.path}`);
  }
  return "read";
}

/** Every row of keys and of queries belongs to one shard, and shards are in the order of rows. */
function requireWhole(plan: ShardPlan): void {
  summaryOf(plan);
  const at = { keys: 0, queries: 0 };
  for (let id = 0; id < shardCount(plan); id++) {
    const ranges = rangesOfShard(plan, id);
    for (const what of ["keys", "queries"] as const) {
      const { start, end } = ranges[what];
      if (start !== at[what] || !(end > start)) throw new Error(`shard ${id} has ${what} ${start} to ${end}`);
      at[what] = end;
    }
    if (!/^\d{4,}$/.test(shardName(plan, id))) throw new Error(`shard ${id} is called ${shardName(plan, id)}`);
    if (plan.attention.causal) requireEqual("rows of a shard", ranges.keys, ranges.queries);
    const { shape } = partOptions(plan, id);
    const numbers = (end(ranges.queries)) * plan.sizes.heads * plan.sizes.valueDim;
    if (shape.reduce((a, b) => a * b, 1) !== numbers) {
      throw new Error(`part ${id} is [${shape}], not ${numbers} numbers`);
    }
  }
  const { keyRows, queryRows } = plan.sizes;
  requireEqual("rows of all shards", at, { keys: keyRows, queries: queryRows });
}

const end = ({ start, end }: { start: number; end: number }) => end - start;

/** A tree whose keys are in order. */
function sorted(tree: unknown): unknown {
  if (typeof tree !== "object" || tree === null) return Object.is(tree, -0) ? 0 : tree;
  if (Array.isArray(tree)) return tree.map(sorted);
  return Object.entries(tree).sort(([a], [b]) => a < b ? -1 : 1).map(([key, value]) => [key, sorted(value)]);
}

export const plan: Kind = {
  file: "plan.json",
  bases: [
    { name: "plan, causal", bytes: encoded(textOf(CAUSAL)) },
    { name: "plan", bytes: encoded(textOf(PLAIN)) },
    { name: "plan of a model", bytes: encoded(modelPlanText(MODEL_PLAN)) },
  ],
  aimed,
  forged,
  judge,
};

/** A part of 40 bytes, of shard 0 of the causal plan. */
const ROWS = new Uint8Array(40);
const OWN = planOf(CAUSAL);

async function judgeNote(path: string, _: Uint8Array, step: (name: string) => void): Promise<string> {
  const folder = dirname(path);
  writeFileSync(join(folder, `${shardName(OWN, 0)}.npy`), ROWS);
  step("read");
  const note = await refusedOr(path, () => readPart(OWN, folder, 0));
  step("survey");
  const { done, damaged, missing } = await surveyParts(OWN, folder);
  const own = note?.plan === OWN.id && note.shard === 0;
  if (done.includes(0) !== own) throw new Error(`the part is ${own ? "not done" : "done"}: ${JSON.stringify(note)}`);
  requireEqual("the survey", [...done, ...damaged, ...missing].sort((a, b) => a - b), [0, 1, 2, 3, 4, 5, 6]);
  return own ? "read" : "refused";
}

const noted = await bytesOf(`${shardName(OWN, 0)}.json`, async (path) => {
  writeFileSync(path.replace(".json", ".npy"), ROWS);
  await notePart(OWN, dirname(path), 0, HASH);
});

export const note: Kind = {
  file: `${shardName(OWN, 0)}.json`,
  bases: [{ name: "note of a part", bytes: noted }],
  aimed,
  forged: null,
  judge: judgeNote,
};
