/** `performer tune` as a process: what it promises is kept by the command line it prints. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { RandomStream } from "../../src/random.ts";
import { sampleRows } from "../../src/sampled_rows.ts";
import { relativeL2 } from "../../src/statistics.ts";
import { npyBytes, performer, readNpyBytes, ROOT, RUNTIMES, scratch } from "./process.ts";

const { path, remove } = scratch();
const L = 500, D = 16, HEADS = 2;

beforeAll(() => {
  const random = new RandomStream(4);
  const cols = HEADS * D;
  const data = new Float32Array(L * cols);
  for (let at = 0; at < data.length; at++) {
    data[at] = (at < cols ? 0 : 0.95 * data[at - cols]) + Math.sqrt(1 - 0.95 ** 2) * 1.7 * random.normal();
  }
  writeFileSync(path("walk.npy"), npyBytes([L, cols], (i) => data[i]));
  writeFileSync(path("it's.npy"), npyBytes([L, cols], (i) => data[i]));
  writeFileSync(path("mask.npy"), npyBytes([L], (j) => [1, 0, 0.5, 2][j % 4]));
  writeFileSync(path("none.npy"), npyBytes([0, cols], () => 0));
  writeFileSync(path("zeros.npy"), npyBytes([L], () => 0));
  const long = 40_000;
  writeFileSync(path("long.npy"), npyBytes([long, 4], (i) => data[i % data.length]));
});
afterAll(remove);

const WASM = ["--backend", "wasm"];
/** Every row is judged: nothing is left to the luck of a sample. */
const ALL = ["--sample", "1000"];
const SMALL = ["-m", "32", "--features", "hyperbolic"];

/** The words of a command line, quoted as a shell reads them. */
function words(line: string): string[] {
  return [...line.matchAll(/(?:'[^']*'|\\.|[^\s'\\])+/g)].map(([word]) => word.replace(/'([^']*)'|\\(.)/g, "$1$2"));
}

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("a reachable error is reached, by the command line that is printed", async () => {
    const args = ["tune", path("walk.npy"), "--heads", "2", ...WASM, ...ALL, ...SMALL, "--error", "10%", "--json"];
    const { code, stdout, stderr } = await performer(args, { runtime });
    expect([code, stderr]).toEqual([0, ""]);
    const report = JSON.parse(stdout);
    expect(Object.keys(report)).toEqual([
      ...["schema", "command", "backend", "input", "causal", "decay", "target", "prefer", "tried", "chosen", "heldOut"],
      ...["exact", "uniformBaseline", "leftOut", "use", "seconds"],
    ]);
    expect(report).toMatchObject({
      schema: "performer-tune/1",
      command: "tune",
      backend: { name: "wasm" },
      input: { path: path("walk.npy"), rows: L, keyRows: L, heads: HEADS, headDim: D },
      causal: false,
      target: 0.1,
      prefer: "time",
    });
    expect(Object.keys(report.chosen)).toEqual([
      ...["attention", "error", "seconds", "flopsPerRow", "stateBytes", "rows", "pareto", "meets"],
    ]);
    expect(report.tried).toContainEqual(report.chosen);
    expect(report.heldOut.relativeL2.value).toBeLessThanOrEqual(0.1);
    const [program, ...rest] = words(report.use);
    expect(program).toBe("performer");
    const used = await performer([...rest, "--check", "1000", "--json"], { runtime });
    expect([used.code, used.stderr]).toEqual([0, ""]);
    const { error, attention } = JSON.parse(used.stdout);
    // λ is printed with three digits: the error moves by less than a thousandth of Ô − v̄, which is about 1.
    expect(Math.abs(error.relativeL2.value - report.heldOut.relativeL2.value)).toBeLessThan(1e-3);
    expect(attention.nearFar).toMatchObject(report.chosen.attention.nearFar);
  });
});

