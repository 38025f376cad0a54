/**
 * Builds dist/, the code of the npm package: JavaScript in chunks that are loaded when they are needed, the wasm kernels beside it, and
 * the library's types. Deno refuses TypeScript below node_modules. `npm pack` runs this first.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { bundle, licencesOf, ROOT } from "./ship/bundle.ts";

const dist = join(ROOT, "dist");

// The single binary may lie there too (scripts/build_binary.ts).
for (const name of existsSync(dist) ? readdirSync(dist) : []) {
  if (!name.startsWith("performer")) rmSync(join(dist, name), { recursive: true });
}
const modules = await bundle("package", {
  entrypoints: ["cli.ts", "mod.ts", "src/backends/wasm_worker.ts", "src/pipe_worker.ts"].map((name) =>
    join(ROOT, name)
  ),
  outdir: dist,
  target: "node",
  splitting: true,
  naming: { entry: "[name].js", chunk: "[name]-[hash].js" },
  external: ["webgpu", "vega", "vega-lite", "@resvg/resvg-wasm"],
});
for (const build of ["relaxed", "simd"]) cpSync(join(ROOT, `kernels/wasm/${build}.wasm`), join(dist, `${build}.wasm`));
writeFileSync(join(dist, "LICENCES.txt"), licencesOf(modules));
writeTypes();

/** Types of what mod.ts exports, and no more: `deno pack` draws them from signatures. It wants a folder with a name of its own. */
function writeTypes(): void {
  const folder = mkdtempSync(join(tmpdir(), "performer-types-"));
  try {
    for (const name of ["mod.ts", "src", "kernels"]) cpSync(join(ROOT, name), join(folder, name), { recursive: true });
    symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"), "junction");
    const config = {
      name: "@performer/types",
      version: "0.0.0",
      exports: "./mod.ts",
      nodeModulesDir: "manual",
      exclude: ["kernels/wasm"],
      lock: false,
    };
    // Checking is the gate's work; here it would double the time.
    const compilerOptions = { types: ["@types/bun", "@webgpu/types"], noCheck: true };
    writeFileSync(join(folder, "deno.json"), JSON.stringify({ ...config, compilerOptions }));
    run(["deno", "pack", "--quiet", "--allow-dirty", "--no-source-maps", "-o", "types.tgz"], folder);
    run(["tar", "-xzf", "types.tgz"], folder);
    const made = join(folder, "package");
    for (const path of readdirSync(made, { recursive: true, encoding: "utf8" })) {
      if (!path.endsWith(".d.ts")) continue;
      mkdirSync(dirname(join(dist, "types", path)), { recursive: true });
      cpSync(join(made, path), join(dist, "types", path));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(command: string[], cwd: string): void {
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd, stderr: "pipe", stdout: "ignore" });
  if (exitCode !== 0) throw new Error(`${command.join(" ")} failed:\n${stderr}`);
}
