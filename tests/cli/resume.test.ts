import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { spawnSync } from "node:child_process";
import { killRounds, SETTINGS } from "./kill_rounds.ts";
import { inside, npyBytes, type Outcome, performer, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
afterAll(remove);

const RESUME = ["--resume", "--checkpoint-seconds", "0.01"];
const ATTEND = ["attend", path("x.npy"), "--heads", "4", "--backend", "wasm", "--check", "16"];

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([16_000, 64], (i) => 0.6 * wave(i)));
});

/** Runs ATTEND until its journal tells of a checkpoint, then sends a signal. */
function stopped(out: string, args: readonly string[] = [], signal: NodeJS.Signals = "SIGKILL", runtime = "bun") {
  return ended([...ATTEND, "-o", path(out), ...RESUME, ...args], out, signal, runtime);
}

function ended(line: readonly string[], out: string, signal: NodeJS.Signals, runtime = "bun"): Promise<Outcome> {
  const journal = path(`${out}.journal`);
  return performer(line, {
    runtime,
    during: (child) => {
      const looking = setInterval(() => {
        // The state of a checkpoint is larger than a journal's first words.
        if ((statSync(journal, { throwIfNoEntry: false })?.size ?? 0) < 1e5) return;
        clearInterval(looking);
        child.kill(signal);
      }, 2);
      child.on("close", () => clearInterval(looking));
    },
  });
}

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("kill -9 at random moments, then on with it: the bytes and the report of an undisturbed run", async () => {
    const settings = ["bidirectional", "causal"];
    const found = await killRounds(6, { seed: 7, settings, runtimes: [runtime] });
    expect(found.rounds).toBe(6);
    expect(found.kills).toBeGreaterThan(0);
  }, 120_000);

  test.each(["SIGINT", "SIGTERM"] as const)("%s keeps what is there and says how to go on", async (signal) => {
    const { code, stderr } = await stopped("out.npy", [], signal, runtime);
    expect(code).toBe(signal === "SIGINT" ? 130 : 143);
    expect(stderr).toMatch(
      /out\.npy\.partial" and its journal are kept: run the same command again to go on from (key )?row \d/,
    );
    expect(existsSync(path("out.npy"))).toBe(false);
    const again = await performer([...ATTEND, "-o", path("out.npy"), ...RESUME], { runtime });
    expect(again.stdout).toMatch(/resumed +from (key )?row [\d,]+; times are those of all runs together/);
    expect(readdirSync(path(".")).filter((name) => name.startsWith("out.npy."))).toEqual([]);
    await performer([...ATTEND, "-o", path("whole.npy")], { runtime });
    expect(Buffer.compare(readFileSync(path("out.npy")), readFileSync(path("whole.npy")))).toBe(0);
    rmSync(path("out.npy"));
  }, 60_000);
});

