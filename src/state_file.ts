/**
 * States as files: .safetensors with the sums (c, z, S), the numbers the map was fitted to and W where it was given, all float64, and in
 * `__metadata__` what they mean (docs/state.md). The same state makes the same bytes. A file is checked as a whole before its numbers are
 * used: sizes against the settings, numbers against what a state can hold, the fingerprint against what decides them, the digest against them.
 */
import type { GivenProjection } from "./attention.ts";
import { InputError, UsageError } from "./errors.ts";
import { featureMap } from "./feature_map.ts";
import { type Fit, fixedFit, type HeadFit } from "./fitted.ts";
import { writeTensors, type WrittenTensor } from "./formats/archive.ts";
import type { Container } from "./formats/container.ts";
import { encode } from "./formats/encode.ts";
import { openContainer } from "./formats/mod.ts";
import { Broken, parseSettings } from "./state_settings.ts";
import {
  digestOf,
  fingerprintOf,
  fitParts,
  GIVEN,
  settingsText,
  STATE_SCHEMA,
  type StoredSettings,
  type StoredState,
} from "./stored_state.ts";
import { VERSION } from "./version.ts";

/** How names of states end. */
export const STATE_SUFFIX = ".safetensors";

/** A state that was read. */
export interface StateFile extends StoredState {
  readonly fingerprint: string;
  /** SHA-256 of rows, keys and sums. */
  readonly digest: string;
  /** Size of the file. */
  readonly bytes: number;
  /** Of the program that wrote it. */
  readonly version: string;
  /** What else its metadata say: of the writer's own, not checked. */
  readonly notes: Readonly<Record<string, string>>;
}

/** Numbers that are handed to the file at once. */
const PIECE = 1 << 17;

/** A tensor's name, shape and numbers. */
type Numbers = readonly [name: string, shape: readonly number[], data: Float64Array];

/** Throws UsageError for a name that no state can have. */
export function refuseStateName(path: string): void {
  if (path.toLowerCase().endsWith(STATE_SUFFIX)) return;
  throw new UsageError(`Cannot write state "${path}": its name must end in ${STATE_SUFFIX}`);
}

/**
 * Writes a state; the file gets its name when it is complete, so that it may replace the one it was read from. Returns its size in bytes.
 * Throws UsageError for a path that cannot be written, TransientError when the disk is full.
 * @param notes what the writer wants to find again in `StateFile.notes`.
 */
export async function writeState(
  path: string,
  stored: StoredState,
  notes: Readonly<Record<string, string>> = {},
): Promise<number> {
  refuseStateName(path);
  const metadata = {
    ...notes,
    schema: STATE_SCHEMA,
    version: VERSION,
    settings: settingsText(stored.settings),
    rows: String(stored.rows),
    keys: String(stored.state.keys),
    fingerprint: fingerprintOf(stored),
    digest: digestOf(stored),
  };
  return await writeTensors(path, tensorsOf(stored).map(written), metadata);
}

function tensorsOf({ settings, state, given, fit }: StoredState): Numbers[] {
  const { kvHeads, numFeatures, headDim: d, valueDim } = settings;
  const tensors: Numbers[] = [
    ["c", [kvHeads, numFeatures], state.c],
    ["z", [kvHeads, numFeatures], state.z],
    ["S", [kvHeads, numFeatures, valueDim], state.S],
  ];
  for (const [part, data] of fitParts(fit, d)) {
    const heads = fit!.heads.length;
    const each = data.length / heads;
    const square = part === "directions" || ((part === "balance" || part === "inverse") && each > d);
    tensors.push([`fit.${part}`, square ? [heads, d, d] : [heads, each], data]);
  }
  if (fit && fit.source !== "fixed") {
    const seen = fit.heads.flatMap(({ phiBefore, phi, logVariance }) => [phiBefore, phi, logVariance]);
    tensors.push(["fit.statistics", [fit.heads.length, 3], Float64Array.from(seen)]);
  }
  if (given) tensors.push(["W", [given.matrices, settings.projections!, d], given.data]);
  return tensors;
}

/** Numbers as they are written, piece by piece. */
export const written = ([name, shape, data]: Numbers): WrittenTensor => ({
  name,
  dtype: "f64",
  shape,
  async *pieces() {
    for (let at = 0; at < data.length; at += PIECE) yield encode(data.subarray(at, at + PIECE), "f64").bytes;
  },
});

