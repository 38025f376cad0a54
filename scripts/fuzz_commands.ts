/**
 * Gives damaged and forged files to whole commands: `bun scripts/fuzz_commands.ts [COUNT] [SEED] [FIRST] [RUNTIME]` (400 1 0, inside this
 * process; RUNTIME bun or deno: a process for each). Exits 1 for a command whose exit code is none of docs/configuration.md, whose stderr
 * has a stack or does not name the file that was refused, or that failed and left something or changed what was there.
 */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { inside, npyBytes, performer, wave } from "../tests/cli/process.ts";
import { caseOf, damagedBy, KINDS } from "../tests/formats/fuzz/cases.ts";
import { one, type Pick, random } from "../tests/formats/fuzz/random.ts";

/** A command over a folder in which `file` is another one than it was. */
interface Trial {
  readonly file: string;
  readonly bytes: Uint8Array;
  readonly how: string;
  readonly args: readonly string[];
  /** What it may leave where it is done, by name or as a folder. */
  readonly makes: readonly string[];
}

const SMALL = "--backend scalar -m 8 --check 4".split(" ");
const own = (folder: string, file: string) => new Uint8Array(readFileSync(join(folder, file)));

/** Trials by what is damaged; `at` is the place of a file in the folder. */
const TRIALS: Readonly<
  Record<string, (pick: Pick, index: number, folder: string, at: (name: string) => string) => Trial>
> = {
  tensors(pick, index, _, at) {
    const { bytes, how } = caseOf(7, index, { only: "tensors", largest: 5000 });
    const file = "x.bin";
    return {
      file,
      bytes,
      how,
      ...one(pick, [
        { args: ["inspect", at(file)], makes: [] },
        { args: ["attend", at(file), ...SMALL, "-o", at("o.npy")], makes: ["o.npy"] },
        {
          args: ["attend", "--q", at(file), "--k", at("q.npy"), "--v", at("q.npy"), ...SMALL, "-o", at("o.npy")],
          makes: ["o.npy"],
        },
        {
          args: ["state", "build", at(file), "--backend", "scalar", "-m", "8", "-o", at("s.safetensors")],
          makes: ["s.safetensors"],
        },
      ]),
    };
  },
  fasta(_, index, __, at) {
    const { bytes, how } = caseOf(7, index, { only: "fasta" });
    const file = "x.fa";
    return {
      file,
      bytes,
      how,
      args: ["attend", at(file), "--encode", "kmer:2", "--rows", "0:10", ...SMALL, "-o", at("o.npy")],
      makes: ["o.npy"],
    };
  },
  state(pick, _, folder, at) {
    const file = "kv.safetensors";
    const { bytes, how } = damagedBy(KINDS.state, own(folder, file), pick);
    const queries = [at("q.npy"), "--rows", "0:3"];
    return {
      file,
      bytes,
      how,
      ...one(pick, [
        { args: ["state", "info", at(file)], makes: [] },
        {
          args: ["state", "merge", at(file), at("states/0001.safetensors"), "-o", at("s.safetensors")],
          makes: ["s.safetensors"],
        },
        {
          args: ["attend", ...queries, "--backend", "scalar", "--state-in", at(file), "-o", at("o.npy")],
          makes: ["o.npy"],
        },
        {
          args: [
            "shard",
            "apply",
            at("plan.json"),
            "--state",
            at(file),
            "--id",
            "1",
            "--backend",
            "scalar",
            "-o",
            at("new/"),
          ],
          makes: ["new"],
        },
      ]),
    };
  },
  shardState(pick, _, folder, at) {
    const file = "states/0001.safetensors";
    const { bytes, how } = damagedBy(KINDS.state, own(folder, file), pick);
    return {
      file,
      bytes,
      how,
      ...one(pick, [
        {
          args: ["shard", "merge", at("plan.json"), at("states/"), "-o", at("s.safetensors")],
          makes: ["s.safetensors"],
        },
        { args: ["shard", "status", at("plan.json"), at("states/")], makes: [] },
      ]),
    };
  },
  plan(pick, _, folder, at) {
    const file = "plan.json";
    const { bytes, how } = damagedBy(KINDS.plan, own(folder, file), pick);
    return {
      file,
      bytes,
      how,
      ...one(pick, [
        { args: ["shard", "map", at(file), "--id", "1", "--backend", "scalar", "-o", at("new/")], makes: ["new"] },
        { args: ["shard", "merge", at(file), at("states/"), "-o", at("s.safetensors")], makes: ["s.safetensors"] },
        { args: ["shard", "gather", at(file), at("out/"), "-o", at("o.npy")], makes: ["o.npy"] },
        { args: ["shard", "status", at(file), at("states/"), at("out/")], makes: [] },
        { args: ["shard", "script", at(file), "--engine", "make", "-o", at("Makefile")], makes: ["Makefile"] },
      ]),
    };
  },
  note(pick, _, folder, at) {
    const file = "out/0001.json";
    const { bytes, how } = damagedBy(KINDS.note, own(folder, file), pick);
    return {
      file,
      bytes,
      how,
      args: ["shard", "gather", at("plan.json"), at("out/"), "-o", at("o.npy")],
      makes: ["o.npy"],
    };
  },
  journal(_, index, __, at) {
    const { bytes, how } = caseOf(7, index, { only: "journal" });
    const file = "r.npy.journal";
    return { file, bytes, how, args: ["attend", at("q.npy"), ...SMALL, "--resume", "-o", at("r.npy")], makes: [] };
  },
  config(_, index, __, at) {
    const { bytes, how } = caseOf(7, index, { only: "config" });
    const args = ["attend", at("q.npy"), "-o", at("o.npy"), "--backend", "scalar"];
    return { file: "performer.json", bytes, how, args, makes: ["o.npy"] };
  },
};

