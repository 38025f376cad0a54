/**
 * Checks of the paper's theorems: orthogonal projections have the smaller error (Theorem 2), by how much (own closed form), and the
 * regularised kernel lies below softmax's (Theorem 1). Lines are formulas, marks are drawn projections.
 */
import type { Chart, Point, Series } from "../charts/chart.ts";
import { regularisedShare, relativeKernelError } from "../closed_forms.ts";
import { drawProjection } from "../projection.ts";
import { mean, standardDeviation } from "../statistics.ts";
import { count, figure } from "../words.ts";
import type { Figure } from "./figure.ts";

export interface TheoremOptions {
  /** Draws of each projection. */
  readonly trials: number;
  readonly seed: number;
  readonly progress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

const HEAD_DIM = 8;
/** ‖x + y‖² of the pairs. */
const SIZES = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2];
const COUNTS = [2, 4, 8, 16, 32, 64];
/** The size at which the error against m is shown. */
const SHOWN = 1;

/** Measured relative squared error of one weight. */
interface Measured {
  readonly kind: "iid" | "orthogonal";
  readonly m: number;
  readonly s: number;
  readonly mse: number;
  readonly standardError: number;
  readonly exact: number;
}

/** The least gap of Theorem 2 for m ≤ d, over the square of the weight: 2(m−1)/(m(d+2)) · (1 − Λ/SM)², Λ/SM = e^{−s/2}. */
export const leastGap = (s: number, m: number, d: number): number =>
  2 * (m - 1) / (m * (d + 2)) * (1 - Math.exp(-s / 2)) ** 2;

const exactError = (kind: "iid" | "orthogonal", m: number, s: number) =>
  relativeKernelError({ map: "positive", coupling: kind, headDim: HEAD_DIM, projections: m }, { s, delta: 0 });

/** Draws, compares, and makes the figure. */
export async function theoremFigure(options: TheoremOptions): Promise<Figure> {
  const { trials, seed, signal } = options;
  const measured: Measured[] = [];
  const gaps: Gap[] = [];
  const total = 2 * COUNTS.length + SIZES.length;
  const step = async () => {
    options.progress?.(measured.length + gaps.length, total);
    await new Promise((resolve) => setTimeout(resolve, 0)); // lets signals and the progress line through
    signal?.throwIfAborted();
  };
  for (const kind of ["iid", "orthogonal"] as const) {
    for (const m of COUNTS) {
      const errors = squaredErrors(kind, m, SHOWN, options);
      const standardError = standardDeviation(errors) / Math.sqrt(trials);
      measured.push({ kind, m, s: SHOWN, mse: mean(errors), standardError, exact: exactError(kind, m, SHOWN) });
      await step();
    }
  }
  for (const [i, s] of SIZES.entries()) {
    gaps.push(gapAt(s, gapsOf(s, i, options)));
    await step();
  }
  const shares = [4, 16, 64].map((d) => ({
    d,
    points: range(0, 8, 40).map((s): Point => ({ x: s, y: regularisedShare(s, d) })),
  }));
  const chart = chartOf(measured, gaps, shares, options);
  const z = [...measured.map(({ mse, exact, standardError }) => (mse - exact) / standardError)]
    .concat(gaps.map(({ measured, exact, standardError }) => (measured - exact) / standardError)).map(Math.abs);
  return {
    name: "theorem",
    title: chart.title,
    settings: { headDim: HEAD_DIM, trials, seed, map: "positive" },
    findings: [
      `${
        z.filter((far) => far <= 2).length
      } of ${z.length} measured errors and gaps lie within two standard errors of the closed form, the furthest at ${
        figure(Math.max(...z))
      }`,
      `Theorem 2 holds in closed form at every size: the least ratio of gap to bound is ${
        figure(Math.min(...gaps.map(({ exact, bound }) => exact / bound)))
      }`,
      `Theorem 1: the regularised kernel is at most softmax's, down to ${
        figure(shares[0].points.at(-1)!.y)
      } of it at ‖x+y‖² = 8, d = 4`,
    ],
    data: {
      errors: measured.map((row) => ({ ...row })),
      gaps: gaps.map((row) => ({ ...row })),
      regularised: shares.flatMap(({ d, points }) => points.map(({ x, y }) => ({ d, s: x, share: y }))),
    },
    chart,
  };
}

const range = (low: number, high: number, points: number) =>
  Array.from({ length: points }, (_, i) => low + (high - low) * i / (points - 1));

/**
 * The squared relative errors of every draw. Only z = x + y counts, and its direction does not, since projections are isotropic:
 * φ(x)·φ(y)/exp(x·y) is the mean of exp(w·z − s/2), with z = √s e₁.
 */
function squaredErrors(kind: string, m: number, s: number, { trials, seed }: TheoremOptions): Float64Array {
  return Float64Array.from({ length: trials }, (_, draw) => {
    const W = drawProjection({ kind, projections: m, headDim: HEAD_DIM, matrices: 1, norms: "chi", seed, draw });
    let sum = 0;
    for (let a = 0; a < m; a++) sum += Math.exp(Math.sqrt(s) * W[a * HEAD_DIM] - s / 2);
    return (sum / m - 1) ** 2;
  });
}

