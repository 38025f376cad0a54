/**
 * Errors of `compare`: all settings on the same sampled rows of the whole input.
 *
 * Feature maps are watched by passes over the keys, up to PASS_SESSIONS sessions each, and only the sampled queries are asked; the
 * references watch the first pass. Near keys and far fields need the rows beside a query, so they run over all rows, as `attend` does.
 */
import { type Attention, decayFor, flopCount, logitScale, type Sizes } from "./attention.ts";
import type { OpenBackend } from "./bench_measure.ts";
import type { Contender, Entrant } from "./compare.ts";
import { UnsupportedError } from "./errors.ts";
import { fitInputs, planFit } from "./fit.ts";
import type { Fit } from "./fitted.ts";
import type { Inputs } from "./inputs.ts";
import { compareOutputs, type ErrorSummary } from "./metrics.ts";
import { tileRowsFor } from "./plan.ts";
import { Answers, passKeys, readSampled, References, type SampledPass, sampleRows } from "./sampled_rows.ts";
import { openSession } from "./sessions.ts";
import { quantile } from "./statistics.ts";
import { TileStore } from "./tile_store.ts";
import { type Trial, tryAttention } from "./trial.ts";
import { stateBytes } from "./tune.ts";

/** Sessions of one pass: each holds tiles of its own, some 40 MB of a wide input. */
const PASS_SESSIONS = 8;

