/** What is to be computed, decided before any device is asked: pure data, no I/O. */
import type { MapParameters } from "./feature_map.ts";
import type { Precision } from "./tensor.ts";

/** Sizes shared by linear and exact attention. */
export interface AttentionShape {
  /** Query heads (batch × heads) and key/value heads; query head h reads key head ⌊h · kvHeads / heads⌋. */
  readonly heads: number;
  readonly kvHeads: number;
  /** Width of queries and keys, and of values. */
  readonly headDim: number;
  readonly valueDim: number;
  readonly causal: boolean;
  /** Upper bound on the rows of any tile handed to a session. */
  readonly tileRows: number;
}

/** One linear attention. */
export interface Plan extends AttentionShape {
  readonly parameters: MapParameters;
}

/** Exact softmax over a held set of query rows (`queryRows` at most). */
export interface ExactPlan extends AttentionShape {
  /** Logit scale S in exp(S · q·k). */
  readonly scale: number;
  readonly queryRows: number;
}

/** What a backend can take; see `tileRowsFor`. */
export interface Limits {
  readonly precision: Precision;
  /** Rows a session works on best, before memory is considered. */
  readonly preferredTileRows: number;
  /** Largest tile in bytes of its own precision. */
  readonly maxTileBytes: number;
  /** Calls that may be in flight before the caller should await the oldest. */
  readonly inFlight: number;
}

/** Rows per tile: the user's wish or the backend's, cut to the backend's memory, a multiple of 64 where possible. */
export function tileRowsFor(limits: Limits, widestCols: number, wish?: number): number {
  const bytes = limits.precision === "f64" ? 8 : 4;
  const most = Math.max(1, Math.floor(limits.maxTileBytes / (widestCols * bytes)));
  const rows = Math.min(wish ?? limits.preferredTileRows, most);
  return rows > 64 ? rows - rows % 64 : Math.max(1, rows);
}
