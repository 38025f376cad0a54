/** Stands for src/assets.ts in the npm package: code and kernels lie side by side in dist/. */
import { dirname } from "node:path";
import { fileURLToPath, URL } from "node:url";
import type { Assets } from "../../src/assets.ts";
import { readBytes } from "../../src/bytes.ts";

export const assets: Assets = {
  form: "npm package",
  folder: dirname(fileURLToPath(import.meta.url)),
  where: "",
  dawnRemedy: "run npm install webgpu, which needs Linux with glibc 2.34, macOS or Windows",
  kernel: (build) => readBytes(fileURLToPath(new URL(`./${build}.wasm`, import.meta.url))),
  dawn: () => import("webgpu"),
  optional: (name) => import(name),
  file: (path) => readBytes(fileURLToPath(import.meta.resolve(path))),
};