export interface ErrorOptions {
  readonly inputs: Inputs;
  readonly sizes: Sizes;
  /** At least one; they share causality, scale, decay and seed. */
  readonly entrants: readonly Entrant[];
  /** Query rows to check against exact softmax, at least 1. */
  readonly check: number;
  /** Draws of every projection, at least 1. */
  readonly draws: number;
  /** Rows per tile the user asked for. */
  readonly tileRows?: number;
  /** Called with the work done of `total` in a stage. */
  readonly progress?: (stage: string, done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Told of a setting that a backend cannot run. */
export type Refuse = (contender: Contender, error: UnsupportedError) => void;

/** What was found of one entrant on one backend. */
export interface Erring extends Contender {
  readonly entrant: Entrant;
  /** One per draw. */
  readonly errors: readonly ErrorSummary[];
  readonly nonPositive: number;
  /** Operations of all rows. */
  readonly flops: number;
  readonly stateBytes: number;
  /** Compute time of all rows, where they were all run; else speed is measured on its own. */
  readonly seconds: number | null;
}

/** What was found on one backend. */
export interface Errors {
  readonly erring: readonly Erring[];
  readonly phi: number;
  readonly uniformBaseline: number;
  readonly rowsChecked: number;
}

/** One draw of one entrant. */
interface Job {
  readonly entrant: Entrant;
  readonly draw: number;
}

/** Draw 0 of every entrant, then draw 1 of those that have something to draw, and so on. */
function jobsOf(entrants: readonly Entrant[], draws: number): Job[] {
  return Array.from(
    { length: draws },
    (_, draw) =>
      entrants.filter(({ projection, attention }) => !attention.nearFar && (draw === 0 || projection !== null))
        .map((entrant) => ({ entrant, draw })),
  ).flat();
}

/** Errors of every entrant on one backend. */
export async function errorsOn(
  { label, backend }: OpenBackend,
  options: ErrorOptions,
  refuse: Refuse,
): Promise<Errors> {
  const { inputs, sizes, entrants, signal } = options;
  const { heads, kvHeads, headDim, valueDim, queryRows, keyRows } = sizes;
  const [{ attention }] = entrants;
  const { causal } = attention;
  const widest = Math.max(heads, kvHeads) * Math.max(headDim, valueDim);
  const tileRows = tileRowsFor(backend.limits, widest, options.tileRows);
  const shape = { heads, kvHeads, headDim, valueDim, causal, decay: decayFor(attention, sizes), tileRows };
  const rows = sampleRows(queryRows, options.check, causal, attention.seed);
  using memory = new TileStore(backend, tileRows, backend.limits.inFlight + 1);
  const what = { backend, shape, inputs, memory, rows, signal };
  const pass: SampledPass = { ...what, queries: await readSampled(what) };
  const scale = logitScale(attention, headDim);
  await using references = await References.open(pass, scale);
  const tally = new Tally(label, refuse);
  const fits = new Map<Entrant, Fit | null>();

  // As attend fits it; all draws share a fit.
  const fitOf = async (attention: Attention) => {
    const plan = planFit(attention);
    const { precision } = backend.limits;
    return plan && await fitInputs(attention, sizes, plan, inputs, { precision, tileRows, signal });
  };
  const jobs = jobsOf(entrants, options.draws);
  const passes = Math.max(1, Math.ceil(jobs.length / PASS_SESSIONS));
  for (let p = 0; p < passes; p++) {
    await using open = new AsyncDisposableStack();
    const watching: { entrant: Entrant; answers: Answers; cost: Cost }[] = [];
    for (const { entrant, draw } of jobs.slice(p * PASS_SESSIONS, (p + 1) * PASS_SESSIONS)) {
      await tally.unlessUnable(entrant, async () => {
        if (draw === 0) fits.set(entrant, await fitOf(entrant.attention));
        const fit = fits.get(entrant);
        const { session, parameters, balanced } = await openSession(
          backend,
          entrant.attention,
          sizes,
          shape,
          draw,
          fit,
        );
        const answers = new Answers(pass, open.use(session));
        const cost = {
          flops: flopCount(entrant.attention, sizes, parameters, balanced),
          stateBytes: stateBytes({ ...entrant.attention, numFeatures: parameters.features }, sizes),
        };
        watching.push({ entrant, answers, cost });
      });
    }
    const stage = `errors on ${label}${passes > 1 ? `, pass ${p + 1} of ${passes}` : ""}: keys`;
    const progress = (done: number) => options.progress?.(stage, done, keyRows);
    await passKeys({ ...pass, progress }, [
      ...(p === 0 ? [references] : []),
      ...watching.map(({ answers }) => answers),
    ]);
    for (const { entrant, answers, cost } of watching) {
      const error = compareOutputs(answers.outputs, references.truth, references.uniform, heads, queryRows);
      tally.add(entrant, { ...cost, error, bad: answers.session.counts.nonPositive, answered: answers.answered });
    }
  }

  const { truth: exact, uniform } = references;
  const near = entrants.filter(({ attention }) => attention.nearFar);
  for (const [i, entrant] of near.entries()) {
    options.progress?.(`errors on ${label}, ${entrant.features}: settings`, i, near.length);
    await tally.unlessUnable(entrant, async () => {
      const trial = { inputs, sizes, backend, causal, scale: attention.scale, signal };
      const truth = { rows, exact, uniform, secondsPerPair: 0 };
      const { error, counts, seconds } = await repeated(() => tryAttention(entrant.attention, trial, truth));
      const cost = {
        flops: flopCount(entrant.attention, sizes, null),
        stateBytes: stateBytes(entrant.attention, sizes),
      };
      tally.add(entrant, { ...cost, error, bad: counts.nonPositive, answered: queryRows * heads, seconds });
    });
  }
  return {
    erring: tally.all(),
    phi: references.phi(Math.sqrt(scale)),
    uniformBaseline: compareOutputs(uniform, exact, uniform, heads, queryRows).uniformBaseline,
    rowsChecked: rows.length,
  };
}

/** Runs of a short input are repeated for so long, at most so often: the first one warms up compilers and caches. */
const REPEAT_SECONDS = 0.5;
const MOST_REPEATS = 5;

/** The trial with the median of its times. */
async function repeated(run: () => Promise<Trial>): Promise<Trial> {
  const trials = [await run()];
  const seconds = () => trials.map((trial) => trial.seconds).toSorted((a, b) => a - b);
  const spent = () => seconds().reduce((sum, one) => sum + one, 0);
  while (spent() < REPEAT_SECONDS && trials.length < MOST_REPEATS) trials.push(await run());
  return { ...trials[0], seconds: quantile(seconds(), 0.5) };
}

/** Arithmetic and memory of all rows. */
type Cost = Pick<Erring, "flops" | "stateBytes">;

/** One draw's findings; `bad` of `answered` (row, head) pairs have a denominator that is none. */
interface Finding extends Cost {
  readonly error: ErrorSummary;
  readonly bad: number;
  readonly answered: number;
  readonly seconds?: number;
}

/** Collects findings draw by draw, and who cannot be run. */
class Tally {
  readonly #found = new Map<Entrant, Finding[]>();
  readonly #unable = new Set<Entrant>();

  constructor(readonly backend: string, readonly refuse: Refuse) {}

  /** Does the work unless the backend has refused this entrant before, or does so now. */
  async unlessUnable(entrant: Entrant, work: () => Promise<void>): Promise<void> {
    if (this.#unable.has(entrant)) return;
    try {
      await work();
    } catch (error) {
      if (!(error instanceof UnsupportedError)) throw error;
      this.#unable.add(entrant);
      this.refuse({ ...entrant, backend: this.backend }, error);
    }
  }

  add(entrant: Entrant, finding: Finding): void {
    this.#found.set(entrant, [...(this.#found.get(entrant) ?? []), finding]);
  }

  all(): Erring[] {
    return [...this.#found].map(([entrant, findings]) => {
      const { features, numFeatures, projection } = entrant;
      const [{ flops, stateBytes, seconds = null }] = findings;
      const sum = (of: (finding: Finding) => number) => findings.reduce((total, finding) => total + of(finding), 0);
      return {
        ...{ features, numFeatures, projection, backend: this.backend, entrant },
        errors: findings.map(({ error }) => error),
        nonPositive: sum(({ bad }) => bad) / sum(({ answered }) => answered),
        flops,
        stateBytes,
        seconds,
      };
    });
  }
}
