/** Dense layers on the wasm threads (kernels/wasm/assembly/dense.ts): W packed once in shared memory, rows or outputs shared out. */
import type { Linear } from "../backend.ts";
import { checkLinear, checkRows, type LinearPlan, outputWidth } from "../plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import type { SharedMemory } from "./wasm_memory.ts";
import type { Call, Kernels } from "./wasm_module.ts";
import type { Pool } from "./wasm_pool.ts";
import { Slots } from "./wasm_slots.ts";
import { BLOCK, cut, type Range } from "./wasm_split.ts";

/** Columns of a panel, and what they are rounded up to in the last one. */
const PANEL = 64;
const LANES = 16;
/** As the kernel numbers them. */
const ACTIVATIONS = ["none", "relu", "gelu", "gelu-glu"] as const;
/** Calls in flight that have areas of their own. */
const SLOTS = 3;
/** Operations that are done sooner than they are handed to threads: 50 µs of work. */
const SMALL = 2e6;

/** What one call in flight works on. */
interface Slot {
  readonly x: number;
  readonly out: number;
}

export class WasmDense implements Linear {
  readonly #width: number;
  readonly #weights: number;
  readonly #biases: number;
  readonly #slots: Slots<Slot>;
  readonly #owned: number[] = [];
  /** Scratch memory per thread, and that of the main thread. */
  readonly #scratch: number[];

  /** Allocates everything; call only while the pool is idle. */
  constructor(readonly plan: LinearPlan, readonly pool: Pool, readonly shared: SharedMemory, kernels: Kernels) {
    checkLinear(plan);
    const { inputs, tileRows } = plan;
    this.#width = outputWidth(plan);
    const panels = Math.ceil(this.#width / eachPanel(plan));
    try {
      this.#weights = this.#take(panels * inputs * PANEL * 4);
      this.#biases = this.#take(panels * PANEL * 4);
      this.#slots = new Slots(Array.from({ length: SLOTS }, (): Slot => ({
        x: this.#take(tileRows * inputs * 4),
        out: this.#take(tileRows * this.#width * 4),
      })));
      this.#scratch = Array.from({ length: pool.threads + 1 }, () => this.#take(kernels.denseScratch(inputs)));
    } catch (error) {
      this.#release();
      throw error;
    }
    const weights = shared.floats(this.#weights, panels * inputs * PANEL);
    packPanels(plan, weights, shared.floats(this.#biases, panels * PANEL));
  }

  #take(bytes: number): number {
    const at = this.shared.allocate(bytes);
    this.#owned.push(at);
    return at;
  }

  async run(x: Tile, into?: FloatArray): Promise<Tile> {
    checkRows(this.plan, x);
    const length = x.rows * this.#width;
    const lent = into && this.shared.addressOf(into);
    let data = x.data;
    let slot = this.#slots.take();
    if (!slot) {
      data = this.shared.keep(data);
      slot = await this.#slots.next();
    }
    try {
      const out = lent ?? slot.out;
      const at = this.shared.put(slot.x, data);
      const { threads } = this.pool;
      if (2 * x.rows * this.plan.inputs * this.plan.outputs > SMALL) {
        await this.pool.runAll(this.#calls(x.rows, at, out, threads, 0));
      } else {
        this.pool.here(this.#calls(x.rows, at, out, 1, threads).flat());
      }
      const result = into?.subarray(0, length) ?? new Float32Array(length);
      if (out === slot.out) result.set(this.shared.floats(out, length));
      return { start: x.start, rows: x.rows, cols: this.#width, data: result };
    } finally {
      this.#slots.give(slot);
    }
  }

  /** Shares of `threads` threads, whose scratch memory starts with number `first`. */
  #calls(rows: number, x: number, out: number, threads: number, first: number): Call[][] {
    const { inputs, activation } = this.plan;
    const panels = Math.ceil(this.#width / eachPanel(this.plan));
    return layerShares(rows, panels, threads).map((share, thread) => {
      if (share.rows.from === share.rows.to || share.panels.from === share.panels.to) return [];
      const layer = [ACTIVATIONS.indexOf(activation), inputs, this.#width, this.#weights, this.#biases];
      const where = [x, share.rows.from, share.rows.to, share.panels.from, share.panels.to];
      return [["dense", ...layer, ...where, out, this.#scratch[first + thread]]];
    });
  }

  #release(): void {
    for (const at of this.#owned.splice(0)) this.shared.release(at);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.idle();
    this.#release();
  }
}

/** Outputs of a panel: a gated layer has those they gate beside them. */
function eachPanel({ activation }: LinearPlan): number {
  return activation === "gelu-glu" ? PANEL / 2 : PANEL;
}

/**
 * The share of every thread: rows in whole blocks, or panels where that leaves the busiest thread less to do, as it does when rows
 * are few. Pure.
 */
export function layerShares(rows: number, panels: number, threads: number): { rows: Range; panels: Range }[] {
  const all = { rows: { from: 0, to: rows }, panels: { from: 0, to: panels } };
  const blocks = Math.ceil(rows / BLOCK);
  if (Math.ceil(blocks / threads) * panels <= blocks * Math.ceil(panels / threads)) {
    return cut(rows, threads, BLOCK).map((range) => ({ ...all, rows: range }));
  }
  return cut(panels, threads, 1).map((range) => ({ ...all, panels: range }));
}

/** W as panels of `inputs` lines of 64 numbers, and b as a line per panel; columns that no output has are 0. */
function packPanels(plan: LinearPlan, panels: Float32Array, biases: Float32Array): void {
  const { inputs, activation, weight, bias } = plan;
  const width = outputWidth(plan);
  const each = eachPanel(plan);
  panels.fill(0);
  biases.fill(0);
  for (let first = 0, panel = 0; first < width; first += each, panel++) {
    const some = Math.min(each, width - first);
    const put = (output: number, column: number) => {
      let to = panel * inputs * PANEL + column;
      for (let at = output * inputs, end = at + inputs; at < end; at++, to += PANEL) panels[to] = weight[at];
      if (bias) biases[panel * PANEL + column] = bias[output];
    };
    for (let c = 0; c < some; c++) put(first + c, c);
    if (activation !== "gelu-glu") continue;
    const lanes = Math.ceil(some / LANES) * LANES;
    for (let c = 0; c < some; c++) put(width + first + c, lanes + c);
  }
}
