// Dense layer (kernels/README.md §8): one workgroup = (64 rows, 32 rows of W); y = f(W x + b).
//
// The tiled product with rows of the tile as A side and rows of W as B side. A gated layer's W is packed so that slots 16 … 31 of a
// block are what its slots 0 … 15 gate: both are in one thread.
// Versions:
//   1  (this) Predicted: compute-bound, 6 loads from workgroup memory per 32 multiply-adds, W read once per 64 rows.
//      Measured (SwiftShader 5.0 on 2 shared Zen 5 cores, 512 rows × 128 → 128): 51–55 ms, 0.3 GFLOP/s, as the other passes; gelu is
//      free there. Not measured on a GPU yet.
// Lesson: a gate beside what it gates costs nothing but another order of W's rows.

struct Call { rows: u32, width: u32, first: u32, gated: u32 }   // width: numbers of an output row; first: of this dispatch

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> inputs: array<vec4f>;
@group(0) @binding(2) var<storage, read> weights: array<vec4f>;   // 32 rows of d4 vec4s per block
@group(0) @binding(3) var<storage, read> biases: array<f32>;
@group(0) @binding(4) var<storage, read_write> outputs: array<f32>;

fn put(row: u32, column: u32, y: vec4f) {
  if (column >= call.width) { return; }
  for (var i = 0u; i < 4u; i++) {
    if (row + i < call.rows) { outputs[(row + i) * call.width + column] = y[i]; }
  }
}

@compute @workgroup_size(256)
fn dense_pass(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) t: u32) {
  let row = id.x * 64u;
  let slot = id.y * 32u;
  let tx = t & 15u;
  let ty = t >> 4u;
  let r = t >> 2u;
  let v = t & 3u;
  var sum = Pair(vec4f(0.0), vec4f(0.0));
  for (var d = 0u; d < shape.d4; d += 4u) {
    workgroupBarrier();
    var x = vec4f(0.0);
    if (row + r < call.rows && d + v < shape.d4) { x = inputs[(row + r) * shape.d4 + d + v]; }
    a_rows[row_vec(r, v)] = x;
    if (t < 128u) {
      var w = vec4f(0.0);
      if (d + v < shape.d4) { w = weights[(slot + r) * shape.d4 + d + v]; }
      b_rows[row_vec(r, v)] = w;
    }
    workgroupBarrier();
    sum = product(sum, ty, tx, tx + 16u, true);
  }
  let a = sum.x + biases[slot + tx];
  let b = sum.y + biases[slot + tx + 16u];
  let top_row = row + ty * 4u;
  if (call.gated != 0u) {
    put(top_row, call.first + id.y * 16u + tx, activation(a) * b);
  } else {
    put(top_row, call.first + slot + tx, activation(a));
    put(top_row, call.first + slot + tx + 16u, activation(b));
  }
}
