import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import type { Terminal } from "../../src/commands/command.ts";
import { configurationFor } from "../../src/commands/config.ts";
import { settingsOf } from "../../src/commands/doctor_run.ts";
import { COMMANDS } from "../../src/commands/mod.ts";
import { npyBytes, performer, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();

beforeAll(() => {
  mkdirSync(path("project"));
  mkdirSync(path("user/performer"), { recursive: true });
  writeFileSync(path("project/x.npy"), npyBytes([30, 8], wave));
  writeFileSync(
    path("project/performer.json"),
    JSON.stringify({ "num-features": 64, backend: "scalar", causal: true }),
  );
  writeFileSync(path("user/performer/config.json"), JSON.stringify({ "num-features": 32, seed: 5 }));
});
afterAll(remove);

const run = (args: string[], env: Record<string, string> = {}) => {
  return performer(args, { cwd: path("project"), env: { XDG_CONFIG_HOME: path("user"), ...env } });
};
const attention = async (args: string[], env?: Record<string, string>) => {
  return JSON.parse((await run(["attend", "x.npy", "--json", ...args], env)).stdout).attention;
};

test("flags > environment > project file > user file > default", async () => {
  expect(await attention([])).toMatchObject({ numFeatures: 64, seed: 5, causal: true });
  expect(await attention([], { PERFORMER_NUM_FEATURES: "128", PERFORMER_SEED: "6" })).toMatchObject({
    numFeatures: 128,
    seed: 6,
  });
  expect(await attention(["-m", "16"], { PERFORMER_NUM_FEATURES: "128" })).toMatchObject({ numFeatures: 16 });
});

test("a bad value names the place it stands in", async () => {
  const { code, stderr } = await run(["attend", "x.npy"], { PERFORMER_NUM_FEATURES: "many" });
  expect(code).toBe(2);
  expect(stderr).toContain("PERFORMER_NUM_FEATURES");
});

test("unknown settings and broken files are errors with the way out", async () => {
  writeFileSync(path("user/performer/config.json"), JSON.stringify({ bakend: "scalar" }));
  expect((await run(["attend", "x.npy"])).stderr).toContain('did you mean "backend"');
  writeFileSync(path("user/performer/config.json"), "{");
  const { code, stderr } = await run(["attend", "x.npy"]);
  expect(code).toBe(2);
  expect(stderr).toContain("config.json");
  writeFileSync(path("user/performer/config.json"), JSON.stringify({ seed: 5 }));
});

test("doctor shows each value and where it came from", async () => {
  const { code, stdout } = await run(["doctor"], { PERFORMER_PROJECTION: "iid" });
  expect(code).toBe(0);
  expect(stdout).toContain("64 (project file)");
  expect(stdout).toContain("5 (user file)");
  expect(stdout).toContain("iid (environment)");
  expect(stdout).toContain("256 (default)");
  expect(stdout).toContain("rows-timed         4096 (default)"); // of compare
  expect(stdout).toMatch(/configuration of compare\n +features +hyperbolic,hyp-oprf/);
});

test("settings of doctor say for which commands a value is, and in which variable or file it stands", async () => {
  const env = { XDG_CONFIG_HOME: path("user"), PERFORMER_FORMAT: "csv", PERFORMER_LENGTHS: "64" };
  const settings = await settingsOf(configurationFor({ env, cwd: path("project") } as unknown as Terminal), COMMANDS);
  const of = (name: string) => settings.filter((setting) => setting.name === name);
  expect(of("lengths")).toEqual([
    { name: "lengths", value: "64", source: "environment", place: "PERFORMER_LENGTHS", commands: ["bench", "figure"] },
  ]);
  expect(of("backend")[0]).toMatchObject({ source: "project file", place: path("project/performer.json") });
  const [tables, plain] = ["attend", "inspect"].map((command) => {
    return of("format").find(({ commands }) => commands.includes(command))!;
  });
  expect(tables).toMatchObject({ value: "csv", source: "environment" });
  expect(plain).toMatchObject({ value: "text", source: "default" }); // inspect has no csv
  expect((await run(["inspect", "x.npy"], { PERFORMER_FORMAT: "csv" })).code).toBe(0);
});

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("no arguments: short help with two examples; --help and --version answer", async () => {
    const none = await performer([], { runtime });
    expect(none.code).toBe(0);
    expect(none.stdout.match(/performer attend/g)!.length).toBeGreaterThanOrEqual(2);
    const help = await performer(["--help"], { runtime });
    for (const command of ["attend", "inspect", "backends", "doctor"]) expect(help.stdout).toContain(command);
    expect((await performer(["--version"], { runtime })).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    const attend = await performer(["attend", "--help"], { runtime });
    expect(attend.code).toBe(0);
    for (const words of ["--features", "hyperbolic", "default: 256", "Examples"]) {
      expect(attend.stdout).toContain(words);
    }
  });

  test("backends runs a golden case on each and says which one auto takes", async () => {
    const { code, stdout } = await performer(["backends", "--json"], { runtime });
    const { backends, auto } = JSON.parse(stdout);
    expect(code).toBe(0);
    expect(backends.map((backend: { name: string }) => backend.name)).toEqual([
      "webgpu",
      "onnx",
      "wasm",
      "gpujs",
      "scalar",
    ]);
    for (const { name, status, detail } of backends) {
      expect(["PASS", "refused"]).toContain(status);
      expect(detail.length).toBeGreaterThan(10);
      if (name === "scalar") expect(status).toBe("PASS");
      if (process.env.PERFORMER_REQUIRE_BACKENDS?.split(",").includes(name)) expect(status).toBe("PASS");
    }
    expect(auto).not.toContain("SwiftShader");
  }, 60_000);
});
