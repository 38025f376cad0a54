/**
 * Builds dist/performer, one file that runs on its own: Bun, the program, its kernels, Dawn, and the packages that draw charts.
 * `bun scripts/build_binary.ts [FILE]` writes it elsewhere.
 */
import type { BunPlugin } from "bun";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { bundle, licencesOf, ROOT } from "./ship/bundle.ts";

const suffix = process.platform === "win32" ? ".exe" : "";
const outfile = resolve(process.argv[2] ?? join(ROOT, `dist/performer${suffix}`));

/** npm `webgpu` computes the name of its library, which a bundler cannot follow: here it is written out. */
const dawn: BunPlugin = {
  name: "dawn",
  setup(build) {
    build.onLoad({ filter: /node_modules\/webgpu\/index\.js$/ }, ({ path }) => {
      const { platform, arch } = process;
      const library = join(
        dirname(path),
        "dist",
        platform === "darwin" ? "darwin-universal" : `${platform}-${arch}`,
        "dawn.node",
      );
      if (!existsSync(library)) {
        throw new Error(`npm webgpu has no library for ${platform}-${arch}: ${library} does not exist`);
      }
      const text = readFileSync(path, "utf8");
      const literal = text.replace("const require = createRequire(import.meta.url);", "")
        .replace("require(dawnNodePath)", `require(${JSON.stringify(library)})`);
      if (literal === text || !literal.includes(library)) throw new Error("npm webgpu loads its library in a new way");
      return { contents: literal, loader: "js" };
    });
  },
};

mkdirSync(dirname(outfile), { recursive: true });
const modules = await bundle("binary", {
  entrypoints: ["cli.ts", "src/backends/wasm_worker.ts", "src/pipe_worker.ts"].map((name) => join(ROOT, name)),
  target: "bun",
  plugins: [dawn],
  // Code that is loaded when it is needed, and compiled already, halves the time to a first result. Names stay: gpu.js reads functions
  // as text, and reports of bugs have names in them.
  splitting: true,
  format: "esm",
  bytecode: true,
  minify: { whitespace: true, syntax: true, identifiers: false },
  // Settings of the folder it is used in are nobody's business: a bunfig.toml may name code to run.
  // Without package.json Bun finds no package at all, and optional ones lie beside the binary.
  compile: { outfile, autoloadDotenv: false, autoloadBunfig: false, autoloadPackageJson: true },
});
writeFileSync(`${outfile}.LICENCES.txt`, licencesOf(modules));
