/** onnxruntime-node as this backend uses it: loaded when asked for, graphs compiled once, float32 tensors over our own arrays. */
import { assets } from "../assets.ts";
import type { Graph } from "./onnx_graph.ts";

/** A float32 tensor over `data`, which stays ours: runs read it, or write it when it is a result. */
export interface OrtTensor {
  readonly data: Float32Array;
}

/** By the names of a graph's inputs or outputs. */
export type Tensors = Readonly<Record<string, OrtTensor>>;

interface OrtSession {
  run(feeds: Tensors, fetches: Tensors): Promise<Tensors>;
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

/** Its name on npm. Never the literal of an import, so that type checks and bundles do without the package. */
export const PACKAGE: string = "onnxruntime-node";

/** Imports the package; throws what the runtime throws when it is not there. */
export async function importPackage(): Promise<OrtModule> {
  const module = await assets.optional(PACKAGE) as OrtModule & { readonly default?: OrtModule };
  return module.default ?? module;
}

/** Compiled graphs of one setting of threads. */
export class Runtime {
  constructor(readonly module: OrtModule, readonly threads: number) {}

  get version(): string {
    const { node, common } = this.module.env.versions;
    return node ?? common;
  }

  /**
   * Compiles a graph. One graph runs at a time, its operators one by one, each on all threads. Every graph has threads of its own,
   * which by default spin for so long after a run that they take a core from the next graph: keys and queries in turn took 151 ms
   * for 16,384 rows, with a millisecond of spinning 106 ms (Bun 1.4.5, two cores of a Zen 5, H 8, d 64, r 256).
   */
  async compile(graph: Graph): Promise<Program> {
    const session = await this.module.InferenceSession.create(graph.encode(), {
      executionProviders: ["cpu"],
      executionMode: "sequential",
      graphOptimizationLevel: "all",
      intraOpNumThreads: this.threads,
      interOpNumThreads: 1,
      extra: { session: { intra_op: { spin_duration_us: "1000" } } },
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

  /**
   * Runs the graph; `results` hold what it returns, by name, once this settles. The package copies every result into an array of
   * its own as well; those are let go at once, as waiting for the collector made every run touch fresh memory (a mean of 5.7 ms
   * against 2.8 ms for 1,024 rows of queries, Bun 1.4.5, two cores of a Zen 5).
   */
  async run(feeds: Tensors, results: Tensors): Promise<void> {
    const copies = await this.session.run(feeds, results);
    for (const [name, { data }] of Object.entries(copies)) {
      const buffer = data.buffer as ArrayBuffer;
      if (buffer !== results[name].data.buffer) buffer.transfer(0);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session.release();
  }
}

/** Runs work one after the other: graphs share the processor's cores. */
export class Turns {
  /** Settles when all work so far is done, well or not. */
  done: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.done.then(work);
    this.done = turn.catch(() => {});
    return turn;
  }
}
