// Causal pass: one workgroup = (chunk of 64 rows, head, 64 value columns). Rows see the prefix state ahead of the chunk
// (scan.wgsl) and the chunk's own keys up to themselves (math: kernels/README.md §4):
//
//   c' = max(c of the prefix, c of the chunk);  P = e^{q + c' + biases − M};  K = e^{k − c'};  G = tril(P Kᵀ)
//   numerator = P (e^{c − c'} ⊙ S) + G V,  denominator = P · (e^{c − c'} ⊙ z) + G 1
//
// G (4 × 4 a thread) is summed in registers over 32 features at a time; key features are made twice (here and in keys.wgsl)
// rather than stored. c' looks ahead inside the chunk, so a denominator may underflow: the host recomputes such rows.
// Predicted: 2·r·(2d + dv + 64) FLOP per row and head in this pass. Uses 22.75 KiB of workgroup memory.
// Measured with keys and scan (SwiftShader 5.0 on 2 shared Zen 3 cores, 512 rows × 2 heads, d = dv = 64, r = 128): 344–423 ms,
// 0.15–0.22 GFLOP/s; relative error 1e-7 to 3e-7; inputs ×60: 47 of 400 rows recomputed on the host. Not measured on a GPU yet.
// Lesson: P must meet K before it is scaled by e^{c − c'} for the prefix; one tile serves both, in that order.

