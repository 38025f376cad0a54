/** A checkpoint as a function of tokens. */
import type { Backend } from "../backend.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { readConfiguration, runnable } from "../commands/model_files.ts";
import { InputError, UsageError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import { openContainer } from "../formats/mod.ts";
import type { ModelLayout } from "../model/description.ts";
import type { Sequence } from "../model/embedding.ts";
import { forward } from "../model/forward.ts";
import { generate } from "../model/generation.ts";
import { isClassifier, outputCols } from "../model/output.ts";
import { recognise } from "../model/recognise.ts";
import { type RulesName, statefulRules } from "../rules_table.ts";
import { floats } from "../tensor.ts";
import { asTensor, type Rows, type Tensor, tensor } from "./tensor.ts";

/** How a checkpoint is read. */
export interface ModelOptions {
  /** A JSON file with what the tensors cannot tell (`--config`). */
  readonly config?: string;
  /** Which model of a checkpoint that holds several. */
  readonly part?: string;
  /** Whose numerics; by default those of the system that made the checkpoint. */
  readonly compat?: RulesName;
  /** An open backend, or what `openBackend` takes; "auto" by default. */
  readonly backend?: Backend | string;
}

/** How tokens are chosen. */
export interface GenerateSettings {
  /** Tokens to make; 100 by default. */
  readonly tokens?: number;
  /** Logits are divided by it; 0 takes the likeliest token. Default 1. */
  readonly temperature?: number;
  /** Only the K likeliest tokens; all by default. */
  readonly topK?: number;
  /** Only the likeliest tokens that have probability P together; all by default. */
  readonly topP?: number;
  /** The same seed makes the same tokens; 0 by default. */
  readonly seed?: number;
  /** The token that ends the text. */
  readonly stop?: number;
  /** Stops between tokens. */
  readonly signal?: AbortSignal;
}

/**
 * Opens a checkpoint of a family that `performer inspect` recognises. Its layers are read from the file when they are needed; close it
 * with `await using`. Throws InputError for what is no model, UsageError where it cannot be run.
 */
export async function loadModel(path: string, options: ModelOptions = {}): Promise<LoadedModel> {
  await using open = new AsyncDisposableStack();
  const container = open.use(await openContainer(path));
  const configuration = await readConfiguration(options.config);
  const description = recognise(path, container.members, { configuration, part: options.part });
  const layout = runnable(path, description);
  const { backend: wish = "auto" } = options;
  const backend = typeof wish === "string" ? open.use((await openFirst(parseBackendList(wish))).backend) : wish;
  const rules = options.compat ?? description.rules;
  return new LoadedModel({ container, layout, rules, backend, title: description.title }, open.move());
}

interface Parts {
  readonly container: Container;
  readonly layout: ModelLayout;
  readonly rules: RulesName;
  readonly backend: Backend;
  readonly title: string;
}

/** A model that is ready to run; made by `loadModel`. */
export class LoadedModel implements AsyncDisposable {
  readonly #parts: Parts;
  readonly #open: AsyncDisposableStack;

  /** Use `loadModel`. */
  constructor(parts: Parts, open: AsyncDisposableStack) {
    this.#parts = parts;
    this.#open = open;
  }

  /** The model in words. */
  get title(): string {
    return this.#parts.title;
  }

  /** Dimensions, layers and how they are wired. */
  get layout(): ModelLayout {
    return this.#parts.layout;
  }

  /** Whose numerics it has. */
  get rules(): RulesName {
    return this.#parts.rules;
  }

  /**
   * The outputs of one sequence, `[L, outputs]`: logits, or with `encodings` the rows before the output layer; a classifier has `[1, classes]`.
   * @param input token numbers, or rows `[L, dim]` for a model without an embedding @param options.mask one number per token, 0 = hidden
   */
  async run(
    input: ArrayLike<number> | Rows,
    options: { readonly mask?: ArrayLike<number>; readonly encodings?: boolean; readonly signal?: AbortSignal } = {},
  ): Promise<Tensor> {
    const { layout, container, rules, backend } = this.#parts;
    const { encodings = false, signal } = options;
    const crosses = layout.encoder || layout.layers.some(({ attention }) => attention.kind === "cross");
    if (crosses) {
      throw new UsageError(`Cannot run "${container.path}" here: it attends to a context, use performer run --context`);
    }
    const sequence = await this.#sequence(input, options.mask);
    const cols = outputCols(layout, encodings);
    const rows = isClassifier(layout, encodings) ? 1 : sequence.length;
    const data = floats(backend.limits.precision, rows * cols);
    await forward({
      container,
      layout,
      rules,
      backend,
      encodings,
      signal,
      sequences: [sequence],
      input: "the input",
      write: async (_, tile) => data.set(tile.data.subarray(0, tile.rows * cols), tile.start * cols),
    });
    return tensor(data, [rows, cols]);
  }

  /**
   * Tokens after a prompt, one by one, at constant time and memory per token. @param prompt token numbers, or text where tokens are bytes
   * Throws UsageError for a model that is not causal or has no running state.
   */
  async *generate(prompt: string | readonly number[], settings: GenerateSettings = {}): AsyncGenerator<number> {
    const { layout, container, backend } = this.#parts;
    const { tokens = 100, temperature = 1, topK = null, topP = null, seed = 0, stop = null, signal } = settings;
    if (!layout.embedding) throw new UsageError("Cannot generate: the model takes rows, not tokens");
    if (typeof prompt === "string" && layout.embedding.tokens !== 256) {
      throw new UsageError(`Cannot read text: the model has ${layout.embedding.tokens} tokens, not the 256 bytes`);
    }
    const start = typeof prompt === "string" ? Array.from(new TextEncoder().encode(prompt)) : prompt;
    if (start.length === 0) throw new InputError("Cannot generate: the prompt is empty, expected at least one token");
    const rules = statefulRules(this.#parts.rules);
    const sampling = { temperature, topK, topP, repetitionPenalty: 1, repetitionContext: 0 };
    const stream = { container, layout, rules, backend, signal, sampling, tokens, seed, stop };
    for await (const { token } of generate({ ...stream, prompt: start, sequence: 0, recompute: false })) yield token;
  }

  /** Closes the file, and the backend where it was opened for the model. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#open[Symbol.asyncDispose]();
  }

  async #sequence(input: ArrayLike<number> | Rows, given: ArrayLike<number> | undefined): Promise<Sequence> {
    const { layout, container } = this.#parts;
    const mask = given === undefined ? null : Float64Array.from(given, (value) => value === 0 ? 0 : 1);
    const checked = (sequence: Sequence): Sequence => {
      if (sequence.length === 0) throw new InputError(`Cannot run "${container.path}": the input is empty`);
      if (!mask || mask.length === sequence.length) return sequence;
      throw new UsageError(`Cannot use a mask of ${mask.length} numbers: expected ${sequence.length}`);
    };
    if (layout.embedding) {
      const tokens = Int32Array.from(input as ArrayLike<number>);
      const wrong = tokens.findIndex((token, at) => token !== (input as ArrayLike<number>)[at]);
      if (wrong >= 0) {
        throw new InputError(
          `Cannot run "${container.path}": number ${wrong} is ${
            (input as ArrayLike<number>)[wrong]
          }, expected whole numbers`,
        );
      }
      return checked({ length: tokens.length, tokens, rows: null, mask });
    }
    const rows = await asTensor(input as Rows, "the input").read();
    const { rows: length, heads, width } = rows.info;
    if (heads * width !== layout.dim) {
      throw new InputError(
        `Cannot run "${container.path}": rows have ${heads * width} numbers, expected ${layout.dim}`,
      );
    }
    return checked({ length, tokens: null, rows: rows.data, mask });
  }
}
