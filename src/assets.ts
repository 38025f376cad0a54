/**
 * What the program carries beside its code, and where packages are that it does not carry.
 *
 * Only this module and threads.ts differ between the ways the program is shipped: this file serves the sources,
 * scripts/ship/package_assets.ts takes its place in the npm package (dist/) and scripts/ship/binary_assets.ts in the single binary.
 */
import { dirname } from "node:path";
import { fileURLToPath, URL } from "node:url";
import { readBytes } from "./bytes.ts";

export interface Assets {
  /** How the program was shipped, for `doctor`. */
  readonly form: "sources" | "npm package" | "single binary";
  /** The folder from which node_modules are looked for, upwards. */
  readonly folder: string;
  /** Where `npm install` has to be run for `optional` and `folder`, as the end of a message. */
  readonly where: string;
  /** What helps when Dawn cannot be loaded, as the end of a message. */
  readonly dawnRemedy: string;
  /** A build of kernels/wasm. */
  kernel(build: "relaxed" | "simd"): Promise<Uint8Array<ArrayBuffer>>;
  /** What npm `webgpu` exports; throws what the runtime throws when it cannot be loaded. */
  dawn(): Promise<unknown>;
  /** Imports an optional package by name; throws what the runtime throws when it is not there. */
  optional(name: string): Promise<unknown>;
  /** A file of an optional package, such as "dejavu-fonts-ttf/ttf/DejaVuSans.ttf"; throws as `optional` does. */
  file(path: string): Promise<Uint8Array<ArrayBuffer>>;
}

export const assets: Assets = {
  form: "sources",
  folder: dirname(fileURLToPath(import.meta.url)),
  where: "",
  dawnRemedy: "run npm install webgpu, which needs Linux with glibc 2.34, macOS or Windows",
  kernel: (build) => readBytes(fileURLToPath(new URL(`../kernels/wasm/${build}.wasm`, import.meta.url))),
  dawn: () => import("webgpu"),
  optional: (name) => import(name),
  file: (path) => readBytes(fileURLToPath(import.meta.resolve(path))),
};
