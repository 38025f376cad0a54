import { expect, test } from "bun:test";
import { compareOutputs } from "../../src/metrics.ts";
import { RandomStream } from "../../src/random.ts";
import { logInterval, quantile, relativeL2, studentCdf, studentQuantile } from "../../src/statistics.ts";
import type { Tile } from "../../src/tensor.ts";

test("Student's t: table values of the 97.5 % point", () => {
  const table: [number, number][] = [[1, 12.7062], [2, 4.30265], [4, 2.77645], [9, 2.26216], [30, 2.04227], [
    255,
    1.96931,
  ]];
  for (const [nu, t] of table) {
    expect(studentQuantile(0.975, nu)).toBeCloseTo(t, 3);
    expect(studentCdf(t, nu)).toBeCloseTo(0.975, 5);
  }
});

test("S10: the interval of a sampled relative error covers the truth", () => {
  const random = new RandomStream(10);
  const population = 20_000;
  const errors = Float64Array.from({ length: population }, () => Math.exp(random.normal()));
  const norms = Float64Array.from({ length: population }, () => 30 + random.normal());
  const sum = (values: Float64Array) => values.reduce((total, value) => total + value, 0);
  const truth = Math.sqrt(sum(errors) / sum(norms));
  const [n, rounds] = [400, 2000];
  let covered = 0;
  for (let round = 0; round < rounds; round++) {
    const rows = Array.from({ length: n }, () => random.below(population));
    const interval = relativeL2(
      Float64Array.from(rows, (i) => errors[i]),
      Float64Array.from(rows, (i) => norms[i]),
      population,
    );
    if (interval.low <= truth && truth <= interval.high) covered++;
  }
  expect(covered / rounds).toBeGreaterThan(0.93);
  expect(covered / rounds).toBeLessThan(0.97);
});

test("a full sample has no uncertainty, one sample no interval", () => {
  const ones = new Float64Array([1, 4]);
  expect(relativeL2(ones, ones, 2)).toEqual({ value: 1, low: 1, high: 1 });
  const one = logInterval([0.5]);
  expect([one.value, one.low, one.high]).toEqual([0.5, 0.5, 0.5]);
});

test("quantiles interpolate", () => {
  expect(quantile([1, 2, 3, 4], 0.5)).toBe(2.5);
  expect(quantile([5], 0.95)).toBe(5);
  expect(quantile([], 0.5)).toBeNaN();
});

test("compareOutputs: error, baseline, skill and per-head figures by hand", () => {
  const tile = (...data: number[]): Tile => ({ start: 0, rows: 2, cols: 2, data: Float64Array.from(data) });
  // two rows, two heads of width 1
  const found = compareOutputs(tile(1, 2, 3, 5), tile(1, 2, 3, 4), tile(2, 3, 2, 3), 2, 2);
  expect(found.relativeL2.value).toBeCloseTo(Math.sqrt(1 / 30), 14);
  expect(found.uniformBaseline).toBeCloseTo(Math.sqrt(4 / 30), 14);
  expect(found.skill).toBeCloseTo(1 - 1 / 4, 14);
  expect(found.maxAbs).toBe(1);
  expect(found.mse).toBe(0.25);
  expect(found.rowMax).toBeCloseTo(0.25, 14);
  expect(found.perHead[0]).toEqual({ relativeL2: 0, uniformBaseline: Math.sqrt(2 / 10), skill: 1 });
  expect(found.perHead[1].skill).toBeCloseTo(1 - 1 / 2, 14);
});
