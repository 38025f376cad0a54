/** Real pipes of a shell: streams in, streams out, several of the program in a row, readers that leave early. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inside, npyBytes, ROOT, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
/** More than the writer's first bytes and its ring hold (4 MiB each). */
const LONG: readonly [rows: number, cols: number] = [200_000, 64];
/** Both write the shape in a header of this length, with other spaces in it. */
const HEADER = 128;

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([300, 16], wave));
  writeFileSync(path("long.npy"), npyBytes(LONG, (i) => i % 1021));
});
afterAll(remove);

/** Runs a line of bash in which P is the program; `set -o pipefail` is off, so that statuses can be looked at. */
function shell(runtime: string, line: string): { stdout: Uint8Array; text: string; stderr: string; status: number } {
  const program = [...RUNTIMES[runtime], join(ROOT, "cli.ts")].map((word) => `'${word}'`).join(" ");
  const { stdout, stderr, status } = spawnSync("bash", ["-c", `P() { ${program} "$@"; }\n${line}`], {
    cwd: path("."),
    env: { PATH: process.env.PATH, HOME: path("."), NO_COLOR: "1" },
    maxBuffer: 1 << 28,
    timeout: 60_000,
  });
  return { stdout, text: stdout.toString(), stderr: stderr.toString(), status: status! };
}

const bytesOf = (name: string) => readFileSync(path(name));

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("no attention hands a long stream through byte by byte, in one pass", () => {
    const { stdout, stderr, status } = shell(runtime, "cat long.npy | P attend - --features none -o - | cat");
    expect(status).toBe(0);
    expect(stderr).toContain("GB/s of input");
    expect(stdout.length).toBe(bytesOf("long.npy").length);
    expect(Buffer.compare(stdout.subarray(HEADER), bytesOf("long.npy").subarray(HEADER))).toBe(0);
  });

  test("a pipe with a name and a device take long outputs", () => {
    const line =
      "rm -f named.npy; mkfifo named.npy; P attend long.npy --features none -q -o named.npy & cat named.npy; wait $!; echo $? >&2";
    const { stdout, stderr } = shell(runtime, line);
    expect(stderr).toBe("0\n");
    expect(Buffer.compare(stdout.subarray(HEADER), bytesOf("long.npy").subarray(HEADER))).toBe(0);
    expect(shell(runtime, "P attend long.npy --features none -q -o /dev/null").status).toBe(0);
  });

  test("two in a row give what two runs over files give", () => {
    const flags = "--causal --backend scalar -m 32 --check 0 -q";
    const piped = shell(runtime, `P attend x.npy ${flags} -o - | P attend - ${flags} -o -`);
    expect([piped.stderr, piped.status]).toEqual(["", 0]);
    shell(runtime, `P attend x.npy ${flags} -o once.npy && P attend once.npy ${flags} -o twice.npy`);
    expect(Buffer.compare(piped.stdout, bytesOf("twice.npy"))).toBe(0);
  });

  test("a reader that leaves ends the work quietly, early or late", () => {
    for (const count of [10, 20_000_000]) {
      const line = `P attend long.npy --features none -q -o - | head -c ${count} > /dev/null; echo \${PIPESTATUS[0]}`;
      expect(shell(runtime, line)).toMatchObject({ text: "141\n", stderr: "" });
    }
  });

  test("every command that reads a file reads a pipe, and what it writes goes on", () => {
    const lm = (file: string) => join(ROOT, "tests/golden/lm/plain_float16", file);
    const lines = [
      "P convert x.npy x.npz -q && cat x.npz | P convert - - --tensor out | cmp -i 128 - x.npy && echo converted",
      "cat x.npz | P inspect -",
      "cat x.npy | P attend --q - --k x.npy --v x.npy --backend scalar -m 16 -q -o - | P inspect -",
      "cat x.npy | P attend --q - --k - --v - --backend scalar -m 16 -q -o - | P inspect -",
      `cat ${lm("tokens.npy")} | P run ${lm("model.pt")} - --config ${
        lm("config.json")
      } --backend scalar -q -o - | P inspect -`,
      `cat ${lm("model.pt")} | P run - ${lm("tokens.npy")} --config ${
        lm("config.json")
      } --backend scalar -q -o - | P inspect -`,
    ];
    const { text, stderr, status } = shell(runtime, lines.join("\n"));
    expect([stderr, status]).toEqual(["", 0]);
    expect(text).toContain("converted");
    expect(text.match(/f32 \[300, 16\]/g)?.length).toBe(3);
    expect(text.match(/f32 \[1, 64, 50\]/g)?.length).toBe(2);
  });

  test("compare and tune read a pipe; prompts too", () => {
    const model = (file: string) => join(ROOT, "tests/golden/models/pod_performer", file);
    const lines = [
      "cat x.npy | P compare - --backend scalar -m 16 --features hyperbolic --check 16 --rows-timed 64 --json",
      "cat x.npy | P tune - --backend scalar -m 16 --features hyperbolic --sample 16 --error 900% --json",
      `printf 'The ' | P generate ${model("model.pt")} --config ${
        model("config.json")
      } --prompt - -n 3 --backend scalar ` +
      "--check 0 -q -o - | P inspect - --json",
    ];
    const { text, stderr } = shell(runtime, lines.map((line) => `${line} | tr -d '\\n'; echo`).join("\n"));
    expect(stderr).toBe("");
    const [compared, tuned, inspected] = text.trim().split("\n").map((line) => JSON.parse(line));
    expect([compared.input.path, tuned.input.path]).toEqual(["standard input", "standard input"]);
    expect(inspected.tensors[0].shape).toEqual([7]);
  });
});

test("standard input has one reader, unless they are members of one file", async () => {
  const { code, stderr } = await inside(["run", "-", "-"]);
  expect([code, stderr]).toEqual([2, expect.stringContaining("MODEL and TOKENS")]);
  expect((await inside(["attend", "-", "--projection-matrix", "-"])).stderr).toContain("INPUT and --projection-matrix");
});

describe("--quiet: nothing but what was asked for", () => {
  const X = "tests/fixtures/heads/masked_layer0/q.npy";
  const quick: string[][] = [
    ["attend", X, "--backend", "scalar", "-m", "16"],
    ["explain", X, "--backend", "scalar", "-m", "16"],
    ["compare", X, "--backend", "scalar", "-m", "16", "--features", "hyperbolic", "--check", "4", "--rows-timed", "64"],
    [
      "tune",
      X,
      "--backend",
      "scalar",
      "-m",
      "16",
      "--features",
      "hyperbolic",
      "--sample",
      "16",
      "--rows",
      "0:100",
      "--error",
      "900%",
    ],
    ["bench", "--backend", "scalar", "-m", "16", "-L", "32", "--samples", "3", "--seconds", "0.01", "--heads", "1"],
    ["inspect", X],
  ];
  test.each(quick)("%s", async (...args: string[]) => {
    expect(await inside([...args, "--quiet"])).toMatchObject({ code: 0, stdout: "", stderr: "" });
    const machine = await inside([...args, "--quiet", "--jsonl"]);
    expect(JSON.parse(machine.stdout.trimEnd().split("\n").at(-1)!).type).toBe("summary");
    expect(machine.stderr).toBe("");
  });

  test("mistakes are still told", async () => {
    expect((await inside(["attend", "missing.npy", "--quiet"])).stderr).toContain("no such file");
  });
});
