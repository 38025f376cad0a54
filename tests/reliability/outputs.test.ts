/** Outputs that two runs want, that are inputs, and that are no plain files: whole or untouched, and nothing is left beside them. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { hostname } from "node:os";
import { ownMark } from "../../src/processes.ts";
import { inside, npyBytes, type Outcome, performer, RUNTIMES, scratch, wave } from "../cli/process.ts";

const { path, remove } = scratch();
afterAll(remove);

const QUICK = ["--backend", "scalar", "--features", "elu", "--check", "0", "-q"];
const x = npyBytes([512, 8], wave);
let whole: Buffer;

beforeAll(async () => {
  writeFileSync(path("x.npy"), x);
  writeFileSync(path("long.npy"), npyBytes([20_000, 16], wave));
  spawnSync("mkfifo", [path("pipe.npy"), path("out_pipe.npy")]);
  expect((await inside(["attend", path("x.npy"), ...QUICK, "-o", path("whole.npy")])).code).toBe(0);
  whole = readFileSync(path("whole.npy"));
});

const inputs = ["long.npy", "out_pipe.npy", "pipe.npy", "whole.npy", "x.npy"];
/** What lies there besides the inputs. */
const left = () => readdirSync(path(".")).filter((name) => !inputs.includes(name)).sort();
beforeEach(() => {
  for (const name of left()) rmSync(path(name), { recursive: true });
});

const CLAIM = ".out.npy.lock";
const line = (input: string, output = "out.npy") => ["attend", path(input), ...QUICK, "-o", path(output)];
const elsewhere = { ...ownMark(), pid: 4711, place: "elsewhere", host: "node7" };
const leaveClaim = (name: string, mark: object = elsewhere) =>
  writeFileSync(path(name), JSON.stringify({ ...mark, since: "", id: "" }));

/** Runs a command line and calls `during` once when a file is there. */
function whenThere(args: readonly string[], file: string, runtime: string, during: (child: Child) => void) {
  return performer(args, {
    runtime,
    during: (child) => {
      const looking = setInterval(() => {
        // The file that a claim is linked from goes right after.
        if (!existsSync(path(file)) || left().some((name) => name.startsWith(`${file}.`))) return;
        clearInterval(looking);
        during(child);
      }, 2);
      child.on("close", () => clearInterval(looking));
    },
  });
}
type Child = ReturnType<typeof spawn>;

