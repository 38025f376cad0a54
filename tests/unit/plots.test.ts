/** Drawings for the terminal: what they promise of every input, and what the usual ones look like. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  Scale,
  type ScaleKind,
  scaleOf,
  showable,
  ticksAcross,
  ticksDown,
  tickSets,
  tickText,
} from "../../src/plots/axis.ts";
import { type Chart, drawChart, type Point } from "../../src/plots/chart.ts";
import { drawHeat } from "../../src/plots/heat.ts";
import { binsOf } from "../../src/plots/histogram.ts";
import { drawRows, sparkline } from "../../src/plots/rows.ts";
import {
  LEAST_COLUMNS,
  letterAt,
  narrow,
  type PlotStyle,
  sentence,
  type Tone,
  wrapped,
} from "../../src/plots/style.ts";

// deno-lint-ignore no-control-regex
const bare = (text: string) => text.replace(/\x1b\[\d+m/g, "");
const PLAIN: PlotStyle = { columns: 60, ascii: false, color: false };
const ASCII: PlotStyle = { columns: 60, ascii: true, color: false };

const anyNumber = fc.oneof(
  fc.double(),
  fc.constantFrom(
    0,
    -0,
    NaN,
    Infinity,
    -Infinity,
    Number.MIN_VALUE,
    Number.MAX_VALUE,
    -Number.MAX_VALUE,
    1,
    1e300,
    1e-300,
  ),
  fc.double({ min: 1e-4, max: 1e4, noNaN: true }),
);
const style: fc.Arbitrary<PlotStyle> = fc.record({
  columns: fc.oneof(
    fc.constantFrom(1, LEAST_COLUMNS - 1, LEAST_COLUMNS, 60, 80, 120, 1000),
    fc.integer({ min: 1, max: 200 }),
  ),
  ascii: fc.boolean(),
  color: fc.boolean(),
});
const words = fc.oneof(
  fc.string({ unit: "binary", maxLength: 60 }),
  fc.constantFrom("", "relative L2", "行列\x1b[2J", "é × ‖x‖² – ≤"),
);
const kind: fc.Arbitrary<ScaleKind> = fc.constantFrom("log", "linear");
const tone: fc.Arbitrary<Tone> = fc.constantFrom("plain", "cyan", "red", "dim");

/** What every drawing keeps to. */
function expectTidy(drawing: string, { columns, ascii, color }: PlotStyle): void {
  expect(drawing).toEndWith("\n");
  const lines = bare(drawing).slice(0, -1).split("\n");
  expect(lines.join("").trim().length).toBeGreaterThan(0);
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns);
  // deno-lint-ignore no-control-regex
  expect(bare(drawing)).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  // One column a character: nothing of two columns, nothing of none.
  expect(bare(drawing)).not.toMatch(/[\u0300-\u036f\u1100-\u200f\u2e80-\uffff]/);
  // deno-lint-ignore no-control-regex
  if (ascii) expect(bare(drawing)).toMatch(/^[\x00-\x7f]*$/);
  if (!color) expect(drawing).not.toContain("\x1b");
}

const chart: fc.Arbitrary<Chart> = fc.record({
  title: fc.oneof(words.filter((text) => text.trim() !== ""), fc.constant("a title")),
  x: fc.record({ label: words, scale: kind, tight: fc.boolean(), ticks: fc.array(anyNumber, { maxLength: 8 }) }),
  y: fc.record({
    label: words,
    scale: kind,
    most: fc.option(anyNumber.filter((most) => most > 0), { nil: undefined }),
  }),
  series: fc.array(
    fc.record({
      label: words,
      sign: fc.constantFrom("", "A", "B"),
      tone,
      points: fc.array(fc.tuple(anyNumber, anyNumber), { maxLength: 12 }),
      joined: fc.constantFrom(true, false, "steps" as const),
      level: fc.option(anyNumber, { nil: undefined }),
    }),
    { maxLength: 5 },
  ),
  rules: fc.array(fc.record({ axis: fc.constantFrom("x", "y"), at: anyNumber, label: words, short: words }), {
    maxLength: 4,
  }),
  notes: fc.array(words, { maxLength: 2 }),
});

