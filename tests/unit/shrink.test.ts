/** Shrinkage towards the mean of V: the least-squares share, and that outputs shrunk tile by tile are those shrunk at once. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { RandomStream } from "../../src/random.ts";
import { fitShrinkage, Shrinkage, shrunk } from "../../src/shrink.ts";
import type { Tile } from "../../src/tensor.ts";

const SETTINGS = { seed: 20200930 };
const tile = (data: ArrayLike<number>, cols: number, start = 0): Tile => {
  return { start, rows: data.length / cols, cols, data: Float64Array.from(data) };
};

/** ‖a − b‖² of one head's columns. */
function distance(a: Tile, b: Tile, heads: number, head: number): number {
  const width = a.cols / heads;
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) {
    if (Math.floor(i % a.cols / width) === head) sum += (a.data[i] - b.data[i]) ** 2;
  }
  return sum;
}

test("λ is ⟨Ô − v̄, O − v̄⟩ / ‖Ô − v̄‖² per head, cut to [0, 1]", () => {
  // Head 0: Ô − v̄ = (2, 0), (0, 2), O − v̄ = (1, 0), (0, 0). Head 1 points the other way, head 2 falls short.
  const approx = tile([2, 0, 1, 1, 1, 0, /**/ 0, 2, 1, 1, 0, 1], 6);
  const exact = tile([1, 0, -1, -1, 4, 0, /**/ 0, 0, -1, -1, 0, 4], 6);
  const uniform = tile(new Float64Array(12), 6);
  expect(Array.from(fitShrinkage(approx, exact, uniform, 3))).toEqual([2 / 8, 0, 1]);
  expect(Array.from(fitShrinkage(approx, exact, uniform, 3, (row) => row === 0))).toEqual([2 / 4, 0, 1]);
  const mixed = shrunk(approx, uniform, [0.25, 0, 1]);
  expect(Array.from(mixed.data)).toEqual([0.5, 0, 0, 0, 1, 0, 0, 0.5, 0, 0, 0, 1]);
});

test("nothing to go by: λ is 1; outputs that are not finite count as the mean, and spoil no other", () => {
  const mean = tile([1, 2, 3, 4], 2);
  expect(Array.from(fitShrinkage(mean, tile([5, 5, 5, 5], 2), mean, 1))).toEqual([1]);
  expect(Array.from(fitShrinkage(tile([], 2), tile([], 2), tile([], 2), 1))).toEqual([1]);
  const broken = tile([NaN, 4, Infinity, 6], 2);
  const uniform = tile([1, 2, 3, 4], 2);
  const lambda = fitShrinkage(broken, tile([9, 3, 9, 5], 2), uniform, 1);
  expect(Array.from(lambda)).toEqual([0.5]);
  expect(Array.from(shrunk(broken, uniform, lambda).data)).toEqual([1, 3, 3, 5]);
  expect(Array.from(fitShrinkage(tile([1e200, -1e200], 2), tile([1, 1], 2), tile([0, 0], 2), 1))).toEqual([0]);
});

test("on the rows it was fitted to it is no worse than the mean, nor than the approximation", () => {
  const numbers = (length: number) =>
    fc.array(fc.double({ min: -100, max: 100, noNaN: true }), { minLength: length, maxLength: length });
  const cases = fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 3 }))
    .chain(([rows, heads]) =>
      fc.tuple(fc.constant(heads), numbers(rows * heads * 2), numbers(rows * heads * 2), numbers(rows * heads * 2))
    );
  fc.assert(
    fc.property(cases, ([heads, a, b, c]) => {
      const [approx, exact, uniform] = [a, b, c].map((data) => tile(data, 2 * heads));
      const mixed = shrunk(approx, uniform, fitShrinkage(approx, exact, uniform, heads));
      for (let head = 0; head < heads; head++) {
        const least = Math.min(distance(approx, exact, heads, head), distance(uniform, exact, heads, head));
        // λ is rounded: the error of its square is second order, that of sums of squares up to 4·10⁴ each is first.
        expect(distance(mixed, exact, heads, head)).toBeLessThanOrEqual(least * (1 + 1e-12) + 1e-9);
      }
    }),
    SETTINGS,
  );
});

test("outputs shrunk tile after tile are those shrunk at once", () => {
  const cases = fc.record({
    rows: fc.integer({ min: 1, max: 40 }),
    tileRows: fc.integer({ min: 1, max: 17 }),
    kvHeads: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 2 }),
    valueDim: fc.integer({ min: 1, max: 3 }),
    causal: fc.boolean(),
    weighted: fc.boolean(),
    seed: fc.nat(1000),
  });
  fc.assert(
    fc.property(cases, ({ rows, tileRows, kvHeads, group, valueDim, causal, weighted, seed }) => {
      const random = new RandomStream(seed);
      const heads = kvHeads * group, cols = heads * valueDim, keyCols = kvHeads * valueDim;
      const [v, out] = [random.normals(rows * keyCols), random.normals(rows * cols)];
      const weights = Float64Array.from({ length: rows }, (_, j) => weighted ? [0, 2, 0.5][j % 3] : 1);
      const lambda = Array.from({ length: heads }, (_, h) => h / heads);
      const shape = { heads, kvHeads, headDim: 1, valueDim, causal, tileRows };
      // Dense: the mean of the visible values, by its definition.
      const uniform = new Float64Array(rows * cols);
      for (let i = 0; i < rows; i++) {
        const seen = Array.from({ length: causal ? i + 1 : rows }, (_, j) => j);
        const total = seen.reduce((sum, j) => sum + weights[j], 0);
        for (let c = 0; c < cols; c++) {
          const from = Math.floor(Math.floor(c / valueDim) / group) * valueDim + c % valueDim;
          const sum = seen.reduce((sum, j) => sum + weights[j] * v[j * keyCols + from], 0);
          uniform[i * cols + c] = total > 0 ? sum / total : 0;
        }
      }
      const dense = shrunk(tile(out, cols), tile(uniform, cols), lambda);
      const shrinkage = new Shrinkage(shape, lambda);
      const pieces = Array.from({ length: Math.ceil(rows / tileRows) }, (_, t) => {
        const [from, to] = [t * tileRows, Math.min(rows, (t + 1) * tileRows)];
        return {
          out: tile(out.slice(from * cols, to * cols), cols, from),
          own: { v: tile(v.slice(from * keyCols, to * keyCols), keyCols, from), weights: weights.slice(from, to) },
        };
      });
      for (const { own } of pieces) shrinkage.absorb(own);
      for (const piece of pieces) shrinkage.apply(piece.out, causal ? piece.own : null);
      pieces.flatMap((piece) => Array.from(piece.out.data)).forEach((value, i) => {
        expect(Math.abs(value - dense.data[i])).toBeLessThan(1e-12); // sums of 40 numbers of size 1, in one order or another
      });
    }),
    SETTINGS,
  );
});
