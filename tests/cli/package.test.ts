/** What `npm pack` makes, installed into an empty folder without a network, on a machine that has Node and npm only. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import {
  npyBytes,
  type Outcome,
  type ProcessOptions,
  readNpyBytes,
  ROOT,
  runProcess,
  scratch,
  wave,
} from "./process.ts";

const { path, remove } = scratch();
const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
const npm = Bun.which("npm");
const node = Bun.which("node");
const script = Bun.which("script");
const modules = path("app/node_modules");
const launcher = join(modules, ".bin/performer");
/** Both as npm has installed them for the repository. */
const bun = join(ROOT, "node_modules/bun/bin/bun.exe");
const deno = join(ROOT, "node_modules/deno/deno");

/** A folder for PATH with nothing but these programs in it. */
function programs(name: string, ...found: readonly [name: string, path: string][]): string {
  mkdirSync(path(name));
  for (const [link, target] of found) symlinkSync(target, join(path(name), link));
  return path(name);
}

/** Runs a command in one of the folders, with an environment of its own. */
function inFolder(command: readonly string[], { cwd = "app", env, ...options }: ProcessOptions = {}): Promise<Outcome> {
  const world = { PATH: path("node"), HOME: path("home"), NO_COLOR: "1", ...env };
  return runProcess(command, { ...options, cwd: path(cwd), env: world });
}

