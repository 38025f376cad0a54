/** `performer shard plan --weights`: a checkpoint layer by layer, in any order and with failures, is what `performer run --compat exact` computes. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inside, npyBytes, performer, readNpyBytes, ROOT, scratch, wave } from "./process.ts";
import { distance, done, shard } from "./shard_runs.ts";

const { path, remove } = scratch();
afterAll(remove);

const SCALAR = ["--backend", "scalar"];
const SHARDS = 3;
const golden = (folder: string, file: string) => join(ROOT, "tests/golden", folder, file);

const numbers = (file: string) => readNpyBytes(readFileSync(file));

/** The tasks of a plan, each as the words of its action. */
function tasksOf(layers: number): string[][] {
  const ids = Array.from({ length: SHARDS }, (_, id) => id);
  return Array.from({ length: layers }, (_, layer) => {
    const at = (action: string, id: number) => [action, "--layer", `${layer}`, "--id", `${id}`, ...SCALAR];
    return [...ids.map((id) => at("map", id)), ["merge", "--layer", `${layer}`], ...ids.map((id) => at("apply", id))];
  }).flat();
}

/** Runs all tasks in order in the folder of the plan, or in another. */
async function runAll(plan: string, layers: number, ...more: readonly string[]): Promise<void> {
  for (const [action, ...args] of tasksOf(layers)) await done(action, plan, ...args, ...more);
}

/** What `run` makes of the same input, and what was gathered. */
async function compared(name: string, model: string, input: string, ...more: readonly string[]) {
  const out = path(`${name}_whole.npy`);
  const args = ["run", model, input, "--compat", "exact", "--output-dtype", "f64", ...more, ...SCALAR, "-o", out];
  expect((await inside(args)).stderr).toBe("");
  return [numbers(path(`${name}.npy`)), numbers(out)];
}

interface Case {
  readonly name: string;
  readonly folder: string;
  readonly input: string;
  readonly layers: number;
  readonly more: () => string[];
}

const CASES: readonly Case[] = [
  { name: "reversible", folder: "lm/reversible", input: "tokens.npy", layers: 2, more: () => [] },
  { name: "rotary_causal", folder: "lm/rotary_glu_scalenorm_causal", input: "tokens.npy", layers: 2, more: () => [] },
  { name: "no_projection", folder: "lm/noproj", input: "tokens.npy", layers: 2, more: () => [] },
  {
    name: "masked_encodings",
    folder: "lm/axial",
    input: "tokens.npy",
    layers: 2,
    more: () => ["--mask", path("mask.npy"), "--encodings"],
  },
  { name: "bare_rows", folder: "self_attention/self_attention", input: "x.npy", layers: 1, more: () => [] },
];

const modelOf = ({ folder }: Case) => golden(folder, "model.pt");
const settingsOf = ({ folder, more }: Case) => ["--config", golden(folder, "config.json"), ...more()];
const planOf = ({ name }: Case) => path(`${name}/plan.json`);

beforeAll(async () => {
  writeFileSync(path("mask.npy"), npyBytes([128], (i) => i % 9 === 4 ? 0 : 1));
  for (const one of CASES) {
    mkdirSync(path(one.name));
    const [input, model] = [golden(one.folder, one.input), modelOf(one)];
    const settings = [...settingsOf(one), "--output-dtype", "f64", "--shards", `${SHARDS}`];
    await done("plan", input, "--weights", model, ...settings, "-o", planOf(one));
  }
});

describe.each(CASES)("$name", (one) => {
  test("outputs are those of run, to 1e-12", async () => {
    await runAll(planOf(one), one.layers);
    await done("gather", planOf(one), "-o", path(`${one.name}.npy`));
    const [gathered, whole] = await compared(
      one.name,
      modelOf(one),
      golden(one.folder, one.input),
      ...settingsOf(one),
    );
    expect([gathered.descr, gathered.shape]).toEqual([whole.descr, whole.shape]);
    expect(distance(gathered.data, whole.data)).toBeLessThan(1e-12);
    expect(await done("status", planOf(one))).toContain(`${SHARDS} of ${SHARDS} done`);
  }, 60_000);
});

