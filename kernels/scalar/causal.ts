/**
 * Causal pass, sequential: add key i, then answer query i. Row i is blind to later rows bit for bit,
 * and row 0 is v_0 to rounding.
 * It is also the fallback of chunked kernels for rows whose denominator underflows.
 */
import { KeyPass } from "./keys.ts";
import { QueryRow } from "./queries.ts";
import type { Counts, FeatureNumbers, HeadShape, Rows, StateNumbers } from "./types.ts";

/** Outputs of all rows; `state` is advanced past them. */
export function emitCausal(
  p: FeatureNumbers,
  shape: HeadShape,
  state: StateNumbers,
  q: Rows,
  k: Rows,
  v: Rows,
  weights: ArrayLike<number> | undefined,
  out: Float32Array | Float64Array,
  counts: Counts,
  denominators?: Float32Array | Float64Array,
): void {
  const row = new QueryRow(p, shape, state, counts);
  const keys = new KeyPass(p, shape, state, 1);
  for (let i = 0; i < q.rows; i++) {
    keys.absorb(k, v, weights, i, i + 1);
    for (let h = 0; h < shape.heads; h++) {
      const denominator = row.emit(q, i, h, out);
      if (denominators) denominators[i * shape.heads + h] = denominator;
    }
  }
}
