// Sums of keys by cluster for far_clusters.wgsl: one thread = (range of keys, key head, one vec4 of Σω, Σωv, Σωy', Σωy'²).
//
// Keys are taken one after another and added where their cluster's sums lie in memory: each number has one thread, so there are neither
// atomics nor sorting, and neighbouring threads write neighbouring columns.
// Versions:
//   1  (not built) the product with one-hot rows: C times the additions.
//   2  (this) Predicted: bound by the latency of one read and write per key, hidden by the other ranges.
//      Measured (as near_far.wgsl, C = 64, with far_assign.wgsl): 42 ms. Not measured on a GPU yet.

struct Call { rows: u32, rows_per_part: u32, kv_heads: u32, first: u32, padded: u32, unit: u32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> keys: array<vec4f>;
@group(0) @binding(2) var<storage, read> values: array<vec4f>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> assigned: array<u32>;
@group(0) @binding(5) var<storage, read> centroids: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> partials: array<vec4f>;

@compute @workgroup_size(64)
fn far_sums_pass(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) t: u32) {
  let kv = id.y;
  let width = 1u + shape.v4 + 2u * shape.d4;
  let column = id.z * 64u + t;
  if (column >= width) { return; }
  let base = (id.x * call.kv_heads + kv) * call.unit + column;
  for (var g = 0u; g < call.padded; g++) { partials[base + g * width] = vec4f(0.0); }
  let begin = call.first + id.x * call.rows_per_part;
  let end = min(call.first + call.rows, begin + call.rows_per_part);
  for (var row = begin; row < end; row++) {
    let weight = weights[row];
    if (!(weight > 0.0)) { continue; }
    let cell = row * call.kv_heads + kv;
    let g = assigned[cell];
    var x = vec4f(1.0);
    if (column > shape.v4) {
      let l = (column - 1u - shape.v4) % shape.d4;
      x = keys[cell * shape.d4 + l] - centroids[(kv * call.padded + g) * shape.d4 + l];
      if (column > shape.v4 + shape.d4) { x *= x; }
    } else if (column > 0u) {
      x = values[cell * shape.v4 + column - 1u];
    }
    partials[base + g * width] += weight * x;
  }
}
