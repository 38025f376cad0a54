/** How rows, projections and states lie in device memory: whole vec4s, features in slots (kernels/wgsl/features.wgsl). */
import { logWeight } from "../decay.ts";
import { ACTIVATIONS, stateBiases } from "../feature_map.ts";
import type { AttentionShape, Plan } from "../plan.ts";
import type { State } from "../state.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import type { TileOutput } from "./tiled.ts";
import type { Constants } from "./webgpu_device.ts";

/** The device's stand-in for −Infinity, and what is below every real exponent. */
export const NEGATIVE = -1e30;
const MASKED = -5e29;

export const vec4s = (width: number) => Math.ceil(width / 4);

/** Sizes in vec4s unless named otherwise. */
export interface Layout {
  readonly d4: number;
  readonly v4: number;
  readonly paddedProjections: number;
  readonly projectionBlock: number;
  /** Slots / 4 of one head. */
  readonly r4: number;
  /** One head's state: c, z, p, S. */
  readonly unit: number;
  readonly featureBlocks: number;
  readonly valueBlocks: number;
}

export function layoutOf(plan: Plan): Layout {
  const { projections, map: { featuresPerProjection: per } } = plan.parameters;
  const projectionBlock = 64 / per;
  const featureBlocks = Math.ceil(projections / projectionBlock);
  const paddedProjections = featureBlocks * projectionBlock;
  const r4 = per * paddedProjections / 4;
  const v4 = vec4s(plan.valueDim);
  return {
    d4: vec4s(plan.headDim),
    v4,
    paddedProjections,
    projectionBlock,
    r4,
    unit: 3 * r4 + 4 * r4 * v4,
    featureBlocks,
    valueBlocks: Math.ceil(v4 / 16),
  };
}

/** Log weights per row: with decay one for each key head. */
export function weightHeads({ decay, kvHeads }: AttentionShape): number {
  return decay ? kvHeads : 1;
}

/** Override constants of the passes that make features. */
export function constantsOf(plan: Plan): Constants {
  const { map } = plan.parameters;
  return {
    WEIGHT_HEADS: weightHeads(plan),
    FAMILY: ["exp", "trig", "pointwise"].indexOf(map.family),
    PER: map.featuresPerProjection,
  };
}

/** Record `Shape` of tile.wgsl. */
export function shapeRecord(plan: Plan, layout: Layout): Float32Array<ArrayBuffer> {
  const { projections, matrices, inputScale, gain, epsilon, map } = plan.parameters;
  const { d4, v4, paddedProjections, r4, unit } = layout;
  const record = new Float32Array(12);
  const integers = new Uint32Array(record.buffer);
  integers.set([d4, v4, projections, paddedProjections, matrices, r4, unit]);
  record[7] = inputScale;
  integers[8] = matrices * paddedProjections * d4;
  record.set([gain, epsilon], 9);
  integers[11] = ACTIVATIONS.indexOf(map.activation ?? "identity");
  return record;
}

/** W as `matrices × padded projections × d4` vec4s, then biases times 2, of key and query, `matrices × padded projections` numbers. */
export function packProjections(plan: Plan, layout: Layout): Float32Array {
  const { matrices, projections, headDim, weights, bias } = plan.parameters;
  const rows = matrices * layout.paddedProjections;
  const out = new Float32Array(rows * layout.d4 * 4 + rows);
  for (let matrix = 0; matrix < matrices; matrix++) {
    for (let a = 0; a < projections; a++) {
      const from = (matrix * projections + a) * headDim;
      const row = matrix * layout.paddedProjections + a;
      out.set(weights.subarray(from, from + headDim), row * layout.d4 * 4);
      out[rows * layout.d4 * 4 + row] = 2 * bias[matrix * projections + a];
    }
  }
  return out;
}

/** Turns tiles into what is uploaded; the result is valid until the next call. */
export class RowPacker {
  #scratch = new Float32Array(0);

  #room(length: number): Float32Array {
    if (this.#scratch.length < length) this.#scratch = new Float32Array(length);
    return this.#scratch.subarray(0, length);
  }

  /** Rows with every head padded to whole vec4s. Float32 rows of whole vec4s are passed through. */
  rows(tile: Tile, heads: number, width: number): Float32Array {
    const { data } = tile;
    const length = tile.rows * heads * width;
    if (width % 4 === 0) {
      if (data instanceof Float32Array) return data.length === length ? data : data.subarray(0, length);
      const out = this.#room(length);
      out.set(data.length === length ? data : data.subarray(0, length));
      return out;
    }
    const padded = vec4s(width) * 4;
    const cells = tile.rows * heads;
    const out = this.#room(cells * padded);
    for (let cell = 0; cell < cells; cell++) {
      const to = cell * padded;
      for (let i = 0; i < width; i++) out[to + i] = data[cell * width + i];
      out.fill(0, to + width, to + padded);
    }
    return out;
  }

