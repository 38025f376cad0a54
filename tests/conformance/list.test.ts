/** `--backend`: what lists mean, and which errors fall through to the next candidate. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { CANDIDATES, openFirst, parseBackendList } from "../../src/backends/mod.ts";
import type { Backend } from "../../src/backend.ts";
import { UnsupportedError, UsageError } from "../../src/errors.ts";

test("auto is every backend in order, none of them named; a list is as given", () => {
  expect(parseBackendList("auto")).toEqual(CANDIDATES.map(({ name }) => ({ name, named: false })));
  expect(CANDIDATES.map(({ name }) => name)).toEqual(["webgpu", "onnx", "wasm", "gpujs", "scalar"]);
  expect(parseBackendList("gpujs:cpu, scalar")).toEqual([
    { name: "gpujs", variant: "cpu", named: true },
    { name: "scalar", variant: undefined, named: true },
  ]);
});

test("an unknown name is wrong usage, with the list and the nearest name", () => {
  expect(() => parseBackendList("scaler")).toThrow(UsageError);
  expect(() => parseBackendList("scaler")).toThrow(
    /scalar\? expected auto or a list of webgpu, onnx, wasm, gpujs, scalar/,
  );
  expect(() => parseBackendList("scalar,cuda")).toThrow(/cuda/);
});

test("each driver has the name it is listed under", async () => {
  for (const { name, load } of CANDIDATES) {
    const driver = await load();
    expect(driver.name).toBe(name);
  }
});

test("a refusal falls through, and is reported; alone it escapes", async () => {
  const { backend, refused } = await openFirst(parseBackendList("gpujs:headlessgl,scalar"));
  expect(backend.name).toBe("scalar");
  expect(refused).toEqual([{ name: "gpujs:headlessgl", reason: expect.stringContaining("gl") }]);
  await expect(openFirst(parseBackendList("gpujs:headlessgl"))).rejects.toBeInstanceOf(UnsupportedError);
});

test("one that opens but will not do is closed and falls through as well; alone it escapes; bugs escape at once", async () => {
  const closed: string[] = [];
  const accept = (backend: Backend) => {
    const close = backend[Symbol.asyncDispose].bind(backend);
    backend[Symbol.asyncDispose] = async () => {
      closed.push(backend.name);
      await close();
    };
    if (backend.name !== "scalar") throw new UnsupportedError(backend.name, "it is too small");
  };
  const { backend, refused } = await openFirst(parseBackendList("wasm:simd,scalar"), { accept });
  expect([backend.name, closed]).toEqual(["scalar", ["wasm"]]);
  expect(refused).toEqual([{ name: "wasm:simd", reason: "it is too small" }]);
  await expect(openFirst(parseBackendList("wasm"), { accept })).rejects.toBeInstanceOf(UnsupportedError);
  const bug = () => {
    throw new RangeError("a bug");
  };
  await expect(openFirst(parseBackendList("wasm,scalar"), { accept: bug })).rejects.toBeInstanceOf(RangeError);
});

test("loading the list loads no backend", async () => {
  const list = readFileSync(new URL("../../src/backends/mod.ts", import.meta.url), "utf8");
  const eager = [...list.matchAll(/^import (?!type).*from "(.*)";$/gm)].map(([, path]) => path);
  expect(eager).toEqual(["../errors.ts", "../words.ts"]);
});
