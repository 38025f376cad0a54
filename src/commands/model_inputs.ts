/** Tokens, rows and masks of `run`. */
import { InputError, UsageError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import { openContainer } from "../formats/mod.ts";
import type { ModelLayout } from "../model/description.ts";
import type { Sequence } from "../model/embedding.ts";
import type { ForwardOptions } from "../model/forward.ts";
import type { Warning } from "../report.ts";
import type { RulesName } from "../rules_table.ts";
import { type FloatArray, floats, type RowRange } from "../tensor.ts";

export interface Sequences {
  readonly list: readonly Sequence[];
  /** The file has an axis of sequences. */
  readonly batched: boolean;
}

type InputLayout = Pick<ModelLayout, "embedding" | "dim">;

/** Sequences that a file holds, and rows of each, by its shape. Throws InputError for shapes that do not fit the model. */
function sizesIn(path: string, shape: readonly number[], layout: InputLayout) {
  const width = layout.embedding ? [] : [layout.dim];
  const expected = layout.embedding ? "[L] or [b, L] tokens" : `[L, ${layout.dim}] or [b, L, ${layout.dim}] rows`;
  const axes = shape.slice(0, shape.length - width.length);
  if (axes.length < 1 || axes.length > 2 || (width.length > 0 && shape.at(-1) !== layout.dim)) {
    throw new InputError(`Cannot run "${path}": its shape is [${shape.join(", ")}], expected ${expected}`);
  }
  const [items, length] = axes.length === 2 ? axes : [1, axes[0]];
  if (items * length === 0) {
    throw new InputError(`Cannot run "${path}": it holds no ${layout.embedding ? "tokens" : "rows"}`);
  }
  return { items, length, batched: axes.length === 2, numbers: length * (width[0] ?? 1) };
}

/** Throws InputError for numbers that are no tokens or no rows; `first` is the place of the first in the file. */
function requireNumbers(path: string, data: FloatArray, { embedding }: InputLayout, first = 0): void {
  const wrong = data.findIndex((value) => embedding ? !Number.isInteger(value) : !Number.isFinite(value));
  if (wrong < 0) return;
  const expected = embedding ? "whole numbers" : "finite numbers";
  throw new InputError(`Cannot run "${path}": number ${first + wrong} is ${data[wrong]}, expected ${expected}`);
}

/** Reads TOKENS and `--mask` for a model, or what it attends to. Throws InputError for shapes and numbers that do not fit. */
export async function readSequences(path: string, mask: string | undefined, layout: InputLayout): Promise<Sequences> {
  await using container = await openContainer(path);
  const { shape, data } = await container.readAll(undefined, "f64");
  const { items, length, batched, numbers } = sizesIn(path, shape, layout);
  requireNumbers(path, data, layout);
  const kept = mask === undefined ? null : await readMask(mask, items, length);
  const list = Array.from({ length: items }, (_, item): Sequence => {
    const own = data.subarray(item * numbers, (item + 1) * numbers);
    return {
      length,
      tokens: layout.embedding ? Int32Array.from(own) : null,
      rows: layout.embedding ? null : own,
      mask: kept && kept.subarray(item * length, (item + 1) * length),
    };
  });
  return { list, batched };
}

/** The one sequence of a file by its header. Throws UsageError where it holds several. */
export async function measureSequence(
  path: string,
  layout: InputLayout,
): Promise<{ length: number; batched: boolean }> {
  await using container = await openContainer(path);
  const { items, length, batched } = sizesIn(path, container.member().shape, layout);
  if (items === 1) return { length, batched };
  throw new UsageError(`Cannot cut "${path}" by rows: it holds ${items} sequences, expected one; plan each by itself`);
}

/** Which rows of how many are read; `bare`: without tokens or rows, which later layers do not look at. */
export interface PartOfSequence extends RowRange {
  readonly of: number;
  readonly bare: boolean;
}

/** Some rows of the one sequence of a file, with their positions. Throws InputError where it has another length. */
export async function readPartOfSequence(
  path: string,
  mask: string | undefined,
  layout: InputLayout,
  { start, end, of, bare }: PartOfSequence,
): Promise<Sequence> {
  await using container = await openContainer(path);
  const { length } = sizesIn(path, container.member().shape, layout);
  if (length !== of) throw new InputError(`Cannot run "${path}": it has ${length} rows, planned were ${of}`);
  const kept = mask === undefined ? null : (await readMask(mask, 1, length)).subarray(start, end);
  const part = { start, length: end - start, tokens: null, rows: null, mask: kept };
  if (bare) return part;
  if (!layout.embedding) return { ...part, rows: await rowsIn(container, layout, { start, end }) };
  const data = (await container.readAll(undefined, "f64")).data.subarray(start, end);
  requireNumbers(path, data, layout, start);
  return { ...part, tokens: Int32Array.from(data) };
}

/** Rows of a range alone, so that a task reads no more than its own. */
async function rowsIn(container: Container, layout: InputLayout, range: RowRange): Promise<FloatArray> {
  const source = await container.open(undefined, { layout: "hld" });
  const rows = floats("f64", (range.end - range.start) * layout.dim);
  for await (const tile of source.tiles(1024, { range, precision: "f64" })) {
    rows.set(tile.data.subarray(0, tile.rows * tile.cols), (tile.start - range.start) * tile.cols);
  }
  requireNumbers(container.path, rows, layout, range.start * layout.dim);
  return rows;
}

/** What `--context` gives a model: rows that cross attention sees, or the tokens of a PerformerEncDec's encoder. */
export async function readContexts(
  model: string,
  layout: ModelLayout,
  { context, mask }: { readonly context: string | undefined; readonly mask: string | undefined },
  items: number,
): Promise<Pick<ForwardOptions, "contexts" | "sources">> {
  const crosses = layout.layers.some(({ attention }) => attention.kind === "cross");
  if (!crosses && context !== undefined) {
    throw new UsageError(`Cannot use --context: "${model}" has no cross attention`);
  }
  if (context === undefined) {
    if (mask !== undefined) throw new UsageError("Cannot use --context-mask without --context");
    if (!crosses) return {};
    const what = layout.encoder ? "the tokens of its encoder" : `rows [L, ${layout.dim}] or [b, L, ${layout.dim}]`;
    throw new UsageError(`Cannot run "${model}" without --context: it attends to ${what}`);
  }
  const { list } = await readSequences(context, mask, layout.encoder ?? { embedding: null, dim: layout.dim });
  if (list.length !== items) {
    throw new InputError(
      `Cannot use "${context}": it holds ${list.length} sequences, expected ${items} as the input does`,
    );
  }
  if (layout.encoder) return { sources: list };
  return { contexts: list.map(({ length, rows, mask }) => ({ rows: length, data: rows!, mask })) };
}

async function readMask(path: string, items: number, length: number): Promise<Float64Array> {
  await using container = await openContainer(path);
  const { shape, data } = await container.readAll(undefined, "f64");
  if (data.length !== items * length) {
    throw new InputError(
      `Cannot use mask "${path}": its shape is [${
        shape.join(", ")
      }], expected one number for each of ${items} × ${length} tokens`,
    );
  }
  return Float64Array.from(data, (value) => value === 0 ? 0 : 1);
}

/** What a causal run under rules that leak the future has to say. */
export function futureLeaks(rules: RulesName): Warning {
  return {
    code: "leaks-future",
    message:
      `Under ${rules} rules causal rows see the key maximum of the whole sequence: the future leaks into the past`,
    remedy: "use --compat lucidrains-causal (maximum over the keys so far) or exact",
  };
}
