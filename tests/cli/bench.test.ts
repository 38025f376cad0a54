import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BenchReport } from "../../src/bench.ts";
import { nearFarFlops } from "../../src/near_far_flops.ts";
import { npyBytes, performer, ROOT, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
const QUICK = [
  "bench",
  "--backend",
  "scalar",
  "--heads",
  "2",
  "--head-dim",
  "8",
  "-m",
  "16",
  "--samples",
  "3",
  "--seconds",
  "0.01",
];

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([96, 16], (i) => 0.6 * wave(i)));
  writeFileSync(path("old.json"), JSON.stringify({ schema: "performer-bench/1", results: [] }));
  writeFileSync(path("junk.json"), "not json");
});
afterAll(remove);

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("--json prints one object with the documented keys", async () => {
    const args = [
      ...QUICK,
      "-L",
      "32,2^6",
      "--features",
      "hyperbolic,softmax",
      "--mode",
      "bidirectional,causal",
      "--json",
    ];
    const { code, stdout, stderr } = await performer(args, { runtime });
    expect(stderr).toBe("");
    expect(code).toBe(0);
    const report: BenchReport = JSON.parse(stdout);
    expect(Object.keys(report)).toEqual([
      "schema",
      "command",
      "date",
      "machine",
      "settings",
      "complete",
      "refused",
      "peaks",
      "copyGbps",
      "results",
      "slopes",
      "crossovers",
      "comparison",
    ]);
    expect(report).toMatchObject({ schema: "performer-bench/2", command: "bench", complete: true, comparison: null });
    expect(report.machine.runtime.toLowerCase()).toStartWith(runtime);
    expect(report.settings).toMatchObject({ input: "synthetic", lengths: [32, 64], heads: 2, headDim: 8, spread: 0.5 });
    expect(report.peaks).toEqual([
      { backend: "scalar", device: "JavaScript float64 × 1 thread", threads: 1, gflops: null, gbps: null },
    ]);
    expect(report.results.map(({ features, causal, L }) => [features, causal, L])).toEqual([
      ["hyperbolic", false, 32],
      ["hyperbolic", false, 64],
      ["softmax", false, 32],
      ["softmax", false, 64],
      ["hyperbolic", true, 32],
      ["hyperbolic", true, 64],
      ["softmax", true, 32],
      ["softmax", true, 64],
    ]);
    for (const result of report.results) {
      expect(result.seconds.length).toBe(3);
      expect(result.median).toBe(result.seconds.toSorted((a, b) => a - b)[1]);
      expect(result.tokensPerSecond).toBeCloseTo(result.L / result.median, 6);
      expect(result.gflops).toBeGreaterThan(0);
      expect(result.percentOfPeak).toBeNull();
      expect(result.percentOfCeiling).toBeGreaterThan(0);
      expect(result.peakBytes).toBeGreaterThan(10e6);
      expect(result.numFeatures).toBe(result.features === "softmax" ? null : 16);
    }
    expect(report.slopes.length).toBe(4);
    expect(report.crossovers.length).toBe(2);
  });
});

test("text tells the machine, the table, slopes and crossovers, without a chart off the terminal", async () => {
  const { code, stdout } = await performer([...QUICK, "-L", "32,64", "--features", "positive,softmax"]);
  expect(code).toBe(0);
  for (const words of ["performer bench · synthetic rows", "tokens/s", "GFLOP/s", "slope", "time ~ L^", "crossover"]) {
    expect(stdout).toContain(words);
  }
  expect(stdout).not.toContain("logarithmic");
});