describe("whatever is drawn, nothing is wider than asked, and nothing throws", () => {
  test("charts", () => {
    fc.assert(fc.property(chart, style, (chart, style) => expectTidy(drawChart(chart, style), style)), {
      numRuns: 500,
    });
  });

  test("rows", () => {
    const row = fc.record({ label: words, value: anyNumber, text: fc.option(words, { nil: undefined }), tone });
    const rows = fc.record({
      title: fc.constant("rows"),
      axis: fc.record({ label: words, scale: kind }),
      rows: fc.array(row, { maxLength: 10 }),
      rules: fc.array(fc.record({ at: anyNumber, label: words }), { maxLength: 3 }),
      bare: fc.boolean(),
    });
    fc.assert(fc.property(rows, style, (rows, style) => expectTidy(drawRows(rows, style), style)), { numRuns: 200 });
  });

  test("heat maps", () => {
    const cells = fc.array(fc.record({ value: anyNumber, crossed: fc.boolean() }), { minLength: 1, maxLength: 300 });
    const property = fc.property(cells, fc.array(words, { maxLength: 5 }), style, (cells, labels, style) => {
      const lines = labels.map((label) => ({ label, text: label, cell: (from: number) => cells[from] }));
      const map = { title: "map", length: cells.length, lines, crossedLabel: labels[0] ?? "", notes: labels };
      expectTidy(drawHeat({ ...map, across: ["first", labels[0] ?? "", "last"] }, style), style);
    });
    fc.assert(property, { numRuns: 200 });
  });

  test("sentences, sparklines", () => {
    fc.assert(fc.property(words.filter((text) => text.trim() !== ""), style, (text, style) => {
      expectTidy(sentence(text, style), style);
    }));
    fc.assert(
      fc.property(fc.array(anyNumber), fc.integer({ min: 0, max: 100 }), kind, style, (values, width, kind, style) => {
        expect(sparkline(values, width, style, kind).length).toBe(Math.min(width, values.length));
      }),
    );
  });
});

describe("axes", () => {
  const finite = (kind: ScaleKind) => anyNumber.filter((value) => showable(kind, value));
  const scaled = kind.chain((kind) =>
    fc.tuple(fc.constant(kind), fc.array(finite(kind), { minLength: 1, maxLength: 20 }), fc.boolean())
  );

  test("hold every value, in order", () => {
    fc.assert(fc.property(scaled, ([kind, values, tight]) => {
      const scale = scaleOf(kind, values, tight);
      expect(scale.high).toBeGreaterThan(scale.low);
      const places = values.toSorted((a, b) => a - b).map((value) => scale.at(value));
      for (const place of places) expect(place >= 0 && place <= 1).toBe(true);
      expect(places).toEqual(places.toSorted((a, b) => a - b));
      // But for what lies beyond the farthest ends of a logarithmic axis, nothing is cut off.
      const held = kind === "linear" ? values : values.filter((value) => value >= 1e-300 && value <= 1e300);
      for (const value of held) expect(value >= scale.low && value <= scale.high).toBe(true);
    }));
  });

  test("labels lie within the axis and do not touch", () => {
    fc.assert(fc.property(scaled, fc.integer({ min: 6, max: 110 }), ([kind, values, tight], length) => {
      const placed = ticksAcross(scaleOf(kind, values, tight), length);
      for (const [i, { at, from, text }] of placed.entries()) {
        expect(at >= 0 && at < length && from >= 0 && from + text.length <= length).toBe(true);
        if (i > 0) expect(from).toBeGreaterThan(placed[i - 1].from + placed[i - 1].text.length);
      }
      const rows = [...ticksDown(scaleOf(kind, values, tight), 12).keys()].sort((a, b) => a - b);
      for (const [i, row] of rows.entries()) {
        expect(row >= 0 && row < 12).toBe(true);
        if (i > 0) expect(row - rows[i - 1]).toBeGreaterThan(1);
      }
    }));
  });

  test("have round ends and round ticks", () => {
    const { low, high } = scaleOf("log", [0.013, 0.81]);
    expect([low, high]).toEqual([0.01, 1]);
    expect(ticksAcross(scaleOf("log", [0.013, 0.81]), 70).map(({ text }) => text)).toEqual([
      "0.01",
      "0.02",
      "0.05",
      "0.1",
      "0.2",
      "0.5",
      "1",
    ]);
    expect(ticksAcross(scaleOf("log", [1e-9, 1]), 40).map(({ text }) => text)).toEqual([
      "1e-8",
      "1e-6",
      "1e-4",
      "0.01",
      "1",
    ]);
    expect(ticksAcross(scaleOf("linear", [0, 97]), 40).map(({ text }) => text)).toEqual([
      "0",
      "20",
      "40",
      "60",
      "80",
      "100",
    ]);
    // Within a factor of two and a half, 1-2-5 alone would be two ticks.
    expect(tickSets(new Scale("log", 0.2, 0.5))[0]).toEqual([0.2, 0.25, 0.3, 0.4, 0.5]);
    const lengths = ticksAcross(scaleOf("log", [64, 1024], true), 60, String, [64, 128, 256, 512, 1024]);
    expect(lengths.map(({ text }) => text)).toEqual(["64", "128", "256", "512", "1024"]);
  });

  test("numbers are written short", () => {
    const texts = [0, 0.05, 1, 1024, 9999, 16_384, 1e6, 2.5e9, 1e12, 2e-7, 1.25e-4, -3].map(tickText);
    expect(texts).toEqual(["0", "0.05", "1", "1024", "9999", "16.4k", "1M", "2.5G", "1e12", "2e-7", "1.25e-4", "-3"]);
  });
});

