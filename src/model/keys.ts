/** The tensors of one model in a checkpoint: names without their prefix, and which of them the model asked for. */
import { InputError } from "../errors.ts";
import { nearest } from "../words.ts";
import type { DenseLayout, TensorHeader } from "./description.ts";

/** `ProjectionUpdater` keeps the net as a submodule, so every layer is saved a second time under this name. */
const ALIAS = /(^|\.)proj_updater\.instance\./;

/** Unknown tensors for which the nearest known name is looked for. */
const MOST_SUGGESTIONS = 20;

/** Parts of names that stand beside each other in every model: none is a slip of another. */
const SIBLINGS =
  /^(\d+|[fg]|weight|bias|to_(q|k|v|qkv|out)|w[12]|net|(query|key|value)(_projection)?|norm[12]?|linear[12]|fc[123])$/;

/** Whether two names differ in one part only, and there by a sibling of it. */
function areSiblings(a: string, b: string): boolean {
  const [left, right] = [a.split("."), b.split(".")];
  const apart = left.findIndex((part, i) => part !== right[i]);
  if (left.length !== right.length || apart < 0 || !SIBLINGS.test(left[apart]) || !SIBLINGS.test(right[apart])) {
    return false;
  }
  return left.slice(apart + 1).join(".") === right.slice(apart + 1).join(".");
}

/** A size that must match, or null for any but none. */
type Size = number | null;

/** Names without `prefix`; asking for one marks it as known. */
export class Keys {
  readonly #headers: ReadonlyMap<string, TensorHeader>;
  readonly #asked = new Set<string>();
  readonly names: readonly string[];
  /** The same in order, to be searched. */
  readonly #sorted: readonly string[];

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
    this.names = [...this.#headers.keys()];
    this.#sorted = [...this.names].sort();
  }

  has(name: string): boolean {
    return this.#headers.has(name);
  }

  /** Whether any name starts so. */
  under(start: string): boolean {
    let [low, high] = [0, this.#sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#sorted[middle] < start) low = middle + 1;
      else high = middle;
    }
    return this.#sorted[low]?.startsWith(start) ?? false;
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
    const strangers = this.names.filter((other) => !this.#asked.has(other) && !areSiblings(name, other));
    const near = nearest(name, strangers);
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
    return this.names.filter((name) => !this.#asked.has(name)).map((name, i) => {
      const near = i < MOST_SUGGESTIONS ? nearest(name, absent) ?? nearest(name, [...this.#asked]) : null;
      return { name: this.prefix + name, nearest: near === null ? null : this.prefix + near };
    });
  }

  #check(header: TensorHeader, shape: readonly Size[]): void {
    const fits = header.shape.length === shape.length &&
      shape.every((size, axis) => size === null ? header.shape[axis] > 0 : size === header.shape[axis]);
    if (fits) return;
    const wanted = shape.map((size) => size ?? "any above 0").join(", ");
    throw new InputError(
      `Cannot use "${this.path}" as ${this.title}: tensor "${header.name}" is [${header.shape.join(", ")}], ` +
        `expected [${wanted}]`,
    );
  }
}

/** How many numbers follow `start` in names like `start + "3." …`; throws InputError where there are none, or one is left out. */
export function countUnder(keys: Keys, start: string): number {
  const found = new Set<number>();
  for (const name of keys.names) {
    const match = name.startsWith(start) ? /^(\d+)\./.exec(name.slice(start.length)) : null;
    if (match) found.add(Number(match[1]));
  }
  for (let i = 0; i < Math.max(1, found.size); i++) {
    if (found.has(i)) continue;
    const last = [...found].reduce((most, layer) => Math.max(most, layer), -1);
    throw new InputError(
      `Cannot use "${keys.path}" as ${keys.title}: it has no tensors under "${keys.prefix}${start}${i}."` +
        (last < 0 ? "" : `, but some of layer ${last}`),
    );
  }
  return found.size;
}
