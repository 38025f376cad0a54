/** Rows of some sequences on their way through the layers of a model: what is done to them in each, and in which order. */
import type { Backend } from "../backend.ts";
import { InputError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import { tileRowsFor } from "../plan.ts";
import { prepareRuled } from "../rules.ts";
import type { RulesName } from "../rules_table.ts";
import type { State } from "../state.ts";
import { type FloatArray, floats, type Tile } from "../tensor.ts";
import {
  type AttentionItem,
  AttentionLayer,
  type AttentionSettings,
  type AttentionWatcher,
} from "./attention_layer.ts";
import { type Rotation, rotationOf } from "./rotation.ts";
import type { LayerLayout, ModelLayout } from "./description.ts";
import { embed, type Sequence } from "./embedding.ts";
import { FeedForward } from "./feed_forward.ts";
import type { Ledger } from "./ledger.ts";
import { openOutputs, outputCols, outputFlops } from "./output.ts";
import type { Room } from "./room.ts";
import { gainOf, normalise, shiftTokens } from "./rows.ts";
import { type Norm, Weights } from "./weights.ts";

/** Keys and values of cross attention, `rows × dim`. */
export interface Context {
  readonly rows: number;
  readonly data: FloatArray;
  readonly mask: FloatArray | null;
}

export interface PassOptions {
  readonly container: Container;
  readonly layout: ModelLayout;
  readonly rules: RulesName;
  readonly backend: Backend;
  readonly sequences: readonly Sequence[];
  /** One per sequence where layers attend to a context: rows, or sequences for the encoder of a PerformerEncDec. */
  readonly contexts?: readonly Context[];
  readonly sources?: readonly Sequence[];
  /** The rows before the output layer instead of its outputs. */
  readonly encodings?: boolean;
  /** false: it ends with the last rows. */
  readonly outputs?: boolean;
  /** Shared by passes that go in step. */
  readonly weights?: Weights;
  readonly tileRows?: number;
  /** Name of the input, for messages. */
  readonly input: string;
  readonly watcher?: AttentionWatcher | null;
  readonly signal?: AbortSignal;
  /** Replaces what attention is computed by: for tests that must see wrong rules fail. */
  readonly numerics?: {
    readonly prepare?: AttentionSettings["prepare"];
    readonly rotation?: (rotation: Rotation | null) => Rotation | null;
    readonly norm?: (norm: Norm) => Norm;
  };
}

/** Residual streams of one sequence, `rows × dim`: one, or the two of reversible layers. */
export type Streams = readonly FloatArray[];

/**
 * What a pass goes through: the streams of all sequences behind each layer (valid until the next step), the rows before the output
 * layer, then the outputs, tile by tile.
 */
export type Step =
  | { readonly kind: "layer"; readonly layer: number; readonly streams: readonly Streams[] }
  | { readonly kind: "last"; readonly rows: readonly FloatArray[]; readonly tileRows: number }
  | { readonly kind: "output"; readonly sequence: number; readonly tile: Tile };

/**
 * One pass. `steps` is all of it; `first`, `keys`, `layer` and `output` are its parts, for sequences whose rows are computed in several places:
 * `keys` of all parts add up to what `layer` of each part needs.
 */
export class Pass {
  readonly #layout: ModelLayout;
  readonly #tileRows: number;
  /** What all attention layers share. */
  #shared: Promise<AttentionSettings> | null = null;

  constructor(
    readonly options: PassOptions,
    readonly weights: Weights,
    readonly ledger: Ledger,
    readonly room: Room,
  ) {
    this.#layout = options.layout;
    const { limits } = options.backend;
    // Sessions lengthen rows of keys by a few columns, and double some maps: half of what a tile may take.
    this.#tileRows = tileRowsFor(limits, 2 * widest(options.layout, options.encodings ?? false), options.tileRows);
    if (options.tileRows === undefined) this.#tileRows = Math.min(this.#tileRows, limits.preferredTileRows);
    refuseTooLong(options);
  }

  async *steps(): AsyncGenerator<Step, void> {
    const { signal } = this.options;
    const streams = await this.first();
    for (const index of this.#layout.layers.keys()) {
      signal?.throwIfAborted();
      await this.layer(index, streams);
      yield { kind: "layer", layer: index, streams };
    }
    const last = this.last(streams);
    yield { kind: "last", rows: last, tileRows: this.#tileRows };
    if (this.options.outputs === false) return;
    for await (const output of this.output(last)) yield { kind: "output", ...output };
  }

  /** The streams that enter the first layer. */
  async first(): Promise<Streams[]> {
    const { sequences, input } = this.options;
    const rows = await this.ledger.book("other", () => embed(this.weights, this.#layout, sequences, input));
    return rows.map((x): Streams => this.#layout.flow === "reversible" ? [x, x.slice()] : [x]);
  }

  /** What the keys that a layer makes of these rows come to, for layers whose keys add up; streams stay as they are. */
  async keys(index: number, streams: readonly Streams[]): Promise<State[]> {
    await using open = await this.#open(index);
    const states: State[] = [];
    for (const item of await this.#items(index, streams, open.norm)) {
      states.push(await this.ledger.book("attention", () => open.layer.keys(item, this.room)));
    }
    return states;
  }

  /**
   * Adds a layer to the streams. @param states what rows attend to, one per sequence: all keys, or causally those before these rows; without
   * them rows attend to their own sequence.
   */
  async layer(index: number, streams: readonly Streams[], states: readonly State[] | null = null): Promise<void> {
    await this.#attend(index, streams, states);
    await this.#feedForward(this.#layout.layers[index], streams);
  }

  /** The rows behind the last layer, in the memory of the streams. */
  last(streams: readonly Streams[]): FloatArray[] {
    return streams.map(([x, y]) => {
      if (y) { for (let i = 0; i < x.length; i++) x[i] += y[i]; }
      return x;
    });
  }

  async #settings(): Promise<AttentionSettings> {
    const { rules, numerics, watcher, signal } = this.options;
    const { kernel, activation, causal, rotary } = this.#layout;
    const rotation = await rotationOf(rotary, this.weights);
    return {
      rules,
      kernel,
      activation,
      causal,
      tileRows: this.#tileRows,
      rotation: numerics?.rotation ? numerics.rotation(rotation) : rotation,
      prepare: numerics?.prepare ?? prepareRuled,
      watcher,
      signal,
    };
  }

  async #norm(layout: LayerLayout["attention"]["norm"]): Promise<Norm | null> {
    if (layout === null) return null;
    const norm = await this.weights.norm(layout);
    return this.options.numerics?.norm?.(norm) ?? norm;
  }

  /** The attention of a layer with its norm; disposing gives both back. */
  async #open(index: number): Promise<{ norm: Norm | null; layer: AttentionLayer } & AsyncDisposable> {
    const { attention } = this.#layout.layers[index];
    const settings = await (this.#shared ??= this.#settings());
    const norm = await this.#norm(attention.norm);
    const layer = await this.ledger.book(
      "load",
      () => AttentionLayer.open(this.options.backend, this.weights, attention, settings, index),
    );
    return { norm, layer, [Symbol.asyncDispose]: () => layer[Symbol.asyncDispose]() };
  }

  async #items(index: number, streams: readonly Streams[], norm: Norm | null): Promise<AttentionItem[]> {
    const { sequences, contexts } = this.options;
    const { flow, layers } = this.#layout;
    const { kind, shift } = layers[index].attention;
    return await this.ledger.book("other", () =>
      streams.map((stream, i) => {
        const { length: rows, start = 0, mask } = sequences[i];
        const context = kind === "cross" ? contexts![i] : null;
        const x = this.#input(stream.at(-1)!, i, norm, shift ? { mask } : null);
        const target = flow === "bare" ? floats(this.weights.precision, x.length) : stream[0];
        return { x, rows, start, mask, context, target };
      }));
  }

  async #attend(index: number, streams: readonly Streams[], states: readonly State[] | null) {
    await using open = await this.#open(index);
    const { norm, layer } = open;
    const items = await this.#items(index, streams, norm);
    const gain = gainOf(norm);
    await this.ledger.book("attention", async () => {
      if (!states) return await layer.run(items, gain, this.room);
      for (const [i, item] of items.entries()) await layer.answer(item, states[i], gain, this.room);
    });
    for (const { rows, context } of items) this.ledger.flops.attention += layer.flops(rows, context?.rows);
    if (this.#layout.flow === "bare") items.forEach(({ target }, i) => streams[i][0].set(target));
    await this.#afterNorm(norm, streams);
  }

  async #feedForward({ feedForward }: LayerLayout, streams: readonly Streams[]) {
    if (!feedForward) return;
    const { sequences, backend, signal } = this.options;
    const norm = await this.#norm(feedForward.norm);
    const opened = await this.ledger.book(
      "load",
      () => FeedForward.open(backend, this.weights, feedForward, this.#tileRows),
    );
    await using layer = opened;
    for (const [i, stream] of streams.entries()) {
      const { length: rows } = sequences[i];
      const shift = feedForward.shift ? { mask: null } : null; // no mask reaches these layers
      const x = await this.ledger.book("other", () => this.#input(stream[0], i, norm, shift));
      await this.ledger.book("feedForward", () => layer.run(x, rows, stream.at(-1)!, gainOf(norm), this.room, signal));
      this.ledger.flops.feedForward += layer.flops(rows);
    }
    await this.#afterNorm(norm, streams);
  }

  /** What a layer sees of a stream: the stream itself where norms come after, else its normalised, shifted rows. */
  #input(
    x: FloatArray,
    item: number,
    norm: Norm | null,
    shift: { readonly mask: FloatArray | null } | null,
  ): FloatArray {
    const { dim, flow, causal } = this.#layout;
    if (flow === "post-norm" || flow === "bare") return x;
    const rows = this.options.sequences[item].length;
    const out = this.room.take(`rows of sequence ${item}`, rows * dim);
    normalise(norm, x, out, rows, dim);
    if (shift) shiftTokens(out, rows, dim, causal, shift.mask);
    return out;
  }

  async #afterNorm(norm: Norm | null, streams: readonly Streams[]): Promise<void> {
    const { flow, dim } = this.#layout;
    if (flow !== "post-norm") return;
    await this.ledger.book("other", () => {
      for (const [x] of streams) normalise(norm, x, x, x.length / dim, dim);
    });
  }

  /** Outputs of last rows, tile by tile. */
  async *output(last: readonly FloatArray[]): AsyncGenerator<{ sequence: number; tile: Tile }, void> {
    const { backend, sequences, encodings = false } = this.options;
    const settings = { tileRows: this.#tileRows, encodings, ledger: this.ledger };
    const opened = await this.ledger.book("load", () => openOutputs(backend, this.weights, this.#layout, settings));
    await using outputs = opened;
    for (const [sequence, x] of last.entries()) {
      for await (const tile of outputs.of(x, sequences[sequence].length)) yield { sequence, tile };
    }
    const rows = sequences.reduce((sum, { length }) => sum + length, 0);
    this.ledger.flops.other += outputFlops(this.#layout, encodings, rows, sequences.length);
  }
}

/** Columns of the widest rows that a tile of this model has. */
function widest(layout: ModelLayout, encodings: boolean): number {
  const layers = layout.layers.flatMap(({ attention, feedForward }) => {
    return [attention.q.outputs, feedForward?.first.outputs ?? 0];
  });
  return Math.max(layout.dim, outputCols(layout, encodings), ...layers);
}

function refuseTooLong({ layout, sequences, input, container, encodings = false }: PassOptions): void {
  const { maxLength, output } = layout;
  const longest = Math.max(0, ...sequences.map(({ start = 0, length }) => start + length));
  if (maxLength !== null && longest > maxLength) {
    throw new InputError(
      `Cannot run "${input}": it has ${longest} rows, "${container.path}" takes at most ${maxLength}`,
    );
  }
  if (!encodings && output.kind === "scbert-classifier" && sequences.some(({ length }) => length !== maxLength)) {
    throw new InputError(
      `Cannot run "${input}": it has ${longest} rows, the classifier of "${container.path}" takes ${maxLength}`,
    );
  }
}
