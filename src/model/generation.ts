/** Tokens one after the other: from a running state, or by a whole forward pass for each. */
import { UsageError } from "../errors.ts";
import { RandomStream } from "../random.ts";
import type { FloatArray } from "../tensor.ts";
import { Decoder, type DecoderOptions } from "./decoder.ts";
import { forward } from "./forward.ts";
import { likeliest, nextToken, type Sampling } from "./sampling.ts";

export interface GenerateOptions extends Omit<DecoderOptions, "positions"> {
  readonly prompt: readonly number[];
  readonly tokens: number;
  readonly sampling: Sampling;
  readonly seed: number;
  /** Which of several prompts this is: each has its own random numbers. */
  readonly sequence: number;
  /** Ends the text; null = none does. */
  readonly stop: number | null;
  /** A whole forward pass over the last `layout.maxLength` tokens for every token. */
  readonly recompute: boolean;
  /** Seconds of decoding that is thrown away before the first token; 0 = none. */
  readonly warmUp?: number;
  readonly signal?: AbortSignal;
}

/** A new token and the seconds it took; those of the first include the prompt. */
export interface Generated {
  readonly token: number;
  readonly seconds: number;
}

/** Generates up to `tokens` tokens after the prompt. Throws what `Decoder.open` throws. */
export async function* generate(options: GenerateOptions): AsyncGenerator<Generated> {
  const { prompt, tokens, sampling, seed, sequence, stop, recompute, signal } = options;
  refuseContext(options);
  const random = new RandomStream(seed, 0x67e4e2a7, sequence);
  await using decoder = recompute ? null : await Decoder.open({ ...options, positions: prompt.length + tokens });
  const all = [...prompt];
  if (options.warmUp) await decoder?.warmUp(prompt, options.warmUp, signal);
  let from = performance.now();
  let logits = decoder ? await decoder.advance(prompt, signal) : await lastLogits(options, all);
  for (let made = 0; made < tokens; made++) {
    const token = nextToken(logits, all, sampling, random);
    all.push(token);
    const now = performance.now();
    yield { token, seconds: (now - from) / 1000 };
    signal?.throwIfAborted();
    if (token === stop || made + 1 === tokens) return;
    from = performance.now();
    logits = decoder ? await decoder.advance([token], signal) : await lastLogits(options, all);
  }
}

function refuseContext({ container, layout }: GenerateOptions): void {
  if (layout.layers.every(({ attention }) => attention.kind === "self")) return;
  throw new UsageError(
    `Cannot generate with "${container.path}": its cross attention sees a context, which only \`performer run --context\` takes`,
  );
}

type Model = Pick<GenerateOptions, "container" | "layout" | "rules" | "backend" | "signal">;

/** Logits of a whole forward pass, `rows × tokens`, over the last tokens that the model takes. */
async function allLogits(model: Model, tokens: readonly number[]): Promise<{ rows: number; data: Float64Array }> {
  const taken = tokens.slice(-(model.layout.maxLength ?? tokens.length));
  const width = model.layout.embedding!.tokens;
  const data = new Float64Array(taken.length * width);
  await forward({
    ...model,
    sequences: [{ length: taken.length, tokens: Int32Array.from(taken), rows: null, mask: null }],
    input: "the prompt and what was generated",
    write: async (_, tile) => data.set(tile.data.subarray(0, tile.rows * width), tile.start * width),
  });
  return { rows: taken.length, data };
}

async function lastLogits(model: Model, tokens: readonly number[]): Promise<FloatArray> {
  const { rows, data } = await allLogits(model, tokens);
  return data.subarray((rows - 1) * (data.length / rows));
}

/** How far whole forward passes under two profiles are apart. */
export interface Distance {
  readonly rows: number;
  /** ‖a − b‖ / ‖b‖ over the logits of all rows. */
  readonly relativeL2: number;
  /** Share of rows whose likeliest token is the same. */
  readonly sameToken: number;
}

/** Compares the logits of `tokens` under the model's rules with those under `other`. */
export async function distanceFrom(other: Model["rules"], model: Model, tokens: readonly number[]): Promise<Distance> {
  const [a, b] = [await allLogits(model, tokens), await allLogits({ ...model, rules: other }, tokens)];
  const width = a.data.length / a.rows;
  let [squares, total, same] = [0, 0, 0];
  for (let i = 0; i < a.data.length; i++) {
    squares += (a.data[i] - b.data[i]) ** 2;
    total += b.data[i] ** 2;
  }
  for (let row = 0; row < a.rows; row++) {
    const [x, y] = [a, b].map(({ data }) => likeliest(data.subarray(row * width, (row + 1) * width)));
    if (x === y) same++;
  }
  return { rows: a.rows, relativeL2: Math.sqrt(squares / total), sameToken: same / a.rows };
}
