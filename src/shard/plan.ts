/**
 * The contract of one attention on many machines: which rows of which files belong to which shard, and everything that must be the same for
 * all of them. Made once (`performer shard plan`), read by every task; a task adds its number and nothing else.
 *
 * Ranges are bounds in the plan, never computed from how many tasks a scheduler says there are: re-running one task of an array makes that
 * number 1. Numbers that are fitted to data are part of the plan, so that all shards speak of the same features.
 */
import { createHash } from "node:crypto";
import { isAbsolute, join, relative } from "node:path";
import type { Attention, GivenProjection, Sizes } from "../attention.ts";
import { openFile } from "../bytes.ts";
import { InputError, UsageError } from "../errors.ts";
import type { Fit } from "../fitted.ts";
import type { OutputDType } from "../formats/decode.ts";
import type { RowNorms } from "../projection.ts";
import type { DType, RowRange, TensorInfo } from "../tensor.ts";
import { count, plain } from "../words.ts";

/** Raised when a key of a plan changes its meaning or goes away. */
export const PLAN_SCHEMA = "performer-plan/1";
/** Shards of one plan, at most. */
export const MAX_SHARDS = 100_000;
/** Bytes of one state, at most: what one array of the runtimes holds. */
const MAX_STATE = 2 ** 32;

/** A file as it was when the plan was made. */
export interface PlannedFile {
  /** Below the plan's folder where it is relative, else absolute. */
  readonly path: string;
  readonly bytes: number;
  /** SHA-256 of its first and last bytes (`probeFile`): of its header, and of an archive's index. */
  readonly probe: string;
}

/** Which files are read, and how: flags of `attend`, with places in `files` for names of files. */
export interface PlannedInput {
  /** One file, or three. */
  readonly input: number | null;
  readonly q: number | null;
  readonly k: number | null;
  readonly v: number | null;
  readonly mask: number | null;
  readonly projectionMatrix: number | null;
  readonly heads: number | null;
  readonly kvHeads: number | null;
  readonly layout: "hld" | "lhd";
  readonly dtype: "bf16" | null;
  readonly encode: string | null;
  /** `--rows A:B` as it was given. */
  readonly rows: { readonly start: number | null; readonly end: number | null } | null;
}

/** A tensor as the plan found it. */
export type PlannedTensor = Pick<TensorInfo, "name" | "shape" | "rows" | "heads" | "width" | "firstRow"> & {
  readonly dtype: DType;
};

/** Settings of a linear attention whose states add up. */
export type PlannedAttention =
  & Pick<Attention, "features" | "numFeatures" | "projection" | "seed" | "causal" | "scale">
  & { readonly norms: RowNorms; readonly decay: readonly number[] | "alibi" | null };

/** What a plan says. */
export interface PlanContent {
  readonly files: readonly PlannedFile[];
  readonly input: PlannedInput;
  readonly tensors: {
    readonly q: PlannedTensor;
    readonly k: PlannedTensor;
    readonly v: PlannedTensor;
    readonly mask: PlannedTensor | null;
  };
  readonly sizes: Sizes;
  readonly attention: PlannedAttention;
  /** SHA-256 of W in float64; null: the map has none. */
  readonly projectionHash: string | null;
  /** Numbers fitted to the inputs, once, for all shards. */
  readonly fit: Fit | null;
  /** Of the states (stored_state.ts): those with another do not add up. */
  readonly fingerprint: string;
  /** The whole output, which parts are rows of. */
  readonly output: { readonly dtype: Exclude<OutputDType, "i32">; readonly shape: readonly number[] };
  /** Shard i has key rows `keys[i]` up to `keys[i + 1]`, and outputs of as many query rows. */
  readonly shards: { readonly keys: readonly number[]; readonly queries: readonly number[] };
}

/** A plan that was made or read. */
export interface ShardPlan extends PlanContent {
  /** Of the program that made it. */
  readonly version: string;
  /** SHA-256 of all else that the file says: states and parts name it. */
  readonly id: string;
  /** What messages call it. */
  readonly path: string;
  /** Absolute folder that relative paths begin at. */
  readonly folder: string;
}

/** What parts of an output are read and written by: a plan of one attention, or a layer of a plan of a model. */
export interface PartsPlan extends Pick<ShardPlan, "id" | "path" | "shards" | "output"> {
  readonly sizes: Pick<Sizes, "heads" | "valueDim">;
  readonly input: Pick<PlannedInput, "layout">;
  readonly attention: Pick<PlannedAttention, "causal">;
}

