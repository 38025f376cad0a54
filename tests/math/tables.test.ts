/** scripts/tables: the cheap tables agree with what was published, the verdicts can fail, and the data are what they say. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { table as equalFeatures } from "../../scripts/tables/equal_features.ts";
import {
  anisotropicData,
  clusteredData,
  gaussianData,
  judgeExact,
  judgeTrials,
  markdown,
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
