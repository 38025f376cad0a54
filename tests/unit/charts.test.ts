/** Charts: data that cannot be drawn, axes, and that what is drawn can be read. */
import { describe, expect, test } from "bun:test";
import type { Chart, HeatPanel, LinePanel, Point } from "../../src/charts/chart.ts";
import { drawPng, drawSvg, sized } from "../../src/charts/draw.ts";
import { domainOf, logTicks, tickText } from "../../src/charts/scales.ts";
import { MOST_POINTS, soundChart } from "../../src/charts/sound.ts";
import { specOf } from "../../src/charts/spec.ts";
import { DASHES, PAGE, PRINT, SCHEMES, SHAPES } from "../../src/charts/style.ts";

const panel = (points: readonly Point[], other: Partial<LinePanel> = {}): LinePanel => ({
  kind: "lines",
  title: "a panel",
  x: { title: "features m", scale: "log" },
  y: { title: "relative error (1: as large as the output)", scale: "log" },
  series: [{ name: "positive", draw: "line and marks", points }, { name: "iid", draw: "line", points }],
  ...other,
});
const chart = (...panels: Chart["panels"]): Chart => ({ title: "a chart", caption: ["seed 7"], panels });
const POINTS = [16, 64, 256].map((x) => ({ x, y: 1 / x, low: 0.5 / x, high: 2 / x }));

/** The chart that is drawn. */
function sound(given: Chart): Chart {
  const found = soundChart(given);
  if ("sentence" in found) throw new Error(found.sentence);
  return found.chart;
}
const options = { theme: PRINT, width: 700, titled: true };
const svgOf = async (given: Chart) => await drawSvg(specOf(sound(given), options));

describe("data that cannot be drawn", () => {
  test("numbers that are none, and 0 on a logarithmic axis, are left out and told", () => {
    const bad = [{ x: 16, y: NaN }, { x: 64, y: 0 }, { x: 256, y: -1 }, { x: 512, y: Infinity }, { x: 1024, y: 0.5 }];
    const { panels: [drawn], caption } = sound(
      chart(
        panel([...bad, { x: 2048, y: 0.25 }], {
          series: [{ name: "a", draw: "line", points: [...bad, { x: 2048, y: 0.25 }] }],
        }),
      ),
    );
    expect((drawn as LinePanel).series[0].points.map(({ x }) => x)).toEqual([1024, 2048]);
    expect(caption).toEqual([
      "seed 7",
      "Not drawn: 2 points are not a finite number",
      "Not drawn: 2 points are 0 or below, where the axis is logarithmic",
    ]);
  });

  test("nothing left is a sentence, not an empty picture", () => {
    expect(soundChart(chart(panel([{ x: 1, y: 0 }])))).toEqual({
      sentence:
        'There is nothing to draw for "a chart". Not drawn: 2 points are 0 or below, where the axis is logarithmic',
    });
    expect("sentence" in soundChart(chart(panel([])))).toBe(true);
    const cells: HeatPanel = {
      kind: "heat",
      title: "",
      columns: { title: "c", values: [0, 1] },
      rows: { title: "r", values: [0] },
      cells: [NaN, NaN],
      colour: { title: "v", scale: "log", kind: "sequential" },
    };
    expect("sentence" in soundChart(chart(cells))).toBe(true);
    expect(sound(chart({ ...cells, title: "no cells" }, panel(POINTS))).caption.at(-1)).toBe(
      "Left out, since it has nothing to draw: no cells",
    );
  });

  test("one point is a mark in the middle of its axes", async () => {
    const one = sound(
      chart(panel([{ x: 64, y: 0.1 }], { series: [{ name: "a", draw: "line", points: [{ x: 64, y: 0.1 }] }] })),
    );
    expect((one.panels[0] as LinePanel).series[0].draw).toBe("marks");
    expect(await drawSvg(specOf(one, options))).not.toContain("NaN");
  });

  test("a million points are thinned, with the extremes kept and the number told", () => {
    const points = Array.from({ length: 1_000_000 }, (_, x) => ({ x: x + 1, y: 1 + Math.sin(x / 1000) / 2 }));
    points[123_456].y = 900;
    points[654_321].y = 1e-6;
    const given = chart(panel(points, { series: [{ name: "rows", draw: "line", points }] }));
    const { panels: [drawn], caption } = sound(given);
    const kept = (drawn as LinePanel).series[0].points;
    expect(kept.length).toBeLessThanOrEqual(MOST_POINTS);
    const xs = kept.map(({ x }) => x);
    expect(xs).toContain(123_457);
    expect(xs).toContain(654_322);
    expect([xs[0], xs.at(-1)]).toEqual([1, 1_000_000]);
    expect(caption[1]).toBe(
      `${kept.length} of the 1,000,000 points of rows are drawn, evenly, the extremes among them`,
    );
  });

  test("ends of spreads that an axis cannot show are those of the point", () => {
    const { panels: [drawn] } = sound(chart(panel([{ x: 1, y: 2, low: -1, high: Infinity }])));
    expect((drawn as LinePanel).series[0].points[0]).toEqual({ x: 1, y: 2, low: 2, high: 2 });
  });
});