describe.each(CASES.slice(0, 2))("$name, another schedule", (one) => {
  test("tasks in random order, those that fail run again: the same bytes", async () => {
    const root = path(`${one.name}_again`);
    const args = ["shard", "map", planOf(one), "--layer", "0", "--id", "1", "-o", root, ...SCALAR];
    const killed = await performer(args, { during: (child) => setTimeout(() => child.kill("SIGKILL"), 60) });
    expect([killed.signal, existsSync(join(root, "layer00/states/0001.safetensors"))]).toEqual(["SIGKILL", false]);
    let left = tasksOf(one.layers);
    let [turn, early] = [0, 0];
    while (left.length > 0) {
      const [action, ...rest] = left[Math.floor((wave(turn++) + 1) / 2 * left.length)];
      const { code, stderr } = await shard(action, planOf(one), ...rest, "-o", root);
      if (code === 0) left = left.filter(([other, ...words]) => other !== action || words.join() !== rest.join());
      else {
        expect([code, stderr]).toEqual([5, expect.stringContaining("Cannot")]);
        early++;
      }
      expect(turn).toBeLessThan(1000);
    }
    expect(early).toBeGreaterThan(0);
    await done("gather", planOf(one), root, "-o", path(`${one.name}_again.npy`));
    expect(readFileSync(path(`${one.name}_again.npy`))).toEqual(readFileSync(path(`${one.name}.npy`)));
    for (const folder of ["layer00/states", "layer01/states", "layer01/rows"]) {
      for (const file of readdirSync(join(root, folder))) {
        expect(readFileSync(join(root, folder, file))).toEqual(readFileSync(path(`${one.name}/${folder}/${file}`)));
      }
    }
  }, 120_000);
});

