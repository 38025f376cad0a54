import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { safetensors } from "../formats/fuzz/mutate.ts";
import { npyBytes, performer, ROOT, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
const SCALAR = ["--backend", "scalar"];

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([20, 8], wave));
  writeFileSync(path("nan.npy"), npyBytes([20, 8], (i) => i === 93 ? NaN : wave(i)));
  writeFileSync(path("inf.npy"), npyBytes([20, 8], (i) => i === 159 ? Infinity : wave(i)));
  writeFileSync(path("short.npy"), npyBytes([20, 8], wave).slice(0, 500));
  writeFileSync(path("junk.npy"), "not a tensor at all");
  writeFileSync(path("empty.npy"), "");
  writeFileSync(path("y.npy"), npyBytes([20, 6], wave));
  writeFileSync(path("w.npy"), npyBytes([4, 7], wave));
  writeFileSync(path("mask.npy"), npyBytes([19], () => 1));
  writeFileSync(path("negative.npy"), npyBytes([20], (i) => i === 3 ? -1 : 1));
  mkdirSync(path("folder"));
});
afterAll(remove);

/** Arguments, exit code and words of the message, which must name what was wrong and the way out. */
const cases: [string[], number, string[]][] = [
  [["attend", "missing.npy"], 3, ["missing.npy", "no such file"]],
  [["attend", "folder"], 3, ["folder", "directory"]],
  [["attend", "short.npy"], 3, ["truncated", "640", "372"]],
  [["attend", "junk.npy"], 3, ["expected .npy"]],
  [["attend", "empty.npy"], 3, ["empty"]],
  [["attend", "nan.npy"], 3, ["row 11", "NaN"]],
  [["attend", "nan.npy", "--causal"], 3, ["row 11"]],
  [["attend", "inf.npy", "--features", "softmax"], 3, ["row 19", "Infinity"]],
  [["attend", "nan.npy", "--rows", "5:"], 3, ["row 11"]],
  [["attend", "x.npy", "--heads", "3"], 2, ["8 columns", "3 heads"]],
  [["attend", "x.npy", "--rows", "0:21"], 2, ["20 rows"]],
  [["attend", "x.npy", "-m", "7"], 2, ["even", "8"]],
  [["attend", "x.npy", "-m", "6x"], 2, ["--num-features 6x", "whole number"]],
  [["attend", "x.npy", "--features", "hyperbolik"], 2, ["did you mean hyperbolic"]],
  [["attend", "x.npy", "--backend", "webgp"], 2, ["did you mean webgpu"]],
  [["attend", "x.npy", "--backend", "scalar:fast"], 2, ["scalar:fast"]],
  [["attend", "x.npy", "--scale", "-1"], 2, ["above 0"]],
  [["attend", "x.npy", "--bakend", "scalar"], 2, ["--backend"]],
  [["attend", "x.npy", "--projection-matrix", "w.npy"], 2, ["7 columns", "8"]],
  [["attend", "x.npy", "--mask", "mask.npy"], 2, ["20 key rows"]],
  [["attend", "x.npy", "--mask", "negative.npy"], 3, ["row 3", "-1"]],
  [["attend", "x.npy", "-o", "out.txt"], 2, [".npy", ".safetensors"]],
  [["attend", "x.npy", "-o", "folder"], 2, ["folder"]],
  [["attend", "x.npy", "-o", "no/where/out.npy"], 2, ["no such file"]],
  [["attend", "x.npy", "--redraws", "3", "--features", "softmax"], 2, ["--redraws"]],
  [["attend", "x.npy", "--encode", "kmer:99"], 2, ["kmer:6"]],
  [["attend", "--q", "x.npy"], 2, ["--q, --k and --v"]],
  [["attend", "--q", "x.npy", "--k", "y.npy", "--v", "y.npy"], 2, ["6", "8"]],
  [["attend", "--q", "x.npy", "--k", "mask.npy", "--v", "mask.npy", "--causal"], 2, []],
  [["attend"], 2, ["Missing INPUT"]],
  [["atend", "x.npy"], 2, ["attend"]],
  [["inspect"], 2, ["FILE"]],
  [["inspect", "junk.npy"], 3, ["expected .npy"]],
];

