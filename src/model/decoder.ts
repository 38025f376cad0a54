/**
 * A causal model token by token: every layer keeps the running state of its attention, so that a token costs the same wherever it
 * stands. Dense layers run on a backend; the attention of a few rows runs in float64 on the host, where it costs least.
 */
import type { Backend } from "../backend.ts";
import { scalar } from "../backends/scalar.ts";
import { InputError, UsageError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import { prepareRuled } from "../rules.ts";
import { leaksFuture, type RulesName } from "../rules_table.ts";
import { type FloatArray, floats, type Tile } from "../tensor.ts";
import { AttentionLayer, type AttentionSettings } from "./attention_layer.ts";
import { rotationOf } from "./rotation.ts";
import type { LayerLayout, ModelLayout } from "./description.ts";
import { Embedding } from "./embedding.ts";
import { FeedForward } from "./feed_forward.ts";
import { openHead, type OutputHead } from "./output.ts";
import { Room } from "./room.ts";
import { gainOf, normalise, shiftTokens } from "./rows.ts";
import { type Norm, Weights } from "./weights.ts";

/** Milliseconds after which signals are let through. */
const BREATH = 50;
/** Rows of a prompt that go through the layers together. */
const CHUNK = 64;

export interface DecoderOptions {
  readonly container: Container;
  readonly layout: ModelLayout;
  /** Not one under which the future leaks: a running state cannot know it. */
  readonly rules: RulesName;
  readonly backend: Backend;
  /** Tokens that there will be in all, prompt included. */
  readonly positions: number;
}

interface Part<T> {
  readonly layer: T;
  readonly norm: Norm | null;
  /** Token shift: the normalised row before the next one. */
  readonly before: FloatArray | null;
}

interface Layer {
  readonly attention: Part<AttentionLayer>;
  readonly feedForward: Part<FeedForward> | null;
}

export class Decoder implements AsyncDisposable {
  #position = 0;
  #breathed = performance.now();

  private constructor(
    readonly options: DecoderOptions,
    readonly embedding: Embedding,
    readonly layers: readonly Layer[],
    readonly head: OutputHead,
    readonly room: Room,
    readonly open: AsyncDisposableStack,
  ) {}

  /** Loads all layers. Throws UsageError for what cannot go on from a state: not causal, rules that leak, too many positions. */
  static async open(options: DecoderOptions): Promise<Decoder> {
    const { container, layout, backend, rules } = options;
    refuse(options);
    await using open = new AsyncDisposableStack();
    const weights = new Weights(container, backend.limits.precision);
    const embedding = await Embedding.open(weights, layout, options.positions);
    const host = open.use(await scalar.open({ named: true }));
    const settings: AttentionSettings = {
      rules,
      kernel: layout.kernel,
      activation: layout.activation,
      causal: true,
      tileRows: CHUNK,
      rotation: await rotationOf(layout.rotary, weights, options.positions),
      prepare: (_, plan) => prepareRuled(host, plan),
    };
    const layers: Layer[] = [];
    for (const [index, { attention, feedForward }] of layout.layers.entries()) {
      layers.push({
        attention: {
          layer: open.use(await AttentionLayer.open(backend, weights, attention, settings, index)),
          ...await partOf(weights, attention, layout.dim),
        },
        feedForward: feedForward && {
          layer: open.use(await FeedForward.open(backend, weights, feedForward, CHUNK)),
          ...await partOf(weights, feedForward, layout.dim),
        },
      });
    }
    const head = open.use(await openHead(backend, weights, layout, CHUNK, false));
    const room = open.use(new Room(backend));
    return new Decoder(options, embedding, layers, head, room, open.move());
  }

  /** Tokens that have gone through. */
  get position(): number {
    return this.#position;
  }

  /** Takes tokens that follow the earlier ones; returns the logits after the last of them. Throws when `signal` was aborted. */
  async advance(tokens: readonly number[], signal?: AbortSignal): Promise<FloatArray> {
    const { dim } = this.options.layout;
    let last: FloatArray = floats(this.options.backend.limits.precision, 0);
    for (let from = 0; from < tokens.length; from += CHUNK) {
      await this.#breathe(signal);
      const rows = await this.#rows(Int32Array.from(tokens.slice(from, from + CHUNK)));
      last = rows.subarray(rows.length - dim);
    }
    const logits = await this.head.run({ start: this.#position - 1, rows: 1, cols: dim, data: last });
    return logits.data;
  }

  /** Takes tokens for so many seconds and forgets them: compilers settle before a clock starts. */
  async warmUp(tokens: readonly number[], seconds: number, signal?: AbortSignal): Promise<void> {
    const end = performance.now() + 1000 * seconds;
    await this.advance(tokens, signal);
    while (performance.now() < end) {
      if (this.#position >= this.options.positions) await this.#restart();
      await this.advance(tokens.slice(-1), signal);
    }
    await this.#restart();
  }

  /** Lets signals through from time to time: a token may be made without ever waiting for anything. */
  async #breathe(signal?: AbortSignal): Promise<void> {
    if (performance.now() - this.#breathed < BREATH) return;
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#breathed = performance.now();
    signal?.throwIfAborted();
  }

  async #restart(): Promise<void> {
    this.#position = 0;
    for (const { attention, feedForward } of this.layers) {
      await attention.layer.restart();
      attention.before?.fill(0);
      feedForward?.before?.fill(0);
    }
  }

  /** Last hidden rows of at most CHUNK tokens. */
  async #rows(tokens: Int32Array): Promise<FloatArray> {
    const { layout, container } = this.options;
    const start = this.#position;
    const x = this.embedding.rows(tokens, start, (token) =>
      new InputError(
        `Cannot continue with token ${token}: "${container.path}" has ${this.embedding.tokens} tokens`,
      ));
    const second = layout.flow === "reversible" ? x.slice() : x;
    for (const { attention, feedForward } of this.layers) {
      const seen = this.#input(attention, second, start);
      await attention.layer.extend(seen, x, gainOf(attention.norm), this.room);
      if (!feedForward) continue;
      const rows = this.#input(feedForward, x, start);
      await feedForward.layer.run(rows.data, rows.rows, second, gainOf(feedForward.norm), this.room);
    }
    if (second !== x) { for (let i = 0; i < x.length; i++) x[i] += second[i]; }
    this.#position += tokens.length;
    return x;
  }

  /** What a layer sees of a stream: normalised rows, shifted where the layer shifts tokens. */
  #input({ norm, before }: Part<unknown>, x: FloatArray, start: number): Tile {
    const { dim } = this.options.layout;
    const rows = x.length / dim;
    const data = this.room.take("rows", x.length);
    normalise(norm, x, data, rows, dim);
    if (before) {
      const all = floats(this.options.backend.limits.precision, (rows + 1) * dim);
      all.set(before);
      all.set(data, dim);
      before.set(data.subarray((rows - 1) * dim));
      shiftTokens(all, rows + 1, dim, true, null);
      data.set(all.subarray(dim));
    }
    return { start, rows, cols: dim, data };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.open.disposeAsync();
  }
}

async function partOf(
  weights: Weights,
  { norm, shift }: LayerLayout["attention"] | NonNullable<LayerLayout["feedForward"]>,
  dim: number,
): Promise<Omit<Part<unknown>, "layer">> {
  return { norm: norm && await weights.norm(norm), before: shift ? floats(weights.precision, dim) : null };
}

function refuse({ container, layout, rules, positions }: DecoderOptions): void {
  const { path } = container;
  if (!layout.causal) {
    throw new UsageError(`Cannot generate with "${path}": it is not causal; say so with --config where it is`);
  }
  if (layout.flow !== "sequential" && layout.flow !== "reversible") {
    throw new UsageError(
      `Cannot generate with "${path}" from a running state: its layers are ${layout.flow}; use --recompute`,
    );
  }
  if (!layout.embedding || layout.output.kind === "none" || layout.output.kind === "scbert-classifier") {
    throw new UsageError(`Cannot generate with "${path}": it does not make tokens from tokens`);
  }
  if (layout.kernel === "exact-softmax") {
    throw new UsageError(
      `Cannot generate with "${path}" from a running state: exact attention has none of constant size; use --recompute`,
    );
  }
  if (leaksFuture(rules)) {
    throw new UsageError(
      `Cannot generate from a running state under ${rules} rules: their key maximum is one over the whole sequence, so that ` +
        "later keys change earlier rows; use --compat lucidrains-causal or --recompute",
    );
  }
  const grows = layout.positions.kind === "sinusoid" || layout.positions.kind === "none";
  if (layout.maxLength !== null && positions > layout.maxLength && !grows) {
    throw new UsageError(
      `Cannot generate up to position ${positions}: "${path}" has learned ${layout.maxLength} positions; ask for fewer tokens, ` +
        "or use --recompute, which forgets the first ones",
    );
  }
}
