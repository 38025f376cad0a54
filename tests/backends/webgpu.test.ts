import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Backend } from "../../src/backend.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { webgpu, WebgpuBackend } from "../../src/backends/webgpu.ts";
import { createRoot, findAdapter, isSoftware } from "../../src/backends/webgpu_adapter.ts";
import { cutOf, keyRanges } from "../../src/backends/webgpu_cut.ts";
import { BufferSet, GpuDevice } from "../../src/backends/webgpu_device.ts";
import { constantsOf, layoutOf } from "../../src/backends/webgpu_layout.ts";
import { tarFiles } from "../../src/backends/webgpu_swiftshader.ts";
import { TransientError, UnsupportedError, UsageError } from "../../src/errors.ts";
import { ACTIVATIONS } from "../../src/feature_map.ts";
import { KERNEL_MAPS } from "../kernel_maps.ts";
import { type Problem, problem, relativeError, run, slice } from "./webgpu_helpers.ts";

/** SwiftShader compiles a kernel in 0.5 to 3 seconds. */
const SLOW = 120_000;
const TOLERANCE = 1e-5;

let reference: Backend;
let backend: WebgpuBackend | undefined;
let reason = "";
try {
  backend = (await webgpu.open({ named: true })) as WebgpuBackend;
} catch (error) {
  if (!(error instanceof UnsupportedError)) throw error;
  reason = error.reason;
}
const title = backend ? `webgpu on ${backend.device}` : `webgpu: skipped, ${reason}`;

async function compare(problem: Problem, on: Backend = backend!, tolerance = TOLERANCE): Promise<void> {
  const got = await run(on, problem);
  const want = await run(reference, problem);
  expect(relativeError(got.out, want.out)).toBeLessThan(tolerance);
  expect(got.counts.emptyRows).toBe(want.counts.emptyRows);
}

beforeAll(async () => {
  reference = await scalar.open({ named: true });
});
afterAll(async () => {
  await backend?.[Symbol.asyncDispose]();
});

