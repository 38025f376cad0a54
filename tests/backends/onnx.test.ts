/** What is particular to the backend `onnx`: its package, the graph writer, blocks and memory. Its laws are in tests/conformance. */
import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { ACTIVATION_FUNCTIONS } from "../../kernels/scalar/activations.ts";
import type { Backend } from "../../src/backend.ts";
import { onnx, openOnnx } from "../../src/backends/onnx.ts";
import { ACTIVATION_NODES } from "../../src/backends/onnx_activations.ts";
import { Graph } from "../../src/backends/onnx_graph.ts";
import { importPackage, type OrtModule, Runtime } from "../../src/backends/onnx_runtime.ts";
import { goldenError } from "../../src/backends/self_test.ts";
import { UnsupportedError, UsageError } from "../../src/errors.ts";
import { ACTIVATIONS } from "../../src/feature_map.ts";
import { dense, expectNear } from "../conformance/dense.ts";
import { makeProblem, mapTile, planFor, rowsOf, run, runExact } from "../conformance/harness.ts";
import { fieldsOf, pick, texts } from "./onnx_proto.ts";

const named = { named: true } as const;
const failing = (message: string, code?: string) => () => Promise.reject(Object.assign(new Error(message), { code }));

describe("the package", () => {
  test.each([
    "Cannot find package 'onnxruntime-node' imported from /p/src/backends/onnx_runtime.ts", // Bun
    'Import "onnxruntime-node" not a dependency', // Deno
  ])("absent: refuses with the command that adds it (%s)", async (message) => {
    const opening = openOnnx(named, failing(message, "ERR_MODULE_NOT_FOUND"));
    await expect(opening).rejects.toBeInstanceOf(UnsupportedError);
    await expect(opening).rejects.toThrow(/"onnxruntime-node" is not installed; run npm install onnxruntime-node/);
  });

  test("there, but it does not load: refuses with the reason, in one line", async () => {
    const opening = openOnnx(named, failing("libonnxruntime.so.1: cannot open shared object file\n at x"));
    await expect(opening).rejects.toBeInstanceOf(UnsupportedError);
    await expect(opening).rejects.toThrow(/"onnxruntime-node" does not load: .*shared object file$/);
  });

  test("its own dependency absent is not the package absent", async () => {
    const opening = openOnnx(named, failing("Cannot find package 'onnxruntime-common'", "ERR_MODULE_NOT_FOUND"));
    await expect(opening).rejects.toThrow(/does not load: Cannot find package 'onnxruntime-common'/);
  });

  test("an unknown variant is wrong usage, before anything is loaded", async () => {
    await expect(openOnnx({ named: true, variant: "cuda" }, failing("loaded"))).rejects.toBeInstanceOf(UsageError);
  });
});

/** `tiny()` of the graph writer. */
const GOLDEN =
  "08081209706572666f726d65723a610a0d0a017812025f31220452656c750a100a025f310a025f3012017922034d756c12047469" +
  "6e792a0c100142025f304a040000003f5a140a0178120f0a0d080112090a0312016e0a02080262140a0179120f0a0d080112090a" +
  "0312016e0a02080242040a00101242110a0d636f6d2e6d6963726f736f66741001";

