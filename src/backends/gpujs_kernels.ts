/**
 * gpu.js as this backend uses it: fixed-shape kernels from whole files, numbers through `constants`, flat arrays in and out.
 *
 * What is worked around (gpu.js 2.24.1):
 * - It reads kernels with `toString()` when given functions, and Bun rewrites those; so kernels are imported as text.
 * - A kernel of a new size is compiled again; every kernel here keeps one shape.
 * - webasm copies the result once and then cuts it into thousands of views (4 ms of 10 for 1024 × 256 × Array(4)); the cutting
 *   is switched off. Should that private hook go away, `flatten` below still reads the views.
 */
import denseText from "../../kernels/gpujs/dense.gpu.js" with { type: "text" };
import exponentialText from "../../kernels/gpujs/exponential.gpu.js" with { type: "text" };
import exponentialCellText from "../../kernels/gpujs/exponential_cell.gpu.js" with { type: "text" };
import pointwiseText from "../../kernels/gpujs/pointwise.gpu.js" with { type: "text" };
import productText from "../../kernels/gpujs/product.gpu.js" with { type: "text" };
import productCellText from "../../kernels/gpujs/product_cell.gpu.js" with { type: "text" };
import trigonometricText from "../../kernels/gpujs/trigonometric.gpu.js" with { type: "text" };

export type GpuJsMode = "webasm" | "cpu";

/** The part of gpu.js that is used; its own types declare `input` as a type only. */
export interface GpuJsModule {
  readonly GPU: new (settings: { mode: string }) => GpuJsInstance;
  readonly input: (values: Float32Array, size: number[]) => unknown;
}

interface GpuJsInstance {
  createKernel(source: string, settings: { output: number[]; constants: Record<string, number> }): GpuJsKernel;
  destroy(): Promise<void>;
}

interface GpuJsKernel {
  (...values: unknown[]): Nested;
  build(...values: unknown[]): void;
  destroy(): void;
  readonly kernel: { constructor: { mode?: string }; _shapeOutput?: (data: Float32Array) => Nested };
}

type Nested = Float32Array | Nested[];

/** A kernel of one shape. The result is valid until the next call of the same kernel. */
export type Kernel = (...values: Float32Array[]) => Float32Array;

/** Sizes of an output of quads: `chunks × rows` quads of 4 × `width` columns (kernels/gpujs/product.gpu.js). */
export interface QuadShape {
  readonly chunks: number;
  /** Quads per chunk: rows / 4. */
  readonly quads: number;
  readonly width: number;
}

/** Numbers that are summed before they join the total: keeps float32 sums of 1024 numbers to 1e-6. */
export const BLOCK = 16;

/** The next size that products accept as depth: a multiple of 4 up to 16, of 16 above. */
export function padDepth(depth: number): number {
  const step = depth <= BLOCK ? 4 : BLOCK;
  return Math.ceil(depth / step) * step;
}

/** The package, or null when it is not installed. */
export async function loadGpuJs(): Promise<GpuJsModule | null> {
  try {
    const module = await import("gpu.js") as unknown as GpuJsModule & { default?: GpuJsModule };
    return module.default?.GPU ? module.default : module;
  } catch {
    return null;
  }
}

interface Source {
  readonly text: string;
  readonly output: number[];
  /** Of the arguments. */
  readonly lengths: readonly number[];
  readonly constants: Record<string, number>;
}

/** One gpu.js instance and its compiled kernels. Sessions that want the same kernel share it: redraws of a projection do. */
export class GpuJs implements AsyncDisposable {
  readonly #gpu: GpuJsInstance;
  readonly #compiled = new Map<string, { readonly run: GpuJsKernel; users: number }>();

  constructor(readonly module: GpuJsModule, readonly mode: GpuJsMode) {
    this.#gpu = new module.GPU({ mode });
  }

  /** The kernel, compiled unless it is; `release` it once per `acquire`. */
  acquire({ text, output, lengths, constants }: Source): { key: string; run: GpuJsKernel } {
    const source = text.slice(text.indexOf("function "));
    const key = JSON.stringify([source, output, lengths, constants]);
    let held = this.#compiled.get(key);
    if (!held) {
      const run = this.#gpu.createKernel(source, { output, constants });
      run.build(...lengths.map((length) => this.module.input(new Float32Array(length), [length])));
      if (run.kernel.constructor.mode !== this.mode) {
        throw new Error(`gpu.js fell back to ${run.kernel.constructor.mode}`);
      }
      if (run.kernel._shapeOutput) run.kernel._shapeOutput = (data) => data;
      this.#compiled.set(key, held = { run, users: 0 });
    }
    held.users++;
    return { key, run: held.run };
  }

