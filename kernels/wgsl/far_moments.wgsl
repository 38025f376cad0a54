// Moments of keys for far_taylor.wgsl: one workgroup = (range of keys, key head, 64 features × 64 value columns).
//
// keys.wgsl with y_l and y_a y_b (y = key − reference) in the place of exponentials: S += Eᵀ V with E made in workgroup memory, the sums of E
// and of ωv along the way. Causal: a range is one block of 64 rows, and far_scan.wgsl turns sums of blocks to those ahead of them.
// Predicted: compute-bound, 2·features·dv FLOP per key; features of a key are gathered from the cache, 4 to 16 loads per 512
// multiply-adds.
// Measured (as near_far.wgsl): order 1 25 ms, 0.34 GFLOP/s; order 2 0.56 s, 0.50 GFLOP/s. Not measured on a GPU yet.

// features: those that are not 0; padded: to whole workgroups.
struct Call { rows: u32, rows_per_part: u32, kv_heads: u32, first: u32, dim: u32, features: u32, padded: u32, unit: u32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> keys: array<vec4f>;
@group(0) @binding(2) var<storage, read> values: array<vec4f>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> reference: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> partials: array<vec4f>;

const ONE: u32 = 0xffffffffu;    // in place of a column: 1
const ZERO: u32 = 0xfffffffeu;   // 0: past the last feature

fn column_at(cell: u32, kv: u32, l: u32) -> f32 {
  if (l == ONE) { return 1.0; }
  if (l == ZERO) { return 0.0; }
  return keys[cell * shape.d4 + l / 4u][l & 3u] - reference[kv * shape.d4 + l / 4u][l & 3u];
}

// Features a·b of a key, times its weight.
fn features_of(row: u32, end: u32, kv: u32, a: vec4u, b: vec4u) -> vec4f {
  if (row >= end) { return vec4f(0.0); }
  let weight = weights[row];
  if (!(weight > 0.0)) { return vec4f(0.0); }
  let cell = row * call.kv_heads + kv;
  var x: vec4f;
  for (var i = 0u; i < 4u; i++) { x[i] = column_at(cell, kv, a[i]) * column_at(cell, kv, b[i]); }
  return weight * x;
}

@compute @workgroup_size(256)
fn far_moments_pass(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) t: u32) {
  let kv = id.y;
  let value_blocks = (shape.v4 + 15u) / 16u;
  let block = id.z / value_blocks;
  let column = (id.z % value_blocks) * 16u;
  let tx = t & 15u;
  let ty = t >> 4u;
  let feature = block * 64u + ty * 4u;
  var a: vec4u;
  var b: vec4u;
  for (var i = 0u; i < 4u; i++) {
    let f = feature + i;
    a[i] = f;
    b[i] = ONE;
    if (f >= call.dim) {
      let pair = f - call.dim;
      a[i] = pair % call.dim;
      b[i] = (a[i] + pair / call.dim) % call.dim;
      if (f >= call.features) { a[i] = ZERO; }
    }
  }

  var acc = Quad(vec4f(0.0), vec4f(0.0), vec4f(0.0), vec4f(0.0));
  var z = vec4f(0.0);
  var v_sum = vec4f(0.0);
  var weight = 0.0;
  let begin = call.first + id.x * call.rows_per_part;
  let end = min(call.first + call.rows, begin + call.rows_per_part);
  for (var row = begin; row < end; row += 32u) {
    let px = features_of(row + tx, end, kv, a, b);
    let py = features_of(row + tx + 16u, end, kv, a, b);
    z += px + py;
    tile[tile_at(tx, ty)] = px;
    tile[tile_at(tx + 16u, ty)] = py;
    for (var half = 0u; half < 32u; half += 16u) {
      let r = row + half + ty;
      var v = vec4f(0.0);
      if (r < end) {
        let w = max(weights[r], 0.0);
        if (w > 0.0 && column + tx < shape.v4) { v = values[(r * call.kv_heads + kv) * shape.v4 + column + tx]; }
        v_sum += w * v;
        weight += w;
      }
      a_rows[t] = v;
      workgroupBarrier();
      acc = accumulate(acc, half, tx, ty);
      workgroupBarrier();
    }
  }

  let base = (id.x * call.kv_heads + kv) * call.unit;
  tile[t] = v_sum;
  tile[256u + t] = vec4f(weight);
  workgroupBarrier();
  if (block == 0u && ty == 0u) {
    var v = vec4f(0.0);
    var n = vec4f(0.0);
    for (var i = 0u; i < 16u; i++) {
      v += tile[i * 16u + tx];
      n += tile[256u + i * 16u + tx];
    }
    if (column + tx < shape.v4) { partials[base + 1u + column + tx] = v; }
    if (column + tx == 0u) { partials[base] = n; }
  }
  workgroupBarrier();
  tile[t] = z;
  workgroupBarrier();
  let sums = base + 1u + shape.v4;
  if (column == 0u && t < 16u) {
    var total = vec4f(0.0);
    for (var i = 0u; i < 16u; i++) { total += tile[t * 16u + i]; }
    partials[sums + block * 16u + t] = total;
  }
  if (column + tx < shape.v4) {
    let s = sums + call.padded / 4u + feature * shape.v4 + column + tx;
    partials[s] = acc.a;
    partials[s + shape.v4] = acc.b;
    partials[s + 2u * shape.v4] = acc.c;
    partials[s + 3u * shape.v4] = acc.d;
  }
}
