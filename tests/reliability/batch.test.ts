/** `attend --batch`: what fails stops nothing else, one backend serves all, descriptors do not grow, and bytes are those of single runs. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { WarmBackends } from "../../src/backends/warm.ts";
import { type BatchRecord, type BatchSummary, BatchTally, recordWithout } from "../../src/batch.ts";
import { parseBatchList } from "../../src/commands/batch_list.ts";
import { inside, npyBytes, performer, RUNTIMES, scratch, wave } from "../cli/process.ts";

const { path, remove } = scratch();
afterAll(remove);

const FILES = 300;
const ROWS = 20;
const good = Array.from({ length: FILES }, (_, i) => `good/${i}.npy`);
/** Lines of a list that fail, with their exit codes. */
const bad = [["missing.npy", 3], ["junk.npy", 3], ["nan.npy", 3], ["short.npy", 3], ["flat.npy", 2], [
  "good",
  3,
]] as const;
const LIST = ["# inputs", ...good.slice(0, 100), "", ...bad.map(([name]) => name), ...good.slice(100), "seq.fa"];

beforeAll(() => {
  mkdirSync(path("good"));
  for (const [i, name] of good.entries()) writeFileSync(path(name), npyBytes([ROWS, 8], (n) => wave(n + 1000 * i)));
  const whole = npyBytes([ROWS, 8], wave);
  writeFileSync(path("junk.npy"), "no tensor");
  writeFileSync(path("nan.npy"), npyBytes([ROWS, 8], (n) => n === 37 ? NaN : wave(n)));
  writeFileSync(path("short.npy"), whole.subarray(0, whole.length - 7));
  writeFileSync(path("flat.npy"), npyBytes([ROWS, 7], wave)); // 7 columns in 2 heads
  writeFileSync(path("seq.fa"), ">one\nACGTACGTTGCA\n");
  writeFileSync(path("list.txt"), LIST.join("\n"));
});

interface Lines {
  readonly records: BatchRecord[];
  readonly summary: BatchSummary;
}

function linesOf(stdout: string): Lines {
  const lines = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
  const summary = lines.pop();
  expect([summary.type, ...new Set(lines.map(({ type }) => type))]).toEqual(["summary", "input"]);
  return { records: lines, summary };
}

/** `attend --batch` in the test's folder. */
async function batch(list: string, ...flags: string[]) {
  writeFileSync(path("some.txt"), list);
  const back = process.cwd();
  process.chdir(path("."));
  try {
    return await inside(["attend", "--batch", "some.txt", "--backend", "scalar", "-m", "16", ...flags]);
  } finally {
    process.chdir(back);
  }
}

