/** The backends that open here: each law runs on all of them. */
import { describe, test } from "bun:test";
import type { Backend } from "../../src/backend.ts";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import { UnsupportedError } from "../../src/errors.ts";

/**
 * Builds of the wasm kernels and numbers of threads. Neither knows of the other, so each runtime takes half of the pairs, with every build and every
 * number among them: the laws are then run in half the time, and every pair is run by one of the two. PERFORMER_ALL_PAIRS=1 takes all.
 */
const PAIRS = process.env.PERFORMER_ALL_PAIRS
  ? ["relaxed × 1", "relaxed × 2", "relaxed × 3", "simd × 1", "simd × 2", "simd × 3"]
  : "Deno" in globalThis
  ? ["relaxed × 1", "relaxed × 3", "simd × 2"]
  : ["relaxed × 2", "simd × 1", "simd × 3"];

/** As given to `--backend`, and to `--threads` behind a ×. */
const NAMES = [
  "scalar",
  "onnx",
  ...PAIRS.map((pair) => `wasm:${pair}`),
  "gpujs:webasm",
  "gpujs:cpu",
  "webgpu",
];

/** Backends that must open: comma-separated names without variant. Unset: what does not open is skipped, with its reason. */
const required = (process.env.PERFORMER_REQUIRE_BACKENDS ?? "").split(",").filter(Boolean);

/** Names without variant that are tried at all, comma-separated; unset: all. */
const only = (process.env.PERFORMER_ONLY_BACKENDS ?? "").split(",").filter(Boolean);
const nameOf = (entry: string) => entry.split(/:| × /)[0];

const opened: { name: string; backend: Backend | null; reason: string; broken?: unknown }[] = [];
for (const name of NAMES.filter((entry) => only.length === 0 || only.includes(nameOf(entry)))) {
  try {
    const [list, threads] = name.split(" × ");
    const { backend } = await openFirst(parseBackendList(list), {
      threads: threads ? Number(threads) : undefined,
      eager: threads !== undefined && Number(threads) > 1, // one thread: what the main thread does by itself
    });
    opened.push({ name, backend, reason: "" });
  } catch (error) {
    const broken = error instanceof UnsupportedError ? null : error;
    opened.push({ name, backend: null, reason: broken ? String(broken) : (error as UnsupportedError).reason, broken });
  }
}

/** Runs the tests of `body` once per backend; `slow` is true where only tiny problems finish (software GPUs). */
export function describeBackends(law: string, body: (backend: Backend, slow: boolean) => void): void {
  for (const { name, backend, reason, broken } of opened) {
    describe(`${law} [${name}]`, () => {
      if (backend) {
        body(backend, backend.name === "webgpu");
      } else if (broken || required.includes(nameOf(name))) {
        test("opens, or says why not (and opens where PERFORMER_REQUIRE_BACKENDS demands it)", () => {
          throw broken ?? new Error(reason);
        });
      } else {
        test.skip(`not available: ${reason}`, () => {});
      }
    });
  }
}
