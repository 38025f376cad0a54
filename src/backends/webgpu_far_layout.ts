/** How far fields, near keys and heavy keys lie in device memory (kernels/wgsl/near_far.wgsl, far_*.wgsl). Pure. */
import type { KeyRows } from "../backend.ts";
import { UnsupportedError } from "../errors.ts";
import type { FarSums, HeavyKey } from "../far_state.ts";
import { BLOCK_ROWS, type NearFarPlan, type NearFarShape, nearRows, pairAt } from "../near_far.ts";
import { rowsOf, type Tile } from "../tensor.ts";
import type { TileOutput } from "./tiled.ts";
import type { Device } from "./webgpu_cut.ts";
import { mebibytes } from "./webgpu_device.ts";
import { unpad, vec4s, widestRow } from "./webgpu_layout.ts";

/** States of a call's blocks, and the logits of its clusters, are kept below these where one block allows. */
const STATES = 256 << 20;
const LOGITS = 256 << 20;
/** Largest dispatch in one dimension that every device takes. */
const DISPATCH = 65535;

/** Sizes in vec4s unless named otherwise. */
export interface FarLayout {
  readonly kind: "none" | "taylor" | "clusters";
  readonly d4: number;
  readonly v4: number;
  readonly valueBlocks: number;
  /** Taylor: moments of a head, features of order 1 and 2; clusters: how many. */
  readonly features: number;
  /** The same in whole workgroups. */
  readonly padded: number;
  /** One head's state. */
  readonly unit: number;
  /** Query rows of one call, a multiple of BLOCK_ROWS. */
  readonly capacity: number;
  /** Key rows of one call. */
  readonly keyRows: number;
}

/** Throws UnsupportedError for what the device cannot take. */
export function farLayoutOf(plan: NearFarShape, { maxBytes }: Pick<Device, "maxBytes">): FarLayout {
  const { far, headDim: d, kvHeads, heads, causal, clusters } = plan;
  const [d4, v4] = [vec4s(d), vec4s(plan.valueDim)];
  if ((clusters?.top ?? 0) > 0) {
    throw new UnsupportedError(
      "webgpu",
      "keys are not grouped by cluster on the device, so no cluster's keys can all be near: " +
        "use 0 top clusters and more heavy keys or a wider window in their place, or the backend wasm",
    );
  }
  const kind = far === "none" || far === "clusters" ? far : "taylor";
  const features = kind === "none"
    ? 0
    : kind === "clusters"
    ? clusters!.count
    : far === "taylor1"
    ? d
    : d + d * (d + 1) / 2;
  const padded = Math.ceil(features / (kind === "clusters" ? 32 : 64)) * (kind === "clusters" ? 32 : 64);
  const unit = kind === "none"
    ? 0
    : kind === "clusters"
    ? padded * (1 + v4 + 2 * d4)
    : 1 + v4 + padded / 4 + padded * v4;
  const state = kvHeads * unit * 16;
  const valueBlocks = Math.ceil(v4 / 16);
  const groups = Math.max(heads, padded / 64 * valueBlocks);
  if (state > maxBytes || groups > DISPATCH) {
    const what = kind === "clusters" ? `${features} clusters` : `moments of ${d} numbers per key`;
    throw new UnsupportedError(
      "webgpu",
      `${what} × ${kvHeads} heads need ${mebibytes(state)} in one buffer, the device takes ${
        mebibytes(maxBytes)
      }; use ` +
        (kind === "clusters" ? "fewer clusters" : "far field taylor1"),
    );
  }
  const blocks = Math.floor(
    Math.min(
      plan.tileRows / BLOCK_ROWS,
      DISPATCH,
      maxBytes / ((widestRow(plan) + 4 * heads) * BLOCK_ROWS), // outputs have denominators behind them
      causal && state > 0 ? Math.min(maxBytes, Math.max(STATES, state)) / state : Infinity,
      kind === "clusters"
        ? Math.min(maxBytes, Math.max(LOGITS, heads * padded * 256)) / (heads * padded * 256)
        : Infinity,
    ),
  );
  if (blocks < 1) {
    throw new UnsupportedError(
      "webgpu",
      `${BLOCK_ROWS} rows of ${heads} heads need more than ${mebibytes(maxBytes)} in one buffer`,
    );
  }
  const keyRows = Math.min(Math.floor(maxBytes / (kvHeads * Math.max(d4, v4) * 16)), DISPATCH * 64);
  return { kind, d4, v4, valueBlocks, features, padded, unit, capacity: blocks * BLOCK_ROWS, keyRows };
}

