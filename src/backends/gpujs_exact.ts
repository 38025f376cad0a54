/** Exact softmax on gpu.js: logits, exponentials and sums of one tile of keys; the session merges tiles in float64. */
import { logWeight } from "../decay.ts";
import type { ExactPlan } from "../plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { type Kernel, type Kernels, padDepth } from "./gpujs_kernels.ts";
import { bucket, entry } from "./gpujs_linear.ts";
import { packColumns, packQuads, packValues } from "./gpujs_pack.ts";
import type { ExactKernels, SoftmaxParts } from "./online.ts";

/** Hides a key: exp of it is 0. */
const NEVER = -1e30;

/** Kernels and buffers for `rows` keys. */
interface Stage {
  readonly rows: number;
  readonly columns: Float32Array;
  readonly values: Float32Array;
  readonly logits: Kernel;
  readonly exponential: Kernel;
  readonly sum: Kernel;
  /** ln ω of the keys; −M of the queries. */
  readonly xShift: Float32Array;
  readonly yShift: Float32Array;
}

export class GpuJsExactKernels implements ExactKernels {
  readonly #depth: number;
  readonly #stride: number;
  readonly #queryRows: number;
  readonly #q: Float32Array[];
  readonly #stages = new Map<number, Stage>();
  #positions: Float64Array = new Float64Array(0);
  #rows = 0;

  constructor(readonly plan: ExactPlan, readonly kernels: Kernels) {
    this.#depth = padDepth(plan.headDim);
    this.#stride = Math.ceil((plan.valueDim + 1) / 4) * 4;
    this.#queryRows = Math.ceil(plan.queryRows / 4) * 4;
    this.#q = Array.from({ length: plan.heads }, () => new Float32Array(this.#queryRows * this.#depth));
    this.#stage(plan.tileRows);
  }

  pose(q: Tile, positions: ArrayLike<number>): void {
    this.#rows = q.rows;
    this.#positions = Float64Array.from(positions);
    for (let head = 0; head < this.plan.heads; head++) {
      packQuads(q, head, this.plan.headDim, this.plan.scale, this.#depth, this.#q[head]);
    }
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<SoftmaxParts | null> {
    const { heads, kvHeads, headDim, valueDim, causal, decay } = this.plan;
    if (causal && !this.#positions.some((position) => position >= k.start)) return null;
    const stage = this.#stage(k.rows);
    const { rows } = stage;
    const cells = this.#rows * heads;
    const parts: SoftmaxParts = {
      parts: 1,
      top: new Float32Array(cells).fill(-Infinity),
      total: new Float32Array(cells),
      sums: new Float32Array(cells * valueDim),
    };
    for (let kvHead = 0, head = 0; kvHead < kvHeads; kvHead++) {
      packColumns(k, kvHead, headDim, 1, this.#depth, rows, stage.columns, weights);
      packValues(v, kvHead, valueDim, this.#stride, stage.values, weights);
      for (let j = 0; j < rows; j++) {
        stage.xShift[j] = j >= k.rows ? NEVER : Math.max(NEVER, logWeight(weights, decay, kvHead, j, k.rows));
      }
      for (; head < heads && Math.floor(head * kvHeads / heads) === kvHead; head++) {
        const logits = stage.logits(this.#q[head], stage.columns);
        this.#lower(stage, logits, k.start, head, parts.top);
        const sums = stage.sum(stage.exponential(logits, stage.xShift, stage.yShift), stage.values);
        this.#collect(sums, head, parts);
      }
    }
    return parts;
  }

  async parts(): Promise<null> {
    return null;
  }

  #stage(rowsNeeded: number): Stage {
    const { kernels } = this;
    const rows = bucket(rowsNeeded, padDepth(this.plan.tileRows), padDepth);
    const quads = this.#queryRows / 4;
    const shape = { chunks: 1, quads, width: rows };
    return entry(this.#stages, rows, () => ({
      rows,
      columns: new Float32Array(this.#depth * rows),
      values: new Float32Array(rows * this.#stride),
      logits: kernels.product(shape, this.#depth),
      exponential: kernels.exponential(shape, quads, rows),
      sum: kernels.product({ chunks: 1, quads, width: this.#stride }, rows),
      xShift: new Float32Array(rows),
      yShift: new Float32Array(this.#queryRows),
    }));
  }

  /** Hides later keys in the logits (`queryRows/4 × rows × 4`), and finds each row's largest. */
  #lower(stage: Stage, logits: Float32Array, firstKey: number, head: number, tops: Float32Array): void {
    const { rows, xShift, yShift } = stage;
    for (let i = 0; i < this.#rows; i++) {
      const base = (i >> 2) * rows * 4 + (i & 3);
      const seen = this.plan.causal ? Math.min(rows, Math.max(0, this.#positions[i] - firstKey + 1)) : rows;
      let top = NEVER;
      for (let j = 0; j < seen; j++) if (logits[base + j * 4] + xShift[j] > top) top = logits[base + j * 4] + xShift[j];
      for (let j = seen; j < rows; j++) logits[base + j * 4] = NEVER;
      const some = top > NEVER / 2;
      yShift[i] = some ? -top : 0;
      if (some) tops[i * this.plan.heads + head] = -yShift[i];
    }
  }

  #collect(sums: Float32Array, head: number, parts: SoftmaxParts): void {
    const { heads, valueDim } = this.plan;
    for (let i = 0; i < this.#rows; i++) {
      const cell = i * heads + head;
      if (parts.top[cell] === -Infinity) continue;
      let at = (i >> 2) * this.#stride * 4 + (i & 3);
      for (let c = 0; c < valueDim; c++, at += 4) parts.sums[cell * valueDim + c] = sums[at];
      parts.total[cell] = sums[at];
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kernels[Symbol.dispose]();
  }
}