interface Gap {
  readonly s: number;
  readonly exact: number;
  readonly bound: number;
  readonly measured: number;
  readonly standardError: number;
}

/**
 * What each draw of an orthogonal block says of the gap: (1 − 1/m)(1 − f_a f_b), f = exp(w·z − s/2), in the mean over pairs of rows. The
 * squares f_a², which both errors share, are left out: they have the heavy tails.
 */
function gapsOf(s: number, place: number, { trials, seed }: TheoremOptions): Float64Array {
  const m = HEAD_DIM;
  return Float64Array.from({ length: trials }, (_, draw) => {
    const sizes = { projections: m, headDim: HEAD_DIM, matrices: 1 };
    const W = drawProjection({
      kind: "orthogonal",
      ...sizes,
      norms: "chi",
      seed: seed + 1,
      draw: place * trials + draw,
    });
    let sum = 0, squares = 0;
    for (let a = 0; a < m; a++) {
      const f = Math.exp(Math.sqrt(s) * W[a * HEAD_DIM] - s / 2);
      sum += f;
      squares += f * f;
    }
    return (1 - 1 / m) * (1 - (sum * sum - squares) / (m * (m - 1)));
  });
}

function gapAt(s: number, gaps: Float64Array): Gap {
  return {
    s,
    exact: exactError("iid", HEAD_DIM, s) - exactError("orthogonal", HEAD_DIM, s),
    bound: leastGap(s, HEAD_DIM, HEAD_DIM),
    measured: mean(gaps),
    standardError: standardDeviation(gaps) / Math.sqrt(gaps.length),
  };
}

function chartOf(
  measured: readonly Measured[],
  gaps: readonly Gap[],
  shares: readonly { readonly d: number; readonly points: readonly Point[] }[],
  { trials, seed }: TheoremOptions,
): Chart {
  const sizes = range(0.2, 2.1, 40);
  const marks = (kind: "iid" | "orthogonal", style: number): Series => ({
    name: `${kind}, measured`,
    draw: "marks",
    spread: "whiskers",
    style,
    points: measured.filter((one) => one.kind === kind && one.s === SHOWN)
      .map(({ m, mse, standardError }) => ({
        x: m,
        y: mse,
        low: mse - 1.96 * standardError,
        high: mse + 1.96 * standardError,
      })),
  });
  const line = (kind: "iid" | "orthogonal", style: number): Series => ({
    name: `${kind}, closed form`,
    draw: "line",
    style,
    points: COUNTS.map((m) => ({ x: m, y: exactError(kind, m, SHOWN) })),
  });
  return {
    title: "Orthogonal projections: theorems against drawn features",
    caption: [
      `Positive features, d = ${HEAD_DIM}; errors are of one weight, over the square of exp(x·y); whiskers: 95 % intervals of the mean of ${
        count(trials)
      } draws (seed ${seed})`,
      "arXiv 2009.14794 Theorem 2: MSE orthogonal ≤ MSE iid − 2(m−1)/(m(d+2)) (SM − Λ)²; Theorem 1: the regularised kernel SMREG ≤ SM",
    ],
    panels: [
      {
        kind: "lines",
        title: `Error against m (‖x+y‖² = ${SHOWN})`,
        x: { title: "projections m", scale: "log", ticks: COUNTS },
        y: { title: "relative squared error", scale: "log" },
        series: [line("iid", 5), line("orthogonal", 0), marks("iid", 5), marks("orthogonal", 0)],
      },
      {
        kind: "lines",
        title: `Gap between iid and orthogonal (m = d = ${HEAD_DIM})`,
        x: { title: "‖x + y‖² of scaled rows", scale: "linear" },
        y: { title: "gap of the relative squared errors", scale: "log" },
        series: [
          {
            name: "closed form",
            draw: "line",
            style: 0,
            points: sizes.map((s) => ({
              x: s,
              y: exactError("iid", HEAD_DIM, s) - exactError("orthogonal", HEAD_DIM, s),
            })),
          },
          {
            name: "bound of Theorem 2",
            draw: "line",
            style: 1,
            points: sizes.map((s) => ({ x: s, y: leastGap(s, HEAD_DIM, HEAD_DIM) })),
          },
          {
            name: "measured",
            draw: "marks",
            spread: "whiskers",
            style: 2,
            points: gaps.map(({ s, measured, standardError }) => ({
              x: s,
              y: measured,
              low: measured - 1.96 * standardError,
              high: measured + 1.96 * standardError,
            })),
          },
        ],
      },
      {
        kind: "lines",
        title: "Regularised over softmax kernel",
        x: { title: "‖x + y‖² of scaled rows", scale: "linear" },
        y: { title: "SMREG / SM", scale: "linear", domain: [0, 1.05] },
        series: shares.map(({ d, points }) => ({ name: `d = ${d}`, draw: "line", points })),
        rules: [{ axis: "y", at: 1, label: "softmax" }],
      },
    ],
  };
}
