/** What variables of a session hold. */
import { UsageError } from "../errors.ts";
import type { DType, RowRange } from "../tensor.ts";

/** A tensor: rows of a file, read when they are asked for. Nothing is held in memory. */
export interface TensorValue {
  readonly kind: "tensor";
  readonly path: string;
  /** Its name in the file; "" in a file of one tensor without a name. */
  readonly member: string;
  /** Whether the file holds this tensor alone, so that commands can be given its path. */
  readonly alone: boolean;
  /** Flags of a command that reads it: `heads`, `layout`, `dtype`, `encode`; text as it is typed. */
  readonly flags: Readonly<Record<string, string>>;
  /** Only these rows of the file. */
  readonly rows: RowRange | null;
  readonly dtype: DType;
  /** Axes, with those rows. */
  readonly shape: readonly number[];
  /** What it was made with, where it is the output of a command. */
  readonly report: object | null;
}

/** Queries, keys and values in one file. */
export interface InputsValue {
  readonly kind: "inputs";
  readonly path: string;
  readonly flags: Readonly<Record<string, string>>;
  readonly rows: RowRange | null;
  readonly members: readonly { readonly name: string; readonly shape: readonly number[] }[];
}

/** A file of many tensors: a checkpoint. */
export interface ModelValue {
  readonly kind: "model";
  readonly path: string;
  readonly format: string;
  /** The family that its names tell; null where they tell none. */
  readonly family: string | null;
  readonly members: readonly { readonly name: string; readonly shape: readonly number[] }[];
}

/** What a command found: the object that `--json` prints, and the line that it was. */
export interface ReportValue {
  readonly kind: "report";
  readonly report: Readonly<Record<string, unknown>>;
  readonly line: string;
}

/** A number, a text, or whatever JavaScript made. */
export interface PlainValue {
  readonly kind: "plain";
  readonly value: unknown;
}

export type Value = TensorValue | InputsValue | ModelValue | ReportValue | PlainValue;

/** A plain value, wrapped. */
export const plainValue = (value: unknown): PlainValue => ({ kind: "plain", value });

/** One word for what it is. */
export const kindWord = (value: Value): string =>
  value.kind !== "plain"
    ? value.kind
    : typeof value.value === "number"
    ? "number"
    : typeof value.value === "string"
    ? "text"
    : classOf(value.value) ?? "object";

/** The class of an object that has one of its own, such as PerformerState. */
const classOf = (value: unknown): string | null => {
  const name = typeof value === "object" && value !== null ? value.constructor?.name : undefined;
  return name && !["Object", "Array"].includes(name) ? name : null;
};

/** The number of a plain value; throws UsageError for anything else. */
export function numberOf(value: Value, what: string): number {
  if (value.kind === "plain" && typeof value.value === "number") return value.value;
  throw new UsageError(`Cannot use ${kindWord(value)} as ${what}: expected a number`);
}

/** The tensor of a value; throws UsageError for anything else. */
export function tensorOf(value: Value, what: string): TensorValue {
  if (value.kind === "tensor") return value;
  const hint = value.kind === "inputs"
    ? `: name its part, such as .q`
    : value.kind === "model"
    ? `: name one of its tensors, such as ["name"]`
    : ": expected a tensor";
  throw new UsageError(`Cannot use ${kindWord(value)} as ${what}${hint}`);
}
