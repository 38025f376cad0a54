/**
 * The passes of kernels/README.md §2 and §4 as ONNX graphs over one block of n rows. Shapes: H query heads, h key heads, r features,
 * m projections; a tensor of rows is `n × heads × width` as it stands in a tile, and FusedMatMul (onnxruntime's own operator) reads
 * it as a batch over heads without moving it (`transBatchA`, `transBatchB`).
 *
 * Features of keys are made with features as rows, `h × r × n`, and those of queries with rows as rows, `H × n × r`; so both
 * stabilisers are maxima along the last axis, and of the family `exp` both are Softmax, one pass over numbers in cache, as the
 * sums it divides by cancel: of a query row they are in numerator and denominator alike, of a feature of the keys they are z,
 * which is one over the largest share. Exponents come out of the product itself, whose factors have one column more: [w 1]·[y e].
 *
 * v1  maximum, Sub, Exp       three passes over h × r × n numbers where Softmax makes one
 * v2  this file               PLACEHOLDER
 */
import type { MapParameters } from "../feature_map.ts";
import type { Plan } from "../plan.ts";
import { ACTIVATION_NODES } from "./onnx_activations.ts";
import { type Attribute, Graph } from "./onnx_graph.ts";

/** Exponent of a key that has weight 0, and of a feature that saw no key: the first must vanish even against the second. */
export const MASKED = -2e30;
export const UNSEEN = -1e30;

const COLUMNS = 2;

/** onnxruntime's matrix product, whose factors may be transposed or have their heads in the middle. */
export function product(g: Graph, a: string, b: string, attributes: Readonly<Record<string, Attribute>> = {}): string {
  return g.node("FusedMatMul", [a, b], attributes, "com.microsoft");
}

/** max or Σ along `axis`, which stays as size 1. */
export function reduce(g: Graph, op: "ReduceMax" | "ReduceSum", x: string, axis: number): string {
  return g.node(op, [x, g.integers([axis])], { keepdims: 1 });
}

/** Exponent e of every key without its products, `n × h × 1`: ∓‖y‖²/2 + bias + ln ω. */
function keyExponents(g: Graph, p: MapParameters): string {
  const { family } = p.map;
  if (family === "pointwise") return "logWeights";
  const squares = reduce(g, "ReduceSum", g.node("Mul", ["k", "k"]), COLUMNS);
  const half = g.node("Mul", [squares, g.constant((family === "exp" ? -0.5 : 0.5) * p.inputScale ** 2)]);
  const norms = family === "exp" ? g.node("Add", [half, g.constant(p.bias)]) : half;
  return g.node("Add", [norms, "logWeights"]);
}

/** g / gain of the families without exponents of their own, from products u; features along `axis`. */
function values(g: Graph, p: MapParameters, u: string, axis: number): string {
  if (p.map.family === "trig") return g.node("Concat", [g.node("Sin", [u]), g.node("Cos", [u])], { axis });
  const f = ACTIVATION_NODES[p.map.activation!](g, u);
  return p.epsilon === 0 ? f : g.node("Add", [f, g.constant(p.epsilon / p.gain)]);
}

/** [v 1], `n × h × (dv + 1)`. */
function withOnes(g: Graph): string {
  return g.node("Concat", ["v", "ones"], { axis: COLUMNS });
}

function keyInputs(g: Graph, plan: Plan): void {
  const { kvHeads, headDim, valueDim, parameters: p } = plan;
  g.input("k", ["n", kvHeads, headDim]);
  g.input("v", ["n", kvHeads, valueDim]);
  g.input("logWeights", ["n", kvHeads, 1]);
  g.input("keyWeights", [kvHeads, projectionRows(p), headDim + (p.map.family === "exp" ? 1 : 0)]);
}

/** Rows of W as the graphs see it: the family `exp` has a row per feature, the second half of hyperbolic maps being −W. */
export function projectionRows(p: MapParameters): number {
  return p.map.family === "exp" ? p.features : p.projections;
}

/** Exponents `h × r × n` of the family `exp`. */
function exponents(g: Graph, p: MapParameters): string {
  const row = g.node("Concat", ["k", keyExponents(g, p)], { axis: COLUMNS });
  return product(g, "keyWeights", row, { transB: 1, transBatchB: 1 });
}

/** g of the other families, `h × r × n`. */
function keyValues(g: Graph, p: MapParameters): string {
  return values(g, p, product(g, "keyWeights", "k", { transB: 1, transBatchB: 1 }), 1);
}

/** e^{e − c} · gain · [v 1] of the families whose exponent is the row's alone, `n × h × (dv + 1)`; c is `1 × h × 1`. */
function scaledValues(g: Graph, p: MapParameters, e: string, c: string): string {
  const factor = g.node("Exp", [g.node("Sub", [e, c])]);
  return g.node("Mul", [withOnes(g), g.node("Mul", [factor, g.constant(p.gain)])]);
}

/**
 * Keys alone → c and S, and `share` = 1/z for the family `exp`, whose S is the average S/z; the others have z as the last column of S.
 */
