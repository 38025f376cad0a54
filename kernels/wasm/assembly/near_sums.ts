/**
 * Sums of near keys (near_far.ts): acc += wᵀV. Parts whose keys lie side by side pass in runs of up to 64 keys, so that a run's values stay in
 * the first cache and the sums are read and written once per run.
 */
import { BLOCK, LINE } from "./pack";
import * as plan from "./plan";
import { Add, Columns, product } from "./product";
import { PART_BYTES, partFrom, partKeys, partLine, partTo } from "./near_weights";
import { lines } from "./state";

/** Queries that have the same parts, where these are not of all queries. */
const COLUMN: i32 = 16;

/** Adds the `count` parts at `parts` to `acc` (64 value rows): weights are lines of `logits`, by key, as are the rows of `values`. */
export function addParts(p: usize, parts: usize, count: i32, logits: usize, values: usize, acc: usize): void {
  addRuns(p, 0, BLOCK, parts, count, logits, values, acc);
  for (let from = 0; from < BLOCK; from += COLUMN) addRuns(p, from, COLUMN, parts, count, logits, values, acc);
}

/** The parts of all queries, or those of one column that are not. */
function addRuns(
  p: usize,
  from: i32,
  queries: i32,
  parts: usize,
  count: i32,
  logits: usize,
  values: usize,
  acc: usize,
): void {
  const column = <usize> from << 2, wide = plan.valueLine(p);
  const to = acc + <usize> from * wide;
  let first = 0, end = 0;
  for (let i = 0; i <= count; i++) {
    const part = parts + <usize> i * PART_BYTES;
    if (i < count) {
      const all = partFrom(part) == 0 && partTo(part) == LINE;
      if (all != (queries == BLOCK) || column < partFrom(part) || column >= partTo(part)) continue;
      if (partLine(part) == end && end - first < BLOCK) {
        end += partKeys(part);
        continue;
      }
    }
    if (first < end) {
      const weights = logits + lines(first) + column, rows = values + <usize> first * wide;
      product<Columns, Add>(weights, LINE, rows, wide, to, wide, queries, plan.paddedValueDim(p), end - first);
    }
    if (i == count) break;
    first = partLine(part);
    end = first + partKeys(part);
  }
}
