/** The tensors of one model in a checkpoint: names without their prefix, and which of them the model asked for. */
import { InputError } from "../errors.ts";
import { nearest } from "../words.ts";
import type { DenseLayout, TensorHeader } from "./description.ts";

/** `ProjectionUpdater` keeps the net as a submodule, so every layer is saved a second time under this name. */
const ALIAS = /(^|\.)proj_updater\.instance\./;

/** A size that must match, or null for any. */
type Size = number | null;

/** Names without `prefix`; asking for one marks it as known. */
export class Keys {
  readonly #headers: ReadonlyMap<string, TensorHeader>;
  readonly #asked = new Set<string>();

  constructor(
    /** File, for messages. */
    readonly path: string,
    /** What is being read, for messages: "PerformerLM". */
    readonly title: string,
    readonly prefix: string,
    headers: readonly TensorHeader[],
  ) {
    this.#headers = new Map(
      headers.filter(({ name }) => name.startsWith(prefix) && !ALIAS.test(name))
        .map((header) => [header.name.slice(prefix.length), header]),
    );
  }

  get names(): readonly string[] {
    return [...this.#headers.keys()];
  }

  has(name: string): boolean {
    return this.#headers.has(name);
  }

  /** Whether any name starts so. */
  under(start: string): boolean {
    return this.names.some((name) => name.startsWith(start));
  }

  /** The tensor, or undefined. Marks the name as known to the family. */
  get(name: string, shape?: readonly Size[]): TensorHeader | undefined {
    this.#asked.add(name);
    const header = this.#headers.get(name);
    if (header && shape) this.#check(header, shape);
    return header;
  }

  /** The tensor; throws InputError when it is missing or has another shape. */
  need(name: string, shape?: readonly Size[]): TensorHeader {
    const header = this.get(name, shape);
    if (header) return header;
    const near = nearest(name, this.names.filter((candidate) => !this.#asked.has(candidate)));
    throw new InputError(
      `Cannot use "${this.path}" as ${this.title}: it lacks tensor "${this.prefix}${name}"` +
        (near ? `; the nearest it has is "${this.prefix}${near}"` : ""),
    );
  }

  /** A dense layer `name.weight` [outputs, inputs] with `name.bias` [outputs] where there is one. */
  dense(name: string, outputs: Size, inputs: Size, bias: "optional" | "none" | "needed" = "optional"): DenseLayout {
    const weight = this.need(`${name}.weight`, [outputs, inputs]);
    const [rows, cols] = weight.shape;
    const found = bias === "none"
      ? undefined
      : bias === "needed"
      ? this.need(`${name}.bias`, [rows])
      : this.get(`${name}.bias`, [rows]);
    return { weight: weight.name, bias: found?.name ?? null, inputs: cols, outputs: rows, firstRow: 0 };
  }

  /** Tensors nobody asked for, each with the nearest name that was asked for. */
  extra(): { name: string; nearest: string | null }[] {
    const absent = [...this.#asked].filter((name) => !this.#headers.has(name));
    return this.names.filter((name) => !this.#asked.has(name)).map((name) => {
      const near = nearest(name, absent) ?? nearest(name, [...this.#asked]);
      return { name: this.prefix + name, nearest: near === null ? null : this.prefix + near };
    });
  }

  #check(header: TensorHeader, shape: readonly Size[]): void {
    const fits = header.shape.length === shape.length &&
      shape.every((size, axis) => size === null || size === header.shape[axis]);
    if (fits) return;
    const wanted = shape.map((size) => size ?? "any").join(", ");
    throw new InputError(
      `Cannot use "${this.path}" as ${this.title}: tensor "${header.name}" is [${header.shape.join(", ")}], ` +
        `expected [${wanted}]`,
    );
  }
}

/** Numbers that follow `start` in names like `start + "3." …`; throws InputError where one is left out. */
export function countUnder(keys: Keys, start: string): number {
  const found = new Set<number>();
  for (const name of keys.names) {
    const match = name.startsWith(start) ? /^(\d+)\./.exec(name.slice(start.length)) : null;
    if (match) found.add(Number(match[1]));
  }
  for (let i = 0; i < found.size; i++) {
    if (!found.has(i)) {
      throw new InputError(
        `Cannot use "${keys.path}" as ${keys.title}: it has no tensors under "${keys.prefix}${start}${i}", ` +
          `but some of layer ${Math.max(...found)}`,
      );
    }
  }
  return found.size;
}
