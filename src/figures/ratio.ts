/**
 * The paper's Fig. 2: where positive features beat trigonometric ones. Closed forms (arXiv 2009.14794 Lemma 2), no chance: the number of
 * features cancels in the ratio of both errors.
 */
import type { Chart, Point } from "../charts/chart.ts";
import { relativeKernelError } from "../closed_forms.ts";
import { figure } from "../words.ts";
import type { Figure } from "./figure.ts";

/** ‖x + y‖² and ‖x − y‖² of two vectors of one length at an angle. */
const pairAt = (angle: number, length: number) => ({
  s: 2 * length ** 2 * (1 + Math.cos(angle)),
  delta: 2 * length ** 2 * (1 - Math.cos(angle)),
});

const relativeError = (map: "trigonometric" | "positive", pair: { s: number; delta: number }) =>
  relativeKernelError({ map, coupling: "iid", headDim: 1, projections: 1 }, pair);

/** MSE of trigonometric over MSE of positive features, independent projections, for ‖x‖ = ‖y‖ = `length` at `angle` (rad). */
export function varianceRatio(angle: number, length: number): number {
  const pair = pairAt(angle, length);
  return relativeError("trigonometric", pair) / relativeError("positive", pair);
}

/** The angle (rad) of ratio 1: below it trigonometric features are better, above it positive ones. The ratio grows with the angle. */
export function crossing(length: number): number {
  let low = 0.1, high = 3.1;
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (varianceRatio(middle, length) < 1) low = middle;
    else high = middle;
  }
  return low;
}

/** Angles and lengths of the table of values. */
const ANGLES = [Math.PI / 4, Math.PI / 2, 2 * Math.PI / 3, 3 * Math.PI / 4, 3];
const LENGTHS = [0.5, 1, 1.5, 2];
/** Shares of π and lengths of the map; odd, so that no cell has its centre where the ratio is 0/0. */
const [ACROSS, UP] = [72, 40];

/** Centres of `cells` equal cells between two ends. */
const centres = (low: number, high: number, cells: number) =>
  Array.from({ length: cells }, (_, i) => low + (high - low) * (i + 0.5) / cells);

/** Computes the figure. */
export function ratioFigure(): Figure {
  const angles = centres(-Math.PI, Math.PI, ACROSS);
  const lengths = centres(-2, 2, UP);
  const surface = lengths.flatMap((length) => angles.map((angle) => varianceRatio(angle, length)));
  const equal = LENGTHS.map((length) => ({ length, angle: crossing(length) }));
  const slices = [0.5, 1, 2].map((length) => ({
    length,
    points: Array.from({ length: 120 }, (_, i): Point => {
      const angle = 0.35 + (3.1 - 0.35) * i / 119;
      return { x: angle, y: varianceRatio(angle, length) };
    }),
  }));
  const errors = (map: "trigonometric" | "positive") =>
    Array.from({ length: 80 }, (_, i): Point => {
      const angle = 2 + (Math.PI - 0.02 - 2) * i / 79;
      const kernel = Math.exp(Math.cos(angle)); // exp(x·y) at length 1
      return { x: kernel, y: relativeError(map, pairAt(angle, 1)) * kernel ** 2 };
    });
  const values = LENGTHS.flatMap((length) =>
    ANGLES.map((angle) => ({ length, angle, ratio: varianceRatio(angle, length) }))
  );
  const chart: Chart = {
    title: "Trigonometric against positive features: ratio of their mean squared errors",
    caption: [
      "arXiv 2009.14794 Fig. 2 and Lemma 2: r = MSE of trigonometric / MSE of positive features at equal m, closed forms, for " +
      "‖x‖ = ‖y‖ = l at an angle ϕ (negative l and ϕ mirror the positive ones)",
      "Above 1 (orange) positive features are better; the black line is r = 1; colours end at 10⁻⁴ and 10⁴",
    ],
    panels: [
      {
        kind: "heat",
        title: "Ratio over angle and length",
        columns: { title: "angle ϕ between x and y (rad)", values: angles },
        rows: { title: "length l = ‖x‖ = ‖y‖", values: lengths },
        cells: surface,
        upwards: true,
        colour: {
          title: "ratio r of the MSEs",
          scale: "log",
          kind: "diverging",
          middle: 1,
          domain: [1e-4, 1e4],
          ticks: [1e-4, 1e-2, 1, 1e2, 1e4],
        },
        lines: [-1, 1].flatMap((side) =>
          [-1, 1].map((sign) => ({ name: side * sign > 0 ? "r = 1" : "", points: unitLine(side, sign) }))
        ),
      },
      {
        kind: "lines",
        title: "Slices at fixed lengths",
        x: { title: "angle ϕ (rad)", scale: "linear" },
        y: { title: "ratio r of the MSEs", scale: "log", domain: [1e-6, 1e6] },
        series: slices.map(({ length, points }) => ({
          name: `l = ${length}`,
          draw: "line",
          points: points.filter(({ y }) => y < 1e6 && y > 1e-6),
        })),
        rules: [{ axis: "y", at: 1, label: "r = 1: equal" }],
      },
      {
        kind: "lines",
        title: "Errors at small weights (l = 1)",
        x: { title: "exp(x·y), the weight that is estimated", scale: "linear" },
        y: { title: "m × MSE", scale: "log" },
        series: [
          { name: "trigonometric", draw: "line", points: errors("trigonometric") },
          { name: "positive", draw: "line", points: errors("positive") },
        ],
      },
    ],
  };
  return {
    name: "2",
    title: chart.title,
    settings: { projections: "iid", lengths: LENGTHS, angles: ANGLES },
    findings: [
      ...equal.map(({ length, angle }) =>
        `l = ${length}: equal at ϕ = ${figure(angle)} rad (${
          Math.round(angle * 180 / Math.PI)
        }°); beyond it positive features are better`
      ),
    ],
    data: {
      values,
      equal,
      surface: surface.map((ratio, i) => ({
        length: lengths[Math.floor(i / ACROSS)],
        angle: angles[i % ACROSS],
        ratio,
      })),
    },
    chart,
  };
}

/** The curve of ratio 1 on one side, from short to long vectors; shorter ones than 0.15 cross beyond what can be told from π. */
function unitLine(side: number, sign: number): Point[] {
  return Array.from({ length: 60 }, (_, i) => {
    const length = 0.02 + (2 - 0.02) * i / 59;
    return { x: side * crossing(length), y: sign * length };
  });
}
