/** A Performer's memory: what all keys and values so far are summarised in. It can be asked, copied, saved and merged. */
import { type Attention, decayFor, type Sizes } from "../attention.ts";
import type { Backend, Session } from "../backend.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { UsageError } from "../errors.ts";
import type { Fit } from "../fitted.ts";
import { shapeOf } from "../run_base.ts";
import { openSession } from "../sessions.ts";
import { copyState, mergeInto, mergeLater, type State } from "../state.ts";
import { readState, writeState } from "../state_file.ts";
import { explainDifference, requireState, type StoredState, storedState } from "../stored_state.ts";
import type { FloatArray } from "../tensor.ts";
import { attentionOf, type FeatureSettings } from "./settings.ts";
import { asTensor, Collector, type Rows, Tensor, tensor } from "./tensor.ts";

/** Settings of `newState`. Nothing is fitted to data: states of different data then belong together. */
export interface StateSettings extends FeatureSettings {
  /** Width of queries and keys per head. */
  readonly width: number;
  /** Width of values per head; as wide as keys by default. */
  readonly valueWidth?: number;
  /** Heads of queries; 1 by default. */
  readonly heads?: number;
  /** Heads of keys and values, where they are fewer. */
  readonly kvHeads?: number;
  /** λ of the bias −λ (i − j), one or one per key head. */
  readonly decay?: number | readonly number[];
}

/** A state as plain data: copy it, send it to another process, merge it there. */
export interface SavedState {
  /** What it was made with; W itself where it was given. */
  readonly settings: Omit<StateSettings, "projection"> & {
    readonly projection: string | { readonly shape: readonly number[]; readonly data: Float64Array };
  };
  /** Rows absorbed, masked ones counted. */
  readonly rows: number;
  /** The sums. */
  readonly state: State;
  /** What the map was fitted to, where the state came from a file that says so. */
  readonly fit?: Fit | null;
}

/** How a state is taken from a file. */
export interface LoadStateOptions {
  /** Heads of queries: as many as key heads, or a multiple of them. */
  readonly heads?: number;
  /** "scalar" by default, which works in float64. */
  readonly backend?: Backend | string;
}

/** One row as plain numbers, or rows. */
export type StateRows = Rows | readonly number[] | FloatArray;

/**
 * A state without keys. It works in float64 on the backend "scalar" unless another is named.
 * Throws UsageError for settings that have no state: exact attention, near keys, maps that need the length of the sequence.
 */
export async function newState(settings: StateSettings, backend: Backend | string = "scalar"): Promise<PerformerState> {
  const sizes = sizesFor(settings);
  return await openState({ settings, attention: await attentionWith(settings), sizes, fit: null }, backend);
}

/** A state that goes on where a saved one was. */
export async function restoreState(saved: SavedState, backend: Backend | string = "scalar"): Promise<PerformerState> {
  const settings = settingsOf(saved);
  const sizes = sizesFor(settings);
  const made = { settings, attention: await attentionWith(settings), sizes, fit: saved.fit ?? null };
  const state = await openState(made, backend);
  await state.load(saved);
  return state;
}

/**
 * The state of a file that `saveState`, `performer state` or `attend --state-out` wrote, with what its map was fitted to. Throws
 * InputError for a file that is none.
 */
export async function loadState(path: string, options: LoadStateOptions = {}): Promise<PerformerState> {
  const stored = await readState(path);
  const {
    settings: { features, numFeatures, projection, norms, seed, scale, decay, kvHeads, headDim, valueDim },
    given,
  } = stored;
  const settings: StateSettings = {
    width: headDim,
    valueWidth: valueDim,
    heads: options.heads ?? kvHeads,
    kvHeads,
    features,
    numFeatures,
    projection: given
      ? tensor(given.data, [given.matrices, given.data.length / given.matrices / headDim, headDim])
      : projection ?? undefined,
    norms: norms ?? undefined,
    seed: seed ?? undefined,
    scale: scale ?? undefined,
    decay: decay ?? undefined,
  };
  return await restoreState({ ...savedOf(settings, stored), fit: stored.fit }, options.backend);
}

/** Writes a state to a .safetensors file, which `performer attend --state-in` goes on from. Throws UsageError for another suffix. */
export async function saveState(path: string, state: PerformerState | SavedState): Promise<void> {
  await writeState(path, await storedOf(state instanceof PerformerState ? await state.save() : state));
}