test.each(cases)("%p exits %p", async (args, exit, words) => {
  const backend = args[0] === "attend" && !args.includes("--backend") && !args.includes("--bakend") ? SCALAR : [];
  const { code, stdout, stderr } = await performer([...args, ...backend], { cwd: path(".") });
  expect(stderr).not.toContain("bug in performer");
  expect(stderr).not.toContain("    at "); // no stack traces for mistakes of the user
  for (const part of words) expect(stderr).toContain(part);
  expect(stderr.length).toBeGreaterThan(10);
  expect(stdout).toBe("");
  expect(code).toBe(exit);
});

test("names from a file are shown on one line, without what a terminal obeys", async () => {
  const entry = { dtype: "F32", shape: [3], data_offsets: [0, 8] };
  const header = (name: string, shape: number[]) => JSON.stringify({ [name]: { ...entry, shape } });
  writeFileSync(path("bad.safetensors"), safetensors(header("\x1b[2J\nw", [3]), new Uint8Array(8)));
  const bad = await performer(["convert", "bad.safetensors", "out.npz"], { cwd: path(".") });
  expect(bad.stderr).toBe(
    'performer: Cannot read tensor "?[2J?w" in "bad.safetensors": shape [3] of F32 needs 12 bytes, it has 8\n',
  );
  expect([bad.code, readdirSync(path(".")).filter((name) => name.includes("out.npz"))]).toEqual([3, []]);
  writeFileSync(path("good.safetensors"), safetensors(header("\x1b[2J\nw", [2]), new Uint8Array(8)));
  const good = await performer(["inspect", "good.safetensors"], { cwd: path(".") });
  expect(good.stdout).toBe("good.safetensors · safetensors · 81 B\n  ?[2J?w  f32 [2] · 8 B\n");
});

test("a single backend that is not there exits 4, a list falls through and says why", async () => {
  const refused = await performer(["attend", path("x.npy"), "--backend", "gpujs:headlessgl"]);
  expect(refused.code).toBe(4);
  expect(refused.stderr).toContain("headlessgl");
  const list = await performer(["attend", path("x.npy"), "--backend", "gpujs:headlessgl,scalar", "--json"]);
  expect(list.code).toBe(0);
  const { backend } = JSON.parse(list.stdout);
  expect(backend.name).toBe("scalar");
  expect(backend.refused[0].name).toBe("gpujs:headlessgl");
});

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("a closed pipe ends the work quietly", () => {
    writeFileSync(path("long.npy"), npyBytes([50_000, 16], wave));
    const command = `${RUNTIMES[runtime].join(" ")} ${
      join(ROOT, "cli.ts")
    } attend long.npy --backend scalar -o - | head -c 100 > /dev/null; echo \${PIPESTATUS[0]}`;
    const { stdout, stderr } = spawnSync("bash", ["-c", command], { cwd: path("."), encoding: "utf8" });
    expect(stderr).toBe("");
    expect(stdout.trim()).toBe("141");
  });

  test("failed runs leave no partial output", async () => {
    writeFileSync(path("late_nan.npy"), npyBytes([5000, 8], (i) => i === 39_999 ? NaN : wave(i)));
    const { code } = await performer([
      "attend",
      "late_nan.npy",
      "--causal",
      "-o",
      "partial.npy",
      "--tile",
      "64",
      ...SCALAR,
    ], {
      runtime,
      cwd: path("."),
    });
    expect(code).toBe(3);
    expect(readdirSync(path(".")).filter((name) => name.includes("partial"))).toEqual([]);
  });
});

const mayMount = spawnSync("unshare", ["--mount", "true"]).status === 0;

test.skipIf(!mayMount)("a full disk is exit 75 and leaves nothing (needs root to mount a tmpfs)", () => {
  const mounted = spawnSync("bash", [
    "-c",
    `mkdir -p ${path("tiny")} && mount -t tmpfs -o size=64k tmpfs ${path("tiny")}`,
  ]);
  expect(mounted.status).toBe(0);
  try {
    writeFileSync(path("big.npy"), npyBytes([4000, 16], wave));
    const command = [
      ...RUNTIMES.bun,
      join(ROOT, "cli.ts"),
      "attend",
      path("big.npy"),
      "-o",
      path("tiny/out.npy"),
      ...SCALAR,
    ];
    const { status, stderr } = spawnSync(command[0], command.slice(1), { encoding: "utf8" });
    expect(stderr).toContain("no space left");
    expect(status).toBe(75);
    expect(readdirSync(path("tiny"))).toEqual([]);
  } finally {
    spawnSync("umount", [path("tiny")]);
  }
});
