/** docs/json.md against what the commands print: every key that a table names is there, and of its type. */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { COMMANDS } from "../../src/commands/mod.ts";
import { formatOf } from "../../src/commands/machine.ts";
import { mistakes, SHAPES, shapesOf } from "./json_tables.ts";
import { inside, performer, ROOT, RUNTIMES, scratch } from "./process.ts";

const { path, remove } = scratch();
afterAll(remove);

const head = (file: string) => join(ROOT, "tests/fixtures/heads/masked_layer0", file);
const QKV = ["--q", head("q.npy"), "--k", head("k.npy"), "--v", head("v.npy"), "--backend", "scalar"];
const lm = (file: string) => join(ROOT, "tests/golden/lm/plain_float16", file);
const MODEL = [lm("model.pt"), lm("tokens.npy"), "--config", lm("config.json"), "--backend", "scalar"];
const one = (file: string) => join(ROOT, "tests/golden/self_attention/self_attention", file);
const gpt = (file: string) => join(ROOT, "tests/fixtures/transformers/gpt2", file);
const pod = (file: string) => join(ROOT, "tests/golden/models/pod_performer", file);
const POD = [pod("model.pt"), "--config", pod("config.json"), "--prompt", "The ", "--backend", "scalar", "-n", "3"];
const SMALL = ["-m", "16", "--features", "hyperbolic"];
/** Commands with a report; the others are sessions, scripts and pages to read. */
const PRINTING = COMMANDS.filter(({ flags }) => flags.some(({ name }) => name === "json"));
const TIMED = ["--backend", "scalar", "--heads", "1", "--head-dim", "8"];
const BENCH = [...TIMED, "-L", "16,32", "--samples", "3"];

/** Command lines that between them reach every table. */
const LINES: readonly (readonly string[])[] = [
  ["attend", ...QKV, "-m", "16", "--check", "8", "--redraws", "2", "--health", "--features", "hyp-oprf"],
  ["attend", ...QKV, "--window", "8", "--far", "clusters:4", "--check", "8"],
  ["attend", ...QKV, "--features", "none"],
  ["attend", ...QKV, "-m", "16", "--check", "8", "--on-nan", "skip"],
  ["attend", ...QKV, "--features", "softmax", "--rows", "0:20"],
  ["explain", ...QKV, ...SMALL, "--check", "8"],
  ["explain", ...QKV, "--features", "none"],
  ["compare", ...QKV, "-m", "16", "--features", "hyperbolic,taylor1", "--check", "8", "--rows-timed", "64"],
  ["tune", ...QKV, ...SMALL, "--rows", "0:100", "--sample", "16", "--error", "30%"],
  ["tune", ...QKV, ...SMALL, "--rows", "0:100", "--sample", "16", "--error", "0.0001%"],
  ["bench", ...BENCH, "--features", "positive,softmax,taylor1", "-m", "16", "--seconds", "0.01", "--mode", "causal"],
  ["figure", "2"],
  ["attend", ...QKV, ...SMALL, "--check", "0", "--state-out", path("attended.safetensors")],
  ["state", "build", ...QKV, "-m", "16", "--features", "oprf", "-o", path("built.safetensors")],
  ["state", "info", path("built.safetensors")],
  ["inspect", head("q.npy")],
  ["inspect", join(ROOT, "examples/data/lambda_virus.fa")],
  ["inspect", lm("model.pt"), "--config", lm("config.json")],
  ["run", ...MODEL],
  ["run", ...MODEL, "--attention", "top:2", "--rows", "0,3"],
  ["generate", ...POD, "--check", "4"],
  [
    "drift",
    gpt("model.safetensors"),
    gpt("tokens.npy"),
    "--config",
    gpt("config.json"),
    "--backend",
    "scalar",
    "-m",
    "8",
  ],
  ["convert", head("q.npy"), path("q.npz")],
  ["shard", "plan", head("q.npy"), "--shards", "1", "-m", "16", "-o", path("plan.json")],
  ["shard", "map", path("plan.json"), "--id", "0", "-o", path("states"), "--backend", "scalar"],
  ["shard", "merge", path("plan.json"), path("states"), "-o", path("kv.safetensors")],
  ["shard", "apply", path("plan.json"), "--id", "0", "--state", path("kv.safetensors"), "-o", path("parts")],
  ["shard", "gather", path("plan.json"), path("parts"), "-o", path("out.npy")],
  ["shard", "status", path("plan.json"), path("parts"), path("states")],
  ["shard", "script", path("plan.json"), "--engine", "make", "-o", path("Makefile")],
  [
    "shard",
    "plan",
    one("x.npy"),
    "--weights",
    one("model.pt"),
    "--config",
    one("config.json"),
    "--shards",
    "1",
    "-o",
    path("model.json"),
  ],
  ["shard", "map", path("model.json"), "--layer", "0", "--id", "0", "--backend", "scalar"],
  ["shard", "merge", path("model.json"), "--layer", "0"],
  ["shard", "apply", path("model.json"), "--layer", "0", "--id", "0", "--backend", "scalar"],
  ["shard", "gather", path("model.json"), "-o", path("model.npy")],
  ["shard", "status", path("model.json")],
];

