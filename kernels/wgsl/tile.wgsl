// The tiled product that every pass is built on. Joined in front of a pass: reduce_*.wgsl, tile.wgsl, features.wgsl, pass.
//
// A workgroup of 256 threads is a 16 × 16 grid (tx, ty). It multiplies an A side of 64 rows by a B side of 32 rows, 16 columns
// at a time from workgroup memory. A thread owns four consecutive A rows (one vec4, "group" 0…15) of one or two B rows
// ("slots" 0…31). All rows are padded to whole vec4s on the host, so no load is scalar.
//
//            A side (64, in groups of 4)     B side (32 slots)
//   keys     projections (features)          keys
//   queries  query rows                      features
//   causal   query rows, then key rows       features
//   exact    query rows                      keys
//
// Versions:
//   1  (not built) dot(a, b) per result: one extra add per four multiply-adds.
//   2  (this) the four A rows transposed by naming components: free on scalar registers, 16 multiply-adds for 5 loads.
//      Predicted: bound by workgroup-memory loads at PER = 2 (5 per 16 fma), balanced at PER = 1 (6 per 32).
// Lessons: `fma` or `s + a · b` makes no difference to SwiftShader's compile time; the latter leaves the contraction to the driver.
// Dawn's clearing of workgroup memory made SwiftShader compile 10 to 25 s per pass (unrolled stores), so it is switched off and
// everything here is written before it is read. Rows are swizzled, not padded:
// all passes but causal then fit in the 16 KiB that every WebGPU device grants.

// Sizes of the plan. Uniforms and not override constants: no loop over them is worth unrolling, and a pass then compiles once for
// all plans of a family (0.5 to 3 s a pass on SwiftShader).
struct Shape {
  d4: u32,                  // vec4s per query, key and W row
  v4: u32,                  // vec4s per value row
  projections: u32,         // m
  padded_projections: u32,  // rows of W in memory, a multiple of 64 / PER; the rest is 0
  matrices: u32,
  // State of one head: c without biases, z, p (each r4 vec4s), S (4·r4 rows of v4 vec4s). Slot sign · padded_projections + projection.
  r4: u32,                  // PER · padded_projections / 4
  unit: u32,                // 3·r4 + 4·r4·v4
  input_scale: f32,
  biases: u32,              // where in `projections` the biases lie, a number per row of W: what keys and queries have together
  gain: f32,
  epsilon: f32,
  activation: u32,          // index in ACTIVATIONS of src/feature_map.ts
}

@group(0) @binding(9) var<uniform> shape: Shape;

override WEIGHT_HEADS: u32 = 1;   // log weights of a key: one, or with decay one per key head

fn weight_at(key: u32, head: u32) -> u32 { return key * WEIGHT_HEADS + head % WEIGHT_HEADS; }

const NEGATIVE: f32 = -1e30;   // stands for −∞; WGSL does not promise infinities
const MASKED: f32 = -5e29;     // below this an exponent means "no key"

struct Pair { x: vec4f, y: vec4f }
struct Quad { a: vec4f, b: vec4f, c: vec4f, d: vec4f }

var<workgroup> a_rows: array<vec4f, 256>;   // 64 rows × 4 vec4; later 16 rows of values × 16 vec4
var<workgroup> b_rows: array<vec4f, 128>;   // 32 rows × 4 vec4

fn row_vec(row: u32, v: u32) -> u32 { return row * 4u + (v ^ ((row >> 1u) & 3u)); }

// Adds 16 columns of the products of A rows 4·group … +3 with B rows b0 and, if `both`, b1.
fn product(sum: Pair, group: u32, b0: u32, b1: u32, both: bool) -> Pair {
  var s = sum;
  let a = group * 4u;
  for (var v = 0u; v < 4u; v++) {
    let r0 = a_rows[row_vec(a, v)];
    let r1 = a_rows[row_vec(a + 1u, v)];
    let r2 = a_rows[row_vec(a + 2u, v)];
    let r3 = a_rows[row_vec(a + 3u, v)];
    let p = b_rows[row_vec(b0, v)];
    s.x = s.x + vec4f(r0.x, r1.x, r2.x, r3.x) * vec4f(p.x);
    s.x = s.x + vec4f(r0.y, r1.y, r2.y, r3.y) * vec4f(p.y);
    s.x = s.x + vec4f(r0.z, r1.z, r2.z, r3.z) * vec4f(p.z);
    s.x = s.x + vec4f(r0.w, r1.w, r2.w, r3.w) * vec4f(p.w);
    if (both) {
      let q = b_rows[row_vec(b1, v)];
      s.y = s.y + vec4f(r0.x, r1.x, r2.x, r3.x) * vec4f(q.x);
      s.y = s.y + vec4f(r0.y, r1.y, r2.y, r3.y) * vec4f(q.y);
      s.y = s.y + vec4f(r0.z, r1.z, r2.z, r3.z) * vec4f(q.z);
      s.y = s.y + vec4f(r0.w, r1.w, r2.w, r3.w) * vec4f(q.w);
    }
  }
  return s;
}

// acc (A rows 4·ty … +3, values vec4 tx) += Eᵀ V over 16 slots from `start`; a_rows holds their values.
fn accumulate(acc: Quad, start: u32, tx: u32, ty: u32) -> Quad {
  var s = acc;
  for (var j = 0u; j < 16u; j++) {
    let p = tile[tile_at(start + j, ty)];
    let v = a_rows[j * 16u + tx];
    s.a = s.a + vec4f(p.x) * v;
    s.b = s.b + vec4f(p.y) * v;
    s.c = s.c + vec4f(p.z) * v;
    s.d = s.d + vec4f(p.w) * v;
  }
  return s;
}

fn scaled(acc: Quad, f: vec4f) -> Quad {
  return Quad(acc.a * f.x, acc.b * f.y, acc.c * f.z, acc.d * f.w);
}

// exp(e − top), and exactly 0 for "no key". A NaN stays a NaN.
fn weight_of(e: vec4f, top: vec4f) -> vec4f {
  return select(exp(e - top), vec4f(0.0), e < vec4f(MASKED));
}
