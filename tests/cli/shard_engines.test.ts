/** Files of `performer shard script` in the hands of the engines: the bytes of one process, faults tried again, and only those. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { installed } from "./programs.ts";
import { inside, npyBytes, type Outcome, readNpyBytes, ROOT, runProcess, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
afterAll(remove);

const SHARDS = 5;
/** How a script is run in the folder of its plan, with three tasks at once. */
const ENGINES: Readonly<Record<string, { script: string; run: string[]; version: string }>> = {
  make: { script: "Makefile", run: ["make", "-j3"], version: "--version" },
  parallel: { script: "run.sh", run: ["./run.sh", "--jobs", "3"], version: "--version" },
  snakemake: {
    script: "Snakefile",
    run: ["snakemake", "--cores", "3", "--quiet", "--nocolor"],
    version: "--version",
  },
};

/** A program that runs performer, says so in a file, and fails where the test wants it to. */
function program(): string {
  const lines = [
    "#!/bin/sh",
    `here=${path("")}`,
    `echo "$*" >> "$here/calls"`,
    `case " $* " in`,
    `*" map "*" --id 0003 "*|*" map "*" --id 3 "*) if [ -e "$here/passing" ]; then rm "$here/passing"; exit 75; fi ;;`,
    `*" map "*" --id 0001 "*|*" map "*" --id 1 "*) if [ -e "$here/lasting" ]; then exit 3; fi ;;`,
    "esac",
    `exec ${RUNTIMES.bun[0]} ${join(ROOT, "cli.ts")} "$@"`,
  ];
  const name = path("performer");
  writeFileSync(name, lines.join("\n") + "\n");
  chmodSync(name, 0o755);
  return name;
}

beforeAll(async () => {
  for (const [i, name] of ["q", "k", "v"].entries()) {
    writeFileSync(path(`${name}.npy`), npyBytes([2, 60, 4], (at) => wave(at + 1e6 * i)));
  }
  const files = ["q", "k", "v"].flatMap((name) => [`--${name}`, path(`${name}.npy`)]);
  for (const causal of [[], ["--causal"]]) {
    const out = path(`one${causal.length}.npy`);
    const args = ["attend", ...files, "-m", "16", ...causal, "--backend", "scalar", "--check", "0", "-o", out];
    expect((await inside(args)).code).toBe(0);
  }
});

