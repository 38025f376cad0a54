/**
 * Attentions on trial: each runs for real over the same inputs, and is judged on the same sampled rows, whose exact answer is computed
 * once. What `tune`, `--features auto` and `--shrink auto` decide by.
 */
import { type Attention, countedFlops, flopCount, parametersFor, type Sizes } from "./attention.ts";
import type { Backend, SessionCounts } from "./backend.ts";
import { UnsupportedError } from "./errors.ts";
import type { Inputs, KeyTiles } from "./inputs.ts";
import { BLOCK_ROWS } from "./near_far.ts";
import { compareOutputs, type ErrorSummary } from "./metrics.ts";
import { tileRowsFor } from "./plan.ts";
import { approximateRun } from "./run.ts";
import { passKeys, readSampled, References, type Watcher } from "./sampled_rows.ts";
import { fitShrinkage, shrunk } from "./shrink.ts";
import { pickRows, type Tile } from "./tensor.ts";
import { TileStore } from "./tile_store.ts";

export interface TrialInputs {
  readonly inputs: Inputs;
  readonly sizes: Sizes;
  readonly backend: Backend;
  readonly causal: boolean;
  readonly scale: number | null;
  /** λ per key head (decay.ts); absent or null: none. */
  readonly decay?: Float64Array | null;
  /** Rows that intervals of errors are about, of which those judged are a sample; absent: those of the inputs. */
  readonly population?: number;
  readonly signal?: AbortSignal;
}

/** The exact answer of sampled rows, and the mean of the values they see. */
export interface Truth {
  readonly rows: Float64Array;
  readonly exact: Tile;
  readonly uniform: Tile;
  /** Seconds of the exact session per (query row, key row). */
  readonly secondsPerPair: number;
}

/** Computes the exact answer of these rows (ascending) in one pass over queries and one over keys. */
export async function truthOf(trial: TrialInputs, rows: Float64Array): Promise<Truth> {
  const { inputs, sizes, backend, causal, scale, decay, signal } = trial;
  const { heads, kvHeads, headDim, valueDim } = sizes;
  const widest = Math.max(heads, kvHeads) * Math.max(headDim, valueDim);
  const shape = { heads, kvHeads, headDim, valueDim, causal, decay, tileRows: tileRowsFor(backend.limits, widest) };
  using memory = new TileStore(backend, shape.tileRows, 1);
  const what = { backend, shape, inputs, memory, rows, signal };
  const pass = { ...what, queries: await readSampled(what) };
  await using references = await References.open(pass, scale ?? headDim ** -0.5);
  const timed = new TimedWatcher(references);
  await passKeys(pass, [timed]);
  const { truth: exact, uniform } = references;
  return { rows, exact, uniform, secondsPerPair: timed.seconds / Math.max(1, rows.length * sizes.keyRows) };
}

/** Adds up the time that a watcher takes. */
class TimedWatcher implements Watcher {
  seconds = 0;

  constructor(readonly watcher: Watcher) {}

  get asksInStep(): boolean {
    return this.watcher.asksInStep;
  }

  absorb(tiles: KeyTiles): Promise<void> {
    return this.#time(() => this.watcher.absorb(tiles));
  }

  finish(): Promise<void> {
    return this.#time(() => this.watcher.finish());
  }

  async #time(work: () => Promise<void>): Promise<void> {
    const before = performance.now();
    await work();
    this.seconds += (performance.now() - before) / 1000;
  }
}

/** Whether the backend takes clusters' keys exactly. */
export function takesTops(backend: Backend, sizes: Sizes, causal: boolean): boolean {
  const { heads, kvHeads, headDim, valueDim } = sizes;
  const shape = { heads, kvHeads, headDim, valueDim, causal, tileRows: BLOCK_ROWS };
  const common = { scale: 1, window: 0, heavy: 0, far: "clusters", exactRows: 0 } as const;
  try {
    backend.checkNearFar?.({ ...shape, ...common, clusters: { count: 1, top: 1 } });
    return true;
  } catch (error) {
    if (error instanceof UnsupportedError) return false;
    throw error;
  }
}

