/** Non-linearities that backends do not have: applied on the host to what a dense layer made. */
import type { Linear } from "../backend.ts";
import type { LinearPlan } from "../plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import type { DenseActivation } from "./description.ts";

export type HostActivation = Exclude<DenseActivation, LinearPlan["activation"]>;

const FUNCTIONS: Readonly<Record<HostActivation, (x: number) => number>> = {
  /** √(2/π) and 0.044715: arXiv 1606.08415 §2; "gelu_new" of Hugging Face. */
  "gelu-tanh": (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  "silu": (x) => x / (1 + Math.exp(-x)),
};

export function isHostActivation(name: LinearPlan["activation"] | DenseActivation): name is HostActivation {
  return Object.hasOwn(FUNCTIONS, name);
}

/** f(x Wᵀ + b) with f on the host. */
export class Activated implements Linear {
  constructor(readonly linear: Linear, readonly activation: HostActivation) {}

  async run(x: Tile, into?: FloatArray): Promise<Tile> {
    const tile = await this.linear.run(x, into);
    const { rows, cols, data } = tile;
    const f = FUNCTIONS[this.activation];
    for (let i = 0; i < rows * cols; i++) data[i] = f(data[i]);
    return tile;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.linear[Symbol.asyncDispose]();
  }
}

/** Names of activations in Hugging Face configurations. */
const HUGGING_FACE: Readonly<Record<string, DenseActivation>> = {
  gelu: "gelu",
  gelu_new: "gelu-tanh",
  gelu_fast: "gelu-tanh",
  gelu_pytorch_tanh: "gelu-tanh",
  relu: "relu",
  silu: "silu",
  swish: "silu",
};

/** "gelu_new", "silu" …; undefined for what is not known. */
export function denseActivation(value: unknown): DenseActivation | undefined {
  return typeof value === "string" && Object.hasOwn(HUGGING_FACE, value) ? HUGGING_FACE[value] : undefined;
}
