/** Backend `scalar`: float64 on the main thread; the reference every other backend is judged by. Runs everywhere. */
import { emitCausal } from "../../kernels/scalar/causal.ts";
import { dense } from "../../kernels/scalar/dense.ts";
import { absorbExact, emitExact, emptySoftmax, type OnlineSoftmax } from "../../kernels/scalar/exact.ts";
import { absorbKeys } from "../../kernels/scalar/keys.ts";
import { emitQueries } from "../../kernels/scalar/queries.ts";
import type {
  Backend,
  Driver,
  ExactSession,
  Linear,
  NearFarSession,
  Normalisers,
  Session,
  SessionCounts,
} from "../backend.ts";
import { checkDecay, refuseDecay } from "../decay.ts";
import { UsageError } from "../errors.ts";
import type { NearFarPlan } from "../near_far.ts";
import {
  checkLinear,
  checkRows,
  type ExactPlan,
  type Limits,
  type LinearPlan,
  outputWidth,
  type Plan,
} from "../plan.ts";
import { clearState, copyState, emptyState, setState, type State } from "../state.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { ScalarNearFar } from "./scalar_near_far.ts";

class ScalarSession implements Session {
  readonly counts: SessionCounts = { emptyRows: 0, nonPositive: 0, recomputed: 0 };
  #state: State;
  /** Causal: the state past a tile that was emitted but is not yet absorbed, so that its keys are computed once. */
  #ahead: { readonly k: Tile; readonly state: State } | null = null;
  /** A state that is no longer needed. */
  #spare: State | null = null;

  constructor(readonly plan: Plan) {
    this.#state = emptyState(plan.kvHeads, plan.parameters.features, plan.valueDim);
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    if (this.#ahead?.k === k) [this.#state, this.#spare] = [this.#ahead.state, this.#state];
    else absorbKeys(this.plan.parameters, this.plan, this.#state, k, v, weights);
    this.#ahead = null;
  }

  async emit(
    q: Tile,
    own?: { k: Tile; v: Tile; weights?: FloatArray } | null,
    into?: FloatArray,
    denominators?: FloatArray,
  ): Promise<Tile> {
    const { plan } = this;
    const length = q.rows * plan.heads * plan.valueDim;
    const data = into?.subarray(0, length) ?? new Float64Array(length);
    if (own) {
      const ahead = copyState(this.#state, this.#spare);
      this.#spare = null;
      emitCausal(plan.parameters, plan, ahead, q, own.k, own.v, own.weights, data, this.counts, denominators);
      this.#ahead = { k: own.k, state: ahead };
    } else {
      emitQueries(plan.parameters, plan, this.#state, q, data, this.counts, denominators);
    }
    return { start: q.start, rows: q.rows, cols: plan.heads * plan.valueDim, data };
  }

  async save(): Promise<State> {
    return copyState(this.#state);
  }

  async load(state: State): Promise<void> {
    this.#ahead = null;
    setState(this.#state, state);
  }

  reset(): void {
    this.#ahead = null;
    clearState(this.#state);
    Object.assign(this.counts, { emptyRows: 0, nonPositive: 0, recomputed: 0 });
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

class ScalarExactSession implements ExactSession {
  #q: Tile | null = null;
  #positions: ArrayLike<number> | undefined;
  #held: OnlineSoftmax | null = null;

  constructor(readonly plan: ExactPlan) {}

  async pose(q: Tile, positions: ArrayLike<number>): Promise<void> {
    this.#q = { ...q, data: q.data.slice() };
    this.#positions = this.plan.causal ? Float64Array.from(positions) : undefined;
    this.#held = emptySoftmax(q.rows, this.plan.heads, this.plan.valueDim);
  }

  async absorb(k: Tile, v: Tile, weights?: FloatArray): Promise<void> {
    if (!this.#q || !this.#held) throw new Error("absorb before pose");
    absorbExact(this.plan, this.plan.scale, this.#held, this.#q, k, v, weights, this.#positions, k.start);
  }

  async normalisers(): Promise<Normalisers> {
    if (!this.#held) throw new Error("normalisers before pose");
    return { top: this.#held.top.slice(), total: this.#held.total.slice() };
  }

  async emit(): Promise<Tile> {
    if (!this.#q || !this.#held) throw new Error("emit before pose");
    const cols = this.plan.heads * this.plan.valueDim;
    const data = new Float64Array(this.#q.rows * cols);
    emitExact(this.#held, this.plan.valueDim, data);
    return { start: this.#q.start, rows: this.#q.rows, cols, data };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

class ScalarLinear implements Linear {
  constructor(readonly plan: LinearPlan) {
    checkLinear(plan);
  }

  async run(x: Tile, into?: FloatArray): Promise<Tile> {
    checkRows(this.plan, x);
    const cols = outputWidth(this.plan);
    const data = into?.subarray(0, x.rows * cols) ?? new Float64Array(x.rows * cols);
    dense(this.plan, x, data);
    return { start: x.start, rows: x.rows, cols, data };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

class ScalarBackend implements Backend {
  readonly name = "scalar";
  readonly device = "JavaScript float64 × 1 thread";
  readonly threads = 1;
  readonly limits: Limits = { precision: "f64", preferredTileRows: 512, maxTileBytes: 512 << 10, inFlight: 1 };

  async prepare(plan: Plan): Promise<Session> {
    checkDecay(plan);
    return new ScalarSession(plan);
  }

  async prepareExact(plan: ExactPlan): Promise<ExactSession> {
    checkDecay(plan);
    return new ScalarExactSession(plan);
  }

  async prepareNearFar(plan: NearFarPlan): Promise<NearFarSession> {
    refuseDecay(plan);
    return new ScalarNearFar(plan);
  }

  async prepareLinear(plan: LinearPlan): Promise<Linear> {
    return new ScalarLinear(plan);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

export const scalar: Driver = {
  name: "scalar",
  async open({ variant }) {
    if (variant !== undefined) throw new UsageError(`Unknown variant "scalar:${variant}", expected scalar`);
    return new ScalarBackend();
  },
};
