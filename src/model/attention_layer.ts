/** One attention layer on a backend: q, k and v of every tile, global heads through a ruled session, local heads in windows, out. */
import type { Backend, Linear } from "../backend.ts";
import type { Activation } from "../feature_map.ts";
import { heard } from "../in_flight.ts";
import type { RuledPlan, RuledSession } from "../rules.ts";
import { type RulesName, rulesNamed } from "../rules_table.ts";
import type { State } from "../state.ts";
import { type FloatArray, floats, type Tile } from "../tensor.ts";
import type { AttentionLayout, DenseLayout } from "./description.ts";
import { attendLocally, localFlops, LocalHistory } from "./local_attention.ts";
import type { Room } from "./room.ts";
import { rotate, type Rotation } from "./rotation.ts";
import { addTile, ahead, tilesOf } from "./rows.ts";
import type { Weights } from "./weights.ts";

/** Numbers of keys kept between two passes over them; beyond, keys are computed again. */
const KEPT_KEYS = 2 ** 26;

/** What all attention layers of a model share. */
export interface AttentionSettings {
  readonly rules: RulesName;
  readonly kernel: RuledPlan["kernel"];
  readonly activation: Activation;
  readonly causal: boolean;
  readonly tileRows: number;
  readonly rotation: Rotation | null;
  /** `layer` is the index of the layer. */
  readonly prepare: (backend: Backend, plan: RuledPlan, layer: number) => Promise<RuledSession>;
  /** Sees what enters attention; for measures such as the attention that tokens receive. */
  readonly watcher?: AttentionWatcher | null;
  /** Ends a layer between two tiles. */
  readonly signal?: AbortSignal;
}

/**
 * Looks on as layers attend, one after the other. Tiles are of global heads, rotated, and valid until the promise settles; all keys of
 * an item come before its queries unless the layer is causal.
 */
export interface AttentionWatcher {
  /** `session` was prepared with `observed`. */
  open(layer: number, plan: RuledPlan, session: RuledSession): Promise<void>;
  keys(layer: number, item: number, k: Tile, mask: FloatArray | null): Promise<void>;
  /** No more rows of the item come. */
  finish(layer: number, item: number): Promise<void>;
  close(layer: number): Promise<void>;
}

/** Rows that attend. Cross attention has keys and values from `context`, `rows × dim`, with its own mask. */
export interface AttentionItem {
  readonly x: FloatArray;
  readonly rows: number;
  /** Position of the first row. */
  readonly start: number;
  /** One number per key row, 0 = masked. */
  readonly mask: FloatArray | null;
  readonly context: { readonly rows: number; readonly data: FloatArray; readonly mask: FloatArray | null } | null;
  /** `rows × dim`: gets gain · output added. */
  readonly target: FloatArray;
}

type Dense = { readonly q: Linear; readonly k: Linear; readonly v: Linear };

export class AttentionLayer implements AsyncDisposable {
  readonly #kept = new Map<AttentionItem, FloatArray>();
  /** Local heads of rows that come a few at a time. */
  #history: LocalHistory | null = null;

  private constructor(
    readonly layout: AttentionLayout,
    readonly settings: AttentionSettings,
    readonly index: number,
    readonly global: (Dense & { readonly session: RuledSession }) | null,
    readonly local: (Dense & { readonly table: FloatArray }) | null,
    readonly out: Linear,
  ) {}

  static async open(
    backend: Backend,
    weights: Weights,
    layout: AttentionLayout,
    settings: AttentionSettings,
    index: number,
  ): Promise<AttentionLayer> {
    const { heads, kvHeads, headDim, local } = layout;
    const globalHeads = heads - (local?.heads ?? 0);
    const globalKeys = kvHeads - (local?.heads ?? 0);
    const { tileRows } = settings;
    const part = (dense: DenseLayout, from: number, to: number) =>
      weights.linear(backend, dense, tileRows, { rows: [from * headDim, to * headDim] });
    const parts = async (q: readonly [number, number], kv: readonly [number, number]): Promise<Dense> => ({
      q: await part(layout.q, ...q),
      k: await part(layout.k, ...kv),
      v: await part(layout.v, ...kv),
    });
    const plan = globalHeads === 0 ? null : await planOf(weights, layout, settings, globalHeads, globalKeys);
    const global = plan && {
      ...await parts([0, globalHeads], [0, globalKeys]),
      session: await settings.prepare(backend, plan, index),
    };
    if (global) await settings.watcher?.open(index, plan!, global.session);
    const windows = !local ? null : {
      ...await parts([globalHeads, heads], [globalKeys, kvHeads]),
      table: await weights.tensor(local.tensor, "f64"),
    };
    const out = await weights.linear(backend, layout.out, tileRows);
    return new AttentionLayer(layout, settings, index, global, windows, out);
  }