/** Reads and checks a state. Throws InputError for a file that is none, or whose numbers are not those that it says. */
export async function readState(path: string): Promise<StateFile> {
  await using container = await openContainer(path);
  try {
    return await stateOf(container);
  } catch (error) {
    if (error instanceof Broken || error instanceof RangeError || error instanceof UsageError) {
      throw new InputError(`Cannot read state "${path}": ${error.message}`, { cause: error });
    }
    throw error;
  }
}

async function stateOf(container: Container): Promise<StateFile> {
  const { metadata } = container;
  if (container.format !== "safetensors" || metadata.schema === undefined) {
    throw new Broken(
      `it is no state but tensors (${container.format}), expected what --state-out and performer state write`,
    );
  }
  if (metadata.schema !== STATE_SCHEMA) throw new Broken(`its schema is ${metadata.schema}, expected ${STATE_SCHEMA}`);
  const settings = parseSettings(metadata.settings);
  const [rows, keys] = [wholeOf(metadata, "rows"), wholeOf(metadata, "keys")];
  if (keys > rows) throw new Broken(`it has ${keys} keys of ${rows} rows, expected at most as many`);
  const reader = new Reader(container);
  const { kvHeads, numFeatures, valueDim, headDim } = settings;
  const state = {
    heads: kvHeads,
    features: numFeatures,
    valueDim,
    c: await reader.take("c", [kvHeads, numFeatures]),
    z: await reader.take("z", [kvHeads, numFeatures]),
    S: await reader.take("S", [kvHeads, numFeatures, valueDim]),
    keys,
  };
  requireSums(state, featureMap(settings.features).signed);
  const fit = await fitOf(reader, settings);
  let given: GivenProjection | null = null;
  if (settings.projection === GIVEN) {
    const [matrices] = reader.shapeOf("W");
    const data = await reader.take("W", [matrices, settings.projections!, headDim]);
    if (!(matrices > 0 && kvHeads % matrices === 0)) {
      throw new Broken(`W holds ${matrices} matrices for ${kvHeads} key heads, expected a divisor`);
    }
    given = { path: container.path, matrices, headDim, data: finite("W", data) };
  }
  reader.requireAll();
  const stored = { path: container.path, settings, given, fit, rows, state };
  const fingerprint = fingerprintOf(stored);
  if (metadata.fingerprint !== fingerprint) {
    throw new Broken(
      `its fingerprint is ${
        metadata.fingerprint ?? "missing"
      }, expected ${fingerprint}: settings or numbers were changed, ` +
        `or performer ${metadata.version ?? "unknown"} draws another projection than ${VERSION}`,
    );
  }
  const digest = digestOf(stored);
  if (metadata.digest !== digest) {
    throw new Broken(
      `its sums are not those that were written: they have the digest ${digest}, expected ${
        metadata.digest ?? "one in the file"
      }`,
    );
  }
  const { schema: _s, version = "unknown", settings: _t, rows: _r, keys: _k, fingerprint: _f, digest: _d, ...notes } =
    metadata;
  return { ...stored, fingerprint, digest, bytes: container.source.byteLength, version, notes };
}

/** Tensors by name, each of the shape that it must have. */
class Reader {
  readonly #taken = new Set<string>();

  constructor(readonly container: Container) {}

  has(name: string): boolean {
    return this.container.members.some((member) => member.name === name);
  }

  shapeOf(name: string): readonly number[] {
    if (!this.has(name)) throw new Broken(`it lacks tensor "${name}"`);
    return this.container.member(name).shape;
  }

  /** Sizes are compared before a byte is read, so that a file cannot ask for memory that its settings do not need. */
  async take(name: string, wanted: readonly number[]): Promise<Float64Array> {
    const shape = this.shapeOf(name);
    const { dtype, typeName } = this.container.member(name);
    if (dtype !== "f64" || shape.join() !== wanted.join()) {
      throw new Broken(
        `tensor "${name}" is ${typeName} [${shape.join(", ")}], expected F64 [${wanted.join(", ")}] by its settings`,
      );
    }
    this.#taken.add(name);
    return (await this.container.readAll(name, "f64")).data as Float64Array;
  }

