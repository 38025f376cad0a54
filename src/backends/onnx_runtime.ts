/** onnxruntime-node as this backend uses it: loaded when asked for, graphs compiled once, float32 tensors over our own arrays. */
import type { Graph } from "./onnx_graph.ts";

/** A float32 tensor over `data`, which stays ours: runs read it, or write it when it is a result. */
export interface OrtTensor {
  readonly data: Float32Array;
}

type Tensors = Readonly<Record<string, OrtTensor>>;

interface OrtSession {
  run(feeds: Tensors, fetches: Tensors): Promise<unknown>;
  release(): Promise<void>;
}

/** The part of the package that is used. */
export interface OrtModule {
  readonly InferenceSession: {
    create(model: Uint8Array, options: Readonly<Record<string, unknown>>): Promise<OrtSession>;
  };
  readonly Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => OrtTensor;
  readonly env: { readonly versions: { readonly node?: string; readonly common: string } };
}

/** Its name on npm. Not a literal in the import below, so that type checks and bundles do without the package. */
export const PACKAGE: string = "onnxruntime-node";

/** Imports the package; throws what the runtime throws when it is not there. */
export async function importPackage(): Promise<OrtModule> {
  const module = await import(PACKAGE);
  return module.default ?? module;
}

/** Compiled graphs of one setting of threads. */
export class Runtime {
  constructor(readonly module: OrtModule, readonly threads: number) {}

  get version(): string {
    const { node, common } = this.module.env.versions;
    return node ?? common;
  }

  /** Compiles a graph. One graph runs at a time, its operators one by one, each on all threads. */
  async compile(graph: Graph): Promise<Program> {
    const session = await this.module.InferenceSession.create(graph.encode(), {
      executionProviders: ["cpu"],
      executionMode: "sequential",
      graphOptimizationLevel: "all",
      intraOpNumThreads: this.threads,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
    });
    return new Program(session);
  }

  tensor(data: Float32Array, dims: readonly number[]): OrtTensor {
    return new this.module.Tensor("float32", data, dims);
  }
}

/** One compiled graph. */
export class Program implements AsyncDisposable {
  constructor(readonly session: OrtSession) {}

  /** Runs the graph; `results` hold what it returns, by name, once this settles. */
  async run(feeds: Tensors, results: Tensors): Promise<void> {
    await this.session.run(feeds, results);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session.release();
  }
}
