/**
 * Constructor arguments: what the tensors tell, what a configuration adds, what is left to defaults.
 *
 * A configuration is JSON, `{ "model": { constructor arguments } }` ("module" for a single layer; other keys beside it are not ours),
 * or a config.json of Hugging Face as it is.
 */
import { InputError, UsageError } from "../errors.ts";
import { type Activation, ACTIVATIONS } from "../feature_map.ts";
import { nearest } from "../words.ts";
import type { Assumption } from "./description.ts";

/** A configuration file as it was read. */
export interface Configuration {
  readonly path: string;
  readonly values: Readonly<Record<string, unknown>>;
  /** A config.json of Hugging Face: much of it is about training and generation, so names nobody knows are no mistake. */
  readonly huggingFace?: boolean;
}

/** Reads the text of a configuration. Throws InputError for what is no JSON object with `model`, nor one of Hugging Face. */
export function parseConfiguration(path: string, text: string): Configuration {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new InputError(`Cannot read "${path}": ${(error as Error).message}, expected JSON`);
  }
  const object = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  const values = object(json) ? json.model ?? json.module : undefined;
  if (object(values)) return { path, values };
  if (object(json) && (typeof json.model_type === "string" || Array.isArray(json.architectures))) {
    return { path, values: json, huggingFace: true };
  }
  throw new InputError(
    `Cannot use "${path}": expected {"model": {…}} with the constructor arguments of the model, or a config.json of ` +
      `Hugging Face with "model_type"`,
  );
}

/** Arguments of performer-pytorch that do not change a forward pass. */
const INERT = [
  "feature_redraw_interval",
  "ff_chunks",
  "emb_dropout",
  "ff_dropout",
  "attn_dropout",
  "dropout",
  "auto_check_redraw",
  "amp_enabled",
  "qr_uniform_q",
  "ortho_scaling",
  "ignore_index",
  "pad_value",
  "tie_token_embeds",
];

/** One model's arguments. Facts must not be contradicted; open arguments are recorded as assumptions. */
export class Arguments {
  readonly facts: Record<string, unknown> = {};
  readonly assumed: Assumption[] = [];
  /** What it cannot do without: `argument: reason`. */
  readonly unknown: string[] = [];
  readonly #known = new Set<string>(INERT);

  constructor(
    /** Model file, for messages. */
    readonly model: string,
    readonly configuration: Configuration | null,
    /** "enc_" or "dec_" before the arguments of a part. */
    readonly prefix = "",
  ) {}

  /** Records what the tensors tell; throws InputError when the configuration says otherwise. */
  fact(name: string, value: unknown, source: string): void {
    this.facts[name] = value;
    const given = this.#given(name);
    if (given === undefined || given === null || same(given, value)) return;
    throw new InputError(
      `Cannot use "${this.configuration!.path}" with "${this.model}": it says ${this.prefix}${name} = ` +
        `${JSON.stringify(given)}, but ${source} makes it ${JSON.stringify(value)}`,
    );
  }

  /** An argument the tensors leave open: from the configuration, else `fallback`, recorded with its note. */
  open<T>(name: string, fallback: T, note: string, read: (value: unknown) => T | undefined): T {
    const given = this.#given(name);
    const value = given === undefined || given === null ? fallback : read(given);
    if (value === undefined) {
      throw new InputError(
        `Cannot use ${this.prefix}${name} = ${JSON.stringify(given)} of "${this.configuration!.path}": ${note}`,
      );
    }
    const from = given === undefined || given === null ? "default" : "config";
    this.assumed.push({ argument: this.prefix + name, value, from, note });
    return value;
  }

  /** An argument without a sensible default: undefined, recorded as unknown, unless the configuration has it. */
  ask<T>(name: string, note: string, read: (value: unknown) => T | undefined): T | undefined {
    const given = this.#given(name);
    if (given !== undefined && given !== null) return this.open(name, undefined as T, note, read);
    this.unknown.push(`${this.prefix}${name}: ${note}`);
    return undefined;
  }

