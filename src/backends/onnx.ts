/** Backend `onnx`: graphs of matrix products on the CPU by onnxruntime-node, an optional package. */
import os from "node:os";
import type { Backend, Driver, ExactSession, OpenOptions, Peak, Session } from "../backend.ts";
import { UnsupportedError, UsageError } from "../errors.ts";
import type { ExactPlan, Limits, Plan } from "../plan.ts";
import { OnnxExactKernels } from "./onnx_exact.ts";
import { Graph } from "./onnx_graph.ts";
import { OnnxTileKernels } from "./onnx_linear.ts";
import { importPackage, type OrtModule, PACKAGE, Runtime } from "./onnx_runtime.ts";
import { OnlineExactSession } from "./online.ts";
import { TiledSession } from "./tiled.ts";

class OnnxBackend implements Backend {
  readonly name = "onnx";
  readonly device: string;
  readonly limits: Limits = { precision: "f32", preferredTileRows: 1024, maxTileBytes: 16 << 20, inFlight: 1 };

  constructor(readonly runtime: Runtime) {
    const { threads } = runtime;
    this.device = `onnxruntime ${runtime.version} cpu × ${threads} ${threads === 1 ? "thread" : "threads"}`;
  }

  async prepare(plan: Plan): Promise<Session> {
    return new TiledSession(plan, await OnnxTileKernels.make(plan, this.runtime));
  }

  async prepareExact(plan: ExactPlan): Promise<ExactSession> {
    return new OnlineExactSession(plan, await OnnxExactKernels.make(plan, this.runtime));
  }

  /** A MatMul of 1024³ and a Neg of 2²⁴ numbers; the best runs count. */
  async measurePeak(seconds: number): Promise<Peak> {
    const { runtime } = this;
    const size = 1024;
    const square = () => runtime.tensor(new Float32Array(size * size).fill(0.5), [size, size]);
    const product = new Graph("product");
    const factors = [product.input("a", [size, size]), product.input("b", [size, size])];
    product.output("c", product.node("MatMul", factors), [size, size]);
    const length = 1 << 24;
    const copy = new Graph("copy");
    copy.output("c", copy.node("Neg", [copy.input("a", [length])]), [length]);
    const line = () => runtime.tensor(new Float32Array(length), [length]);
    const productTime = await this.#fastest(product, { a: square(), b: square() }, { c: square() }, seconds / 2);
    const copyTime = await this.#fastest(copy, { a: line() }, { c: line() }, seconds / 2);
    return { flopsPerSecond: 2 * size ** 3 / productTime, bytesPerSecond: 8 * length / copyTime };
  }

  /** Shortest of the runs that fit in `seconds`, at least three. */
  async #fastest(graph: Graph, feeds: Feeds, results: Feeds, seconds: number): Promise<number> {
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

type Feeds = Parameters<import("./onnx_runtime.ts").Program["run"]>[0];

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
    return `the package "${PACKAGE}" is not installed; run npm install ${PACKAGE}`;
  }
  return `the package "${PACKAGE}" does not load: ${message.split("\n")[0]}`;
}

export const onnx: Driver = { name: "onnx", open: (options) => openOnnx(options) };
