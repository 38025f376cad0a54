/** `run --attention`: what tokens receive, or the keys that chosen rows look at most. */
import type { Backend } from "../backend.ts";
import { UsageError } from "../errors.ts";
import type { ModelLayout } from "../model/description.ts";
import { Received, type TopKey, TopKeys } from "../model/attention_watch.ts";
import type { AttentionWatcher } from "../model/attention_layer.ts";
import type { TensorSink, Tile } from "../tensor.ts";
import { figure } from "../words.ts";
import { resolveRows, rowSlice } from "./flags.ts";
import type { AttentionWish } from "./run.ts";

/** Rows that can be asked about at once: each is a column of the state. */
const MOST_ROWS = 256;
/** Tokens that the report lists. */
const LISTED = 10;

/** A measure under way and what becomes of it. */
export interface AttentionMeasure {
  readonly watcher: AttentionWatcher;
  /** Axes of the output: a leading axis of sequences where there are several. */
  readonly shape: readonly number[];
  write(sink: TensorSink): Promise<void>;
  /** For the JSON report. */
  summary(): unknown;
  /** For the report to people. */
  words(): string[];
}

export interface MeasureOptions {
  readonly wish: AttentionWish;
  /** `--rows`. */
  readonly rows: string | undefined;
  readonly backend: Backend;
  readonly layout: ModelLayout;
  /** Sequences, and rows of each. */
  readonly items: number;
  readonly length: number;
  /** The input has an axis of sequences. */
  readonly batched: boolean;
}

/** Prepares the measure. Throws UsageError for rows that are not there and models whose attention cannot be summed. */
export function measureAttention(options: MeasureOptions): AttentionMeasure {
  const { wish, layout, rows } = options;
  if (layout.causal) {
    throw new UsageError("Cannot use --attention with a causal model: every row attends to keys of its own");
  }
  if (wish.top !== null) return topOf(options, wish.top);
  if (rows !== undefined) throw new UsageError("Cannot use --rows with --attention received: it is of all rows");
  return receivedOf(options);
}

/** Global heads of every layer; fewer than that stay 0. */
function headsOf(layout: ModelLayout): number {
  return Math.max(...layout.layers.map(({ attention: { heads, local } }) => heads - (local?.heads ?? 0)));
}

function receivedOf({ backend, layout, items, length, batched }: MeasureOptions): AttentionMeasure {
  const shape = { items, layers: layout.layers.length, heads: headsOf(layout), rows: length };
  const received = new Received(backend, shape);
  const axes = [shape.layers, shape.heads, length];
  const most = () => {
    const mean = received.mean();
    const order = Array.from(mean, (_, row) => row).sort((a, b) => mean[b] - mean[a] || a - b).slice(0, LISTED);
    return order.map((row) => ({ key: row, weight: mean[row] }));
  };
  return {
    watcher: received.watcher,
    shape: batched ? [items, ...axes] : axes,
    write: (sink) => sink.write(everything(received.data)),
    summary: () => ({ kind: "received", most: most() }),
    words: () => [`  received     most, as a mean over layers and heads: ${listed(most())}`],
  };
}

function topOf({ rows, backend, layout, items, length, batched }: MeasureOptions, top: number): AttentionMeasure {
  const chosen = chosenRows(rows, length);
  const most = Math.min(top, length);
  const shape = { items, layers: layout.layers.length, heads: headsOf(layout) };
  const keys = new TopKeys(backend, shape, chosen, most);
  const axes = [shape.layers, shape.heads, chosen.length, most, 2];
  return {
    watcher: keys.watcher,
    shape: batched ? [items, ...axes] : axes,
    async write(sink) {
      // Local heads have no list: their places hold key −1.
      const pairs = keys.lists.flatMap((list) =>
        Array.from({ length: most }, (_, i) => [list[i]?.key ?? -1, list[i]?.weight ?? 0]).flat()
      );
      await sink.write(everything(Float64Array.from(pairs)));
    },
    summary: () => ({ kind: "top", rows: chosen, lists: nested(keys.lists, [items, shape.layers, shape.heads]) }),
    words: () =>
      chosen.slice(0, LISTED).map((row, i) =>
        `  top keys     of row ${row}, layer 0, head 0: ${listed(keys.lists[i])}`
      ),
  };
}

/** `lists[item][layer][head][row]`. */
function nested(lists: readonly TopKey[][], [items, layers, heads]: number[]): unknown {
  const rows = lists.length / (items * layers * heads);
  const cut = <T>(all: readonly T[], size: number) =>
    Array.from({ length: all.length / size }, (_, i) => all.slice(i * size, (i + 1) * size));
  return cut(cut(cut(lists, rows), heads), layers);
}

function chosenRows(text: string | undefined, length: number): number[] {
  if (text === undefined) {
    throw new UsageError("Missing --rows: say which rows' top keys are wanted, such as 0,5 or 0:10");
  }
  const range = text.includes(":") ? resolveRows(rowSlice(text), length, "every sequence") : null;
  const rows = range
    ? Array.from({ length: range.end - range.start }, (_, i) => range.start + i)
    : [...new Set(text.split(",").map((part) => part.trim() === "" ? NaN : Number(part)))];
  const wrong = rows.find((row) => !Number.isInteger(row) || row < 0 || row >= length);
  if (wrong !== undefined || rows.length === 0 || rows.length > MOST_ROWS) {
    throw new UsageError(
      `Cannot use --rows ${text}: expected 1 to ${MOST_ROWS} rows of 0 to ${length - 1}, such as 0,5 or 0:10`,
    );
  }
  return rows;
}

function everything(data: Float64Array): Tile {
  return { start: 0, rows: 1, cols: data.length, data };
}

function listed(keys: readonly TopKey[]): string {
  return keys.slice(0, LISTED).map(({ key, weight }) => `${key} (${figure(weight)})`).join(", ");
}