describe.each(Object.keys(RUNTIMES))("some hundred inputs, some of them bad (%s)", (runtime) => {
  const folder = `out-${runtime}`;
  const flags = ["--heads", "2", "-m", "16", "--check", "4"];

  test("every input has its line, what fails stops nothing, and descriptors stay as they are", async () => {
    let most = 0, temporary = 0;
    const count = (pid: number) => {
      try {
        most = Math.max(most, readdirSync(`/proc/${pid}/fd`).length);
      } catch {
        // It has ended.
      }
    };
    let begun = false;
    const { code, stdout, stderr } = await performer(
      ["attend", "--batch", "list.txt", "-o", folder, ...flags, "--jsonl"],
      {
        runtime,
        cwd: path("."),
        during: (child) =>
          child.stdout!.on("data", () => {
            begun = true;
            count(child.pid!);
            temporary = Math.max(temporary, readdirSync(path(folder)).filter((name) => name.endsWith(".tmp")).length);
          }),
      },
    );
    const { records, summary } = linesOf(stdout);
    expect(records.map(({ input }) => input)).toEqual(LIST.filter((line) => line !== "" && !line.startsWith("#")));
    expect(records.map(({ line }) => line)).toEqual(
      LIST.flatMap((line, i) => line === "" || line.startsWith("#") ? [] : [i + 1]),
    );
    const failed = records.filter(({ status }) => status === "failed");
    expect(failed.map(({ input, failed }) => [input, failed!.exitCode])).toEqual([
      ...bad.map(([name, exitCode]) => [name, exitCode]),
      ["seq.fa", 3], // without --encode
    ]);
    expect(failed.find(({ input }) => input === "nan.npy")!.failed!.message).toContain("NaN");
    const done = records.filter(({ status }) => status === "done");
    expect(done.map(({ input }) => input)).toEqual(good);
    for (const { output, rows, heads, headDim, error, failed } of done) {
      expect(existsSync(path(output!))).toBe(true);
      expect([rows, heads, headDim, error!.rowsChecked, failed]).toEqual([ROWS, 2, 4, 4, null]);
      expect(error!.relativeL2.value).toBeGreaterThan(0);
    }
    expect([summary.inputs, summary.done, summary.failed, summary.skipped, summary.left]).toEqual([307, 300, 7, 0, 0]);
    expect([code, summary.exitCode, summary.rows]).toEqual([3, 3, FILES * ROWS]);
    expect(stderr).toContain("7 of 307 inputs failed, the first on line 103");
    expect(readdirSync(path(folder)).sort()).toEqual(
      [".performer-batch.json", ...good.map((name) => basename(name))].sort(),
    );
    if (process.platform === "linux") {
      expect(begun).toBe(true);
      expect(most).toBeLessThan(64); // as many as an input alone has: one more for each would be 300
    }
    expect(temporary).toBeLessThanOrEqual(1);
  }, 60_000);

  test("outputs and errors are those of an input alone", async () => {
    for (const name of [good[0], good.at(-1)!]) {
      const alone = path(`alone-${runtime}.npy`);
      const { stdout } = await performer(["attend", path(name), "-o", alone, ...flags, "--json"], { runtime });
      expect(Buffer.compare(readFileSync(alone), readFileSync(path(`${folder}/${basename(name)}`)))).toBe(0);
      const again = await performer(["attend", "--batch", "-", ...flags, "--jsonl"], {
        runtime,
        input: new TextEncoder().encode(path(name)),
      });
      const { error } = JSON.parse(stdout);
      expect(linesOf(again.stdout).records[0].error).toEqual({
        rowsChecked: error.rowsChecked,
        relativeL2: error.relativeL2,
        uniformBaseline: error.uniformBaseline,
        skill: error.skill,
      });
    }
  }, 60_000);

  test("Ctrl-C gives up the input at hand, says how many are left, and --resume goes on", async () => {
    writeFileSync(path("long.npy"), npyBytes([4000, 8], wave));
    writeFileSync(path("slow.txt"), [good[0], good[1], "long.npy", good[2]].join("\n"));
    const slow = [
      "attend",
      "--batch",
      "slow.txt",
      "-o",
      `slow-${runtime}`,
      "--backend",
      "scalar",
      "--tile",
      "50",
      "-m",
      "512",
    ];
    let heard = false;
    const { code, stdout } = await performer([...slow, "--jsonl"], {
      runtime,
      cwd: path("."),
      during: (child) =>
        child.stdout!.on("data", (text) => {
          if (heard || !String(text).includes(good[1])) return;
          heard = true;
          child.kill("SIGINT");
        }),
    });
    const { records, summary } = linesOf(stdout);
    expect(records.map(({ input }) => input)).toEqual(good.slice(0, 2));
    expect([code, summary.interrupted, summary.left, summary.exitCode]).toEqual([130, true, 2, 130]);
    expect(readdirSync(path(`slow-${runtime}`)).sort()).toEqual([".performer-batch.json", "0.npy", "1.npy"]);
    writeFileSync(path("slow.txt"), [good[0], good[1], good[2]].join("\n"));
    const next = await performer([...slow, "--resume", "--jsonl"], { runtime, cwd: path(".") });
    expect(linesOf(next.stdout).records.map(({ status }) => status)).toEqual(["skipped", "skipped", "done"]);
    expect(next.code).toBe(0);
  }, 60_000);
});

