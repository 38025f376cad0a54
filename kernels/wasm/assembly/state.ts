/**
 * State of one unit: some features of one key head, float32 and in base 2: Σ_j φ_a = 2^{c_a} z_a, Σ_j φ_a v_jᵀ = 2^{c_a} S_a.
 * φ_a of the exp family here has the bias of queries as well: a query's exponents are ±u + c, whatever the biases.
 *
 * In memory: c, z (`slots` numbers each), then S (`slots` rows of padded values). A unit of n projections has n rounded up to a
 * panel slots per sign; feature (sign s, projection a) stands in slot s · lanes + a with lanes = slots / features per projection.
 *
 * c is not the exact maximum but at least maximum − SLACK: raising it rescales S, so it is raised only when a feature would exceed
 * 2^SLACK. The stored pair stays exact; z ≥ 1 for every feature that has seen a key, and sums stay far below the end of float32.
 */
import { exp2 } from "./exponential";
import { LINE, NONE } from "./pack";
import * as plan from "./plan";

/** Base-2 exponents above the stored c that are tolerated before c is raised. */
export const SLACK: f32 = 24;

/** Projections rounded up to whole panels. */
export function lanesOf(p: usize, count: i32): i32 {
  const panel = plan.panel(p);
  return (count + panel - 1) / panel * panel;
}

export function slotsOf(p: usize, count: i32): i32 {
  return lanesOf(p, count) * plan.perProjection(p);
}

export function stateBytes(p: usize, count: i32): usize {
  return <usize> slotsOf(p, count) * (8 + plan.valueLine(p));
}

/** The identity of merging: no key seen. */
export function clearState(p: usize, count: i32, state: usize): void {
  const slots = <usize> slotsOf(p, count);
  memory.fill(state, 0, stateBytes(p, count));
  for (let a: usize = 0; a < slots; a++) store<f32>(state + (a << 2), NONE);
}

/** 2^x of one number, 0 below −126. */
export function power(x: f32): f32 {
  return f32x4.extract_lane(exp2(f32x4.splat(x)), 0);
}

/** Raises slot `c` to `top` and rescales its z and S row. */
export function raise(c: usize, z: usize, row: usize, line: usize, top: f32): void {
  const factor = power(load<f32>(c) - top);
  store<f32>(c, top);
  store<f32>(z, load<f32>(z) * factor);
  const f = f32x4.splat(factor);
  for (let at = row, end = row + line; at < end; at += 16) v128.store(at, f32x4.mul(v128.load(at), f));
}

/** `to` += `from`, n bytes, a multiple of 16. */
export function addInto(to: usize, from: usize, n: usize): void {
  for (let i: usize = 0; i < n; i += 16) v128.store(to + i, f32x4.add(v128.load(to + i), v128.load(from + i)));
}

/** Bytes of `count` lines. */
// @ts-ignore: decorator
@inline
export function lines(count: i32): usize {
  return <usize> count * LINE;
}