function sizesFor({ width, heads = 1, kvHeads = heads, valueWidth = width }: StateSettings): Sizes {
  return { queryRows: 1, keyRows: 1, heads, kvHeads, headDim: width, valueDim: valueWidth };
}

const attentionWith = async (settings: StateSettings): Promise<Attention> => {
  return { ...await attentionOf({ ...settings, centre: "off" }), causal: true };
};

async function openState(
  made: Pick<Parts, "settings" | "attention" | "sizes" | "fit">,
  backend: Backend | string,
): Promise<PerformerState> {
  const { attention, sizes } = made;
  requireState(attention);
  const own = typeof backend === "string" ? (await openFirst(parseBackendList(backend))).backend : null;
  try {
    const used = own ?? backend as Backend;
    const shape = shapeOf(attention, sizes, used.limits);
    const { session } = await openSession(used, attention, sizes, shape, 0, made.fit);
    return new PerformerState({ ...made, backend: used, own, tileRows: shape.tileRows }, session);
  } catch (error) {
    await own?.[Symbol.asyncDispose]();
    throw error;
  }
}

interface Parts {
  readonly settings: StateSettings;
  readonly attention: Attention;
  readonly sizes: Sizes;
  /** What the map was fitted to. */
  readonly fit: Fit | null;
  readonly backend: Backend;
  /** Opened for this state. */
  readonly own: Backend | null;
  readonly tileRows: number;
}

/** Linear attention in flight; made by `newState`. Its size does not depend on how many keys it has seen. */
export class PerformerState implements AsyncDisposable {
  readonly #parts: Parts;
  /** Of causal attention: it answers queries with and without rows of their own. */
  readonly #session: Session;
  #rows = 0;

  /** Use `newState`. */
  constructor(parts: Parts, session: Session) {
    this.#parts = parts;
    this.#session = session;
  }

  /** Rows absorbed so far, masked ones counted. */
  get rows(): number {
    return this.#rows;
  }

