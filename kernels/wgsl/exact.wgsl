// Exact softmax: one workgroup = (64 held query rows, head, range of keys × 64 value columns), after FlashAttention
// (arXiv 2205.14135). queries.wgsl with keys in the place of features: c = ln ω, z = 1, S = V.
//
// The running (M, l, o) of each range stays on the device between tiles; a tile's sums are made apart and added once, so float32
// drift grows with the number of tiles and not of keys. Predicted: compute-bound, 2·(d + dv) FLOP per pair.
// Measured (SwiftShader 5.0 on 2 shared Zen 3 cores, 512 × 512 pairs × 2 heads, d = dv = 64): 395–490 ms, 0.27–0.34 GFLOP/s.
// Lesson: what a masked key holds may be NaN, so its values are not even loaded: 0 · NaN is NaN.

struct Call { rows: u32, heads: u32, kv_heads: u32, keys: u32, keys_per_split: u32, causal: u32, scale: f32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> queries: array<vec4f>;
@group(0) @binding(2) var<storage, read> keys: array<vec4f>;
@group(0) @binding(3) var<storage, read> values: array<vec4f>;
@group(0) @binding(4) var<storage, read> log_weights: array<f32>;
@group(0) @binding(5) var<storage, read> visible: array<u32>;   // causal: keys of this tile that each query row sees
// (range, head, block): M and l of 64 rows for each value block (32 vec4 each), then o, 64 rows of V4 vec4.
@group(0) @binding(6) var<storage, read_write> parts: array<vec4f>;

@compute @workgroup_size(256)
fn exact_pass(
  @builtin(workgroup_id) id: vec3u,
  @builtin(num_workgroups) count: vec3u,
  @builtin(local_invocation_index) t: u32,
) {
  let head = id.y;
  let kv = head * call.kv_heads / call.heads;
  let value_blocks = (shape.v4 + 15u) / 16u;
  let range = id.z / value_blocks;
  let value_block = id.z % value_blocks;
  let column = value_block * 16u;
  let row = id.x * 64u;
  let tx = t & 15u;
  let ty = t >> 4u;
  var seen = vec4u(call.keys);
  if (call.causal != 0u) {
    for (var i = 0u; i < 4u; i++) { seen[i] = visible[min(row + ty * 4u + i, call.rows - 1u)]; }
  }

  if (t < 16u) { top[t] = vec4f(NEGATIVE); }
  var acc = Quad(vec4f(0.0), vec4f(0.0), vec4f(0.0), vec4f(0.0));
  var den = vec4f(0.0);
  let begin = range * call.keys_per_split;
  let end = min(call.keys, begin + call.keys_per_split);
  for (var first = begin; first < end; first += 32u) {
    var sum = Pair(vec4f(0.0), vec4f(0.0));
    for (var d = 0u; d < shape.d4; d += 4u) {
      workgroupBarrier();
      let r = t >> 2u;
      let v = t & 3u;
      var q = vec4f(0.0);
      if (row + r < call.rows && d + v < shape.d4) { q = queries[((row + r) * call.heads + head) * shape.d4 + d + v]; }
      a_rows[row_vec(r, v)] = q;
      if (t < 128u) {
        var k = vec4f(0.0);
        if (first + r < end && d + v < shape.d4) { k = keys[((first + r) * call.kv_heads + kv) * shape.d4 + d + v]; }
        b_rows[row_vec(r, v)] = k;
      }
      workgroupBarrier();
      sum = product(sum, ty, tx, tx + 16u, true);
    }
    let jx = first + tx;
    let jy = first + tx + 16u;
    var ex = NEGATIVE;
    var ey = NEGATIVE;
    if (jx < end) { ex = log_weights[weight_at(jx, kv)]; }
    if (jy < end) { ey = log_weights[weight_at(jy, kv)]; }
    let x = select(sum.x * call.scale + ex, vec4f(NEGATIVE), vec4<bool>(ex < MASKED) | (vec4u(jx) >= seen));
    let y = select(sum.y * call.scale + ey, vec4f(NEGATIVE), vec4<bool>(ey < MASKED) | (vec4u(jy) >= seen));
    raise_top(t, x, tx, ty, y, tx + 16u, ty);
    let px = weight_of(x, top[ty]);
    let py = weight_of(y, top[ty]);
    den = den * factor[ty] + px + py;
    acc = scaled(acc, factor[ty]);
    tile[tile_at(tx, ty)] = px;
    tile[tile_at(tx + 16u, ty)] = py;
    for (var half = 0u; half < 32u; half += 16u) {
      var v = vec4f(0.0);
      // A masked key's values may be anything, NaN included.
      if (first + half + ty < end && column + tx < shape.v4 && log_weights[weight_at(min(first + half + ty, end - 1u), kv)] >= MASKED) {
        v = values[((first + half + ty) * call.kv_heads + kv) * shape.v4 + column + tx];
      }
      a_rows[t] = v;
      workgroupBarrier();
      acc = accumulate(acc, half, tx, ty);
      workgroupBarrier();
    }
  }

  tile[t] = den;
  workgroupBarrier();
  var total = vec4f(0.0);
  for (var i = 0u; i < 16u; i++) { total += tile[ty * 16u + i]; }

  // Add to what earlier tiles left in this range.
  let unit = value_blocks * 32u + 64u * shape.v4;
  let base = ((range * call.heads + head) * count.x + id.x) * unit;
  let stats = base + value_block * 32u + ty;
  let old_total = parts[stats + 16u];
  let old_top = select(parts[stats], vec4f(NEGATIVE), old_total == vec4f(0.0));
  let new_top = max(old_top, top[ty]);
  let old_factor = exp(old_top - new_top);
  let new_factor = exp(top[ty] - new_top);
  if (column + tx < shape.v4) {
    let o = base + value_blocks * 32u + ty * 4u * shape.v4 + column + tx;
    parts[o] = old_factor.x * parts[o] + new_factor.x * acc.a;
    parts[o + shape.v4] = old_factor.y * parts[o + shape.v4] + new_factor.y * acc.b;
    parts[o + 2u * shape.v4] = old_factor.z * parts[o + 2u * shape.v4] + new_factor.z * acc.c;
    parts[o + 3u * shape.v4] = old_factor.w * parts[o + 3u * shape.v4] + new_factor.w * acc.d;
  }
  storageBarrier();
  workgroupBarrier();
  if (tx == 0u) {
    parts[stats] = new_top;
    parts[stats + 16u] = old_factor * old_total + new_factor * total;
  }
}