test("the printed command line repeats masks, rows, causality and odd names", async () => {
  const args = ["tune", path("it's.npy"), "--mask", path("mask.npy"), "--rows", "10:480", "--causal", "--scale", "0.2"];
  const { code, stdout } = await performer([
    ...args,
    ...WASM,
    ...ALL,
    ...SMALL,
    "--error",
    "0.3",
    "--memory",
    "--json",
  ]);
  expect(code).toBe(0);
  const { use, chosen, tried, heldOut, prefer } = JSON.parse(stdout);
  expect(prefer).toBe("memory");
  const states = tried.filter(({ meets }: { meets: boolean }) => meets).map(({ stateBytes }: { stateBytes: number }) =>
    stateBytes
  );
  expect(chosen.stateBytes).toBe(Math.min(...states));
  const line = words(use);
  expect(line.slice(0, 3)).toEqual(["performer", "attend", path("it's.npy")]);
  for (const part of [["--mask", path("mask.npy")], ["--rows", "10:480"], ["--scale", "0.2"]]) {
    expect(line[line.indexOf(part[0]) + 1]).toBe(part[1]);
  }
  const used = JSON.parse((await performer([...line.slice(1), "--check", "1000", "--json"])).stdout);
  expect(used.attention).toMatchObject({ causal: true, masked: true, scale: 0.2 });
  expect(used.input).toMatchObject({ rows: 470, firstRow: 10 });
  expect(Math.abs(used.error.relativeL2.value - heldOut.relativeL2.value)).toBeLessThan(1e-3);
});

test("an error that no setting reaches: exit 1, and the plain word", async () => {
  const args = ["tune", path("walk.npy"), ...WASM, ...ALL, ...SMALL, "--error", "0.0001%"];
  const { code, stdout } = await performer(args);
  expect(code).toBe(1);
  expect(stdout).toMatch(
    /verdict {6}none of the \d+ settings tried reaches 1\.0e-4 % on this data; the most accurate was \S/,
  );
  expect(stdout).toContain("use          --features softmax: exact attention takes about ");
  const json = await performer([...args, "--json"]);
  expect(json.code).toBe(1);
  expect(JSON.parse(json.stdout)).toMatchObject({ chosen: null, heldOut: null, use: null });
});

test("trained heads: 10 % is within reach of near keys, not of random features, which are no better than the mean of V", async () => {
  const folder = join(ROOT, "tests/fixtures/heads/masked_layer0");
  const files = ["q", "k", "v"].flatMap((name) => [`--${name}`, join(folder, `${name}.npy`)]);
  const { code, stdout } = await performer(["tune", ...files, ...WASM, "-m", "256", "--error", "10%", "--json"]);
  expect(code).toBe(0);
  const { chosen, heldOut, tried } = JSON.parse(stdout);
  expect(chosen.attention.nearFar).not.toBeNull();
  expect(heldOut.relativeL2.value).toBeLessThanOrEqual(0.1);
  const random = tried.filter((one: typeof chosen) => !one.attention.nearFar);
  expect(random.length).toBeGreaterThan(0);
  for (const one of random) expect(one.error.skill).toBeLessThan(0.5);
});

test("what it recommends, run as printed, holds on rows that it did not look at", async () => {
  const [rows, heads, width, sample, target] = [360, 2, 64, 72, 0.15];
  for (const [name, mode] of [["masked_layer0", []], ["causal_layer0", ["--causal"]]] as const) {
    const folder = join(ROOT, "tests/fixtures/heads", name);
    const tensors = ["q", "k", "v"].flatMap((name) => [`--${name}`, join(folder, `${name}.npy`)]);
    const files = [...tensors, "--rows", `:${rows}`];
    const wish = ["--error", String(target), "--memory", "--sample", String(sample), "--json"];
    const { code, stdout } = await performer(["tune", ...files, ...mode, ...WASM, ...SMALL, ...wish]);
    expect(code).toBe(0);
    const outputs = async (args: readonly string[]) => {
      const file = [...args, "--check", "0", "-o", path("out.npy"), "--output-dtype", "f32", "--quiet"];
      expect((await performer(file)).code).toBe(0);
      return readNpyBytes(new Uint8Array(readFileSync(path("out.npy")))).data;
    };
    const approx = await outputs(words(JSON.parse(stdout).use).slice(1));
    const exact = await outputs(["attend", ...files, ...mode, ...WASM, "--features", "softmax"]);
    // All rows that either of its two samples may have taken (seeds 0 + 1 and 0 + 2, the second of twice as many).
    const seen = new Set([1, 2].flatMap((seed) => [...sampleRows(rows, seed * sample, mode.length > 0, seed)]));
    const others = Array.from({ length: rows }, (_, row) => row).filter((row) => !seen.has(row));
    expect(others.length).toBeGreaterThan(rows - 3 * sample - 1);
    const sum = (row: number, of: (at: number) => number) => {
      let total = 0;
      for (let h = 0; h < heads; h++) {
        for (let c = 0; c < width; c++) total += of((h * rows + row) * width + c) ** 2;
      }
      return total;
    };
    const errors = Float64Array.from(others, (row) => sum(row, (at) => approx[at] - exact[at]));
    const norms = Float64Array.from(others, (row) => sum(row, (at) => exact[at]));
    // What is taken has the 95 % interval of its fresh rows within the target; other rows may exceed it by their own sampling noise.
    const { value, low } = relativeL2(errors, norms, Infinity);
    expect(low).toBeLessThanOrEqual(target);
    expect(value).toBeGreaterThan(0);
  }
});