describe("--resume", () => {
  test("an output stays that is younger than its input and the batch; other settings are refused by name", async () => {
    const list = `${good[0]}\n${good[1]}\n${good[2]}\n`;
    const states = async (...flags: string[]) => {
      const { stdout } = await batch(list, "-o", "again", "--jsonl", ...flags);
      return linesOf(stdout).records.map(({ status }) => status);
    };
    // An output of nobody knows which settings.
    mkdirSync(path("again"));
    writeFileSync(path("again/0.npy"), "of another program");
    expect(await states("--resume")).toEqual(["done", "done", "done"]);
    expect(await states("--resume")).toEqual(["skipped", "skipped", "skipped"]);
    const later = Date.now() / 1000 + 60;
    utimesSync(path(good[1]), later, later);
    expect(await states("--resume")).toEqual(["skipped", "done", "skipped"]);
    expect(await states("--resume", "--threads", "1")).toEqual(["skipped", "done", "skipped"]);
    const { code, stderr } = await batch(list, "-o", "again", "--resume", "--seed", "3");
    expect([code, stderr]).toEqual([2, expect.stringContaining("--seed was 0 and is 3")]);
    expect(await states("--seed", "3")).toEqual(["done", "done", "done"]);
    writeFileSync(path("again/.performer-batch.json"), "{");
    expect((await batch(list, "-o", "again", "--resume", "--seed", "3")).stderr).toContain("is damaged");
    const now = Date.now() / 1000;
    utimesSync(path(good[1]), now - 60, now - 60);
  });
});

describe("what is refused before anything is computed", () => {
  const cases: readonly (readonly [string, readonly string[], string])[] = [
    ["a/x.npy\nb/x.npy\n", ["-o", "none"], 'both line 1 ("a/x.npy") and line 2 ("b/x.npy")'],
    ["a.npy\tx.npy\nb.npy\tsub/../x.npy\n", ["-o", "none"], "both line 1"],
    ["good/1.npy\n", ["-o", "good"], "that is the input of line 1"],
    ["a.npy\t../a.npy\n", ["-o", "none"], "outside of the folder"],
    ["a.npy\t/tmp/a.npy\n", ["-o", "none"], "outside of the folder"],
    ["a.npy\ta.txt\n", ["-o", "none"], "must end in .npy"],
    ["a.npy\ta.npy\tmore\n", ["-o", "none"], "line 1"],
    ["a.npy\tb.npy\n", [], "no --output FOLDER"],
    ["-\n", [], "standard input is no file of a batch"],
    ["# nothing\n\n", [], "it names no input"],
    ["a\0b\n", [], "it is not text"],
    ["a.npy\n", ["-o", "-"], "--output -"],
    ["a.npy\n", ["-o", "junk.npy"], "there is a file of this name"],
    ["a.npy\n", ["b.npy"], 'with "b.npy"'],
    ["a.npy\n", ["--q", "q.npy"], "--q"],
    ["a.npy\n", ["--state-out", "s.safetensors"], "--state-out"],
    ["a.npy\n", ["--report", "r.html"], "--report"],
    ["a.npy\n", ["--health"], "--health"],
    ["a.npy\n", ["--dry-run"], "--dry-run"],
    ["a.npy\n", ["--max-memory", "1GB"], "--max-memory"],
    ["a.npy\n", ["--format", "csv"], "--format csv"],
    ["a.npy\n", ["--resume"], "--resume"],
    ["a.npy\n", ["--checkpoint-seconds", "3"], "--checkpoint-seconds"],
    ["a.npy\n", ["--check", "0", "--max-error", "5%"], "--max-error"],
  ];
  test.each(cases)("%j %j", async (list, flags, words) => {
    const { code, stdout, stderr } = await batch(list, ...flags);
    expect(stderr).toContain(words);
    expect([stdout, code]).toEqual(["", /no input|not text/.test(words) ? 3 : 2]);
    expect(existsSync(path("none"))).toBe(false);
  });

  test("a ceiling of the environment is not passed over", async () => {
    writeFileSync(path("some.txt"), good[0]);
    const { code, stderr } = await inside(["attend", "--batch", path("some.txt")], {
      env: { PERFORMER_MAX_MEMORY: "1GB" },
    });
    expect([code, stderr]).toEqual([2, expect.stringContaining("Cannot use --batch with --max-memory")]);
  });

  test("a backend that is not there", async () => {
    writeFileSync(path("some.txt"), good[0]);
    const args = ["attend", "--batch", path("some.txt"), "--backend", "wasm", "--features", "hybrid"];
    const { code, stdout } = await inside(args);
    expect([code, stdout]).toEqual([4, ""]);
  });
});

