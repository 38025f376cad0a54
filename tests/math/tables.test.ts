/** scripts/tables: the cheap tables agree with what was published, the verdicts can fail, and the data are what they say. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { table as equalFeatures } from "../../scripts/tables/equal_features.ts";
import {
  anisotropicData,
  clusteredData,
  defined,
  gaussianData,
  judgeExact,
  judgeRange,
  judgeTrials,
  markdown,
  parsePublished,
  TableBuilder,
  Trials,
} from "../../scripts/tables/harness.ts";
import { table as varianceRatio } from "../../scripts/tables/variance_ratio.ts";
import { crossing, varianceRatio as ratio } from "../../src/figures/ratio.ts";
import type { TensorSource } from "../../src/tensor.ts";
import { Sample } from "./harness.ts";
import { mseIid, norm2, pairOf } from "./oracles.ts";

test("tables of closed forms agree in every published digit", () => {
  for (const table of [varianceRatio(), equalFeatures()]) {
    expect(table.disagreements, table.title).toEqual([]);
    expect(table.rows.length).toBeGreaterThan(3);
    for (const row of table.rows) expect(row.length).toBe(table.head.length);
  }
});

test("docs/error.md shows what the commands print", () => {
  const page = readFileSync(new URL("../../docs/error.md", import.meta.url), "utf8");
  for (const table of [varianceRatio(), equalFeatures()]) expect(page).toContain(markdown(table));
  const commands = [...page.matchAll(/bun (scripts\/tables\/\w+\.ts)/g)].map((match) => match[1]);
  const files = readdirSync(new URL("../../scripts/tables", import.meta.url)).filter((name) => name !== "harness.ts");
  expect(commands.sort()).toEqual(files.map((name) => `scripts/tables/${name}`).sort());
});

test("the ratio is the oracle's, and grows with the angle through 1", () => {
  for (const [angle, l] of [[0.4, 0.5], [1.2, 1], [2.5, 1.5]]) {
    const pair = pairOf([l, 0], [l * Math.cos(angle), l * Math.sin(angle)]);
    expect(Math.abs(ratio(angle, l) / (mseIid("trig", pair, 7) / mseIid("pos", pair, 7)) - 1)).toBeLessThan(1e-12);
  }
  for (const l of [0.5, 1, 2]) {
    const at = crossing(l);
    expect(ratio(at - 0.01, l)).toBeLessThan(1);
    expect(ratio(at + 0.01, l)).toBeGreaterThan(1);
  }
});

describe("verdicts", () => {
  const trials = (values: number[], nonPositive = 0) => values.map((value) => ({ value, nonPositive }));

  test("a number without chance must have the published digits, rounded", () => {
    expect(judgeExact(0.18398, { text: "0.184" })).toEqual({ text: "0.18398 (0.184)", agrees: true });
    expect(judgeExact(34711, { text: "3.5e4" }).agrees).toBe(true);
    expect(judgeExact(0.18349, { text: "0.184" })).toEqual({ text: "0.18349 (0.184) ✗", agrees: false });
    expect(judgeExact(4.97e-6, { text: "4.98e-6" }).agrees).toBe(false);
  });

  test("a mean of trials may be off by three standard errors of both", () => {
    const ours = trials([0.9, 1.1, 1, 0.95, 1.05, 0.9, 1.1, 1, 1]); // σ of ln ≈ 0.078: 3 σ √(2/9) ≈ 0.11, and 0.05 of rounding
    expect(judgeTrials(ours, { text: "1.1", trials: 9 })).toEqual({ text: "1 ± 8 %, 1 (1.1)", agrees: true });
    expect(judgeTrials(ours, { text: "1.3", trials: 9 })).toEqual({ text: "1 ± 8 %, 1 (1.3) ✗", agrees: false });
    expect(judgeTrials(ours, null)).toEqual({ text: "1 ± 8 %, 1", agrees: true });
  });

  test("errors without a mean are shown, not compared", () => {
    const verdict = judgeTrials(trials([1, 100], 1), { text: "7", trials: 9 });
    expect(verdict.agrees).toBe(true);
    expect(verdict.text).toContain("(7; denominators ≤ 0)");
  });

  test("a draw without a mean must lie among ours, its digits rounded", () => {
    const draws = [0.2, 30, 0.3, 0.1, 0.25];
    expect(judgeRange(draws, { text: "2.51" })).toEqual({ text: "0.1 … 0.25 … 30 (2.51)", agrees: true });
    expect(judgeRange(draws, { text: "31" })).toEqual({ text: "0.1 … 0.25 … 30 (31) ✗", agrees: false });
    expect(judgeRange(draws, { text: ".1" }).agrees).toBe(true);
    expect(judgeRange(draws, { text: "0.09" }).agrees).toBe(false);
    expect(judgeRange(draws, { text: "3e1" }).agrees).toBe(true);
  });

  test("numbers that recovered the data are marked, and judged all the same", () => {
    const used = parsePublished("0.86†", 10);
    expect(used).toEqual({ text: "0.86", trials: 10, used: true });
    expect(parsePublished(".9")).toEqual({ text: ".9", trials: undefined, used: false });
    expect(judgeTrials(trials([2, 2]), used)).toEqual({ text: "2 ± 0 %, 2 (0.86†) ✗", agrees: false });
    expect(judgeTrials(trials([0.86, 0.86]), used).text).toBe("0.86 ± 0 %, 0.86 (0.86†)");
  });

  test("a table names the cells that disagree", () => {
    const built = new TableBuilder("T", ["a", "b", "c"]);
    built.add("row", ["x", { text: "2 (3) ✗", agrees: false }]);
    built.notes.push("A note.");
    expect(built.done().disagreements).toEqual(["row, c: 2 (3) ✗"]);
    expect(markdown(built.done())).toBe("T\n\n| a | b | c |\n| --- | --- | --- |\n| row | x | 2 (3) ✗ |\n\nA note.");
  });
});

/** All numbers of a source, by rows. */
async function rowsOf(source: TensorSource): Promise<number[][]> {
  const rows: number[][] = [];
  for await (const { rows: count, cols, data } of source.tiles(37, { precision: "f64" })) {
    for (let i = 0; i < count; i++) rows.push(Array.from(data.subarray(i * cols, (i + 1) * cols)));
  }
  return rows;
}

