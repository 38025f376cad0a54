/**
 * `--features auto` and `--shrink auto`: settings fitted to the inputs before the run proper.
 *
 * Auto takes the smallest error at no more arithmetic than orthogonal positive features of the asked number, by trials on a slice of
 * the inputs. Causal choices must not look ahead: the kind of far field is chosen by trials on a prefix, whose rows the run then answers
 * exactly, and its size by arithmetic alone.
 */
import { type Attention, decayFor, type NearFarSettings, type Sizes } from "./attention.ts";
import type { Backend } from "./backend.ts";
import { budgetOf, type Candidate, candidatesFor } from "./candidates.ts";
import { AUTO } from "./feature_map.ts";
import type { Inputs } from "./inputs.ts";
import { BLOCK_ROWS } from "./near_far.ts";
import { sliceInputs } from "./row_slice.ts";
import { sizesOf } from "./run.ts";
import { sampleRows } from "./sampled_rows.ts";
import { sliceOf, takesTops } from "./tune.ts";
import { type Trial, type TrialInputs, truthOf, tryAttention } from "./trial.ts";

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
    return attention.features === AUTO ? { ...attention, features: "hyperbolic", shrink: null } : attention;
  }
  if (attention.features !== AUTO) {
    return attention.shrink === "auto" ? await withShrinkage(attention, sizes, options) : attention;
  }
  return attention.causal ? await chooseCausal(sizes, options) : await chooseByTrials(sizes, options);
}

const trialInputs = ({ inputs, backend, attention, signal }: ChooseOptions, sizes: Sizes): TrialInputs => {
  const { causal, scale } = attention;
  return { inputs, sizes, backend, causal, scale, decay: decayFor(attention, sizes), signal };
};

/** λ per head, fitted on rows that the error check does not use. */
async function withShrinkage(attention: Attention, sizes: Sizes, options: ChooseOptions): Promise<Attention> {
  const whole = trialInputs(options, sizes);
  const truth = await truthOf(whole, sampleRows(sizes.queryRows, FITTED, attention.causal, attention.seed + 3));
  const { shrinkage: { lambda } } = await tryAttention({ ...attention, shrink: null }, whole, truth);
  return { ...attention, shrink: lambda };
}

async function candidates(sizes: Sizes, { attention, backend, maps }: ChooseOptions): Promise<Candidate[]> {
  const { numFeatures, causal } = attention;
  const grid = { base: attention, tops: await takesTops(backend, sizes, causal), maps, numFeatures: [numFeatures] };
  return candidatesFor({ ...grid, sizes, budget: budgetOf(numFeatures, sizes) });
}

async function chooseByTrials(sizes: Sizes, options: ChooseOptions): Promise<Attention> {
  const { inputs, attention } = options;
  const sliced = sizes.queryRows === sizes.keyRows && sizes.queryRows > SLICE_ROWS;
  const part = sliced ? sliceInputs(inputs, sliceOf(sizes.queryRows, SLICE_ROWS, false)) : inputs;
  const some = { ...trialInputs(options, sizesOf(part, false)), inputs: part };
  const truth = await truthOf(some, sampleRows(some.sizes.queryRows, JUDGED, false, attention.seed + 3));
  let best: { attention: Attention; error: number } | null = null;
  for (const { attention: candidate } of await candidates(sizes, options)) {
    const { error, shrinkage } = await tryAttention(candidate, some, truth);
    const plain = error.relativeL2.value;
    const helped = shrinkage.error.relativeL2.value;
    const shrinks = !(helped >= SHRINKAGE_GAIN * plain);
    const found = shrinks
      ? { attention: { ...candidate, shrink: shrinkage.lambda }, error: helped }
      : { attention: candidate, error: plain };
    if (!best || found.error < best.error) best = found;
  }
  return best?.attention ?? { ...attention, features: "hyperbolic", shrink: null };
}

/** Shrinkage is taken where it makes the error smaller by this factor. */
const SHRINKAGE_GAIN = 0.95;

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
  const affordable = (await candidates(sizes, options)).filter(({ attention: { nearFar } }) => nearFar);
  const kinds = KINDS.filter(({ far }) => affordable.some(({ attention: { nearFar } }) => nearFar!.far === far));
  let best: { far: string; error: number } | null = null;
  for (const nearFar of kinds) {
    const trial: Trial = await tryAttention(
      { ...attention, features: nearFar.far, nearFar, shrink: null },
      some,
      truth,
    );
    const error = trial.error.relativeL2.value;
    if (!best || error < best.error) best = { far: nearFar.far, error };
  }
  const largest = affordable.filter(({ attention: { nearFar } }) => nearFar!.far === best?.far).at(-1)?.attention;
  if (!largest) return { ...attention, features: "hyperbolic", shrink: null };
  return { ...largest, nearFar: { ...largest.nearFar!, exactRows: prefix } };
}