describe("axes", () => {
  test("ends leave room around the data, and around one value alone", () => {
    const [low, high] = domainOf([1, 100], { title: "", scale: "log" });
    expect([low < 1, low > 0.5, high > 100, high < 200]).toEqual([true, true, true, true]);
    expect(domainOf([4, 4], { title: "", scale: "log" })).toEqual([2, 8]);
    expect(domainOf([0], { title: "", scale: "linear" })).toEqual([-0.5, 0.5]);
  });

  test("logarithmic ticks: powers of ten, and 2 and 5 where they are few", () => {
    expect(logTicks([0.9e-3, 1.1])).toEqual([1e-3, 1e-2, 1e-1, 1]);
    expect(logTicks([0.9, 11])).toEqual([1, 2, 5, 10]);
    expect(logTicks([1e-20, 1], 5)!.length).toBeLessThanOrEqual(5);
    expect(logTicks([1, 1.1])).toBeNull(); // the drawing finds round numbers between
  });

  test("numbers as people write them", () => {
    expect([1e-5, 3e-7, 0.02, 512, 1_048_576, 1e9, 0, -0.5].map(tickText)).toEqual([
      "10⁻⁵",
      "3·10⁻⁷",
      "0.02",
      "512",
      "1,048,576",
      "10⁹",
      "0",
      "−0.5",
    ]);
  });
});

describe("style", () => {
  /** Relative luminance (WCAG 2). */
  const luminance = (hex: string) => {
    const [r, g, b] = [1, 3, 5].map((at) => {
      const value = parseInt(hex.slice(at, at + 2), 16) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a: string, b: string) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };

  test("each name has a colour, a dash pattern and a shape of its own", () => {
    expect(new Set(PRINT.series).size).toBe(7);
    expect(new Set(DASHES.map(String)).size).toBe(PRINT.series.length);
    expect(new Set(SHAPES).size).toBe(PRINT.series.length);
    expect(PAGE.series).toHaveLength(PRINT.series.length);
  });

  // WCAG 2: 4.5 for text (AA). Lines have dash patterns and marks beside their colour; 2 keeps the palest of the palette visible.
  test.each(["light", "dark"] as const)("text and lines stand out on the %s page", (scheme) => {
    const { page, ink, muted, series } = SCHEMES[scheme];
    for (const text of [ink, muted]) expect(contrast(text, page)).toBeGreaterThan(4.5);
    for (const colour of series) expect(contrast(colour, page)).toBeGreaterThan(2);
  });
});

describe("drawing", () => {
  test("the picture holds its title, caption, units, legend and logarithmic ticks", async () => {
    const svg = await svgOf(
      chart(panel(POINTS, { rules: [{ axis: "y", at: 0.05, label: "mean of V" }] }), panel(POINTS)),
    );
    for (const words of ["a chart", "seed 7.", "a panel", "features m", "positive", "iid", "mean of V", "0.01"]) {
      expect(svg).toContain(`>${words}<`);
    }
    expect(svg).not.toMatch(/NaN|undefined|aria-/);
  });

  test("numbers in words stay as they are written", async () => {
    const svg = await svgOf({ ...chart(panel(POINTS)), caption: ["arXiv 2009.14794"] });
    expect(svg).toContain("arXiv 2009.14794.");
  });

  test("the specification is JSON, the same every time", () => {
    const spec = specOf(sound(chart(panel(POINTS))), options);
    expect(JSON.parse(JSON.stringify(spec)).$schema).toContain("vega-lite");
    expect(JSON.stringify(specOf(sound(chart(panel(POINTS))), options))).toBe(JSON.stringify(spec));
  });

  test("names that look like markup are text", async () => {
    const svg = await svgOf({ ...chart(panel(POINTS)), title: "<script>alert(1)</script>" });
    expect(svg).toContain("&lt;script&gt;");
    expect(svg).not.toContain("<script>");
  });

  test("a PNG has the width asked for, and its text is drawn", async () => {
    const png = await drawPng(sized(await svgOf(chart(panel(POINTS))), 500), 1000);
    expect([...png.subarray(1, 4)]).toEqual([0x50, 0x4e, 0x47]);
    const view = new DataView(png.buffer, png.byteOffset);
    expect(view.getUint32(16)).toBe(1000);
    // resvg without a font draws no text, and does not say so.
    const words = (text: string) =>
      `<svg xmlns="http://www.w3.org/2000/svg" width="100" height="30"><text y="20" font-family="DejaVu Sans">${text}</text></svg>`;
    const [blank, written, bold] = await Promise.all(
      [words(""), words("ϕ 10⁻⁵ ‖x‖"), words("ϕ 10⁻⁵ ‖x‖").replace("<text", '<text font-weight="bold"')].map((svg) =>
        drawPng(svg, 100)
      ),
    );
    expect(written.length).toBeGreaterThan(blank.length + 200);
    expect(Buffer.from(written).equals(Buffer.from(bold))).toBe(false);
  });

  test("cells without a number are grey, and cells meet without seams", async () => {
    const heat: HeatPanel = {
      kind: "heat",
      title: "",
      columns: { title: "setting", values: ["a", "b"] },
      rows: { title: "head", values: ["0", "1"] },
      cells: [0.1, NaN, 0, 2],
      colour: { title: "error", scale: "log", kind: "sequential", domain: [0.1, 2] },
      labelled: true,
    };
    const svg = await svgOf(chart(heat));
    expect(svg).toContain("#b8b8b8");
    expect(svg).toContain("crispEdges");
    expect(svg).toContain(">–<");
  });
});
