/** What systems do to a denominator before they divide by it. */
import type { Rules } from "./rules_table.ts";
import type { FloatArray, Tile } from "./tensor.ts";

/**
 * Outputs that were divided by `denominators` (`rows × heads`) as if they had been divided by the profile's divisor.
 * `unit`: the denominator's factor in the profile's own features (1/m for features with 1/√m).
 */
export function divide(
  out: Tile,
  denominators: ArrayLike<number>,
  divisor: Rules["divisor"],
  valueDim: number,
  unit = 1,
): void {
  scaleCells(out, valueDim, (cell) => {
    const D = denominators[cell] * unit;
    return D === 0 ? 0 : D / divisorOf(D, divisor);
  });
}

/** What a profile divides by instead of D. */
export function divisorOf(D: number, { kind, epsilon }: Rules["divisor"]): number {
  switch (kind) {
    case "plain":
      return D;
    case "add":
      return D + epsilon;
    case "clamp":
      return Math.max(D, epsilon);
    case "nudge":
      return Math.abs(D) <= epsilon ? D + 2 * epsilon : D;
  }
}

/** Multiplies the `width` numbers of every cell (row, head) by a factor. */
export function scaleCells({ data, rows, cols }: Tile, width: number, factor: (cell: number) => number): void {
  const numbers: FloatArray = data;
  for (let cell = 0, at = 0; at < rows * cols; cell++) {
    const f = factor(cell);
    for (const end = at + width; at < end; at++) numbers[at] *= f;
  }
}
