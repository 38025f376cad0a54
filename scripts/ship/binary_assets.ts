/**
 * Stands for src/assets.ts in the single binary. Bun keeps the files named here inside the program; it writes Dawn's library to the
 * folder for temporary files when it is first loaded, once per user, because a system loads libraries from files only.
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import relaxed from "../../kernels/wasm/relaxed.wasm" with { type: "file" };
import simd from "../../kernels/wasm/simd.wasm" with { type: "file" };
import resvg from "@resvg/resvg-wasm/index_bg.wasm" with { type: "file" };
import regular from "dejavu-fonts-ttf/ttf/DejaVuSans.ttf" with { type: "file" };
import bold from "dejavu-fonts-ttf/ttf/DejaVuSans-Bold.ttf" with { type: "file" };
import type { Assets } from "../../src/assets.ts";

const kernels = { relaxed, simd };

const files: Readonly<Record<string, string>> = {
  "@resvg/resvg-wasm/index_bg.wasm": resvg,
  "dejavu-fonts-ttf/ttf/DejaVuSans.ttf": regular,
  "dejavu-fonts-ttf/ttf/DejaVuSans-Bold.ttf": bold,
};

const folder = dirname(process.execPath);

export const assets: Assets = {
  form: "single binary",
  folder,
  where: ` in ${folder}`,
  dawnRemedy:
    "it needs Linux with glibc 2.34 or macOS, and a folder for temporary files (TMPDIR) that programs may be run from",
  kernel: (build) => Bun.file(kernels[build]).bytes(),
  // scripts/build_binary.ts puts the library for this system into the package's code.
  dawn: () => import("webgpu"),
  // Not from the working folder: data may come with anything beside it.
  optional: (name) => import(pathToFileURL(createRequire(join(folder, "performer")).resolve(name)).href),
  file: (path) => Bun.file(files[path]).bytes(),
};
