/** `performer shard`: any cut, order, failure and repetition gives what one process gives; what does not belong together is refused. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { zipOf } from "../formats/torch_made.ts";
import { inside, npyBytes, performer, readNpyBytes, ROOT, scratch, wave } from "./process.ts";
import { distance, done, shard } from "./shard_runs.ts";

const { path, remove } = scratch();
afterAll(remove);

const SCALAR = ["--backend", "scalar"];
const small = (shape: readonly number[], seed: number) => npyBytes(shape, (i) => 0.8 * wave(i + 1e6 * seed));

beforeAll(() => {
  for (const [i, name] of ["q", "k", "v"].entries()) writeFileSync(path(`${name}.npy`), small([2, 650, 8], i + 1));
  writeFileSync(path("q_long.npy"), small([4, 70, 8], 4));
  writeFileSync(path("rows.npy"), small([90, 16], 5));
  writeFileSync(path("lhd.npy"), small([2, 60, 3, 8], 6));
  writeFileSync(path("mask.npy"), npyBytes([650], (i) => i % 7 === 0 ? 0 : 1 + i % 3));
  writeFileSync(path("W.npy"), small([12, 8], 7));
  const members = ["q", "k", "v"].map((name, i) => ({ name: `${name}.npy`, data: small([2, 100, 8], 8 + i) }));
  writeFileSync(path("qkv.npz"), zipOf(members));
  const text = readFileSync(join(ROOT, "examples/data/lambda_virus.fa"), "utf8").split("\n");
  writeFileSync(path("genome.fa"), text.slice(0, 6).join("\n") + "\n");
});

const numbers = (file: string) => readNpyBytes(readFileSync(file));

/** c, z and S of a state by name. */
async function sums(file: string): Promise<Record<string, number[]>> {
  const out: Record<string, number[]> = {};
  for (const name of ["c", "z", "S"]) {
    const to = path(`tensor_${name}.npy`);
    expect((await inside(["convert", file, to, "--tensor", name])).code).toBe(0);
    out[name] = numbers(to).data;
  }
  return out;
}

/** Key sums at one common exponent: what a state stands for. */
function meaning({ c, z, S }: Record<string, number[]>): number[] {
  const top = Math.max(...c);
  const width = S.length / z.length;
  return [
    ...z.map((value, f) => value * Math.exp(c[f] - top)),
    ...S.map((value, i) => value * Math.exp(c[Math.floor(i / width)] - top)),
  ];
}

/** 0 … n − 1 in some other order. */
function shuffled(n: number, seed: number): number[] {
  return Array.from({ length: n }, (_, i) => i).sort((a, b) => wave(a + 1000 * seed) - wave(b + 1000 * seed));
}

