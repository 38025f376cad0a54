// Cluster of each key: argmax of y·c − ‖c‖²/2, the first of equals. One workgroup = (64 keys, key head).
//
// The tiled product with keys as A side and 32 centroids as B side; a thread keeps the best of its slots for four keys.
// Predicted: compute-bound, 2·C·d FLOP per key; not measured by itself.

struct Call { rows: u32, kv_heads: u32, clusters: u32, padded: u32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> keys: array<vec4f>;
@group(0) @binding(2) var<storage, read> centroids: array<vec4f>;   // (head, padded cluster) × d4
@group(0) @binding(3) var<storage, read> halves: array<f32>;        // ‖c‖²/2
@group(0) @binding(4) var<storage, read_write> assigned: array<u32>;

@compute @workgroup_size(256)
fn far_assign_pass(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) t: u32) {
  let row = id.x * 64u;
  let kv = id.y;
  let tx = t & 15u;
  let ty = t >> 4u;
  let r = t >> 2u;
  let v = t & 3u;
  var best = vec4f(NEGATIVE);
  var cluster = vec4f(0.0);   // whole numbers
  for (var first = 0u; first < call.padded; first += 32u) {
    var sum = Pair(vec4f(0.0), vec4f(0.0));
    for (var d = 0u; d < shape.d4; d += 4u) {
      workgroupBarrier();
      var k = vec4f(0.0);
      if (row + r < call.rows && d + v < shape.d4) { k = keys[((row + r) * call.kv_heads + kv) * shape.d4 + d + v]; }
      a_rows[row_vec(r, v)] = k;
      if (t < 128u) {
        var c = vec4f(0.0);
        if (d + v < shape.d4) { c = centroids[(kv * call.padded + first + r) * shape.d4 + d + v]; }
        b_rows[row_vec(r, v)] = c;
      }
      workgroupBarrier();
      sum = product(sum, ty, tx, tx + 16u, true);
    }
    for (var i = 0u; i < 2u; i++) {
      let g = first + tx + 16u * i;
      let score = select(sum.x, sum.y, i == 1u) - halves[kv * call.padded + g];
      let better = (score > best) & vec4<bool>(g < call.clusters);
      best = select(best, score, better);
      cluster = select(cluster, vec4f(f32(g)), better);
    }
  }
  tile[t] = best;
  tile[256u + t] = cluster;
  workgroupBarrier();
  if (t < 64u) {
    let group = (t >> 2u) * 16u;
    let i = t & 3u;
    var highest = tile[group][i];
    var chosen = tile[256u + group][i];
    for (var x = 1u; x < 16u; x++) {
      let score = tile[group + x][i];
      let g = tile[256u + group + x][i];
      if (score > highest || (score == highest && g < chosen)) {
        highest = score;
        chosen = g;
      }
    }
    if (row + t < call.rows) { assigned[(row + t) * call.kv_heads + kv] = u32(chosen); }
  }
}
