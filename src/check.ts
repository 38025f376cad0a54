/**
 * The error check: exact softmax on sampled query rows, beside the same rows of the approximation and of the uniform baseline.
 *
 * It reads keys and values once more, on its own, so that the throughput of the run proper stays clean.
 * Everything watches the same pass: the exact session, one session per redraw of the projection, and what health per head needs.
 */
import { type Attention, logitScale, type Sizes } from "./attention.ts";
import type { SessionCounts } from "./backend.ts";
import type { Fit } from "./fitted.ts";
import { HealthCheck } from "./health.ts";
import { compareOutputs, type RowSquares, rowSquares } from "./metrics.ts";
import type { ErrorReport, HealthReport } from "./report.ts";
import { Answers, passKeys, References, type SampledPass } from "./sampled_rows.ts";
import { openSession } from "./sessions.ts";
import { shrunk } from "./shrink.ts";
import { logInterval } from "./statistics.ts";
import type { Tile } from "./tensor.ts";

export interface CheckOptions extends SampledPass {
  readonly attention: Attention;
  readonly sizes: Sizes;
  /** Of the approximation; redraws share it. */
  readonly fit: Fit | null;
  /** √S, or 1 where the map does not scale: for φ̄. */
  readonly inputScale: number;
  /** The approximation's outputs of the sampled rows. */
  readonly approx: Tile;
  /** λ per head where the approximation was shrunk: redraws are as well. */
  readonly lambda?: ArrayLike<number> | null;
  readonly redraws: number;
  /** Wants health per head. */
  readonly health: boolean;
  /** Wants the squares of every sampled row and head, which plots are drawn from. */
  readonly keepRows?: boolean;
  /** Inputs come from a checkpoint's layer; the settings are those of `--features auto`: for advice. */
  readonly layered: boolean;
  readonly chosen: boolean;
  /** What the run counted. */
  readonly counts: SessionCounts;
}

export interface Checked {
  readonly error: ErrorReport | null;
  readonly health: HealthReport | null;
  /** Where they were wanted; absent otherwise. */
  readonly rowSquares?: RowSquares;
}

/** Measures the error of `approx`, and the health of each head where that is wanted. */
export async function checkError(options: CheckOptions): Promise<Checked> {
  const { backend, attention, sizes, shape, fit, redraws } = options;
  await using references = await References.open(options, logitScale(attention, sizes.headDim));
  await using draws = new AsyncDisposableStack();
  const answers: Answers[] = [];
  for (let draw = 1; draw <= redraws; draw++) {
    const { session } = await openSession(backend, attention, sizes, shape, draw, fit);
    answers.push(new Answers(options, draws.use(session)));
  }
  const health = options.health ? draws.use(await HealthCheck.open(options, options)) : null;
  await passKeys(options, [references, ...answers, ...(health?.watchers ?? [])]);
  const { truth, uniform } = references;
  const compare = (approx: Tile) => compareOutputs(approx, truth, uniform, shape.heads, sizes.queryRows);
  const { lambda } = options;
  const samples = answers.map(({ outputs }) => {
    return compare(lambda ? shrunk(outputs, uniform, lambda) : outputs).relativeL2.value;
  });
  const error = compare(options.approx);
  return {
    error: {
      ...error,
      phi: references.phi(options.inputScale),
      redraws: samples.length > 0 ? { count: samples.length, ...logInterval(samples), samples } : null,
    },
    health: health && await health.report(references, error, options.counts),
    ...(options.keepRows
      ? {
        rowSquares: rowSquares(options.approx, truth, uniform, {
          rows: options.rows,
          population: sizes.queryRows,
          heads: shape.heads,
        }),
      }
      : {}),
  };
}
