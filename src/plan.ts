/** What is to be computed, decided before any device is asked: pure data, no I/O. */
import type { MapParameters } from "./feature_map.ts";
import type { FloatArray, Precision, Tile } from "./tensor.ts";

/** Sizes shared by linear and exact attention. */
export interface AttentionShape {
  /** Query heads (batch × heads) and key/value heads; query head h reads key head ⌊h · kvHeads / heads⌋. */
  readonly heads: number;
  readonly kvHeads: number;
  /** Width of queries and keys, and of values. */
  readonly headDim: number;
  readonly valueDim: number;
  readonly causal: boolean;
  /** λ ≥ 0 per key head of the bias −λ (i − j), causal only (decay.ts); absent or null: none. */
  readonly decay?: Float64Array | null;
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
  /** The largest logit of `ExactSession.normalisers` must be the largest itself, not a bound near it. */
  readonly tight?: boolean;
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

/** A dense layer y = activation(x Wᵀ + b). */
export interface LinearPlan {
  readonly inputs: number;
  readonly outputs: number;
  /** W, `outputs × inputs`, row-major, as torch stores it; of a grouped layer its blocks one after the other. */
  readonly weight: FloatArray;
  /**
   * G, 1 if left out: W is block-diagonal, so that outputs of group g see the inputs of group g alone (a transform per head). Groups are
   * equal and contiguous, blocks `outputs/G × inputs/G`; as torch stores a convolution of width 1 with G groups.
   */
  readonly groups?: number;
  /** `outputs` numbers, or null. */
  readonly bias: FloatArray | null;
  /** After the bias; "gelu" is the exact one (erf), "gelu-glu" makes `outputs / 2` numbers: gelu(first half) · second half. */
  readonly activation: "none" | "relu" | "gelu" | "gelu-glu";
  /** Upper bound on the rows of any tile. */
  readonly tileRows: number;
}

/** Numbers of an output row: half of `outputs` for a gated layer. */
export function outputWidth({ outputs, activation }: LinearPlan): number {
  return activation === "gelu-glu" ? outputs / 2 : outputs;
}

/** Throws RangeError when a layer's numbers do not fit its sizes, or a gated layer has groups. */
export function checkLinear(plan: LinearPlan): void {
  const { inputs, outputs, weight, bias, activation, groups = 1 } = plan;
  if (!(Number.isInteger(groups) && groups >= 1 && inputs % groups === 0 && outputs % groups === 0)) {
    throw new RangeError(
      `A layer of ${outputs} × ${inputs} has ${groups} groups, expected a number that divides ${outputs} and ${inputs}`,
    );
  }
  if (activation === "gelu-glu" && groups > 1) {
    throw new RangeError(`A gated layer has ${groups} groups, expected 1: make the halves layers of their own`);
  }
  if (weight.length !== inputs * outputs / groups) {
    const many = groups > 1 ? ` in ${groups} groups` : "";
    throw new RangeError(
      `A layer of ${outputs} × ${inputs}${many} has ${weight.length} weights, expected ${outputs * inputs / groups}`,
    );
  }
  if (bias && bias.length !== outputs) {
    throw new RangeError(`A layer of ${outputs} outputs has ${bias.length} biases, expected ${outputs}`);
  }
  if (activation === "gelu-glu" && outputs % 2 !== 0) {
    throw new RangeError(`A gated layer has ${outputs} outputs, expected an even number`);
  }
}

/** The same layer without groups, for backends that multiply by whole matrices: W with the zeros beside its blocks. */
export function ungrouped(plan: LinearPlan): LinearPlan {
  const { inputs, outputs, weight, groups = 1 } = plan;
  if (groups === 1) return plan;
  const width = inputs / groups;
  const whole = weight instanceof Float32Array
    ? new Float32Array(outputs * inputs)
    : new Float64Array(outputs * inputs);
  for (let output = 0; output < outputs; output++) {
    const group = Math.floor(output * groups / outputs);
    whole.set(weight.subarray(output * width, (output + 1) * width), output * inputs + group * width);
  }
  return { ...plan, weight: whole, groups: 1 };
}

/** Throws RangeError for a tile that a layer has no room for. */
export function checkRows({ inputs, tileRows }: LinearPlan, { rows, cols }: Tile): void {
  if (cols !== inputs || rows > tileRows) {
    throw new RangeError(`Cannot take a tile of ${rows} × ${cols}, expected at most ${tileRows} × ${inputs}`);
  }
}