describe("64 shards", () => {
  const QKV = () => [path("q.npy"), path("k.npy"), path("v.npy")];
  const SETTINGS = ["-m", "32", "--output-dtype", "f64"];
  const runs = ["first", "second"].map((name) => ({
    name,
    at: (file: string) => path(`${name}_${file}`),
  }));
  const [first, second] = runs;

  beforeAll(async () => {
    await done("plan", ...QKV(), "--shards", "64", ...SETTINGS, "-o", path("plan.json"));
    await done("plan", ...QKV(), "--shards", "1", ...SETTINGS, "-o", path("whole.json"));
  });

  test("in order, and shuffled with failures that are run again, make the same bytes", async () => {
    for (let id = 0; id < 64; id++) {
      await done("map", path("plan.json"), "--id", `${id}`, "-o", first.at("states"), ...SCALAR);
    }
    const order = shuffled(64, 1);
    const lost = order.slice(5, 7).sort((a, b) => a - b);
    for (const id of order.filter((id) => id !== lost[0])) {
      await done("map", path("plan.json"), "--id", `${id}`, "-o", second.at("states"), ...SCALAR);
    }
    // One never ran, of the other the end was lost with the machine.
    const broken = join(second.at("states"), `${String(lost[1]).padStart(4, "0")}.safetensors`);
    truncateSync(broken, 1000);
    const merge = ["merge", path("plan.json"), second.at("states"), "-o", second.at("kv.safetensors")];
    const refused = await shard(...merge);
    expect([refused.code, refused.stdout]).toEqual([5, ""]);
    expect(refused.stderr).toContain(`62 of 64 shards are done`);
    expect(refused.stderr).toContain(
      `missing: ${lost[0]}; damaged: ${lost[1]}; run map again for them (sbatch --array=`,
    );
    expect(existsSync(second.at("kv.safetensors"))).toBe(false);
    const status = await shard("status", path("plan.json"), second.at("states"), "--json");
    expect(status.code).toBe(5);
    expect(JSON.parse(status.stdout)).toMatchObject({
      complete: false,
      folders: [{ done: 62, missing: [lost[0]], damaged: [lost[1]], foreign: [], doubles: [] }],
    });
    for (const id of lost) {
      const { code, stderr } = await shard(
        "map",
        path("plan.json"),
        "--id",
        `${id}`,
        "-o",
        second.at("states"),
        ...SCALAR,
      );
      expect([code, stderr.includes("it is computed again")]).toEqual([0, id === lost[1]]);
    }
    for (const run of runs) await done("merge", path("plan.json"), run.at("states"), "-o", run.at("kv.safetensors"));
    expect(readFileSync(first.at("kv.safetensors"))).toEqual(readFileSync(second.at("kv.safetensors")));
  }, 120_000);

  test("their sum is the state of one process, to 1e-12", async () => {
    await done("map", path("whole.json"), "--id", "0", "-o", path("whole"), ...SCALAR);
    const [merged, whole] = [await sums(first.at("kv.safetensors")), await sums(path("whole/0000.safetensors"))];
    expect(merged.c).toEqual(whole.c);
    expect(distance(meaning(merged), meaning(whole))).toBeLessThan(1e-12);
  }, 60_000);

  test("their outputs are those of attend, to 1e-12, and the same bytes in any order", async () => {
    for (const [run, order] of [[first, shuffled(64, 2)], [second, shuffled(64, 3)]] as const) {
      const state = ["--state", run.at("kv.safetensors")];
      for (const id of order) {
        await done("apply", path("plan.json"), ...state, "--id", `${id}`, "-o", run.at("out"), ...SCALAR);
      }
      await done("gather", path("plan.json"), run.at("out"), "-o", run.at("out.npy"));
    }
    expect(readFileSync(first.at("out.npy"))).toEqual(readFileSync(second.at("out.npy")));
    const [q, k, v] = QKV();
    const attend = [
      "attend",
      "--q",
      q,
      "--k",
      k,
      "--v",
      v,
      ...SETTINGS,
      ...SCALAR,
      "--check",
      "0",
      "-o",
      path("attended.npy"),
    ];
    expect((await inside(attend)).code).toBe(0);
    const [whole, gathered] = [numbers(path("attended.npy")), numbers(first.at("out.npy"))];
    expect([gathered.descr, gathered.shape]).toEqual([whole.descr, whole.shape]);
    expect(distance(gathered.data, whole.data)).toBeLessThan(1e-12);
  }, 120_000);

  test("what is done already is left alone, and the report says so", async () => {
    const at = join(first.at("states"), "0007.safetensors");
    const before = readFileSync(at);
    const map = ["map", path("plan.json"), "--id", "7", "-o", first.at("states"), ...SCALAR];
    const again = JSON.parse(await done(...map, "--json"));
    expect([again.skipped, again.backend, again.shard]).toEqual([true, null, { id: 7, from: "--id" }]);
    const forced = JSON.parse(await done(...map, "--force", "--json"));
    expect([forced.skipped, forced.backend.name]).toEqual([false, "scalar"]);
    expect(readFileSync(at)).toEqual(before);
    const apply = [
      "apply",
      path("plan.json"),
      "--state",
      first.at("kv.safetensors"),
      "--id",
      "7",
      "-o",
      first.at("out"),
    ];
    expect(JSON.parse(await done(...apply, ...SCALAR, "--json")).skipped).toBe(true);
    expect(await done("status", path("plan.json"), first.at("states"), first.at("out"))).toContain("64 of 64 done");
  }, 60_000);

  test("doubles, foreign states and files without a shard are named, exit 5", async () => {
    const states = second.at("states");
    const merge = ["merge", path("plan.json"), states, "-o", second.at("again.safetensors"), "--json"];
    const found = async () => {
      const { code, stdout } = await shard(...merge);
      expect(code).toBe(5);
      const { done, missing, foreign, doubles } = JSON.parse(stdout).folders[0];
      return { done, missing, foreign, doubles };
    };
    copyFileSync(join(states, "0003.safetensors"), join(states, "copy.safetensors"));
    expect(await found()).toEqual({ done: 64, missing: [], foreign: [], doubles: ["copy.safetensors"] });
    rmSync(join(states, "copy.safetensors"));
    copyFileSync(join(states, "0003.safetensors"), join(states, "0004.safetensors"));
    expect(await found()).toEqual({ done: 63, missing: [4], foreign: [], doubles: ["0004.safetensors"] });
    copyFileSync(path("whole/0000.safetensors"), join(states, "0004.safetensors"));
    expect(await found()).toEqual({ done: 63, missing: [4], foreign: ["0004.safetensors"], doubles: [] });
    const refused = await shard("map", path("plan.json"), "--id", "4", "-o", states, ...SCALAR);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining("another plan")]);
    rmSync(join(states, "0004.safetensors"));
    await done("map", path("plan.json"), "--id", "4", "-o", states, ...SCALAR);
    await done(...merge);
    expect(readFileSync(second.at("again.safetensors"))).toEqual(readFileSync(second.at("kv.safetensors")));
  }, 60_000);

  test("a state of some shards is no state of all, one of another plan none of this", async () => {
    const apply = (state: string) =>
      shard("apply", path("plan.json"), "--state", state, "--id", "0", "-o", path("never"), ...SCALAR);
    const one = await apply(join(first.at("states"), "0000.safetensors"));
    expect([one.code, one.stderr]).toEqual([3, expect.stringContaining("it is of shards 0, expected 0 to 63")]);
    const other = await apply(path("whole/0000.safetensors"));
    expect([other.code, other.stderr]).toEqual([3, expect.stringContaining("another plan")]);
    const folder = await apply(first.at("states"));
    expect([folder.code, folder.stderr]).toEqual([2, expect.stringContaining("it is a folder")]);
    expect(existsSync(path("never"))).toBe(false);
  });
});