/** A folder with a plan of the inputs beside it and the script of an engine. */
async function planned(engine: string, causal: boolean): Promise<string> {
  const folder = path(`${engine}${causal ? 1 : 0}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  const plan = join(folder, "plan.json");
  const inputs = ["q", "k", "v"].map((name) => path(`${name}.npy`));
  const settings = ["--shards", `${SHARDS}`, "-m", "16", ...(causal ? ["--causal"] : [])];
  expect((await inside(["shard", "plan", ...inputs, ...settings, "-o", plan])).stderr).toBe("");
  const script = join(folder, ENGINES[engine].script);
  const args = ["--engine", engine, "--backend", "scalar", "--program", program(), "-o", script];
  expect((await inside(["shard", "script", plan, ...args])).stderr).toBe("");
  return folder;
}

/** The same for a whole checkpoint. */
async function plannedModel(engine: string, name: string): Promise<string> {
  const folder = path(`${engine}_${name}`);
  mkdirSync(folder);
  const at = (file: string) => join(ROOT, "tests/golden/lm", name, file);
  const model = ["--weights", at("model.pt"), "--config", at("config.json")];
  const plan = join(folder, "plan.json");
  expect((await inside(["shard", "plan", at("tokens.npy"), ...model, "--shards", "3", "-o", plan])).stderr).toBe("");
  const args = ["--engine", engine, "--backend", "scalar", "--program", program()];
  const script = join(folder, ENGINES[engine].script);
  expect((await inside(["shard", "script", plan, ...args, "-o", script])).stderr).toBe("");
  const whole = ["run", at("model.pt"), at("tokens.npy"), "--config", at("config.json"), "--compat", "exact"];
  expect((await inside([...whole, "--backend", "scalar", "-o", join(folder, "one.npy")])).stderr).toBe("");
  return folder;
}

const run = (engine: string, folder: string): Promise<Outcome> =>
  runProcess(ENGINES[engine].run, {
    cwd: folder,
    env: { PATH: `${dirname(RUNTIMES.bun[0])}:${process.env.PATH}`, HOME: path("") },
  });

const calls = (action: string) => {
  const lines = existsSync(path("calls")) ? readFileSync(path("calls"), "utf8").trimEnd().split("\n") : [];
  return lines.filter((line) => line.startsWith(`shard ${action} `));
};

for (const [engine, { version }] of Object.entries(ENGINES)) {
  describe.skipIf(!installed(engine, version))(`${engine} (needs ${engine})`, () => {
    test("a fault that passes is tried again, one that lasts is not; running it again finishes the work", async () => {
      const folder = await planned(engine, false);
      rmSync(path("calls"), { force: true });
      for (const fault of ["passing", "lasting"]) writeFileSync(path(fault), "");
      const first = await run(engine, folder);
      expect(first.code).not.toBe(0);
      expect(existsSync(join(folder, "kv.safetensors"))).toBe(false);
      const of = (id: number) => calls("map").filter((line) => Number(/--id (\d+)/.exec(line)![1]) === id).length;
      expect(of(1)).toBe(1);
      rmSync(path("lasting"));
      const second = await run(engine, folder);
      expect([second.code, second.code === 0 ? "" : second.stdout + second.stderr]).toEqual([0, ""]);
      expect(of(3)).toBeGreaterThanOrEqual(2);
      expect(existsSync(path("passing"))).toBe(false);
      expect(readFileSync(join(folder, "out.npy"))).toEqual(readFileSync(path("one0.npy")));
    }, 120_000);

    test("causal: each shard sees the sum before it", async () => {
      const folder = await planned(engine, true);
      const { code, stdout, stderr } = await run(engine, folder);
      expect([code, code === 0 ? "" : stdout + stderr]).toEqual([0, ""]);
      expect(readdirSync(join(folder, "prefix")).length).toBe(SHARDS);
      const [whole, gathered] = [path("one1.npy"), join(folder, "out.npy")].map((file) =>
        readNpyBytes(readFileSync(file))
      );
      expect(gathered.shape).toEqual(whole.shape);
      const worst = Math.max(...gathered.data.map((value, i) => Math.abs(value - whole.data[i])));
      expect(worst).toBeLessThan(1e-6); // outputs are float32
    }, 120_000);
  });
}

for (const [engine, { version }] of Object.entries(ENGINES)) {
  describe.skipIf(!installed(engine, version))(`${engine}, a model layer by layer (needs ${engine})`, () => {
    test("causal", async () => {
      const folder = await plannedModel(engine, "rotary_glu_scalenorm_causal");
      const { code, stdout, stderr } = await run(engine, folder);
      expect([code, code === 0 ? "" : stdout + stderr]).toEqual([0, ""]);
      const [whole, gathered] = ["one.npy", "out.npy"].map((file) => readNpyBytes(readFileSync(join(folder, file))));
      expect(gathered.shape).toEqual(whole.shape);
      const worst = Math.max(...gathered.data.map((value, i) => Math.abs(value - whole.data[i])));
      expect(worst).toBeLessThan(1e-5); // outputs are float32
    }, 120_000);
  });
}

describe("scripts", () => {
  const text = async (engine: string, plan: string, ...more: string[]) => {
    return await inside(["shard", "script", plan, "--engine", engine, ...more]);
  };

  test(
    "of Slurm have arrays that its usual limit of 1,001 tasks allows, and shards by number of task alone",
    async () => {
      const plan = path("many.json");
      const wide = path("wide.npy");
      writeFileSync(wide, npyBytes([2500, 2], wave));
      expect((await inside(["shard", "plan", wide, "--shards", "2500", "-m", "4", "-o", plan])).stderr).toBe("");
      const { stdout, stderr, code } = await text("slurm", plan);
      expect([code, stderr]).toEqual([0, expect.stringContaining("performer shard script")]);
      // What sbatch would be asked for.
      writeFileSync(path("sbatch"), `#!/bin/sh\necho "$@" >> ${path("asked")}\ncat >> ${path("jobs")}\necho 7\n`);
      chmodSync(path("sbatch"), 0o755);
      const env = { PATH: `${path("")}:${process.env.PATH}`, HOME: path(""), AT_ONCE: "64" };
      const bash = await runProcess(["bash", "-s", "--", "--time=1:00:00"], {
        cwd: path(""),
        env,
        input: new TextEncoder().encode(stdout),
      });
      expect([bash.code, bash.stderr]).toEqual([0, ""]);
      const asked = readFileSync(path("asked"), "utf8");
      expect([...asked.matchAll(/--array=(\S+) --time=1:00:00/g)].map(([, array]) => array)).toEqual(
        ["0-999%64", "0-999%64", "0-499%64", "0-999%64", "0-999%64", "0-499%64"],
      );
      expect(asked).toContain("--dependency=afterok:7:7:7 --kill-on-invalid-dep=yes");
      const jobs = readFileSync(path("jobs"), "utf8");
      for (const first of [0, 1000, 2000]) expect(jobs).toContain(`--id $((SLURM_ARRAY_TASK_ID + ${first}))\n`);
      expect(jobs).not.toContain("TASK_COUNT");
      expect(jobs).toContain('if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then');
    },
    60_000,
  );

  test("of Slurm chain the layers of a model: each waits until all tasks of the one before ended well", async () => {
    const folder = path("chained");
    mkdirSync(folder);
    const at = (file: string) => join(ROOT, "tests/golden/lm/reversible", file);
    const model = ["--weights", at("model.pt"), "--config", at("config.json")];
    const plan = join(folder, "plan.json");
    expect((await inside(["shard", "plan", at("tokens.npy"), ...model, "--shards", "3", "-o", plan])).code).toBe(0);
    // Numbers jobs as sbatch does.
    const sbatch = `#!/bin/sh\necho "$@" >> asked\ncat > /dev/null\nwc -l < asked\n`;
    writeFileSync(join(folder, "sbatch"), sbatch);
    chmodSync(join(folder, "sbatch"), 0o755);
    const { stdout } = await text("slurm", plan);
    const env = { PATH: `${folder}:${process.env.PATH}`, HOME: path("") };
    const bash = await runProcess(["bash"], { cwd: folder, env, input: new TextEncoder().encode(stdout) });
    expect([bash.code, bash.stderr]).toEqual([0, ""]);
    const asked = readFileSync(join(folder, "asked"), "utf8").trimEnd().split("\n");
    const jobs = asked.map((line) => [
      /--job-name=(\S+)/.exec(line)![1],
      /afterok(\S+)/.exec(line)?.[1] ?? null,
      /--array=(\S+)/.exec(line)?.[1] ?? null,
    ]);
    expect(jobs).toEqual([
      ["performer-layer0-map", null, "0-2"],
      ["performer-layer0-merge", ":1", null],
      ["performer-layer0-apply", ":2", "0-2"],
      ["performer-layer1-map", ":3", "0-2"],
      ["performer-layer1-merge", ":4", null],
      ["performer-layer1-apply", ":5", "0-2"],
      ["performer-gather", ":6", null],
    ]);
  }, 60_000);

  test("refuse names that they cannot hold", async () => {
    const odd = path("od'd");
    mkdirSync(odd);
    const plan = join(odd, "plan.json");
    expect((await inside(["shard", "plan", path("q.npy"), "--shards", "2", "-o", plan])).code).toBe(0);
    for (const engine of ["slurm", "make", "snakemake", "parallel"]) {
      const { code, stdout, stderr } = await text(engine, plan);
      expect([code, stdout]).toEqual([2, ""]);
      expect(stderr).toContain("use names without quotes");
    }
    expect((await text("make", plan, "--program", "rm -rf $HOME")).code).toBe(2);
    expect((await inside(["shard", "script", plan])).stderr).toContain("Missing --engine");
  });
});