  /** An argument that may only have these values; throws InputError for others, with what they would need. */
  only(name: string, values: readonly unknown[], needs: string): void {
    const given = this.#given(name);
    if (given === undefined || given === null || values.includes(given)) return;
    throw new InputError(
      `Cannot use ${this.prefix}${name} = ${JSON.stringify(given)} of "${this.configuration!.path}": ${needs}, ` +
        `expected ${values.map((value) => JSON.stringify(value)).join(" or ")}`,
    );
  }

  /** What the configuration says of an argument that other arguments are read from; undefined where it says nothing. */
  given(name: string): unknown {
    return this.#given(name) ?? undefined;
  }

  /** Arguments that are of no use here, but no mistake. */
  accept(...names: readonly string[]): void {
    for (const name of names) this.#known.add(name);
  }

  /** Throws InputError for arguments of the configuration that nobody knows. */
  refuseUnknown(others: readonly Arguments[] = []): void {
    if (this.configuration?.huggingFace) return;
    const names = new Set([this, ...others].flatMap((part) => [...part.#known].map((name) => part.prefix + name)));
    for (const name of Object.keys(this.configuration?.values ?? {})) {
      if (names.has(name)) continue;
      const near = nearest(name, [...names]);
      throw new InputError(
        `Cannot use "${this.configuration!.path}": ${this.model} has no argument "${name}"` +
          (near ? `; did you mean "${near}"` : ""),
      );
    }
  }

  #given(name: string): unknown {
    this.#known.add(name);
    return this.configuration?.values[this.prefix + name];
  }
}

/** Readers for `open` and `ask`. */
export const boolean = (value: unknown): boolean | undefined => typeof value === "boolean" ? value : undefined;
export const aboveZero = (value: unknown): number | undefined =>
  typeof value === "number" && value > 0 && Number.isFinite(value) ? value : undefined;
export const positive = (value: unknown): number | undefined =>
  Number.isSafeInteger(value) && (value as number) > 0 ? value as number : undefined;

/** One whole number ≥ 0 for every layer, or a list with one for each. */
export function perLayer(layers: number): (value: unknown) => number[] | undefined {
  return (value) => {
    const list = Array.isArray(value)
      ? value.length === 1 ? new Array(layers).fill(value[0]) : value
      : new Array(layers).fill(value);
    return list.length === layers && list.every((n) => Number.isSafeInteger(n) && n >= 0) ? list : undefined;
  };
}

/** torch's names for what `feature_map.ts` has: "nn.ReLU()", "relu", "GELU" … */
export function kernelFunction(value: unknown): Activation | undefined {
  if (typeof value !== "string") return undefined;
  const name = value.replace(/^(torch\.)?(nn\.)?(functional\.)?/, "").replace(/\(\)$/, "").toLowerCase();
  const alias: Record<string, Activation> = { leakyrelu: "leaky-relu", leaky_relu: "leaky-relu" };
  return alias[name] ?? ACTIVATIONS.find((activation) => activation === name);
}

/** "1.4.4", "1.11.2" …; which of the two rotary eras of local-attention that is. Throws UsageError for those in between. */
export function localEra(value: unknown): "1.4" | "1.9" | undefined {
  const match = typeof value === "string" ? /^(\d+)\.(\d+)(\.\d+)?\+?$/.exec(value) : null;
  if (!match) return undefined;
  const minor = Number(match[1]) * 1000 + Number(match[2]);
  if (minor >= 1009) return "1.9";
  if (minor === 1004 || minor === 1003) return "1.4";
  throw new UsageError(
    `Cannot follow local-attention ${value}: its windows differ from those of 1.4 and of 1.9 and later, ` +
      `expected 1.4.x or at least 1.9`,
  );
}

function same(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((value, i) => same(value, b[i]));
  // One number for every layer may stand for a list of them.
  if (Array.isArray(a)) return a.every((value) => same(value, b));
  return Array.isArray(b) ? same(b, a) : a === b;
}