/** Inputs and settings, and `attend` with the same flags. */
const CASES: readonly (readonly [name: string, args: () => string[]])[] = [
  [
    "masked keys, a fitted map",
    () => [
      "--q",
      path("q.npy"),
      "--k",
      path("k.npy"),
      "--v",
      path("v.npy"),
      "--mask",
      path("mask.npy"),
      "--features",
      "hyp-oprf",
    ],
  ],
  ["few queries that share key heads", () => ["--q", path("q_long.npy"), "--k", path("k.npy"), "--v", path("v.npy")]],
  [
    "causal with decay, members of a file",
    () => [path("qkv.npz"), "--causal", "--decay", "alibi", "--features", "positive"],
  ],
  ["some rows of [L, D]", () => [path("rows.npy"), "--heads", "2", "--rows", "10:-9", "--causal"]],
  ["rows first, a batch", () => [path("lhd.npy"), "--layout", "lhd", "--features", "trigonometric"]],
  ["a sequence that is encoded", () => [path("genome.fa"), "--encode", "kmer:4", "--causal", "--features", "elu"]],
  [
    "a given projection",
    () => [
      "--q",
      path("q.npy"),
      "--k",
      path("k.npy"),
      "--v",
      path("v.npy"),
      "--projection-matrix",
      path("W.npy"),
      "--features",
      "positive",
    ],
  ],
];

