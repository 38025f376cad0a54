/** Shared memory of near-and-far calls in flight (wasm_far.ts): what each has for itself, and whether there is room for it. */
import { UnsupportedError } from "../errors.ts";
import type { NearFarPlan, NearFarShape } from "../near_far.ts";

/** Calls in flight that have areas of their own. */
const SLOTS = 3;
/** Most bytes of shared memory for rows near the queries. */
const NEAR_BYTES = 1 << 30;

/** Areas of one call: addresses of row 0 of each tensor. */
export interface Slot {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly weights: number;
  /** Per key head, the cluster of each near row. */
  readonly ids: number;
  /** Per key head, heavy records. */
  readonly heavy: readonly number[];
  /** Per key head, moments to answer by; and their version. */
  readonly moments: readonly number[];
  version: number;
  /** Per piece of rows and key head, sums of keys; per key head, what they refer to. */
  readonly sums: readonly number[];
  readonly references: readonly number[];
  readonly out: number;
  readonly denominators: number;
  /** With `top`, per key head: places of rows among those of their cluster, and where each cluster's keys lie. */
  readonly places: readonly number[];
  readonly directories: readonly number[];
  /** Pairs that whole clusters took, per query head. */
  readonly counters: number;
}

/** Rows that may be near those of a tile. */
const mostNear = ({ tileRows, causal, window, exactRows }: NearFarShape) =>
  tileRows + (causal ? Math.max(window, exactRows) : 2 * window);

/** Throws UnsupportedError for what there is no room for. */
export function checkNear(shape: NearFarShape): void {
  const { kvHeads, headDim, valueDim, window } = shape;
  if (SLOTS * mostNear(shape) * kvHeads * (headDim + valueDim) * 4 > NEAR_BYTES) {
    throw new UnsupportedError(
      "wasm",
      `the keys of a window of ${window} rows do not fit into its memory; use a smaller --window, or --features softmax`,
    );
  }
}

/** Bytes of a head's moments, of its heavy records and of its directory of top keys (0: none), and pieces that its sums are taken in. */
export interface SlotSizes {
  readonly moments: number;
  readonly records: number;
  readonly directory: number;
  readonly pieces: number;
}

/** The slots of a session; `take` allocates bytes. */
export function makeSlots(plan: NearFarPlan, sizes: SlotSizes, take: (bytes: number) => number): Slot[] {
  const { heads, kvHeads, headDim, valueDim, tileRows, clusters } = plan;
  const { moments, records, directory, pieces } = sizes;
  const nearRows = mostNear(plan);
  const perHead = (count: number, size: number) => Array.from({ length: count }, () => take(size));
  return Array.from({ length: SLOTS }, (): Slot => ({
    q: take(tileRows * heads * headDim * 4),
    k: take(nearRows * kvHeads * headDim * 4),
    v: take(nearRows * kvHeads * valueDim * 4),
    weights: take(nearRows * 4),
    ids: clusters ? take(kvHeads * nearRows * 4) : 0,
    heavy: perHead(kvHeads, records),
    moments: perHead(kvHeads, moments),
    version: -1,
    sums: perHead(kvHeads * pieces, moments),
    references: perHead(kvHeads, (headDim + 4) * 4),
    out: take(tileRows * heads * valueDim * 4),
    denominators: take(tileRows * heads * 4),
    places: directory > 0 ? perHead(kvHeads, tileRows * 4) : [],
    directories: directory > 0 ? perHead(kvHeads, directory) : [],
    counters: take(heads * 4),
  }));
}