struct Call { rows: u32, heads: u32, kv_heads: u32, first_head: u32, first_kv: u32, round_heads: u32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> queries: array<vec4f>;
@group(0) @binding(2) var<storage, read> keys: array<vec4f>;
@group(0) @binding(3) var<storage, read> values: array<vec4f>;
@group(0) @binding(4) var<storage, read> log_weights: array<f32>;
@group(0) @binding(5) var<storage, read> projections: array<vec4f>;
@group(0) @binding(6) var<storage, read> prefixes: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> outputs: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> denominators: array<f32>;

var<workgroup> key_tile: array<vec4f, 512>;   // 32 features × 16 groups of four keys
var<workgroup> key_rows: array<f32, 64>;      // exponent of each key

// Products of 64 rows (queries or keys) with the projections from `first` on.
fn project(t: u32, from_keys: bool, row: u32, stride: u32, w_row: u32, per_sweep: u32) -> Pair {
  var sum = Pair(vec4f(0.0), vec4f(0.0));
  let tx = t & 15u;
  let ty = t >> 4u;
  for (var d = 0u; d < shape.d4; d += 4u) {
    workgroupBarrier();
    let r = t >> 2u;
    let v = t & 3u;
    var a = vec4f(0.0);
    if (row + r < call.rows && d + v < shape.d4) {
      let at = stride + (row + r) * select(call.heads, call.kv_heads, from_keys) * shape.d4 + d + v;
      if (from_keys) { a = keys[at]; } else { a = queries[at]; }
    }
    a_rows[row_vec(r, v)] = a;
    if (r < per_sweep) {
      var w = vec4f(0.0);
      if (d + v < shape.d4) { w = projections[(w_row + r) * shape.d4 + d + v]; }
      b_rows[row_vec(r, v)] = w;
    }
    workgroupBarrier();
    sum = product(sum, ty, tx, tx + 16u, PER == 1u);
  }
  return sum;
}

@compute @workgroup_size(256)
fn causal_pass(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) t: u32) {
  let head = call.first_head + id.y;
  let kv = head * call.kv_heads / call.heads;
  let base = (id.x * call.round_heads + kv - call.first_kv) * shape.unit;
  let column = id.z * 16u;
  let row = id.x * 64u;
  let tx = t & 15u;
  let ty = t >> 4u;
  let per_sweep = PROJECTION_BLOCK / 2u;

  // Exponents of the chunk's keys, four threads a key.
  let r = t >> 2u;
  var square = 0.0;
  if (row + r < call.rows) {
    for (var d = t & 3u; d < shape.d4; d += 4u) {
      let k = keys[((row + r) * call.kv_heads + kv) * shape.d4 + d];
      square += dot(k, k);
    }
  }
  key_tile[t] = vec4f(square);
  workgroupBarrier();
  if (t < 64u) {
    var e = NEGATIVE;
    if (row + t < call.rows) {
      let norm = key_tile[4u * t].x + key_tile[4u * t + 1u].x + key_tile[4u * t + 2u].x + key_tile[4u * t + 3u].x;
      e = key_exponent(norm, log_weights[weight_at(row + t, kv)]);
    }
    key_rows[t] = e;
  }
  if (t < 16u) { top[t] = vec4f(NEGATIVE); }
  workgroupBarrier();
  let k4 = ty * 4u;
  let key_e = vec4f(key_rows[k4], key_rows[k4 + 1u], key_rows[k4 + 2u], key_rows[k4 + 3u]);
  let hidden = key_e < vec4f(MASKED);

  var acc = Quad(vec4f(0.0), vec4f(0.0), vec4f(0.0), vec4f(0.0));
  var g = Quad(vec4f(0.0), vec4f(0.0), vec4f(0.0), vec4f(0.0));
  var den = vec4f(0.0);
  for (var first = 0u; first < shape.projections; first += per_sweep) {
    let w_row = (kv % shape.matrices) * shape.padded_projections + first;
    let sx = first + tx;
    let sy = first + tx + select(16u, shape.padded_projections, PER == 2u);
    let ahead_x = prefixes[base + 2u * shape.r4 + sx / 4u][sx & 3u];
    let ahead_y = prefixes[base + 2u * shape.r4 + sy / 4u][sy & 3u];
    let c_x = max(ahead_x, prefixes[base + sx / 4u][sx & 3u]);
    let c_y = max(ahead_y, prefixes[base + sy / 4u][sy & 3u]);

    let k = expand(project(t, true, row, kv * shape.d4, w_row, per_sweep));
    // A padding feature has c' = "no key"; so has a query row of it below.
    let kx = select(k.gx * exp(k.ex + key_e - c_x), vec4f(0.0), hidden | vec4<bool>(c_x < MASKED));
    let ky = select(k.gy * exp(k.ey + key_e - c_y), vec4f(0.0), hidden | vec4<bool>(c_y < MASKED));
    key_tile[tile_at(tx, ty)] = kx;
    key_tile[tile_at(tx + 16u, ty)] = ky;

    let q = expand(project(t, false, row, head * shape.d4, w_row, per_sweep));
    let bx = w_row + tx;
    let by = select(bx + 16u, bx, PER == 2u);
    let x = q.ex + (c_x + projections[shape.biases + bx / 4u][bx & 3u]);
    let y = q.ey + (c_y + projections[shape.biases + by / 4u][by & 3u]);
    raise_top(t, x, tx, ty, y, tx + 16u, ty);
    let px = q.gx * weight_of(x, top[ty]);
    let py = q.gy * weight_of(y, top[ty]);
    tile[tile_at(tx, ty)] = px;
    tile[tile_at(tx + 16u, ty)] = py;
    workgroupBarrier();
    g = scaled(g, factor[ty]);
    for (var j = 0u; j < 32u; j++) {
      let p = tile[tile_at(j, ty)];
      let key = key_tile[tile_at(j, tx)];
      g.a = g.a + vec4f(p.x) * key;
      g.b = g.b + vec4f(p.y) * key;
      g.c = g.c + vec4f(p.z) * key;
      g.d = g.d + vec4f(p.w) * key;
    }
    workgroupBarrier();
    // The prefix's part: the same P, relative to c' instead of c.
    let hx = px * exp(ahead_x - c_x);
    let hy = py * exp(ahead_y - c_y);
    den = den * factor[ty] + hx * prefixes[base + shape.r4 + sx / 4u][sx & 3u] + hy * prefixes[base + shape.r4 + sy / 4u][sy & 3u];
    acc = scaled(acc, factor[ty]);
    tile[tile_at(tx, ty)] = hx;
    tile[tile_at(tx + 16u, ty)] = hy;
    for (var half = 0u; half < 2u; half++) {
      let slot = first + ty + half * select(16u, shape.padded_projections, PER == 2u);
      var s = vec4f(0.0);
      if (column + tx < shape.v4) { s = prefixes[base + 3u * shape.r4 + slot * shape.v4 + column + tx]; }
      a_rows[t] = s;
      workgroupBarrier();
      acc = accumulate(acc, half * 16u, tx, ty);
      workgroupBarrier();
    }
  }

  // Row i sees keys ≤ i of its chunk.
  let key_at = vec4u(tx * 4u) + vec4u(0u, 1u, 2u, 3u);
  let zero = vec4f(0.0);
  g.a = select(g.a, zero, key_at > vec4u(k4));
  g.b = select(g.b, zero, key_at > vec4u(k4 + 1u));
  g.c = select(g.c, zero, key_at > vec4u(k4 + 2u));
  g.d = select(g.d, zero, key_at > vec4u(k4 + 3u));
  let one = vec4f(1.0);
  den += vec4f(dot(g.a, one), dot(g.b, one), dot(g.c, one), dot(g.d, one));
  key_tile[t] = den;
  for (var half = 0u; half < 64u; half += 16u) {
    // Sixteen keys at a time: G transposed into the tile by the threads that hold them.
    workgroupBarrier();
    if (tx >= half / 4u && tx < half / 4u + 4u) {
      for (var i = 0u; i < 4u; i++) {
        tile[tile_at(tx * 4u + i - half, ty)] = vec4f(g.a[i], g.b[i], g.c[i], g.d[i]);
      }
    }
    var v = vec4f(0.0);
    if (key_rows[half + ty] >= MASKED && column + tx < shape.v4) {
      v = values[((row + half + ty) * call.kv_heads + kv) * shape.v4 + column + tx];
    }
    a_rows[t] = v;
    workgroupBarrier();
    acc = accumulate(acc, 0u, tx, ty);
  }
  var total = vec4f(0.0);
  for (var i = 0u; i < 16u; i++) { total += key_tile[ty * 16u + i]; }
  for (var i = 0u; i < 4u; i++) {
    let at = row + k4 + i;
    if (at >= call.rows) { break; }
    let cell = at * call.heads + head;
    let numerator = select(select(acc.a, acc.b, i == 1u), select(acc.c, acc.d, i == 3u), i >= 2u);
    if (column + tx < shape.v4) {
      outputs[cell * shape.v4 + column + tx] = select(numerator / total[i], zero, total[i] == 0.0);
    }
    if (tx == 0u && column == 0u) { denominators[cell] = total[i]; }
  }
}