describe("the graph writer", () => {
  /** y = max(x, 0) · 0.5 for x of `n × 2`. */
  const tiny = () => {
    const g = new Graph("tiny");
    const half = g.constant(0.5);
    g.output("y", g.node("Mul", [g.node("Relu", [g.input("x", ["n", 2])]), half]), ["n", 2]);
    return g;
  };

  test("writes these bytes", () => {
    expect(Buffer.from(tiny().encode()).toString("hex")).toBe(GOLDEN);
  });

  test("whose fields are those of onnx.proto", () => {
    const model = tiny().encode();
    const ops = [[7, 1, 1], [7, 1, 2], [7, 1, 4]].map((path) => texts(model, path));
    expect(ops).toEqual([["x", "_1", "_0"], ["_1", "y"], ["Relu", "Mul"]]);
    expect([[2], [7, 2], [7, 5, 8], [7, 11, 1], [7, 12, 1]].flatMap((path) => texts(model, path)))
      .toEqual(["performer", "tiny", "_0", "x", "y"]);
    expect(fieldsOf(model).find(({ number }) => number === 1)!.value).toBe(8); // IR version
    const [opset] = pick(model, [8]);
    expect(fieldsOf(opset).map(({ number, value }) => [number, value])).toEqual([[1, 0], [2, 18]]);
    expect(Array.from(pick(model, [7, 5, 9])[0])).toEqual([0, 0, 0, 0x3f]); // 0.5, little-endian
    const dims = pick(model, [7, 11, 2, 1, 2, 1]);
    expect(texts(dims[0], [2])).toEqual(["n"]);
    expect(fieldsOf(dims[1])[0].value).toBe(2);
  });

  test("attributes: whole numbers (negative ones too), lists and floats; equal constants are one", () => {
    const g = new Graph("attributes");
    const x = g.input("x", [300]);
    g.node("Softmax", [x, g.constant(1), g.constant(1)], { axis: -1, perm: [1, 0], alpha: { float: 0.25 } });
    g.integers([7]);
    g.integers([7]);
    const model = g.encode();
    const attributes = pick(model, [7, 1, 5]).map((bytes) =>
      fieldsOf(bytes).map(({ number, value }) => [number, value])
    );
    expect(attributes).toEqual([
      [[1, 4], [3, -1], [20, 2]],
      [[1, 4], [8, 1], [8, 0], [20, 7]],
      [[1, 5], [2, 0.25], [20, 1]],
    ]);
    expect(pick(model, [7, 5]).length).toBe(2);
    expect(fieldsOf(pick(model, [7, 11, 2, 1, 2, 1])[0])[0].value).toBe(300); // a varint of two bytes
  });
});

/** The package, or why it is not here. */
async function present(): Promise<{ backend: Backend; module: OrtModule } | string> {
  try {
    return { backend: await onnx.open({ named: true, threads: 2 }), module: await importPackage() };
  } catch (error) {
    if (error instanceof UnsupportedError) return error.reason;
    throw error;
  }
}
const here = await present();

