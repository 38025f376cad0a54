/** Pictures of reports: that they show what was measured, one bad head of many included, and say what they do not show. */
import { describe, expect, test } from "bun:test";
import { scalar } from "../../src/backends/scalar.ts";
import type { CompareReport, CompareRow } from "../../src/compare.ts";
import { json } from "../../src/exporters/json.ts";
import { plotAttend } from "../../src/exporters/plot_attend.ts";
import { plotCompare } from "../../src/exporters/plot_compare.ts";
import { plotTune } from "../../src/exporters/plot_tune.ts";
import { Inputs } from "../../src/inputs.ts";
import type { RowSquares } from "../../src/metrics.ts";
import type { Report } from "../../src/report.ts";
import { attend } from "../../src/run.ts";
import type { Tried, TuneReport } from "../../src/tune.ts";
import { wave } from "../cli/process.ts";
import { memoryTensor } from "./memory_tensor.ts";

const STYLE = { columns: 80, ascii: false, color: false };

/** Squares of `rows` sampled rows; `error` and `base` relative to an exact output of norm 1. */
function squares(
  rows: number,
  heads: number,
  population: number,
  error: (row: number, head: number) => number,
  base: (row: number, head: number) => number = () => 1,
): RowSquares {
  const each = (of: (row: number, head: number) => number) =>
    Float64Array.from({ length: rows * heads }, (_, i) => of(Math.floor(i / heads), i % heads) ** 2);
  const indices = Float64Array.from({ length: rows }, (_, i) => Math.floor(i * population / rows));
  return { rows: indices, population, heads, error: each(error), base: each(base), norm: each(() => 1) };
}

const reportOf = (rowSquares: RowSquares | undefined, more: object = {}) =>
  ({ rowSquares, health: null, attention: { numFeatures: 64 }, input: { firstRow: 0 }, ...more }) as unknown as Report;