describe("near keys and far fields beside feature maps", () => {
  const NEAR = ["--features", "positive,softmax,taylor2", "--window", "8", "--heavy", "4"];
  const FAR = ["--far", "taylor1,clusters:5", "--top", "2"];
  const NAMES = [
    "positive",
    "softmax",
    "taylor2",
    "window 8, heavy 4, taylor1",
    "window 8, heavy 4, clusters 5, top 2",
  ];

  test("--json: one curve for each far field, in both directions", async () => {
    const modes = ["--mode", "bidirectional,causal"];
    const { code, stdout, stderr } = await performer(
      [...QUICK, "-L", "32,100", ...NEAR, ...FAR, ...modes, "--profile", "--json", "-o", path("near.json")],
    );
    expect([code, stderr]).toEqual([0, ""]);
    const report: BenchReport = JSON.parse(stdout);
    expect(report.schema).toBe("performer-bench/2");
    const taylor = { window: 8, heavy: 4, far: "taylor1", clusters: 0, top: 0 } as const;
    const clusters = { window: 8, heavy: 4, far: "clusters", clusters: 5, top: 2 } as const;
    const alone = { window: 0, heavy: 0, far: "taylor2", clusters: 0, top: 0 } as const;
    expect(report.settings).toMatchObject({ features: ["positive", "softmax"], nearFar: [alone, taylor, clusters] });
    expect(report.refused).toEqual([]);
    for (const causal of [false, true]) {
      const curves = report.slopes.filter((slope) => slope.causal === causal);
      expect(curves.map(({ features }) => features)).toEqual(NAMES);
      expect(curves.map(({ nearFar }) => nearFar)).toEqual([null, null, alone, taylor, clusters]);
      expect(report.crossovers.filter((crossover) => crossover.causal === causal).map(({ features }) => features))
        .toEqual(NAMES.filter((name) => name !== "softmax"));
    }
    const near = report.results.filter(({ nearFar }) => nearFar);
    expect(near.length).toBe(2 * 2 * 3);
    const sizes = { heads: 2, kvHeads: 2, headDim: 8, valueDim: 8 };
    for (const { L, causal, flops, seconds, numFeatures, projection, stages, nearFar } of near) {
      expect([numFeatures, projection, stages]).toEqual([null, null, null]);
      expect(seconds.length).toBe(3);
      if (nearFar!.top === 0) {
        expect(flops).toBe(nearFarFlops({ ...nearFar!, causal }, { ...sizes, queryRows: L, keyRows: L }));
      }
    }
    const saved = await performer([...QUICK, "-L", "32", ...NEAR, "--compare", path("near.json"), "--json"]);
    const { comparison }: BenchReport = JSON.parse(saved.stdout);
    expect(comparison!.points.map(({ features }) => features)).toEqual(NAMES.slice(0, 4));
    expect(comparison).toMatchObject({ unmatched: 0, missing: 16 });
  });

  test("text, csv and md name them; csv has their settings in columns of their own", async () => {
    const args = [...QUICK, "-L", "32,64", ...NEAR, ...FAR];
    const { stdout } = await performer(args);
    for (const name of NAMES) expect(stdout).toContain(`slope        ${name}: time ~ L^`);
    for (const name of NAMES.slice(2)) expect(stdout).toMatch(new RegExp(`crossover +${name}: `));
    expect(stdout).not.toContain("refused");
    const lines = (await performer([...args, "--format", "csv"])).stdout.trimEnd().split("\n");
    const last = (line: string) => line.split(",").slice(-5).join();
    expect(lines.map(last)).toEqual(
      [
        "window,heavy,far,clusters,top",
        ...[",,,,", ",,,,", "0,0,taylor2,0,0", "8,4,taylor1,0,0", "8,4,clusters,5,2"]
          .flatMap((settings) => [settings, settings]),
      ],
    );
    expect(lines[7]).toContain('"window 8, heavy 4, taylor1",,,false');
    const md = (await performer([...args, "--format", "md"])).stdout.split("\n").filter((line) => line.startsWith("|"));
    expect(new Set(md.map((line) => line.split("|").length)).size).toBe(1);
  });

  test("backends without kernels refuse them and measure the others; auto is one that has them", async () => {
    const some = [...QUICK, "-L", "32", "--features", "positive", "--window", "8", "--json"];
    const { code, stdout } = await performer([...some, "--backend", "gpujs:cpu"]);
    expect(code).toBe(0);
    const report: BenchReport = JSON.parse(stdout);
    expect(report.results.map(({ features }) => features)).toEqual(["positive"]);
    expect(report.refused).toEqual([{
      name: "gpujs:cpu window 8, taylor1, L 32",
      reason: "it has no kernels for near keys and far fields; webgpu, wasm, scalar have",
    }]);
    const alone = await performer([...QUICK, "-L", "32", "--features", "taylor1", "--backend", "gpujs:cpu"]);
    expect(alone.code).toBe(4);
    expect(alone.stderr).toContain("no kernels for near keys");
    const auto: BenchReport = JSON.parse((await performer([...some, "--backend", "auto"])).stdout);
    expect(auto.results.map(({ features }) => features)).toEqual(["positive", "window 8, taylor1"]);
  });
});

