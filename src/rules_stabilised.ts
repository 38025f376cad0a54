/**
 * Softmax features with ε: φ(x) = e^{u − h − top} + ε, u = W x d^{−1/4}, h = ‖x‖² d^{−1/2} / 2, top = max u of the query row, and of
 * keys over a head, over everything, or over the keys so far. `top` is taken of u, not of u − h (performer-pytorch softmax_kernel).
 *
 * With P_i = Σ_a φ_a(q_i) and G_j = Σ_a e^{u_ja − h_j − M},
 *
 *     φ(q_i)·φ(k_j) = Σ_a e^{u_ia − h_i − U_i} e^{u_ja − h_j − M} + ε G_j + ε P_i,
 *
 * m + 2 features without an ε, each an exponential of a linear function of rows with three more columns. U_i, P_i, M and G_j come from
 * an exact softmax of the rows over W's rows as keys: its largest logit and normaliser.
 */
import type { Backend, ExactSession, Session } from "./backend.ts";
import type { OwnRows, RuledPlan, RuledSession } from "./rules_plan.ts";
import type { Rules } from "./rules_table.ts";
import { divide, scaleCells } from "./rules_divisor.ts";
import { pointwiseParameters } from "./rules_mapped.ts";
import { type FloatArray, floats, type Precision, type Tile } from "./tensor.ts";

/** Below this a logarithm counts as −∞: its exponential is 0 in float32. */
const NEVER = -200;
/** A prefix maximum may pass M by this before the state is rescaled: e^30 is far from the end of float32. */
const MARGIN = 30;
/** Tops and normalisers of surveyed keys that are kept for `absorb`, in numbers. */
const MOST_KEPT = 1 << 23;

/** Per (row, head): U = max_a u, T = Σ_a e^{u − U}. */
interface Tops {
  readonly top: Float64Array;
  readonly total: Float64Array;
}

export async function prepareStabilised(backend: Backend, plan: RuledPlan, rules: Rules): Promise<RuledSession> {
  const { heads, valueDim, causal, tileRows } = plan;
  const extended = new ExtendedRows(plan, rules, backend.limits.precision);
  const shape = { heads, kvHeads: heads, headDim: extended.width, valueDim, causal, tileRows };
  const session = await backend.prepare({ ...shape, parameters: extended.parameters });
  try {
    const tops = rules.epsilon > 0 ? await ProjectionTops.prepare(backend, plan) : null;
    return new StabilisedSession(plan, rules, extended, session, tops, backend.limits.precision);
  } catch (error) {
    await session[Symbol.asyncDispose]();
    throw error;
  }
}

/** U and T of rows, by an exact softmax over W's rows. */
class ProjectionTops implements AsyncDisposable {
  #last: Promise<unknown> = Promise.resolve();

  private constructor(
    readonly session: ExactSession,
    readonly keys: readonly Tile[],
    readonly zeros: readonly Tile[],
  ) {}

  static async prepare(backend: Backend, plan: RuledPlan): Promise<ProjectionTops> {
    const { heads, headDim, projection, tileRows } = plan;
    const m = projection.length / headDim;
    const piece = Math.min(m, 512);
    const shape = { heads, kvHeads: 1, headDim, valueDim: 1, causal: false, tileRows: piece };
    const session = await backend.prepareExact({
      ...shape,
      scale: headDim ** -0.25,
      queryRows: tileRows,
      tight: true,
    });
    const keys: Tile[] = [];
    const zeros: Tile[] = [];
    for (let start = 0; start < m; start += piece) {
      const rows = Math.min(piece, m - start);
      const data = floats(backend.limits.precision, rows * headDim);
      data.set(projection.subarray(start * headDim, (start + rows) * headDim));
      keys.push({ start, rows, cols: headDim, data });
      zeros.push({ start, rows, cols: 1, data: floats(backend.limits.precision, rows) });
    }
    return new ProjectionTops(session, keys, zeros);
  }

  /** One tile after the other: the session holds one set of queries. */
  of(x: Tile): Promise<Tops> {
    const tops = this.#last.then(async () => {
      await this.session.pose(x, new Float64Array(x.rows));
      for (const [i, key] of this.keys.entries()) await this.session.absorb(key, this.zeros[i]);
      return await this.session.normalisers();
    });
    this.#last = tops.catch(() => {}); // reported to the caller
    return tops;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