describe.each(CASES)("five shards: %s", (name, args) => {
  test("outputs are those of attend", async () => {
    const at = (file: string) => path(`${CASES.findIndex(([other]) => other === name)}_${file}`);
    const settings = [...args(), "-m", "24", "--output-dtype", "f64"];
    const causal = settings.includes("--causal");
    await done("plan", ...settings, "--shards", "5", "-o", at("plan.json"));
    for (const id of [3, 0, 4, 1, 2]) {
      await done("map", at("plan.json"), "--id", `${id}`, "-o", at("states"), ...SCALAR);
    }
    const state = causal ? at("prefix") : at("kv.safetensors");
    await done("merge", at("plan.json"), at("states"), ...(causal ? ["--scan"] : []), "-o", state);
    for (const id of [1, 4, 0, 2, 3]) {
      await done("apply", at("plan.json"), "--state", state, "--id", `${id}`, "-o", at("out"), ...SCALAR);
    }
    await done("gather", at("plan.json"), at("out"), "-o", at("out.npy"));
    await done("status", at("plan.json"), at("states"), at("out"), ...(causal ? [at("prefix")] : []));
    expect((await inside(["attend", ...settings, ...SCALAR, "--check", "0", "-o", at("attended.npy")])).stderr).toBe(
      "",
    );
    const [whole, gathered] = [numbers(at("attended.npy")), numbers(at("out.npy"))];
    expect([gathered.descr, gathered.shape]).toEqual([whole.descr, whole.shape]);
    expect(distance(gathered.data, whole.data)).toBeLessThan(1e-12);
  }, 60_000);
});

test("a causal plan takes no state of all keys, and a bidirectional one no scan", async () => {
  const files = readdirSync(path(".")).filter((name) => /^\d_plan\.json$/.test(name));
  expect(files.length).toBe(CASES.length);
  const wrong = await shard(
    "apply",
    path("2_plan.json"),
    "--state",
    path("1_kv.safetensors"),
    "--id",
    "0",
    "-o",
    path("x"),
    ...SCALAR,
  );
  expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining("needs the folder that merge --scan wrote")]);
  const scan = await shard("merge", path("1_plan.json"), path("1_states"), "--scan", "-o", path("x"));
  expect([scan.code, scan.stderr]).toEqual([2, expect.stringContaining("not causal")]);
});

describe("the number of a task", () => {
  const map = async (env: Record<string, string>, ...more: string[]) => {
    return await performer(["shard", "map", path("1_plan.json"), "-o", path("numbered"), ...SCALAR, ...more], { env });
  };

  test("comes from the array of an engine, and nothing else does", async () => {
    // What Slurm says when one task of an array is run again.
    const { code, stderr, stdout } = await map({
      SLURM_ARRAY_TASK_ID: "3",
      SLURM_ARRAY_TASK_COUNT: "1",
      SLURM_ARRAY_TASK_MAX: "3",
    });
    expect([code, stderr]).toEqual([0, "shard 3 by SLURM_ARRAY_TASK_ID\n"]);
    expect(stdout).toContain("shard 3 of 5 · rows 390 to 519");
    expect(readFileSync(path("numbered/0003.safetensors"))).toEqual(readFileSync(path("1_states/0003.safetensors")));
  }, 60_000);

  test("counts from 1 where engines do", async () => {
    expect((await map({ SGE_TASK_ID: "1" })).stderr).toBe("shard 0 by SGE_TASK_ID, which counts from 1\n");
    expect((await map({ SGE_TASK_ID: "undefined", LSB_JOBINDEX: "0" })).stderr).toContain("Missing --id");
  }, 60_000);

  test("is refused where it is unclear or too large; --id wins", async () => {
    const two = await map({ SLURM_ARRAY_TASK_ID: "1", PBS_ARRAY_INDEX: "2" });
    expect([two.code, two.stderr]).toEqual([
      2,
      expect.stringContaining("it is 1 by SLURM_ARRAY_TASK_ID and 2 by PBS_ARRAY_INDEX"),
    ]);
    expect((await map({ SLURM_ARRAY_TASK_ID: "1", PBS_ARRAY_INDEX: "2" }, "--id", "0004")).code).toBe(0);
    const beyond = await map({ SLURM_ARRAY_TASK_ID: "5" });
    expect([beyond.code, beyond.stderr]).toEqual([2, expect.stringContaining("it has shards 0 to 4")]);
  }, 60_000);
});

