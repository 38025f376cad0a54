/**
 * How much memory a run takes, counted before it begins (`attend --max-memory`): the rows of a tile and the threads are chosen so that the
 * peak of the process stays below a ceiling.
 *
 * What is counted array by array is what grows with the sizes of the attention: tiles and outputs in flight, states, projections, sampled
 * rows of the error check. What the runtime and its garbage take is an allowance found by measurement (docs/configuration.md).
 */
import { type Attention, isExact, isNone, type Sizes } from "./attention.ts";
import type { Backend } from "./backend.ts";
import { UsageError } from "./errors.ts";
import { coordinatesOf, featureMap, featuresOf, projectionsFor } from "./feature_map.ts";
import { planFit } from "./fit.ts";
import type { Inputs } from "./inputs.ts";
import { shapeOf } from "./run_base.ts";
import { type DType, DTYPE_BYTES } from "./tensor.ts";

const MIB = 2 ** 20;

/** What a runtime takes beside the arrays that are counted, in bytes. */
interface Runtime {
  /** Resident when inputs are open, at most; more where more was measured. */
  readonly base: number;
  /** Compiled code, garbage not yet collected, the report. */
  readonly allowance: number;
  /** Of a thread that computes or writes. */
  readonly thread: number;
}

/** Found by scripts/max_memory.ts on Linux x64: the largest difference of peak and count, and some room. */
const RUNTIMES: Readonly<Record<string, Runtime>> = {
  Bun: { base: 64 * MIB, allowance: 48 * MIB, thread: 16 * MIB },
  Deno: { base: 84 * MIB, allowance: 56 * MIB, thread: 20 * MIB },
};

/** What a run is asked for, as far as memory depends on it. */
export interface MemoryWish {
  readonly attention: Attention;
  readonly sizes: Sizes;
  readonly inputs: Inputs;
  /** Rows of the error check, and draws that it is repeated over. */
  readonly check: number;
  readonly redraws: number;
  readonly health: boolean;
  /** States that are kept, gone on from or written to checkpoints. */
  readonly states: number;
  /** Type of the output; null: none is written. */
  readonly output: DType | null;
  /** The output goes into a pipe, which a thread writes. */
  readonly piped: boolean;
  /** Standard input or residues are kept, in memory as far as bytes.ts and fasta.ts do. */
  readonly kept: boolean;
}

/** What was planned, or would have to be: bytes of the whole process. */
export interface MemoryPlan {
  readonly tileRows: number;
  readonly threads: number;
  readonly bytes: number;
}

/** What a backend is, as far as memory depends on it. */
type Device = Pick<Backend, "name" | "limits" | "threads">;

/** The smallest tile that is planned; a smaller `--tile` is kept. Narrow rows take more: many small tiles leave more garbage than they save. */
const LEAST_TILE = 64;
const LEAST_NUMBERS = 2 ** 14;
/** Tiles are not made smaller than this while there are threads to leave out. */
const GOOD_TILE = 512;
/** Bytes that are kept in memory before the rest goes to a file, and tables of an encoder. */
const KEPT = 24 * MIB;
/** Threads of a pipe, and its ring (pipe_ring.ts). */
const RING = 4 * MIB;
/** Rows that are looked at together for fitting (fit.ts). */
const FITTED_ROWS = 512;
/** Buffers of readers and of files that are written. */
const BUFFERS = 4 * MIB;

/** Backends whose memory is all our own: drivers of the others take what they like. */
export const PLANNED_BACKENDS: readonly string[] = ["wasm", "scalar"];

/** Throws UsageError for runs whose memory is not counted. */
export function requireCountable(attention: Attention, layered: boolean): void {
  const what = layered
    ? "--weights"
    : attention.features === "auto"
    ? "--features auto"
    : attention.shrink === "auto"
    ? "--shrink auto"
    : attention.nearFar
    ? "near keys and far fields"
    : attention.compat !== "exact"
    ? `--compat ${attention.compat}`
    : null;
  if (what) {
    throw new UsageError(`Cannot use --max-memory with ${what}, whose memory is not counted: leave one of them out`);
  }
}