describe("attend", () => {
  test("the squares that are kept are those of the reported errors, and in no JSON", async () => {
    const rows = memoryTensor(Float64Array.from({ length: 60 * 12 }, (_, i) => 0.8 * wave(i)), 3, 4);
    const report = await attend({
      inputs: new Inputs(rows, rows, rows, null),
      attention: {
        ...{ features: "positive", numFeatures: 16, projection: "iid", norms: "chi", seed: 1, causal: true },
        ...{ scale: null, given: null, compat: "exact" },
      } as const,
      backend: await scalar.open({ named: true }),
      refused: [],
      check: 20,
      redraws: 0,
      keepRows: true,
      sink: null,
      encoding: null,
      peakBytes: () => 0,
    });
    const { rows: indices, population, heads, error, norm, base } = report.rowSquares!;
    expect([indices.length, population, heads, error.length]).toEqual([20, 60, 3, 60]);
    const sum = (of: Float64Array, head: number | null) =>
      of.reduce((total, value, i) => head === null || i % heads === head ? total + value : total, 0);
    const close = (found: number, wanted: number) => expect(Math.abs(found / wanted - 1)).toBeLessThan(1e-12); // sums of 60 terms
    for (const head of [null, 0, 1, 2]) {
      const said = head === null
        ? { ...report.error!, relativeL2: report.error!.relativeL2.value }
        : report.error!.perHead[head];
      close(Math.sqrt(sum(error, head) / sum(norm, head)), said.relativeL2);
      close(Math.sqrt(sum(base, head) / sum(norm, head)), said.uniformBaseline);
    }
    expect(JSON.parse(json(report, { color: false, verbose: false }))).not.toHaveProperty("rowSquares");
    expect(plotAttend(report, STYLE)).toContain("20 of 60 rows, sampled, × 3 heads");
  });

  test("every pair with an error is in one bar", () => {
    const drawing = plotAttend(
      reportOf(squares(200, 4, 1_000_000, (row, head) => 0.01 * (1 + head) * (1 + row / 200))),
      STYLE,
    );
    expect(drawing).toContain("200 of 1,000,000 rows, sampled, × 4 heads");
    const counts = [...drawing.matchAll(/│[█▉▊▋▌▍▎▏]* +([\d,]+)$/gm)].map((match) => Number(match[1].replace(",", "")));
    expect(counts.length).toBeGreaterThan(2);
    expect(counts.reduce((a, b) => a + b, 0)).toBe(800);
  });

  test("a few rows that are all but exact do not take most of the bars and shades", () => {
    const drawing = plotAttend(reportOf(squares(200, 2, 200, (row) => row < 10 ? 1e-9 : 0.05 + row / 1000)), STYLE);
    expect(drawing).toMatch(/below 0.005 │.* 20\n +0.05 – 0.063 │/);
    expect(drawing).toMatch(/head 0 ░+▒+▓+█+ /);
  });

  test("one bad head of 512 is seen", () => {
    const drawing = plotAttend(reportOf(squares(256, 512, 4096, (_, head) => head === 300 ? 2 : 0.01)), STYLE);
    // 16 lines of 32 heads; the bad one is no nearer than the mean of V.
    const lines = drawing.split("\n").filter((line) => line.startsWith("  heads "));
    expect(lines.length).toBe(16);
    expect(lines.filter((line) => line.includes("x")).map((line) => line.split(" ")[3])).toEqual(["288–319"]);
    expect(drawing).toContain("the worst of 32 heads");
    expect(drawing).toContain("256 of 131,072 (row, head) pairs are no nearer");
  });

  test("one head gets a line beside that of the mean of V", () => {
    const drawing = plotAttend(reportOf(squares(300, 1, 300, (row) => row < 150 ? 0.01 : 0.1)), STYLE);
    expect(drawing).toContain("all 300 rows");
    expect(drawing).toMatch(/error {5}▁+▅+ {2}0.0711\n/); // √((0.01² + 0.1²) / 2); 0.1 is half way from 0.01 to 1
    expect(drawing).toMatch(/mean of V █+ {2}1\n/);
    expect(drawing).toContain("heights from 0.01 to 1, log scale");
  });

  test("errors of zero, of nothing and of infinity are said, not drawn", () => {
    const zero = plotAttend(reportOf(squares(20, 1, 20, () => 0)), STYLE);
    expect(zero).toContain("all 20 that have an error have the error 0");
    expect(zero).toContain("nothing to draw: no stretch has an error above 0");
    const none = squares(20, 2, 20, () => 0);
    const empty = plotAttend(reportOf({ ...none, norm: new Float64Array(40), base: new Float64Array(40) }), STYLE);
    expect(empty).toContain("none of them has an error that is a number");
    expect(empty).toContain("␣ no error is defined");
    const broken = squares(20, 1, 20, (row) => row === 3 ? Infinity : row === 4 ? NaN : 0.1);
    expect(plotAttend(reportOf(broken), STYLE)).toContain("2 of 20 have no relative error");
  });

  test("health has a bar per head, of very many the worst", () => {
    const heads = Array.from(
      { length: 40 },
      (_, head) => ({ head, skill: head === 7 ? NaN : 1 - head / 20, verdict: "fair" }),
    );
    const health = (count: number) => ({ health: { heads: heads.slice(0, count) } });
    const few = plotAttend(reportOf(squares(9, 1, 9, () => 0.1), health(3)), STYLE);
    expect(few).toMatch(/head 0 │█+ +1.000 fair\n {2}head 1 │█+[▉▊▋▌▍▎▏]? *┊ 0.950 fair\n {2}head 2 │/);
    const many = plotAttend(reportOf(squares(9, 1, 9, () => 0.1), health(40)), STYLE);
    expect(many).toContain("the worst 16 of 40 heads");
    expect(many).toMatch(/head 39 │ +┊ -0.950 fair\n/);
    expect(many).not.toContain("head 0 ");
  });
});

