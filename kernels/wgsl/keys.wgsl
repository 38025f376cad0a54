// Keys pass: one workgroup = (range of keys, key head, 64 features × 64 value columns). No feature reaches device memory.
//
// Per 32 keys: exponents by the tiled product (both signs of a hyperbolic map from one), column maxima, rescale of the S rows
// held in registers (4 features × 4 values a thread), then S += Eᵀ V. z sums along in the threads that make E.
// Versions:
//   1  (not built) E to device memory, then two matrix products: r·4 bytes per key and head each way.
//   2  (this) fused. Predicted: compute-bound at d = dv = 64, 16 fma per 3 loads in the S part.
//      Measured (SwiftShader 5.0 on 2 shared Zen 3 cores, 512 rows × 2 heads, d = dv = 64, r = 128): 119–132 ms, 0.20 (hyperbolic) to
//      0.28 (positive) GFLOP/s; relative error 1e-7 to 3e-7. Not measured on a GPU yet.
// Lesson: value blocks beyond 64 columns recompute the features; that costs d/64 more than a wider register tile would.

struct Call { rows: u32, rows_per_split: u32, heads: u32, first_head: u32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> keys: array<vec4f>;
@group(0) @binding(2) var<storage, read> values: array<vec4f>;
@group(0) @binding(3) var<storage, read> log_weights: array<f32>;
@group(0) @binding(4) var<storage, read> projections: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> partials: array<vec4f>;

var<workgroup> squares: array<f32, 128>;
var<workgroup> exponents: array<f32, 32>;

@compute @workgroup_size(256)
fn keys_pass(
  @builtin(workgroup_id) id: vec3u,
  @builtin(num_workgroups) count: vec3u,
  @builtin(local_invocation_index) t: u32,
) {
  let head = call.first_head + id.y;
  let value_blocks = (shape.v4 + 15u) / 16u;
  let block = id.z / value_blocks;
  let column = (id.z % value_blocks) * 16u;
  let first = block * PROJECTION_BLOCK;
  let tx = t & 15u;
  let ty = t >> 4u;
  // PER = 1: slots tx and tx + 16 of group ty. PER = 2: one slot, groups ty & 7 (+w) and 8 + (ty & 7) (−w).
  let twin = PER == 2u;
  let g0 = select(ty, ty & 7u, twin);
  let g1 = select(ty, 8u + (ty & 7u), twin);
  let s0 = select(tx, tx + 16u * (ty >> 3u), twin);
  let s1 = select(tx + 16u, s0, twin);
  let feature = vec4u(first + g0 * 4u) + vec4u(0u, 1u, 2u, 3u);
  let padding = feature >= vec4u(shape.projections);

  if (t < 16u) { top[t] = vec4f(NEGATIVE); }
  var acc = Quad(vec4f(0.0), vec4f(0.0), vec4f(0.0), vec4f(0.0));
  var zx = vec4f(0.0);
  var zy = vec4f(0.0);
  let begin = id.x * call.rows_per_split;
  let end = min(call.rows, begin + call.rows_per_split);
  for (var row = begin; row < end; row += 32u) {
    var sum = Pair(vec4f(0.0), vec4f(0.0));
    var square = 0.0;
    for (var d = 0u; d < shape.d4; d += 4u) {
      workgroupBarrier();
      let r = t >> 2u;
      let v = t & 3u;
      if (r < PROJECTION_BLOCK) {
        var w = vec4f(0.0);
        if (d + v < shape.d4) { w = projections[((head % shape.matrices) * shape.padded_projections + first + r) * shape.d4 + d + v]; }
        a_rows[row_vec(r, v)] = w;
      }
      if (t < 128u) {
        var k = vec4f(0.0);
        if (row + r < end && d + v < shape.d4) { k = keys[((row + r) * call.heads + head) * shape.d4 + d + v]; }
        b_rows[row_vec(r, v)] = k;
        square += dot(k, k);
      }
      workgroupBarrier();
      sum = product(sum, g0, s0, s1, PER == 1u);
    }
    if (t < 128u) { squares[t] = square; }
    workgroupBarrier();
    if (t < 32u) {
      let norm = squares[4u * t] + squares[4u * t + 1u] + squares[4u * t + 2u] + squares[4u * t + 3u];
      var e = NEGATIVE;
      if (row + t < end) { e = key_exponent(norm, log_weights[weight_at(row + t, head)]); }
      exponents[t] = e;
    }
    workgroupBarrier();
    let f = expand(sum);
    let e0 = exponents[s0];
    let e1 = exponents[s1];
    let x = select(select(f.ex + e0, vec4f(NEGATIVE), e0 < MASKED), vec4f(NEGATIVE), padding);
    let y = select(select(f.ey + e1, vec4f(NEGATIVE), e1 < MASKED), vec4f(NEGATIVE), padding);
    raise_top(t, x, s0, g0, y, s1, g1);
    let px = select(f.gx * weight_of(x, top[g0]), vec4f(0.0), x < vec4f(MASKED));
    let py = select(f.gy * weight_of(y, top[g1]), vec4f(0.0), y < vec4f(MASKED));
    zx = zx * factor[g0] + px;
    zy = zy * factor[g1] + py;
    acc = scaled(acc, factor[ty]);
    tile[tile_at(s0, g0)] = px;
    tile[tile_at(s1, g1)] = py;
    for (var half = 0u; half < 32u; half += 16u) {
      var v = vec4f(0.0);
      if (exponents[half + ty] >= MASKED && column + tx < shape.v4) {
        v = values[((row + half + ty) * call.heads + head) * shape.v4 + column + tx];
      }
      a_rows[t] = v;
      workgroupBarrier();
      acc = accumulate(acc, half, tx, ty);
      workgroupBarrier();
    }
  }

  // z: sum over the threads of each group.
  tile[t] = zx;
  tile[256u + t] = zy;
  workgroupBarrier();
  let base = (id.x * count.y + id.y) * shape.unit;
  if (t < 16u && column == 0u) {
    var z = vec4f(0.0);
    for (var i = 0u; i < 16u; i++) {
      if (twin) {
        let at = select(0u, 256u, t >= 8u) + (t & 7u) * 16u + i;
        z += tile[at] + tile[at + 128u];
      } else {
        z += tile[t * 16u + i] + tile[256u + t * 16u + i];
      }
    }
    let slot4 = group_slot(block, t);
    partials[base + slot4] = top[t];
    partials[base + shape.r4 + slot4] = z;
  }
  if (column + tx < shape.v4) {
    let s = base + 3u * shape.r4 + group_slot(block, ty) * 4u * shape.v4 + column + tx;
    partials[s] = acc.a;
    partials[s + shape.v4] = acc.b;
    partials[s + 2u * shape.v4] = acc.c;
    partials[s + 3u * shape.v4] = acc.d;
  }
}

// Index of a group's four slots among the head's R4.
fn group_slot(block: u32, group: u32) -> u32 {
  if (PER == 1u) { return block * 16u + group; }
  return block * 8u + (group & 7u) + select(0u, shape.padded_projections / 4u, group >= 8u);
}
