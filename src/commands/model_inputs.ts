/** Tokens, rows and masks of `run`. */
import { InputError, UsageError } from "../errors.ts";
import { openContainer } from "../formats/mod.ts";
import type { ModelLayout } from "../model/description.ts";
import type { Sequence } from "../model/embedding.ts";
import type { ForwardOptions } from "../model/forward.ts";
import type { Warning } from "../report.ts";
import type { RulesName } from "../rules_table.ts";

export interface Sequences {
  readonly list: readonly Sequence[];
  /** The file has an axis of sequences. */
  readonly batched: boolean;
}

/** Reads TOKENS and `--mask` for a model, or what it attends to. Throws InputError for shapes and numbers that do not fit. */
export async function readSequences(
  path: string,
  mask: string | undefined,
  layout: Pick<ModelLayout, "embedding" | "dim">,
): Promise<Sequences> {
  await using container = await openContainer(path);
  const { shape, data } = await container.readAll(undefined, "f64");
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
  const wrong = data.findIndex((value) => layout.embedding ? !Number.isInteger(value) : !Number.isFinite(value));
  if (wrong >= 0) {
    throw new InputError(
      `Cannot run "${path}": number ${wrong} is ${data[wrong]}, expected ${
        layout.embedding ? "whole numbers" : "finite numbers"
      }`,
    );
  }
  const kept = mask === undefined ? null : await readMask(mask, items, length);
  const numbers = length * (width[0] ?? 1);
  const list = Array.from({ length: items }, (_, item): Sequence => {
    const own = data.subarray(item * numbers, (item + 1) * numbers);
    return {
      length,
      tokens: layout.embedding ? Int32Array.from(own) : null,
      rows: layout.embedding ? null : own,
      mask: kept && kept.subarray(item * length, (item + 1) * length),
    };
  });
  return { list, batched: axes.length === 2 };
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
