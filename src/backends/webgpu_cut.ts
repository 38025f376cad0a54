/** How a plan is cut to what a device takes: key heads per round, key ranges, rows per call. Pure. */
import { UnsupportedError } from "../errors.ts";
import type { AttentionShape } from "../plan.ts";
import { mebibytes } from "./webgpu_device.ts";
import { type Layout, widestRow } from "./webgpu_layout.ts";

/** Rows of a causal chunk and of a query workgroup: fixed by the kernels. */
export const CHUNK = 64;
/** Partial states are kept below this where one head allows. */
const PARTIALS = 256 << 20;
/** Workgroups that keep a large GPU, or a few cores, busy. */
const WORKGROUPS = 1024;
const SOFTWARE_WORKGROUPS = 8;
/** Keys that one workgroup takes at least. */
const LEAST_KEYS = 128;
/** Largest dispatch in one dimension that every device takes. */
const DISPATCH = 65535;

export interface Device {
  readonly software: boolean;
  /** Largest buffer. */
  readonly maxBytes: number;
}

/** Workgroups worth having; each range of keys adds one per (head, block). */
export function busyWorkgroups({ software }: Device): number {
  return software ? SOFTWARE_WORKGROUPS : WORKGROUPS;
}

/** Ranges of at least LEAST_KEYS keys, a multiple of 32 each: how many, and how long. */
export function keyRanges(rows: number, most: number): { readonly ranges: number; readonly share: number } {
  const wanted = Math.max(1, Math.min(most, Math.ceil(rows / LEAST_KEYS)));
  const share = Math.max(32, Math.ceil(rows / wanted / 32) * 32);
  return { ranges: Math.max(1, Math.ceil(rows / share)), share };
}

export interface Cut {
  /** Rows that one call can take. */
  readonly capacity: number;
  /** Key heads of one round. */
  readonly heads: number;
  /** Ranges that a call's keys may be cut into. */
  readonly ranges: number;
  /** Partial states per key head: ranges, or causal chunks. */
  readonly partials: number;
  /** Key heads `kv0 … kv1−1` and the query heads that read them. */
  readonly rounds: readonly { readonly kv0: number; readonly kv1: number; readonly h0: number; readonly h1: number }[];
}

/** Throws UnsupportedError when one head's state or one row does not fit. */
export function cutOf(shape: AttentionShape, layout: Layout, device: Device): Cut {
  const { maxBytes } = device;
  const unit = layout.unit * 16;
  if (unit > maxBytes) {
    const features = 4 * layout.r4;
    throw new UnsupportedError(
      "webgpu",
      `${features} features × ${shape.valueDim} values need ${mebibytes(unit)} in one buffer, ` +
        `the device takes ${mebibytes(maxBytes)}; use fewer features`,
    );
  }
  const states = Math.floor(Math.min(maxBytes, Math.max(PARTIALS, unit)) / unit);
  const fit = Math.min(Math.floor(maxBytes / widestRow(shape)), DISPATCH * CHUNK);
  if (fit < 1) {
    throw new UnsupportedError("webgpu", `one row of ${shape.heads} heads is larger than ${mebibytes(maxBytes)}`);
  }
  const wanted = Math.max(1, Math.min(shape.tileRows, fit));
  // A causal call keeps one state per chunk and head.
  const capacity = shape.causal ? Math.min(wanted, states * CHUNK) : wanted;
  const chunks = shape.causal ? Math.ceil(capacity / CHUNK) : 1;
  const heads = Math.min(shape.kvHeads, Math.max(1, Math.floor(states / chunks)));
  const enough = Math.ceil(busyWorkgroups(device) / (layout.featureBlocks * layout.valueBlocks * heads));
  const { ranges } = keyRanges(capacity, Math.min(enough, Math.floor(states / heads)));
  const rounds: Cut["rounds"][number][] = [];
  const first = (kv: number) => Math.ceil(kv * shape.heads / shape.kvHeads);
  for (let kv0 = 0; kv0 < shape.kvHeads; kv0 += heads) {
    const kv1 = Math.min(shape.kvHeads, kv0 + heads);
    rounds.push({ kv0, kv1, h0: first(kv0), h1: first(kv1) });
  }
  return { capacity, heads, ranges, partials: Math.max(chunks, ranges), rounds };
}