function column(rows: readonly number[][], l: number): Sample {
  const sample = new Sample();
  for (const row of rows) sample.add(row[l]);
  return sample;
}

describe("data", () => {
  const sizes = { length: 4000, headDim: 8, valueDim: 3, seed: 4 };

  test("gaussian: mean 0, the standard deviation asked for; seeds differ", async () => {
    const { q, k, v } = gaussianData({ ...sizes, sd: 0.4 });
    for (const [source, sd] of [[q, 0.4], [k, 0.4], [v, 1]] as const) {
      const rows = await rowsOf(source);
      expect(rows.length).toBe(4000);
      expect(Math.abs(column(rows, 1).z(0))).toBeLessThan(4.5);
      // The variance of N(0, sd²) is known to √(2/n).
      expect(Math.abs(column(rows, 1).variance / sd ** 2 - 1)).toBeLessThan(4.5 * Math.sqrt(2 / 4000));
    }
    const [one, other] = [3, 4].map((seed) => gaussianData({ ...sizes, seed, sd: 0.4 }));
    expect(await rowsOf(one.q)).not.toEqual(await rowsOf(other.q));
    expect(await rowsOf(q)).not.toEqual(await rowsOf(k));
  });

  test("anisotropic: coordinates spread from sd·ratio to sd/ratio in queries, the other way round in keys, around means", async () => {
    const { q, k } = anisotropicData({ ...sizes, sd: 0.5, ratio: 3, means: 0.6 });
    for (const [source, first] of [[q, 1.5], [k, 0.5 / 3]] as const) {
      const rows = await rowsOf(source);
      for (const [l, sd] of [[0, first], [7, 0.25 / first]]) {
        expect(Math.abs(column(rows, l).variance / sd ** 2 - 1)).toBeLessThan(4.5 * Math.sqrt(2 / 4000));
      }
      const means = rows[0].map((_, l) => column(rows, l).mean);
      expect(norm2(means) / 8).toBeGreaterThan(0.05); // eight N(0, 0.36) numbers
      expect(norm2(means) / 8).toBeLessThan(1.2);
    }
  });

  test("anisotropic: the spreads of queries and keys run against each other as far as asked", async () => {
    const logSpreads = async (source: TensorSource) => {
      const rows = await rowsOf(source);
      return rows[0].map((_, l) => Math.log(column(rows, l).variance) / 2);
    };
    const slopes = Array.from({ length: 40 }, (_, l) => 1 - 2 * l / 39);
    const common = { ...sizes, headDim: 40, sd: 0.5, ratio: 3, means: 0.6 };
    for (const opposition of [1, 0.6]) {
      const { q, k } = anisotropicData({ ...common, opposition });
      // A spread of n rows is known to √(1/2n) of itself; twice 40 of them are looked at.
      const off = 4.5 * Math.sqrt(1 / 8000);
      const own = (await logSpreads(q)).map((value, l) => value - Math.log(0.5) - Math.log(3) * slopes[l]);
      expect(Math.max(...own.map(Math.abs))).toBeLessThan(off);
      // What is left of the keys' once −opposition · u is taken away is u in some order, times √(1 − opposition²).
      const left = (await logSpreads(k)).map((value, l) =>
        (value - Math.log(0.5)) / Math.log(3) + opposition * slopes[l]
      );
      const expected = slopes.map((u) => Math.sqrt(1 - opposition ** 2) * u).sort((a, b) => a - b);
      const inOrder = left.toSorted((a, b) => a - b);
      for (const [l, value] of inOrder.entries()) expect(Math.abs(value - expected[l])).toBeLessThan(off / Math.log(3));
      if (opposition < 1) expect(left).not.toEqual(inOrder.reverse());
    }
    const [one, same] = [anisotropicData(common), anisotropicData({ ...common, opposition: 1 })];
    expect(await rowsOf(one.k)).toEqual(await rowsOf(same.k));
  });

  test("clusters: rows lie around as many centres, and queries and keys share them", async () => {
    const { q, k } = clusteredData({ ...sizes, length: 300, clusters: 4, sd: 1, within: 0.01, scale: 2 });
    const centres: number[][] = [];
    for (const row of [...await rowsOf(q), ...await rowsOf(k)]) {
      const near = centres.some((centre) =>
        norm2(centre.map((value, l) => value - row[l])) < 8 * (2 * 0.01 * 2 * 5) ** 2
      );
      if (!near) centres.push(row);
    }
    expect(centres.length).toBe(4);
  });

  test("clusters: values may share the centres of their keys, and queries the clusters of their rows", async () => {
    const common = { ...sizes, length: 300, headDim: 8, valueDim: 8, clusters: 4, sd: 3, within: 0.01, scale: 2 };
    const { q, k, v } = clusteredData({ ...common, sharedCentres: true, tokens: true });
    const [queries, keys, values] = await Promise.all([q, k, v].map(rowsOf));
    for (const [j, key] of keys.entries()) {
      expect(Math.max(...key.map((value, l) => Math.abs(value - queries[j][l])))).toBeLessThan(2 * 2 * 0.01 * 6);
      // Values are centres + N(0, ½²).
      expect(Math.max(...key.map((value, l) => Math.abs(value / 2 - values[j][l])))).toBeLessThan(0.5 * 6);
    }
    const own = clusteredData({ ...common, sharedCentres: true });
    const others = await rowsOf(own.q);
    const together = (await rowsOf(own.k)).filter((key, j) => Math.abs(key[0] - others[j][0]) < 0.3).length;
    expect(Math.abs(together / 300 - 1 / 4)).toBeLessThan(4.5 * Math.sqrt(3 / 16 / 300)); // one of four at random
    expect(() => clusteredData({ ...common, valueDim: 3, sharedCentres: true })).toThrow("8 wide, not 3");
  });

  test("errors by definition: hand-made rows, and what centring does to the library's taylor1", async () => {
    const common = { ...sizes, length: 200, sd: 0.3, ratio: 1 };
    await using trials = await Trials.open();
    const trial = { features: "taylor1", numFeatures: 9, projection: "orthogonal", seed: 1 };
    const centred = anisotropicData({ ...common, means: 0 }), moved = anisotropicData({ ...common, means: 0.6 });
    // Without means a mean key is N(0, 0.09/200) per coordinate: x·ȳ is 0.3² √(1/200) ≈ 0.006 beside 1, and so is its part of an error.
    const found = await defined(centred);
    const own = (await trials.error(centred, trial, 200)).relativeL2;
    expect(Math.abs(found.uncentred / own - 1)).toBeLessThan(0.1);
    expect((await defined(moved)).uncentred).toBeGreaterThan(1.5 * (await trials.error(moved, trial, 200)).relativeL2);
    // t = x·(y − ȳ)/√d of N(0, s²) rows has standard deviation s², known to √(1/(L d)) of queries and of keys.
    expect(Math.abs(found.sd / 0.09 - 1)).toBeLessThan(4.5 * Math.sqrt(2 / (200 * 8)));
    expect(found.max).toBeGreaterThan(3 * found.sd);
    // Below the guard, hermite2's constant by row and by all rows are close.
    const hermite = (await trials.error(centred, { ...trial, features: "hermite2" }, 200)).relativeL2;
    expect(Math.abs(found.unguarded / hermite - 1)).toBeLessThan(0.3);
  });

  test("keys are moved where a trial asks for it", async () => {
    await using trials = await Trials.open();
    const inputs = anisotropicData({ ...sizes, length: 500, sd: 0.3, ratio: 1, means: 1 });
    const trial = { features: "positive", numFeatures: 256, projection: "orthogonal", seed: 1 };
    const [off, on, unsaid] = [
      await trials.error(inputs, { ...trial, centre: "off" }, 500),
      await trials.error(inputs, { ...trial, centre: "on" }, 500),
      await trials.error(inputs, trial, 500),
    ];
    expect(unsaid.relativeL2).toBe(off.relativeL2);
    expect(on.relativeL2).toBeLessThan(off.relativeL2);
  });

  test("trials through the library: the error of the mean of V, and one that falls with features", async () => {
    await using trials = await Trials.open();
    const inputs = gaussianData({ ...sizes, length: 500, sd: 0.5 });
    const trial = { features: "positive", projection: "orthogonal", seed: 1 };
    const [few, many] = [
      await trials.error(inputs, { ...trial, numFeatures: 16 }, 500),
      await trials.error(inputs, { ...trial, numFeatures: 1024 }, 500),
    ];
    expect(many.relativeL2).toBeLessThan(0.5 * few.relativeL2);
    expect(many.uniform).toBe(few.uniform);
    expect(Math.abs(few.phi - 2 * 0.25 * Math.sqrt(8))).toBeLessThan(0.1); // mean ‖x+y‖² = 2 σ² √d
    expect(few.nonPositive).toBe(0);
    expect(few.mse).toBeGreaterThan(many.mse);
  });
});