  /** Adds keys and values: `[n, heads · width]` rows, or one row as plain numbers. @param mask ω ≥ 0 per row, 0 = hidden */
  async absorb(k: StateRows, v: StateRows, mask?: ArrayLike<number>): Promise<void> {
    const { tileRows } = this.#parts;
    const [keys, values] = [await this.#keys(k), await this.#values(v)];
    sameRows(keys, values);
    if (mask && mask.length !== keys.info.rows) {
      throw new UsageError(
        `Cannot use a mask of ${mask.length} numbers: expected one for each of ${keys.info.rows} rows`,
      );
    }
    const precision = this.#precision;
    const passing = values.tiles(tileRows, { precision })[Symbol.asyncIterator]();
    for await (const tile of keys.tiles(tileRows, { precision })) {
      const weights = mask && Float64Array.from(Array.prototype.slice.call(mask, tile.start, tile.start + tile.rows));
      await this.#session.absorb(tile, (await passing.next()).value!, weights);
      this.#rows += tile.rows;
    }
  }

  /** Attention of queries over all keys so far, `[n, heads · valueWidth]`; with decay they stand at the last row absorbed. */
  async emit(q: StateRows): Promise<Tensor> {
    const { tileRows } = this.#parts;
    const queries = await this.#queries(q);
    const collector = this.#collector(queries.info.rows);
    for await (const tile of queries.tiles(tileRows, { precision: this.#precision })) {
      await collector.write(await this.#session.emit(tile));
    }
    return collector.tensor();
  }

  /** One step of causal attention, for one token or several in order: row i sees all keys so far and its own rows up to i. */
  async step(q: StateRows, k: StateRows, v: StateRows): Promise<Tensor> {
    const { tileRows } = this.#parts;
    const [queries, keys, values] = [await this.#queries(q), await this.#keys(k), await this.#values(v)];
    sameRows(queries, keys);
    sameRows(keys, values);
    const collector = this.#collector(queries.info.rows);
    const precision = this.#precision;
    const others = [keys, values].map((rows) => rows.tiles(tileRows, { precision })[Symbol.asyncIterator]());
    for await (const tile of queries.tiles(tileRows, { precision })) {
      const [k, v] = [(await others[0].next()).value!, (await others[1].next()).value!];
      const [out] = await Promise.all([this.#session.emit(tile, { k, v }), this.#session.absorb(k, v)]);
      await collector.write(out);
      this.#rows += tile.rows;
    }
    return collector.tensor();
  }

  /** A copy as plain data. */
  async save(): Promise<SavedState> {
    const { settings, fit } = this.#parts;
    const state = copyState(await this.#session.save());
    const saved = savedOf(settings, { rows: this.#rows, state, given: this.#parts.attention.given });
    return fit ? { ...saved, fit } : saved;
  }

  /** Takes over a saved state of the same settings; throws UsageError for others. */
  async load(saved: SavedState): Promise<void> {
    await requireSame(saved, await this.save());
    await this.#session.load(copyState(saved.state));
    this.#rows = saved.rows;
  }

  /**
   * Adds what another state has seen; with decay the rows of the other follow those of this one. The order of merges does not matter
   * otherwise. Throws UsageError where the settings differ.
   */
  async merge(other: PerformerState | SavedState): Promise<void> {
    const [mine, theirs] = [await this.save(), other instanceof PerformerState ? await other.save() : other];
    await requireSame(theirs, mine);
    const decay = decayFor(this.#parts.attention, this.#parts.sizes);
    if (decay) mergeLater(mine.state, theirs.state, decay, theirs.rows);
    else mergeInto(mine.state, theirs.state);
    await this.#session.load(mine.state);
    this.#rows = mine.rows + theirs.rows;
  }

  /** Forgets all keys. */
  reset(): void {
    this.#session.reset();
    this.#rows = 0;
  }

  /** Closes its backend too, where that was opened for it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session[Symbol.asyncDispose]();
    await this.#parts.own?.[Symbol.asyncDispose]();
  }

  get #precision() {
    return this.#parts.backend.limits.precision;
  }

  #queries(rows: StateRows): Promise<Tensor> {
    const { heads, headDim } = this.#parts.sizes;
    return fitting(rows, "queries", heads, headDim);
  }

  #keys(rows: StateRows): Promise<Tensor> {
    const { kvHeads, headDim } = this.#parts.sizes;
    return fitting(rows, "keys", kvHeads, headDim);
  }

  #values(rows: StateRows): Promise<Tensor> {
    const { kvHeads, valueDim } = this.#parts.sizes;
    return fitting(rows, "values", kvHeads, valueDim);
  }

  #collector(rows: number): Collector {
    const { heads, valueDim } = this.#parts.sizes;
    return new Collector([rows, heads * valueDim], { heads, layout: "hld", precision: this.#precision });
  }
}

/** Rows with these heads and this width. */
async function fitting(rows: StateRows, what: string, heads: number, width: number): Promise<Tensor> {
  const one = ArrayBuffer.isView(rows) || (Array.isArray(rows) && typeof rows[0] === "number");
  const whole = one
    ? tensor(rows as ArrayLike<number>, [1, (rows as ArrayLike<number>).length])
    : asTensor(rows as Rows, `the ${what}`);
  const { heads: own, width: each } = whole.info;
  if (own * each !== heads * width) {
    throw new UsageError(`Cannot use ${what} of ${own * each} numbers per row: expected ${heads} × ${width}`);
  }
  return own === heads ? whole : await whole.view({ heads });
}

function sameRows(a: Tensor, b: Tensor): void {
  if (a.info.rows !== b.info.rows) {
    throw new UsageError(`Cannot use ${b.info.rows} rows with ${a.info.rows}: they must be as many`);
  }
}

/** Plain data of a state; W as numbers where it was given. */
function savedOf(
  settings: StateSettings,
  { rows, state, given }: Pick<StoredState, "rows" | "state" | "given">,
): SavedState {
  const W = given && {
    shape: [given.matrices, given.data.length / given.headDim / given.matrices, given.headDim],
    data: given.data,
  };
  const named = typeof settings.projection === "string" ? settings.projection : "orthogonal";
  return { settings: { ...settings, projection: W ?? named }, rows, state };
}

function settingsOf({ settings }: SavedState): StateSettings {
  const { projection } = settings;
  return {
    ...settings,
    projection: typeof projection === "string" ? projection : tensor(projection.data, projection.shape),
  };
}

/** A saved state with all that its numbers depend on. */
async function storedOf(saved: SavedState): Promise<StoredState> {
  const settings = settingsOf(saved);
  const sizes = sizesFor(settings);
  const { rows, state, fit = null } = saved;
  return storedState(await attentionWith(settings), sizes, fit, { path: "", rows, state });
}

/** Throws UsageError naming every setting that differs. */
async function requireSame(found: SavedState, expected: SavedState): Promise<void> {
  const differences = explainDifference(await storedOf(found), await storedOf(expected));
  if (differences.length > 0) throw new UsageError(`Cannot join states: ${differences.join("; ")}`);
}