/** Inputs, a plan over them with states and parts, and an output that is begun. */
async function world(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "performer-fuzz-world-"));
  const at = (name: string) => join(folder, name);
  const run = async (...args: string[]) => {
    const { code, stderr } = await inside(args, { cwd: folder });
    if (code !== 0) throw new Error(`${args.join(" ")}: ${stderr}`);
  };
  writeFileSync(at("q.npy"), npyBytes([9, 4], wave));
  await run("shard", "plan", at("q.npy"), at("q.npy"), at("q.npy"), "--shards", "3", "-m", "8", "-o", at("plan.json"));
  const ids = ["0", "1", "2"];
  const plan = at("plan.json");
  for (const id of ids) await run("shard", "map", plan, "--id", id, "--backend", "scalar", "-o", at("states/"), "-q");
  await run("shard", "merge", plan, at("states/"), "-o", at("kv.safetensors"), "-q");
  for (const id of ids) {
    await run(
      "shard",
      "apply",
      plan,
      "--state",
      at("kv.safetensors"),
      "--id",
      id,
      "--backend",
      "scalar",
      "-o",
      at("out/"),
      "-q",
    );
  }
  mkdirSync(at("states.kept"));
  writeFileSync(at("r.npy.partial"), new Uint8Array(200));
  return folder;
}

/** Files of a folder with their sizes. */
function filesIn(folder: string): Map<string, number> {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return new Map(
    names.map((name) => [name, statSync(join(folder, name))] as const)
      .filter(([, stat]) => stat.isFile()).map(([name, { size }]) => [name, size]),
  );
}

