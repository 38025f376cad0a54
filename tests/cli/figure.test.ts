/** `figure` as a process. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inside, npyBytes, performer, ROOT, RUNTIMES, scratch, wave } from "./process.ts";
import { spawnSync } from "node:child_process";

const { path, remove } = scratch();
const text = (name: string) => readFileSync(path(name), "utf8");

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([200, 32], wave));
  writeFileSync(path("empty.npy"), npyBytes([0, 32], () => 0));
  writeFileSync(path("zeros.npy"), npyBytes([40, 8], () => 0));
  const point = (L: number, median: number, features: string) => ({
    ...{
      backend: "wasm",
      device: "a device",
      threads: 2,
      features,
      causal: false,
      L,
      heads: 1,
      headDim: 64,
      valueDim: 64,
    },
    ...{ numFeatures: features === "softmax" ? null : 256, projection: features === "softmax" ? null : "orthogonal" },
    ...{
      seconds: [median],
      median,
      p5: median,
      p95: median,
      tokensPerSecond: L / median,
      ceilingTokensPerSecond: 1e8,
      peakBytes: 1,
    },
  });
  const results = [1024, 4096, 16384].flatMap((
    L,
  ) => [point(L, 1e-6 * L, "positive"), point(L, 1e-9 * L * L, "softmax")]);
  const machine = { processor: "a processor", threads: 2, memory: 1, runtime: "Bun", system: "Linux" };
  writeFileSync(
    path("bench.json"),
    JSON.stringify({ schema: "performer-bench/2", date: "2026-01-01", machine, results }),
  );
});
afterAll(remove);

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("figure 2 into a folder: picture, PNG, numbers", async () => {
    const { code, stdout, stderr } = await performer(["figure", "2", "-o", path(`${runtime}/new/`)], { runtime });
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toContain("l = 1: equal at ϕ = 1.74 rad (100°)");
    expect(readdirSync(path(`${runtime}/new`)).sort()).toEqual(
      ["csv", "json", "png", "svg"].map((kind) => `figure-2.${kind}`),
    );
    const svg = text(`${runtime}/new/figure-2.svg`);
    for (
      const words of [
        "ratio r of the MSEs",
        "angle ϕ (rad)",
        "10⁻⁴",
        "r = 1: equal",
        "trigonometric",
        "arXiv 2009.14794",
      ]
    ) expect(svg).toContain(words);
    expect(svg).toMatch(/^<svg [^>]*width="1100"/);
    expect([...readFileSync(path(`${runtime}/new/figure-2.png`)).subarray(1, 4)]).toEqual([0x50, 0x4e, 0x47]);
    const { schema, command, name, data } = JSON.parse(text(`${runtime}/new/figure-2.json`));
    expect([schema, command, name, data.values.length]).toEqual(["performer-figure/1", "figure", "2", 20]);
    expect(text(`${runtime}/new/figure-2.csv`)).toStartWith(
      "table,length,angle,ratio\nvalues,0.5,0.7853981633974483,0.0079693",
    );
  });

  test("a heat map of a file's slice, with its specification", async () => {
    const args = [
      "figure",
      "heatmap",
      path("x.npy"),
      "--heads",
      "4",
      "--head",
      "2",
      "--size",
      "16",
      "-m",
      "32",
      "--causal",
      "--backend",
      "wasm",
    ];
    const { code, stdout, stderr } = await performer(
      [
        ...args,
        "-o",
        path(`${runtime}-heat.svg`),
        "--export-spec",
        path(`${runtime}-heat.vl.json`),
        "--export-data",
        path(`${runtime}-heat.csv`),
      ],
      { runtime },
    );
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toContain("head 2, rows 0 to 15");
    expect(text(`${runtime}-heat.svg`)).toContain("Approximate − exact");
    expect(JSON.parse(text(`${runtime}-heat.vl.json`)).concat).toHaveLength(3);
    expect(text(`${runtime}-heat.csv`).split("\n")).toHaveLength(1 + 16 * 17 / 2 + 1);
  });
});

test("both runtimes find the same numbers", () => {
  const [bun, deno] = Object.keys(RUNTIMES).map((runtime) =>
    JSON.parse(text(`${runtime}/new/figure-2.json`)).data.surface
  );
  expect(bun.length).toBe(deno.length);
  // Their Math.exp and Math.cos differ by some units in the last place; r loses at most 4 digits near ϕ = 0.
  for (const [i, { ratio }] of bun.entries()) expect(Math.abs(ratio / deno[i].ratio - 1)).toBeLessThan(1e-11);
});

test("figure 3 from a saved report of bench, printed as JSON: nothing is written that was not asked for", async () => {
  const { code, stdout } = await inside(["figure", "3", path("bench.json"), "--json"]);
  const report = JSON.parse(stdout);
  expect(code).toBe(0);
  expect(report.data.slopes.map(({ slope }: { slope: number }) => Math.round(slope))).toEqual([1, 2]);
  expect(report.findings).toContain(
    "FAVOR+ positive, r = 256: faster than exact attention from L ≈ 1,000 (extrapolated)",
  );
  expect(existsSync(join(ROOT, "figure-3.svg"))).toBe(false);
});

test("figure 3 measured: features at every length, exact while it is affordable", async () => {
  const args = [
    "figure",
    "3",
    "--backend",
    "wasm",
    "-L",
    "64,128,256",
    "-m",
    "16",
    "--head-dim",
    "8",
    "--budget",
    "2",
    "-o",
    path("time.svg"),
    "--export-data",
    path("time.json"),
  ];
  const { code, stderr } = await inside(args);
  expect([code, stderr]).toEqual([0, ""]);
  const { data, settings } = JSON.parse(text("time.json"));
  expect(data.time.filter(({ name }: { name: string }) => name.startsWith("FAVOR+")).map(({ L }: { L: number }) => L))
    .toEqual([64, 128, 256]);
  expect([settings.heads, settings.headDim]).toEqual([1, 8]);
  expect(text("time.svg")).toContain("identity (returns V)");
});

test("figure 4 says how many draws it took, and theorem as well", async () => {
  const { stdout } = await inside([
    "figure",
    "4",
    "--trials",
    "2",
    "-L",
    "256",
    "-m",
    "8,16",
    "--backend",
    "wasm",
    "-o",
    path("four.svg"),
  ]);
  expect(stdout).toContain("trials 2, seed 0");
  expect(text("four.svg")).toContain("median of 2 draws of data and projection (seeds 0 to 1)");
  await inside(["figure", "theorem", "--trials", "50", "-o", path("theorem.svg")]);
  expect(text("theorem.svg")).toContain("mean of 50 draws (seed 0)");
});

test("heads of a file", async () => {
  const { code, stdout } = await inside([
    "figure",
    "heads",
    path("x.npy"),
    "--heads",
    "4",
    "--features",
    "positive,taylor1",
    "-m",
    "16",
    "--backend",
    "wasm",
    "-o",
    path("heads.svg"),
  ]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/positive, m = 16, orthogonal: (better|no better) than the mean of V in/);
  for (const words of ["positive 16", "taylor1", "mean of V", "setting", "head"]) {
    expect(text("heads.svg")).toContain(`>${words}<`);
  }
});

describe("what cannot be drawn is refused before anything is computed, with the way out", () => {
  test.each([
    ["a name", ["figure", "5"], 'Unknown figure "5": did you mean 2? expected one of 2, 3, 4, theorem, heads, heatmap'],
    ["a slip", ["figure", "heatmpa"], "did you mean heatmap?"],
    [
      "a suffix",
      ["figure", "2", "-o", "x.pdf"],
      "Cannot use --output x.pdf: expected a name that ends in .svg, .png, .json, .csv or .vl.json, or a folder",
    ],
    ["a pipe", ["figure", "2", "-o", "-"], "numbers go to stdout with --json"],
    ["data of another kind", ["figure", "2", "--export-data", "x.svg"], "expected a name that ends in .json or .csv"],
    ["no input", ["figure", "heads"], "Missing INPUT: figure heads shows the heads of a file"],
    ["an input too many", ["figure", "4", "x.npy"], "it is made from formulas and seeded data; leave INPUT out"],
    ["too large a picture", ["figure", "heatmap", "--size", "1000"], "expected at most 128"],
    ["lists where there is one", ["figure", "heatmap", "-m", "8,16"], "expected one of --features and one of -m"],
    ["one draw of a mean", ["figure", "theorem", "--trials", "1"], "use at least 2"],
  ])("%s", async (_, args, words) => {
    const { code, stderr, stdout } = await inside(args);
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain(words);
  });

  test("a head beyond the last, an empty file, a file that is no report of bench", async () => {
    const last = await inside(["figure", "heatmap", path("x.npy"), "--head", "3", "-o", path("no.svg")]);
    expect(last.stderr).toContain("Cannot use --head 3: the queries have 1 head, counted from 0");
    const empty = await inside(["figure", "heads", path("empty.npy"), "-o", path("no.svg")]);
    expect(empty.stderr).toContain("it has no rows");
    const other = await inside(["figure", "3", path("x.npy"), "-o", path("no.svg")]);
    expect([other.code, last.code, empty.code]).toEqual([3, 2, 2]);
    expect(existsSync(path("no.svg"))).toBe(false);
  });

  test("values that are all 0: a sentence instead of an empty chart", async () => {
    const { code, stderr } = await inside([
      "figure",
      "heads",
      path("zeros.npy"),
      "--features",
      "positive",
      "-m",
      "8",
      "--backend",
      "wasm",
      "-o",
      path("no.svg"),
    ]);
    expect(code).toBe(3);
    expect(stderr).toContain("There is nothing to draw for");
    expect(existsSync(path("no.svg"))).toBe(false);
  });
});

describe("where the drawing is not installed", () => {
  beforeAll(() => {
    mkdirSync(path("bare/node_modules/.bin"), { recursive: true });
    for (const name of ["cli.ts", "package.json", "deno.json", "src", "kernels"]) {
      cpSync(join(ROOT, name), path(`bare/${name}`), { recursive: true });
    }
    for (const name of ["commander", "yauzl", "pend", "buffer-crc32"]) {
      symlinkSync(join(ROOT, "node_modules", name), path(`bare/node_modules/${name}`));
    }
  });

  test.each(Object.entries(RUNTIMES))(
    "%s names the packages to add, before anything is measured",
    (_, [program, ...first]) => {
      const own = first.map((word) => word.replace(join(ROOT, "deno.json"), path("bare/deno.json")));
      const run = (...args: string[]) => {
        const { status, stderr } = spawnSync(program, [...own, path("bare/cli.ts"), "figure", "2", ...args], {
          cwd: path("bare"),
          encoding: "utf8",
        });
        return { status, stderr };
      };
      expect(run("-o", path("no.svg"))).toEqual({
        status: 2,
        stderr:
          "performer: Cannot draw pictures: the packages vega and vega-lite are needed and at least one is not installed; run npm install vega vega-lite\n",
      });
      // Numbers need no drawing.
      expect(run("--quiet", "--export-data", path("bare.csv")).status).toBe(0);
    },
  );
});
