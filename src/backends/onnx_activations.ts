/** The non-linearities of src/feature_map.ts as ONNX operators. */
import type { Activation } from "../feature_map.ts";
import type { Graph } from "./onnx_graph.ts";

/** e^u for u ≤ 0, u + 1 above: both halves keep their digits, which Elu(u) + 1 does not. */
function exponentialLinear(g: Graph, u: string): string {
  return g.node("Add", [g.node("Exp", [g.node("Min", [u, g.constant(0)])]), g.node("Relu", [u])]);
}

/**
 * u/2 · erfc(−u/√2) with the Chebyshev fit of Numerical Recipes §6.2 (erfcc, relative error 1.2e-7 everywhere): 1 + Erf would lose
 * the tail of negative u.
 */
function gelu(g: Graph, u: string): string {
  const h = g.node("Mul", [g.node("Abs", [u]), g.constant(Math.SQRT1_2)]);
  const t = g.node("Reciprocal", [g.node("Add", [g.node("Mul", [h, g.constant(0.5)]), g.constant(1)])]);
  const coefficients = [
    -0.82215223,
    1.48851587,
    -1.13520398,
    0.27886807,
    -0.18628806,
    0.09678418,
    0.37409196,
    1.00002368,
  ];
  let fit = g.constant(0.17087277);
  for (const value of coefficients) fit = g.node("Add", [g.node("Mul", [fit, t]), g.constant(value)]);
  const exponent = g.node("Sub", [g.node("Mul", [fit, t]), g.node("Mul", [h, h])]);
  const erfc = g.node("Mul", [t, g.node("Exp", [g.node("Sub", [exponent, g.constant(1.26551223)])])]);
  const tail = g.node("Mul", [g.node("Mul", [g.node("Abs", [u]), g.constant(-0.5)]), erfc]);
  return g.node("Add", [g.node("Relu", [u]), tail]);
}

/** max(u, 0) + ln(1 + t), t = e^{−|u|}; where 1 + t rounds to w, ln(1 + t) is ln w · t / (w − 1) (D. Goldberg 1991, theorem 4). */
function softplus(g: Graph, u: string): string {
  const t = g.node("Exp", [g.node("Neg", [g.node("Abs", [u])])]);
  const w = g.node("Add", [t, g.constant(1)]);
  const rounded = g.node("Sub", [w, g.constant(1)]);
  const log = g.node("Div", [g.node("Mul", [g.node("Log", [w]), t]), rounded]);
  return g.node("Add", [
    g.node("Relu", [u]),
    g.node("Where", [g.node("Equal", [rounded, g.constant(0)]), t, log]),
  ]);
}

/** f(u), element by element. */
export const ACTIVATION_NODES: Readonly<Record<Activation, (g: Graph, u: string) => string>> = {
  "relu": (g, u) => g.node("Relu", [u]),
  "elu1": exponentialLinear,
  "sigmoid": (g, u) => g.node("Reciprocal", [g.node("Add", [g.node("Exp", [g.node("Neg", [u])]), g.constant(1)])]),
  "exp": (g, u) => g.node("Exp", [u]),
  "abs": (g, u) => g.node("Abs", [u]),
  "gelu": gelu,
  "cos": (g, u) => g.node("Cos", [u]),
  "sin": (g, u) => g.node("Sin", [u]),
  "tanh": (g, u) => g.node("Tanh", [u]),
  "identity": (_, u) => u,
  "requ": (g, u) => {
    const positive = g.node("Relu", [u]);
    return g.node("Mul", [positive, positive]);
  },
  "shifted-elu": exponentialLinear,
  "leaky-relu": (g, u) => g.node("LeakyRelu", [u], { alpha: { float: 0.01 } }),
  "softplus": softplus,
  "square": (g, u) => g.node("Mul", [u, u]),
};
