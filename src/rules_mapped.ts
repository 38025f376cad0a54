/** Profiles whose features a backend already has: exact softmax features, f(W x) + ε, performer-pytorch's `no_projection`. */
import type { Backend, Session } from "./backend.ts";
import { bindMap, type FeatureMap, featureMap, identity, type MapParameters } from "./feature_map.ts";
import type { KeySums, Observation, OwnRows, RuledPlan, RuledSession } from "./rules_plan.ts";
import { type Rules, rulesNamed } from "./rules_table.ts";
import { divide } from "./rules_divisor.ts";
import { emptyState, type State } from "./state.ts";
import { type FloatArray, floats, type Tile } from "./tensor.ts";

/** φ = f(W x) + ε of rows times `inputScale`, without 1/√m: only the ratio matters. */
export function pointwiseParameters(
  map: Pick<FeatureMap, "activation" | "signed">,
  options: { headDim: number; weights: Float64Array; inputScale: number; epsilon: number },
): MapParameters {
  const { headDim, weights, inputScale, epsilon } = options;
  const projections = weights.length / headDim;
  return {
    map: {
      name: map.activation ?? "identity",
      family: "pointwise",
      featuresPerProjection: 1,
      activation: map.activation,
      signed: map.signed,
      kernel: "own",
      summary: "features of a checkpoint",
    },
    headDim,
    projections,
    features: projections,
    matrices: 1,
    inputScale,
    weights,
    hadamard: null,
    bias: new Float64Array(projections),
    gain: 1,
    epsilon,
  };
}

function parametersOf(plan: RuledPlan, rules: Rules): MapParameters {
  const { kernel, headDim, projection } = plan;
  const scale = 1 / Math.sqrt(headDim);
  if (kernel === "softmax") {
    return bindMap(featureMap("positive"), { headDim, scale, matrices: 1, weights: projection });
  }
  if (kernel === "no-projection") {
    const exp = { activation: "exp", signed: false } as const;
    return pointwiseParameters(exp, { headDim, weights: identity(headDim), inputScale: 1, epsilon: 0 });
  }
  const signed = ["gelu", "cos", "sin", "tanh", "identity", "leaky-relu"].includes(plan.activation);
  return pointwiseParameters({ activation: plan.activation, signed }, {
    headDim,
    weights: projection.length > 0 ? projection : identity(headDim),
    inputScale: rules.scalesGeneralised ? Math.sqrt(scale) : 1,
    epsilon: rules.generalisedEpsilon,
  });
}

/** Attention by a feature map of our own, without ε, instead of the checkpoint's; keys and values may have fewer heads. */
export async function prepareFeatures(
  backend: Backend,
  plan: RuledPlan,
  parameters: MapParameters,
): Promise<RuledSession> {
  const { heads, kvHeads = heads, headDim, valueDim, causal, tileRows } = plan;
  const session = await backend.prepare({ heads, kvHeads, headDim, valueDim, causal, tileRows, parameters });
  const own = { ...plan, kernel: "softmax" } as const;
  return new MappedSession(backend, own, rulesNamed("exact"), parameters, session);
}

export async function prepareMapped(backend: Backend, plan: RuledPlan, rules: Rules): Promise<RuledSession> {
  const { heads, headDim, valueDim, causal, tileRows } = plan;
  const parameters = parametersOf(plan, rules);
  const shape = { heads, kvHeads: heads, headDim, valueDim, causal, tileRows };
  const session = await backend.prepare({ ...shape, parameters });
  const mapped = new MappedSession(backend, plan, rules, parameters, session);
  await mapped.reset();
  return mapped;
}

class MappedSession implements RuledSession {
  readonly surveys = false;
  /** Bidirectional no_projection: keys' features still have to be divided by their sums over the sequence. */
  #open = false;
  readonly #divides: boolean;
  readonly observation?: Observation;
  readonly sums?: KeySums;

  constructor(
    readonly backend: Backend,
    readonly plan: RuledPlan,
    readonly rules: Rules,
    readonly parameters: MapParameters,
    readonly session: Session,
  ) {
    this.#divides = rules.divisor.kind !== "plain" && plan.kernel === "generalized";
    if (rules.name === "exact") this.sums = { save: () => session.save(), load: (state) => this.#load(state) };
    if (!plan.observed || plan.kernel !== "generalized") return;
    this.observation = { parameters, width: plan.headDim, unit: 1, keys: async (k) => k, show: null };
  }

  async survey(): Promise<void> {}

  get counts() {
    return this.session.counts;
  }

  get #closes(): boolean {
    return this.plan.kernel === "no-projection" && !this.plan.causal;
  }

  async #load(state: State): Promise<void> {
    await this.session.load(state);
    this.#open = this.#closes;
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    this.#open = this.#closes;
    await this.session.absorb(k, v, weights);
  }

  async emit(q: Tile, own?: OwnRows | null, into?: FloatArray): Promise<Tile> {
    if (this.#open) await this.#close();
    const show = this.observation?.show;
    if (!this.#divides && !show) return await this.session.emit(q, own, into);
    const denominators = floats(this.backend.limits.precision, q.rows * this.plan.heads);
    const out = await this.session.emit(q, own, into, denominators);
    await show?.(q, denominators);
    if (this.#divides) divide(out, denominators, this.rules.divisor, this.plan.valueDim);
    return out;
  }

  /** softmax over the sequence: S ← S / z and z ← 1, per feature. */
  async #close(): Promise<void> {
    this.#open = false;
    const state = await this.session.save();
    const { valueDim } = state;
    for (let f = 0; f < state.z.length; f++) {
      for (let i = f * valueDim; i < (f + 1) * valueDim; i++) state.S[i] /= state.z[f];
      state.c[f] = 0;
      state.z[f] = 1;
    }
    await this.session.load(state);
  }

  async reset(): Promise<void> {
    this.#open = false;
    this.session.reset();
    const { plan, rules, parameters } = this;
    const generalised = plan.kernel !== "softmax";
    if (plan.causal && generalised && rules.causalDelta > 0) {
      await this.session.load(constantKey(plan, parameters.features, rules.causalDelta));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
  }
}

/** A state with Σ φ = `delta` for every feature and no values: what performer-pytorch adds to causal denominators. */
function constantKey(plan: RuledPlan, features: number, delta: number): State {
  const state = emptyState(plan.heads, features, plan.valueDim);
  state.c.fill(0);
  state.z.fill(delta);
  state.keys = 1;
  return state;
}
