/** Near-and-far plans, moments and heavy keys in shared memory, in the layout of kernels/wasm/assembly/far_plan.ts. */
import type { FarSums, HeavyKey } from "../far_state.ts";
import { HERMITE_LIMIT, type NearFarPlan, QUADRATIC_LIMIT } from "../near_far.ts";
import { FIELDS, paddedValues, type PlanArea, writeShape } from "./wasm_plan.ts";
import type { SharedMemory } from "./wasm_memory.ts";

const FAR_FIELDS_END = 40;
const KINDS = { none: 0, taylor1: 1, taylor2: 2, hermite2: 3, clusters: 4 } as const;
/** ‖c‖²/2 of a centroid that pads: no key is nearest to it. */
const FARTHEST = 1e38;

const padded = (count: number): number => Math.ceil(count / 4) * 4;

/** A plan with its centroids. */
export function writeFarPlan(shared: SharedMemory, plan: NearFarPlan): PlanArea {
  const { kvHeads, headDim: d, valueDim, clusters } = plan;
  const owned: number[] = [];
  const take = (bytes: number): number => {
    const area = shared.allocate(bytes);
    owned.push(area);
    return area;
  };
  const at = take(FAR_FIELDS_END * 4);
  shared.integers(at, FAR_FIELDS_END).fill(0);
  writeShape(shared, at, plan);
  const ints = shared.integers(at, FAR_FIELDS_END), floats = shared.floats(at, FAR_FIELDS_END);
  ints[FIELDS] = KINDS[plan.far];
  floats[27] = plan.scale;
  ints[28] = Math.min(plan.window, 2 ** 30);
  ints[29] = plan.causal ? 1 : 0;
  ints[30] = plan.exactRows;
  ints[35] = plan.heavy;
  ints[39] = plan.tileRows;
  floats[36] = QUADRATIC_LIMIT;
  floats[37] = HERMITE_LIMIT;
  if (clusters) {
    const { count, centroids } = clusters;
    const row = padded(d), columns = padded(count), table = Math.ceil(d / 64) * columns * 64;
    ints[31] = count;
    ints[38] = clusters.top;
    ints[32] = take(kvHeads * count * row * 4);
    ints[33] = take(kvHeads * table * 4);
    ints[34] = take(kvHeads * columns * 4);
    const rows = shared.floats(ints[32], kvHeads * count * row).fill(0);
    const tables = shared.floats(ints[33], kvHeads * table).fill(0);
    const halves = shared.floats(ints[34], kvHeads * columns).fill(FARTHEST);
    for (let head = 0; head < kvHeads; head++) {
      for (let g = 0; g < count; g++) {
        let half = 0;
        for (let l = 0; l < d; l++) {
          const value = centroids[(head * count + g) * d + l];
          rows[(head * count + g) * row + l] = value;
          tables[head * table + (Math.floor(l / 64) * columns + g) * 64 + l % 64] = value;
          half += 0.5 * value * value;
        }
        halves[head * columns + g] = half;
      }
    }
  }
  const release = () => owned.forEach((area) => shared.release(area));
  return { at, panel: 1, valueLine: paddedValues(valueDim), release };
}

/** Moments of one key head as float32 numbers. */
export class MomentLayout {
  readonly #row: number;
  readonly #line: number;
  readonly #pairs: number;

  constructor(readonly shared: SharedMemory, readonly plan: NearFarPlan, readonly numbers: number) {
    const { headDim: d, valueDim } = plan;
    this.#row = padded(d);
    this.#line = paddedValues(valueDim);
    this.#pairs = d * (d + 1) / 2;
  }

  /** Calls `copy` for every run of numbers: where it starts in the area, which sums, from where, how many. */
  #runs(head: number, copy: (at: number, sums: keyof FarSums, from: number, count: number) => void): void {
    const { headDim: d, valueDim, far, clusters } = this.plan;
    const row = this.#row, line = this.#line, pairs = this.#pairs;
    if (far === "none") return;
    if (far === "clusters") {
      const { count } = clusters!;
      const first = padded(count), second = first + count * row, values = second + count * row;
      copy(0, "n", head * count, count);
      for (let g = 0; g < count; g++) {
        const cell = head * count + g;
        copy(first + g * row, "y", cell * d, d);
        copy(second + g * row, "yy", cell * d, d);
        copy(values + g * line, "v", cell * valueDim, valueDim);
      }
      return;
    }
    const first = row + 4, values = first + row, firstValues = values + line;
    copy(0, "reference", head * d, d);
    copy(row, "n", head, 1);
    copy(first, "y", head * d, d);
    copy(values, "v", head * valueDim, valueDim);
    for (let l = 0; l < d; l++) copy(firstValues + l * line, "yv", (head * d + l) * valueDim, valueDim);
    if (far === "taylor1") return;
    const second = firstValues + (d + 1) * line, secondValues = second + padded(pairs);
    copy(second, "yy", head * pairs, pairs);
    for (let i = 0; i < pairs; i++) {
      copy(secondValues + i * line, "yyv", (head * pairs + i) * valueDim, valueDim);
    }
  }

  /** Writes the sums of a head; padding becomes 0. */
  write(sums: FarSums, head: number, area: number): void {
    const numbers = this.shared.floats(area, this.numbers);
    numbers.fill(0);
    this.#runs(head, (at, name, from, count) => numbers.set(sums[name].subarray(from, from + count), at));
  }

  /** Adds a head's numbers to sums that refer to the same point. */
  add(area: number, head: number, sums: FarSums): void {
    const numbers = this.shared.floats(area, this.numbers);
    this.#runs(head, (at, name, from, count) => {
      if (name === "reference") return;
      const to = sums[name];
      for (let i = 0; i < count; i++) to[from + i] += numbers[at + i];
    });
  }
}

/** Numbers of a record: block, slot, row, ω, k, v. */
export const recordNumbers = ({ headDim, valueDim }: NearFarPlan): number => 4 + headDim + valueDim;

/**
 * Heavy keys of one key head, block by block: a record for every slot whose key is not the one it held before.
 * @param lists per block, the keys by slot @param room records that fit
 * @returns records written
 */
export function writeHeavy(
  shared: SharedMemory,
  plan: NearFarPlan,
  lists: readonly (readonly HeavyKey[])[],
  area: number,
  room: number,
): number {
  const size = recordNumbers(plan);
  const floats = shared.floats(area, room * size), ints = shared.integers(area, room * size);
  let records = 0;
  let before: readonly HeavyKey[] = [];
  for (const [block, keys] of lists.entries()) {
    for (const [slot, key] of keys.entries()) {
      if (before[slot] === key) continue;
      const at = records++ * size;
      ints[at] = block;
      ints[at + 1] = slot;
      ints[at + 2] = key.row;
      floats[at + 3] = key.weight;
      floats.set(key.k, at + 4);
      floats.set(key.v, at + 4 + plan.headDim);
    }
    before = keys;
  }
  return records;
}