/** Moments in the order of the device: y_l, then y_a y_b by a + b's distance from a, modulo d. Calls `each` with both places. */
function eachPair(d: number, each: (feature: number, pair: number) => void): void {
  for (let p = 0; p < d * (d + 1) / 2; p++) {
    const a = p % d, b = (a + Math.floor(p / d)) % d;
    each(d + p, pairAt(Math.min(a, b), Math.max(a, b), d));
  }
}

/** Numbers between host and device: copies `count` of them from an index on the host to one on the device. */
type Move = (name: "n" | "y" | "v" | "yy" | "yv" | "yyv", host: number, device: number, count: number) => void;

/** Walks over the sums of a plan, in both orders. */
function walk(plan: NearFarPlan, { kind, d4, v4, padded, unit }: FarLayout, move: Move): void {
  const { kvHeads, headDim: d, valueDim, far } = plan;
  for (let head = 0; head < kvHeads && kind === "clusters"; head++) {
    for (let g = 0; g < plan.clusters!.count; g++) {
      const cell = head * plan.clusters!.count + g;
      const at = 4 * (head * unit + g * (1 + v4 + 2 * d4));
      move("n", cell, at, 1);
      move("v", cell * valueDim, at + 4, valueDim);
      move("y", cell * d, at + 4 + 4 * v4, d);
      move("yy", cell * d, at + 4 + 4 * v4 + 4 * d4, d);
    }
  }
  for (let head = 0; head < kvHeads && kind === "taylor"; head++) {
    const at = 4 * head * unit;
    const sums = at + 4 + 4 * v4;
    const products = sums + padded;
    move("n", head, at, 1);
    move("v", head * valueDim, at + 4, valueDim);
    move("y", head * d, sums, d);
    for (let l = 0; l < d; l++) move("yv", (head * d + l) * valueDim, products + l * v4 * 4, valueDim);
    if (far === "taylor1") continue;
    const first = head * d * (d + 1) / 2;
    eachPair(d, (feature, pair) => {
      move("yy", first + pair, sums + feature, 1);
      move("yyv", (first + pair) * valueDim, products + feature * v4 * 4, valueDim);
    });
  }
}

/** A state as the device has it, `kvHeads × unit` vec4s. */
export function packSums(sums: FarSums, plan: NearFarPlan, layout: FarLayout): Float32Array {
  const out = new Float32Array(plan.kvHeads * layout.unit * 4);
  walk(plan, layout, (name, host, device, count) => {
    const from = sums[name];
    for (let i = 0; i < count; i++) out[device + i] = from[host + i];
  });
  return out;
}

/** Reads a device state into `sums`. */
export function unpackSums(floats: Float32Array, plan: NearFarPlan, layout: FarLayout, sums: FarSums): void {
  walk(plan, layout, (name, host, device, count) => {
    const into = sums[name];
    for (let i = 0; i < count; i++) into[host + i] = floats[device + i];
  });
}

/** Outputs of a call and what they were divided by, `rows × heads`. */
export function unpackOutput(floats: Float32Array, rows: number, plan: NearFarPlan, { v4 }: FarLayout): TileOutput {
  const { heads, valueDim } = plan;
  const tail = floats.subarray(rows * heads * v4 * 4);
  const padded = Math.ceil(rows / BLOCK_ROWS) * BLOCK_ROWS;
  const denominators = new Float32Array(rows * heads);
  for (let row = 0; row < rows; row++) {
    for (let head = 0; head < heads; head++) denominators[row * heads + head] = tail[head * padded + row];
  }
  return { out: unpad(floats, rows * heads, valueDim), denominators };
}

/** Rows of `width` float64 numbers as whole vec4s. */
export function packRows(data: Float64Array, width: number): Float32Array {
  const padded = vec4s(width) * 4;
  const rows = data.length / width;
  const out = new Float32Array(rows * padded);
  for (let row = 0; row < rows; row++) out.set(data.subarray(row * width, (row + 1) * width), row * padded);
  return out;
}