  /** Causal, as self attention of a causal model is. */
  get causal(): boolean {
    return this.settings.causal && this.layout.kind === "self";
  }

  get #globalWidth(): number {
    const { heads, headDim, local } = this.layout;
    return (heads - (local?.heads ?? 0)) * headDim;
  }

  get #keyWidth(): number {
    const { kvHeads, headDim, local } = this.layout;
    return (kvHeads - (local?.heads ?? 0)) * headDim;
  }

  /** Operations for `rows` queries and `keys` keys. */
  flops(rows: number, keys = rows): number {
    const { q, k, v, out, features, headDim, heads, local } = this.layout;
    const dense = 2 *
      (rows * (q.inputs * q.outputs + out.inputs * out.outputs) + keys * (k.inputs * k.outputs + v.inputs * v.outputs));
    const { kernel } = this.settings;
    const globalHeads = heads - (local?.heads ?? 0);
    if (kernel === "exact-softmax") {
      const pairs = this.causal ? rows * (rows + 1) / 2 : rows * keys;
      return dense + globalHeads * pairs * 4 * headDim;
    }
    const m = kernel === "no-projection" ? headDim : features;
    const projected = kernel === "no-projection" ? 0 : 2 * m * headDim;
    const linear = globalHeads * (rows + keys) * (projected + 2 * m * headDim);
    return dense + linear + (local ? localFlops({ ...this.#localShape(rows), heads: local.heads }) : 0);
  }

  #localShape(rows: number) {
    const { headDim, local } = this.layout;
    return { rows, headDim, heads: local!.heads, window: local!.window, era: local!.era, causal: this.causal };
  }

  /** Adds gain · attention to the targets of all items (batch items: some rules look at all of them first). */
  async run(items: readonly AttentionItem[], gain: number, room: Room): Promise<void> {
    this.#reserve(Math.max(...items.flatMap(({ rows, context }) => [rows, context?.rows ?? 0])), room);
    const surveys = this.global?.session.surveys ?? false;
    const together = surveys && rulesNamed(this.settings.rules).keyTop === "all";
    if (together) { for (const item of items) await this.#survey(item, room, items.length); }
    for (const [index, item] of items.entries()) {
      if (surveys && !together) await this.#survey(item, room, 1);
      const local = this.local ? await this.#attendLocally(item) : null;
      if (this.global && !this.causal) await this.#absorbAll(item, index, room);
      await this.#emitAll(item, index, local, gain, room);
      if (this.global) await this.settings.watcher?.finish(this.index, index);
      this.#kept.delete(item);
      await this.global?.session.reset();
    }
  }

  /** What the keys of an item come to, for sessions whose keys add up. */
  async keys(item: AttentionItem, room: Room): Promise<State> {
    this.#reserve(item.rows, room);
    await this.#absorbAll(item, 0, room);
    return await this.global!.session.sums!.save();
  }

  /** Adds gain · attention to the target of an item whose rows see the keys of a state, and causally those among themselves. */
  async answer(item: AttentionItem, state: State, gain: number, room: Room): Promise<void> {
    this.#reserve(item.rows, room);
    await this.global!.session.sums!.load(state);
    await this.#emitAll(item, 0, null, gain, room);
  }

  /**
   * Causal self attention of rows that follow those of earlier calls: at most `tileRows`, `x.start` is the position of the first.
   * Adds gain · output to `target`, `rows × dim`. Not to be mixed with `run`.
   */
  async extend(x: Tile, target: FloatArray, gain: number, room: Room): Promise<void> {
    const item: AttentionItem = { x: x.data, rows: x.rows, start: 0, mask: null, context: null, target };
    this.#reserve(x.rows, room);
    const local = this.local ? await this.#extendLocally(x) : null;
    const [, query] = await this.#query(item, x, room, 0);
    const global = query && await this.#emit(item, 0, x, query, room);
    const heads = local === null ? global! : this.#joined({ ...x, start: 0 }, global, local, room);
    const result = await this.out.run(heads, room.take("result", x.rows * this.layout.out.outputs));
    addTile(target, { ...result, start: 0 }, gain);
  }

  /** Takes the memory of tiles that will be made while others are in flight. */
  #reserve(rows: number, room: Room): void {
    if (!this.global) return;
    const numbers = Math.min(rows, this.settings.tileRows) * this.#globalWidth;
    for (const role of ["q", "k", "v"]) for (const turn of [0, 1]) room.take(`${role} ${turn}`, numbers);
  }

  async #extendLocally(x: Tile): Promise<FloatArray> {
    const { q, k, v, table } = this.local!;
    const { rows: _, ...shape } = this.#localShape(x.rows);
    this.#history ??= new LocalHistory(shape, table);
    const [queries, keys, values] = [await q.run(x), await k.run(x), await v.run(x)];
    return this.#history.extend(queries.data, keys.data, values.data);
  }

  /** Forgets all rows of `extend`. */
  async restart(): Promise<void> {
    this.#history = null;
    await this.global?.session.reset();
  }

  /** Shows all keys of an item to the session, and keeps them where there is room. */
  async #survey(item: AttentionItem, room: Room, share: number): Promise<void> {
    const { rows } = this.#keySide(item);
    const width = this.#keyWidth;
    const kept = rows * width <= KEPT_KEYS / share ? floats(precisionOf(item.x), rows * width) : null;
    for await (const k of ahead(this.#keyTiles(item), (tile, turn) => this.#keys(item, tile, room, turn))) {
      kept?.set(k.data.subarray(0, k.rows * width), k.start * width);
      await this.global!.session.survey(k);
    }
    if (kept) this.#kept.set(item, kept);
  }

  async #absorbAll(item: AttentionItem, index: number, room: Room): Promise<void> {
    const { mask } = this.#keySide(item);
    for await (
      const [tile, k, v] of ahead(this.#keyTiles(item), (tile, turn) => this.#keyValues(item, tile, room, turn))
    ) {
      await heard(this.settings.signal);
      await this.settings.watcher?.keys(this.index, index, k, mask);
      await this.global!.session.absorb(k, v, maskOf(mask, tile));
    }
  }

  async #emitAll(
    item: AttentionItem,
    index: number,
    local: FloatArray | null,
    gain: number,
    room: Room,
  ): Promise<void> {
    const { q, out } = this.layout;
    const tiles = tilesOf(item.x, item.rows, q.inputs, this.settings.tileRows);
    for await (const [tile, query] of ahead(tiles, (tile, turn) => this.#query(item, tile, room, turn))) {
      await heard(this.settings.signal);
      const global = query && await this.#emit(item, index, tile, query, room);
      const heads = local === null ? global! : this.#joined(tile, global, local, room);
      const result = await this.out.run(heads, room.take("result", tile.rows * out.outputs));
      addTile(item.target, { ...result, start: tile.start }, gain);
    }
  }

  /** The tile itself, its keys and its values, in memory of the turn. */
  async #keyValues(item: AttentionItem, tile: Tile, room: Room, turn: number): Promise<readonly [Tile, Tile, Tile]> {
    const keys = this.#keysOf(item, tile, room, turn);
    const values = this.#dense(this.global!.v, tile, "v", turn, room);
    return [tile, ...await Promise.all([keys, values])];
  }

  /** The tile itself and its queries, null without global heads. */
  async #query(
    item: AttentionItem,
    tile: Tile,
    room: Room,
    turn: number,
  ): Promise<readonly [Tile, Tile | null]> {
    return [tile, this.global && this.#rotated(item, await this.#dense(this.global.q, tile, "q", turn, room))];
  }

  /** Attention of a tile's rows through the session. Causal: with the tile's own keys and values, absorbed afterwards. */
  async #emit(item: AttentionItem, index: number, tile: Tile, q: Tile, room: Room): Promise<Tile> {
    const { session } = this.global!;
    const into = room.take("heads", tile.rows * this.#globalWidth);
    if (!this.causal) return await session.emit(q, null, into);
    const [, k, v] = await this.#keyValues(item, tile, room, 0);
    await this.settings.watcher?.keys(this.index, index, k, item.mask);
    const weights = maskOf(item.mask, tile);
    const answer = await session.emit(q, { k, v, weights }, into);
    await session.absorb(k, v, weights);
    return answer;
  }

  /** Global heads, then local ones, side by side. */
  #joined(tile: Tile, global: Tile | null, local: FloatArray, room: Room): Tile {
    const cols = this.layout.out.inputs;
    const left = this.#globalWidth;
    const right = cols - left;
    const data = room.take("joined", tile.rows * cols);
    for (let row = 0; row < tile.rows; row++) {
      if (global) data.set(global.data.subarray(row * left, (row + 1) * left), row * cols);
      const from = (tile.start + row) * right;
      data.set(local.subarray(from, from + right), row * cols + left);
    }
    return { start: tile.start, rows: tile.rows, cols, data };
  }

  async #attendLocally(item: AttentionItem): Promise<FloatArray> {
    const { q, k, v, table } = this.local!;
    const width = this.layout.local!.heads * this.layout.headDim;
    const whole = async (dense: Linear) => {
      const all = floats(precisionOf(item.x), item.rows * width);
      for (const tile of tilesOf(item.x, item.rows, this.layout.q.inputs, this.settings.tileRows)) {
        await dense.run(tile, all.subarray(tile.start * width, (tile.start + tile.rows) * width));
      }
      return all;
    };
    return attendLocally(this.#localShape(item.rows), await whole(q), await whole(k), await whole(v), table, item.mask);
  }

  #keySide(item: AttentionItem): { rows: number; data: FloatArray; mask: FloatArray | null } {
    if (this.layout.kind === "cross") return item.context!;
    return { rows: item.rows, data: item.x, mask: item.mask };
  }

  #keyTiles(item: AttentionItem): Iterable<Tile> {
    const { rows, data } = this.#keySide(item);
    return tilesOf(data, rows, this.layout.k.inputs, this.settings.tileRows);
  }

  async #dense(dense: Linear, tile: Tile, role: "q" | "k" | "v", turn: number, room: Room): Promise<Tile> {
    const width = role === "q" ? this.#globalWidth : this.#keyWidth;
    const result = await dense.run(tile, room.take(`${role} ${turn}`, tile.rows * width));
    return { ...result, start: tile.start };
  }

  async #keys(item: AttentionItem, tile: Tile, room: Room, turn: number): Promise<Tile> {
    return this.#rotated(item, await this.#dense(this.global!.k, tile, "k", turn, room));
  }

  async #keysOf(item: AttentionItem, tile: Tile, room: Room, turn: number): Promise<Tile> {
    const kept = this.#kept.get(item);
    if (!kept) return await this.#keys(item, tile, room, turn);
    const cols = this.#keyWidth;
    const data = kept.subarray(tile.start * cols, (tile.start + tile.rows) * cols);
    return { start: tile.start, rows: tile.rows, cols, data };
  }

  /** Queries and keys of self attention turn with their positions. */
  #rotated({ start }: AttentionItem, tile: Tile): Tile {
    const placed = { ...tile, start: start + tile.start };
    if (this.layout.kind === "self") rotate(this.settings.rotation, placed, this.layout.headDim);
    return tile;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const own = [this.global?.session, ...[this.global, this.local].flatMap((part) => [part?.q, part?.k, part?.v])];
    for (const part of [...own, this.out]) await part?.[Symbol.asyncDispose]();
    if (this.global) await this.settings.watcher?.close(this.index);
  }
}