describe("what is there", () => {
  const one = CASES[0];
  const root = path("there");
  const task = (action: string, layer: number, ...more: string[]) =>
    shard(action, planOf(one), "--layer", `${layer}`, "-o", root, ...more);
  const status = async () => {
    const { code, stdout } = await shard("status", planOf(one), root, "--json");
    const { complete, next, folders } = JSON.parse(stdout);
    return { code, complete, next, folders: folders.map(({ done }: { done: number }) => done) };
  };

  test("is left alone, and status says of every layer what is missing and what comes next", async () => {
    expect(await status()).toEqual({
      code: 5,
      complete: false,
      next: { action: "map", layer: 0, shards: [0, 1, 2] },
      folders: [0, 0, 0, 0],
    });
    for (const id of [0, 2]) await task("map", 0, "--id", `${id}`, ...SCALAR);
    expect((await status()).next).toEqual({ action: "map", layer: 0, shards: [1] });
    const early = await task("merge", 0);
    expect([early.code, early.stderr]).toEqual([5, expect.stringContaining("missing: 1; run map --layer 0 again")]);
    await task("map", 0, "--id", "1", ...SCALAR);
    expect((await status()).next).toEqual({ action: "merge", layer: 0, shards: [] });
    await task("merge", 0);
    await task("apply", 0, "--id", "2", ...SCALAR);
    expect(await status()).toMatchObject({
      next: { action: "apply", layer: 0, shards: [0, 1] },
      folders: [3, 1, 0, 0],
    });
    const again = await task("apply", 0, "--id", "2", "--json", ...SCALAR);
    expect(JSON.parse(again.stdout)).toMatchObject({ skipped: true, layer: 0, backend: null });
    const text = (await shard("status", planOf(one), root)).stdout;
    expect(text).toContain("apply --layer 0 for 0-1");
  }, 60_000);

  test("a signal ends a task between two tiles, exit 130, and leaves nothing under its name", async () => {
    const stop = new AbortController();
    const args = ["shard", "apply", planOf(one), "--layer", "0", "--id", "1", "-o", root, "--tile", "1", ...SCALAR];
    const { openFirst } = await import("../../src/backends/mod.ts");
    const world = {
      signal: stop.signal,
      openFirst: async (...given: Parameters<typeof openFirst>) => {
        const opened = await openFirst(...given);
        setTimeout(() => stop.abort(new Error("interrupted")), 1);
        return opened;
      },
    };
    expect((await inside(args, world)).code).toBe(130);
    const names = readdirSync(join(root, "layer00/rows"));
    expect(names.filter((name) => name.includes("0001"))).toEqual([]);
  }, 60_000);

  test("a damaged state is computed again", async () => {
    const state = join(root, "layer00/states/0000.safetensors");
    const before = readFileSync(state);
    truncateSync(state, before.length - 8);
    const { code, stderr } = await task("map", 0, "--id", "0", ...SCALAR);
    expect([code, stderr.includes("it is computed again")]).toEqual([0, true]);
    expect(readFileSync(state)).toEqual(before);
  }, 60_000);

  test("states of one layer are none of another", async () => {
    for (const id of [0, 1]) await task("apply", 0, "--id", `${id}`, ...SCALAR);
    for (const id of [0, 1]) await task("map", 1, "--id", `${id}`, ...SCALAR);
    copyFileSync(join(root, "layer00/states/0002.safetensors"), join(root, "layer01/states/0002.safetensors"));
    const { code, stderr } = await task("merge", 1);
    expect([code, stderr]).toEqual([5, expect.stringContaining("not of this plan: 0002.safetensors")]);
    const refused = await task("map", 1, "--id", "2", ...SCALAR);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining("another plan")]);
    expect((await task("map", 1, "--id", "2", "--force", ...SCALAR)).code).toBe(0);
    expect((await task("merge", 1)).code).toBe(0);
  }, 60_000);

  test("what was made of rows that are no longer those is made again", async () => {
    // Float32 makes another state of shard 1, and of it other rows of all shards.
    await task("map", 0, "--id", "1", "--force", "--backend", "wasm");
    await task("merge", 0);
    for (const id of [0, 1, 2]) await task("apply", 0, "--id", `${id}`, ...SCALAR);
    const { code, stderr } = await task("merge", 1);
    expect([code, stderr]).toEqual([5, expect.stringContaining("damaged: 0-2; run map --layer 1 again for them")]);
    for (const id of [0, 1, 2]) {
      expect(JSON.parse((await task("map", 1, "--id", `${id}`, "--json", ...SCALAR)).stdout).skipped).toBe(false);
    }
    expect((await task("merge", 1)).code).toBe(0);
  }, 60_000);
});

test("a plan of Bun runs on Deno, and there is what Bun makes", async () => {
  const one = CASES[1];
  const at = ["--layer", "1", "--id", "2", "-o", path(`${one.name}`), "--force", ...SCALAR];
  const files = ["states/0002.safetensors", "rows/0002.npy"].map((file) => path(`${one.name}/layer01/${file}`));
  const before = files.map((file) => readFileSync(file));
  for (const action of ["map", "apply"]) {
    const { code, stderr } = await performer(["shard", action, planOf(one), ...at], { runtime: "deno" });
    expect([code, stderr]).toEqual([0, ""]);
  }
  expect(readFileSync(files[0]).length).toBe(before[0].length);
  const rows = files.map((file) => file.endsWith(".npy") ? numbers(file).data : null)[1]!;
  expect(distance(rows, readNpyBytes(before[1]).data)).toBeLessThan(1e-12);
}, 60_000);