test("csv and markdown hold the same settings", async () => {
  const args = ["tune", path("walk.npy"), ...WASM, ...ALL, ...SMALL, "--error", "10%", "--format"];
  const csv = (await performer([...args, "csv"])).stdout.trimEnd().split("\n");
  const cells = (line: string) =>
    [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)].map((match) => match[1]).slice(0, 12);
  expect(cells(csv[0])).toEqual([
    ...["setting", "relativeL2", "high", "uniformBaseline", "skill", "seconds", "flopsPerRow", "stateBytes", "rows"],
    ...["meets", "pareto", "chosen"],
  ]);
  for (const line of csv.slice(1)) {
    const row = cells(line);
    expect(row.length).toBe(12);
    for (const cell of row.slice(1)) expect(Number.isFinite(Number(cell))).toBeTrue();
  }
  expect(csv.slice(1).filter((line) => cells(line)[11] === "1").length).toBe(1);
  const md = (await performer([...args, "md"])).stdout;
  const table = md.split("\n").filter((line) => line.startsWith("|"));
  expect(table.length).toBe(csv.length - 1 + 4); // header, rule, the mean of V and exact attention
  for (const line of table) expect(line.split("|").length).toBe(table[0].split("|").length);
  expect(md).toContain("* verdict: ");
});

test("wrong wishes and inputs are refused", async () => {
  const wrong: [args: string[], code: number, text: string][] = [
    [[path("walk.npy"), "--time", "--memory"], 2, "give one of them"],
    [[path("walk.npy"), "--error", "0"], 2, "only exact attention has no error"],
    [[path("walk.npy"), "--error", "-1"], 2, "such as 0.05 or 5%"],
    [[path("walk.npy"), "--features", "hyperbolik"], 2, "Cannot use --features hyperbolik: did you mean hyperbolic?"],
    [[path("walk.npy"), "--sample", "3"], 2, "at least 16"],
    [[path("none.npy")], 2, "it has no rows"],
    [[path("walk.npy"), "--mask", path("zeros.npy")], 2, "check the values and the mask"],
    [[path("walk.npy"), "--backend", "gpujs"], 4, "webgpu, wasm, scalar have"],
    [[], 2, "Missing INPUT"],
  ];
  for (const [args, code, text] of wrong) {
    const outcome = await performer(["tune", ...WASM, ...SMALL, ...args]);
    expect([args, outcome.code]).toEqual([args, code]);
    expect(outcome.stderr).toContain(text);
  }
});

test("Ctrl-C stops it, and the search for centroids as well", async () => {
  for (const args of [["tune", path("long.npy")], ["attend", path("long.npy"), "--far", "clusters:20000"]]) {
    const { code, stdout, stderr } = await performer([...args, ...WASM], {
      during: (child) => void setTimeout(() => child.kill("SIGINT"), 1000),
    });
    expect([code, stdout]).toEqual([130, ""]);
    expect(stderr).toContain("stopping");
  }
});