describe("other maps and numbers", () => {
  test("every kind of run goes on to the same bytes", async () => {
    const settings = Object.keys(SETTINGS).slice(2); // the first two are tried above
    const { rounds } = await killRounds(settings.length, { seed: 3, settings, runtimes: ["bun"] });
    expect(rounds).toBe(settings.length);
  }, 120_000);

  test("without --resume nothing is kept, and a journal that lies there is left alone", async () => {
    await stopped("out.npy");
    const journal = readFileSync(path("out.npy.journal"));
    expect((await performer([...ATTEND, "-o", path("out.npy"), "-q"])).code).toBe(0);
    expect(Buffer.compare(readFileSync(path("out.npy.journal")), journal)).toBe(0);
    for (const name of ["out.npy", "out.npy.journal", "out.npy.partial"]) rmSync(path(name));
  }, 60_000);

  test("what was left to choice is chosen once", async () => {
    const args = ["--shrink", "auto"];
    await stopped("auto.npy", args);
    const [resumed, whole] = [["auto.npy", ...RESUME], ["whole.npy"]].map(([out, ...rest]) => {
      return performer([...ATTEND, ...args, "-o", path(out), ...rest, "--json"]);
    });
    const [one, other] = (await Promise.all([resumed, whole])).map(({ stdout }) => JSON.parse(stdout));
    expect(one.resumed).not.toBeNull();
    expect(other.resumed).toBeNull();
    expect([one.attention, one.error]).toEqual([other.attention, other.error]);
    expect(Buffer.compare(readFileSync(path("auto.npy")), readFileSync(path("whole.npy")))).toBe(0);
  }, 60_000);

  test("a state that is gone on from, and one that is left", async () => {
    const state = (name: string) => path(`${name}.safetensors`);
    const base = ["attend", path("x.npy"), "--heads", "4", "--backend", "wasm", "--causal"];
    await performer([...base, "--rows", "0:100", "--check", "0", "--state-out", state("seen")]);
    const args = ["attend", path("x.npy"), "--backend", "wasm", "--causal", "--state-in", state("seen"), "--state-out"];
    const whole = await performer([...args, state("whole"), "-o", path("whole.npy")]);
    expect([whole.stderr, whole.code]).toEqual(["", 0]);
    const line = [...args, state("left"), "-o", path("left.npy"), ...RESUME];
    const { signal } = await ended(line, "left.npy", "SIGKILL");
    expect(signal).toBe("SIGKILL");
    const { stdout, code } = await performer(line);
    expect([code, stdout]).toEqual([0, expect.stringContaining("resumed ")]);
    for (const name of ["npy", "safetensors"]) {
      expect(Buffer.compare(readFileSync(path(`left.${name}`)), readFileSync(path(`whole.${name}`)))).toBe(0);
    }
  }, 60_000);

  test("the backend of the journal is taken again where several will do", async () => {
    const line = ["attend", path("x.npy"), "--heads", "4", "-q", "-o", path("b.npy"), "--check", "0", ...RESUME];
    await stopped("b.npy", ["--check", "0"]); // on wasm
    const { stdout, stderr } = await performer([...line, "--backend", "scalar,wasm", "--json"]);
    expect(stderr).toBe("");
    expect(JSON.parse(stdout).backend.name).toBe("wasm");
  }, 60_000);
});

