/** Exact softmax on onnxruntime: kernels/README.md §5, one block of queries over one tile of keys at a time, in float32. */
import type { ExactPlan } from "../plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { copyKeys, Spare } from "./onnx_arrays.ts";
import { Graph } from "./onnx_graph.ts";
import { product, reduce } from "./onnx_passes.ts";
import { type OrtTensor, type Program, type Runtime, Turns } from "./onnx_runtime.ts";
import type { ExactKernels, SoftmaxParts } from "./online.ts";

/** Logits of one block: `kvHeads × queries × keys`. */
const BLOCK_NUMBERS = 1 << 21;
/** M of a row that saw no key; hidden keys have less (MASKED, HIDDEN). */
const NONE = -1e29;
const HIDDEN = -1e30;

/** Shapes: a query row is one (row, query head of a key head): `n` of them per key head, in row order; `m` keys. */
function graphOf(plan: ExactPlan, masked: boolean): Graph {
  const { kvHeads, headDim, valueDim } = plan;
  const g = new Graph("exact");
  g.input("q", [kvHeads, "n", headDim]);
  g.input("k", ["m", kvHeads, headDim]);
  g.input("v", ["m", kvHeads, valueDim]);
  g.input("top0", [kvHeads, "n", 1]);
  g.input("total0", [kvHeads, "n", 1]);
  g.input("sums0", [kvHeads, "n", valueDim]);
  let logits = product(g, "q", "k", { transB: 1, transBatchB: 1 });
  if (masked) {
    // Without decay all key heads share their weights.
    g.input("logWeights", plan.decay ? [kvHeads, 1, "m"] : [1, "m"]);
    g.input("index", [1, "m"]);
    g.input("position", ["n", 1]);
    const seen = g.node("LessOrEqual", ["index", "position"]);
    logits = g.node("Add", [logits, g.node("Where", [seen, "logWeights", g.constant(HIDDEN)])]);
  }
  const own = reduce(g, "ReduceMax", logits, 2);
  const shares = g.node("Softmax", [logits], { axis: -1 });
  const top = g.node("Max", ["top0", own]);
  const before = g.node("Exp", [g.node("Sub", ["top0", top])]);
  const factor = g.node("Div", [g.node("Exp", [g.node("Sub", [own, top])]), reduce(g, "ReduceMax", shares, 2)]);
  const average = product(g, shares, "v", { transBatchB: 1 });
  g.output("top", top, [kvHeads, "n", 1]);
  g.output("total", g.node("Add", [g.node("Mul", ["total0", before]), factor]), [kvHeads, "n", 1]);
  const sums = g.node("Add", [g.node("Mul", ["sums0", before]), g.node("Mul", [average, factor])]);
  g.output("sums", sums, [kvHeads, "n", valueDim]);
  return g;
}

/** Some held rows, and what they have seen. */
interface Block {
  /** Query rows, and first of them. */
  readonly rows: number;
  readonly from: number;
  readonly q: OrtTensor;
  /** Per (row, query head of a key head). */
  readonly positions: Float64Array;
  now: Sums;
  next: Sums;
}

interface Sums {
  readonly top: OrtTensor;
  readonly total: OrtTensor;
  readonly sums: OrtTensor;
}

function emptyParts(rows: number, { heads, valueDim }: ExactPlan): SoftmaxParts {
  const numbers = (width: number) => new Float32Array(rows * heads * width);
  return { parts: 1, top: numbers(1), total: numbers(1), sums: numbers(valueDim) };
}

/** `rows × heads` as `heads × rows`. */
function byHead(data: Float32Array, heads: number): Float32Array {
  const rows = data.length / heads;
  return Float32Array.from(data, (_, at) => data[(at % rows) * heads + Math.floor(at / rows)]);
}

/** Tiles that are summed in float32 before the host adds them in float64. */
const TILES = 64;

export class OnnxExactKernels implements ExactKernels {
  readonly #blockRows: number;
  readonly #index: Float32Array;
  #open: Promise<Program> | null = null;
  #masked: Promise<Program> | null = null;
  #blocks: Block[] = [];
  #rows = 0;
  #tiles = 0;
  /** Of `parts()`: merged before the next tile is absorbed. */
  #parts: SoftmaxParts;
  readonly #spare = new Spare();
  readonly #turns = new Turns();

  private constructor(readonly plan: ExactPlan, readonly runtime: Runtime) {
    const rows = Math.floor(BLOCK_NUMBERS / (plan.heads * plan.tileRows) / 16) * 16;
    this.#blockRows = Math.max(16, rows);
    this.#parts = emptyParts(0, plan);
    this.#index = Float32Array.from({ length: plan.tileRows }, (_, j) => j);
  }

  /** Kernels of a plan, with the graph it needs most compiled. */
  static async make(plan: ExactPlan, runtime: Runtime): Promise<OnnxExactKernels> {
    const kernels = new OnnxExactKernels(plan, runtime);
    await kernels.#program(plan.causal);
    return kernels;
  }

