/** `compare` as a process. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { npyBytes, performer, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
const SCALAR = ["--backend", "scalar"];
const GRID = ["--features", "hyperbolic,positive", "-m", "16,64"];

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([300, 32], (i) => wave(i)));
  writeFileSync(path("large.npy"), npyBytes([300, 32], (i) => 6 * wave(i)));
  writeFileSync(path("mask.npy"), npyBytes([300], (i) => i % 3 === 0 ? 0 : 1));
  writeFileSync(path("empty.npy"), npyBytes([0, 32], () => 0));
  writeFileSync(path("queries.npy"), npyBytes([100, 32], (i) => wave(i + 7)));
  writeFileSync(path("keys.npy"), npyBytes([300, 16], (i) => wave(i + 9)));
});
afterAll(remove);

const json = async (args: readonly string[], runtime?: string) => {
  const { code, stdout, stderr } = await performer(["compare", ...args, "--json"], { runtime });
  expect([code, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout);
};

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("the table for people: references in their places, and a verdict in words", async () => {
    const { code, stdout, stderr } = await performer(["compare", path("x.npy"), "--heads", "2", ...GRID, ...SCALAR], {
      runtime,
    });
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toStartWith(`performer compare ${path("x.npy")} · 300 rows × 2 heads × 16 · bidirectional\n`);
    const lines = stdout.split("\n");
    const at = (words: string) => lines.findIndex((line) => line.includes(words));
    expect(lines[at("softmax (exact)") - 1]).toMatch(
      /features +m +projection +relative L2 +95 % interval +skill +tokens\/s +time/,
    );
    expect(at("mean of V (uniform)")).toBeGreaterThan(at("softmax (exact)"));
    expect(stdout.match(/^ +\*? +(hyperbolic|positive) +(16|64) +orthogonal/gm)).toHaveLength(4);
    expect(stdout).toMatch(/^ +\* +(hyperbolic|positive)/m);
    expect(stdout).toContain("over 3 draws");
    expect(stdout).toMatch(
      /best +(hyperbolic|positive), m = 64, orthogonal: relative L2 [\d.]+, where the mean of V has/,
    );
    expect(stdout).toMatch(/captures \d+ % of what exact attention does beyond averaging V/);
    expect(stdout).toMatch(/(all of these|\d of 4) are better than the mean of V/);
  });

  test("--json: the keys, and the same numbers as attend for the same setting and seed", async () => {
    const setting = [path("x.npy"), "--heads", "2", "--seed", "5", "--check", "80", ...SCALAR];
    const report = await json([...setting, ...GRID, "--redraws", "2"], runtime);
    expect(Object.keys(report)).toEqual([
      ...["schema", "command", "backends", "refused", "input", "attention", "sampling", "phi", "uniformBaseline"],
      ...["exact", "rows", "best", "seconds", "peakBytes", "warnings"],
    ]);
    expect(report).toMatchObject({
      schema: "performer-compare/1",
      command: "compare",
      backends: [{ name: "scalar" }],
      refused: [],
      input: {
        path: path("x.npy"),
        rows: 300,
        keyRows: 300,
        heads: 2,
        kvHeads: 2,
        headDim: 16,
        valueDim: 16,
        dtype: "f32",
      },
      attention: { causal: false, scale: 0.25, masked: false, norms: "chi", seed: 5 },
      sampling: { rowsChecked: 80, draws: 2, rowsTimed: 300 },
      // 2 (d + d_v) per pair and head; 300 keys and values of 2 heads × 32 numbers.
      exact: { backend: "scalar", flopsPerToken: 300 * 2 * 2 * 32, rowsTimed: 300, stateBytes: 300 * 2 * 32 * 4 },
    });
    expect(report.rows).toHaveLength(4);
    for (const row of report.rows) {
      expect(Object.keys(row).toSorted()).toEqual([
        ...["backend", "draws", "features", "flags", "flopsPerToken", "intervalOver", "nearFar", "nonPositive"],
        ...[
          "numFeatures",
          "pareto",
          "projection",
          "relativeL2",
          "seconds",
          "skill",
          "stateBytes",
          "tokensPerSecond",
          "uniformBaseline",
        ],
      ]);
      expect(row.stateBytes).toBe(2 * row.numFeatures * 18 * 8); // c, z and 16 columns of S, in float64
      expect(row.relativeL2.low).toBeLessThan(row.relativeL2.high);
    }
    const row = report.rows.find((one: { features: string; numFeatures: number }) =>
      one.features === "positive" && one.numFeatures === 64
    );
    const { stdout } = await performer(
      ["attend", ...setting, "--features", "positive", "-m", "64", "--redraws", "1", "--json"],
      { runtime },
    );
    const { error, flops } = JSON.parse(stdout);
    // Float64, but for the order of sums.
    [error.relativeL2.value, ...error.redraws.samples].forEach((wanted: number, draw: number) => {
      expect(Math.abs(row.draws.samples[draw] / wanted - 1)).toBeLessThan(1e-12);
    });
    expect(row.uniformBaseline).toBe(error.uniformBaseline);
    expect(report.phi).toBe(error.phi);
    expect(row.flopsPerToken).toBe(flops / 300);
    expect(report.best).toMatchObject({ numFeatures: 64, betterThanUniform: true });
    expect(report.best.next.draws).toBe(2);
  });
});

test("wasm finds the same errors as scalar, and both stand in one table", async () => {
  const report = await json([path("x.npy"), "--heads", "2", ...GRID, "--backend", "wasm,scalar", "--threads", "2"]);
  expect(report.backends.map(({ name }: { name: string }) => name)).toEqual(["wasm", "scalar"]);
  expect(report.rows).toHaveLength(8);
  const errors = Map.groupBy(
    report.rows as { features: string; numFeatures: number; relativeL2: { value: number } }[],
    ({ features, numFeatures }) => `${features} ${numFeatures}`,
  );
  // Outputs in float32 are off by some 1e-6 of V (tests/tolerance.ts); errors here are above 1e-2 of it.
  for (const [a, b] of errors.values()) {
    expect(Math.abs(a.relativeL2.value / b.relativeL2.value - 1)).toBeLessThan(1e-3);
  }
  const { stdout } = await performer(["compare", path("x.npy"), ...GRID, "--backend", "wasm,scalar", "--format", "md"]);
  expect(stdout).toMatch(/^\| +\| features \| m \| projection \| backend \| relative L2 \|/m);
  expect(stdout.match(/^\|[ *]+\| (hyperbolic|positive) \|/gm)).toHaveLength(8);
});

test("causal, masked, shared key heads, other keys than queries, a slice, one draw", async () => {
  const causal = await json([
    path("x.npy"),
    ...GRID,
    "--causal",
    "--mask",
    path("mask.npy"),
    "--redraws",
    "1",
    ...SCALAR,
  ]);
  expect(causal.attention).toMatchObject({ causal: true, masked: true });
  expect(
    causal.rows.every((row: { intervalOver: string; draws: { count: number } }) =>
      row.intervalOver === "rows" && row.draws.count === 1
    ),
  ).toBe(true);
  const cross = ["--q", path("queries.npy"), "--k", path("keys.npy"), "--v", path("keys.npy")];
  const shared = await json([...cross, "--heads", "4", "--kv-heads", "2", ...GRID, ...SCALAR]);
  expect(shared.input).toMatchObject({ rows: 100, keyRows: 300, heads: 4, kvHeads: 2, headDim: 8 });
  expect(shared.sampling).toMatchObject({ rowsChecked: 100, rowsTimed: 100 });
  const slice = await json([path("x.npy"), "--rows", "100:150", ...GRID, ...SCALAR]);
  expect(slice.input).toMatchObject({ rows: 50, firstRow: 100 });
});

test("near keys and far fields beside feature maps; the flags of the best one are what attend takes", async () => {
  const near = ["--features", "positive,taylor1", "-m", "16", "--window", "16", "--heavy", "8", "--far", "clusters:8"];
  const report = await json([path("x.npy"), "--redraws", "2", ...near, ...SCALAR]);
  const names = report.rows.map(({ features }: { features: string }) => features);
  expect(names.toSorted()).toEqual(["positive", "taylor1", "window 16, heavy 8, clusters 8"]);
  expect(report.best.next.draws).toBe(1);
  const { stdout } = await performer(["attend", path("x.npy"), ...report.best.flags, "--json", ...SCALAR]);
  expect(JSON.parse(stdout).error.relativeL2.value).toBe(report.best.relativeL2);
});

test("csv: one line per setting, exact attention and the mean of V", async () => {
  const { code, stdout } = await performer(["compare", path("x.npy"), ...GRID, ...SCALAR, "--format", "csv"]);
  expect(code).toBe(0);
  const [header, ...lines] = stdout.trimEnd().split("\n").map((line) => line.split(","));
  expect(header.slice(0, 5)).toEqual(["features", "numFeatures", "projection", "backend", "relativeL2"]);
  expect(lines).toHaveLength(6);
  for (const line of lines) expect(line).toHaveLength(header.length);
  const of = (name: string) => lines.map((line) => line[header.indexOf(name)]);
  expect(of("features").toSorted()).toEqual(["hyperbolic", "hyperbolic", "positive", "positive", "softmax", "uniform"]);
  expect(of("relativeL2").every((value) => value !== "" && Number.isFinite(Number(value)))).toBe(true);
  expect(new Set(of("uniformBaseline")).size).toBe(1);
  expect(of("seconds").filter((value) => value === "")).toHaveLength(1); // the mean of V
});

test("large queries and keys: none is better than the mean of V, and the report says so", async () => {
  const { stdout } = await performer(["compare", path("large.npy"), ...GRID, ...SCALAR]);
  expect(stdout).toContain("none of these is better than the mean of V, which ignores attention");
  expect(stdout).toContain("queries and keys are large");
  const uniform = stdout.indexOf("mean of V (uniform)");
  expect(stdout.slice(0, uniform)).not.toMatch(/^ +\*? +(hyperbolic|positive) /m);
  expect(stdout).not.toMatch(/^ +\* /m);
});

test("a range of lengths; softmax in the list adds nothing; quiet prints nothing", async () => {
  const report = await json([
    path("x.npy"),
    "--features",
    "softmax,positive",
    "-m",
    "16..64",
    "--redraws",
    "1",
    ...SCALAR,
  ]);
  expect(
    report.rows.map(({ numFeatures }: { numFeatures: number }) => numFeatures).toSorted((a: number, b: number) =>
      a - b
    ),
  )
    .toEqual([16, 32, 64]);
  const { stdout, stderr } = await performer(["compare", path("x.npy"), "-q", "-m", "16", "--redraws", "1", ...SCALAR]);
  expect([stdout, stderr]).toEqual(["", ""]);
});

describe("what cannot be compared is refused", () => {
  test.each<[string, string[], number, string]>([
    ["an unknown map", [path("x.npy"), "--features", "hyperbolc"], 2, "did you mean hyperbolic"],
    ["an unknown projection", [path("x.npy"), "--projection", "orthogonal,haar"], 2, "expected a list of orthogonal"],
    ["an odd number of paired features", [path("x.npy"), "-m", "15"], 2, "give an even number such as 16"],
    ["a range that falls", [path("x.npy"), "-m", "64..16"], 2, "the smaller number first"],
    ["exact attention alone", [path("x.npy"), "--features", "softmax"], 2, "name a map such as hyperbolic"],
    ["near keys without a far field for them", [path("x.npy"), "--top", "3"], 2, "give --far clusters:C"],
    ["no rows", [path("empty.npy")], 2, "it has no rows"],
    ["no rows to check", [path("x.npy"), "--check", "0"], 2, "at least 1"],
    ["no input", [], 2, "Missing INPUT"],
    ["a file that is not there", [path("absent.npy")], 3, "absent.npy"],
    ["an unknown backend", [path("x.npy"), "--backend", "scaler"], 2, "did you mean scalar"],
    ["a backend that is not here", [path("x.npy"), "--backend", "gpujs:headlessgl"], 4, "gl"],
  ])("%s", async (_, args, code, words) => {
    const outcome = await performer(["compare", ...args]);
    expect([outcome.code, outcome.stdout, outcome.stderr]).toEqual([code, "", expect.stringContaining(words)]);
    expect(outcome.stderr).not.toContain("bug in performer");
  });
});
