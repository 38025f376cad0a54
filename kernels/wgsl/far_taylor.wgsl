// Taylor far fields of near_far.wgsl (src/near_far.ts): K̂ = constant + t + SQUARE·t², t = x·(y − reference) − mean.
//
// The state's Σ ωK̂v is one product of features of x (x_l, then x_a x_b) with moments, made as keys are: 32 features at a time. Causal
// own rows join as keys: K̂ for those that are not near, e^t without a −K̂ for those that are; mean and variance of t over all visible
// keys are summed ahead of that.
// Predicted: 2·d·dv FLOP per row at order 1, d²·dv at order 2 (compute-bound either way).
// Measured (as near_far.wgsl): order 1 40 ms, 0.21 GFLOP/s; order 2 0.92 s, 0.30 GFLOP/s; causal, keys pass and scan included, 137 ms
// and 1.3 s. Not measured on a GPU yet.

override SQUARE: f32 = 0.0;       // ½ with second moments
override HERMITE: bool = false;   // constant 1 − σ²/2 where σ² ≤ HERMITE_LIMIT

const OWN_NEAR: bool = false;
const HERMITE_LIMIT: f32 = 1.5;

// Per (state, head): Σω; Σωv, v4; Σω features, features / 4; Σω features vᵀ, features × v4.
@group(0) @binding(6) var<storage, read> moments: array<vec4f>;
@group(0) @binding(7) var<storage, read> reference: array<vec4f>;   // kv_heads × d4

var<private> mean: vec4f;
var<private> constant: vec4f;

fn query_at(work: Work, row: u32, l: u32) -> f32 {
  // Rows past the last one are not stored.
  let r = min(row, call.rows - 1u);
  return queries[(r * call.heads + work.head) * shape.d4 + l / 4u][l & 3u] * call.scale;
}

fn column_at(work: Work, row: u32, l: u32) -> vec4f {
  return vec4f(query_at(work, row, l), query_at(work, row + 1u, l), query_at(work, row + 2u, l), query_at(work, row + 3u, l));
}

// Feature f of four rows; pairs come by the distance of their members, (a, a + 0), (a, a + 1) …, modulo d.
fn feature_at(work: Work, row: u32, f: u32) -> vec4f {
  if (f < call.dim) { return column_at(work, row, f); }
  if (SQUARE == 0.0 || f >= call.dim + call.dim * (call.dim + 1u) / 2u) { return vec4f(0.0); }
  let a = (f - call.dim) % call.dim;
  let b = (a + (f - call.dim) / call.dim) % call.dim;
  return select(2.0, 1.0, a == b) * column_at(work, row, a) * column_at(work, row, b);
}

fn far_begin(work: Work, rows: vec4i, exact: vec4<bool>, t: u32, tx: u32, ty: u32) {
  let base = (work.state * call.kv_heads + work.kv) * call.unit;
  let sums = base + 1u + shape.v4;
  let products = sums + call.features / 4u;
  let row = u32(rows.x);

  var first_part = vec4f(0.0);
  var second_part = vec4f(0.0);
  for (var f = tx; f < call.features; f += 16u) {
    let part = feature_at(work, row, f) * moments[sums + f / 4u][f & 3u];
    if (f < call.dim) { first_part += part; } else { second_part += part; }
  }
  let state_weight = moments[base].x;
  let state_sum = over_columns(first_part, t);
  let state_squares = over_columns(second_part, t);
  var weight = vec4f(state_weight);
  var sum = state_sum;
  var squares = state_squares;
  if (call.causal != 0u) {
    var w = vec4f(0.0);
    var s = vec4f(0.0);
    var ss = vec4f(0.0);
    let own = u32(i32(work.block * 64u) - call.near_start) - work.band;
    for (var first = own; first < work.near; first += 32u) {
      let logits = slot_logits(work, first, t, tx, ty);
      // Slots behind the band are heavy keys.
      let wx = select(vec4f(0.0), vec4f(slot_weight[tx]), (rows >= vec4i(slot_row[tx])) & vec4<bool>(first + tx < work.near));
      let wy = select(vec4f(0.0), vec4f(slot_weight[tx + 16u]),
        (rows >= vec4i(slot_row[tx + 16u])) & vec4<bool>(first + tx + 16u < work.near));
      w += wx + wy;
      s += wx * logits.x + wy * logits.y;
      ss += wx * logits.x * logits.x + wy * logits.y * logits.y;
      workgroupBarrier();
    }
    weight += over_columns(w, t);
    sum += over_columns(s, t);
    squares += over_columns(ss, t);
  }
  let some = weight > vec4f(0.0);
  let live = select(vec4f(0.0), vec4f(1.0), some & !exact);
  let least = max(weight, vec4f(1e-30));
  mean = select(vec4f(0.0), sum / least, some);
  let variance = select(vec4f(0.0), max(squares / least - mean * mean, vec4f(0.0)), some);
  constant = vec4f(1.0);
  if (HERMITE) { constant = select(vec4f(1.0), 1.0 - 0.5 * variance, variance <= vec4f(HERMITE_LIMIT)); }
  // In powers of t + mean, which the moments are of.
  let zeroth = live * (constant - mean + SQUARE * mean * mean);
  let slope = live * (1.0 - 2.0 * SQUARE * mean);
  let square = live * SQUARE;
  workgroupBarrier();
  if (tx == 0u) {
    top[ty] = select(vec4f(NEGATIVE), vec4f(0.0), some & !exact);
    den = zeroth * state_weight + slope * state_sum + square * state_squares;
  }
  var v = vec4f(0.0);
  if (work.column + tx < shape.v4) { v = moments[base + 1u + work.column + tx]; }
  acc = Quad(zeroth.x * v, zeroth.y * v, zeroth.z * v, zeroth.w * v);
  for (var first = 0u; first < call.features; first += 32u) {
    let fx = first + tx;
    let fy = fx + 16u;
    tile[tile_at(tx, ty)] = feature_at(work, row, fx) * select(square, slope, fx < call.dim);
    tile[tile_at(tx + 16u, ty)] = feature_at(work, row, fy) * select(square, slope, fy < call.dim);
    for (var half = 0u; half < 32u; half += 16u) {
      var m = vec4f(0.0);
      if (work.column + tx < shape.v4) { m = moments[products + (first + half + ty) * shape.v4 + work.column + tx]; }
      a_rows[t] = m;
      workgroupBarrier();
      acc = accumulate(acc, half, tx, ty);
      workgroupBarrier();
    }
  }
}

fn far_reference(work: Work, v: u32) -> vec4f { return reference[work.kv * shape.d4 + v]; }

fn far_shift() -> vec4f { return mean; }

fn far_part(work: Work, logit: vec4f, slot: u32, marks: Marks, exact: vec4<bool>, ty: u32) -> vec4f {
  let sign = select(vec4f(0.0), vec4f(1.0), marks.own) - select(vec4f(0.0), vec4f(1.0), marks.near);
  let value = sign * (constant + logit + SQUARE * logit * logit) * exp(-top[ty]);
  return select(value, vec4f(0.0), exact | (sign == vec4f(0.0)));
}