test("another checkpoint than the planned one is refused, exit 3", async () => {
  const folder = path("moved");
  mkdirSync(folder);
  copyFileSync(golden("lm/reversible", "model.pt"), join(folder, "model.pt"));
  const config = golden("lm/reversible", "config.json");
  const tokens = golden("lm/reversible", "tokens.npy");
  const plan = join(folder, "plan.json");
  await done("plan", tokens, "--weights", join(folder, "model.pt"), "--config", config, "--shards", "2", "-o", plan);
  copyFileSync(golden("lm/axial", "model.pt"), join(folder, "model.pt"));
  const { code, stderr } = await shard("map", plan, "--layer", "0", "--id", "0", ...SCALAR);
  expect([code, stderr]).toEqual([3, expect.stringContaining("it is not the file that")]);
});

describe("refused at plan time, with the reason", () => {
  const lm = (name: string, ...more: string[]) => {
    const file = (file: string) => golden(`lm/${name}`, file);
    return [file("tokens.npy"), "--weights", file("model.pt"), "--config", file("config.json"), ...more];
  };
  const encDec = (file: string) => join(ROOT, "tests/fixtures/enc_dec", file);
  const bert = (file: string) => join(ROOT, "tests/fixtures/transformers/bert", file);
  const cases: readonly (readonly [what: string, args: string[], words: string])[] = [
    ["local heads", lm("local_generalized"), "layer 0 has 2 local heads, whose windows reach across the edges"],
    ["token shift", lm("tied_shift_causal"), "layer 0 shifts tokens"],
    ["several sequences", lm("masked_batch2"), "it holds 2 sequences, expected one"],
    ["cross attention", [encDec("target.npy"), "--weights", encDec("model.pt")], "cross attention"],
    [
      "exact softmax",
      [bert("tokens.npy"), "--weights", bert("model.safetensors"), "--config", bert("config.json")],
      "its attention is exact softmax",
    ],
    ["other numerics", lm("noproj", "--compat", "lucidrains"), "only exact has such states"],
    ["settings of attention", lm("noproj", "-m", "64"), "the checkpoint says what attention is"],
    ["three files", ["q.npy", "k.npy", ...lm("noproj")], "expected INPUT"],
    ["more shards than rows", lm("noproj", "--shards", "65"), "expected at most 64"],
    ["flags of checkpoints without one", [golden("lm/noproj", "tokens.npy"), "--encodings"], "without --weights"],
  ];
  test.each(cases)("%s", async (_, args, words) => {
    const shards = args.includes("--shards") ? [] : ["--shards", "2"];
    const { code, stderr } = await shard("plan", ...args, ...shards, "-o", path("never.json"));
    expect([code, stderr]).toEqual([2, expect.stringContaining(words)]);
    expect(existsSync(path("never.json"))).toBe(false);
  });
});

describe("wrong usage", () => {
  const cases: readonly (readonly [string[], string])[] = [
    [["map", "--id", "0"], "Missing --layer"],
    [["map", "--id", "0", "--layer", "2"], "is a plan of a model with layers 0 to 1"],
    [["map", "--id", "3", "--layer", "0"], "it has shards 0 to 2"],
    [["apply", "--id", "0", "--layer", "0", "--state", "kv.safetensors"], "Cannot use --state with shard apply"],
    [["merge", "states", "--layer", "0"], "expected PLAN, a plan of a model"],
    [["gather"], "Missing -o"],
    [["map", "--id", "0", "--layer", "0", "--weights", "m.pt"], "the plan says it"],
  ];
  test.each(cases)("%p", async ([action, ...args], words) => {
    const { code, stderr } = await shard(action, planOf(CASES[0]), ...args);
    expect([code, stderr]).toEqual([2, expect.stringContaining(words)]);
  });

  test("--layer is of plans of models", async () => {
    writeFileSync(path("rows.npy"), npyBytes([20, 4], wave));
    await done("plan", path("rows.npy"), "--shards", "2", "-m", "8", "-o", path("rows.json"));
    const { code, stderr } = await shard("map", path("rows.json"), "--layer", "0", "--id", "0", "-o", path("x"));
    expect([code, stderr]).toEqual([2, expect.stringContaining("its plan is of one attention")]);
  });
});