/** Rows with the columns that make every feature an exponential of a linear function. */
class ExtendedRows {
  readonly width: number;
  readonly parameters;
  readonly projections: number;
  /** ‖x‖² d^{−1/2} / 2 per squared length. */
  readonly #half: number;

  constructor(readonly plan: RuledPlan, readonly rules: Rules, readonly precision: Precision) {
    const { headDim: d, projection } = plan;
    const m = projection.length / d;
    this.projections = m;
    this.#half = 0.5 / Math.sqrt(d);
    const constants = rules.epsilon > 0 ? 2 : 0;
    this.width = d + 1 + constants;
    const signs = rules.paired ? [1, -1] : [1];
    const weights = new Float64Array((m * signs.length + constants) * this.width);
    let at = 0;
    for (const sign of signs) {
      for (let a = 0; a < m; a++, at += this.width) {
        for (let l = 0; l < d; l++) weights[at + l] = sign * projection[a * d + l] * d ** -0.25;
        weights[at + d] = 1;
      }
    }
    for (let c = 0; c < constants; c++, at += this.width) weights[at + d + 1 + c] = 1;
    const exp = { activation: "exp", signed: false } as const;
    this.parameters = pointwiseParameters(exp, { headDim: this.width, weights, inputScale: 1, epsilon: 0 });
  }

  /** h of one row of one head. */
  half(data: ArrayLike<number>, at: number): number {
    let squares = 0;
    for (let l = 0; l < this.plan.headDim; l++) squares += data[at + l] * data[at + l];
    return squares * this.#half;
  }

  /** Copies rows and lets `columns` fill the columns behind x: `row[at]` (shared by all features), then the constants. */
  fill(x: Tile, columns: (cell: number, half: number, row: FloatArray, at: number) => void): Tile {
    const { heads, headDim: d } = this.plan;
    const cols = heads * this.width;
    const data = floats(this.precision, x.rows * cols);
    for (let cell = 0, from = 0, to = 0; cell < x.rows * heads; cell++, from += d, to += this.width) {
      for (let l = 0; l < d; l++) data[to + l] = x.data[from + l];
      columns(cell, this.half(x.data, from), data, to + d);
    }
    return { start: x.start, rows: x.rows, cols, data };
  }
}

class StabilisedSession implements RuledSession {
  readonly surveys: boolean;
  /** M per head. */
  readonly #highest: Float64Array;
  /** "prefix": largest u of the keys so far, per head; M is one of its earlier values. */
  readonly #soFar: Float64Array;
  readonly #kept = new Map<number, Tops>();
  #keptNumbers = 0;
  /** Causal: the extended keys of a tile that was emitted and waits for its absorb. */
  #own: { readonly k: Tile; readonly extended: Tile } | null = null;

  constructor(
    readonly plan: RuledPlan,
    readonly rules: Rules,
    readonly rows: ExtendedRows,
    readonly session: Session,
    readonly tops: ProjectionTops | null,
    readonly precision: Precision,
  ) {
    this.surveys = rules.keyTop === "head" || rules.keyTop === "all";
    this.#highest = new Float64Array(plan.heads).fill(-Infinity);
    this.#soFar = new Float64Array(plan.heads).fill(-Infinity);
  }

  async survey(k: Tile): Promise<void> {
    if (!this.tops) return;
    const found = await this.tops.of(k);
    const { heads } = this.plan;
    for (let cell = 0; cell < k.rows * heads; cell++) {
      const head = this.rules.keyTop === "all" ? 0 : cell % heads;
      if (found.top[cell] > this.#highest[head]) this.#highest[head] = found.top[cell];
    }
    if (this.rules.keyTop === "all") this.#highest.fill(this.#highest[0]);
    this.#keep(k.start, found);
  }

  /** Keeps tops for `absorb`, unless there are too many, or rows start again: another batch item, as like as not. */
  #keep(start: number, found: Tops): void {
    this.#keptNumbers += this.#kept.has(start) ? Infinity : 2 * found.top.length;
    if (this.#keptNumbers <= MOST_KEPT) this.#kept.set(start, found);
    else this.#kept.clear();
  }

  async #topsOf(k: Tile): Promise<Tops | null> {
    const kept = this.#kept.get(k.start);
    return kept?.top.length === k.rows * this.plan.heads ? kept : await this.tops?.of(k) ?? null;
  }