/** Centroids, `kvHeads × padded × d4` vec4s, and half their squared norms. */
export function packCentroids(plan: NearFarPlan, layout: FarLayout): { centroids: Float32Array; halves: Float32Array } {
  const { kvHeads, headDim: d } = plan;
  const { count, centroids: given } = plan.clusters!;
  const centroids = new Float32Array(kvHeads * layout.padded * layout.d4 * 4);
  const halves = new Float32Array(kvHeads * layout.padded);
  for (let head = 0; head < kvHeads; head++) {
    for (let g = 0; g < count; g++) {
      const one = given.subarray((head * count + g) * d, (head * count + g + 1) * d);
      centroids.set(one, (head * layout.padded + g) * layout.d4 * 4);
      halves[head * layout.padded + g] = one.reduce((sum, c) => sum + c * c / 2, 0);
    }
  }
  return { centroids, halves };
}

/** Rows `from … to − 1`, borrowed. */
export function keyRowsOf({ k, v, weights }: KeyRows, from: number, to: number): KeyRows {
  return { k: rowsOf(k, from, to), v: rowsOf(v, from, to), weights: weights?.subarray(from, to) };
}

/** What queries `from … to − 1` can have near, of the rows given; null where that is none. */
export function nearOf(plan: NearFarPlan, q: Tile, near: KeyRows | null, from: number, to: number): KeyRows | null {
  if (!near || !(plan.causal || plan.window > 0)) return null;
  const wanted = nearRows(plan, q.start + from, q.start + to, Infinity);
  const first = Math.max(0, wanted.start - near.k.start);
  const end = Math.min(near.k.rows, wanted.end - near.k.start);
  return end > first ? keyRowsOf(near, first, end) : null;
}

/** Heavy keys of a call: each once, whatever the number of blocks that have it. */
export interface HeavyPool {
  /** Rows of the pool: those of the head with most. */
  readonly rows: number;
  /** Longest list. */
  readonly longest: number;
  readonly keys: Float32Array;
  readonly values: Float32Array;
  /** What `numbers` of near_far.wgsl holds behind the near rows. */
  readonly numbers: Uint32Array;
}

/** Rows are counted from `start`; farther ones than the device can count are as far as they come. */
export const FARTHEST = 2 ** 30;
export const away = (row: number, start: number) => Math.max(-FARTHEST, Math.min(FARTHEST, row - start));

/** Packs heavy keys per state and key head. */
export function packHeavy(
  heavy: readonly (readonly (readonly HeavyKey[])[])[],
  start: number,
  plan: NearFarPlan,
  { d4, v4 }: FarLayout,
): HeavyPool {
  const { kvHeads } = plan;
  const places = Array.from({ length: kvHeads }, () => new Map<HeavyKey, number>());
  let longest = 0;
  for (const state of heavy) {
    for (const [head, keys] of state.entries()) {
      longest = Math.max(longest, keys.length);
      const place = places[head];
      for (const key of keys) if (!place.has(key)) place.set(key, place.size);
    }
  }
  const rows = Math.max(0, ...places.map((place) => place.size));
  const cells = rows * kvHeads;
  const keys = new Float32Array(cells * d4 * 4);
  const values = new Float32Array(cells * v4 * 4);
  const numbers = new Uint32Array(2 * cells + (longest > 0 ? heavy.length * kvHeads * (longest + 1) : 0));
  const floats = new Float32Array(numbers.buffer);
  for (const [head, place] of places.entries()) {
    for (const [key, p] of place) {
      const cell = p * kvHeads + head;
      keys.set(key.k, cell * d4 * 4);
      values.set(key.v, cell * v4 * 4);
      floats[cell] = key.weight;
      numbers[cells + cell] = away(key.row, start);
    }
  }
  let at = 2 * cells;
  for (const state of longest > 0 ? heavy : []) {
    for (const [head, some] of state.entries()) {
      numbers[at] = some.length;
      some.forEach((key, i) => numbers[at + 1 + i] = places[head].get(key)!);
      at += longest + 1;
    }
  }
  return { rows, longest, keys, values, numbers };
}
