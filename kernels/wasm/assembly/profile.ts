/** Time per stage, added up in memory when the host asks for it; otherwise one predictable branch. */

// @ts-ignore: decorator
@external("env", "now")
declare function now(): f64;

export const PACK: usize = 0;
export const FEATURES: usize = 1;
export const EXP: usize = 2;
export const ACCUMULATE: usize = 3;
export const EMIT: usize = 4;

/** Where this thread adds up its stages: five float64 of milliseconds; 0 = off. */
let stages: usize = 0;
let last: f64 = 0;

export function profileInto(at: usize): void {
  stages = at;
}

/** Starts the clock. */
// @ts-ignore: decorator
@inline
export function begin(): void {
  if (stages) last = now();
}

/** Charges the time since the last mark to a stage. */
// @ts-ignore: decorator
@inline
export function mark(stage: usize): void {
  if (stages) charge(stage);
}

function charge(stage: usize): void {
  const time = now();
  const at = stages + (stage << 3);
  store<f64>(at, load<f64>(at) + (time - last));
  last = time;
}