  async #extendKeys(k: Tile, tops: Tops | null): Promise<Tile> {
    const { heads } = this.plan;
    const { paired } = this.rules;
    const highest = this.#highest;
    const pairs = paired ? 0.5 * Math.log(2 * this.rows.projections) : 0;
    return this.rows.fill(k, (cell, half, row, at) => {
      if (!tops) {
        row[at] = -half - pairs;
        return;
      }
      const M = highest[cell % heads];
      row[at] = -half - M;
      row[at + 1] = Math.max(NEVER, tops.top[cell] + Math.log(tops.total[cell]) - half - M);
      row[at + 2] = 0;
    });
  }

  get counts() {
    return this.session.counts;
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    let extended = this.#own?.k === k ? this.#own.extended : null;
    this.#own = null;
    if (!extended) {
      const tops = await this.#topsOf(k);
      if (tops) await this.#rise(tops, k.rows);
      extended = await this.#extendKeys(k, tops);
      if (tops) this.#shares(tops, k.rows);
    }
    await this.session.absorb(extended, v, weights);
  }

  /** "prefix": makes M large enough for these keys; what was absorbed with a smaller one is scaled by e^{old M − new M}. */
  async #rise({ top }: Tops, rows: number): Promise<void> {
    if (this.rules.keyTop !== "prefix") return;
    const { heads } = this.plan;
    const risen = this.#highest.slice();
    for (let cell = 0; cell < rows * heads; cell++) {
      const head = cell % heads;
      if (top[cell] > risen[head] + MARGIN) risen[head] = top[cell];
    }
    if (risen.every((value, head) => value === this.#highest[head])) return;
    if (this.#soFar.some((value) => value > -Infinity)) {
      const state = await this.session.save();
      for (let f = 0; f < state.c.length; f++) {
        const head = Math.floor(f / state.features);
        state.c[f] += this.#highest[head] - risen[head];
      }
      await this.session.load(state);
    }
    this.#highest.set(risen);
  }

  async emit(q: Tile, own?: OwnRows | null, into?: FloatArray): Promise<Tile> {
    const { heads, valueDim, causal } = this.plan;
    const { epsilon, causalDelta, divisor, paired } = this.rules;
    const m = this.rows.projections;
    const [queryTops, keyTops] = [await this.tops?.of(q) ?? null, own ? await this.#topsOf(own.k) : null];
    if (keyTops) await this.#rise(keyTops, own!.k.rows);
    const shares = keyTops ? this.#shares(keyTops, own!.k.rows) : this.#lastShares(q.rows);
    /** P_i, times e^{M_i − M} where the key maximum is that of a prefix. */
    const sums = new Float64Array(q.rows * heads);
    const pairs = paired ? 0.5 * Math.log(2 * m) : 0;
    const query = this.rows.fill(q, (cell, half, row, at) => {
      if (!queryTops) {
        row[at] = -half - pairs;
        return;
      }
      sums[cell] = (Math.exp(-half) * queryTops.total[cell] + epsilon * m) * (shares?.[cell] ?? 1);
      row[at] = -half - queryTops.top[cell];
      row[at + 1] = Math.log(epsilon);
      row[at + 2] = Math.max(NEVER, Math.log(epsilon * sums[cell]));
    });
    const extended = own ? await this.#extendKeys(own.k, keyTops) : null;
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
      return Math.exp(this.#soFar[cell % heads] - this.#highest[cell % heads]);
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
      shares[cell] = Math.exp(this.#soFar[head] - this.#highest[head]);
    }
    return shares;
  }

  async reset(): Promise<void> {
    this.#own = null;
    this.session.reset();
    this.#soFar.fill(-Infinity);
    this.#kept.clear();
    if (this.rules.keyTop === "all") return;
    this.#keptNumbers = 0;
    this.#highest.fill(-Infinity);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tops?.[Symbol.asyncDispose]();
    await this.session[Symbol.asyncDispose]();
  }
}
