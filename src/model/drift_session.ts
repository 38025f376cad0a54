/** Exact attention that, as it goes, measures what approximations would have made of the same queries, keys and values. */
import { Moments, phiOf } from "../moments.ts";
import { ErrorSums } from "../metrics.ts";
import type { OwnRows, RuledPlan, RuledSession } from "../rules_plan.ts";
import type { FloatArray, Tile } from "../tensor.ts";

/** Sums of one layer over all its rows. */
export class AttentionMeasure {
  readonly sums: readonly ErrorSums[];
  /** Σ φ̄ over sequences, each counting as its rows do. */
  phi = 0;
  rows = 0;
  readonly nonPositive: number[];

  constructor(readonly plan: RuledPlan, rivals: number) {
    this.sums = Array.from({ length: rivals }, () => new ErrorSums());
    this.nonPositive = new Array(rivals).fill(0);
  }
}

/** Answers as `exact` does; rivals and the uniform baseline see the same calls. */
export class MeasuringSession implements RuledSession {
  /** Masks of the keys of this sequence, by the row they start at: rows that are masked as keys do not count as queries. */
  readonly #masks = new Map<number, FloatArray>();
  #queries: Moments;
  #keys: Moments;

  constructor(
    readonly measure: AttentionMeasure,
    readonly exact: RuledSession,
    readonly uniform: RuledSession,
    readonly rivals: readonly RuledSession[],
  ) {
    [this.#queries, this.#keys] = momentsOf(measure.plan);
  }

  get counts() {
    return this.exact.counts;
  }

  get surveys(): boolean {
    return this.rivals.some(({ surveys }) => surveys);
  }

  async survey(k: Tile): Promise<void> {
    for (const rival of this.rivals) if (rival.surveys) await rival.survey(k);
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    this.#keys.add(k, weights);
    if (weights) this.#masks.set(k.start, weights.slice());
    for (const session of this.#all) await session.absorb(k, v, weights);
  }

  async emit(q: Tile, own?: OwnRows | null, into?: FloatArray): Promise<Tile> {
    const kept = own ? own.weights : this.#masks.get(q.start);
    this.#queries.add(q, kept);
    const truth = await this.exact.emit(q, own, into);
    const baseline = await this.uniform.emit(q, own);
    for (const [i, rival] of this.rivals.entries()) {
      this.measure.sums[i].add(await rival.emit(q, own), truth, baseline, kept);
    }
    return truth;
  }

  async reset(): Promise<void> {
    const { measure } = this;
    measure.rows += this.#queries.weight;
    measure.phi += phiOf(this.#queries, this.#keys, measure.plan.headDim ** -0.25) * this.#queries.weight;
    this.rivals.forEach(({ counts }, i) => measure.nonPositive[i] += counts.nonPositive);
    [this.#queries, this.#keys] = momentsOf(measure.plan);
    this.#masks.clear();
    for (const session of this.#all) await session.reset();
  }

  get #all(): readonly RuledSession[] {
    return [this.exact, this.uniform, ...this.rivals];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#all) await session[Symbol.asyncDispose]();
  }
}

function momentsOf({ heads, kvHeads = heads, headDim }: RuledPlan): [Moments, Moments] {
  return [new Moments(heads, headDim), new Moments(kvHeads, headDim)];
}