test("csv, jsonl and md carry the same rows as json", async () => {
  const run = async (format: string) => (await performer([...QUICK, "-L", "32,64", "--format", format])).stdout;
  const [header, ...rows] = (await run("csv")).trimEnd().split("\n").map((line) => line.split(","));
  expect(rows.length).toBe(2);
  expect(rows.map((row) => row[header.indexOf("L")])).toEqual(["32", "64"]);
  for (const name of ["backend", "features", "median", "p5", "p95", "tokensPerSecond", "percentOfPeak", "samples"]) {
    expect(header).toContain(name);
  }
  expect(new Set(rows.map((row) => row.length))).toEqual(new Set([header.length]));
  const lines = (await run("jsonl")).trimEnd().split("\n").map((line) => JSON.parse(line));
  expect(lines.map(({ schema, type, L, seconds }) => [schema, type, L, seconds?.length])).toEqual([
    ["performer-bench/2", "row", 32, 3],
    ["performer-bench/2", "row", 64, 3],
    ["performer-bench/2", "summary", undefined, undefined],
  ]);
  const table = (await run("md")).split("\n").filter((line) => line.startsWith("|"));
  expect(table.length).toBe(4);
  expect(new Set(table.map((line) => line.split("|").length)).size).toBe(1);
});

test("--compare: exit 0 against itself grown slower, 1 against itself grown faster", async () => {
  const args = [...QUICK, "-L", "64", "--samples", "6"];
  expect((await performer([...args, "-q", "-o", path("saved.json")])).code).toBe(0);
  const saved: BenchReport = JSON.parse(readFileSync(path("saved.json"), "utf8"));
  const scaled = (name: string, factor: number) => {
    const results = saved.results.map((result) => ({ ...result, seconds: result.seconds.map((s) => factor * s) }));
    writeFileSync(path(name), JSON.stringify({ ...saved, results }));
    return path(name);
  };
  const good = await performer([...args, "--compare", scaled("slow.json", 1000), "--json"]);
  expect(good.code).toBe(0);
  expect(JSON.parse(good.stdout).comparison).toMatchObject({ regressions: 0, threshold: 0.05, sameMachine: true });
  const bad = await performer([...args, "--compare", scaled("fast.json", 1 / 1000), "--regression", "50%", "--json"]);
  expect(bad.stderr).toContain('1 of 1 points are slower than in "');
  expect(bad.code).toBe(1);
  const { comparison }: BenchReport = JSON.parse(bad.stdout);
  expect(comparison!.points[0]).toMatchObject({ verdict: "slower", L: 64, features: "hyperbolic" });
  const table = await performer([...args, "--compare", path("fast.json"), "--format", "md"]);
  expect(table.stdout).toContain("against saved");
  expect(table.stdout).toContain("1 slower");
  const stranger = await performer([...args, "-L", "48", "--compare", path("slow.json")]);
  expect(stranger.code).toBe(2);
  expect(stranger.stderr).toContain("none of the points");
});

test("rows of a file, its whole length by default", async () => {
  const flags = ["--backend", "scalar", "--heads", "2", "-m", "16", "--samples", "3", "--seconds", "0.01", "--json"];
  const { code, stdout } = await performer(["bench", path("x.npy"), ...flags]);
  expect(code).toBe(0);
  const report: BenchReport = JSON.parse(stdout);
  expect(report.settings).toMatchObject({ input: path("x.npy"), lengths: [96], heads: 2, headDim: 8, spread: null });
  const long = await performer(["bench", path("x.npy"), ...flags, "-L", "100"]);
  expect(long.code).toBe(2);
  expect(long.stderr).toContain("96 rows");
});

test("backends that cannot be opened are told, unless there is no other", async () => {
  const args = ["-L", "32", "--json"];
  const list = await performer([...QUICK, ...args, "--backend", "gpujs:headlessgl,scalar", "--threads", "1,2"]);
  expect(list.code).toBe(0);
  const report: BenchReport = JSON.parse(list.stdout);
  expect(report.refused[0].name).toBe("gpujs:headlessgl");
  expect(report.results.length).toBe(1); // scalar has one thread, whatever is asked for
  expect((await performer([...QUICK, ...args, "--backend", "gpujs:headlessgl"])).code).toBe(4);
});