/**
 * The fastest setting below a ceiling: all threads and the largest tiles that fit, then fewer threads, then small tiles. When nothing fits, the
 * least that would.
 * @param resident the most that this process has had so far, in bytes.
 * @param wish `--tile`, which tiles never exceed.
 */
export function planMemory(
  ceiling: number,
  resident: number,
  runtime: string,
  what: MemoryWish,
  device: Device,
  wish?: number,
): { readonly plan: MemoryPlan | null; readonly least: MemoryPlan } {
  const at = (rows: number, threads: number): MemoryPlan => {
    const { tileRows } = shapeOf(what.attention, what.sizes, device.limits, rows);
    return { tileRows, threads, bytes: totalBytes(resident, runtime, what, device, tileRows, threads) };
  };
  const largest = shapeOf(what.attention, what.sizes, device.limits, wish).tileRows;
  const { queryRows, keyRows, heads, headDim, valueDim } = what.sizes;
  const smallest = Math.max(LEAST_TILE, Math.ceil(LEAST_NUMBERS / (heads * Math.max(headDim, valueDim))));
  const tiles = tileChoices(Math.min(largest, Math.max(1, queryRows, keyRows)), smallest);
  const good = tiles.filter((rows) => rows >= GOOD_TILE);
  const small = tiles.filter((rows) => rows < GOOD_TILE);
  const choices: MemoryPlan[] = [];
  const most = device.threads ?? 1;
  for (let threads = most; threads >= 1; threads--) choices.push(...good.map((rows) => at(rows, threads)));
  for (let threads = most; threads >= 1; threads--) choices.push(...small.map((rows) => at(rows, threads)));
  const plan = choices.find(({ bytes }) => bytes <= ceiling) ?? null;
  return { plan, least: choices.reduce((least, choice) => choice.bytes < least.bytes ? choice : least) };
}

/** From the largest down by halves. */
function tileChoices(largest: number, smallest: number): number[] {
  const choices = [largest];
  while (choices.at(-1)! > smallest) choices.push(Math.max(smallest, Math.floor(choices.at(-1)! / 2)));
  return choices;
}

/** The peak of the process that is counted on: bytes. */
function totalBytes(
  resident: number,
  runtime: string,
  what: MemoryWish,
  device: Device,
  tileRows: number,
  threads: number,
): number {
  const { base, allowance, thread } = RUNTIMES[runtime.split(" ")[0]] ?? RUNTIMES.Deno;
  const workers = (device.name === "wasm" ? threads : 0) + (what.piped ? 1 : 0);
  return Math.max(base, resident) + allowance + thread * workers + arrayBytes(what, device, tileRows, threads);
}

/** Bytes of the arrays that a run has at once. */
export function arrayBytes(what: MemoryWish, device: Device, tileRows: number, threads: number): number {
  const { attention, sizes, inputs } = what;
  const { limits } = device;
  const { heads, valueDim, queryRows } = sizes;
  const number = limits.precision === "f64" ? 8 : 4;
  const depth = limits.inFlight + 1;
  const rows = Math.min(tileRows, Math.max(1, queryRows, sizes.keyRows));
  const sources = [...new Set([inputs.q, inputs.k, inputs.v, ...(inputs.weights ? [inputs.weights] : [])])];
  const tile = sources.reduce((sum, { info }) => sum + rows * info.heads * info.width * number, 0);
  const outputs = rows * heads * valueDim;
  const written = what.output === null ? 0 : 2 * outputs * DTYPE_BYTES[what.output];
  const around = depth * tile + written + BUFFERS + (what.piped ? RING : 0) + (what.kept ? KEPT : 0);
  if (isNone(attention)) return around;
  if (isExact(attention)) return around + exactBytes(sizes, rows, rows, device) + 8 * outputs;
  return around + depth * outputs * number + linearBytes(what, device, rows, threads) +
    fittingBytes(what, number) + checkBytes(what, device, rows, threads);
}

