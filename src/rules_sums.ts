/**
 * Sums of attention weights over chosen queries, without a matrix of them: O(L·m), in three passes (keys, queries, keys again).
 *
 *     Σ_i y_i A_ij = φ(k_j) · Σ_i y_i φ(q_i) / D_i,    D_i = φ(q_i) · Σ_j φ(k_j)
 *
 * Two sessions over the same features: one sums keys and tells the D_i, one sums queries over their D_i and answers keys.
 */
import type { Backend, Session } from "./backend.ts";
import { UsageError } from "./errors.ts";
import type { MapParameters } from "./feature_map.ts";
import { divisorOf } from "./rules_divisor.ts";
import { parametersOf } from "./rules_mapped.ts";
import type { RuledPlan } from "./rules_plan.ts";
import { StabilisedRows } from "./rules_rows.ts";
import { type Rules, rulesNamed } from "./rules_table.ts";
import { type FloatArray, floats, type Precision, type Tile } from "./tensor.ts";

/** Keys and queries as rows that one map makes features of. */
interface FeatureRows {
  readonly width: number;
  readonly parameters: MapParameters;
  survey(k: Tile): Promise<void>;
  keys(k: Tile): Promise<Tile>;
  queries(q: Tile): Promise<Tile>;
  reset(): void;
  dispose(): Promise<void>;
}

/** Weighted sums of the rows of the attention matrix. Survey (where the profile surveys) and absorb all keys, then query, then ask. */
export class AttentionSums implements AsyncDisposable {
  private constructor(
    readonly plan: RuledPlan,
    readonly rules: Rules,
    readonly columns: number,
    readonly rows: FeatureRows,
    readonly precision: Precision,
    readonly keys: Session,
    readonly asked: Session,
  ) {}

  /** @param columns how many sums there are. Throws UsageError for causal plans and kernels without a normaliser. */
  static async prepare(backend: Backend, plan: RuledPlan, columns: number): Promise<AttentionSums> {
    if (plan.causal) throw new UsageError("Cannot sum the attention of a causal model: every row has keys of its own");
    if (plan.kernel === "no-projection") throw new UsageError("Cannot sum attention of a no_projection kernel");
    if (plan.kernel === "exact-softmax") {
      throw new UsageError("Cannot sum exact softmax attention: without features that takes every pair of rows");
    }
    const rules = rulesNamed(plan.rules);
    if (rules.keyTop === "prefix") {
      throw new UsageError(
        `Cannot sum attention under ${rules.name} rules without --causal: use lucidrains, which is the same`,
      );
    }
    const rows = await featureRows(backend, plan, rules);
    const { heads, tileRows } = plan;
    const shape = { heads, kvHeads: heads, headDim: rows.width, causal: false, tileRows, parameters: rows.parameters };
    const keys = await backend.prepare({ ...shape, valueDim: 1 });
    const asked = await backend.prepare({ ...shape, valueDim: columns });
    return new AttentionSums(plan, rules, columns, rows, backend.limits.precision, keys, asked);
  }

  async survey(k: Tile): Promise<void> {
    await this.rows.survey(k);
  }

  /** `weights`: one ω ≥ 0 per key row; ignored where the profile masks values alone. */
  async absorb(k: Tile, weights?: FloatArray): Promise<void> {
    const { heads } = this.plan;
    const nothing = { start: k.start, rows: k.rows, cols: heads, data: floats(this.precision, k.rows * heads) };
    await this.keys.absorb(await this.rows.keys(k), nothing, this.rules.masks === "keys" ? weights : undefined);
  }

  /** Adds the attention of query rows to the sums: row i of the tile to column `column(i)`, to none where that is null. */
  async query(q: Tile, column: (row: number) => number | null): Promise<void> {
    const { plan: { heads, kernel }, rules: { divisor, paired }, columns } = this;
    const rows = await this.rows.queries(q);
    const denominators = floats(this.precision, q.rows * heads);
    await this.keys.emit(rows, null, undefined, denominators);
    const unit = kernel === "softmax" && !paired ? 1 / this.rows.parameters.projections : 1;
    const cols = heads * columns;
    const values = { start: q.start, rows: q.rows, cols, data: floats(this.precision, q.rows * cols) };
    for (let cell = 0; cell < q.rows * heads; cell++) {
      const at = column(Math.floor(cell / heads));
      const D = denominators[cell];
      if (at !== null && D !== 0) values.data[cell * columns + at] = unit / divisorOf(D * unit, divisor);
    }
    await this.asked.absorb(rows, values);
  }

  /** The sums at these keys, `rows × heads × columns`. */
  async of(k: Tile): Promise<Float64Array> {
    const { plan: { heads }, columns } = this;
    const denominators = floats(this.precision, k.rows * heads);
    const out = await this.asked.emit(await this.rows.keys(k), null, undefined, denominators);
    return Float64Array.from(
      { length: k.rows * heads * columns },
      (_, i) => out.data[i] * denominators[Math.floor(i / columns)],
    );
  }

  /** Starts the next batch item. */
  reset(): void {
    this.rows.reset();
    this.keys.reset();
    this.asked.reset();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rows.dispose();
    await this.keys[Symbol.asyncDispose]();
    await this.asked[Symbol.asyncDispose]();
  }
}

async function featureRows(backend: Backend, plan: RuledPlan, rules: Rules): Promise<FeatureRows> {
  if (plan.kernel === "generalized") {
    const same = async (tile: Tile) => tile;
    return {
      width: plan.headDim,
      parameters: parametersOf(plan, rules),
      survey: async () => {},
      keys: same,
      queries: same,
      reset() {},
      async dispose() {},
    };
  }
  // Exact softmax features keep a maximum per row elsewhere; here every row must be on one scale, which e^{u − h} is by itself.
  const stabilised = await StabilisedRows.prepare(backend, plan, rules);
  return {
    width: stabilised.width,
    parameters: stabilised.parameters,
    survey: (k) => stabilised.survey(k),
    keys: async (k) => stabilised.keys(k, await stabilised.topsOf(k)),
    queries: async (q) => (await stabilised.queries(q)).rows,
    reset: () => stabilised.reset(),
    dispose: () => stabilised[Symbol.asyncDispose](),
  };
}
