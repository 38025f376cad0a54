/**
 * The paper's Fig. 4: mean squared error of the attention output against the number of features, orthogonal against independent projections
 * and positive against trigonometric features. L = 4096 and d = 16 as there. The paper does not say how large its queries and keys are, and
 * its panels need different ones: entries N(0, 0.5²) for the first, N(0, 1) for the second.
 */
import type { Attention } from "../attention.ts";
import type { Backend } from "../backend.ts";
import type { Chart, LinePanel, Series } from "../charts/chart.ts";
import { sizesOf } from "../run.ts";
import { sampleRows } from "../sampled_rows.ts";
import { type Truth, truthOf, tryAttention } from "../trial.ts";
import { figure } from "../words.ts";
import type { Figure } from "./figure.ts";
import { attentionOf, gaussianData } from "./trials.ts";
import { statisticsOf, type TrialStatistics } from "./trials_table.ts";

const HEAD_DIM = 16;
/** Query rows compared: a simple random sample, whose share of the spread is small beside that of the projection. */
const CHECKED = 512;

/** A curve: a map with a projection, in the panels of some scales. */
interface Curve {
  readonly features: string;
  readonly projection: string;
  readonly scales: readonly number[];
  /** Place in the order of styles, the same in all panels. */
  readonly style: number;
}

const [SMALL, LARGE] = [0.5, 1];
const CURVES: readonly Curve[] = [
  { features: "positive", projection: "orthogonal", scales: [SMALL, LARGE], style: 0 },
  { features: "positive", projection: "iid", scales: [SMALL, LARGE], style: 5 },
  { features: "trigonometric", projection: "orthogonal", scales: [SMALL, LARGE], style: 1 },
  { features: "trigonometric", projection: "iid", scales: [SMALL, LARGE], style: 4 },
  { features: "hyperbolic", projection: "orthogonal", scales: [SMALL], style: 2 },
  { features: "oprf", projection: "orthogonal", scales: [SMALL], style: 3 },
  { features: "oprf", projection: "iid", scales: [SMALL], style: 6 },
];

