/** Attention in one call, over tensors in memory and in files alike. */
import { type Attention, decayFor, expectedWork } from "../attention.ts";
import type { Backend } from "../backend.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { peakResident } from "../bytes.ts";
import { TRIED_MAPS } from "../candidates.ts";
import { UsageError } from "../errors.ts";
import { text } from "../exporters/text.ts";
import { AUTO, EXACT } from "../feature_map.ts";
import type { OutputDType } from "../formats/decode.ts";
import { openSink } from "../formats/sink.ts";
import { Inputs } from "../inputs.ts";
import type { Refusal, Report } from "../report.ts";
import { attend as runAttention, sizesOf } from "../run.ts";
import type { AttendOptions } from "../run_base.ts";
import { checkAccepted } from "../run_near_far.ts";
import type { TensorSink, Tile } from "../tensor.ts";
import { lambdaOf } from "../trial.ts";
import { attentionOf, type AttentionSettings } from "./settings.ts";
import { asTensor, Collector, numbersOf, outputShape, type Rows, Tensor, tensor } from "./tensor.ts";

/** Settings of one call of `attend`. */
export interface AttendSettings extends AttentionSettings {
  /** Splits the columns of rows that have no axis of heads. */
  readonly heads?: number;
  /** Heads of keys and values, where they are fewer than those of queries. */
  readonly kvHeads?: number;
  /** One number ω ≥ 0 per key row: 0 hides the key, in the denominator too. */
  readonly mask?: ArrayLike<number> | Tensor;
  /** An open backend, or what `openBackend` takes; "auto" by default. */
  readonly backend?: Backend | string;
  /** Threads of a backend that is opened for this call; one per core by default. */
  readonly threads?: number;
  /** Rows to compare with exact softmax; 256 by default, 0 for none. */
  readonly check?: number;
  /** Independent projections whose error is measured as well. */
  readonly redraws?: number;
  /** Also look at every head: what its features are worth, and what to do about it. */
  readonly health?: boolean;
  /** Rows per tile; never changes the result beyond rounding. */
  readonly tileRows?: number;
  /** Called after every tile with rows done of `total`, over all passes. */
  readonly progress?: (stage: string, done: number, total: number) => void;
  /** Stops the work between tiles. */
  readonly signal?: AbortSignal;
}

/** Queries, keys and values by name: what `loadAll` returns of a file that has them. */
export interface QueriesKeysValues {
  /** Queries. */
  readonly q: Rows;
  /** Keys. */
  readonly k: Rows;
  /** Values, one for every key. */
  readonly v: Rows;
}

/** What `attend` returns. */
export interface AttendResult {
  /** Shaped as the queries, with the width of the values; float64 from the backend `scalar`, else float32. */
  readonly output: Tensor;
  /** Throughput, memory, and the error against exact softmax: what `performer attend --json` prints. */
  readonly report: Report;
}

/** Where outputs go: a file by its suffix, a sink, or a function that is called with every tile of rows, in order. */
export type Target = string | TensorSink | ((tile: Tile) => void | Promise<void>);

/**
 * Opens a backend: "auto", a name, or names in the order they are tried ("webgpu,wasm"). It says what runs in `name` and `device`; close it
 * with `await using`. Throws UnsupportedError where none of them can be had.
 */
export async function openBackend(
  list = "auto",
  options: { readonly threads?: number; readonly profile?: boolean } = {},
): Promise<Backend> {
  return (await openFirst(parseBackendList(list), options)).backend;
}

/** Self-attention over rows, or attention over `{ q, k, v }`: the output in memory, and the report with the error against exact softmax. */
export async function attend(x: Rows | QueriesKeysValues, settings?: AttendSettings): Promise<AttendResult>;
/** Attention of queries over keys and values. Throws UsageError for settings and shapes that do not fit each other. */
export async function attend(q: Rows, k: Rows, v: Rows, settings?: AttendSettings): Promise<AttendResult>;
/** Either of the two. */
export async function attend(...call: AttendCall): Promise<AttendResult> {
  const { roles, settings } = understood(call);
  return await withInputs(roles, settings, async (run) => {
    const { shape, layout, heads } = run;
    const collector = new Collector(shape, { heads, layout, precision: run.backend.limits.precision });
    const sink = Object.assign(collector, { path: "memory", dtype: run.backend.limits.precision });
    const report = await runAttention({ ...run.options, sink });
    return { output: collector.tensor(), report };
  });
}