describe("what --json prints is what docs/json.md says", () => {
  test.each(LINES.map((line) => [line.slice(0, 1).concat(line.slice(-2)).join(" "), line] as const))(
    "%s",
    async (_, [command, ...args]) => {
      const { code, stdout, stderr } = await inside([command, ...args, "--json"]);
      expect([stderr, code]).toEqual(["", command === "tune" && stdout.includes('"chosen": null') ? 1 : 0]);
      expect(mistakes(JSON.parse(stdout), command)).toEqual([]);
    },
    60_000,
  );

  test("a batch, and its lines", async () => {
    writeFileSync(path("list.txt"), `${head("q.npy")}\nmissing.npy\n`);
    const args = ["attend", "--batch", path("list.txt"), ...SMALL, "--check", "8", "--backend", "scalar"];
    const { code, stdout } = await inside([...args, "--json"]);
    expect(code).toBe(3);
    expect(mistakes(JSON.parse(stdout), "attend --batch")).toEqual([]);
    const lines = (await inside([...args, "--jsonl"])).stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
    expect(lines.map(({ type }) => type)).toEqual(["input", "input", "summary"]);
    expect(lines.map(({ schema }) => schema)).toEqual(new Array(3).fill(SHAPES.get("attend --batch")!.schema));
    expect(lines.slice(0, 2).flatMap((line) => mistakes(line, "BatchInput"))).toEqual([]);
    expect(mistakes(lines[2], "attend --batch")).toEqual([]);
  });

  test("backends and doctor", async () => {
    const report = JSON.parse((await inside(["doctor", "--json"])).stdout);
    expect(mistakes(report, "doctor")).toEqual([]);
    const lines = (await inside(["backends", "--jsonl"])).stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
    expect(lines.map(({ type }) => type)).toEqual([...new Array(5).fill("backend"), "summary"]);
    expect(mistakes(lines.at(-1), "backends")).toEqual([]);
    expect(mistakes(lines[0], "TestedBackend")).toEqual([]);
  }, 120_000);

  test("every command has a table with its schema, and both flags", () => {
    for (const { name, flags } of PRINTING) {
      expect(SHAPES.get(name)?.schema).toMatch(/^performer-[a-z]+\/\d+$/);
      expect(flags.some((flag) => flag.name === "jsonl")).toBe(true);
      expect(flags.find((flag) => flag.name === "format")?.choices).toContain("jsonl");
    }
  });
});

