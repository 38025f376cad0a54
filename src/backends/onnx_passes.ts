/**
 * The passes of kernels/README.md §2 and §4 as ONNX graphs over one block of n rows. Shapes: H query heads, h key heads, r features,
 * m projections; a tensor of rows is `n × heads × width` as it stands in a tile, and FusedMatMul (onnxruntime's own operator) reads
 * it as a batch over heads without moving it (`transBatchA`, `transBatchB`).
 *
 * Features of keys are made with features as rows, `h × r × n`, and those of queries with rows as rows, `H × n × r`; so both
 * stabilisers are maxima along the last axis, and of the family `exp` both are Softmax, one pass over numbers in cache, as the
 * sums it divides by cancel: of a query row they are in numerator and denominator alike, of a feature of the keys they are z,
 * which is one over the largest share. Exponents come out of the product itself, whose factors have one column more: [w 1]·[y e].
 * Biases are the same for all keys, so the graphs of keys leave them out and c is lower by them; onnx_arrays.ts makes up for it.
 *
 * Keys pass of 1,024 rows, H 8, d 64, r 256, on two cores of a Zen 5; a pass over the h × r × n numbers (8 MiB) was reckoned at 0.5 ms:
 *
 * v1  product, Add, max, Sub, Exp, product     4.1 ms
 * v2  the norm as a column of the product      3.9–4.1 ms. Predicted 3.6: the pass it saves is nearly paid for by Concat and depth 65
 * v3  this file: Softmax for max, Sub, Exp     3.6 ms. Predicted 3.1 for two passes less; Softmax itself makes more than one
 *
 * v3 head by head, 1 MiB at a time so as to stay in the second-level cache, was predicted to be faster and took 4.1 ms against 2.3
 * (another hour, less load): products of one head feed two threads badly. Hyperbolic maps take r products, of W and −W: r/2 products
 * and Concat of ±u were no faster (keys 3.3 ms against 3.5, queries 3.3 against 2.9). Causal chunks of 64, 128 and 256 rows: 71,000,
 * 77,000 and 73,000 tokens/s.
 */
import { type MapParameters, stateBiases } from "../feature_map.ts";
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

/** Names of the inputs of a keys pass, or of one chunk of them. */
interface KeyRows {
  readonly k: string;
  readonly v: string;
  readonly logWeights: string;
  readonly ones: string;
}
const KEYS: KeyRows = { k: "k", v: "v", logWeights: "logWeights", ones: "ones" };

/** Exponent e of every key without its products and biases, `n × h × 1`: ∓‖y‖²/2 + ln ω. */
function keyExponents(g: Graph, p: MapParameters, { k, logWeights }: KeyRows): string {
  const { family } = p.map;
  if (family === "pointwise") return logWeights;
  const squares = reduce(g, "ReduceSum", g.node("Mul", [k, k]), COLUMNS);
  const half = g.node("Mul", [squares, g.constant((family === "exp" ? -0.5 : 0.5) * p.inputScale ** 2)]);
  return g.node("Add", [half, logWeights]);
}

/** g / gain of the families without exponents of their own, from products u; features along `axis`. */
function values(g: Graph, p: MapParameters, u: string, axis: number): string {
  if (p.map.family === "trig") return g.node("Concat", [g.node("Sin", [u]), g.node("Cos", [u])], { axis });
  const f = ACTIVATION_NODES[p.map.activation!](g, u);
  return p.epsilon === 0 ? f : g.node("Add", [f, g.constant(p.epsilon / p.gain)]);
}

/** [v 1], `n × h × (dv + 1)`. */
function withOnes(g: Graph, { v, ones }: KeyRows): string {
  return g.node("Concat", [v, ones], { axis: COLUMNS });
}

function keyInputs(g: Graph, plan: Plan, ones: boolean): void {
  const { kvHeads, headDim, valueDim, parameters: p } = plan;
  g.input("k", ["n", kvHeads, headDim]);
  g.input("v", ["n", kvHeads, valueDim]);
  g.input("logWeights", ["n", kvHeads, 1]);
  if (ones) g.input("ones", ["n", kvHeads, 1]);
  g.input("keyWeights", [kvHeads, projectionRows(p), headDim + (p.map.family === "exp" ? 1 : 0)]);
}