/** `attend` for outputs that do not have to be in memory: they go to `target` tile by tile. */
export async function attendTo(
  target: Target,
  x: Rows | QueriesKeysValues,
  settings?: AttendSettings & { readonly outputDType?: OutputDType },
): Promise<Report> {
  const { roles, settings: own } = understood([x, settings]);
  return await withInputs(roles, own, async (run) => {
    const { shape, layout, heads, width } = run;
    const dtype = settings?.outputDType ?? (run.inputs.q.info.dtype === "f64" ? "f64" : "f32");
    const named = { path: typeof target === "string" ? target : "sink", dtype, shape };
    await using sink = typeof target === "string"
      ? await openSink(target, { dtype, shape, heads, width, layout })
      : typeof target === "function"
      ? calling(target)
      : borrowed(target);
    return await runAttention({ ...run.options, sink: Object.assign(sink, named) });
  });
}

/** Exact softmax attention: the output of `attend` with `features: "softmax"`. */
export async function softmaxAttention(
  ...call: AttendCall
): Promise<Tensor> {
  const { roles, settings } = understood(call);
  return (await attend(roles, { ...settings, features: EXACT, check: 0 })).output;
}

/** ‖a − b‖ / ‖b‖ over all numbers: the error of `a` where `b` is right. Throws UsageError when there are not as many of both. */
export function relativeError(a: Rows | ArrayLike<number>, b: Rows | ArrayLike<number>): number {
  const [x, y] = [numbersOf(a), numbersOf(b)];
  if (x.length !== y.length) {
    throw new UsageError(`Cannot compare ${x.length} numbers with ${y.length}: expected as many of both`);
  }
  let [error, norm] = [0, 0];
  for (let i = 0; i < y.length; i++) {
    error += (x[i] - y[i]) ** 2;
    norm += y[i] ** 2;
  }
  return Math.sqrt(error / norm);
}

/** A report in words, as `performer attend` prints it. @param options.verbose everything that `-v` shows */
export function reportText(report: Report, options: { readonly verbose?: boolean } = {}): string {
  return text(report, { color: false, verbose: options.verbose ?? false });
}

/** Rows for self-attention or `{ q, k, v }`, or all three apart; then settings. */
export type AttendCall =
  | readonly [x: Rows | QueriesKeysValues, settings?: AttendSettings]
  | readonly [q: Rows, k: Rows, v: Rows, settings?: AttendSettings];

interface Roles {
  readonly q: Rows;
  readonly k: Rows;
  readonly v: Rows;
}

const isRows = (value: unknown): value is Rows =>
  Array.isArray(value) || ArrayBuffer.isView(value) ||
  (typeof value === "object" && value !== null && "tiles" in value);

/** Both ways to call `attend`. */
function understood(call: AttendCall): { roles: Roles; settings: AttendSettings } {
  const [first, second, third, fourth] = call as readonly [Rows, Rows?, Rows?, AttendSettings?];
  if (!isRows(second)) {
    const settings = (second as AttendSettings | undefined) ?? {};
    if (isRows(first)) return { roles: { q: first, k: first, v: first }, settings };
    const { q, k, v } = first as QueriesKeysValues;
    if (isRows(q) && isRows(k) && isRows(v)) return { roles: { q, k, v }, settings };
    throw new UsageError("Cannot attend to this: expected rows, or an object with q, k and v");
  }
  if (!isRows(third)) throw new UsageError("Cannot attend with queries and keys alone: give values as well");
  return { roles: { q: first, k: second, v: third }, settings: fourth ?? {} };
}

interface Prepared {
  readonly inputs: Inputs;
  readonly backend: Backend;
  /** Of the output. */
  readonly shape: readonly number[];
  readonly layout: "hld" | "lhd";
  readonly heads: number;
  readonly width: number;
  readonly options: Omit<AttendOptions, "sink">;
}