describe("--jsonl", () => {
  const cases: [string[], string, number][] = [
    [
      ["compare", ...QKV, "-m", "8,16", "--features", "hyperbolic,taylor1", "--check", "4", "--rows-timed", "64"],
      "CompareRow",
      3,
    ],
    [["tune", ...QKV, ...SMALL, "--rows", "0:100", "--sample", "16", "--error", "900%"], "Tried", 2],
    [["bench", ...BENCH, ...SMALL, "--seconds", "0.01"], "BenchResult", 2],
    [["inspect", head("q.npy")], "InspectTensor", 1],
    [["convert", head("q.npy"), path("lines.npz")], "ConvertedTensor", 1],
    [["state", "build", ...QKV, ...SMALL, "--block-rows", "64", "-o", path("blocks")], "StateLine", 2],
    [["generate", ...POD, "--check", "0"], "", 3],
  ];
  test.each(cases)("%p: lines of %s, then the summary", async (args, table, least) => {
    for (const flags of [["--jsonl"], ["--format", "jsonl"]]) { // one after the other: they write the same output
      const out = (await inside([...args, ...flags])).stdout;
      const lines = out.trimEnd().split("\n").map((line) => JSON.parse(line));
      expect(lines.length).toBeGreaterThan(least);
      for (const line of lines) expect(line.schema).toBe(SHAPES.get(args[0])!.schema);
      const summary = lines.pop();
      expect(summary.type).toBe("summary");
      expect(mistakes(summary, args[0])).toEqual([]);
      for (const line of lines) {
        expect(["row", "tensor", "token", "state"]).toContain(line.type);
        expect(table === "" ? [] : mistakes(line, table)).toEqual([]);
      }
    }
  }, 60_000);

  test.each(Object.keys(RUNTIMES))("lines come while the work goes on (%s)", async (runtime) => {
    const seen: number[] = [];
    const args = ["bench", ...TIMED, ...SMALL, "-L", "16,32,64", "--seconds", "0.4", "--samples", "100000", "--jsonl"];
    const { code } = await performer(args, {
      runtime,
      during: (child) => child.stdout!.on("data", () => seen.push(performance.now())),
    });
    expect(code).toBe(0);
    // Three points of at least 0.4 s each: the first line is there long before the last.
    expect(seen.at(-1)! - seen[0]).toBeGreaterThan(600);
  }, 60_000);
});

describe("one form at a time", () => {
  const form = (flags: Record<string, unknown>, given: string[] = []) =>
    formatOf({ flags, sources: Object.fromEntries(given.map((name) => [name, "flag"])) });

  test("which one is asked for", () => {
    expect(form({})).toBe("text");
    expect(form({ json: true, format: "text" })).toBe("json");
    expect(form({ jsonl: true, format: "csv" })).toBe("jsonl"); // the format is configured
    expect(form({ format: "jsonl" }, ["format"])).toBe("jsonl");
    expect(form({ json: true, format: "json" }, ["format"])).toBe("json");
  });

  test.each([
    [{ json: true, jsonl: true }, [], "Cannot use --json with --jsonl"],
    [{ json: true, format: "csv" }, ["format"], "Cannot use --json with --format csv"],
    [{ jsonl: true, format: "json" }, ["format"], "Cannot use --jsonl with --format json"],
    [{ json: true, format: "text" }, ["format"], "Cannot use --json with --format text"],
  ] as [Record<string, unknown>, string[], string][])("%p is refused", (flags, given, words) => {
    expect(() => form(flags, given)).toThrow(words);
  });

  test("before anything is read", async () => {
    for (const { name, arguments: wanted } of PRINTING) {
      const words = wanted.map(({ choices }, i) => choices?.[0] ?? `missing_${i}.npy`);
      const { code, stderr } = await inside([name, ...words, "--json", "--jsonl"]);
      expect([name, code, stderr]).toEqual([name, 2, expect.stringContaining("Cannot use --json with --jsonl")]);
    }
  });

  test("JSON goes to stderr where the tensor has stdout", async () => {
    const { stderr, out } = await performer(["attend", ...QKV, "-m", "16", "--check", "0", "-o", "-", "--jsonl"]);
    expect(mistakes(JSON.parse(stderr), "attend")).toEqual([]);
    expect([out[0], out[1]]).toEqual([0x93, 0x4e]);
  });
});

test("tables find what is missing or of another type, and take what is new", () => {
  const tables = shapesOf(
    "## x\n\n`performer-x/1`\n\n| key | type | meaning |\n|---|---|---|\n| a.b | number or null | |\n| c[].d | string | |\n| e? | boolean | |\n",
  );
  const wrong = (value: unknown) => mistakes(value, "x", tables);
  const right = { schema: "performer-x/1", a: { b: 1 }, c: [{ d: "" }] };
  expect(wrong(right)).toEqual([]);
  expect(wrong({ ...right, a: { b: null, new: 1 }, c: [], e: true })).toEqual([]);
  expect(wrong({ ...right, a: {} })).toEqual(["x.a.b is missing"]);
  expect(wrong({ ...right, a: { b: "1" } })).toEqual(["x.a.b is string, expected number or null"]);
  expect(wrong({ ...right, c: [{ d: "" }, { d: 2 }] })).toEqual(["x.c[1].d is number, expected string"]);
  expect(wrong({ ...right, e: "yes" })).toEqual(["x.e is string, expected boolean"]);
  expect(wrong({ ...right, schema: "performer-x/2" })[0]).toContain("performer-x/2");
});