/** Rows of W as the graphs see it: the family `exp` has a row per feature, the second half of hyperbolic maps being −W. */
export function projectionRows(p: MapParameters): number {
  return p.map.family === "exp" ? p.features : p.projections;
}

/** Exponents `h × r × n` of the family `exp`. */
function exponents(g: Graph, p: MapParameters, rows: KeyRows): string {
  const row = g.node("Concat", [rows.k, keyExponents(g, p, rows)], { axis: COLUMNS });
  return product(g, "keyWeights", row, { transB: 1, transBatchB: 1 });
}

/** g of the other families, `h × r × n`. */
function keyValues(g: Graph, p: MapParameters, { k }: KeyRows): string {
  return values(g, p, product(g, "keyWeights", k, { transB: 1, transBatchB: 1 }), 1);
}

/** e^{e − c} · gain · [v 1] of the families whose exponent is the row's alone, `n × h × (dv + 1)`; c is `1 × h × 1`. */
function scaledValues(g: Graph, p: MapParameters, rows: KeyRows, e: string, c: string): string {
  const factor = g.node("Exp", [g.node("Sub", [e, c])]);
  return g.node("Mul", [withOnes(g, rows), g.node("Mul", [factor, g.constant(p.gain)])]);
}

/**
 * Keys alone → c and S, and `share` = 1/z for the family `exp`, whose S is the average S/z; the others have z as the last column of S.
 */
export function keysGraph(plan: Plan): Graph {
  const { kvHeads, valueDim, parameters: p } = plan;
  const exp = p.map.family === "exp";
  const g = new Graph("keys");
  keyInputs(g, plan, !exp);
  if (exp) {
    const e = exponents(g, p, KEYS);
    const shares = g.node("Softmax", [e], { axis: -1 });
    g.output("c", reduce(g, "ReduceMax", e, 2), [kvHeads, p.features, 1]);
    g.output("share", reduce(g, "ReduceMax", shares, 2), [kvHeads, p.features, 1]);
    g.output("S", product(g, shares, "v", { transBatchB: 1 }), [kvHeads, p.features, valueDim]);
  } else {
    const e = keyExponents(g, p, KEYS);
    const c = reduce(g, "ReduceMax", e, 0);
    g.output("c", c, [1, kvHeads, 1]);
    const S = product(g, keyValues(g, p, KEYS), scaledValues(g, p, KEYS, e, c), { transBatchB: 1 });
    g.output("S", S, [kvHeads, p.features, valueDim + 1]);
  }
  return g;
}

/** Groups the query heads of a key head, `H × n × x` → `h × (H/h · n) × x`, or takes them apart again. */
function regroup(g: Graph, plan: Plan, x: string, heads: number): string {
  return plan.heads === plan.kvHeads ? x : g.node("Reshape", [x, g.integers([heads, -1, 0])]);
}

/** [num den], `h × … × (dv + 1)` → num/den, `n × H × dv`, and den, `n × H × 1`. */
function quotient(g: Graph, plan: Plan, sums: string): { out: string; denominators: string } {
  const { heads, valueDim } = plan;
  const rows = g.node("Transpose", [regroup(g, plan, sums, heads)], { perm: [1, 0, 2] });
  const [num, den] = g.nodes("Split", 2, [rows, g.integers([valueDim, 1])], { axis: COLUMNS });
  return { out: g.node("Div", [num, den]), denominators: den };
}

/** Queries over a state. c + bias of the family `exp` is the last row of `queryWeights`, relative to the largest of its head. */
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
  const { out, denominators } = quotient(g, plan, product(g, regroup(g, plan, P, kvHeads), "S"));
  g.output("out", out, ["n", heads, valueDim]);
  g.output("denominators", denominators, ["n", heads, 1]);
  return g;
}

/**
 * Causal rows in `chunks` chunks of `size` rows, of which the last may be shorter: queries over a state and over own keys, and the
 * sums of the own keys. Each chunk is stabilised by its c' (kernels/README.md §4), and sums so far are relative to it. The chunks
 * are written out one after the other, so that sums stay in the runtime, which copies every output of a run.
 */
