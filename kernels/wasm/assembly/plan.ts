/** Numbers of a plan, as the host writes them (src/backends/wasm_plan.ts): 4 bytes each, in this order. */

// @ts-ignore: decorator
@inline
function int(plan: usize, at: usize): i32 {
  return load<i32>(plan + (at << 2));
}

/** Width d of queries and keys, d_v of values, and d_v rounded up to 16. */
export function headDim(plan: usize): i32 {
  return int(plan, 0);
}
export function valueDim(plan: usize): i32 {
  return int(plan, 1);
}
export function paddedValueDim(plan: usize): i32 {
  return int(plan, 2);
}
/** Bytes of a padded value row: the step of S and of packed values. */
export function valueLine(plan: usize): usize {
  return <usize> int(plan, 2) << 2;
}
/** Features per projection, 1 or 2. */
export function perProjection(plan: usize): i32 {
  return int(plan, 3);
}
/** 0 exp, 1 trig, 2 pointwise. */
export function family(plan: usize): i32 {
  return int(plan, 4);
}
/** Index in ACTIVATIONS of src/feature_map.ts. */
export function activation(plan: usize): i32 {
  return int(plan, 5);
}
export function gain(plan: usize): f32 {
  return load<f32>(plan, 24);
}
export function epsilon(plan: usize): f32 {
  return load<f32>(plan, 28);
}
/** Bytes between rows of queries, of keys, of values and of outputs. */
export function queryStep(plan: usize): usize {
  return int(plan, 8);
}
export function keyStep(plan: usize): usize {
  return int(plan, 9);
}
export function valueStep(plan: usize): usize {
  return int(plan, 10);
}
export function outputStep(plan: usize): usize {
  return int(plan, 11);
}
/** Query heads: denominators are `rows × heads`. */
export function heads(plan: usize): i32 {
  return int(plan, 12);
}
/** W in panels of 16 projections, `d × 16` each, times √scale (and log₂e): start, and bytes of one matrix. */
export function weights(plan: usize): usize {
  return int(plan, 13);
}
export function matrixBytes(plan: usize): usize {
  return int(plan, 14);
}
/** Exponent of a row in base 2 per ‖row‖²: −½·scale·log₂e for exp, + for trig, 0 for pointwise. */
export function normScale(plan: usize): f32 {
  return load<f32>(plan, 60);
}
/** Size of a Hadamard block, 0 for a dense W; sign masks (16 bytes each) and line factors of one matrix. */
export function hadamardSize(plan: usize): i32 {
  return int(plan, 16);
}
export function signMasks(plan: usize): usize {
  return int(plan, 17);
}
export function signBytes(plan: usize): usize {
  return int(plan, 18);
}
export function lineFactors(plan: usize): usize {
  return int(plan, 19);
}
export function factorBytes(plan: usize): usize {
  return int(plan, 20);
}
/** Projections handled together: 16, or the size of a Hadamard block. */
export function panel(plan: usize): i32 {
  return int(plan, 21);
}
/** Exact attention: logit scale · log₂e. */
export function logitScale(plan: usize): f32 {
  return load<f32>(plan, 88);
}
/** Exact attention: by how much logits may exceed M (base 2). */
export function slack(plan: usize): f32 {
  return load<f32>(plan, 92);
}
/** Exponents that a state holds per key and projection, 2 · bias · log₂e (family exp): of projection `first` of a matrix. */
export function keyBiases(plan: usize, matrix: i32, first: i32): usize {
  return <usize> int(plan, 24) + <usize> matrix * <usize> int(plan, 25) + (<usize> first << 2);
}