describe("with the package", () => {
  if (typeof here === "string") {
    test.skip(`not available: ${here}`, () => {});
    return;
  }
  const { backend, module } = here;

  test("says what runs", async () => {
    expect(backend.device).toMatch(/^onnxruntime \d+\.\d+\.\d+ cpu × 2 threads$/);
    await using one = await onnx.open({ named: true, threads: 1 });
    expect(one.device).toEndWith(" cpu × 1 thread");
    for (const opened of [backend, one]) expect(await goldenError(opened)).toBeLessThan(1e-6);
  });

  test("runs under Deno, with --allow-ffi alone", () => {
    const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
    const deno = path("../../node_modules/.bin/deno");
    const flags = ["run", "--no-prompt", "--allow-ffi", "--config", path("../../deno.json"), path("onnx_deno.ts")];
    const ran = spawnSync(deno, flags, { encoding: "utf8" });
    expect(ran.stderr).toBe("");
    const [device, error] = ran.stdout.trim().split("\n");
    expect(device).toEndWith(" cpu × 1 thread");
    expect(Number(error)).toBeLessThan(1e-6);
  }, 20_000);

  test.each(ACTIVATIONS)("%s keeps its digits, tails included", async (name) => {
    const u = Float32Array.from({ length: 4001 }, (_, i) => (i - 2000) / 50); // −40 … 40
    const g = new Graph(name);
    const y = ACTIVATION_NODES[name](g, g.input("u", [u.length]));
    g.output("y", y === "u" ? g.node("Identity", [y]) : y, [u.length]);
    const runtime = new Runtime(module, 1);
    await using program = await runtime.compile(g);
    const out = new Float32Array(u.length);
    await program.run({ u: runtime.tensor(u, [u.length]) }, { y: runtime.tensor(out, [u.length]) });
    out.forEach((value, at) => {
      const expected = ACTIVATION_FUNCTIONS[name](u[at]);
      // exp(−x²/2) of gelu's tail is off by its exponent's rounding; sin and cos are absolute near their zeros
      const relative = name === "gelu" ? 4e-7 + u[at] ** 2 * 2 ** -22 : 4e-7;
      const least = name === "sin" || name === "cos" ? 1 : 1e-37;
      expect(Math.abs(value - expected)).toBeLessThanOrEqual(relative * Math.max(Math.abs(expected), least));
    });
  });

  test.each(["positive", "relu", "trigonometric"])(
    "%s: tiles of several blocks and runs, grouped heads",
    async (map) => {
      const sizes = { map, heads: 16, kvHeads: 8, matrices: 2, headDim: 4, valueDim: 2, weighted: true };
      // 16 heads × 2048 features: blocks of 64 rows
      for (const rows of [{ keyRows: 130, queryRows: 1 }, { keyRows: 1, queryRows: 130 }]) {
        const problem = makeProblem({ ...sizes, features: 2048, ...rows });
        expectNear(await run(backend, problem, 130), dense(problem), "f32");
      }
      // 1,100 rows: two runs of causal chunks
      const long = makeProblem({
        ...sizes,
        heads: 2,
        kvHeads: 1,
        matrices: 1,
        features: 8,
        keyRows: 1100,
        causal: true,
      });
      expectNear(await run(backend, long), dense(long), "f32");
    },
    60_000,
  );

  test("a causal row is blind to a later NaN of its chunk", async () => {
    const problem = makeProblem({ map: "relu", causal: true, keyRows: 40 });
    const later = (at: number, cols: number) => at >= 30 * cols;
    const hurt = { ...problem, k: mapTile(problem.k, (x, at) => later(at, problem.k.cols) ? NaN : x) };
    const seen = 30 * problem.heads * problem.valueDim;
    const expected = dense(problem);
    const blind = { ...expected, out: expected.out.subarray(0, seen), condition: expected.condition.subarray(0, 60) };
    expectNear((await run(backend, hurt)).subarray(0, seen), blind, "f32");
  });

  test("outputs go where they are asked to go, zeros too", async () => {
    const problem = makeProblem({ keyRows: 10 });
    await using session = await backend.prepare(planFor(problem, 10));
    const into = new Float32Array(100).fill(7);
    const none = await session.emit(problem.q, null, into);
    expect(none.data.buffer).toBe(into.buffer);
    expect(none.data.every((value) => value === 0)).toBeTrue();
    await session.absorb(problem.k, problem.v);
    await session.emit(rowsOf(problem.q, 0, 10), null, into);
    expectNear(into.subarray(0, 60), dense(problem), "f32");
    expect(into[60]).toBe(7);
  });

  test("exact softmax of more tiles than are summed in float32 at once", async () => {
    const problem = makeProblem({ keyRows: 140, queryRows: 3 });
    const one = await runExact(backend, problem);
    const many = await runExact(backend, problem, 2); // 70 tiles
    one.forEach((value, at) => expect(Math.abs(value - many[at])).toBeLessThan(1e-5));
  });

  test("measures its peak", async () => {
    const peak = await backend.measurePeak!(0.1);
    expect(peak.flopsPerSecond).toBeGreaterThan(1e9);
    expect(peak.bytesPerSecond).toBeGreaterThan(1e8);
  });

  test("memory does not grow with the number of tiles", async () => {
    const problem = makeProblem({ keyRows: 512, heads: 4, headDim: 32, valueDim: 32, features: 64 });
    await using session = await backend.prepare(planFor(problem, 512));
    const into = new Float32Array(512 * 128);
    const megabytes = async (tiles: number) => {
      for (let tile = 0; tile < tiles; tile++) {
        await session.absorb(problem.k, problem.v);
        await session.emit(problem.q, null, into);
      }
      Bun.gc(true);
      return process.memoryUsage().rss / 2 ** 20;
    };
    await megabytes(50);
    const before = await megabytes(50);
    const after = await megabytes(600); // 600 tiles make 150 MB of results
    expect(after - before).toBeLessThan(48);
  }, 60_000);
});
