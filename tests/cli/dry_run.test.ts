/** `attend --dry-run` and `explain`: what they say is what a run then does, and they do none of it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Forecast } from "../../src/forecast.ts";
import { onLine } from "../../src/forecast.ts";
import type { Report } from "../../src/report.ts";
import { inside, npyBytes, ROOT, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
const ROWS = 300, COLS = 16;
const BYTES = ROWS * COLS * 4;
const LONG = 20_000;

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([ROWS, COLS], wave));
  writeFileSync(path("long.npy"), npyBytes([LONG, COLS], wave));
  writeFileSync(path("y.npy"), npyBytes([100, COLS], wave));
});
afterAll(remove);

const SCALAR = ["--backend", "scalar"];

async function plan(...args: string[]): Promise<Forecast> {
  const { code, stdout, stderr } = await inside(["explain", ...args, ...SCALAR, "--json"]);
  expect([code, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout);
}

async function real(...args: string[]): Promise<Report> {
  return JSON.parse((await inside(["attend", ...args, ...SCALAR, "--json"])).stdout);
}

describe("what is said is what is done", () => {
  const flags: string[][] = [
    ["-m", "32", "--check", "16"],
    ["-m", "32", "--heads", "2", "--causal", "--check", "16"],
    ["--features", "hyp-aderf", "-m", "32", "--check", "16"],
    ["--features", "elu", "--check", "0"],
    ["--features", "softmax", "--tile", "64"],
    ["--window", "8", "--far", "taylor1", "--check", "16"],
    ["--features", "none"],
  ];
  test.each(flags)("attend %p %p %p %p %p", async (...all) => {
    const args = [path("x.npy"), ...all.filter((flag) => typeof flag === "string")];
    const out = path("out.npy");
    const said = await plan(...args, "-o", out);
    expect(existsSync(out)).toBe(false);
    const done = await real(...args);
    expect(said.backend).toEqual(done.backend);
    const { firstRow: _, gaps: __, ...input } = done.input;
    expect(said.input).toEqual(input);
    expect(said.flops.attention).toBeCloseTo(done.flops, 3);
    expect(said.attention).toMatchObject({
      features: done.attention.features,
      numFeatures: done.attention.numFeatures,
      causal: done.attention.causal,
      tileRows: done.attention.tileRows,
    });
    expect(said.output).toEqual({ path: out, dtype: "f32", shape: [ROWS, COLS] });
    expect(said.bytes.written).toBe(BYTES);
    expect(said.bytes.read).toBe(said.passes.reduce((sum, pass) => sum + pass.bytes, 0));
    // All rows were tried, so that the error is the very one.
    expect(said.basis).toMatchObject({ kind: "trial", rows: ROWS });
    expect(said.error?.relativeL2.value).toBe(done.error?.relativeL2.value as number);
    expect(said.error?.skill).toBe(done.error?.skill as number);
    for (const seconds of Object.values(said.seconds)) expect(seconds).toBeGreaterThanOrEqual(0);
  });
});

test("passes over the file are counted", async () => {
  const passes = async (...args: string[]) =>
    (await plan(path("x.npy"), ...args)).passes.map(({ bytes }) => bytes / BYTES);
  expect(await passes("--check", "0", "--centre", "off")).toEqual([1, 1]); // keys and values, queries
  expect(await passes("--centre", "off")).toEqual([1, 1, 1]); // and the check
  expect(await passes()).toEqual([1, 1, 1, 1]); // rows that are fitted to first: here all of them
  expect(await passes("--causal", "--check", "0")).toEqual([1]);
  expect(await passes("--features", "softmax", "--tile", "64")).toEqual([1, 5]); // 300 rows are five blocks
  expect(await passes("--features", "softmax", "--tile", "64", "--causal")).toEqual([1, 3]);
  expect(await passes("--features", "none")).toEqual([1]);
});

test("queries and keys of other lengths cannot be tried: the backend's speed on other rows stands in", async () => {
  const said = await plan("--q", path("y.npy"), "--k", path("x.npy"), "--v", path("x.npy"), "-m", "32");
  expect(["kept", "measured"]).toContain(said.basis.kind);
  expect(said).toMatchObject({ error: null, memoryBytes: null, seconds: { read: null } });
  expect(said.seconds.total).toBeGreaterThan(0);
});

test("text says what, how long and how well; --quiet nothing; mistakes are those of attend", async () => {
  const { stdout } = await inside(["attend", path("x.npy"), "--dry-run", ...SCALAR, "-m", "32"]);
  for (const words of ["dry run, nothing is written", "a prediction from 300 rows", "relative L2", "no output"]) {
    expect(stdout).toContain(words);
  }
  expect(await inside(["explain", path("x.npy"), ...SCALAR, "-q"])).toEqual({ code: 0, stdout: "", stderr: "" });
  expect((await inside(["explain", path("missing.npy")])).code).toBe(3);
  expect((await inside(["explain", path("x.npy"), "--heads", "3"])).code).toBe(2);
  expect((await inside(["explain", path("x.npy"), "--backend", "gpujs:headlessgl"])).code).toBe(4);
  const { code, stderr } = await inside(["explain", path("x.npy"), "--format", "csv"]);
  expect([code, stderr]).toEqual([2, expect.stringContaining("expected text, json or jsonl")]);
});

test.each(Object.keys(RUNTIMES))("of a pipe only the beginning is read (%s)", (runtime) => {
  const program = [...RUNTIMES[runtime], join(ROOT, "cli.ts")].map((word) => `'${word}'`).join(" ");
  const explain = (flags: string) => {
    // The pipe stays open: whoever waits for its end runs into the time limit.
    const line = `exec 3< <(head -c 100000 long.npy; exec sleep 60); ${program} explain - --json ${flags} <&3; kill $!`;
    const { stdout } = spawnSync("bash", ["-c", line], { cwd: path("."), timeout: 20_000 });
    return JSON.parse(stdout.toString());
  };
  const once = explain("--backend scalar --causal --check 0");
  expect(once).toMatchObject({ input: { rows: LONG }, bytes: { spooled: 0 }, basis: { rows: null }, error: null });
  expect(explain("--backend scalar").bytes.spooled).toBe(LONG * COLS * 4);
});

test("what grows is drawn on, what is fixed is not", () => {
  expect(onLine(1, 3, 3, 5, 10)).toBe(12);
  expect(onLine(1, 1, 2, 2, 10)).toBe(10);
  expect(onLine(2, 2, 2, 2, 10)).toBe(10); // one point: in proportion
  expect(onLine(1, 5, 2, 4, 10)).toBe(4 + 8 * 0.5); // faster on more rows: never less than a quarter of the mean
});