  release(key: string): void {
    const held = this.#compiled.get(key);
    if (!held || --held.users > 0) return;
    this.#compiled.delete(key);
    held.run.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#gpu.destroy();
  }
}

/** The kernels of one session. */
export class Kernels implements Disposable {
  readonly #held: string[] = [];

  constructor(readonly gpu: GpuJs) {}

  /** C = A·B over chunks; `sharedA`, `sharedB`: one matrix for all chunks. `depth` must be `padDepth` of something. */
  product(shape: QuadShape, depth: number, shared: { a?: boolean; b?: boolean } = {}): Kernel {
    const { chunks, quads, width } = shape;
    const a = quads * depth * 4;
    const b = depth * width;
    const text = this.#vectors ? productText : productCellText;
    return this.#make(text, this.#vectors, shape, [shared.a ? a : chunks * a, shared.b ? b : chunks * b], {
      depth,
      width,
      block: Math.min(depth, BLOCK),
      aBlock: shared.a ? 0 : a,
      bBlock: shared.b ? 0 : b,
    });
  }

  /** exp(±u + xShift + yShift); `u` is `uQuads × uWidth` quads per chunk, the rest of the shape takes −u. */
  exponential(shape: QuadShape, uQuads: number, uWidth: number): Kernel {
    const { chunks, quads, width } = shape;
    const text = this.#vectors ? exponentialText : exponentialCellText;
    const lengths = [chunks * uQuads * uWidth * 4, chunks * width, chunks * quads * 4];
    return this.#make(text, this.#vectors, shape, lengths, { width, rows: quads, uRows: uQuads, uWidth });
  }

  /** (sin u, cos u) · gain · scale; arguments as in `exponential`. */
  trigonometric(shape: QuadShape, uQuads: number, uWidth: number, gain: number): Kernel {
    const { chunks, width } = shape;
    const lengths = [chunks * uQuads * uWidth * 4, chunks * width];
    return this.#make(trigonometricText, false, shape, lengths, { width, uRows: uQuads, uWidth, gain });
  }

  /** (f(u) · gain + epsilon) · scale; `activation` is a place in ACTIVATIONS. */
  pointwise(shape: QuadShape, activation: number, gain: number, epsilon: number): Kernel {
    const { chunks, quads, width } = shape;
    const lengths = [chunks * quads * width * 4, chunks * width];
    return this.#make(pointwiseText, false, shape, lengths, { width, rows: quads, activation, gain, epsilon });
  }

  /** f(u + bias), or gated by what stands `width` columns on; `u` has `uWidth` columns, `activation` is a place in its list. */
  dense(shape: QuadShape, uWidth: number, activation: number): Kernel {
    const { quads, width } = shape;
    return this.#make(denseText, false, shape, [quads * uWidth * 4, uWidth], { width, uWidth, activation });
  }

  /** Cells run four by four. */
  get #vectors(): boolean {
    return this.gpu.mode === "webasm";
  }

  /** Compiles at once; `lengths` are those of the arguments. */
  #make(
    text: string,
    quadCells: boolean,
    { chunks, quads, width }: QuadShape,
    lengths: readonly number[],
    constants: Record<string, number>,
  ): Kernel {
    const { input } = this.gpu.module;
    const output = [quadCells ? width : width * 4, quads, chunks];
    const { key, run } = this.gpu.acquire({ text, output, lengths, constants });
    this.#held.push(key);
    let flat: Float32Array | undefined;
    return (...values) => {
      const result = run(...values.map((value, at) => input(value, [lengths[at]])));
      if (result instanceof Float32Array) return result;
      flat ??= new Float32Array(chunks * quads * width * 4);
      flatten(result, flat, 0);
      return flat;
    };
  }

  [Symbol.dispose](): void {
    for (const key of this.#held.splice(0)) this.gpu.release(key);
  }
}

/** Copies nested arrays in order; returns the end. */
function flatten(nested: Nested, into: Float32Array, at: number): number {
  if (!Array.isArray(nested)) {
    into.set(nested, at);
    return at + nested.length;
  }
  for (const part of nested) at = flatten(part, into, at);
  return at;
}