describe.skipIf(!backend)(title, () => {
  // Signed maps divide by sums that cancel: their float32 error is that of the problem, so they get a looser bound.
  test.each(
    KERNEL_MAPS.map((map) => [map.name, map.signed && map.family === "pointwise" ? 1e-3 : TOLERANCE] as const),
  )(
    "map %s, both directions",
    async (map, tolerance) => {
      await compare(problem({ map, rows: 70, size: 0.5 }), backend, tolerance);
      await compare(problem({ map, rows: 70, size: 0.5, causal: true, tileRows: 65 }), backend, tolerance);
    },
    SLOW,
  );

  test("all activations are maps that are tested", () => {
    expect(new Set(KERNEL_MAPS.map((map) => map.activation).filter(Boolean))).toEqual(new Set(ACTIVATIONS));
  });

  test.each([
    ["one row, width 1", { rows: 1, heads: 1, headDim: 1, valueDim: 1, features: 2 }],
    ["odd sizes", { rows: 77, heads: 3, headDim: 5, valueDim: 7, features: 34 }],
    ["wide values", { rows: 40, heads: 1, headDim: 20, valueDim: 131, features: 66 }],
    ["wide keys", { rows: 40, heads: 1, headDim: 256, valueDim: 3, features: 32 }],
    ["many positive features", { rows: 40, heads: 1, map: "positive", features: 131 }],
    ["grouped heads", { rows: 70, heads: 6, kvHeads: 2, masked: 0.3 }],
    ["uneven groups", { rows: 70, heads: 5, kvHeads: 3, masked: 0.3 }],
    ["matrices per head", { rows: 70, heads: 4, matrices: 2 }],
    ["all masked", { rows: 70, masked: 1 }],
    ["several ranges of keys", { rows: 700, heads: 1, headDim: 4, valueDim: 4 }],
  ])("%s, both directions", async (_name, options) => {
    await compare(problem(options));
    await compare(problem({ ...options, causal: true }));
  }, SLOW);

  test("huge inputs stay finite", async () => {
    for (const causal of [false, true]) {
      await compare(problem({ size: 60, rows: 200, causal, tileRows: 70 }), backend, 1e-2);
    }
  }, SLOW);

  test("any cut into tiles gives the same answer", async () => {
    for (const causal of [false, true]) {
      const whole = await run(backend!, problem({ rows: 200, causal, masked: 0.2 }));
      for (const tileRows of [33, 64, 150]) {
        const cut = await run(backend!, problem({ rows: 200, causal, masked: 0.2, tileRows }));
        expect(relativeError(cut.out, whole.out)).toBeLessThan(1e-5);
      }
    }
  }, SLOW);

  test("tiles may be overwritten as soon as a call returns, and calls take effect in order", async () => {
    const { plan, q, k, v } = problem({ rows: 96, tileRows: 32 });
    await using session = await backend!.prepare(plan);
    await using expected = await reference.prepare(plan);
    const results: Promise<unknown>[] = [];
    for (let from = 0; from < 96; from += 32) {
      const [kt, vt, qt] = [k, v, q].map((tile) => slice(tile, from, from + 32));
      await expected.absorb(kt, vt);
      const want = (await expected.emit(qt)).data;
      results.push(session.absorb(kt, vt));
      results.push(session.emit(qt).then((got) => expect(relativeError(got.data, want)).toBeLessThan(TOLERANCE)));
      for (const tile of [kt, vt, qt]) tile.data.fill(NaN);
    }
    await Promise.all(results);
  }, SLOW);

  test("masked keys and values may be NaN", async () => {
    for (const causal of [false, true]) {
      const one = problem({ rows: 70, causal });
      const weights = new Float32Array(70).fill(1);
      weights[5] = 0;
      one.k.data.fill(NaN, 5 * one.k.cols, 6 * one.k.cols);
      one.v.data.fill(NaN, 5 * one.v.cols, 6 * one.v.cols);
      await compare({ ...one, weights });
    }
  }, SLOW);

  test("save, load, reset", async () => {
    const { plan, q, k, v } = problem({ rows: 50, masked: 0.5 });
    await using one = await backend!.prepare(plan);
    await one.absorb(k, v);
    const state = await one.save();
    expect(state.keys).toBe(50);
    await using two = await backend!.prepare(plan);
    await two.load(state);
    expect((await two.emit(q)).data).toEqual((await one.emit(q)).data);
    two.reset();
    expect(Math.max(...(await two.emit(q)).data)).toBe(0);
    expect(two.counts.emptyRows).toBe(100);
  }, SLOW);

  test.each([
    ["plain", {}],
    ["odd sizes, groups, weights", { heads: 4, kvHeads: 2, headDim: 5, valueDim: 70, masked: 0.3 }],
    ["large logits", { size: 20 }],
    ["all masked", { masked: 1 }],
  ])("exact softmax: %s", async (_name, options) => {
    for (const causal of [false, true]) {
      const { plan, q, k, v, weights } = problem({ rows: 200, ...options, causal });
      const held = slice(q, 0, 70);
      const positions = Float64Array.from({ length: 70 }, (_, i) => 2 * i);
      const outs: ArrayLike<number>[] = [];
      for (const one of [backend!, reference]) {
        await using session = await one.prepareExact({ ...plan, scale: 0.4, queryRows: 80, tileRows: 90 });
        // Posing forgets what was seen.
        await session.pose(slice(q, 0, 3), [0, 1, 2]);
        await session.absorb(slice(k, 0, 90), slice(v, 0, 90));
        await session.pose(held, positions);
        const calls: Promise<void>[] = [];
        for (let from = 0; from < 200; from += 90) {
          const to = Math.min(200, from + 90);
          calls.push(session.absorb(slice(k, from, to), slice(v, from, to), weights?.slice(from, to)));
        }
        await Promise.all(calls);
        outs.push((await session.emit()).data);
      }
      if ("masked" in options && options.masked === 1) expect(outs[0]).toEqual(outs[1]);
      else expect(relativeError(outs[0], outs[1])).toBeLessThan(2e-5);
    }
  }, SLOW);

  test("without subgroups, and with buffers too small for a tile or a state", async () => {
    const adapter = await findAdapter({ named: true });
    await using small = new WebgpuBackend(await GpuDevice.open(adapter, { subgroups: false, maxBytes: 16 << 10 }));
    // A head's state is 8 kB: rounds of two heads; a row is 160 bytes: slices of 102 rows, or of 64 when causal.
    const options = { heads: 5, kvHeads: 5, headDim: 8, valueDim: 8, features: 64, rows: 250, masked: 0.2 };
    await compare(problem(options), small);
    await compare(problem({ ...options, causal: true }), small);
    await expect(small.prepare(problem({ features: 4096 }).plan)).rejects.toThrow(UnsupportedError);
  }, SLOW);

  test("a layer in several buffers, a tile in several slices", async () => {
    const adapter = await findAdapter({ named: true });
    await using small = new WebgpuBackend(await GpuDevice.open(adapter, { maxBytes: 4 << 10 }));
    const layer = {
      inputs: 13,
      weight: new Float32Array(13 * 74).map((_, i) => Math.sin(i)),
      bias: null,
      tileRows: 40,
    };
    const x = { start: 0, rows: 40, cols: 13, data: new Float32Array(520).map((_, i) => Math.cos(i)) };
    for (const activation of ["gelu", "gelu-glu"] as const) { // blocks of 2 KiB: rounds of two; slices of 13 rows, and of 27
      const outputs: number[][] = [];
      for (const one of [small, reference]) {
        await using linear = await one.prepareLinear({ ...layer, outputs: 74, activation });
        outputs.push(Array.from((await linear.run(x)).data));
      }
      expect(relativeError(outputs[0], outputs[1])).toBeLessThan(TOLERANCE);
    }
    const wide = { ...layer, inputs: 962, outputs: 1, activation: "none" } as const;
    await expect(small.prepareLinear(wide)).rejects.toThrow(UnsupportedError);
  }, SLOW);

  test("a lost device is worth a second try", async () => {
    const adapter = await findAdapter({ named: true });
    await using lost = new WebgpuBackend(await GpuDevice.open(adapter));
    const { plan, q, k, v } = problem({ rows: 10 });
    await using session = await lost.prepare(plan);
    await session.absorb(k, v);
    lost.gpu.device.destroy();
    await expect(session.emit(q)).rejects.toThrow(TransientError);
    await expect(session.absorb(k, v)).rejects.toThrow("try again");
  }, SLOW);

  test("a rejected command is a bug, lack of memory is worth a smaller tile", async () => {
    const adapter = await findAdapter({ named: true });
    const gpu = await GpuDevice.open(adapter);
    const staging = new BufferSet(gpu).staging(16, "test");
    expect(await gpu.read(staging, 16, (floats) => floats[0])).toBe(0);
    gpu.device.createBuffer({ size: 16, usage: 3 });
    await gpu.device.queue.onSubmittedWorkDone();
    const failure = await gpu.read(staging, 16, () => null).catch((error) => error);
    expect(failure.message).toStartWith("WebGPU rejected a command");
    expect(failure).not.toBeInstanceOf(TransientError);
    expect(() => gpu.buffer(2 ** 45, 128, "test")).toThrow("use a smaller --tile");
    gpu.dispose();
  }, SLOW);

  test("auto never takes a software adapter", async () => {
    if (!backend!.gpu.software) return;
    await expect(webgpu.open({ named: false })).rejects.toThrow(UnsupportedError);
  }, SLOW);

  test("an unknown variant is a usage error", async () => {
    await expect(webgpu.open({ named: true, variant: "x" })).rejects.toThrow(UsageError);
  });

  test("50 rounds with forced garbage collection", async () => {
    const child = Bun.spawn([process.execPath, "run", new URL("webgpu_rounds.ts", import.meta.url).pathname], {
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, errors] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    expect(errors).toBe("");
    expect(out).toBe("50 rounds\n");
    expect(await child.exited).toBe(0);
  }, SLOW);
});

test("all kernels are valid WGSL for Dawn's null backend", async () => {
  let root: GPU;
  try {
    root = await createRoot(["backend=null"]);
  } catch (error) {
    if (error instanceof UnsupportedError) return console.warn(`skipped: ${error.reason}`);
    throw error;
  }
  for (const subgroups of [true, false]) {
    const gpu = await GpuDevice.open((await root.requestAdapter())!, { subgroups });
    for (const map of ["hyperbolic", "positive", "trigonometric", "relu"]) {
      const constants = constantsOf(problem({ map }).plan);
      for (const pass of ["keys", "queries"] as const) await gpu.pipeline(pass, constants);
      // The null device has 16 KiB of workgroup memory; that is found out after the text was accepted.
      await expect(gpu.pipeline("causal", constants)).rejects.toThrow("workgroup storage");
    }
    for (const pass of ["merge", "scan", "exact"] as const) await gpu.pipeline(pass);
    gpu.dispose();
  }
}, SLOW);

test("software adapters are known by name", () => {
  const info = (fields: Partial<GPUAdapterInfo>) =>
    ({ vendor: "", architecture: "", device: "", description: "", ...fields }) as GPUAdapterInfo;
  expect(isSoftware(info({ vendor: "google", architecture: "swiftshader" }))).toBe(true);
  expect(isSoftware(info({ vendor: "mesa", device: "llvmpipe (LLVM 15.0.6, 256 bits)" }))).toBe(true);
  expect(isSoftware(info({ description: "Microsoft Basic Render Driver" }))).toBe(true);
  expect(isSoftware(info({ isFallbackAdapter: true }))).toBe(true);
  expect(isSoftware(info({ vendor: "nvidia", architecture: "hopper", description: "NVIDIA H100" }))).toBe(false);
});

test("a plan is cut to the device", () => {
  const { plan } = problem({ heads: 6, kvHeads: 4, features: 64, headDim: 8, valueDim: 8, rows: 1000, tileRows: 1e6 });
  const layout = layoutOf(plan); // a head's state: 176 vec4s
  const large = cutOf(plan, layout, { software: false, maxBytes: 2 ** 28 });
  expect(large).toMatchObject({ capacity: 1e6, heads: 4, ranges: 255, rounds: [{ kv0: 0, kv1: 4, h0: 0, h1: 6 }] });
  const small = cutOf({ ...plan, causal: true }, layout, { software: true, maxBytes: 2816 * 3 });
  expect(small).toMatchObject({ capacity: 44, heads: 3, partials: 1 });
  expect(small.rounds).toEqual([{ kv0: 0, kv1: 3, h0: 0, h1: 5 }, { kv0: 3, kv1: 4, h0: 5, h1: 6 }]);
  expect(() => cutOf(plan, layout, { software: false, maxBytes: 2000 })).toThrow("use fewer features");
  expect(keyRanges(1, 8)).toEqual({ ranges: 1, share: 32 });
  expect(keyRanges(1000, 3)).toEqual({ ranges: 3, share: 352 });
});

test("tar files", () => {
  const tar = new Uint8Array(2048);
  tar.set(new TextEncoder().encode("folder/a.txt"), 0);
  tar.set(new TextEncoder().encode("00000000003\0"), 124);
  tar[156] = 0x30;
  tar.set([7, 8, 9], 512);
  expect([...tarFiles(tar)].map(({ name, bytes }) => [name, ...bytes])).toEqual([["folder/a.txt", 7, 8, 9]]);
});
