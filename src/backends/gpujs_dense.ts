/**
 * Dense layers on gpu.js: a product and its activation, some hundred outputs at a time, so that one pair of kernels serves any number.
 *
 * Measured, 1,024 rows × 640 → 2,560 with gelu, AMD Zen 5: webasm 3.6 GFLOP/s on Bun and 2.6 on Deno, cpu 2.4 and 2.0.
 */
import type { Linear } from "../backend.ts";
import { checkLinear, checkRows, type LinearPlan, outputWidth, ungrouped } from "../plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { type Kernel, type Kernels, padDepth } from "./gpujs_kernels.ts";
import { bucket, entry } from "./gpujs_linear.ts";
import { packColumns, packQuads } from "./gpujs_pack.ts";

/** Columns of a block. Not 1,024: lines of 4 KiB fall on few sets of the cache, and cpu took four times as long. */
const BLOCK = 1008;
/** Lines that are a multiple of this get EXTRA numbers, for the same reason. */
const ALIASED = 128;
const EXTRA = 4;
/** As kernels/gpujs/dense.gpu.js numbers them. */
const ACTIVATIONS = ["none", "relu", "gelu", "gelu-glu"] as const;

/** A block of outputs. */
interface Block {
  /** Its first number in an output row. */
  readonly first: number;
  /** Wᵀ, `depth × columns`, and b. */
  readonly weights: Float32Array;
  readonly biases: Float32Array;
}

/** Kernels for `rows` rows. */
interface Stage {
  readonly x: Float32Array;
  readonly product: Kernel;
  readonly finish: Kernel;
}

export class GpuJsDense implements Linear {
  readonly #depth: number;
  readonly #width: number;
  /** Columns of a block, and output numbers: half of them in a gated layer. */
  readonly #columns: number;
  readonly #each: number;
  readonly #blocks: Block[] = [];
  readonly #stages = new Map<number, Stage>();

  readonly plan: LinearPlan;

  constructor(given: LinearPlan, readonly kernels: Kernels) {
    checkLinear(given);
    const plan = this.plan = ungrouped(given);
    this.#depth = padDepth(plan.inputs);
    this.#width = outputWidth(plan);
    const parts = plan.activation === "gelu-glu" ? 2 : 1;
    const each = Math.min(BLOCK / parts, Math.ceil(this.#width / 4) * 4);
    this.#each = parts * each % ALIASED === 0 ? each + EXTRA : each;
    this.#columns = parts * this.#each;
    for (let first = 0; first < this.#width; first += this.#each) this.#blocks.push(this.#block(first));
    this.#stage(plan.tileRows);
  }

  #block(first: number): Block {
    const { inputs, weight, bias } = this.plan;
    const rows = new Float32Array(this.#columns * inputs);
    const biases = new Float32Array(this.#columns);
    const some = Math.min(this.#each, this.#width - first);
    for (let column = 0; column < this.#columns; column += this.#each) {
      const output = first + (column > 0 ? this.#width : 0);
      rows.set(weight.subarray(output * inputs, (output + some) * inputs), column * inputs);
      if (bias) biases.set(bias.subarray(output, output + some), column);
    }
    const weights = new Float32Array(this.#depth * this.#columns);
    const tile: Tile = { start: 0, rows: this.#columns, cols: inputs, data: rows };
    packColumns(tile, 0, inputs, 1, this.#depth, this.#columns, weights);
    return { first, weights, biases };
  }

  #stage(rowsNeeded: number): Stage {
    const { kernels, plan } = this;
    const rows = bucket(rowsNeeded, padDepth(plan.tileRows), padDepth);
    const shape = { chunks: 1, quads: rows / 4, width: this.#columns };
    return entry(this.#stages, rows, () => ({
      x: new Float32Array(rows * this.#depth),
      product: kernels.product(shape, this.#depth),
      finish: kernels.dense({ ...shape, width: this.#each }, this.#columns, ACTIVATIONS.indexOf(plan.activation)),
    }));
  }

  async run(x: Tile, into?: FloatArray): Promise<Tile> {
    checkRows(this.plan, x);
    const cols = this.#width;
    const data = into?.subarray(0, x.rows * cols) ?? new Float32Array(x.rows * cols);
    const stage = this.#stage(x.rows);
    packQuads(x, 0, this.plan.inputs, 1, this.#depth, stage.x);
    for (const { first, weights, biases } of this.#blocks) {
      const y = stage.finish(stage.product(stage.x, weights), biases);
      const some = Math.min(this.#each, cols - first);
      for (let i = 0; i < x.rows; i++) {
        let at = (i >> 2) * this.#each * 4 + (i & 3);
        for (let to = i * cols + first, end = to + some; to < end; to++, at += 4) data[to] = y[at];
      }
    }
    return { start: x.start, rows: x.rows, cols, data };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kernels[Symbol.dispose]();
  }
}