test("lists: windows' ends of lines, names with spaces, and where outputs go", () => {
  const items = parseBatchList("a b.npy\r\n\r\n#c\r\nx/s.fa.gz\r\nq.NPZ\td/e.npy", "list", "out");
  expect(items).toEqual([
    { line: 1, input: "a b.npy", output: "out/a b.npy" },
    { line: 4, input: "x/s.fa.gz", output: "out/s.fa.gz.npy" },
    { line: 5, input: "q.NPZ", output: "out/d/e.npy" },
  ]);
});

test("sequences with --encode, a line for people each, and --max-error", async () => {
  const { code, stdout, stderr } = await batch(
    "seq.fa\nmissing.fa\n",
    "-o",
    "coded",
    "--encode",
    "kmer:3",
    "--max-error",
    "0.01%",
  );
  expect(code).toBe(3);
  expect(stderr).toContain('performer: line 2, "missing.fa": Cannot read "missing.fa": no such file or directory\n');
  expect(stdout).toMatch(
    /^seq\.fa → coded\/seq\.fa\.npy · 12 rows × 1 × 64 · relative L2 \S+ · skill \S+ · above --max-error\n/,
  );
  expect(stdout).toContain("2 inputs: 1 done, 1 failed");
  expect(existsSync(path("coded/seq.fa.npy"))).toBe(true);
  expect((await batch("seq.fa\n", "--encode", "kmer:3", "--max-error", "0.01%")).code).toBe(1);
  expect((await batch("seq.fa\n", "--encode", "kmer:3", "-q")).stdout).toBe("");
});

test("one backend is opened for all", async () => {
  await using warm = new WarmBackends();
  let opened = 0;
  const open: typeof warm.open = async (...args) => {
    const before = warm.names.length;
    const result = await warm.open(...args);
    opened += warm.names.length - before;
    return result;
  };
  writeFileSync(path("some.txt"), good.slice(0, 5).map(path).join("\n"));
  const { code } = await inside(["attend", "--batch", path("some.txt"), "--backend", "wasm", "-m", "16"], {
    openFirst: open,
  });
  expect([code, opened]).toEqual([0, 1]);
});

test("the exit code is that of a bug, else of the first lasting failure, else 75, else 1", () => {
  const codeOf = (...codes: number[]) => {
    const tally = new BatchTally();
    for (const [line, exitCode] of codes.entries()) {
      const failed = exitCode > 1 ? { message: "", exitCode } : null;
      const record = recordWithout({ line, input: "" }, { status: failed ? "failed" : "done", failed });
      tally.add({ ...record, exceeds: exitCode === 1 });
    }
    return tally.exitCode(false);
  };
  expect([codeOf(0), codeOf(0, 1), codeOf(1, 75), codeOf(75, 2, 3), codeOf(3, 2), codeOf(3, 70)]).toEqual([
    0,
    1,
    75,
    2,
    3,
    70,
  ]);
  expect(new BatchTally().exitCode(true)).toBe(130);
});