  pose(q: Tile, positions: ArrayLike<number>): void {
    this.#rows = q.rows;
    this.#tiles = 0;
    for (const { q, now, next } of this.#blocks.splice(0)) {
      for (const { data } of [q, ...Object.values(now), ...Object.values(next)]) this.#spare.give(data);
    }
    for (let from = 0; from < q.rows; from += this.#blockRows) {
      this.#blocks.push(this.#block(q, positions, from, Math.min(this.#blockRows, q.rows - from)));
    }
  }

  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<SoftmaxParts | null> {
    const { kvHeads, headDim, valueDim, causal, decay } = this.plan;
    const keys = copyKeys(this.#spare, k, v, weights, decay ? kvHeads : 1, decay);
    const logWeights = decay ? byHead(keys.logWeights, kvHeads) : keys.logWeights;
    const blocks = causal
      ? this.#blocks.filter(({ positions }) => positions.some((at) => at >= k.start))
      : this.#blocks;
    if (keys.visible === 0 || blocks.length === 0) return Promise.resolve(null);
    const { runtime } = this;
    const feeds = {
      k: runtime.tensor(keys.k, [k.rows, kvHeads, headDim]),
      v: runtime.tensor(keys.v, [k.rows, kvHeads, valueDim]),
    };
    const masks = {
      logWeights: runtime.tensor(logWeights, decay ? [kvHeads, 1, k.rows] : [1, k.rows]),
      index: runtime.tensor(this.#index.subarray(0, k.rows), [1, k.rows]),
    };
    return this.#turns.run(async () => {
      for (const block of blocks) {
        const hidden = causal && block.positions.some((at) => at < k.start + k.rows - 1);
        const masked = weights !== undefined || Boolean(decay) || hidden;
        const { q, now, next, positions } = block;
        const position = Float32Array.from(positions, (at) => causal ? Math.min(k.rows, at - k.start) : k.rows);
        await (await this.#program(masked)).run({
          ...feeds,
          ...(masked ? { ...masks, position: runtime.tensor(position, [position.length, 1]) } : {}),
          q,
          top0: now.top,
          total0: now.total,
          sums0: now.sums,
        }, { ...next });
        [block.now, block.next] = [next, now];
      }
      this.#spare.give(keys.k, keys.v, keys.logWeights);
      return ++this.#tiles % TILES === 0 ? this.#collect(emptyParts(this.#rows, this.plan)) : null;
    });
  }

  parts(): Promise<SoftmaxParts | null> {
    return this.#turns.run(async () => {
      if (this.#parts.total.length !== this.#rows * this.plan.heads) this.#parts = emptyParts(this.#rows, this.plan);
      return this.#collect(this.#parts);
    });
  }

  /** Rows `from … from + rows − 1` with their query heads under their key heads, times the logit scale. */
  #block(q: Tile, positions: ArrayLike<number>, from: number, rows: number): Block {
    const { heads, kvHeads, headDim, scale } = this.plan;
    const group = heads / kvHeads;
    const data = this.#spare.take(rows * heads * headDim);
    let to = 0;
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      for (let i = 0; i < rows; i++) {
        let at = ((from + i) * heads + kvHead * group) * headDim;
        for (const end = at + group * headDim; at < end;) data[to++] = scale * q.data[at++];
      }
    }
    return {
      rows,
      from,
      q: this.runtime.tensor(data, [kvHeads, rows * group, headDim]),
      positions: Float64Array.from({ length: rows * group }, (_, n) => positions[from + Math.floor(n / group)]),
      now: this.#blank(rows),
      next: this.#blank(rows),
    };
  }

  /** Sums of rows that saw no key. */
  #blank(rows: number): Sums {
    const { heads, kvHeads, valueDim } = this.plan;
    const make = (width: number, value: number) => {
      const data = this.#spare.take(rows * heads * width).fill(value);
      return this.runtime.tensor(data, [kvHeads, rows * heads / kvHeads, width]);
    };
    return { top: make(1, NONE), total: make(1, 0), sums: make(valueDim, 0) };
  }

  /** Moves what the blocks have seen into `parts`; null when that is nothing. */
  #collect(parts: SoftmaxParts): SoftmaxParts | null {
    if (this.#blocks.every(({ now }) => now.total.data.every((total) => total === 0))) return null;
    const { heads, kvHeads, valueDim } = this.plan;
    const group = heads / kvHeads;
    for (const { from, rows, now: { top, total, sums } } of this.#blocks) {
      const perHead = rows * group;
      for (let at = 0, c = 0; at < total.data.length; at++) {
        const n = at % perHead;
        const cell = (from + Math.floor(n / group)) * heads + Math.floor(at / perHead) * group + n % group;
        parts.top[cell] = top.data[at];
        parts.total[cell] = total.data[at];
        let to = cell * valueDim;
        for (const end = c + valueDim; c < end;) parts.sums[to++] = sums.data[c++];
      }
      top.data.fill(NONE);
      total.data.fill(0);
      sums.data.fill(0);
    }
    return parts;
  }

  #program(masked: boolean): Promise<Program> {
    if (masked) return this.#masked ??= this.runtime.compile(graphOf(this.plan, true));
    return this.#open ??= this.runtime.compile(graphOf(this.plan, false));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turns.done;
    for (const program of [this.#open, this.#masked]) await (await program)?.[Symbol.asyncDispose]();
  }
}