describe("charts", () => {
  const curve = (sign: string, points: readonly Point[]) => ({
    label: `curve ${sign}`,
    sign,
    tone: "cyan" as const,
    points,
    joined: true,
  });
  const log = (label: string) => ({ label, scale: "log" as const });
  const base = { title: "error", x: log("m"), y: log("relative L2") };
  /** The drawing between the axes. */
  const inside = (drawing: string) =>
    bare(drawing).split("\n").flatMap((line) => /^[^│┤|+]*[│┤|+](.*)$/.exec(line)?.[1] ?? []);

  test("every finite point is inside, under its letter or a sign of several", () => {
    const value = fc.double({ min: 1e-6, max: 1e6, noNaN: true });
    const points = fc.uniqueArray(fc.tuple(value, value), { minLength: 1, maxLength: 6, selector: ([x]) => x });
    fc.assert(
      fc.property(
        fc.array(points, { minLength: 2, maxLength: 4 }),
        fc.integer({ min: LEAST_COLUMNS, max: 120 }),
        (all, columns) => {
          fc.pre(new Set(all.flat().map(([x]) => x)).size > 1);
          const series = all.map((points, i) => ({ ...curve(letterAt(i), points), joined: false }));
          const drawing = inside(drawChart({ ...base, series }, { ...PLAIN, columns })).join("\n");
          const seen = (sign: string) => [...drawing].filter((one) => one === sign).length;
          const several = seen("+");
          for (const [i, points] of all.entries()) {
            // Points of one curve that share a character are one letter.
            expect(seen(letterAt(i)) + several).toBeGreaterThan(0);
            expect(seen(letterAt(i))).toBeLessThanOrEqual(points.length);
          }
        },
      ),
    );
  });

  test("the extremes are at the corners, ticks at the wanted values", () => {
    const series = [curve("A", [[64, 100], [256, 100], [1024, 100]]), curve("B", [[64, 1000], [256, 250], [1024, 10]])];
    const x = { ...log("m"), ticks: [64, 256, 1024], tight: true };
    const drawing = drawChart({ ...base, x, series }, ASCII);
    const rows = inside(drawing).slice(0, 12);
    expect(rows[0][0]).toBe("B");
    expect(rows[11].trimEnd().at(-1)).toBe("B");
    expect(rows.join("").match(/A/g)!.length).toBe(3);
    expect(drawing).toMatch(/^ +64 +256 +1024$/m);
    expect(drawing).toContain("m, log scale");
    expect(drawing).toContain("relative L2, log scale");
    expect(drawing).toContain("A curve A   B curve B");
    expect(drawChart({ ...base, x, series }, PLAIN)).toMatch(/[\u2801-\u28ff]/);
  });

  test("zero on a logarithmic axis is at the foot, and said to be", () => {
    const drawing = drawChart(
      { ...base, series: [curve("A", [[1, 0.5], [2, 0.25]]), curve("B", [[1, 0.5], [2, 0]])] },
      PLAIN,
    );
    expect(drawing.replace(/\s+/g, " ")).toContain(
      "at the foot, B: 1 point with a relative L2 of 0 or less, which a log scale cannot show",
    );
    const rows = inside(drawing).slice(0, 12);
    expect(rows[11]).toContain("B");
    expect(rows.slice(0, 10).join("")).toContain("A");
  });

  test("what is no number is counted, not drawn", () => {
    const drawing = drawChart(
      { ...base, series: [curve("A", [[1, 1], [2, NaN], [3, Infinity], [4, 2], [-1, 3]])] },
      PLAIN,
    );
    expect(drawing).toContain("left out: 2 points that are not a finite number");
    expect(drawing).toContain("left out: 1 point with a m of 0 or less");
    const none = drawChart({ ...base, series: [curve("A", [[1, NaN]])] }, PLAIN);
    expect(none).toBe(
      "  error\n  nothing to draw: there is no finite number\n  left out: 1 point that is not a finite number\n",
    );
    expect(drawChart({ ...base, series: [] }, PLAIN)).toContain("nothing to draw");
  });

  test("as high as asked", () => {
    const chart: Chart = {
      title: "t",
      x: { label: "x", scale: "linear" },
      y: { label: "y", scale: "linear" },
      series: [{ label: "s", sign: "A", tone: "plain", points: [[0, 0], [1, 1]] }],
    };
    const lines = (height?: number) => drawChart({ ...chart, height }, PLAIN).split("\n").length;
    expect(lines(9)).toBe(lines() - 3);
  });

  test("one x alone makes rows instead of a column of letters", () => {
    const drawing = drawChart({ ...base, series: [curve("A", [[64, 0.5]]), curve("B", [[64, 0.1]])] }, PLAIN);
    expect(drawing).toContain("error, at m 64");
    expect(drawing).toMatch(/curve A │·+● +0.5\n/);
    expect(drawing).toMatch(/curve B │● +0.1\n/);
  });

  test("levels run across, rules keep their labels, colours repeat what letters say", () => {
    const series = [curve("A", [[1, 0.5], [8, 0.25]]), {
      label: "flat",
      sign: "L",
      tone: "red" as const,
      points: [],
      level: 0.1,
    }];
    const rules = [{ axis: "y" as const, at: 1, label: "the mean of V", short: "mean of V" }];
    const drawing = drawChart({ ...base, series, rules }, PLAIN);
    expect(inside(drawing).find((row) => row.includes("L"))).toMatch(/^L.*L$/);
    expect(inside(drawing)[0]).toMatch(/^╌+mean of V╌$/);
    expect(drawing).toContain("╌╌ the mean of V");
    const coloured = drawChart({ ...base, series, rules }, { ...PLAIN, color: true });
    expect(coloured).toContain("\x1b[31mL\x1b[39m");
    expect(bare(coloured)).toBe(drawing);
  });

  test("marks in one place stand side by side, the sixth makes it several", () => {
    const series = [..."ABCDEF"].map((sign) => curve(sign, [[1, 0.5], [64, 0.5]]));
    const row = inside(drawChart({ ...base, series: series.slice(0, 3) }, PLAIN)).find((row) => row.includes("A"))!;
    expect(row).toMatch(/^ABC.*CAB$/);
    const drawing = drawChart({
      ...base,
      series: series.map((one) => ({ ...one, points: [[1, 1], [8, 0.5], [64, 1]] as const })),
    }, PLAIN);
    expect(inside(drawing).join("\n")).toMatch(/EC\+BD/);
    expect(drawing).toContain("+ several of these");
  });

  test("values beyond the wanted end stand at the top, and are said to", () => {
    const series = [curve("A", [[1, 0.5], [2, 0.25]]), curve("B", [[1, 100], [2, 0.5]])];
    const drawing = drawChart({ ...base, y: { ...log("error"), most: 2 }, series }, PLAIN);
    expect(inside(drawing)[0]).toStartWith("B");
    expect(drawing).toContain("at the top, B: 1 point above 2");
    expect(drawing).toMatch(/ +2 ┤B/);
  });

  test("too narrow a terminal gets a sentence", () => {
    const drawing = drawChart({ ...base, series: [curve("A", [[1, 1], [2, 2]])] }, { ...PLAIN, columns: 20 });
    expect(drawing.replace(/\s+/g, " ")).toContain(`too narrow to draw: it takes ${LEAST_COLUMNS} columns`);
  });
});

