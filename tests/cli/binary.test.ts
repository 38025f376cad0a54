/** The single binary, in an empty folder with an empty environment. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { npyBytes, type Outcome, readNpyBytes, ROOT, runProcess, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
const binary = path("bin/performer");
const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));

/** Nothing but a folder for temporary files is in the environment, where Dawn's library goes. */
function inFolder(args: readonly string[], input?: Uint8Array): Promise<Outcome> {
  return runProcess([binary, ...args], { input, cwd: path("empty"), env: { TMPDIR: path("tmp"), PATH: "" } });
}

beforeAll(() => {
  for (const name of ["bin", "empty", "tmp"]) mkdirSync(path(name));
  const built = Bun.spawnSync([process.execPath, join(ROOT, "scripts/build_binary.ts"), binary], { cwd: ROOT });
  if (built.exitCode !== 0) throw new Error(`the binary was not built: ${built.stderr}`);
}, 120_000);

afterAll(remove);

test("it says the package's version, and carries the licences of what is inside", async () => {
  expect((await inFolder(["--version"])).stdout).toBe(`${version}\n`);
  const licences = readFileSync(`${binary}.LICENCES.txt`, "utf8");
  for (const name of ["commander", "gpu.js", "vega", "webgpu"]) expect(licences).toContain(`\n${name} `);
});

test("backends: its own pass, Dawn loads, and what is missing is said with the folder where it would be found", async () => {
  const { code, stdout } = await inFolder(["backends"]);
  expect(code).toBe(0);
  for (const name of ["wasm", "gpujs", "scalar"]) expect(stdout).toMatch(new RegExp(`${name} +PASS`));
  expect(stdout).toContain(`run npm install onnxruntime-node in ${path("bin")}`);
  // A machine with an adapter passes instead.
  const webgpu = stdout.split("\n").find((line) => line.includes("webgpu"))!;
  expect(webgpu).not.toContain("Dawn cannot be loaded");
  if (webgpu.includes("refused")) expect(webgpu).toContain("there is no graphics adapter");
});

test("the software adapter is not inside, and the message says where it would go", async () => {
  // Dawn's library was written by the test above, and is found again.
  const library = () => readdirSync(path("tmp")).filter((name) => name.endsWith(".node"));
  expect(library().length).toBe(1);
  const { code, stderr } = await inFolder(["attend", "-", "--backend", "webgpu:swiftshader"], npyBytes([64, 32], wave));
  expect([code, library().length]).toEqual([4, 1]);
  if (process.platform === "linux" && process.arch === "x64") {
    expect(stderr).toContain(`run npm install @sparticuz/chromium in ${path("bin")}`);
  }
});

describe("attend", () => {
  test("a file, with threads", async () => {
    // Far more work than the main thread does before it starts threads.
    writeFileSync(path("empty/long.npy"), npyBytes([60_000, 32], wave));
    const args = ["attend", "long.npy", "-m", "512", "--threads", "2", "--backend", "wasm", "-o", "out.npy", "--json"];
    const { code, stdout, stderr } = await inFolder(args);
    expect([code, stderr]).toEqual([0, ""]);
    expect(JSON.parse(stdout).backend.device).toContain("2 threads");
    expect(readNpyBytes(new Uint8Array(readFileSync(path("empty/out.npy")))).shape).toEqual([60_000, 32]);
  });

  test("pipes give what the sources give", async () => {
    const input = npyBytes([200, 32], wave);
    const args = ["attend", "-", "-o", "-", "-q", "--backend", "wasm"];
    const ours = await inFolder(args, input);
    const sources = Bun.spawnSync([process.execPath, join(ROOT, "cli.ts"), ...args], {
      stdin: input,
      cwd: path("empty"),
    });
    expect([ours.code, ours.stderr]).toEqual([0, ""]);
    expect(Buffer.from(ours.out).equals(sources.stdout)).toBe(true);
  });

  test("long outputs into pipes, which a thread of its own writes", async () => {
    const input = npyBytes([120_000, 32], wave);
    const { code, stderr, out } = await inFolder(["attend", "-", "--features", "none", "-o", "-", "-q"], input);
    expect([code, stderr]).toEqual([0, ""]);
    const numbers = (npy: Uint8Array) => Buffer.from(npy.subarray(npy.length - 120_000 * 32 * 4));
    expect(numbers(out).equals(numbers(input))).toBe(true);
  });

  test("a session", async () => {
    const script = new TextEncoder().encode("x = randn(100, 8, 1)\njs (await phi(x)).shape\n?hyperbolic\n");
    const { code, stdout, stderr } = await inFolder(["repl"], script);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/x = tensor \[100, 8\][^]*100[^]*hyperbolic/);
  });

  test("a page: the packages that draw are inside", async () => {
    const { code, stderr } = await inFolder(["attend", "-", "-q", "--report", "page.html"], npyBytes([200, 32], wave));
    expect([code, stderr]).toEqual([0, ""]);
    expect(readFileSync(path("empty/page.html"), "utf8")).toContain("<svg");
  });
});

test("a PNG: the fonts are inside", async () => {
  const { code, stderr } = await inFolder(["figure", "2", "-q", "-o", "figure.png"]);
  expect([code, stderr]).toEqual([0, ""]);
  expect([...readFileSync(path("empty/figure.png")).subarray(1, 4)]).toEqual([0x50, 0x4e, 0x47]);
});

test("code in the folder is left alone: settings for Bun, and packages of names that are known here", async () => {
  writeFileSync(path("empty/bunfig.toml"), 'preload = ["./preload.ts"]\n');
  writeFileSync(path("empty/preload.ts"), 'console.log("preloaded");');
  writeFileSync(path("empty/.env"), "PERFORMER_BACKEND=scalar\n");
  writeFileSync(path("empty/package.json"), "{}");
  for (const name of ["gl", "gpu.js", "onnxruntime-node", "webgpu"]) {
    mkdirSync(path(`empty/node_modules/${name}`), { recursive: true });
    writeFileSync(path(`empty/node_modules/${name}/index.js`), 'console.log("a package"); process.exit(9);');
  }
  const input = npyBytes([64, 32], wave);
  const usual = await inFolder(["attend", "-", "--json"], input);
  expect([usual.code, JSON.parse(usual.stdout).backend.name]).toEqual([0, "wasm"]);
  const asked = await inFolder(["attend", "-", "--json", "--backend", "onnx,gpujs"], input);
  expect([asked.code, JSON.parse(asked.stdout).backend.name]).toEqual([0, "gpujs"]);
});

test("an optional package beside the binary is found", async () => {
  mkdirSync(path("bin/node_modules/onnxruntime-node"), { recursive: true });
  writeFileSync(path("bin/node_modules/onnxruntime-node/index.js"), 'throw new Error("the one beside");');
  const { code, stderr } = await inFolder(["attend", "-", "--backend", "onnx"], npyBytes([64, 32], wave));
  expect([code, stderr]).toEqual([4, expect.stringContaining("does not load: the one beside")]);
});