/** What states are found by. */
export type StatesPlan = Pick<ShardPlan, "id" | "path" | "shards">;

/** SHA-256 of texts and bytes one after the other, in hexadecimal. */
export function sha256(...parts: (string | Uint8Array | Float64Array)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) {
    hash.update(part instanceof Float64Array ? new Uint8Array(part.buffer, part.byteOffset, part.byteLength) : part);
  }
  return hash.digest("hex");
}

/** Bounds of `count` ranges of `rows` rows, as equal as they can be: `count + 1` numbers from 0 to `rows`. */
export function evenBounds(rows: number, count: number): number[] {
  return Array.from({ length: count + 1 }, (_, i) => Math.floor(rows / count) * i + Math.min(i, rows % count));
}

/** How many shards a plan has. */
export const shardCount = ({ shards }: Pick<PlanContent, "shards">): number => shards.keys.length - 1;

/** Rows of keys and of queries that belong to a shard. */
export function rangesOfShard(
  { shards }: Pick<PlanContent, "shards">,
  id: number,
): Record<"keys" | "queries", RowRange> {
  const of = (bounds: readonly number[]): RowRange => ({ start: bounds[id], end: bounds[id + 1] });
  return { keys: of(shards.keys), queries: of(shards.queries) };
}

/** "0007": what files of a shard are called, without suffix. Names are made of the number alone, whatever a plan says. */
export function shardName(plan: Pick<PlanContent, "shards">, id: number): string {
  return String(id).padStart(Math.max(4, String(shardCount(plan) - 1).length), "0");
}

/** Throws UsageError for a shard that a plan does not have. */
export function requireShard(plan: Pick<ShardPlan, "path" | "shards">, id: number): void {
  const shards = shardCount(plan);
  if (id < shards) return;
  throw new UsageError(`Cannot run shard ${id} of "${plan.path}": it has shards 0 to ${shards - 1}`);
}

/** The cut of `rows` into shards. Throws UsageError where there would be empty ones. */
export function cutShards(
  { keyRows, queryRows }: Pick<Sizes, "keyRows" | "queryRows">,
  shards: number,
): PlanContent["shards"] {
  const least = Math.min(keyRows, queryRows);
  if (shards > Math.min(least, MAX_SHARDS)) {
    const most = count(Math.min(least, MAX_SHARDS));
    throw new UsageError(
      `Cannot use --shards ${shards}: expected at most ${most}${least < MAX_SHARDS ? ", one for every row" : ""}`,
    );
  }
  return { keys: evenBounds(keyRows, shards), queries: evenBounds(queryRows, shards) };
}

/** Bytes of the sums of one state: c, z and S in float64. */
export function stateBytes(kvHeads: number, numFeatures: number, valueDim: number): number {
  return 8 * kvHeads * numFeatures * (valueDim + 2);
}

/** Throws UsageError where a state would be larger than an array can be. */
export function requireState(kvHeads: number, numFeatures: number, valueDim: number): void {
  const bytes = stateBytes(kvHeads, numFeatures, valueDim);
  if (bytes <= MAX_STATE) return;
  throw new UsageError(
    `Cannot plan states of ${count(bytes)} bytes: expected at most ${count(MAX_STATE)}, use a smaller -m`,
  );
}

/** Bytes at either end of a file that its probe is taken of. */
const PROBE = 1 << 16;

/** The size of a file, and SHA-256 of it with the first and the last bytes. Throws InputError when it cannot be read. */
export async function probeFile(path: string): Promise<Pick<PlannedFile, "bytes" | "probe">> {
  await using file = await openFile(path);
  const bytes = file.byteLength;
  const ends = [new Uint8Array(Math.min(PROBE, bytes)), new Uint8Array(Math.min(PROBE, bytes))];
  await file.read(ends[0], 0);
  await file.read(ends[1], bytes - ends[1].length);
  return { bytes, probe: sha256(String(bytes), ...ends) };
}

/** A file as a plan in `folder` names it: relative below that folder, where plan and data can be moved together, else absolute. */
export function pathInPlan(folder: string, absolute: string): string {
  const path = relative(folder, absolute);
  const outside = path === "" || path === ".." || path.startsWith("../") || path.startsWith("..\\") || isAbsolute(path);
  const named = outside ? absolute : path.replaceAll("\\", "/");
  if (plain(named) !== named) {
    throw new UsageError(`Cannot plan with "${plain(named)}": its name has control characters`);
  }
  return named;
}

