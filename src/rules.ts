/**
 * Attention with the numerics of the code that trained a checkpoint, on any backend.
 *
 * Every profile is plain linear attention over features that are written as exponentials of linear functions of a *longer* row, or
 * as a pointwise map: ε, key maxima and constants in denominators become extra columns and extra features (kernels/README.md §9), so
 * that no kernel knows of them and all of them run everywhere.
 */
import type { Backend } from "./backend.ts";
import { UsageError } from "./errors.ts";
import { prepareExactSoftmax } from "./rules_exact.ts";
import { prepareMapped } from "./rules_mapped.ts";
import type { KeySums, OwnRows, RuledPlan, RuledSession } from "./rules_plan.ts";
import { prepareStabilised } from "./rules_stabilised.ts";
import { type Rules, rulesNamed } from "./rules_table.ts";
import type { FloatArray, Tile } from "./tensor.ts";

export type { RuledPlan, RuledSession } from "./rules_plan.ts";
export type { RulesName } from "./rules_table.ts";

/** Prepares a session. Throws UsageError for a kernel the profile does not have. */
export async function prepareRuled(backend: Backend, plan: RuledPlan): Promise<RuledSession> {
  const rules = rulesNamed(plan.rules);
  if (!rules.kernels.includes(plan.kernel)) {
    throw new UsageError(
      `Cannot use --compat ${rules.name} with a ${plan.kernel} kernel: it has ${rules.kernels.join(" and ")}`,
    );
  }
  if (plan.kernel === "exact-softmax") return await prepareExactSoftmax(backend, plan);
  // Exact features keep a maximum per row of queries: where rows are observed, e^{u − h} is on one scale by itself.
  const stabilised = plan.kernel === "softmax" && (rules.name !== "exact" || plan.observed === true);
  const session = await (stabilised ? prepareStabilised(backend, plan, rules) : prepareMapped(backend, plan, rules));
  return new InOrder(session, rules);
}

/** Starts every call when the one before has settled, and masks values where the profile masks nothing else. */
class InOrder implements RuledSession {
  #last: Promise<unknown> = Promise.resolve();

  constructor(readonly session: RuledSession, readonly rules: Rules) {}

  get counts() {
    return this.session.counts;
  }

  get surveys(): boolean {
    return this.session.surveys;
  }

  get observation() {
    return this.session.observation;
  }

  get sums(): KeySums | undefined {
    const { sums } = this.session;
    return sums && { save: () => this.#next(() => sums.save()), load: (state) => this.#next(() => sums.load(state)) };
  }

  #next<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#last.then(work);
    this.#last = next.catch(() => {}); // reported to the caller
    return next;
  }

  survey(k: Tile): Promise<void> {
    return this.#next(() => this.session.survey(k));
  }

  absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    return this.#next(() => this.session.absorb(k, ...this.#masked(v, weights)));
  }

  emit(q: Tile, own?: OwnRows | null, into?: FloatArray): Promise<Tile> {
    return this.#next(() => {
      if (!own) return this.session.emit(q, null, into);
      const [v, weights] = this.#masked(own.v, own.weights);
      return this.session.emit(q, { k: own.k, v, weights }, into);
    });
  }

  /** Values and weights as the session inside takes them. */
  #masked(v: Tile, weights?: FloatArray): [Tile, FloatArray | undefined] {
    if (!weights || this.rules.masks === "keys") return [v, weights];
    return [{ ...v, data: v.data.map((value, i) => value * weights[Math.floor(i / v.cols)]) }, undefined];
  }

  reset(): Promise<void> {
    return this.#next(() => this.session.reset());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    await this.session[Symbol.asyncDispose]();
  }
}
