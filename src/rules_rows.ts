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
import type { Backend, ExactSession } from "./backend.ts";
import type { RuledPlan } from "./rules_plan.ts";
import type { Rules } from "./rules_table.ts";
import { pointwiseParameters } from "./rules_mapped.ts";
import { type FloatArray, floats, type Tile } from "./tensor.ts";
import { LentMemory } from "./tile_store.ts";

/** Below this a logarithm counts as −∞: its exponential is 0 in float32. */
const NEVER = -200;
/** Tops and normalisers of surveyed keys that are kept for `absorb`, in numbers. */
const MOST_KEPT = 1 << 23;

/** Per (row, head): U = max_a u, T = Σ_a e^{u − U}. */
export interface Tops {
  readonly top: Float64Array;
  readonly total: Float64Array;
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

  constructor(readonly plan: RuledPlan, rules: Rules) {
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

  /**
   * Copies rows to `data` and lets `columns` fill the columns behind x: `row[at]` (shared by all features), then the constants.
   * `half` is h of the row and head.
   */
  fill(
    x: Tile,
    data: FloatArray,
    columns: (cell: number, half: number, row: FloatArray, at: number) => void,
  ): Tile {
    const { heads, headDim: d } = this.plan;
    const { width } = this;
    const given = x.data;
    const cells = x.rows * heads;
    for (let cell = 0, from = 0, to = 0; cell < cells; cell++, from += d, to += width) {
      let squares = 0;
      for (let l = 0; l < d; l++) {
        const value = given[from + l];
        squares += value * value;
        data[to + l] = value;
      }
      columns(cell, squares * this.#half, data, to + d);
    }
    return { start: x.start, rows: x.rows, cols: heads * width, data: data.subarray(0, cells * width) };
  }
}

/** Keys and queries of a profile as rows of exponentials, which are features without an ε. */
export class StabilisedRows implements AsyncDisposable {
  /** M per head. */
  readonly highest: Float64Array;
  readonly #extended: ExtendedRows;
  readonly #kept = new Map<number, Tops>();
  #keptNumbers = 0;

  /** Memory of extended keys and queries: a tile is valid until the next of its kind. */
  readonly #memory: LentMemory;
  readonly #keys: FloatArray;
  readonly #queries: FloatArray;

  private constructor(
    backend: Backend,
    readonly plan: RuledPlan,
    readonly rules: Rules,
    readonly tops: ProjectionTops | null,
  ) {
    this.#extended = new ExtendedRows(plan, rules);
    this.highest = new Float64Array(plan.heads).fill(-Infinity);
    this.#memory = new LentMemory(backend);
    const numbers = plan.tileRows * plan.heads * this.width;
    [this.#keys, this.#queries] = [this.#memory.array(numbers), this.#memory.array(numbers)];
  }

  static async prepare(backend: Backend, plan: RuledPlan, rules: Rules): Promise<StabilisedRows> {
    const tops = rules.epsilon > 0 ? await ProjectionTops.prepare(backend, plan) : null;
    return new StabilisedRows(backend, plan, rules, tops);
  }

  /** Columns per head of extended rows. */
  get width(): number {
    return this.#extended.width;
  }

  /** m. */
  get projections(): number {
    return this.#extended.projections;
  }

  /** The map that makes features of extended rows: exp(W x). */
  get parameters(): ExtendedRows["parameters"] {
    return this.#extended.parameters;
  }

  /** ½ ln 2m for features that come in pairs. */
  get #pairs(): number {
    return this.rules.paired ? 0.5 * Math.log(2 * this.projections) : 0;
  }

  /** Raises M to the largest u of these keys. */
  async survey(k: Tile): Promise<void> {
    if (!this.tops) return;
    const found = await this.tops.of(k);
    const { highest, rules, plan: { heads } } = this;
    for (let cell = 0; cell < k.rows * heads; cell++) {
      const head = rules.keyTop === "all" ? 0 : cell % heads;
      if (found.top[cell] > highest[head]) highest[head] = found.top[cell];
    }
    if (rules.keyTop === "all") highest.fill(highest[0]);
    this.#keep(k.start, found);
  }

  /** Keeps tops for later, unless there are too many, or rows start again: another batch item, as like as not. */
  #keep(start: number, found: Tops): void {
    this.#keptNumbers += this.#kept.has(start) ? Infinity : 2 * found.top.length;
    if (this.#keptNumbers <= MOST_KEPT) this.#kept.set(start, found);
    else this.#kept.clear();
  }

  /** U and T of keys, null for profiles without ε. */
  async topsOf(k: Tile): Promise<Tops | null> {
    const kept = this.#kept.get(k.start);
    return kept?.top.length === k.rows * this.plan.heads ? kept : await this.tops?.of(k) ?? null;
  }

  /** Extended keys, valid until the next. */
  keys(k: Tile, tops: Tops | null): Tile {
    const { highest, plan: { heads } } = this;
    const pairs = this.#pairs;
    return this.#extended.fill(k, this.#keys, (cell, half, row, at) => {
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

  /**
   * Extended queries, valid until the next, and P_i, times e^{M_i − M} (`shares`, per row and head) where the key maximum is that of a prefix.
   */
  async queries(q: Tile, shares: Float64Array | null = null): Promise<{ rows: Tile; sums: Float64Array }> {
    const { epsilon } = this.rules;
    const tops = await this.tops?.of(q) ?? null;
    const sums = new Float64Array(q.rows * this.plan.heads);
    const pairs = this.#pairs;
    const rows = this.#extended.fill(q, this.#queries, (cell, half, row, at) => {
      if (!tops) {
        row[at] = -half - pairs;
        return;
      }
      sums[cell] = (Math.exp(-half) * tops.total[cell] + epsilon * this.projections) * (shares?.[cell] ?? 1);
      row[at] = -half - tops.top[cell];
      row[at + 1] = Math.log(epsilon);
      row[at + 2] = Math.max(NEVER, Math.log(epsilon * sums[cell]));
    });
    return { rows, sums };
  }

  /** Starts the next batch item; a maximum over all of them stays. */
  reset(): void {
    this.#kept.clear();
    if (this.rules.keyTop === "all") return;
    this.#keptNumbers = 0;
    this.highest.fill(-Infinity);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tops?.[Symbol.asyncDispose]();
    this.#memory[Symbol.dispose]();
  }
}
