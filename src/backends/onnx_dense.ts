/**
 * Dense layers on onnxruntime: a Gemm whose W is a constant of the graph, so that the runtime packs it once, with bias and activation.
 *
 * Measured, 2 threads, 1,024 rows, AMD Zen 5 (AVX-512), Bun, in GFLOP/s; a product of 1024³ reaches 247:
 *
 *     640 → 2,560   200–254, with gelu 214, gated (5,120 outputs) 244         200 → 800   200, with gelu 160
 *
 * Predicted: near the product's, as the runtime joins bias and gelu to few passes. A gated layer by Split took 75 ms instead of 28.
 */
import type { Linear } from "../backend.ts";
import { UnsupportedError } from "../errors.ts";
import { checkLinear, checkRows, type LinearPlan, outputWidth, ungrouped } from "../plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { Spare } from "./onnx_arrays.ts";
import { Graph } from "./onnx_graph.ts";
import { type Program, type Runtime, Turns } from "./onnx_runtime.ts";

/** Numbers of u, `rows × outputs`, of one run: what a block may hold, so that it stays in the last cache (8 MiB). */
const BLOCK_NUMBERS = 1 << 21;
const LEAST_ROWS = 64;
/** Protobuf messages, and so models, end at 2 GiB. */
const MOST_BYTES = 2 ** 31 - 2 ** 20;

export class OnnxDense implements Linear {
  readonly #width: number;
  readonly #blockRows: number;
  readonly #spare = new Spare();
  readonly #turns = new Turns();

  private constructor(readonly plan: LinearPlan, readonly runtime: Runtime, readonly program: Program) {
    this.#width = outputWidth(plan);
    this.#blockRows = Math.max(LEAST_ROWS, Math.floor(BLOCK_NUMBERS / plan.outputs / 16) * 16);
  }

  static async make(plan: LinearPlan, runtime: Runtime): Promise<OnnxDense> {
    checkLinear(plan);
    return new OnnxDense(plan, runtime, await runtime.compile(denseGraph(ungrouped(plan))));
  }

  async run(x: Tile, into?: FloatArray): Promise<Tile> {
    checkRows(this.plan, x);
    const { runtime, plan: { inputs } } = this;
    const width = this.#width;
    const data = this.#spare.copy(x.data);
    const out = (into?.subarray(0, x.rows * width) ?? new Float32Array(x.rows * width)) as Float32Array;
    await this.#turns.run(async () => {
      for (let from = 0; from < x.rows; from += this.#blockRows) {
        const to = Math.min(x.rows, from + this.#blockRows);
        const rows = (all: Float32Array, cols: number) =>
          runtime.tensor(all.subarray(from * cols, to * cols), [to - from, cols]);
        await this.program.run({ x: rows(data, inputs) }, { y: rows(out, width) });
      }
      this.#spare.give(data);
    });
    return { start: x.start, rows: x.rows, cols: width, data: out };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turns.done;
    await this.program[Symbol.asyncDispose]();
  }
}

/** x, `n × inputs` → y, `n × outputs` or half of it. Throws UnsupportedError when W does not fit in a model. */
function denseGraph(plan: LinearPlan): Graph {
  const { inputs, outputs } = plan;
  if (inputs * outputs * 4 > MOST_BYTES) {
    throw new UnsupportedError("onnx", `a layer of ${outputs} × ${inputs} is larger than 2 GiB, where ONNX models end`);
  }
  const g = new Graph("dense");
  g.input("x", ["n", inputs]);
  const width = outputWidth(plan);
  const u = product(g, plan, 0, width);
  g.output("y", activate(g, plan, u), ["n", width]);
  return g;
}

/** u of outputs `from … to − 1`. */
function product(g: Graph, { inputs, weight, bias }: LinearPlan, from: number, to: number): string {
  const numbers = (all: FloatArray) => all instanceof Float32Array ? all : new Float32Array(all);
  const factors = ["x", g.constant(numbers(weight.subarray(from * inputs, to * inputs)), [to - from, inputs])];
  if (bias) factors.push(g.constant(numbers(bias.subarray(from, to)), [to - from]));
  return g.node("Gemm", factors, { transB: 1 });
}

/** The gate and what it gates are products of their own: to split one costs a copy of it. */
function activate(g: Graph, plan: LinearPlan, u: string): string {
  switch (plan.activation) {
    case "none":
      return u;
    case "relu":
      return g.node("Relu", [u]);
    case "gelu":
      return gelu(g, u);
    case "gelu-glu":
      return g.node("Mul", [gelu(g, u), product(g, plan, outputWidth(plan), plan.outputs)]);
  }
}

/** u/2 · (1 + erf(u/√2)), in the form that the runtime joins into one pass. */
function gelu(g: Graph, u: string): string {
  const erf = g.node("Erf", [g.node("Div", [u, g.constant(Math.SQRT2)])]);
  return g.node("Mul", [g.node("Mul", [u, g.node("Add", [erf, g.constant(1)])]), g.constant(0.5)]);
}
