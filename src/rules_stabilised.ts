/** Softmax attention with ε as a plain session over extended rows (rules_rows.ts). */
import type { Backend, Session } from "./backend.ts";
import type { OwnRows, RuledPlan, RuledSession } from "./rules_plan.ts";
import type { Rules } from "./rules_table.ts";
import { divide, scaleCells } from "./rules_divisor.ts";
import { StabilisedRows, type Tops } from "./rules_rows.ts";
import { type FloatArray, floats, type Precision, type Tile } from "./tensor.ts";

/** A prefix maximum may pass M by this before the state is rescaled: e^30 is far from the end of float32. */
const MARGIN = 30;

export async function prepareStabilised(backend: Backend, plan: RuledPlan, rules: Rules): Promise<RuledSession> {
  const { heads, valueDim, causal, tileRows } = plan;
  const rows = await StabilisedRows.prepare(backend, plan, rules);
  try {
    const shape = { heads, kvHeads: heads, headDim: rows.width, valueDim, causal, tileRows };
    const session = await backend.prepare({ ...shape, parameters: rows.parameters });
    return new StabilisedSession(plan, rules, rows, session, backend.limits.precision);
  } catch (error) {
    await rows[Symbol.asyncDispose]();
    throw error;
  }
}

class StabilisedSession implements RuledSession {
  readonly surveys: boolean;
  /** "prefix": largest u of the keys so far, per head; M is one of its earlier values. */
  readonly #soFar: Float64Array;
  /** Causal: the extended keys of a tile that was emitted and waits for its absorb. */
  #own: { readonly k: Tile; readonly extended: Tile } | null = null;

  constructor(
    readonly plan: RuledPlan,
    readonly rules: Rules,
    readonly rows: StabilisedRows,
    readonly session: Session,
    readonly precision: Precision,
  ) {
    this.surveys = rules.keyTop === "head" || rules.keyTop === "all";
    this.#soFar = new Float64Array(plan.heads).fill(-Infinity);
  }

  survey(k: Tile): Promise<void> {
    return this.rows.survey(k);
  }

  get counts() {
    return this.session.counts;
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    let extended = this.#own?.k === k ? this.#own.extended : null;
    this.#own = null;
    if (!extended) {
      const tops = await this.rows.topsOf(k);
      if (tops) await this.#rise(tops, k.rows);
      extended = this.rows.keys(k, tops);
      if (tops) this.#shares(tops, k.rows);
    }
    await this.session.absorb(extended, v, weights);
  }

  /** "prefix": makes M large enough for these keys; what was absorbed with a smaller one is scaled by e^{old M − new M}. */
  async #rise({ top }: Tops, rows: number): Promise<void> {
    if (this.rules.keyTop !== "prefix") return;
    const { heads } = this.plan;
    const { highest } = this.rows;
    const risen = highest.slice();
    for (let cell = 0; cell < rows * heads; cell++) {
      const head = cell % heads;
      if (top[cell] > risen[head] + MARGIN) risen[head] = top[cell];
    }
    if (risen.every((value, head) => value === highest[head])) return;
    if (this.#soFar.some((value) => value > -Infinity)) {
      const state = await this.session.save();
      for (let f = 0; f < state.c.length; f++) {
        const head = Math.floor(f / state.features);
        state.c[f] += highest[head] - risen[head];
      }
      await this.session.load(state);
    }
    highest.set(risen);
  }

  async emit(q: Tile, own?: OwnRows | null, into?: FloatArray): Promise<Tile> {
    const { heads, valueDim, causal } = this.plan;
    const { causalDelta, divisor, paired } = this.rules;
    const m = this.rows.projections;
    const keyTops = own ? await this.rows.topsOf(own.k) : null;
    if (keyTops) await this.#rise(keyTops, own!.k.rows);
    const shares = keyTops ? this.#shares(keyTops, own!.k.rows) : this.#lastShares(q.rows);
    const { rows: query, sums } = await this.rows.queries(q, shares);
    const extended = own ? this.rows.keys(own.k, keyTops) : null;
    const denominators = floats(this.precision, q.rows * heads);
    const out = await this.session.emit(query, own && { ...own, k: extended! }, into, denominators);
    if (own) this.#own = { k: own.k, extended: extended! };
    if (causal && causalDelta > 0) {
      const delta = causalDelta * Math.sqrt(m); // the features here are without their 1/√m
      scaleCells(out, valueDim, (cell) => denominators[cell] / (denominators[cell] + delta * sums[cell]));
    }
    if (divisor.kind !== "plain") divide(out, denominators, divisor, valueDim, paired ? 1 : 1 / m);
    return out;
  }

  /** e^{M_i − M} of rows that see all keys so far. */
  #lastShares(rows: number): Float64Array | null {
    if (this.rules.keyTop !== "prefix") return null;
    const { heads } = this.plan;
    return Float64Array.from({ length: rows * heads }, (_, cell) => {
      return Math.exp(this.#soFar[cell % heads] - this.rows.highest[cell % heads]);
    });
  }

  /** e^{M_i − M} per (row, head), M_i the largest u of keys up to row i; 1 where the maximum is that of all keys. */
  #shares({ top }: Tops, rows: number): Float64Array | null {
    if (this.rules.keyTop !== "prefix") return null;
    const { heads } = this.plan;
    const shares = new Float64Array(rows * heads);
    for (let cell = 0; cell < shares.length; cell++) {
      const head = cell % heads;
      this.#soFar[head] = Math.max(this.#soFar[head], top[cell]);
      shares[cell] = Math.exp(this.#soFar[head] - this.rows.highest[head]);
    }
    return shares;
  }

  async reset(): Promise<void> {
    this.#own = null;
    this.session.reset();
    this.#soFar.fill(-Infinity);
    this.rows.reset();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.rows[Symbol.asyncDispose]();
    await this.session[Symbol.asyncDispose]();
  }
}