export interface OutputErrorOptions {
  readonly backend: Backend;
  /** Draws of data and projection. */
  readonly trials: number;
  readonly seed: number;
  readonly length: number;
  readonly numFeatures: readonly number[];
  readonly progress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

interface Cell extends TrialStatistics {
  readonly scale: number;
  readonly features: string;
  readonly projection: string;
  readonly numFeatures: number;
  /** Shares of trials, and of rows in all trials, whose denominator was ≤ 0: of those the error has no mean. */
  readonly nonPositiveTrials: number;
  readonly nonPositiveRows: number;
}

/** Measures the figure. */
export async function outputErrorFigure(options: OutputErrorOptions): Promise<Figure> {
  const { backend, trials, seed, length, numFeatures, signal } = options;
  const samples = new Map<string, { curve: Curve; scale: number; r: number; mse: number[]; bad: number[] }>();
  const uniform = new Map<number, number[]>();
  const scales = [SMALL, LARGE];
  const total = trials * numFeatures.length * CURVES.reduce((sum, { scales }) => sum + scales.length, 0);
  let done = 0;
  for (const scale of scales) {
    for (let trial = seed; trial < seed + trials; trial++) {
      const inputs = gaussianData({ length, headDim: HEAD_DIM, valueDim: HEAD_DIM, sd: scale, seed: trial });
      const what = { inputs, sizes: sizesOf(inputs, false), backend, causal: false, scale: null, signal };
      const truth = await truthOf(what, sampleRows(length, CHECKED, false, trial));
      uniform.set(scale, [...(uniform.get(scale) ?? []), uniformError(truth)]);
      for (const r of numFeatures) {
        for (const curve of CURVES.filter(({ scales }) => scales.includes(scale))) {
          const attention: Attention = attentionOf({ ...curve, numFeatures: r, seed: trial });
          const { error, counts } = await tryAttention(attention, what, truth);
          const key = JSON.stringify([scale, r, curve.features, curve.projection]);
          const cell = samples.get(key) ?? { curve, scale, r, mse: [], bad: [] };
          cell.mse.push(Number(error.mse));
          cell.bad.push(counts.nonPositive / length);
          samples.set(key, cell);
          options.progress?.(++done, total);
        }
      }
    }
  }
  const cells = [...samples.values()].map(({ curve, scale, r, mse, bad }): Cell => ({
    scale,
    features: curve.features,
    projection: curve.projection,
    numFeatures: r,
    ...statisticsOf(mse),
    nonPositiveTrials: bad.filter((share) => share > 0).length / bad.length,
    nonPositiveRows: bad.reduce((sum, share) => sum + share, 0) / bad.length,
  }));
  const baselines = scales.map((scale) => ({ scale, ...statisticsOf(uniform.get(scale)!) }));
  const chart = chartOf(cells, baselines, options);
  const draws = [...samples.values()].flatMap(({ curve, scale, r, mse }) =>
    mse.map((value, i) => ({
      scale,
      features: curve.features,
      projection: curve.projection,
      numFeatures: r,
      seed: seed + i,
      mse: value,
    }))
  );
  return {
    name: "4",
    title: chart.title,
    settings: {
      length,
      headDim: HEAD_DIM,
      valueDim: HEAD_DIM,
      rowsChecked: Math.min(CHECKED, length),
      trials,
      seed,
      numFeatures,
      scales,
    },
    findings: findingsOf(cells, baselines),
    data: { error: cells.map((cell) => ({ ...cell })), uniform: baselines.map((line) => ({ ...line })), draws },
    chart,
  };
}

/** Mean squared error of answering with the mean of V. */
function uniformError({ exact, uniform }: Truth): number {
  let sum = 0;
  for (let i = 0; i < exact.data.length; i++) sum += (exact.data[i] - uniform.data[i]) ** 2;
  return sum / exact.data.length;
}

type Baselines = readonly ({ readonly scale: number } & TrialStatistics)[];

function chartOf(
  cells: readonly Cell[],
  baselines: Baselines,
  { trials, length, numFeatures, seed }: OutputErrorOptions,
): Chart {
  const series = (scale: number, chosen: (curve: Curve) => boolean): Series[] =>
    CURVES.filter((curve) => curve.scales.includes(scale) && chosen(curve)).flatMap((curve): Series[] => {
      const own = cells.filter((cell) =>
        cell.scale === scale && cell.features === curve.features && cell.projection === curve.projection
      );
      const name = `${curve.features}, ${curve.projection}`;
      const points = own.map(({ numFeatures, median, low, high }) => ({ x: numFeatures, y: median, low, high }));
      return [{ name, draw: "line and marks", spread: trials > 1 ? "band" : undefined, style: curve.style, points }];
    });
  const panel = (title: string, scale: number, chosen: (curve: Curve) => boolean): LinePanel => ({
    kind: "lines",
    title,
    x: { title: "number of features r", scale: "log", ticks: numFeatures },
    y: { title: "MSE of the output (V ~ N(0, 1))", scale: "log" },
    series: series(scale, chosen),
    rules: [{
      axis: "y",
      at: baselines.find((line) => line.scale === scale)!.mean,
      label: "mean of V (ignores attention)",
    }],
  });
  const softmax = ({ features }: Curve) => features === "positive" || features === "trigonometric";
  return {
    title: "Error of the attention output against the number of features",
    caption: [
      `arXiv 2009.14794 Fig. 4: L = ${length}, d = 16; lines: median of ${trials} draws of data and projection (seeds ${seed} to ${
        seed + trials - 1
      }), bands: their 16 % to 84 % quantiles`,
      "The paper does not say how large queries and keys are; σ is the standard deviation of their entries here",
      ...signWords(cells),
    ],
    panels: [
      panel(`Orthogonal against iid (σ = ${SMALL})`, SMALL, softmax),
      panel(`Positive against trigonometric (σ = ${LARGE})`, LARGE, softmax),
      panel(
        `Positive maps (σ = ${SMALL})`,
        SMALL,
        ({ features, projection }) => features !== "trigonometric" && projection === "orthogonal",
      ),
    ],
  };
}

/** Signed features may divide by a number around 0. */
function signWords(cells: readonly Cell[]): string[] {
  const signed = cells.filter(({ nonPositiveRows }) => nonPositiveRows > 0);
  if (signed.length === 0) return [];
  const worst = signed.reduce((most, cell) => cell.nonPositiveRows > most.nonPositiveRows ? cell : most);
  return [
    `Trigonometric features met denominators of 0 or below, up to ${
      figure(100 * worst.nonPositiveRows)
    } % of all rows at σ = ${worst.scale}, ` +
    `r = ${worst.numFeatures}: there their error has no mean`,
  ];
}

function findingsOf(cells: readonly Cell[], baselines: Baselines): string[] {
  const most = Math.max(...cells.map(({ numFeatures }) => numFeatures));
  const at = (scale: number, features: string, projection: string) =>
    cells.find((cell) =>
      cell.scale === scale && cell.features === features && cell.projection === projection && cell.numFeatures === most
    )!;
  const ratio = (a: Cell, b: Cell) => figure(a.median / b.median);
  const uniform = (scale: number) => baselines.find((line) => line.scale === scale)!.mean;
  return [
    `r = ${most}, σ = ${SMALL}: iid has ${
      ratio(at(SMALL, "positive", "iid"), at(SMALL, "positive", "orthogonal"))
    } × the median error of orthogonal ` +
    `positive features, ${
      ratio(at(SMALL, "trigonometric", "iid"), at(SMALL, "trigonometric", "orthogonal"))
    } × that of trigonometric ones`,
    `r = ${most}, σ = ${LARGE}: trigonometric features have ${
      ratio(at(LARGE, "trigonometric", "orthogonal"), at(LARGE, "positive", "orthogonal"))
    } × the median error of positive ones; the mean of V has ${
      figure(uniform(LARGE) / at(LARGE, "positive", "orthogonal").median)
    } × of it`,
  ];
}
