/**
 * State between host (float64, natural exponents; src/state.ts) and units in shared memory (float32, base 2). Of the `exp` family a
 * host's exponents hold the bias of the keys, a unit's that of the queries too: there c is higher by the bias.
 */
import type { MapParameters } from "../feature_map.ts";
import { logWeight } from "../decay.ts";
import type { AttentionShape } from "../plan.ts";
import type { State } from "../state.ts";
import type { FloatArray } from "../tensor.ts";
import type { SharedMemory } from "./wasm_memory.ts";
import type { Range } from "./wasm_split.ts";

/** Exponents of units below this mean "no key" (kernels/wasm/assembly/pack.ts). */
const NONE = -9e29;
/** What stands there: above MASKED, so that a masked key weighs 0 beside a state that has seen no key. */
const UNSEEN = -1e30;
const MASKED = -3e38;

/** Where a unit lies: some projections of one key head, at `at`. */
export interface UnitArea {
  readonly head: number;
  readonly projections: Range;
  readonly at: number;
}

/** How a plan's units are laid out. */
export class StateLayout {
  readonly #signs: number;

  constructor(
    readonly shared: SharedMemory,
    readonly parameters: MapParameters,
    readonly heads: number,
    readonly valueDim: number,
    readonly panel: number,
    /** Numbers per row of S. */
    readonly line: number,
  ) {
    this.#signs = parameters.map.featuresPerProjection;
  }

  /** Projections rounded up to whole panels. */
  #lanes({ from, to }: Range): number {
    return Math.ceil((to - from) / this.panel) * this.panel;
  }

  /** Bytes of a unit. */
  bytes(projections: Range): number {
    return this.#lanes(projections) * this.#signs * (2 + this.line) * 4;
  }

  /** Writes the unit's part of a state. Maps without exponents get one common c per head. */
  write(state: State, unit: UnitArea): void {
    const { parameters: { map, matrices, projections: m, bias }, valueDim, line } = this;
    const first = (unit.head % matrices) * m;
    const lanes = this.#lanes(unit.projections);
    const slots = lanes * this.#signs;
    const floats = this.shared.floats(unit.at, slots * (2 + line));
    floats.fill(0);
    floats.fill(UNSEEN, 0, slots);
    const base = unit.head * state.features;
    const common = map.family === "exp" ? null : highest(state.c, base, base + state.features);
    for (let sign = 0; sign < this.#signs; sign++) {
      for (let a = unit.projections.from; a < unit.projections.to; a++) {
        const f = base + sign * m + a;
        const slot = sign * lanes + a - unit.projections.from;
        const exact = ((common ?? state.c[f]) + bias[first + a]) * Math.LOG2E;
        if (exact === -Infinity) continue;
        const c = Math.fround(exact);
        // What rounding c takes away is given to z and S; so is the distance to a common c.
        const factor = common === null ? 2 ** (exact - c) : 2 ** (exact - c) * Math.exp(state.c[f] - common);
        floats[slot] = c;
        floats[slots + slot] = state.z[f] * factor;
        const to = 2 * slots + slot * line;
        const from = f * valueDim;
        for (let i = 0; i < valueDim; i++) floats[to + i] = state.S[from + i] * factor;
      }
    }
  }

  /** Fills a state, every number of it, from units that together hold every projection of every head. */
  read(units: readonly UnitArea[], state: State): void {
    const { parameters: { matrices, projections: m, features, bias }, valueDim, line } = this;
    for (const { head, projections, at } of units) {
      const first = (head % matrices) * m;
      const lanes = this.#lanes(projections);
      const slots = lanes * this.#signs;
      const floats = this.shared.floats(at, slots * (2 + line));
      for (let sign = 0; sign < this.#signs; sign++) {
        for (let a = projections.from; a < projections.to; a++) {
          const f = head * features + sign * m + a;
          const slot = sign * lanes + a - projections.from;
          state.c[f] = floats[slot] < NONE ? -Infinity : floats[slot] * Math.LN2 - bias[first + a];
          state.z[f] = floats[slots + slot];
          const from = 2 * slots + slot * line;
          const to = f * valueDim;
          for (let i = 0; i < valueDim; i++) state.S[to + i] = floats[from + i]; // quicker than set() of short rows
        }
      }
    }
  }
}

function highest(numbers: Float64Array, from: number, to: number): number {
  let top = -Infinity;
  for (let i = from; i < to; i++) top = Math.max(top, numbers[i]);
  return top;
}

/** Numbers that `writeLogWeights` writes for `rows` keys: per key head where there is decay, the same ones for all heads otherwise. */
export function logWeightCount({ decay, kvHeads }: AttentionShape, rows: number): number {
  return decay ? kvHeads * rows : rows;
}

/** log₂ of weights, with decay, for the kernels; masked keys far below every exponent. */
export function writeLogWeights(
  to: Float32Array,
  rows: number,
  weights: FloatArray | undefined,
  shape: AttentionShape,
): void {
  for (let at = 0, head = 0; at < logWeightCount(shape, rows); head++) {
    for (let i = 0; i < rows; i++, at++) {
      to[at] = Math.max(MASKED, logWeight(weights, shape.decay, head, i, rows) * Math.LOG2E);
    }
  }
}
