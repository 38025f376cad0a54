/** Dense layers on the wasm threads (kernels/wasm/assembly/dense.ts): W packed once in shared memory, rows or outputs shared out. */
import type { Linear } from "../backend.ts";
import { checkLinear, checkRows, type LinearPlan, outputWidth } from "../plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import type { SharedMemory } from "./wasm_memory.ts";
import type { Call, Kernels } from "./wasm_module.ts";
import type { Pool } from "./wasm_pool.ts";
import { Slots } from "./wasm_slots.ts";
import { BLOCK, cut, type Range } from "./wasm_split.ts";

/** Columns of a panel, which has outputs of one group, and what they are rounded up to in the last one. */
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
  /** One group, or the whole layer: the layer whose panels W is packed in, and their number. */
  readonly #group: LinearPlan;
  readonly #panels: number;
  readonly #weights: number;
  readonly #biases: number;
  readonly #slots: Slots<Slot>;
  readonly #owned: number[] = [];
  /** Scratch memory per thread, and that of the main thread. */
  readonly #scratch: number[];

  /** Allocates everything; call only while the pool is idle. */
  constructor(readonly plan: LinearPlan, readonly pool: Pool, readonly shared: SharedMemory, kernels: Kernels) {
    checkLinear(plan);
    const { tileRows, groups = 1 } = plan;
    this.#width = outputWidth(plan);
    this.#group = { ...plan, inputs: plan.inputs / groups, outputs: plan.outputs / groups, groups: 1 };
    const { inputs, outputs } = this.#group;
    this.#panels = Math.ceil(outputWidth(this.#group) / eachPanel(plan));
    const panels = groups * this.#panels;
    try {
      this.#weights = this.#take(panels * inputs * PANEL * 4);
      this.#biases = this.#take(panels * PANEL * 4);
      this.#slots = new Slots(Array.from({ length: SLOTS }, (): Slot => ({
        x: this.#take(tileRows * plan.inputs * 4),
        out: this.#take(tileRows * this.#width * 4),
      })));
      this.#scratch = Array.from({ length: pool.threads + 1 }, () => this.#take(kernels.denseScratch(inputs)));
    } catch (error) {
      this.#release();
      throw error;
    }
    for (let group = 0; group < groups; group++) {
      const { weights, biases } = this.#panelsOf(group);
      const block = {
        ...this.#group,
        weight: plan.weight.subarray(group * outputs * inputs, (group + 1) * outputs * inputs),
        bias: plan.bias && plan.bias.subarray(group * outputs, (group + 1) * outputs),
      };
      const lines = shared.floats(weights, this.#panels * inputs * PANEL);
      packPanels(block, lines, shared.floats(biases, this.#panels * PANEL));
    }
  }

  /** Addresses of a group's panels. */
  #panelsOf(group: number): { readonly weights: number; readonly biases: number } {
    const before = group * this.#panels * PANEL * 4;
    return { weights: this.#weights + before * this.#group.inputs, biases: this.#biases + before };
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
      if (2 * x.rows * this.#group.inputs * this.plan.outputs > SMALL) {
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
    const { activation, groups = 1 } = this.plan;
    const { inputs } = this.#group;
    const width = outputWidth(this.#group);
    return layerShares(rows, groups * this.#panels, threads).map((share, thread): Call[] => {
      if (share.rows.from === share.rows.to) return [];
      return groupPanels(share.panels, this.#panels).map(({ group, panels: { from, to } }): Call => {
        const { weights, biases } = this.#panelsOf(group);
        const layer = [ACTIVATIONS.indexOf(activation), inputs, width, weights, biases];
        const read = [x + group * inputs * 4, this.plan.inputs * 4, share.rows.from, share.rows.to, from, to];
        const write = [out + group * width * 4, this.#width * 4, this.#scratch[first + thread]];
        return ["dense", ...layer, ...read, ...write];
      });
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

/** A range of the panels of all groups, each of which has `each`, as ranges of every group's own. Pure. */
function groupPanels({ from, to }: Range, each: number): { group: number; panels: Range }[] {
  const parts: { group: number; panels: Range }[] = [];
  for (let group = Math.floor(from / each); group * each < to; group++) {
    const before = group * each;
    const panels = { from: Math.max(from - before, 0), to: Math.min(to - before, each) };
    if (panels.from < panels.to) parts.push({ group, panels });
  }
  return parts;
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
