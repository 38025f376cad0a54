// Query pass: one workgroup = (64 query rows, head, 64 value columns); out = (pᵀS)/(p·z).
//
// The mirror of keys.wgsl: per 32 features, exponents by the tiled product, row maxima, rescale of the numerator held in registers
// (4 rows × 4 values a thread), then numerator += pᵀ S, an online softmax over features. The denominator sums along.
// Versions:
//   1  (not built) two sweeps over the features (maximum, then sums): every product twice.
//   2  (this) one sweep with a running row maximum. Predicted: compute-bound, 2·r·(d + dv) FLOP per row and head.
//      Measured (SwiftShader 5.0 on 2 shared Zen 3 cores, 512 rows × 2 heads, d = dv = 64, r = 128): 109–160 ms, 0.16 (hyperbolic) to
//      0.31 (positive) GFLOP/s; relative error 1e-7 to 3e-7. Not measured on a GPU yet.
// Lesson: half the products (hyperbolic) save nothing on SwiftShader: it pays for gathers from workgroup memory, not for arithmetic.

struct Call { rows: u32, heads: u32, kv_heads: u32, first_head: u32, first_kv: u32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> queries: array<vec4f>;
@group(0) @binding(2) var<storage, read> projections: array<vec4f>;
@group(0) @binding(3) var<storage, read> state: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> outputs: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> denominators: array<f32>;

@compute @workgroup_size(256)
fn queries_pass(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) t: u32) {
  let head = call.first_head + id.y;
  let kv = head * call.kv_heads / call.heads;
  let base = (kv - call.first_kv) * shape.unit;
  let column = id.z * 16u;
  let row = id.x * 64u;
  let tx = t & 15u;
  let ty = t >> 4u;
  let per_sweep = PROJECTION_BLOCK / 2u;   // projections of 32 features

  if (t < 16u) { top[t] = vec4f(NEGATIVE); }
  var acc = Quad(vec4f(0.0), vec4f(0.0), vec4f(0.0), vec4f(0.0));
  var den = vec4f(0.0);
  for (var first = 0u; first < shape.projections; first += per_sweep) {
    var sum = Pair(vec4f(0.0), vec4f(0.0));
    for (var d = 0u; d < shape.d4; d += 4u) {
      workgroupBarrier();
      let r = t >> 2u;
      let v = t & 3u;
      var q = vec4f(0.0);
      if (row + r < call.rows && d + v < shape.d4) { q = queries[((row + r) * call.heads + head) * shape.d4 + d + v]; }
      a_rows[row_vec(r, v)] = q;
      if (r < per_sweep) {
        var w = vec4f(0.0);
        if (d + v < shape.d4) { w = projections[((kv % shape.matrices) * shape.padded_projections + first + r) * shape.d4 + d + v]; }
        b_rows[row_vec(r, v)] = w;
      }
      workgroupBarrier();
      sum = product(sum, ty, tx, tx + 16u, PER == 1u);
    }
    let f = expand(sum);
    let sx = first + tx;
    let sy = first + tx + select(16u, shape.padded_projections, PER == 2u);
    let bx = (kv % shape.matrices) * shape.padded_projections + sx;
    let by = select(bx + 16u, bx, PER == 2u);
    let x = f.ex + (state[base + sx / 4u][sx & 3u] + projections[shape.biases + bx / 4u][bx & 3u]);
    let y = f.ey + (state[base + sy / 4u][sy & 3u] + projections[shape.biases + by / 4u][by & 3u]);
    raise_top(t, x, tx, ty, y, tx + 16u, ty);
    let px = f.gx * weight_of(x, top[ty]);
    let py = f.gy * weight_of(y, top[ty]);
    den = den * factor[ty] + px * state[base + shape.r4 + sx / 4u][sx & 3u] + py * state[base + shape.r4 + sy / 4u][sy & 3u];
    acc = scaled(acc, factor[ty]);
    tile[tile_at(tx, ty)] = px;
    tile[tile_at(tx + 16u, ty)] = py;
    for (var half = 0u; half < 2u; half++) {
      let slot = first + ty + half * select(16u, shape.padded_projections, PER == 2u);
      var s = vec4f(0.0);
      if (column + tx < shape.v4) { s = state[base + 3u * shape.r4 + slot * shape.v4 + column + tx]; }
      a_rows[t] = s;
      workgroupBarrier();
      acc = accumulate(acc, half * 16u, tx, ty);
      workgroupBarrier();
    }
  }

  tile[t] = den;
  workgroupBarrier();
  var total = vec4f(0.0);
  for (var i = 0u; i < 16u; i++) { total += tile[ty * 16u + i]; }
  for (var i = 0u; i < 4u; i++) {
    let r = row + ty * 4u + i;
    if (r >= call.rows) { break; }
    let cell = r * call.heads + head;
    let numerator = select(select(acc.a, acc.b, i == 1u), select(acc.c, acc.d, i == 3u), i >= 2u);
    if (column + tx < shape.v4) {
      outputs[cell * shape.v4 + column + tx] = select(numerator / total[i], vec4f(0.0), total[i] == 0.0);
    }
    if (t % 16u == 0u && column == 0u) { denominators[cell] = total[i]; }
  }
}