describe("rows", () => {
  test("bars grow by eighths, and what is above zero is seen", () => {
    const axis = { label: "v", scale: "linear" } as const;
    const rows = [0, 1e-9, 0.5, 1].map((value) => ({ label: "x", value, text: "t" }));
    const drawing = drawRows({ title: "bars", axis: { label: "v", scale: "linear" }, rows, bare: true }, {
      ...PLAIN,
      columns: 36,
    });
    const bars = drawing.split("\n").slice(1, 5).map((line) => line.slice(line.indexOf("│") + 1).replace(/ *t$/, ""));
    // 36 columns hold margin 2, label 1, space and axis 2, space and text 2, and one stays free.
    const width = 36 - 2 - 1 - 2 - 2 - 1;
    expect(bars).toEqual(["", "▏", "█".repeat(width / 2), "█".repeat(width)]);
    // Every eighth of a character is one sign: "█" is U+2588 and eight of them, "▏" is U+258F and one.
    const rows8 = Array.from({ length: 8 * width + 1 }, (_, i) => ({ label: "x", value: i, text: "t" }));
    const steps = drawRows({ title: "b", axis, rows: rows8, bare: true }, { ...PLAIN, columns: 36 }).split("\n").slice(
      1,
      -1,
    )
      .map((line) => [...line.split("│")[1].split(" ")[0]].reduce((sum, sign) => sum + 0x2590 - sign.charCodeAt(0), 0));
    expect(steps).toEqual(rows8.map(({ value }) => value));
  });

  test("no value is said so", () => {
    expect(drawRows({ title: "bars", axis: { label: "v", scale: "linear" }, rows: [] }, PLAIN)).toContain(
      "nothing to draw",
    );
  });
});

