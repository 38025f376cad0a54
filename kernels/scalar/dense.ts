/** A dense layer, y = f(W x + b) per row (kernels/README.md §8), in float64: the reference of the other columns. */
import { ACTIVATION_FUNCTIONS } from "./activations.ts";
import type { Rows } from "./types.ts";

/** A layer (LinearPlan of src/plan.ts). */
export interface DenseNumbers {
  readonly inputs: number;
  readonly outputs: number;
  /** W, `outputs × inputs`, or its diagonal blocks, `groups × outputs/groups × inputs/groups`. */
  readonly weight: Float32Array | Float64Array;
  readonly groups?: number;
  /** b, or null for zeros. */
  readonly bias: Float32Array | Float64Array | null;
  readonly activation: "none" | "relu" | "gelu" | "gelu-glu";
}

/** Outputs of every row of `x` into `out`, `rows × outputs`, or `rows × outputs / 2` of a gated layer. */
export function dense(layer: DenseNumbers, x: Rows, out: Float32Array | Float64Array): void {
  const { inputs, outputs, weight, bias, activation, groups = 1 } = layer;
  const terms = inputs / groups;
  const u = new Float64Array(outputs);
  const width = activation === "gelu-glu" ? outputs / 2 : outputs;
  for (let i = 0; i < x.rows; i++) {
    for (let o = 0; o < outputs; o++) {
      const at = i * inputs + Math.floor(o * groups / outputs) * terms;
      let dot = 0;
      for (let l = 0; l < terms; l++) dot += weight[o * terms + l] * x.data[at + l];
      u[o] = dot + (bias ? bias[o] : 0);
    }
    for (let o = 0; o < width; o++) out[i * width + o] = activate(activation, u, o, width);
  }
}

function activate(activation: DenseNumbers["activation"], u: Float64Array, o: number, width: number): number {
  const { relu, gelu } = ACTIVATION_FUNCTIONS;
  switch (activation) {
    case "none":
      return u[o];
    case "relu":
      return relu(u[o]);
    case "gelu":
      return gelu(u[o]);
    case "gelu-glu":
      return gelu(u[o]) * u[width + o];
  }
}