/** Arguments, exit code and words of the message. */
const mistakes: [string[], number, string[]][] = [
  [["-L", "1024,many"], 2, ["--lengths", '"many"', "2^20"]],
  [["-L", "0"], 2, ["--lengths 0"]],
  [["-L", "2^70"], 2, ["--lengths"]],
  [["--features", "hyperbolic,sofmax"], 2, ["did you mean softmax"]],
  [["--projection", "orthogonl"], 2, ["did you mean orthogonal"]],
  [["--mode", "casual"], 2, ["did you mean causal"]],
  [["-m", "7"], 2, ["even"]],
  [["--backend", "scaler"], 2, ["did you mean scalar"]],
  [["--window", "many"], 2, ["--window many"]],
  [["--window", "8", "--far", "taylor1,tailor2"], 2, ["--far", "did you mean taylor2"]],
  [["--far", "taylor1,none"], 2, ["--far none", "--window W"]],
  [["--window", "8", "--top", "2"], 2, ["--top", "clusters:C"]],
  [["--features", "taylor1,taylr2"], 2, ["did you mean taylor2"]],
  [["--causal", "--mode", "causal"], 2, ["--causal", "--mode"]],
  [["--encode", "kmer:6"], 2, ["FILE"]],
  [["--samples", "2"], 2, ["at least 3"]],
  [["--compare", "old.json"], 3, ["performer-bench/1", "performer-bench/2"]],
  [["--compare", "junk.json"], 3, ["junk.json"]],
  [["--compare", "missing.json"], 3, ["no such file"]],
  [["-o", "report.txt"], 2, [".json", ".csv"]],
  [["-o", "no/where.json"], 2, ["no such file"]],
  [["x.npy", "--head-dim", "8"], 2, ["--head-dim", "x.npy"]],
];

test.each(mistakes)("%p exits %p", async (args, exit, words) => {
  const lengths = args.includes("-L") ? [] : ["-L", "16"];
  const backend = args.includes("--backend") ? [] : ["--backend", "scalar"];
  const { code, stdout, stderr } = await performer(["bench", ...args, ...lengths, ...backend], { cwd: path(".") });
  expect(stderr).not.toContain("bug in performer");
  expect(stderr).not.toContain("    at ");
  for (const part of words) expect(stderr).toContain(part);
  expect(stdout).toBe("");
  expect(code).toBe(exit);
});

test("interrupted: keeps what is finished, saves nothing, exits 130", async () => {
  const before = readdirSync(path("."));
  const args = ["bench", "--backend", "scalar", "--heads", "1", "-L", "16,2^17", "--jsonl", "-o", path("partial.json")];
  const { code, stdout, stderr } = await performer(args, {
    during: (child) => child.stdout!.once("data", () => child.kill("SIGINT")), // the first length is measured
  });
  expect(stderr).toContain("stopping");
  expect(code).toBe(130);
  const lines = stdout.trim().split("\n").map((line) => JSON.parse(line));
  expect(lines.filter(({ type }) => type === "row").map(({ L }) => L)).toEqual([16]);
  expect(lines.at(-1)).toMatchObject({ type: "summary", complete: false });
  expect(readdirSync(path("."))).toEqual(before);
});

const hasScript = spawnSync("script", ["--version"]).status === 0;

test.skipIf(!hasScript)("a terminal gets progress and a chart, in ASCII when asked (needs script)", () => {
  const show = (...flags: string[]) => {
    const command = [...RUNTIMES.bun, join(ROOT, "cli.ts"), ...QUICK, "-L", "32,64,128", ...flags].join(" ");
    const env = { PATH: process.env.PATH, HOME: path("."), TERM: "xterm" };
    return spawnSync("script", ["-qec", command, "/dev/null"], { cwd: path("."), encoding: "utf8", env }).stdout;
  };
  const screen = show();
  expect(screen).toContain("1/3 scalar hyperbolic, L 32");
  expect(screen).toContain("throughput against length");
  expect(screen).toMatch(/[\u2801-\u28ff]/);
  expect(show("--ascii")).not.toMatch(/[\u2801-\u28ff]/);
});

test("every workload is a bench that this version understands", () => {
  const others = ["workload.sh", "pipe.sh", "shard.sh"]; // what workloads share, a stream through `attend`, tasks of shards
  const names = readdirSync(join(ROOT, "bench")).filter((name) => name.endsWith(".sh") && !others.includes(name));
  expect(names.sort()).toEqual(["bidirectional.sh", "causal.sh", "exact.sh", "lengths.sh", "scaling.sh"]);
  for (const name of names) {
    const flags = [
      "",
      "-L",
      "16",
      "--backend",
      "scalar",
      "--heads",
      "1",
      "--samples",
      "3",
      "--seconds",
      "0.01",
      "--json",
    ];
    const { stdout, stderr } = spawnSync(join(ROOT, "bench", name), flags, { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(JSON.parse(stdout).results.length).toBeGreaterThan(0);
  }
  expect(existsSync(join(ROOT, "bench/throughput.ts"))).toBe(false);
});