/** W of a layer as it is stored, `m × d` in float64; empty where it has none. */
export async function storedProjection(
  weights: Weights,
  { headDim, projection, features }: AttentionLayout,
): Promise<Float64Array> {
  const stored = projection && await weights.tensor(projection.name, "f64");
  const matrix = new Float64Array(stored?.length ?? 0);
  for (let a = 0; stored && a < features; a++) {
    for (let l = 0; l < headDim; l++) {
      matrix[a * headDim + l] = stored[projection!.transposed ? l * features + a : a * headDim + l];
    }
  }
  return matrix;
}

/** The plan of a layer's global heads. */
async function planOf(
  weights: Weights,
  layout: AttentionLayout,
  { rules, kernel, activation, causal, tileRows, watcher }: AttentionSettings,
  heads: number,
  kvHeads: number,
): Promise<RuledPlan> {
  const { headDim, kind } = layout;
  return {
    rules,
    kernel,
    activation,
    projection: kernel === "no-projection" ? new Float64Array() : await storedProjection(weights, layout),
    heads,
    kvHeads,
    headDim,
    valueDim: headDim,
    causal: causal && kind === "self",
    observed: watcher !== undefined && watcher !== null,
    tileRows,
  };
}

function maskOf(mask: FloatArray | null, { start, rows }: Tile): FloatArray | undefined {
  return mask?.subarray(start, start + rows);
}

function precisionOf(array: FloatArray): "f32" | "f64" {
  return array instanceof Float64Array ? "f64" : "f32";
}
