/**
 * `--features auto` and `--shrink auto`: settings fitted to the inputs before the run proper.
 *
 * Auto takes the smallest error at no more arithmetic than orthogonal positive features of the asked number, by trials on a slice of
 * the inputs. Causal choices must not look ahead: the kind of far field is chosen by trials on a prefix, whose rows the run then answers
 * exactly, and its size by arithmetic alone. Where even the cheapest candidate costs more than exact attention, that is taken.
 */
import { type Attention, decayFor, flopCount, type NearFarSettings, type Sizes } from "./attention.ts";
import type { Backend } from "./backend.ts";
import { budgetOf, type Candidate, candidatesFor } from "./candidates.ts";
import { AUTO, EXACT } from "./feature_map.ts";
import type { Inputs } from "./inputs.ts";
import { BLOCK_ROWS } from "./near_far.ts";
import { sliceInputs, sliceOf } from "./row_slice.ts";
import { sizesOf } from "./run.ts";
import { sampleRows } from "./sampled_rows.ts";
import { errorOf, settled, takesTops, type TrialInputs, truthOf, tryAttention } from "./trial.ts";

/** Rows of a slice that bidirectional candidates run on, and rows of it that they are judged on. */
const SLICE_ROWS = 4096;
const JUDGED = 192;
/** Rows that `--shrink auto` is fitted on. */
const FITTED = 256;
/** A causal prefix is a sixteenth of the rows, within these. */
const LEAST_PREFIX = 256;
const MOST_PREFIX = 1024;

export interface ChooseOptions {
  readonly inputs: Inputs;
  readonly attention: Attention;
  readonly backend: Backend;
  /** Random feature maps to try. */
  readonly maps: readonly string[];
  readonly signal?: AbortSignal;
}

/** The settings to run: those given, with what was left to choice decided. */
export async function chooseAttention(options: ChooseOptions): Promise<Attention> {
  const { inputs, attention } = options;
  const sizes = sizesOf(inputs, attention.causal);
  if (sizes.queryRows === 0 || sizes.keyRows === 0) {
    return attention.features === AUTO ? fallback({ ...sizes, queryRows: 1 }, options) : attention;
  }
  const chosen = attention.features !== AUTO
    ? attention
    : attention.causal
    ? await chooseCausal(sizes, options)
    : await chooseByTrials(sizes, options);
  return chosen.shrink === "auto" ? await withShrinkage(chosen, sizes, options) : chosen;
}

/** Where no candidate is affordable: exact attention if that is, else the features that were to be outdone. */
function fallback(sizes: Sizes, { attention }: ChooseOptions): Attention {
  const exact = { ...attention, features: EXACT, nearFar: null, shrink: null };
  const perRow = flopCount(exact, sizes, null) / sizes.queryRows;
  if (perRow <= budgetOf(attention.numFeatures, sizes)) return exact;
  return { ...attention, features: "hyperbolic", numFeatures: evenly(attention.numFeatures) };
}

/** Maps of ±w make two features of each projection. */
const evenly = (numFeatures: number): number => Math.max(2, numFeatures - numFeatures % 2);

const trialInputs = ({ inputs, backend, attention, signal }: ChooseOptions, sizes: Sizes): TrialInputs => {
  const { causal, scale } = attention;
  return { inputs, sizes, backend, causal, scale, decay: decayFor(attention, sizes), signal };
};

/** λ per head, fitted on a sample of rows of its own; causal runs, too, look at all of the input for that. */
async function withShrinkage(attention: Attention, sizes: Sizes, options: ChooseOptions): Promise<Attention> {
  const whole = trialInputs(options, sizes);
  const truth = await truthOf(whole, sampleRows(sizes.queryRows, FITTED, attention.causal, attention.seed + 3));
  const { shrinkage: { lambda } } = await tryAttention({ ...attention, shrink: null }, whole, truth);
  return { ...attention, shrink: lambda };
}

async function candidates(
  sizes: Sizes,
  { attention, backend, maps }: ChooseOptions,
  exactRows?: number,
): Promise<Candidate[]> {
  const { numFeatures, causal } = attention;
  const tops = takesTops(backend, sizes, causal);
  const grid = { base: attention, tops, maps, numFeatures: [evenly(numFeatures)], exactRows };
  return candidatesFor({ ...grid, sizes, budget: budgetOf(numFeatures, sizes) });
}

async function chooseByTrials(sizes: Sizes, options: ChooseOptions): Promise<Attention> {
  const { inputs, attention } = options;
  const sliced = sizes.queryRows === sizes.keyRows && sizes.queryRows > SLICE_ROWS;
  const part = sliced ? sliceInputs(inputs, sliceOf(sizes.queryRows, SLICE_ROWS, false)) : inputs;
  const some = { ...trialInputs(options, sizesOf(part, false)), inputs: part };
  const truth = await truthOf(some, sampleRows(some.sizes.queryRows, JUDGED, false, attention.seed + 3));
  let best: { attention: Attention; error: number } | null = null;
  // A given λ is kept, and candidates are judged with it.
  const given = attention.shrink === "auto" ? null : attention.shrink ?? null;
  const budget = budgetOf(attention.numFeatures, sizes);
  for (const { attention: candidate, flopsPerRow } of await candidates(sizes, options)) {
    const trial = await tryAttention({ ...candidate, shrink: given }, some, truth);
    // Whole clusters hold more keys than equal ones would: what was counted says how many more.
    const counted = trial.flopsPerRow;
    const expected = candidate.nearFar ? flopCount(candidate, some.sizes, null) / some.sizes.queryRows : counted;
    if (flopsPerRow * counted / expected > budget) continue;
    const found = given === null ? settled(trial) : trial;
    const error = errorOf(found);
    if (!best || error < best.error) best = { attention: found.attention, error };
  }
  return best?.attention ?? fallback(sizes, options);
}

/** Small versions of each kind of far field, for a prefix. */
const KINDS: readonly NearFarSettings[] = [
  { window: 16, heavy: 8, far: "taylor1", clusters: 0, top: 0 },
  { window: 16, heavy: 8, far: "clusters", clusters: 16, top: 0 },
  { window: 16, heavy: 8, far: "taylor2", clusters: 0, top: 0 },
];

async function chooseCausal(sizes: Sizes, options: ChooseOptions): Promise<Attention> {
  const { inputs, attention } = options;
  const share = Math.floor(sizes.keyRows / 16 / BLOCK_ROWS) * BLOCK_ROWS;
  const prefix = Math.min(sizes.keyRows, Math.max(LEAST_PREFIX, Math.min(MOST_PREFIX, share)));
  const part = sliceInputs(inputs, { start: 0, end: prefix });
  const some = { ...trialInputs(options, sizesOf(part, true)), inputs: part };
  const truth = await truthOf(some, sampleRows(prefix, JUDGED, true, attention.seed + 3));
  const affordable = (await candidates(sizes, options, prefix)).filter(({ attention: { nearFar } }) => nearFar);
  const kinds = KINDS.filter(({ far }) => affordable.some(({ attention: { nearFar } }) => nearFar!.far === far));
  let best: { far: string; error: number } | null = null;
  for (const nearFar of kinds) {
    const settings = { ...attention, features: nearFar.far, nearFar, shrink: null };
    const error = errorOf(await tryAttention(settings, some, truth));
    if (!best || error < best.error) best = { far: nearFar.far, error };
  }
  const largest = affordable.filter(({ attention: { nearFar } }) => nearFar!.far === best?.far).at(-1)?.attention;
  return largest ? { ...largest, shrink: attention.shrink } : fallback(sizes, options);
}