/** A session of linear attention: states on the host and in the backend's memory, W, and what a call in flight works on. */
function linearBytes({ attention, sizes, states }: MemoryWish, device: Device, rows: number, threads: number): number {
  const { heads, kvHeads, headDim, valueDim } = sizes;
  const map = featureMap(attention.features);
  const { projections, features } = lengthsOf(attention, headDim);
  const state = 8 * kvHeads * features * (valueDim + 2);
  const width = coordinatesOf(map, headDim);
  const matrices = attention.given?.matrices ?? 1;
  const weights = map.projection === "none" ? 0 : matrices * projections * width;
  const { causal } = attention;
  if (device.name === "scalar") return state * ((causal ? 3 : 1) + 2 * states) + 8 * 3 * weights;
  // In shared memory states are half as large, but for rows of S that are rounded up to 16 numbers and features to 16 projections.
  const unit = 4 * kvHeads * (Math.ceil(projections / 16) * 16) * map.featuresPerProjection *
    (Math.ceil(valueDim / 16) * 16 + 2);
  const pieces = kvHeads % threads === 0 ? 1 : threads;
  const slots = causal ? 2 : 3;
  const units = slots * pieces * unit + (causal ? 1 + 2 * slots : 2) * unit;
  const moved = planFit(attention)?.centred || map.fitted || width !== headDim;
  const transformed = moved ? (device.limits.inFlight + 1) * rows * (heads + kvHeads) * width * 4 : 0;
  const parts = causal && pieces > 1 ? slots * heads * pieces * (rows + 64) * (valueDim + 18) * 4 : 0;
  const scratch = threads * 4 * (64 * (headDim + valueDim + 128) + 128 * features + 32 * (valueDim + 16));
  const denominators = 2 * slots * rows * heads * 4;
  return units + state * (4 + pieces + 2 * states) + 8 * 3 * weights + transformed + parts + scratch + denominators;
}

/** Lengths of ω and φ. */
function lengthsOf({ given, features, numFeatures }: Attention, headDim: number) {
  const map = featureMap(features);
  const projections = given
    ? given.data.length / given.matrices / given.headDim
    : projectionsFor(map, numFeatures, headDim);
  return { projections, features: featuresOf(map, projections) };
}

/** Rows that maps are fitted to, and their moments. */
function fittingBytes({ attention, sizes: { heads, kvHeads, headDim, valueDim } }: MemoryWish, number: number): number {
  const plan = planFit(attention);
  if (!plan || plan.source.kind === "fixed") return 0;
  const moments = 8 * (heads + kvHeads) * headDim * (headDim + 2);
  return 2 * moments + 2 * FITTED_ROWS * ((heads + kvHeads) * headDim + kvHeads * valueDim) * number;
}

/** Queries that are held while keys stream by, and what exact softmax has of them so far. */
function exactBytes({ heads, headDim, valueDim }: Sizes, held: number, rows: number, device: Device): number {
  const cells = Math.ceil(held / 64) * 64 * heads;
  const sums = 8 * cells * (2 + valueDim);
  if (device.name === "scalar") return 8 * cells * headDim + sums + 8 * cells * valueDim;
  const line = Math.ceil(valueDim / 16) * 16;
  const inDevice = 4 * cells * (2 * headDim + 2 + line) + 3 * 4 * (cells / heads + rows);
  // What a device summed is read out to be added on the host.
  return inDevice + sums + 2 * 4 * cells * (2 + valueDim) + 8 * cells * valueDim;
}

/** The error check: sampled queries, their outputs, exact softmax of them, the mean of V, and sessions of other draws. */
function checkBytes(what: MemoryWish, device: Device, rows: number, threads: number): number {
  const { sizes, redraws, health } = what;
  const { heads, headDim, valueDim, queryRows } = sizes;
  const checked = Math.min(what.check, queryRows);
  if (checked === 0) return 0;
  const outputs = 8 * checked * heads * valueDim;
  const kept = 8 * checked * heads * headDim + 3 * outputs + 8 * checked * heads * 12;
  const draw = linearBytes({ ...what, states: 0 }, device, rows, threads) + outputs + 4 * rows * heads * valueDim;
  const sessions = redraws + (health ? 1 : 0);
  return kept + exactBytes(sizes, checked, rows, device) + sessions * draw;
}

/** "96MiB", as `--max-memory` takes it: rounded up, so that what is said to be enough is. */
export const mebibytes = (bytes: number): string => `${Math.ceil(bytes / MIB)}MiB`;