  requireAll(): void {
    const other = this.container.members.find(({ name }) => !this.#taken.has(name));
    if (other) throw new Broken(`it holds tensor "${other.name}", which a state of its settings has not`);
  }
}

function finite(name: string, data: Float64Array): Float64Array {
  const at = data.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) throw new Broken(`tensor "${name}" holds ${data[at]} at ${at}, expected finite numbers`);
  return data;
}

/** Throws where numbers are none that keys could have left. */
function requireSums({ c, z, S, valueDim, keys }: StoredState["state"], signed: boolean): void {
  finite("z", z);
  finite("S", S);
  for (let f = 0; f < c.length; f++) {
    if (c[f] === -Infinity) {
      if (z[f] !== 0 || S.subarray(f * valueDim, (f + 1) * valueDim).some((value) => value !== 0)) {
        throw new Broken(`feature ${f} has sums without a key: c is -Infinity, expected z and S to be 0`);
      }
    } else if (!Number.isFinite(c[f])) {
      throw new Broken(`tensor "c" holds ${c[f]} at ${f}, expected a finite number, or -Infinity before the first key`);
    } else if (keys === 0) throw new Broken(`feature ${f} has sums, expected none of 0 keys`);
    if (!signed && z[f] < 0) throw new Broken(`tensor "z" holds ${z[f]} at ${f}, expected 0 or more of a positive map`);
  }
}

/** The numbers that the map was fitted to. */
async function fitOf(reader: Reader, settings: StoredSettings): Promise<Fit | null> {
  const { params, headDim: d, kvHeads, scale } = settings;
  const map = featureMap(settings.features);
  if (!params) return null;
  if (params.source === "fixed") return fixedFit(map, d, scale!);
  const [heads] = reader.shapeOf("fit.statistics");
  if (heads !== kvHeads) throw new Broken(`it was fitted to ${heads} heads, expected ${kvHeads}`);
  const take = async (part: string, each: readonly number[]) => {
    const name = `fit.${part}`;
    return reader.has(name) ? finite(name, await reader.take(name, [heads, ...each])) : null;
  };
  const { balance: how = "none", exponents: which = "none" } = map.fitted ?? {};
  const statistics = (await take("statistics", [3]))!;
  const shift = params.centred ? await take("shift", [d]) : null;
  const square = how === "dense" ? [d, d] : [d];
  const [T, inverse] = how === "none" ? [null, null] : [await take("balance", square), await take("inverse", square)];
  const exponents = which === "none" ? null : await take("exponents", [which === "directions" ? d : 1]);
  const directions = which === "directions" ? await take("directions", [d, d]) : null;
  const lacks = params.centred && !shift
    ? "shift"
    : (T === null) !== (inverse === null)
    ? T ? "inverse" : "balance"
    : which !== "none" && !exponents
    ? "exponents"
    : which === "directions" && !directions
    ? "directions"
    : null;
  if (lacks) throw new Broken(`it lacks tensor "fit.${lacks}"`);
  const high = exponents?.find((a) => a >= 1 / 8);
  if (high !== undefined) throw new Broken(`tensor "fit.exponents" holds ${high}, expected less than 1/8`);
  const part = (all: Float64Array | null, h: number) =>
    all?.slice(h * all.length / heads, (h + 1) * all.length / heads);
  const head = (h: number): HeadFit => ({
    shift: part(shift, h) ?? null,
    balance: T && { T: part(T, h)!, inverse: part(inverse, h)! },
    exponents: part(exponents, h) ?? new Float64Array(),
    directions: part(directions, h) ?? null,
    phiBefore: statistics[3 * h],
    phi: statistics[3 * h + 1],
    logVariance: statistics[3 * h + 2],
  });
  return { ...params, heads: Array.from({ length: heads }, (_, h) => head(h)) };
}

function wholeOf(metadata: Readonly<Record<string, string>>, name: string): number {
  const value = /^\d+$/.test(metadata[name] ?? "") ? Number(metadata[name]) : NaN;
  if (!Number.isSafeInteger(value)) {
    throw new Broken(`its ${name} are ${metadata[name] ?? "missing"}, expected a whole number`);
  }
  return value;
}