async function withInputs<T>(
  roles: Roles,
  settings: AttendSettings,
  run: (prepared: Prepared) => Promise<T>,
): Promise<T> {
  const q = await headed(roles.q, "the queries", settings.heads);
  const kvHeads = settings.kvHeads ?? settings.heads;
  const as = async (rows: Rows, what: string, others: readonly (readonly [Rows, Tensor, number?])[]) => {
    // Rows that play several roles are read once.
    const same = others.find(([other, , heads]) => other === rows && heads === kvHeads);
    return same ? same[1] : await headed(rows, what, kvHeads);
  };
  const k = await as(roles.k, "the keys", [[roles.q, q, settings.heads]]);
  const v = await as(roles.v, "the values", [[roles.q, q, settings.heads], [roles.k, k, kvHeads]]);
  const inputs = new Inputs(q, k, v, settings.mask === undefined ? null : maskOf(settings.mask, k));
  const attention = await attentionOf(settings);
  const sizes = sizesOf(inputs, attention.causal);
  decayFor(attention, sizes);
  const { backend, refused, own } = await opened(settings, attention, inputs);
  await using _own = own;
  const chosen = await chosenFor(attention, inputs, backend, settings.signal);
  const lambda = lambdaOf(chosen, sizes.heads);
  const out = { rows: sizes.queryRows, heads: sizes.heads, width: sizes.valueDim };
  return await run({
    inputs,
    backend,
    shape: outputShape(q.info.shape, out, q.layout),
    layout: q.layout,
    heads: sizes.heads,
    width: sizes.valueDim,
    options: {
      inputs,
      attention: chosen,
      backend,
      refused,
      tileRows: settings.tileRows,
      check: settings.check ?? 256,
      redraws: settings.redraws ?? 0,
      health: settings.health ?? false,
      lambda,
      shrinkFitted: attention.shrink === "auto" && lambda !== null,
      chosen: attention.features === AUTO,
      encoding: null,
      peakBytes: () => peakResident() ?? 0,
      progress: settings.progress,
      signal: settings.signal,
    },
  });
}

/** Rows with their columns split, where that is asked for and they have no heads of their own. */
async function headed(rows: Rows, what: string, heads: number | undefined): Promise<Tensor> {
  const whole = asTensor(rows, what);
  return heads === undefined || heads === whole.info.heads ? whole : await whole.view({ heads });
}

function maskOf(mask: ArrayLike<number> | Tensor, keys: Tensor): Tensor {
  const weights = mask instanceof Tensor ? mask : tensor(mask, [mask.length]);
  const { rows, heads, width } = weights.info;
  if (heads * width === 1 && rows === keys.info.rows) return weights;
  throw new UsageError(
    `Cannot use a mask of ${rows} × ${heads * width} numbers: expected one for each of ${keys.info.rows} key rows`,
  );
}

/** The backend of the settings; `own` is to be closed when the call is done. */
async function opened(
  { backend, threads, tileRows }: AttendSettings,
  attention: Attention,
  inputs: Inputs,
): Promise<{ backend: Backend; refused: readonly Refusal[]; own: Backend | null }> {
  if (typeof backend === "object") return { backend, refused: [], own: null };
  const sizes = sizesOf(inputs, attention.causal);
  const found = await openFirst(parseBackendList(backend ?? "auto"), {
    threads,
    work: expectedWork(attention, sizes),
    nearFar: Boolean(attention.nearFar) || attention.features === AUTO,
    accept: (candidate) => checkAccepted(candidate, attention, sizes, tileRows),
    hybrid: attention.features === "hybrid",
  });
  return { ...found, own: found.backend };
}

async function chosenFor(
  attention: Attention,
  inputs: Inputs,
  backend: Backend,
  signal: AbortSignal | undefined,
): Promise<Attention> {
  if (attention.features !== AUTO && attention.shrink !== "auto") return attention;
  const { chooseAttention } = await import("../choose.ts");
  return await chooseAttention({ inputs, attention, backend, maps: TRIED_MAPS, signal });
}

const calling = (write: (tile: Tile) => void | Promise<void>): TensorSink => ({
  write: async (tile) => await write(tile),
  async finish() {},
  async [Symbol.asyncDispose]() {},
});

/** A caller's sink, which the caller disposes. */
const borrowed = (sink: TensorSink): TensorSink => ({
  write: (tile) => sink.write(tile),
  finish: () => sink.finish(),
  async [Symbol.asyncDispose]() {},
});