/** What is wrong about how a command ended; "" where nothing is. */
function wrongIn(
  { file, makes }: Trial,
  { code, stdout, stderr }: { code: number | null; stdout: string; stderr: string },
  before: Map<string, number>,
  after: Map<string, number>,
): string {
  if (![0, 2, 3, 4, 5, 75].includes(code ?? -1)) return `exit ${code}`;
  if (/\n\s+at |this is a bug/.test(stderr)) return "a stack";
  const name = basename(file);
  const id = /^\d{4}\b/.exec(name)?.[0];
  // What shards are missing or damaged is said by their numbers, status says it in its report.
  const named = stderr.includes(name) ||
    (id !== undefined && code === 5 && (stderr + stdout).includes(String(Number(id))));
  // A file that was read may hold what does not go with the rest of a command line, which is then what is said.
  if (code !== 0 && code !== 2 && code !== 5 && !named) return "does not name the file";
  if (code === 5 && !named && id !== undefined) return "does not name the shard";
  if (code !== 0 && stderr === "" && code !== 5) return "says nothing";
  for (const [name, size] of before) {
    if (after.get(name) !== size && !name.includes(".journal")) return `changed ${name}`;
  }
  const made = [...after.keys()].filter((name) => !before.has(name));
  const stray = made.find((name) => code !== 0 || !makes.some((one) => name === one || name.startsWith(`${one}/`)));
  return stray === undefined ? "" : `left ${stray}`;
}

const [count = 400, seed = 1, first = 0] = process.argv.slice(2, 5).map(Number);
const runtime = process.argv[5];
const start = await world();
// Runtimes keep caches at home, which are none of the commands'.
const home = mkdtempSync(join(tmpdir(), "performer-fuzz-home-"));
const tally = new Map<string, number>();
const bugs: string[] = [];
let slowest = { ms: 0, what: "" };
for (let index = first; index < first + count; index++) {
  const pick = random(seed * 1_000_003 + index);
  const kinds = Object.keys(TRIALS);
  const kind = kinds[index % kinds.length];
  const folder = mkdtempSync(join(tmpdir(), "performer-fuzz-command-"));
  cpSync(start, folder, { recursive: true });
  // A plan names its files beside it.
  const trial = TRIALS[kind](pick, index, folder, (name) => join(folder, name));
  writeFileSync(join(folder, trial.file), trial.bytes);
  const before = filesIn(folder);
  const [since, used] = [performance.now(), process.cpuUsage()];
  const ended = runtime
    ? await performer(trial.args, { runtime, cwd: folder, env: { HOME: home } })
    : await inside(trial.args, { cwd: folder, env: { HOME: home, NO_COLOR: "1" } });
  const cpu = process.cpuUsage(used);
  const ms = runtime ? performance.now() - since : Math.min(performance.now() - since, (cpu.user + cpu.system) / 1000);
  const what = `${kind} ${index} of seed ${seed} (${trial.how}): ${trial.args.join(" ").replaceAll(`${folder}/`, "")}`;
  if (ms > slowest.ms) slowest = { ms, what };
  const wrong = wrongIn(trial, ended, before, filesIn(folder));
  if (wrong) bugs.push(`${what}: ${wrong}; exit ${ended.code}, ${ended.stderr.slice(0, 700)}`);
  if (!runtime && ms > 2000) bugs.push(`${what}: took ${Math.round(ms)} ms`);
  const words = trial.args[0] === "attend" || trial.args[0] === "inspect"
    ? trial.args[0]
    : trial.args.slice(0, 2).join(" ");
  const unnamed = ended.code === 2 && !ended.stderr.includes(basename(trial.file));
  const key = `${kind}, ${words}: exit ${ended.code}${unnamed ? " for what a file says, which was read" : ""}`;
  tally.set(key, (tally.get(key) ?? 0) + 1);
  rmSync(folder, { recursive: true });
}
for (const done of [start, home]) rmSync(done, { recursive: true });
for (const [key, times] of [...tally].sort()) console.log(`${String(times).padStart(6)}  ${key}`);
console.log(`slowest ${Math.round(slowest.ms)} ms: ${slowest.what}`);
for (const bug of bugs) console.log(bug);
console.log(`${count} commands${runtime ? ` on ${runtime}` : ""}, ${bugs.length} bugs`);
process.exitCode = bugs.length > 0 ? 1 : 0;