  /**
   * ln ω per row, the stand-in where ω = 0; with decay per row and key head, relative to row `last` − 1 (that of a tile of which these are
   * the first rows).
   */
  logWeights(rows: number, weights: FloatArray | undefined, plan: AttentionShape, last = rows): Float32Array {
    const heads = weightHeads(plan);
    const out = this.#room(rows * heads);
    if (!weights && !plan.decay) return out.fill(0);
    for (let i = 0, at = 0; i < rows; i++) {
      for (let h = 0; h < heads; h++) out[at++] = Math.max(NEGATIVE, logWeight(weights, plan.decay, h, i, last));
    }
    return out;
  }

  /** Key heads `from … to−1` of a state; c without biases. */
  state(state: State, layout: Layout, plan: Plan, from: number, to: number): Float32Array {
    const { r4, v4, unit, paddedProjections } = layout;
    const { projections, features } = plan.parameters;
    const { valueDim } = state;
    const biases = stateBiases(plan.parameters, to);
    const out = this.#room((to - from) * unit * 4).fill(0);
    for (let h = from; h < to; h++) {
      const base = (h - from) * unit * 4;
      out.fill(NEGATIVE, base, base + 4 * r4);
      for (let a = 0; a < features; a++) {
        const f = h * features + a;
        const slot = slotOf(a, projections, paddedProjections);
        const c = state.c[f] - biases[f];
        const at = base + slot;
        out[at] = Math.max(c, NEGATIVE);
        // What rounding c takes away is given to z and S.
        const rest = c > NEGATIVE ? Math.exp(c - out[at]) : 1;
        out[base + 4 * r4 + slot] = state.z[f] * rest;
        const s = base + 12 * r4 + slot * v4 * 4;
        for (let i = 0; i < valueDim; i++) out[s + i] = state.S[f * valueDim + i] * rest;
      }
    }
    return out;
  }
}

/** Slot of feature `a`: the second half of a twin map starts at a multiple of the block. */
function slotOf(a: number, projections: number, padded: number): number {
  return a < projections ? a : padded + a - projections;
}

/** Reads key heads `from … to−1` of a device state into `state`. */
export function unpackState(
  floats: Float32Array,
  layout: Layout,
  plan: Plan,
  state: State,
  from: number,
  to: number,
): void {
  const { r4, v4, unit, paddedProjections } = layout;
  const { projections, features } = plan.parameters;
  const { valueDim } = state;
  const biases = stateBiases(plan.parameters, to);
  for (let h = from; h < to; h++) {
    const base = (h - from) * unit * 4;
    for (let a = 0; a < features; a++) {
      const f = h * features + a;
      const slot = slotOf(a, projections, paddedProjections);
      const c = floats[base + slot];
      if (c < MASKED) continue; // an empty feature of a fresh state
      state.c[f] = c + biases[f];
      state.z[f] = floats[base + 4 * r4 + slot];
      const s = base + 12 * r4 + slot * v4 * 4;
      for (let i = 0; i < valueDim; i++) state.S[f * valueDim + i] = floats[s + i];
    }
  }
}

/** A copy of `cells` rows of whole vec4s without their padding. */
export function unpad(floats: Float32Array, cells: number, width: number): Float32Array {
  const padded = vec4s(width) * 4;
  if (padded === width) return floats.slice(0, cells * width);
  const out = new Float32Array(cells * width);
  for (let cell = 0; cell < cells; cell++) {
    for (let i = 0; i < width; i++) out[cell * width + i] = floats[cell * padded + i];
  }
  return out;
}

/** Bytes of the widest uploaded row. */
export function widestRow(shape: AttentionShape): number {
  return 16 * Math.max(shape.heads, shape.kvHeads) * Math.max(vec4s(shape.headDim), vec4s(shape.valueDim));
}

/** Outputs of consecutive rows. */
export function concatenate(outputs: readonly TileOutput[]): TileOutput {
  const join = (parts: readonly Float32Array[]) => {
    const all = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  };
  return { out: join(outputs.map((one) => one.out)), denominators: join(outputs.map((one) => one.denominators)) };
}