describe("compare", () => {
  const row = (
    features: string,
    numFeatures: number | null,
    value: number,
    projection: string | null = "iid",
    backend = "wasm",
  ) =>
    ({
      features,
      numFeatures,
      projection,
      backend,
      relativeL2: { value, low: value, high: value },
    }) as unknown as CompareRow;
  const report = (rows: CompareRow[]) => ({ rows, uniformBaseline: 0.9 }) as unknown as CompareReport;

  test("a curve per map and projection, the best is A; backends make one curve", () => {
    const drawing = plotCompare(
      report([
        row("positive", 64, 0.1),
        row("positive", 64, 0.1001, "iid", "gpujs"),
        row("positive", 16, 0.4),
        row("positive", 16, 0.5, "orthogonal"),
        row("taylor1", null, 0.6, null),
        row("positive", 64, NaN, "orthogonal"),
      ]),
      STYLE,
    );
    expect(drawing).toMatch(/A positive, iid\n +B positive, orthogonal\n +C taylor1 \(has no m\)\n +╌╌ mean of V, 0.9/);
    expect(drawing).toContain("left out: 1 point that is not a finite number");
    expect(drawing.match(/^.*[│┤].*A.*$/gm)!.length).toBe(2);
  });

  test("what is far worse than the mean of V does not squeeze the others, unless all are", () => {
    const rows = [
      row("positive", 64, 0.1),
      row("positive", 16, 0.4),
      row("trigonometric", 64, 1),
      row("trigonometric", 16, 50),
    ];
    expect(plotCompare(report(rows), STYLE)).toContain("at the top, B: 1 point above 1.8");
    expect(plotCompare(report(rows.slice(2)), STYLE)).not.toContain("at the top");
  });

  test("one m, or none, makes rows; many curves are cut with a word", () => {
    const one = plotCompare(report([row("positive", 64, 0.1), row("taylor1", null, 0.6, null)]), STYLE);
    expect(one).toMatch(/positive, m = 64 │●.* 0.1\n {2}taylor1 +│·+●.* 0.6\n/);
    expect(plotCompare(report([row("taylor1", null, 0.6, null)]), STYLE)).toMatch(/taylor1 │·*●/);
    const many = Array.from(
      { length: 12 },
      (_, i) => [row(`map${i}`, 8, 0.1 + i / 20), row(`map${i}`, 16, 0.1 + i / 30)],
    ).flat();
    expect(plotCompare(report(many), STYLE)).toContain("the best 8 of 12; the table has the others");
  });
});

describe("tune", () => {
  const tried = (name: string, seconds: number, error: number, stateBytes = 1000): Tried =>
    ({
      attention: { features: name, numFeatures: 8, projection: "iid", shrink: null },
      error: { relativeL2: { value: error } },
      seconds,
      stateBytes,
    }) as unknown as Tried;
  const report = (tried: Tried[], chosen: Tried | null, prefer = "time") =>
    ({ tried, chosen, prefer, exact: { seconds: 3 }, target: 0.05, uniformBaseline: 1 }) as unknown as TuneReport;

  test("letters for what no other beats, dots for the rest, the chosen one named", () => {
    const all = [tried("a", 1, 0.5), tried("b", 2, 0.1), tried("c", 2.5, 0.3), tried("d", 4, 0.01)];
    const drawing = plotTune(report(all, all[3]), STYLE);
    expect(drawing).toContain("C d, m = 8, iid (chosen)");
    expect(drawing).not.toContain("c, m = 8");
    expect(drawing).toContain("• others");
    expect(drawing).toContain("exact attention: about 3.00 s");
    expect(plotTune(report(all, all[3], "memory"), STYLE)).not.toContain("exact attention");
  });

  test("nothing tried, nothing finite, an error of zero", () => {
    expect(plotTune(report([], null), STYLE)).toContain("nothing to draw: no setting was tried");
    expect(plotTune(report([tried("a", 1, NaN)], null), STYLE)).toContain("nothing to draw: there is no finite number");
    const none = tried("a", 1, 0);
    expect(plotTune(report([none, tried("b", 2, 0.5)], none), STYLE)).toContain("at the foot, A: 1 point");
  });
});
