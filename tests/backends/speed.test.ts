/** How `auto` chooses between onnx and wasm, and what it keeps. */
import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Backend, BackendName } from "../../src/backend.ts";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { fasterOf, measureSpeed, SpeedCache } from "../../src/backends/speed.ts";
import { UnsupportedError } from "../../src/errors.ts";

/** A backend that only knows its name and whether it was closed. */
function fake(name: BackendName): Backend & { closed: boolean } {
  const backend = { name, closed: false, [Symbol.asyncDispose]: async () => void (backend.closed = true) };
  return backend as unknown as Backend & { closed: boolean };
}

const speeds = (onnx: number, wasm: number) => async ({ name }: Backend) => 1e9 * (name === "onnx" ? onnx : wasm);
const never = () => Promise.reject(new Error("measured again"));

async function inFolder(body: (path: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "performer-speed-"));
  try {
    await body(join(folder, "deep", "speeds.json"));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("the faster stays open, the other is closed, and the figures are kept for next time", async () => {
  for (const [onnxSpeed, wasmSpeed] of [[90, 50], [20, 50]]) {
    await inFolder(async (path) => {
      for (const measure of [speeds(onnxSpeed, wasmSpeed), never]) {
        const [onnx, wasm] = [fake("onnx"), fake("wasm")];
        const { backend, reason } = await fasterOf(onnx, async () => wasm, new SpeedCache(path, 2), measure);
        expect(backend.name).toBe(onnxSpeed > wasmSpeed ? "onnx" : "wasm");
        expect((backend as typeof onnx).closed).toBeFalse();
        if (backend === wasm) {
          expect([onnx.closed, reason]).toEqual([true, "slower than wasm on this machine, 20 against 50 GFLOP/s"]);
        } else expect(reason).toBeNull();
      }
      const [kept] = Object.values(JSON.parse(readFileSync(path, "utf8")));
      expect(kept).toEqual({ onnx: onnxSpeed, wasm: wasmSpeed });
    });
  }
});

test("kept figures are for that number of threads; damaged files are measured again", async () => {
  await inFolder(async (path) => {
    const choose = (threads: number, measure: (backend: Backend) => Promise<number>) => {
      return fasterOf(fake("onnx"), async () => fake("wasm"), new SpeedCache(path, threads), measure);
    };
    await choose(2, speeds(1, 2));
    expect((await choose(4, speeds(2, 1))).backend.name).toBe("onnx");
    for (const text of ["", "[1]", "null", '{"x": 3}', readFileSync(path, "utf8").replaceAll(/: \d/g, ': "9"')]) {
      writeFileSync(path, text);
      expect((await choose(2, speeds(1, 2))).backend.name).toBe("wasm");
    }
  });
});

test("without wasm, onnx stays; a bug in opening it escapes; nowhere to keep figures is no error", async () => {
  const refuse = () => Promise.reject(new UnsupportedError("wasm", "no threads"));
  const onnx = fake("onnx");
  expect((await fasterOf(onnx, refuse, new SpeedCache(null, 1), never)).backend).toBe(onnx);
  const broken = () => Promise.reject(new TypeError("bug"));
  await expect(fasterOf(onnx, broken, new SpeedCache(null, 1), never)).rejects.toBeInstanceOf(TypeError);
  const cache = new SpeedCache("/proc/none/speeds.json", 1);
  expect((await fasterOf(onnx, async () => fake("wasm"), cache, speeds(2, 1))).backend).toBe(onnx);
});

test("a speed is operations per second of the backend itself", async () => {
  await using backend = await scalar.open({ named: true });
  const speed = await measureSpeed(backend, 0.001);
  expect(speed).toBeGreaterThan(1e7);
  expect(speed).toBeLessThan(1e12);
});

test("little work does not load onnxruntime, a name does", async () => {
  const wishes = parseBackendList("onnx,scalar").map((wish) => ({ ...wish, named: false }));
  const little = await openFirst(wishes, { work: 1e9 });
  await using _little = little.backend;
  expect(little.backend.name).toBe("scalar");
  expect(little.refused).toEqual([{ name: "onnx", reason: expect.stringContaining("before its package is loaded") }]);
  const named = await openFirst(parseBackendList("onnx,scalar"), { work: 1e9 });
  await using _named = named.backend;
  expect(named.refused.every(({ reason }) => !reason.includes("before its package"))).toBeTrue();
});
