/**
 * The state of linear attention: a mergeable summary of all keys and values seen so far (math: kernels/README.md §3).
 *
 * Per key head h and feature a it stands for `Σ_j φ_a(k_j) = e^{c} z` and `Σ_j φ_a(k_j) v_jᵀ = e^{c} S`, where c is the
 * largest exponent seen. No ε anywhere: each stored pair is divided by one common e^c, which is multiplied back at emit.
 * Merging is commutative and associative, so neither tiles, files nor machines change the result.
 */
import { decayState } from "../kernels/scalar/keys.ts";

/** Float64 everywhere: backends that compute in float32 hand in one tile's sums at a time. */
export interface State {
  readonly heads: number;
  readonly features: number;
  readonly valueDim: number;
  /** `heads × features`: largest exponent seen, −Infinity before the first key. */
  readonly c: Float64Array;
  /** `heads × features`. */
  readonly z: Float64Array;
  /** `heads × features × valueDim`. */
  readonly S: Float64Array;
  /** Keys absorbed with weight > 0. */
  keys: number;
}

/** The identity of `mergeInto`. */
export function emptyState(heads: number, features: number, valueDim: number): State {
  return {
    heads,
    features,
    valueDim,
    c: new Float64Array(heads * features).fill(-Infinity),
    z: new Float64Array(heads * features),
    S: new Float64Array(heads * features * valueDim),
    keys: 0,
  };
}

/** Forgets all keys. */
export function clearState(state: State): void {
  state.c.fill(-Infinity);
  state.z.fill(0);
  state.S.fill(0);
  state.keys = 0;
}

/** An independent copy, in the memory of `into` where there is a state of that shape: fresh memory is slow to touch. */
export function copyState(state: State, into?: State | null): State {
  if (!into) return { ...state, c: state.c.slice(), z: state.z.slice(), S: state.S.slice() };
  into.c.set(state.c);
  into.z.set(state.z);
  into.S.set(state.S);
  into.keys = state.keys;
  return into;
}

/** `into ← other`, bit for bit. Throws RangeError when the shapes differ. */
export function setState(into: State, other: State): void {
  requireSameShape(into, other);
  copyState(other, into);
}

function requireSameShape(into: State, other: State): void {
  if (into.heads !== other.heads || into.features !== other.features || into.valueDim !== other.valueDim) {
    throw new RangeError(
      `Cannot merge states: shape is ${other.heads} × ${other.features} × ${other.valueDim}, ` +
        `expected ${into.heads} × ${into.features} × ${into.valueDim}`,
    );
  }
}

/** `into ← into ⊕ other`. Throws RangeError when the shapes differ. */
export function mergeInto(into: State, other: State): void {
  requireSameShape(into, other);
  const { valueDim } = into;
  for (let f = 0; f < into.c.length; f++) {
    const top = Math.max(into.c[f], other.c[f]);
    if (top === -Infinity) continue;
    const mine = Math.exp(into.c[f] - top);
    const theirs = Math.exp(other.c[f] - top);
    into.c[f] = top;
    into.z[f] = mine * into.z[f] + theirs * other.z[f];
    for (let i = f * valueDim, end = i + valueDim; i < end; i++) into.S[i] = mine * into.S[i] + theirs * other.S[i];
  }
  into.keys += other.keys;
}

/**
 * `into ← into ⊕ other` where `other` holds the `rows` rows that follow those of `into`, masked ones counted: what is older decays by
 * them. Associative, no longer commutative. Throws RangeError when the shapes differ.
 */
export function mergeLater(into: State, other: State, decay: ArrayLike<number> | null | undefined, rows: number): void {
  if (decay) decayState(into, decay, rows);
  mergeInto(into, other);
}