/** What a trial found. */
export interface Trial {
  readonly attention: Attention;
  readonly error: ErrorSummary;
  /** Its outputs of the truth's rows. */
  readonly approx: Tile;
  /** Rows that were treated specially, of all rows. */
  readonly counts: SessionCounts;
  /** λ per head of the best shrinkage, and the error with it, fitted on even sampled rows and measured on odd ones. */
  readonly shrinkage: { readonly lambda: readonly number[]; readonly error: ErrorSummary };
  /** Seconds of computation for all rows. */
  readonly seconds: number;
  /** Floating-point operations per query row, over all heads. */
  readonly flopsPerRow: number;
  readonly rows: number;
}

/** Runs an attention over all rows and compares it on the truth's. */
export async function tryAttention(
  attention: Attention,
  { inputs, sizes, backend, population = sizes.queryRows, signal }: TrialInputs,
  truth: Truth,
): Promise<Trial> {
  const options = {
    inputs,
    attention,
    backend,
    refused: [],
    check: 0,
    sampled: truth.rows,
    lambda: lambdaOf(attention, sizes.heads),
    redraws: 0,
    sink: null,
    encoding: null,
    peakBytes: () => 0,
    signal,
  };
  using run = approximateRun(options, sizes);
  const counts = await run.attend();
  const { heads, queryRows } = sizes;
  const { exact, uniform } = truth;
  const approx = run.approx;
  const compare = (from: Tile, pick: (row: number) => boolean) => {
    const places = Array.from({ length: exact.rows }, (_, i) => i).filter(pick);
    return errorOn(places, from, truth, heads, population);
  };
  const lambda = fitShrinkage(approx, exact, uniform, heads, (row) => row % 2 === 0);
  return {
    attention,
    error: compare(approx, () => true),
    approx,
    counts,
    shrinkage: {
      lambda: [...fitShrinkage(approx, exact, uniform, heads)],
      error: compare(shrunk(approx, uniform, lambda), (row) => row % 2 === 1),
    },
    seconds: run.watch.seconds().compute,
    flopsPerRow:
      (attention.nearFar
        ? countedFlops(attention, sizes, counts.topPairs)
        : flopCount(attention, sizes, parametersFor(attention, sizes))) / Math.max(1, queryRows),
    rows: queryRows,
  };
}

/** Error of outputs of the truth's rows, on those in some places of it. */
export function errorOn(
  places: ArrayLike<number>,
  outputs: Tile,
  { exact, uniform }: Truth,
  heads: number,
  population: number,
): ErrorSummary {
  const [part, of, mean] = [outputs, exact, uniform].map((tile) => pickRows(tile, places));
  return compareOutputs(part, of, mean, heads, population);
}

/** Two truths as one, of all their rows. */
export function joinedTruths(a: Truth, b: Truth): Truth {
  const places = [...a.rows, ...b.rows].map((row, at) => ({ row, at })).sort((x, y) => x.row - y.row);
  const join = (first: Tile, second: Tile): Tile => {
    const data = new Float64Array(first.data.length + second.data.length);
    data.set(first.data);
    data.set(second.data, first.data.length);
    return pickRows({ ...first, rows: first.rows + second.rows, data }, places.map(({ at }) => at));
  };
  return {
    rows: Float64Array.from(places, ({ row }) => row),
    exact: join(a.exact, b.exact),
    uniform: join(a.uniform, b.uniform),
    secondsPerPair: Math.min(a.secondsPerPair, b.secondsPerPair),
  };
}

/** Relative L2; Infinity where outputs are not finite. */
export const errorOf = ({ error: { relativeL2: { value } } }: Pick<Trial, "error">): number => {
  return Number.isFinite(value) ? value : Infinity;
};

/** Shrinkage is taken where it makes the error smaller by this factor. */
const SHRINKAGE_GAIN = 0.95;

/** The better of a trial's attention as it ran and with its shrinkage. */
export function settled({ attention, error, shrinkage }: Trial): Pick<Trial, "attention" | "error"> {
  const plain = error.relativeL2.value, helped = shrinkage.error.relativeL2.value;
  const helps = helped < SHRINKAGE_GAIN * plain || (!Number.isFinite(plain) && Number.isFinite(helped));
  return helps
    ? { attention: { ...attention, shrink: shrinkage.lambda }, error: shrinkage.error }
    : { attention, error };
}

/** λ per head where it is given; null where there is none, or it is still to be fitted. */
export function lambdaOf({ shrink }: Attention, heads: number): readonly number[] | null {
  if (shrink === null || shrink === undefined || shrink === "auto") return null;
  return typeof shrink === "number" ? Array.from({ length: heads }, () => shrink) : shrink;
}
