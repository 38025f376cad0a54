/**
 * Sums of attention weights over chosen queries, without a matrix of them: O(L·m).
 *
 *     Σ_i y_i A_ij = φ(k_j) · Σ_i y_i φ(q_i) / D_i,    D_i = φ(q_i) · Σ_j φ(k_j)
 *
 * The attention itself knows the D_i. A second session over the same features sums queries over their D_i, as if they were keys, and
 * answers keys, as if they were queries.
 */
import type { Backend, Session } from "./backend.ts";
import { UsageError } from "./errors.ts";
import { divisorOf } from "./rules_divisor.ts";
import type { Observation, RuledPlan, RuledSession } from "./rules_plan.ts";
import { type Rules, rulesNamed } from "./rules_table.ts";
import { type FloatArray, floats, type Precision, type Tile } from "./tensor.ts";

/** Weighted sums of the rows of the attention matrix of one session, which was prepared with `observed`. */
export class AttentionSums implements AsyncDisposable {
  private constructor(
    readonly plan: RuledPlan,
    readonly rules: Rules,
    readonly columns: number,
    readonly observation: Observation,
    readonly precision: Precision,
    readonly asked: Session,
  ) {}

  /**
   * Sums what `attention` emits from now on: row i of a sequence goes to sum `column(i)` of `columns`, to none where that is null.
   * Throws UsageError for attention that is not a quotient of features.
   */
  static async observe(
    backend: Backend,
    plan: RuledPlan,
    attention: RuledSession,
    columns: number,
    column: (row: number) => number | null,
  ): Promise<AttentionSums> {
    const { observation } = attention;
    if (!observation || plan.causal) throw new UsageError(`Cannot sum attention without its matrix: ${refusal(plan)}`);
    const { heads, tileRows } = plan;
    const { parameters, width } = observation;
    const shape = { heads, kvHeads: heads, headDim: width, causal: false, tileRows, parameters };
    const asked = await backend.prepare({ ...shape, valueDim: columns });
    const { precision } = backend.limits;
    const sums = new AttentionSums(plan, rulesNamed(plan.rules), columns, observation, precision, asked);
    observation.show = (q, denominators) => sums.#add(q, denominators, column);
    return sums;
  }

  async #add(q: Tile, denominators: FloatArray, column: (row: number) => number | null): Promise<void> {
    const { plan: { heads }, rules: { divisor }, observation: { unit }, columns } = this;
    const cols = heads * columns;
    const values = { start: q.start, rows: q.rows, cols, data: floats(this.precision, q.rows * cols) };
    for (let cell = 0; cell < q.rows * heads; cell++) {
      const at = column(q.start + Math.floor(cell / heads));
      const D = denominators[cell] * unit;
      if (at !== null && D !== 0) values.data[cell * columns + at] = unit / divisorOf(D, divisor);
    }
    await this.asked.absorb(q, values);
  }

  /** The sums at these keys, `rows × heads × columns`. */
  async of(k: Tile): Promise<Float64Array> {
    const { plan: { heads }, columns } = this;
    const denominators = floats(this.precision, k.rows * heads);
    const out = await this.asked.emit(await this.observation.keys(k), null, undefined, denominators);
    return Float64Array.from(
      { length: k.rows * heads * columns },
      (_, i) => out.data[i] * denominators[Math.floor(i / columns)],
    );
  }

  /** Starts the next batch item. */
  reset(): void {
    this.asked.reset();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.observation.show = null;
    await this.asked[Symbol.asyncDispose]();
  }
}

function refusal({ causal, kernel, rules }: RuledPlan): string {
  if (causal) return "every row of a causal model has keys of its own";
  if (kernel === "exact-softmax") return "exact softmax attention takes every pair of rows";
  if (kernel === "no-projection") return "a no_projection kernel has no normaliser";
  return `${rules} rules are for causal models; bidirectionally lucidrains is the same`;
}