export function causalGraph(plan: Plan, chunks: number, size: number): Graph {
  const { heads, kvHeads, headDim, valueDim, parameters: p } = plan;
  const exp = p.map.family === "exp";
  const g = new Graph("causal");
  keyInputs(g, plan, true);
  g.input("q", ["n", heads, headDim]);
  g.input("queryWeights", [heads, headDim, projectionRows(p)]);
  const cShape = exp ? [kvHeads, p.features, 1] : [kvHeads, 1, 1];
  g.input("c0", cShape);
  g.input("S0", [kvHeads, p.features, valueDim + 1]);
  let state: ChunkState = { c: "c0", S: "S0", own: null };
  const answers: { out: string; denominators: string }[] = [];
  const twice = Float32Array.from(stateBiases(p, kvHeads), (bias) => 2 * bias);
  const biases = exp ? g.constant(twice, cShape) : "";
  for (let chunk = 0; chunk < chunks; chunk++) {
    const slice = (x: string) => {
      if (chunks === 1) return x;
      const end = chunk === chunks - 1 ? 2 ** 31 - 1 : (chunk + 1) * size;
      return g.node("Slice", [x, g.integers([chunk * size]), g.integers([end]), g.integers([0])]);
    };
    const keys = { k: slice("k"), v: slice("v"), logWeights: slice("logWeights"), ones: slice("ones") };
    const rows = { ...keys, q: slice("q"), biases };
    const last = chunk === chunks - 1;
    state = causalChunk(g, plan, rows, state, last, (sums) => answers.push(quotient(g, plan, sums)));
  }
  const join = (parts: readonly string[]) => parts.length === 1 ? parts[0] : g.node("Concat", parts, { axis: 0 });
  g.output("out", join(answers.map(({ out }) => out)), ["n", heads, valueDim]);
  g.output("denominators", join(answers.map(({ denominators }) => denominators)), ["n", heads, 1]);
  g.output("c", state.c, cShape);
  g.output("own", state.own!, [kvHeads, p.features, valueDim + 1]);
  return g;
}

/** Names of the inputs of a causal chunk. */
interface CausalRows extends KeyRows {
  readonly q: string;
  /** Twice the biases, of keys and of queries, `h × r × 1`; of the family `exp` alone. */
  readonly biases: string;
}

/** c, [S z] of all keys so far and of the tile's own. */
interface ChunkState {
  readonly c: string;
  readonly S: string;
  readonly own: string | null;
}

/** One chunk: hands [num den] to `answer` and returns the state past it (without S when it is the last). */
function causalChunk(
  g: Graph,
  plan: Plan,
  rows: CausalRows,
  before: ChunkState,
  last: boolean,
  answer: (sums: string) => void,
): ChunkState {
  const { heads, kvHeads, parameters: p } = plan;
  const u = regroup(g, plan, product(g, rows.q, "queryWeights", { transBatchA: 1 }), kvHeads);
  let c: string, K: string, V: string, P: string;
  if (p.map.family === "exp") {
    const e = exponents(g, p, rows);
    c = g.node("Max", [before.c, reduce(g, "ReduceMax", e, 2)]);
    K = g.node("Exp", [g.node("Sub", [e, c])]);
    V = withOnes(g, rows);
    const t = g.node("Add", [c, rows.biases]);
    const relative = g.node("Transpose", [g.node("Sub", [t, reduce(g, "ReduceMax", t, 1)])], { perm: [0, 2, 1] });
    P = g.node("Softmax", [g.node("Add", [u, relative])], { axis: -1 });
  } else {
    const e = keyExponents(g, p, rows);
    const top = reduce(g, "ReduceMax", e, 0);
    c = g.node("Max", [before.c, g.node("Reshape", [top, g.integers([kvHeads, 1, 1])])]);
    K = keyValues(g, p, rows);
    V = scaledValues(g, p, rows, e, g.node("Reshape", [c, g.integers([1, kvHeads, 1])]));
    P = values(g, p, u, COLUMNS);
  }
  const f = g.node("Exp", [g.node("Sub", [before.c, c])]);
  const S = g.node("Mul", [before.S, f]);
  const scores = g.node("Trilu", [regroup(g, plan, product(g, P, K), heads)], { upper: 0 });
  const within = product(g, regroup(g, plan, scores, kvHeads), V, { transBatchB: 1 });
  answer(g.node("Add", [product(g, P, S), within]));
  const sums = product(g, K, V, { transBatchB: 1 });
  return {
    c,
    S: last ? S : g.node("Add", [S, sums]),
    own: before.own === null ? sums : g.node("Add", [g.node("Mul", [before.own, f]), sums]),
  };
}
