// Column maxima through workgroup memory: for adapters without the `subgroups` feature. Same functions as reduce_subgroup.wgsl.

var<workgroup> tile: array<vec4f, 512>;     // 32 slots × 16 groups of four A rows
var<workgroup> top: array<vec4f, 16>;       // running maximum per A row
var<workgroup> factor: array<vec4f, 16>;    // exp(old maximum − new maximum)

fn tile_at(slot: u32, group: u32) -> u32 { return slot * 16u + (group ^ (slot & 15u)); }

// Raises `top` by this thread's x0 (slot s0, group g0) and x1 (s1, g1) and sets `factor`. Overwrites `tile` and `a_rows`.
fn raise_top(t: u32, x0: vec4f, s0: u32, g0: u32, x1: vec4f, s1: u32, g1: u32) {
  tile[tile_at(s0, g0)] = x0;
  tile[tile_at(s1, g1)] = x1;
  workgroupBarrier();
  if (t < 64u) {
    let group = t >> 2u;
    let part = t & 3u;
    var m = tile[tile_at(part, group)];
    for (var i = 1u; i < 8u; i++) { m = max(m, tile[tile_at(part + 4u * i, group)]); }
    a_rows[t] = m;
  }
  workgroupBarrier();
  if (t < 16u) {
    let m = max(top[t], max(max(a_rows[t * 4u], a_rows[t * 4u + 1u]), max(a_rows[t * 4u + 2u], a_rows[t * 4u + 3u])));
    factor[t] = exp(top[t] - m);
    top[t] = m;
  }
  workgroupBarrier();
}