describe("refused", () => {
  let kept: string[] = [];

  beforeAll(async () => {
    expect((await stopped("kept.npy")).signal).toBe("SIGKILL");
    kept = ["kept.npy.partial", "kept.npy.journal"];
  }, 60_000);

  /** Goes on with the kept run, in a process of its own as runtimes count, and finds everything as it was. */
  async function refused(args: readonly string[], words: string | RegExp, code: number): Promise<void> {
    const before = kept.map((name) => existsSync(path(name)) ? readFileSync(path(name)) : null);
    const outcome: Outcome = await performer([...ATTEND, "-o", path("kept.npy"), ...RESUME, ...args]);
    expect(outcome.stderr).toMatch(words);
    expect(outcome.stderr).not.toContain("are kept");
    expect([outcome.code, outcome.stdout]).toEqual([code, ""]);
    expect(existsSync(path("kept.npy"))).toBe(false);
    const after = kept.map((name) => existsSync(path(name)) ? readFileSync(path(name)) : null);
    expect(after.map((bytes, i) => bytes === before[i] || Buffer.compare(bytes!, before[i]!) === 0)).toEqual([
      true,
      true,
    ]);
  }

  test("other settings, by name", async () => {
    await refused(
      ["-m", "128"],
      "begun with other settings: --num-features 256, now 128; go on with those, or remove",
      2,
    );
    await refused(["--causal"], "--causal not given, now true", 2);
    await refused(["--output-dtype", "f16"], /output npy f32 \[16000, 64\], now npy f16/, 2);
    await refused(["--backend", "scalar"], /backend wasm, now scalar; device/, 2);
    await refused(["--tile", "64"], "--tile not given, now 64", 2);
  }, 60_000);

  test("another runtime", async () => {
    const { code, stderr } = await performer([...ATTEND, "-o", path("kept.npy"), ...RESUME], { runtime: "deno" });
    expect([code, stderr]).toEqual([2, expect.stringMatching(/runtime Bun [\d.]+, now Deno/)]);
  }, 60_000);

  test("an input that was written to, or grew", async () => {
    spawnSync("cp", ["-p", path("x.npy"), path("saved.npy")]);
    utimesSync(path("x.npy"), 1, 1);
    await refused([], /input ".*x\.npy" has been written to since; remove/, 3);
    writeFileSync(path("x.npy"), npyBytes([16_001, 64], (i) => 0.6 * wave(i)));
    await refused([], /begun with other settings: rows 16000 × 16000, now 16001 × 16001/, 2);
    spawnSync("cp", ["-p", path("saved.npy"), path("x.npy")]); // times are finer than Date's
  }, 60_000);

  test("a journal that is cut short, damaged or none", async () => {
    const journal = path("kept.npy.journal");
    const whole = readFileSync(journal);
    const damaged = Uint8Array.from(whole);
    damaged[whole.length - 100] ^= 1;
    const cases: [Uint8Array, RegExp][] = [
      [whole.subarray(0, whole.length - 8), /it has \d+ bytes, its head says \d+; remove/],
      [whole.subarray(0, 20), /it ends after 20 bytes, in the middle of its head; remove/],
      [new Uint8Array(), /it ends after 0 bytes/],
      [damaged, /its checksum does not match, it is damaged; remove/],
      [new TextEncoder().encode("a diary ".repeat(20)), /it is no journal of this version of performer; remove/],
    ];
    for (const [bytes, words] of cases) {
      writeFileSync(journal, bytes);
      await refused([], words, 3);
    }
    writeFileSync(journal, whole);
  }, 60_000);

  test("an output that is gone or another file, and one without a journal", async () => {
    const partial = path("kept.npy.partial"), journal = path("kept.npy.journal");
    copyFileSync(partial, path("copy"));
    // The inode of a file that is there cannot be given to another.
    spawnSync("mv", [partial, path("mine")]);
    await refused([], /there is no ".*kept\.npy\.partial" any more; remove/, 3);
    copyFileSync(path("copy"), partial);
    await refused([], /another file lies at ".*kept\.npy\.partial" than the one its journal is of; remove/, 3);
    rmSync(partial);
    spawnSync("mv", [path("mine"), partial]);
    spawnSync("mv", [journal, path("journal")]);
    await refused([], /Cannot begin ".*kept\.npy\.partial": a file without a journal lies there/, 2);
    spawnSync("mv", [path("journal"), journal]);
  }, 60_000);

  test("a second run while the first is at work", async () => {
    let second: Promise<Outcome> | undefined;
    const line = [...ATTEND, "-o", path("busy.npy"), ...RESUME];
    const first = await performer(line, {
      during: (child) => {
        const looking = setInterval(() => {
          if (second || !existsSync(path("busy.npy.partial"))) return;
          child.kill("SIGSTOP"); // so that it is at work for as long as it takes
          second = performer(line).finally(() => child.kill("SIGCONT"));
          clearInterval(looking);
        }, 2);
      },
    });
    const { code, stderr } = await second!;
    expect([code, stderr]).toEqual([
      75,
      expect.stringMatching(/process \d+ on \S+ is at work on it, wait for its end/),
    ]);
    expect(first.code).toBe(0);
  }, 60_000);

  test("what cannot be resumed", async () => {
    const base = ["attend", path("x.npy"), "--backend", "scalar", "--resume"];
    const out = ["-o", path("no.npy")];
    const cases: [string[], string][] = [
      [base, "Cannot use --resume without --output"],
      [[...base, "-o", "-"], "Cannot use --resume with --output -: only a file keeps what was written"],
      [[...base, "-o", "/dev/null"], "Cannot use --resume with --output /dev/null"],
      [["attend", "-", ...out, "--resume"], "Cannot use --resume with standard input"],
      [[...base, "-o", path("x.npy")], "it is the file of INPUT, which is read"],
      [[...base, ...out, "--compat", "lucidrains"], "Cannot use --resume with --compat lucidrains"],
      [
        [...base, ...out, "--state-in", "s.safetensors", "--state-out", "s.safetensors"],
        "one file as --state-in and --state-out",
      ],
      [[...base, ...out, "--weights", "model.pt"], "Cannot use --resume with --weights"],
      [[...base, ...out, "--far", "clusters:8", "--top", "2"], "Cannot use --resume with --top"],
      [[...base, ...out, "--profile"], "Cannot use --resume with --profile"],
      [[...base, ...out, "--mask", "/dev/null"], `Cannot use --resume with "/dev/null": only a file can be read again`],
      [
        ["attend", path("x.npy"), ...out, "--checkpoint-seconds", "1"],
        "Cannot use --checkpoint-seconds without --resume",
      ],
    ];
    for (const [args, words] of cases) {
      const { code, stderr } = await inside(args);
      expect([code, stderr]).toEqual([2, expect.stringContaining(words)]);
    }
    expect(readdirSync(path(".")).filter((name) => name.startsWith("no.npy"))).toEqual([]);
  });
});