test("a plan of Bun is mapped on Deno: features are the same, and states add up", async () => {
  const args = ["shard", "map", path("0_plan.json"), "--id", "2", "-o", path("deno"), ...SCALAR];
  const { code, stderr } = await performer(args, { runtime: "deno" });
  expect([code, stderr]).toEqual([0, ""]);
  const [mine, theirs] = [await sums(path("deno/0002.safetensors")), await sums(path("0_states/0002.safetensors"))];
  expect(distance(meaning(mine), meaning(theirs))).toBeLessThan(1e-12);
  for (const id of [0, 1, 3, 4]) copyFileSync(path(`0_states/000${id}.safetensors`), path(`deno/000${id}.safetensors`));
  await done("merge", path("0_plan.json"), path("deno"), "-o", path("mixed.safetensors"));
}, 60_000);

test("an input that has changed since is refused, exit 3", async () => {
  await done("plan", path("rows.npy"), "--shards", "2", "-o", path("changed.json"));
  writeFileSync(path("rows.npy"), small([90, 16], 55));
  const { code, stderr } = await shard("map", path("changed.json"), "--id", "0", "-o", path("changed"), ...SCALAR);
  expect([code, stderr]).toEqual([3, expect.stringContaining("it is not the file that")]);
  expect(existsSync(path("changed"))).toBe(false);
});

describe("wrong usage", () => {
  const cases: readonly (readonly [string[], string])[] = [
    [
      ["map", "1_plan.json", "--id", "0", "-o", "x", "--seed", "3"],
      "Cannot use --seed with shard map: the plan says it",
    ],
    [["map", "1_plan.json", "--id", "0", "-o", "x", "--scan"], "Cannot use --scan with shard map: it takes --id"],
    [["map", "1_plan.json", "--id", "0"], "Missing -o"],
    [["plan", "q.npy", "k.npy", "v.npy", "-o", "p.json"], "Missing --shards"],
    [["plan", "q.npy", "k.npy", "--shards", "2"], "Cannot plan with 2 files"],
    [["plan", "q.npy", "--shards", "651"], "expected at most 650"],
    [["plan", "q.npy", "--shards", "2", "--features", "softmax"], "exact attention needs all its keys again"],
    [["plan", "q.npy", "--shards", "2", "-o", "p.npy"], "its name must end in .json"],
    [["plan", "-", "--shards", "2"], "Cannot plan over standard input"],
    [["apply", "1_plan.json", "--id", "0", "-o", "x"], "Missing --state"],
    [["merge", "1_plan.json", "-o", "x.safetensors"], "expected PLAN and the folder of its states"],
    [["merge", "1_plan.json", "1_states", "-o", "x.npy"], "must end in .safetensors"],
    [["merg", "1_plan.json"], "did you mean merge?"],
  ];
  test.each(cases)("%p", async (args, words) => {
    const { code, stderr } = await performer(["shard", ...args], { cwd: path("."), input: npyBytes([4, 4], wave) });
    expect(stderr).toContain(words);
    expect(code).toBe(2);
  });
});