describe.each(Object.keys(RUNTIMES))("two runs on %s", (runtime) => {
  test("the second ends at once and names the first, whose output is whole", async () => {
    let pid = 0;
    let second: Promise<Outcome> | undefined;
    // The first waits for its input, and has its output by then.
    const first = await whenThere(line("pipe.npy"), CLAIM, runtime, (child) => {
      pid = child.pid!;
      second = performer(line("x.npy"), { runtime }).finally(() => writeFileSync(path("pipe.npy"), x));
    });
    const { code, stderr } = await second!;
    expect(stderr).toBe(
      `performer: Cannot write "${path("out.npy")}": process ${pid} on ${hostname()} is at work on it, ` +
        "wait for its end or name another output\n",
    );
    expect([code, first.code]).toEqual([75, 0]);
    expect(readFileSync(path("out.npy")).equals(whole)).toBe(true);
    expect(left()).toEqual(["out.npy"]);
  });

  test("after kill -9 the next run takes its place", async () => {
    const killed = await whenThere(line("pipe.npy"), CLAIM, runtime, (child) => child.kill("SIGKILL"));
    expect([killed.signal, left()]).toEqual(["SIGKILL", [CLAIM]]);
    expect((await performer(line("x.npy"), { runtime })).code).toBe(0);
    expect(readFileSync(path("out.npy")).equals(whole)).toBe(true);
    expect(left()).toEqual(["out.npy"]);
  });

  test.each([["SIGINT", 130], ["SIGTERM", 143]] as const)("%s gives the claim back", async (signal, code) => {
    const args = ["attend", path("long.npy"), "--backend", "scalar", "--features", "softmax", "-o", path("out.npy")];
    const ended = await whenThere(args, CLAIM, runtime, (child) => child.kill(signal));
    expect([ended.code, left()]).toEqual([code, []]);
  });

  test("a named pipe without a reader keeps no signal from being heard, and one with a reader gets all", async () => {
    const args = line("x.npy", "out_pipe.npy");
    const ended = await performer(args, {
      runtime,
      during: (child) => {
        // Its descriptor of the input is there when it is about to wait.
        const looking = setInterval(() => {
          if (!opens(child.pid!, "x.npy")) return;
          clearInterval(looking);
          setTimeout(() => child.kill("SIGTERM"), 200);
        }, 2);
        child.on("close", () => clearInterval(looking));
      },
    });
    expect(ended.code).toBe(143);
    const reader = spawn("cat", [path("out_pipe.npy")]);
    const chunks: Uint8Array[] = [];
    reader.stdout.on("data", (chunk: Uint8Array) => chunks.push(chunk));
    const closed = new Promise((resolve) => reader.on("close", resolve));
    expect((await performer(args, { runtime })).code).toBe(0);
    await closed;
    expect(Buffer.concat(chunks).equals(whole)).toBe(true);
    expect([left(), statSync(path("out_pipe.npy")).isFIFO()]).toEqual([[], true]);
  });

  test("a link to nothing makes what it leads to; an output that is the input is refused", async () => {
    mkdirSync(path("folder"));
    symlinkSync("folder/target.npy", path("link.npy"));
    const made = await performer(line("x.npy", "link.npy"), { runtime });
    expect([made.code, readlinkSync(path("link.npy"))]).toEqual([0, "folder/target.npy"]);
    expect(readFileSync(path("folder/target.npy")).equals(whole)).toBe(true);
    const refused = await performer(line("x.npy", "x.npy"), { runtime });
    expect([refused.code, refused.stderr]).toEqual([
      2,
      `performer: Cannot write "${path("x.npy")}": it is the file of INPUT, which is read; name another output\n`,
    ]);
    expect(readFileSync(path("x.npy")).equals(x)).toBe(true);
    expect([left(), readdirSync(path("folder"))]).toEqual([["folder", "link.npy"], ["target.npy"]]);
  });
});