test("a sparkline has its extremes where the values have them", () => {
  expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, PLAIN)).toBe("▁▂▃▄▅▆▇█");
  expect(sparkline([1, NaN, 100, 10_000], 9, PLAIN, "log")).toBe("▁ ▅█");
  // Of several values to a character the largest counts: a peak is not lost.
  expect(sparkline(Array.from({ length: 1000 }, (_, i) => i === 500 ? 9 : 1), 10, PLAIN)).toBe("▁▁▁▁▁█▁▁▁▁");
  expect(sparkline([3, 1, 2], 3, ASCII)).toBe("^_-");
  expect(sparkline([NaN, NaN], 5, PLAIN)).toBe("  ");
});

test("bins have round ends and hold every value once", () => {
  const values = fc.float64Array({ min: 1e-9, max: 1e9, noNaN: true, minLength: 1, maxLength: 200 }).map((all) =>
    all.sort()
  );
  fc.assert(fc.property(values, fc.integer({ min: 1, max: 20 }), (values, most) => {
    const bins = binsOf(values, most);
    expect(bins.reduce((sum, { count }) => sum + count, 0)).toBe(values.length);
    for (const [i, { from, to, count }] of bins.entries()) {
      const last = i === bins.length - 1;
      expect(values.filter((value) => value >= from && (value < to || (last && value === to))).length).toBe(count);
      if (i > 0) expect(bins[i - 1].to).toBe(from);
    }
  }));
  expect(binsOf(Float64Array.of(0.03, 0.07, 0.07, 0.4), 10)).toEqual([
    { from: 0.02, to: 0.05, count: 1 },
    { from: 0.05, to: 0.1, count: 2 },
    { from: 0.1, to: 0.2, count: 0 },
    { from: 0.2, to: 0.5, count: 1 },
  ]);
});

test("a heat map shades by round bounds, crosses out, and leaves the unknown blank", () => {
  const values = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, NaN];
  const line = { label: "head 0", text: "0.3", cell: (from: number) => ({ value: values[from], crossed: from === 6 }) };
  const map = { title: "map", length: 8, lines: [line], across: ["0", "", "7"] as const, crossedLabel: "lost" };
  const drawing = drawHeat(map, PLAIN);
  expect(drawing).toContain("head 0 ░░▒▓▓█x   0.3\n");
  expect(drawing).toMatch(/░ up to 0.03 +▒ up to 0.07\n +▓ up to 0.2 +█ above 0.2\n +x lost +␣ no error is defined\n/);
  expect(drawHeat(map, ASCII)).toContain("head 0 ..-++#x   0.3\n");
  expect(drawHeat({ ...map, length: 0 }, PLAIN)).toContain("nothing to draw");
});

test("ASCII spells formulas: a dot between factors is a product", () => {
  expect(narrow("exp(x·y) · ‖x + y‖² ≤ ½ σ √d φ(K)ᵀV", ASCII)).toBe(
    "exp(x.y) - |x + y|^2 <= 1/2 sigma sqrt d phi(K)^TV",
  );
  expect(narrow("φ(K)ᵀV · ε", PLAIN)).toBe("φ(K)ᵀV · ε");
});

test("words are broken at spaces, and letters only where a word is too long", () => {
  expect(wrapped("one two three", 7)).toEqual(["one two", "three"]);
  expect(wrapped("abcdefgh ij", 3)).toEqual(["abc", "def", "gh", "ij"]);
  expect(wrapped("", 5)).toEqual([]);
});
