/**
 * The error check: exact softmax on sampled query rows, beside the same rows of the approximation and of the uniform baseline.
 *
 * It reads keys and values once more, on its own, so that the throughput of the run proper stays clean.
 * Everything watches the same pass: the exact session, and one session per redraw of the projection.
 */
import { type Attention, logitScale, type Sizes } from "./attention.ts";
import type { Fit } from "./fitted.ts";
import { compareOutputs } from "./metrics.ts";
import type { ErrorReport } from "./report.ts";
import { Answers, passKeys, References, type SampledPass } from "./sampled_rows.ts";
import { openSession } from "./sessions.ts";
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
  readonly redraws: number;
}

/** Measures the error of `approx`. */
export async function checkError(options: CheckOptions): Promise<ErrorReport> {
  const { backend, attention, sizes, shape, fit, redraws } = options;
  await using references = await References.open(options, logitScale(attention, sizes.headDim));
  await using draws = new AsyncDisposableStack();
  const answers: Answers[] = [];
  for (let draw = 1; draw <= redraws; draw++) {
    const { session } = await openSession(backend, attention, sizes, shape, draw, fit);
    answers.push(new Answers(options, draws.use(session)));
  }
  await passKeys(options, [references, ...answers]);
  const { truth, uniform } = references;
  const compare = (approx: Tile) => compareOutputs(approx, truth, uniform, shape.heads, sizes.queryRows);
  const samples = answers.map(({ outputs }) => compare(outputs).relativeL2.value);
  return {
    ...compare(options.approx),
    phi: references.phi(options.inputScale),
    redraws: samples.length > 0 ? { count: samples.length, ...logInterval(samples), samples } : null,
  };
}