/** Whether a process has a file open; where /proc does not tell, it is taken to have. */
function opens(pid: number, name: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`) === path(name);
      } catch {
        return false; // closed since
      }
    });
  } catch {
    return !existsSync("/proc");
  }
}

test("8 processes of both runtimes at once: each has written it whole or was told of another", async () => {
  const runs = Array.from({ length: 8 }, (_, i) => performer(line("x.npy"), { runtime: i % 4 === 3 ? "deno" : "bun" }));
  const ended = await Promise.all(runs);
  for (const { code, stderr } of ended) {
    expect([0, 75]).toContain(code!);
    expect(stderr).toMatch(code === 0 ? /^$/ : /is at work on it, wait for its end or name another output\n$/);
  }
  expect(ended.some(({ code }) => code === 0)).toBe(true);
  expect(readFileSync(path("out.npy")).equals(whole)).toBe(true);
  expect(left()).toEqual(["out.npy"]);
}, 30_000);

describe("claims", () => {
  test("an error gives them back, and a second output that is taken the first one", async () => {
    writeFileSync(path("bad.npy"), "no tensor");
    expect((await inside(line("bad.npy"))).code).toBe(3);
    leaveClaim(".s.safetensors.lock");
    const { code, stderr } = await inside([...line("x.npy"), "--causal", "--state-out", path("s.safetensors")]);
    expect([code, stderr]).toEqual([75, expect.stringContaining("process 4711 on node7 has claimed it")]);
    expect(left()).toEqual([".s.safetensors.lock", "bad.npy"]);
  });

  test("folders are claimed, plans of what would be done and pipes are not", async () => {
    leaveClaim(CLAIM);
    leaveClaim(".blocks.lock");
    leaveClaim(".out_pipe.npy.lock");
    const build = ["state", "build", path("x.npy"), "--backend", "scalar", "--block-rows", "100", "-o"];
    expect((await inside([...build, path("blocks/")])).code).toBe(75);
    expect((await inside([...build, path("new/blocks/")])).code).toBe(0); // beside what is not there nothing can lie
    expect((await inside([...line("x.npy"), "--dry-run"])).code).toBe(0);
    expect((await inside(["explain", ...line("x.npy").slice(1)])).code).toBe(0);
    expect((await inside(["attend", path("x.npy"), ...QUICK, "-o", "/dev/null"])).code).toBe(0);
  });

  test("tasks of shards may run twice: no claim stops them", async () => {
    const plan = path("plan.json");
    const planned = await inside(["shard", "plan", path("x.npy"), "--shards", "2", "-o", plan]);
    expect([planned.code, planned.stderr]).toEqual([0, ""]);
    mkdirSync(path("states"));
    for (const name of [".states.lock", ...["0", "00", "000", "0000"].map((id) => `states/.${id}.safetensors.lock`)]) {
      leaveClaim(name);
    }
    const map = ["shard", "map", plan, "--id", "0", "-o", path("states"), "--backend", "scalar", "--force"];
    const twice = await Promise.all([inside(map), inside(map)]);
    expect(twice.map(({ code }) => code)).toEqual([0, 0]);
    expect(readdirSync(path("states")).filter((name) => !name.startsWith("."))).toHaveLength(1);
  });

  test(
    "--resume goes on where a run on another machine left its journal alone, and waits while it is written",
    async () => {
      const args = ["attend", path("long.npy"), "--heads", "4", "--backend", "scalar", "-m", "64", "--check", "0"];
      const resumed = [...args, "-q", "-o", path("out.npy"), "--resume", "--checkpoint-seconds", "0.01"];
      const journal = path("out.npy.journal");
      await whenThere(resumed, "out.npy.partial", "bun", (child) => child.kill("SIGKILL"));
      expect(left()).toContain(CLAIM);
      leaveClaim(CLAIM);
      const early = await inside(resumed);
      expect([early.code, early.stderr]).toEqual([75, expect.stringContaining("process 4711 on node7 has claimed it")]);
      utimesSync(journal, new Date(), new Date(Date.now() - 120_000));
      const again = await performer(resumed);
      expect([again.code, again.stderr]).toEqual([0, ""]);
      expect(left()).toEqual(["out.npy"]);
    },
    30_000,
  );
});

describe("an output that is an input", () => {
  beforeEach(() => {
    symlinkSync("x.npy", path("link.npy"));
    linkSync(path("x.npy"), path("hard.npy"));
  });

  const state = (name: string) => ["state", "build", path("x.npy"), "--backend", "scalar", "-o", path(name)];

  test.each([
    ["through a link", () => line("x.npy", "link.npy"), "INPUT"],
    ["a link itself", () => line("link.npy", "x.npy"), "INPUT"],
    ["through a hard link", () => line("x.npy", "hard.npy"), "INPUT"],
    ["a flag", () => [...line("whole.npy", "x.npy"), "--mask", path("x.npy")], "--mask"],
    ["k", () => {
      const { q, k } = { q: path("whole.npy"), k: path("link.npy") };
      return ["attend", "--q", q, "--k", k, "--v", q, ...QUICK, "-o", path("x.npy")];
    }, "--k"],
    ["of convert", () => ["convert", path("x.npy"), path("x.npy")], "IN"],
    ["of a plan", () => [...line("x.npy", "x.npy"), "--dry-run"], "INPUT"],
    ["of shards", () => ["shard", "plan", path("x.npy"), "--shards", "2", "-o", path("x.npy")], "FILE"],
    ["of a session", () => ["repl", "-c", `attend ${path("x.npy")} --backend scalar -o ${path("link.npy")}`], "INPUT"],
  ])("%s", async (_, args, role) => {
    const { code, stderr } = await inside(args());
    expect([code, stderr]).toEqual([2, expect.stringMatching(RegExp(`it is the file of ${role}\\b.*, which is read`))]);
    expect(readFileSync(path("x.npy")).equals(x)).toBe(true);
    expect(left()).toEqual(["hard.npy", "link.npy"]);
  });

  test("states may be replaced by what goes on from them, not by what is merged from them", async () => {
    expect((await inside(state("s.safetensors"))).code).toBe(0);
    const before = readFileSync(path("s.safetensors"));
    const on = [...state("s.safetensors"), "--state-in", path("s.safetensors")];
    expect((await inside(on)).code).toBe(0);
    expect(readFileSync(path("s.safetensors")).equals(before)).toBe(false);
    const causal = ["attend", path("x.npy"), "--causal", "--backend", "scalar", "-q"];
    const through = ["--state-in", path("s.safetensors"), "--state-out", path("s.safetensors")];
    expect((await inside([...causal, ...through])).code).toBe(0);
    const merged = await inside(["state", "merge", path("s.safetensors"), "-o", path("s.safetensors")]);
    expect([merged.code, merged.stderr]).toEqual([2, expect.stringContaining("it is the file of FILE, which is read")]);
  });

  test("two outputs that are one file", async () => {
    symlinkSync("new.safetensors", path("to_new.safetensors"));
    const args = ["attend", path("x.npy"), "--causal", ...QUICK, "-o", path("new.safetensors")];
    const { code, stderr } = await inside([...args, "--state-out", path("to_new.safetensors")]);
    expect([code, stderr]).toEqual([2, expect.stringContaining("is the same file and written too, name another")]);
    expect(existsSync(path("new.safetensors"))).toBe(false);
  });
});

describe("what is no plain file", () => {
  test("a link to a file stays a link: the file is replaced", async () => {
    writeFileSync(path("old.npy"), "old");
    symlinkSync("old.npy", path("link.npy"));
    symlinkSync("link.npy", path("second.npy"));
    expect((await inside(line("x.npy", "second.npy"))).code).toBe(0);
    expect(["link.npy", "second.npy"].map((name) => lstatSync(path(name)).isSymbolicLink())).toEqual([true, true]);
    expect(readFileSync(path("old.npy")).equals(whole)).toBe(true);
    expect(left()).toEqual(["link.npy", "old.npy", "second.npy"]);
  });

  test("so does one of an output that is resumed", async () => {
    symlinkSync("new.npy", path("link.npy"));
    expect((await inside([...line("x.npy", "link.npy"), "--resume"])).code).toBe(0);
    expect([readlinkSync(path("link.npy")), left()]).toEqual(["new.npy", ["link.npy", "new.npy"]]);
  });

  test.each([
    ["a folder", () => mkdirSync(path("out.npy")), "it is a directory, name a file in it"],
    ["a link in a circle", () => symlinkSync("out.npy", path("out.npy")), "too many symbolic links"],
    ["a link into no folder", () => symlinkSync("none/out.npy", path("out.npy")), "no such file or directory"],
  ])("%s is refused", async (_, make, words) => {
    make();
    const { code, stderr } = await inside(line("x.npy"));
    expect([code, stderr]).toEqual([2, `performer: Cannot write "${path("out.npy")}": ${words}\n`]);
    expect(left()).toEqual(["out.npy"]);
  });

  test("a socket is refused", async () => {
    const server = createServer().listen(path("out.npy"));
    await new Promise((resolve) => server.on("listening", resolve));
    const { code, stderr } = await inside(line("x.npy"));
    server.close();
    expect([code, stderr]).toEqual([
      2,
      expect.stringContaining("it is a socket, expected a file, a pipe or a terminal"),
    ]);
  });

  const mayMake = spawnSync("mknod", [path("disk.npy"), "b", "7", "200"]).status === 0;
  test.skipIf(!mayMake)("a disk is refused (needs the right to make one)", async () => {
    spawnSync("mknod", [path("out.npy"), "b", "7", "200"]);
    const { code, stderr } = await inside(line("x.npy"));
    expect([code, stderr]).toEqual([2, expect.stringContaining("it is a disk, expected a file")]);
    expect(statSync(path("out.npy")).isBlockDevice()).toBe(true);
  });

  test("a folder that takes no files says so of the output", async () => {
    const { code, stderr } = await inside(["attend", path("x.npy"), ...QUICK, "-o", "/sys/out.npy"]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/^performer: Cannot write "\/sys\/out\.npy": [^"]*$/)]);
  });
});
