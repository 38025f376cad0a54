// Column maxima by quad operations: needs the `subgroups` feature. Same functions as reduce_workgroup.wgsl.
//
// Relies on consecutive local_invocation_index values forming quads, which holds for one-dimensional workgroups everywhere.
// Predicted: three workgroup barriers become two, and 64 loads per group become 8.
// Lesson: SwiftShader's subgroups have 4 lanes, so quads are the widest step that runs on every adapter.

enable subgroups;
diagnostic(off, subgroup_uniformity);

var<workgroup> tile: array<vec4f, 512>;     // 32 slots × 16 groups of four A rows
var<workgroup> top: array<vec4f, 16>;       // running maximum per A row
var<workgroup> factor: array<vec4f, 16>;    // exp(old maximum − new maximum)

fn tile_at(slot: u32, group: u32) -> u32 { return slot * 16u + (group ^ (slot & 15u)); }

fn quad_max(x: vec4f) -> vec4f {
  let y = max(x, quadSwapX(x));
  return max(y, quadSwapY(y));
}

// Raises `top` by this thread's x0 (slot s0, group g0) and x1 (s1, g1) and sets `factor`. Overwrites `tile`.
fn raise_top(t: u32, x0: vec4f, s0: u32, g0: u32, x1: vec4f, s1: u32, g1: u32) {
  let m0 = quad_max(x0);
  let m1 = quad_max(x1);
  if ((t & 3u) == 0u) {
    tile[g0 * 8u + (s0 >> 2u)] = m0;
    tile[g1 * 8u + (s1 >> 2u)] = m1;
  }
  workgroupBarrier();
  if (t < 16u) {
    var m = top[t];
    for (var i = 0u; i < 8u; i++) { m = max(m, tile[t * 8u + i]); }
    factor[t] = exp(top[t] - m);
    top[t] = m;
  }
  workgroupBarrier();
}