function must(command: readonly string[], cwd: string): string {
  const { status, stdout, stderr } = spawnSync(command[0], command.slice(1), { cwd, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command.join(" ")} failed: ${stdout}${stderr}`);
  return stdout;
}

afterAll(remove);

describe.skipIf(!npm || !node)("the npm package (needs npm and node on PATH)", () => {
  beforeAll(() => {
    for (const name of ["app", "home", "data"]) mkdirSync(path(name));
    // npx starts what it finds with a shell.
    programs("node", ["node", node!], ["npx", join(dirname(npm!), "npx")], ["sh", Bun.which("sh")!]);
    programs("with-bun", ["node", node!], ["bun", bun]);
    must([npm!, "pack", "--silent", "--pack-destination", path(".")], ROOT);
    writeFileSync(path("app/package.json"), "{}");
    // Its one package, webgpu, is optional and 132 MB: without it nothing has to come from a registry.
    const flags = ["--offline", "--omit=optional", "--no-audit", "--no-fund", "--cache", path("cache")];
    must([npm!, "install", path(`performer-${version}.tgz`), ...flags], path("app"));
    writeFileSync(path("app/input.npy"), npyBytes([300, 32], wave));
  }, 180_000);

  test("holds what is run and read, and no sources", () => {
    const at = (name: string) => existsSync(join(modules, "performer", name));
    for (const name of ["dist/cli.js", "dist/mod.js", "dist/wasm_worker.js", "dist/simd.wasm", "dist/types/mod.d.ts"]) {
      expect([name, at(name)]).toEqual([name, true]);
    }
    for (const name of ["dist/LICENCES.txt", "LICENSE", "README.md", "examples/data/lambda_virus.fa"]) {
      expect([name, at(name)]).toEqual([name, true]);
    }
    expect(["src", "cli.ts", "tests", "node_modules", "dist/performer"].filter(at)).toEqual([]);
    const licences = readFileSync(join(modules, "performer/dist/LICENCES.txt"), "utf8");
    for (const name of ["commander", "gpu.js", "yauzl"]) expect(licences).toContain(`\n${name} `);
  });

  test("without a runtime it says how to get one", async () => {
    const { code, stdout, stderr } = await inFolder(["npx", "--no", "performer", "attend", "input.npy"]);
    expect([code, stdout]).toEqual([4, ""]);
    expect(stderr).toContain("Cannot start: performer runs on Bun or Deno");
    expect(stderr).toContain("npm install bun");
  });

  test("a runtime that is not there, or that nobody knows", async () => {
    const missing = await inFolder([launcher, "--version"], { env: { PERFORMER_RUNTIME: "deno" } });
    expect([missing.code, missing.stderr]).toEqual([4, expect.stringContaining("npm install deno")]);
    const nowhere = await inFolder([launcher, "--version"], { env: { PERFORMER_RUNTIME: "/nowhere/bun" } });
    expect([nowhere.code, nowhere.stderr]).toEqual([4, expect.stringContaining("no such program")]);
    const unknown = await inFolder([launcher, "--version"], { env: { PERFORMER_RUNTIME: "node" } });
    expect([unknown.code, unknown.stderr]).toEqual([2, expect.stringContaining("expected bun, deno or a path")]);
  });

  test("arguments, how it ended and the signal that ended it come through as they are", async () => {
    const program = path("program");
    const made = async (body: string, ...args: string[]) => {
      writeFileSync(program, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
      const { code, signal, stdout } = await inFolder([launcher, ...args], { env: { PERFORMER_RUNTIME: program } });
      return { code, signal, stdout };
    };
    expect(await made('while [ $# -gt 2 ]; do shift; done; echo "<$1>" "<$2>"; exit 42', "a b", "")).toEqual({
      code: 42,
      signal: null,
      stdout: "<a b> <>\n",
    });
    expect(await made("kill -HUP $$")).toEqual({ code: null, signal: "SIGHUP", stdout: "" });
    expect(await made("exit 141")).toMatchObject({ code: 141, signal: null });
  });

  /** A stand-in for a runtime that says which signals it gets; it ends at SIGTERM, or a while after SIGINT. */
  const listener = (): string => {
    const text = `#!/usr/bin/env node
      process.on("SIGINT", () => { console.log("SIGINT"); setTimeout(() => process.exit(8), 500); });
      process.on("SIGTERM", () => { console.log("SIGTERM"); process.exit(7); });
      console.log("ready");
      setTimeout(() => {}, 20_000);\n`;
    writeFileSync(path("listener"), text, { mode: 0o755 });
    return path("listener");
  };

  test("signals reach the program", async () => {
    const { code, stdout } = await inFolder([launcher], {
      env: { PERFORMER_RUNTIME: listener() },
      during: (child) => {
        child.stdout!.on("data", (said: Uint8Array) => {
          const text = new TextDecoder().decode(said);
          if (text.includes("ready")) child.kill("SIGINT");
          if (text.includes("SIGINT")) child.kill("SIGTERM");
        });
      },
    });
    expect([code, stdout]).toEqual([7, "ready\nSIGINT\nSIGTERM\n"]);
  });

  test.skipIf(!script)("Ctrl-C on a terminal reaches it once, not twice (needs script)", async () => {
    const { code, stdout } = await inFolder([script!, "-qec", `exec ${launcher}`, "/dev/null"], {
      env: { PERFORMER_RUNTIME: listener(), SHELL: "/bin/sh" },
      input: null,
      during: (child) => {
        child.stdout!.on("data", (said: Uint8Array) => {
          const text = new TextDecoder().decode(said);
          if (text.includes("ready")) child.stdin!.write("\x03");
        });
      },
    });
    expect([code, stdout.match(/SIG\w+/g)]).toEqual([8, ["SIGINT"]]);
  });

  describe.each(["bun", "deno"])("on %s", (runtime) => {
    // Bun from PATH, Deno from node_modules, where `npm install deno` puts it.
    beforeAll(() => {
      if (runtime === "deno") symlinkSync(join(ROOT, "node_modules/deno"), join(modules, "deno"));
    });
    const env = (): Record<string, string> =>
      runtime === "bun" ? { PATH: path("with-bun") } : { PERFORMER_RUNTIME: "deno" };

    test("npx performer attend, from a file and through pipes", async () => {
      const npx = { ...env(), PATH: `${path("with-bun")}:${path("node")}` };
      const file = await inFolder(["npx", "--no", "performer", "attend", "input.npy", "--json"], { env: npx });
      expect([file.code, file.stderr]).toEqual([0, ""]);
      expect(JSON.parse(file.stdout)).toMatchObject({ input: { rows: 300 }, backend: { name: "wasm" } });
      const input = new Uint8Array(readFileSync(path("app/input.npy")));
      const piped = await inFolder([launcher, "attend", "-", "-o", "-", "-q"], { env: env(), input });
      expect([piped.code, readNpyBytes(piped.out).shape]).toEqual([0, [300, 32]]);
    });

    test("it is the runtime asked for, every backend that is there passes, and the folder's settings are left alone", async () => {
      writeFileSync(path("data/bunfig.toml"), 'preload = ["./preload.ts"]\n');
      writeFileSync(path("data/preload.ts"), 'console.log("preloaded");');
      writeFileSync(path("data/.env"), "PERFORMER_BACKEND=scalar\n");
      const { code, stdout } = await inFolder([launcher, "doctor", "--json"], { env: env(), cwd: "data" });
      expect(code).toBe(0);
      const { performer, backends, configuration } = JSON.parse(stdout);
      expect(performer).toEqual({
        version,
        shipped: "npm package",
        runtime: expect.stringMatching(new RegExp(runtime, "i")),
      });
      for (const name of ["wasm", "gpujs", "scalar"]) expect(backends[name]).toStartWith("PASS");
      expect(backends.webgpu).toContain("run npm install webgpu");
      expect(configuration.backend).toBe("auto (default)");
      expect((await inFolder([launcher, "--version"], { env: env() })).stdout).toBe(`${version}\n`);
    });

    test("threads start from the code beside the program, to compute and to write", async () => {
      // Far more work than the main thread does, and more bytes than it writes, before it starts threads.
      writeFileSync(path("data/long.npy"), npyBytes([60_000, 32], wave));
      const args = ["attend", "long.npy", "-m", "512", "--backend", "wasm", "--threads", "2", "-o", "-", "--json"];
      const { code, out, stderr } = await inFolder([launcher, ...args], { env: env(), cwd: "data" });
      expect([code, readNpyBytes(out).shape]).toEqual([0, [60_000, 32]]);
      expect(JSON.parse(stderr).backend.device).toContain("2 threads");
    });

    test("the library is found, with its types", async () => {
      symlinkSyncOnce(join(ROOT, "node_modules/@types"), join(modules, "@types"));
      symlinkSyncOnce(join(ROOT, "node_modules/bun-types"), join(modules, "bun-types"));
      writeFileSync(path("app/use.ts"), USE);
      const command = runtime === "bun" ? [bun] : [deno, "run", "-A", "--quiet"];
      const { code, stdout, stderr } = await inFolder([...command, "use.ts"]);
      expect([code, stdout, stderr]).toEqual([0, "wasm 6400\n", ""]);
      const check = runtime === "bun" ? [bun, "check", "--no-script", "use.ts"] : [deno, "check", "--quiet", "use.ts"];
      const checked = await inFolder(check);
      expect([checked.code, checked.code ? checked.stdout + checked.stderr : ""]).toEqual([0, ""]);
    });
  });
});

function symlinkSyncOnce(target: string, link: string): void {
  if (!existsSync(link)) symlinkSync(target, link);
}

/** A user's script. The directive fails the check unless the library's types are known. */
const USE = `
import { type Attention, attend, openFirst, parametersFor, parseBackendList, type Tile } from "performer";
const [rows, heads, width] = [200, 1, 32];
const tile: Tile = { start: 0, rows, cols: width, data: Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i * i)) };
const attention: Attention = {
  features: "hyperbolic", numFeatures: 64, projection: "orthogonal", norms: "chi", seed: 0, causal: false, scale: null,
  given: null, compat: "exact",
};
const shape = { heads, kvHeads: heads, headDim: width, valueDim: width, causal: false, tileRows: rows };
const parameters = parametersFor(attention, { queryRows: rows, keyRows: rows, ...shape });
const { backend } = await openFirst(parseBackendList("wasm"));
await using _backend = backend;
await using session = await backend.prepare({ ...shape, parameters });
await session.absorb(tile, tile);
console.log(backend.name, (await session.emit(tile)).data.length);
// @ts-expect-error: a list is no number
export const wrong: number = parseBackendList("auto");
export { attend };
`;
