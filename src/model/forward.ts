/**
 * A forward pass. Activations are host arrays `rows × dim`; every dense layer and the attention of global heads run on a backend,
 * tile by tile; layers are read from the file one after the other and given back, so that a model never stands in memory whole.
 */
import type { Backend } from "../backend.ts";
import { InputError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import { tileRowsFor } from "../plan.ts";
import { prepareRuled } from "../rules.ts";
import type { RulesName } from "../rules_table.ts";
import { type FloatArray, floats, type Tile } from "../tensor.ts";
import { AttentionLayer, type AttentionSettings, type AttentionWatcher } from "./attention_layer.ts";
import { type Rotation, rotationOf } from "./rotation.ts";
import type { LayerLayout, ModelLayout } from "./description.ts";
import { embed, type Sequence } from "./embedding.ts";
import { FeedForward } from "./feed_forward.ts";
import { Ledger } from "./ledger.ts";
import { classify, isClassifier, openHead, outputCols, outputFlops, outputTiles } from "./output.ts";
import { Room } from "./room.ts";
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

export interface ForwardOptions extends PassOptions {
  /** Gets the outputs of all sequences in order, tile by tile; a classifier makes one row per sequence. */
  readonly write: (sequence: number, tile: Tile) => Promise<void>;
  readonly progress?: (layer: number, layers: number) => void;
}

/** Residual streams of one sequence, `rows × dim`: one, or the two of reversible layers. */
export type Streams = readonly FloatArray[];

/** What a pass goes through: the streams of all sequences behind each layer (valid until the next step), then the outputs. */
export type Step =
  | { readonly kind: "layer"; readonly layer: number; readonly streams: readonly Streams[] }
  | { readonly kind: "output"; readonly sequence: number; readonly tile: Tile };

/** Runs a model over all sequences; returns where time and arithmetic went. */
export async function forward(options: ForwardOptions): Promise<Ledger> {
  const ledger = new Ledger();
  for await (const step of forwardSteps(options, ledger)) {
    if (step.kind === "output") await options.write(step.sequence, step.tile);
    else options.progress?.(step.layer + 1, options.layout.layers.length);
  }
  return ledger;
}

/** The same step by step, so that several passes can be compared as they go. */
export async function* forwardSteps(options: PassOptions, ledger = new Ledger()): AsyncGenerator<Step, void> {
  const weights = new Weights(options.container, options.backend.limits.precision);
  const { layout, sources } = options;
  using room = new Room(options.backend);
  const contexts = layout.encoder
    ? await encode(options, layout.encoder, sources!, weights, ledger, room)
    : options.contexts;
  yield* new Pass({ ...options, contexts }, weights, ledger, room).steps();
}

/** The encoder's last rows of every source sequence. */
async function encode(
  options: PassOptions,
  layout: ModelLayout,
  sources: readonly Sequence[],
  weights: Weights,
  ledger: Ledger,
  room: Room,
): Promise<Context[]> {
  const contexts = sources.map(({ length, mask }) => {
    return { rows: length, mask, data: floats(weights.precision, length * layout.dim) };
  });
  const inner = { ...options, layout, sequences: sources, encodings: true, watcher: null };
  for await (const step of new Pass(inner, weights, ledger, room).steps()) {
    if (step.kind !== "output") continue;
    const { start, rows, cols, data } = step.tile;
    contexts[step.sequence].data.set(data.subarray(0, rows * cols), start * cols);
  }
  return contexts;
}

class Pass {
  readonly #layout: ModelLayout;
  readonly #tileRows: number;

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
    const { sequences, input, signal } = this.options;
    const { layers, dim, flow } = this.#layout;
    const first = await this.ledger.book("other", () => embed(this.weights, this.#layout, sequences, input));
    const streams = first.map((x): Streams => flow === "reversible" ? [x, x.slice()] : [x]);
    const settings = await this.#settings();
    for (const [index, layer] of layers.entries()) {
      signal?.throwIfAborted();
      await this.#attend(layer, index, streams, settings);
      await this.#feedForward(layer, streams);
      yield { kind: "layer", layer: index, streams };
    }
    const last = streams.map(([x, y]) => {
      if (y) { for (let i = 0; i < x.length; i++) x[i] += y[i]; }
      return x;
    });
    yield* this.#output(last, dim);
  }

  async #settings(): Promise<AttentionSettings> {
    const { rules, numerics, watcher } = this.options;
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
    };
  }

  async #norm(layout: LayerLayout["attention"]["norm"]): Promise<Norm | null> {
    if (layout === null) return null;
    const norm = await this.weights.norm(layout);
    return this.options.numerics?.norm?.(norm) ?? norm;
  }

  async #attend({ attention }: LayerLayout, index: number, streams: readonly Streams[], settings: AttentionSettings) {
    const { sequences, contexts, backend } = this.options;
    const { flow } = this.#layout;
    const norm = await this.#norm(attention.norm);
    const opened = await this.ledger.book(
      "load",
      () => AttentionLayer.open(backend, this.weights, attention, settings, index),
    );
    await using layer = opened;
    const items = await this.ledger.book("other", () =>
      streams.map((stream, i) => {
        const { length: rows, mask } = sequences[i];
        const context = attention.kind === "cross" ? contexts![i] : null;
        const x = this.#input(stream.at(-1)!, i, norm, attention.shift ? { mask } : null);
        const target = flow === "bare" ? floats(this.weights.precision, x.length) : stream[0];
        return { x, rows, mask, context, target };
      }));
    await this.ledger.book("attention", () => layer.run(items, gainOf(norm), this.room));
    for (const { rows, context } of items) this.ledger.flops.attention += layer.flops(rows, context?.rows);
    if (flow === "bare") items.forEach(({ target }, i) => streams[i][0].set(target));
    await this.#afterNorm(norm, streams);
  }

  async #feedForward({ feedForward }: LayerLayout, streams: readonly Streams[]) {
    if (!feedForward) return;
    const { sequences, backend } = this.options;
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
      await this.ledger.book("feedForward", () => layer.run(x, rows, stream.at(-1)!, gainOf(norm), this.room));
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

  async *#output(last: readonly FloatArray[], dim: number): AsyncGenerator<Step, void> {
    const { backend, sequences, encodings = false } = this.options;
    const classifier = isClassifier(this.#layout, encodings);
    const opened = await this.ledger.book(
      "load",
      () => openHead(backend, this.weights, this.#layout, this.#tileRows, encodings || classifier),
    );
    await using head = opened;
    for (const [i, x] of last.entries()) {
      const { length: rows } = sequences[i];
      const normal = classifier ? floats(this.weights.precision, rows * dim) : null;
      for await (const tile of outputTiles(head, x, { rows, dim, tileRows: this.#tileRows }, this.ledger)) {
        if (normal) normal.set(tile.data.subarray(0, tile.rows * dim), tile.start * dim);
        else yield { kind: "output", sequence: i, tile };
      }
      const { output } = this.#layout;
      if (!normal || output.kind !== "scbert-classifier") continue;
      const data = await this.ledger.book("other", () => classify(this.weights, output, normal, dim));
      yield { kind: "output", sequence: i, tile: { start: 0, rows: 1, cols: data.length, data } };
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
  const longest = Math.max(0, ...sequences.map(({ length }) => length));
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
