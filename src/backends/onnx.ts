/**
 * Backend `onnx`: graphs of matrix products on the CPU by onnxruntime-node, an optional package.
 *
 * Measured on two cores of a Zen 5 (AVX-512), H 8, d = d_v = 64, r = 256, float32, tiles of 1,024 rows; medians of seven passes, range of
 * three runs of the program, during which the host was not always quiet:
 *
 * | what                                   | Bun 1.4.5                             | Deno 2.9.6                            |
 * |----------------------------------------|---------------------------------------|---------------------------------------|
 * | a product of 1024³ by the same library | 264–344 GFLOP/s                       | 293–327 GFLOP/s                       |
 * | `positive`, 16,384 rows, bidirectional | 135–156 GFLOP/s, 127,000–148,000 rows/s | 132–166 GFLOP/s, 125,000–157,000 rows/s |
 * | `positive`, 16,384 rows, causal        | 67,000–75,000 rows/s                  | 78,000 rows/s                         |
 * | exact softmax, 4,096 rows              | 122–154 GFLOP/s                       | 138–172 GFLOP/s                       |
 *
 * Peak memory of the process is the same for 8,192 and 262,144 rows (172–185 MiB on Bun). Tiles of 2,048 rows, and blocks of half, a quarter or
 * twice BLOCK_NUMBERS, were not faster by more than noise.
 */
import os from "node:os";
import { assets } from "../assets.ts";
import type { Backend, Driver, ExactSession, Linear, OpenOptions, Peak, Session } from "../backend.ts";
import { UnsupportedError, UsageError } from "../errors.ts";
import type { ExactPlan, Limits, LinearPlan, Plan } from "../plan.ts";
import { openExact, openTiled } from "./decayed.ts";
import { OnnxDense } from "./onnx_dense.ts";
import { OnnxExactKernels } from "./onnx_exact.ts";
import { Graph } from "./onnx_graph.ts";
import { OnnxTileKernels } from "./onnx_linear.ts";
import { importPackage, type OrtModule, PACKAGE, Runtime, type Tensors } from "./onnx_runtime.ts";
import { requireKernels } from "./tiled.ts";

class OnnxBackend implements Backend {
  readonly name = "onnx";
  readonly device: string;
  readonly threads: number;
  readonly limits: Limits = { precision: "f32", preferredTileRows: 1024, maxTileBytes: 16 << 20, inFlight: 1 };

  constructor(readonly runtime: Runtime) {
    const { threads } = runtime;
    this.threads = threads;
    this.device = `onnxruntime ${runtime.version} cpu × ${threads} ${threads === 1 ? "thread" : "threads"}`;
  }

  async prepare(plan: Plan): Promise<Session> {
    requireKernels(this.name, plan);
    return await openTiled(plan, (cut) => OnnxTileKernels.make(cut, this.runtime));
  }

  async prepareExact(plan: ExactPlan): Promise<ExactSession> {
    return await openExact(plan, (cut) => OnnxExactKernels.make(cut, this.runtime));
  }

  async prepareLinear(plan: LinearPlan): Promise<Linear> {
    return await OnnxDense.make(plan, this.runtime);
  }

  /** A MatMul of 1024³, and a Neg of 2²⁴ numbers of which one is returned (results are copied once more, which is not the point). */
  async measurePeak(seconds: number): Promise<Peak> {
    const { runtime } = this;
    const size = 1024;
    const square = () => runtime.tensor(new Float32Array(size * size).fill(0.5), [size, size]);
    const product = new Graph("product");
    const factors = [product.input("a", [size, size]), product.input("b", [size, size])];
    product.output("c", product.node("MatMul", factors), [size, size]);
    const productTime = await this.#fastest(product, { a: square(), b: square() }, { c: square() }, seconds / 2);
    const length = 1 << 24;
    const copy = new Graph("copy");
    const [first, last] = [copy.integers([0]), copy.integers([1])];
    copy.output("c", copy.node("Slice", [copy.node("Neg", [copy.input("a", [length])]), first, last]), [1]);
    const line = runtime.tensor(new Float32Array(length).fill(0.5), [length]);
    const one = runtime.tensor(new Float32Array(1), [1]);
    const copyTime = await this.#fastest(copy, { a: line }, { c: one }, seconds / 2);
    return { flopsPerSecond: 2 * size ** 3 / productTime, bytesPerSecond: 8 * length / copyTime };
  }

  /** Shortest of the runs that fit in `seconds`, at least three. */
  async #fastest(graph: Graph, feeds: Tensors, results: Tensors, seconds: number): Promise<number> {
    await using program = await this.runtime.compile(graph);
    let best = Infinity;
    const until = performance.now() + seconds * 1000;
    for (let run = 0; run < 3 || performance.now() < until; run++) {
      const start = performance.now();
      await program.run(feeds, results);
      best = Math.min(best, (performance.now() - start) / 1000);
    }
    return best;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** Opens the backend; `load` imports the package, and tests pass another one. */
export async function openOnnx(
  { variant, threads = os.availableParallelism() }: OpenOptions,
  load: () => Promise<OrtModule> = importPackage,
): Promise<Backend> {
  if (variant !== undefined && variant !== "cpu") {
    throw new UsageError(`Unknown onnx variant "${variant}", expected cpu`);
  }
  let module: OrtModule;
  try {
    module = await load();
  } catch (error) {
    throw new UnsupportedError("onnx", refusal(error as Error & { code?: string }));
  }
  return new OnnxBackend(new Runtime(module, threads));
}

/** Why the package does not load, and what helps. */
function refusal({ code, message }: Error & { code?: string }): string {
  const absent = code === "ERR_MODULE_NOT_FOUND" || code === "MODULE_NOT_FOUND";
  if (absent && message.includes(PACKAGE)) {
    return `the package "${PACKAGE}" is not installed; run npm install ${PACKAGE}${assets.where}`;
  }
  return `the package "${PACKAGE}" does not load: ${message.split("\n")[0]}`;
}

export const onnx: Driver = { name: "onnx", open: (options) => openOnnx(options) };
