/** Measures of the attention of a whole model that need no matrix of it: what tokens receive, and what chosen rows look at. */
import type { Backend } from "../backend.ts";
import type { RuledPlan } from "../rules.ts";
import { AttentionSums } from "../rules_sums.ts";
import { type FloatArray, floats, type Tile } from "../tensor.ts";
import type { AttentionWatcher } from "./attention_layer.ts";

/** Takes the sums at some keys of one layer and item: `rows × heads × columns`. */
export type SumsReader = (at: { layer: number; item: number; heads: number; k: Tile; sums: Float64Array }) => void;

/** Sums attention over queries, by columns: `column` says which one row i of a sequence belongs to. */
export class SumsWatcher implements AttentionWatcher {
  #sums: AttentionSums | null = null;
  #heads = 0;
  /** Keys of the item at hand and their mask: they are asked once all queries have passed. */
  #keys: { readonly k: Tile; readonly weights: FloatArray | undefined }[] = [];

  constructor(
    readonly backend: Backend,
    readonly columns: number,
    readonly column: (row: number) => number | null,
    readonly read: SumsReader,
  ) {}

  async open(_layer: number, plan: RuledPlan): Promise<void> {
    this.#sums = await AttentionSums.prepare(this.backend, plan, this.columns);
    this.#heads = plan.heads;
  }

  async survey(_layer: number, k: Tile): Promise<void> {
    await this.#sums!.survey(k);
  }

  async keys(_layer: number, _item: number, k: Tile, mask: FloatArray | null): Promise<void> {
    const data = floats(this.backend.limits.precision, k.rows * k.cols);
    data.set(k.data.subarray(0, data.length));
    const weights = mask?.subarray(k.start, k.start + k.rows);
    this.#keys.push({ k: { ...k, data }, weights });
    await this.#sums!.absorb(k, weights);
  }

  async queries(_layer: number, _item: number, q: Tile): Promise<void> {
    await this.#sums!.query(q, (row) => this.column(q.start + row));
  }

  async finish(layer: number, item: number): Promise<void> {
    for (const { k, weights } of this.#keys) {
      const sums = await this.#sums!.of(k);
      const width = sums.length / k.rows;
      weights?.forEach((weight, row) => weight === 0 && sums.fill(0, row * width, (row + 1) * width));
      this.read({ layer, item, heads: this.#heads, k, sums });
    }
    this.#keys = [];
    this.#sums!.reset();
  }

  async close(_layer: number): Promise<void> {
    await this.#sums?.[Symbol.asyncDispose]();
    this.#sums = null;
  }
}

/** Attention that every token receives from all rows, `items × layers × heads × rows`; masked tokens receive none. */
export class Received {
  readonly data: Float64Array;
  readonly watcher: SumsWatcher;

  constructor(backend: Backend, readonly shape: { items: number; layers: number; heads: number; rows: number }) {
    const { items, layers, heads, rows } = shape;
    this.data = new Float64Array(items * layers * heads * rows);
    this.watcher = new SumsWatcher(backend, 1, () => 0, ({ layer, item, heads: found, k, sums }) => {
      for (let row = 0; row < k.rows; row++) {
        for (let head = 0; head < found; head++) {
          this.data[((item * layers + layer) * heads + head) * rows + k.start + row] = sums[row * found + head];
        }
      }
    });
  }

  /** Mean over items, layers and heads, per row. */
  mean(): Float64Array {
    const { rows } = this.shape;
    const parts = this.data.length / rows;
    const mean = new Float64Array(rows);
    this.data.forEach((value, i) => mean[i % rows] += value / parts);
    return mean;
  }
}

/** A key row and its weight. */
export interface TopKey {
  readonly key: number;
  readonly weight: number;
}

/** The `top` keys with the largest weights of chosen query rows, per item, layer and head, largest first. */
export class TopKeys {
  readonly lists: TopKey[][];
  readonly watcher: SumsWatcher;

  constructor(
    backend: Backend,
    readonly shape: { items: number; layers: number; heads: number },
    readonly rows: readonly number[],
    readonly top: number,
  ) {
    const { items, layers, heads } = shape;
    const columns = new Map(rows.map((row, i) => [row, i]));
    this.lists = Array.from({ length: items * layers * heads * rows.length }, () => []);
    this.watcher = new SumsWatcher(
      backend,
      rows.length,
      (row) => columns.get(row) ?? null,
      ({ layer, item, heads: found, k, sums }) => {
        for (let i = 0; i < sums.length; i++) {
          const [cell, column] = [Math.floor(i / rows.length), i % rows.length];
          const [row, head] = [Math.floor(cell / found), cell % found];
          const list = this.lists[((item * layers + layer) * heads + head) * rows.length + column];
          offer(list, { key: k.start + row, weight: sums[i] }, top);
        }
      },
    );
  }
}

/** Keeps the `most` largest, in order; the first of equal ones stays. */
function offer(list: TopKey[], entry: TopKey, most: number): void {
  if (list.length === most && !(entry.weight > list[most - 1].weight)) return;
  if (list.length === most) list.pop();
  let at = list.length;
  while (at > 0 && entry.weight > list[at - 1].weight) at--;
  list.splice(at, 0, entry);
}
