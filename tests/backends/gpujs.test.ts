/** What is particular to the backend `gpujs`: modes, refusals, shared kernels, memory. Its laws are in tests/conformance. */
import { expect, test } from "bun:test";
import { fileURLToPath } from "node:url";
import { spawnSync } from "node:child_process";
import { gpujs } from "../../src/backends/gpujs.ts";
import { GpuJs, Kernels, loadGpuJs, padDepth } from "../../src/backends/gpujs_kernels.ts";
import { bucket } from "../../src/backends/gpujs_linear.ts";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import { goldenError } from "../../src/backends/self_test.ts";
import { UnsupportedError, UsageError } from "../../src/errors.ts";
import { makeProblem, planFor } from "../conformance/harness.ts";

test("says which mode runs", async () => {
  for (const [variant, mode] of [[undefined, "webasm"], ["webasm", "webasm"], ["cpu", "cpu"]] as const) {
    await using backend = await gpujs.open({ variant, named: true });
    expect(backend.device).toBe(`gpu.js ${mode} (synchronous)`);
    expect(await goldenError(backend)).toBeLessThan(1e-6);
  }
});

test.each(["webgpu", "headlessgl"])("refuses mode %s with a way out", async (variant) => {
  const opening = gpujs.open({ variant, named: true });
  await expect(opening).rejects.toBeInstanceOf(UnsupportedError);
  await expect(opening).rejects.toThrow(/use (--backend|gpujs:)/);
  const fallback = await openFirst(parseBackendList(`gpujs:${variant},scalar`));
  expect(fallback.backend.name).toBe("scalar");
});

test("an unknown mode is wrong usage and never falls back", async () => {
  await expect(openFirst(parseBackendList("gpujs:wasm,scalar"))).rejects.toBeInstanceOf(UsageError);
});

test.each(["webasm", "cpu"])("%s runs under Deno, without any permission", (variant) => {
  const script = fileURLToPath(new URL("gpujs_deno.ts", import.meta.url));
  const deno = fileURLToPath(new URL("../../node_modules/.bin/deno", import.meta.url));
  const config = fileURLToPath(new URL("../../deno.json", import.meta.url));
  const ran = spawnSync(deno, ["run", "--no-prompt", "--config", config, script, variant], { encoding: "utf8" });
  expect(ran.stderr).toBe("");
  const [device, error] = ran.stdout.trim().split("\n");
  expect(device).toBe(`gpu.js ${variant} (synchronous)`);
  expect(Number(error)).toBeLessThan(1e-6);
}, 20_000);

test("sessions of one shape share their kernels; the last one frees them", async () => {
  const gpu = new GpuJs((await loadGpuJs())!, "webasm");
  const shape = { chunks: 1, quads: 2, width: 4 };
  const first = new Kernels(gpu);
  const second = new Kernels(gpu);
  const [a, b] = [first.product(shape, 4), second.product(shape, 4)];
  const ones = (length: number) => new Float32Array(length).fill(1);
  first[Symbol.dispose]();
  expect(b(ones(32), ones(16))).toEqual(new Float32Array(32).fill(4));
  second[Symbol.dispose]();
  second[Symbol.dispose](); // twice does no harm
  expect(a).toBeFunction();
  await gpu[Symbol.asyncDispose]();
});

test("float32 products sum in blocks: a thousand numbers stay within a millionth", async () => {
  const depth = 1024;
  const quads = Float32Array.from({ length: depth * 4 }, (_, at) => 1 + (at % 7) / 10);
  const column = Float32Array.from({ length: depth * 4 }, (_, at) => 1 + (at % 11) / 10);
  const expected = new Float64Array(16);
  for (let l = 0; l < depth; l++) {
    for (let x = 0; x < 4; x++) for (let c = 0; c < 4; c++) expected[x * 4 + c] += quads[l * 4 + c] * column[l * 4 + x];
  }
  for (const mode of ["webasm", "cpu"] as const) {
    await using gpu = new GpuJs((await loadGpuJs())!, mode);
    using kernels = new Kernels(gpu);
    const product = kernels.product({ chunks: 1, quads: 1, width: 4 }, depth);
    product(quads, column).forEach((value, at) => expect(Math.abs(value / expected[at] - 1)).toBeLessThan(1e-6));
  }
});

test("sizes are padded little, and tiles come in few of them", () => {
  expect([1, 4, 5, 16, 17, 64, 133].map(padDepth)).toEqual([4, 4, 8, 16, 32, 64, 144]);
  const sizes = new Set(Array.from({ length: 1000 }, (_, i) => bucket(i + 1, padDepth(1000), padDepth)));
  expect([...sizes]).toEqual([4, 16, 128, 1008]);
  for (let rows = 1; rows <= 16; rows++) expect(bucket(rows, 16, Math.ceil)).toBeGreaterThanOrEqual(rows);
});

test("memory does not grow with the number of tiles", async () => {
  await using backend = await gpujs.open({ named: true });
  const problem = makeProblem({ keyRows: 512, heads: 1, headDim: 32, valueDim: 32, features: 64 });
  await using session = await backend.prepare(planFor(problem, 512));
  const megabytes = async (tiles: number) => {
    for (let tile = 0; tile < tiles; tile++) {
      await session.absorb(problem.k, problem.v);
      await session.emit(problem.q);
    }
    Bun.gc(true);
    return process.memoryUsage().rss / 2 ** 20;
  };
  await megabytes(50);
  const before = await megabytes(50);
  const after = await megabytes(300); // 300 tiles make 200 MB of results
  expect(after - before).toBeLessThan(64);
}, 60_000);
