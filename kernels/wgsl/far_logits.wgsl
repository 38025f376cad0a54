// Logits of clusters: ln K̂ = x·ȳ + min(½ Σ x_c² s²_c, QUADRATIC_LIMIT). One workgroup = (block of 64 query rows, head, 32 clusters).
//
// Two tiled products, of rows with means and of squared rows with variances; both come from the sums as they are loaded.
// Predicted: compute-bound, 4·d FLOP per row and cluster; not measured by itself.

struct Call { rows: u32, heads: u32, kv_heads: u32, blocks: u32, causal: u32, padded: u32, unit: u32, scale: f32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> queries: array<vec4f>;
@group(0) @binding(2) var<storage, read> sums: array<vec4f>;
@group(0) @binding(3) var<storage, read> centroids: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> logits: array<vec4f>;

const QUADRATIC_LIMIT: f32 = 4.0;

@compute @workgroup_size(256)
fn far_logits_pass(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) t: u32) {
  let head = id.y;
  let kv = head * call.kv_heads / call.heads;
  let width = 1u + shape.v4 + 2u * shape.d4;
  let state = select(0u, id.x, call.causal != 0u);
  let first = id.z * 32u;
  let row = id.x * 64u;
  let tx = t & 15u;
  let ty = t >> 4u;
  let r = t >> 2u;
  let v = t & 3u;
  let cluster = ((state * call.kv_heads + kv) * call.unit) + (first + (r & 31u)) * width;
  let n = sums[cluster].x;
  let share = select(0.0, 1.0 / max(n, 1e-30), n > 0.0);
  var linear = Pair(vec4f(0.0), vec4f(0.0));
  var quadratic = Pair(vec4f(0.0), vec4f(0.0));
  for (var d = 0u; d < shape.d4; d += 4u) {
    var q = vec4f(0.0);
    var offset = vec4f(0.0);
    var variance = vec4f(0.0);
    if (row + r < call.rows && d + v < shape.d4) { q = call.scale * queries[((row + r) * call.heads + head) * shape.d4 + d + v]; }
    if (t < 128u && d + v < shape.d4) {
      let y = sums[cluster + 1u + shape.v4 + d + v] * share;
      variance = max(sums[cluster + 1u + shape.v4 + shape.d4 + d + v] * share - y * y, vec4f(0.0));
      offset = y + centroids[(kv * call.padded + first + r) * shape.d4 + d + v];
    }
    workgroupBarrier();
    a_rows[row_vec(r, v)] = q;
    if (t < 128u) { b_rows[row_vec(r, v)] = offset; }
    workgroupBarrier();
    linear = product(linear, ty, tx, tx + 16u, true);
    workgroupBarrier();
    a_rows[row_vec(r, v)] = q * q;
    if (t < 128u) { b_rows[row_vec(r, v)] = 0.5 * variance; }
    workgroupBarrier();
    quadratic = product(quadratic, ty, tx, tx + 16u, true);
  }
  let limit = vec4f(QUADRATIC_LIMIT);
  let x = linear.x + min(quadratic.x, limit);
  let y = linear.y + min(quadratic.y, limit);
  let at = ((head * call.blocks + id.x) * call.padded + first) * 16u + ty;
  let base = (state * call.kv_heads + kv) * call.unit;
  logits[at + tx * 16u] = select(vec4f(NEGATIVE), x, sums[base + (first + tx) * width].x > 0.0);
  logits[at + (tx + 16u) * 16u] = select(vec4f(NEGATIVE), y, sums[base + (first + tx + 16u) * width].x > 0.0);
}