/** Where a file of a plan is. */
export const placeOf = ({ folder }: Pick<ShardPlan, "folder">, { path }: Pick<PlannedFile, "path">): string =>
  isAbsolute(path) ? path : join(folder, path);

/** Throws InputError where a file is not the one that was planned: exit 3, so that no engine tries again. */
export async function requireFiles(plan: Pick<ShardPlan, "path" | "folder" | "files">): Promise<void> {
  for (const file of plan.files) {
    const path = placeOf(plan, file);
    const found = await probeFile(path);
    if (found.bytes === file.bytes && found.probe === file.probe) continue;
    const what = found.bytes === file.bytes
      ? "its first or last bytes are others"
      : `it has ${count(found.bytes)} bytes, expected ${count(file.bytes)}`;
    throw new InputError(
      `Cannot use "${path}": it is not the file that "${plan.path}" was made for, ${what}; plan again`,
    );
  }
}

/** The attention of a plan. */
export function attentionOf({ attention }: Pick<PlanContent, "attention">, given: GivenProjection | null): Attention {
  return { ...attention, given, compat: "exact", nearFar: null, shrink: null };
}

/** Fits as JSON: typed arrays are lists, and statistics that are no numbers are null. */
const fitted = (fit: Fit | null) =>
  fit && {
    source: fit.source,
    rows: fit.rows,
    centred: fit.centred,
    heads: fit.heads.map(({ shift, balance, exponents, directions, phiBefore, phi, logVariance }) => ({
      shift: shift && [...shift],
      balance: balance && { T: [...balance.T], inverse: [...balance.inverse] },
      exponents: [...exponents],
      directions: directions && [...directions],
      phiBefore,
      phi,
      logVariance,
    })),
  };

/** The keys of a plan in their one order, each on a line of its own; the same plan makes the same text, without its id. */
function linesOfPlan(version: string, content: PlanContent): string[] {
  const { files, input, tensors, sizes, attention, projectionHash, fit, fingerprint, output, shards } = content;
  const tensor = (of: PlannedTensor | null) =>
    of && {
      name: of.name,
      dtype: of.dtype,
      shape: of.shape,
      rows: of.rows,
      heads: of.heads,
      width: of.width,
      firstRow: of.firstRow,
    };
  const { features, numFeatures, projection, norms, seed, causal, scale, decay } = attention;
  const { queryRows, keyRows, heads, kvHeads, headDim, valueDim } = sizes;
  const values = {
    schema: PLAN_SCHEMA,
    version,
    files: files.map(({ path, bytes, probe }) => ({ path, bytes, probe })),
    input: {
      input: input.input,
      q: input.q,
      k: input.k,
      v: input.v,
      mask: input.mask,
      projectionMatrix: input.projectionMatrix,
      heads: input.heads,
      kvHeads: input.kvHeads,
      layout: input.layout,
      dtype: input.dtype,
      encode: input.encode,
      rows: input.rows && { start: input.rows.start, end: input.rows.end },
    },
    tensors: { q: tensor(tensors.q), k: tensor(tensors.k), v: tensor(tensors.v), mask: tensor(tensors.mask) },
    sizes: { queryRows, keyRows, heads, kvHeads, headDim, valueDim },
    attention: { features, numFeatures, projection, norms, seed, causal, scale, decay },
    projectionHash,
    fit: fitted(fit),
    fingerprint,
    output: { dtype: output.dtype, shape: output.shape },
    shards: { keys: shards.keys, queries: shards.queries },
  };
  return linesOf(values);
}

/** The keys of an object, each on a line of its own. */
export const linesOf = (values: object): string[] =>
  Object.entries(values).map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`);

/** SHA-256 of lines. */
export const idOfLines = (lines: readonly string[]): string => sha256(lines.join("\n"));

/** Lines and their id as a JSON text. */
export const textOfLines = (lines: readonly string[], id: string): string =>
  `{\n${[...lines, `  "id": ${JSON.stringify(id)}`].join(",\n")}\n}\n`;

/** SHA-256 of what a plan says. */
export const idOfPlan = (version: string, content: PlanContent): string => idOfLines(linesOfPlan(version, content));

/** A plan as its file holds it. */
export const planText = (plan: Pick<ShardPlan, "version" | "id"> & PlanContent): string =>
  textOfLines(linesOfPlan(plan.version, plan), plan.id);