export function keysGraph(plan: Plan): Graph {
  const { kvHeads, valueDim, parameters: p } = plan;
  const g = new Graph("keys");
  keyInputs(g, plan);
  if (p.map.family === "exp") {
    const e = exponents(g, p);
    const shares = g.node("Softmax", [e], { axis: -1 });
    g.output("c", reduce(g, "ReduceMax", e, 2), [kvHeads, p.features, 1]);
    g.output("share", reduce(g, "ReduceMax", shares, 2), [kvHeads, p.features, 1]);
    g.output("S", product(g, shares, "v", { transBatchB: 1 }), [kvHeads, p.features, valueDim]);
  } else {
    g.input("ones", ["n", kvHeads, 1]);
    const e = keyExponents(g, p);
    const c = reduce(g, "ReduceMax", e, 0);
    g.output("c", c, [1, kvHeads, 1]);
    const S = product(g, keyValues(g, p), scaledValues(g, p, e, c), { transBatchB: 1 });
    g.output("S", S, [kvHeads, p.features, valueDim + 1]);
  }
  return g;
}

/** Groups the query heads of a key head, `H × n × x` → `h × (H/h · n) × x`, or takes them apart again. */
function regroup(g: Graph, plan: Plan, x: string, heads: number): string {
  return plan.heads === plan.kvHeads ? x : g.node("Reshape", [x, g.integers([heads, -1, 0])]);
}

/** [num den], `h × … × (dv + 1)` → `out`, `n × H × dv`, and `denominators`, `n × H × 1`. */
function quotient(g: Graph, plan: Plan, sums: string): void {
  const { heads, valueDim } = plan;
  const rows = g.node("Transpose", [regroup(g, plan, sums, heads)], { perm: [1, 0, 2] });
  const [num, den] = g.nodes("Split", 2, [rows, g.integers([valueDim, 1])], { axis: COLUMNS });
  g.output("out", g.node("Div", [num, den]), ["n", heads, valueDim]);
  g.output("denominators", den, ["n", heads, 1]);
}

/** Queries over a state. c of the family `exp` is the last row of `queryWeights`, relative to the largest of its head. */
export function queriesGraph(plan: Plan): Graph {
  const { heads, kvHeads, headDim, valueDim, parameters: p } = plan;
  const g = new Graph("queries");
  g.input("q", ["n", heads, headDim]);
  g.input("S", [kvHeads, p.features, valueDim + 1]);
  let P: string;
  if (p.map.family === "exp") {
    g.input("ones", ["n", heads, 1]);
    g.input("queryWeights", [heads, headDim + 1, p.features]);
    const row = g.node("Concat", ["q", "ones"], { axis: COLUMNS });
    P = g.node("Softmax", [product(g, row, "queryWeights", { transBatchA: 1 })], { axis: -1 });
  } else {
    g.input("queryWeights", [heads, headDim, p.projections]);
    P = values(g, p, product(g, "q", "queryWeights", { transBatchA: 1 }), COLUMNS);
  }
  quotient(g, plan, product(g, regroup(g, plan, P, kvHeads), "S"));
  return g;
}

/**
 * One causal chunk: queries over a state and over the chunk's own keys, then the state and the sums of the tile's own keys past them.
 * Stabilised by c' of the whole chunk (kernels/README.md §4); both sums are relative to it.
 */
export function causalGraph(plan: Plan): Graph {
  const { heads, kvHeads, headDim, valueDim, parameters: p } = plan;
  const exp = p.map.family === "exp";
  const g = new Graph("causal");
  keyInputs(g, plan);
  g.input("ones", ["n", kvHeads, 1]);
  g.input("q", ["n", heads, headDim]);
  g.input("queryWeights", [heads, headDim, projectionRows(p)]);
  const cShape = exp ? [kvHeads, p.features, 1] : [kvHeads, 1, 1];
  g.input("c0", cShape);
  g.input("S0", [kvHeads, p.features, valueDim + 1]);
  g.input("own0", [kvHeads, p.features, valueDim + 1]);
  const u = regroup(g, plan, product(g, "q", "queryWeights", { transBatchA: 1 }), kvHeads);
  let c: string, K: string, V: string, P: string;
  if (exp) {
    const e = exponents(g, p);
    c = g.node("Max", ["c0", reduce(g, "ReduceMax", e, 2)]);
    K = g.node("Exp", [g.node("Sub", [e, c])]);
    V = withOnes(g);
    const relative = g.node("Transpose", [g.node("Sub", [c, reduce(g, "ReduceMax", c, 1)])], { perm: [0, 2, 1] });
    P = g.node("Softmax", [g.node("Add", [u, relative])], { axis: -1 });
  } else {
    const e = keyExponents(g, p);
    const top = g.node("Max", [g.node("Reshape", ["c0", g.integers([1, kvHeads, 1])]), reduce(g, "ReduceMax", e, 0)]);
    c = g.node("Reshape", [top, g.integers(cShape)]);
    K = keyValues(g, p);
    V = scaledValues(g, p, e, top);
    P = values(g, p, u, COLUMNS);
  }
  const f = g.node("Exp", [g.node("Sub", ["c0", c])]);
  const S = g.node("Mul", ["S0", f]);
  const scores = g.node("Trilu", [regroup(g, plan, product(g, P, K), heads)], { upper: 0 });
  const within = product(g, regroup(g, plan, scores, kvHeads), V, { transBatchB: 1 });
  quotient(g, plan, g.node("Add", [product(g, P, S), within]));
  const sums = product(g, K, V, { transBatchB: 1 });
  g.output("c", c, cShape);
  g.output("S", g.node("Add", [S, sums]), [kvHeads, p.features, valueDim + 1]);
  g.output("own", g.node("Add", [g.node("Mul", ["own0", f]), sums]), [kvHeads, p.features, valueDim + 1]);
  return g;
}
