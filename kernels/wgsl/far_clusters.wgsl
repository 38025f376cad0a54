// Clustered far field of near_far.wgsl (src/near_far.ts): the clusters are C keys of weight Σω whose logits far_logits.wgsl has made.
//
// Predicted: 2·C·dv FLOP per row and C·4 bytes of logits read, which the cache holds for the near keys behind.
// Measured (as near_far.wgsl, C = 64, with far_logits.wgsl): 111 ms, 0.23 GFLOP/s; causal 158 ms. Not measured on a GPU yet.

const OWN_NEAR: bool = true;

// Per (state, head, cluster): Σω; Σωv, v4; Σωy', d4; Σωy'², d4.
@group(0) @binding(6) var<storage, read> sums: array<vec4f>;
@group(0) @binding(7) var<storage, read> logits: array<vec4f>;   // (head, block, cluster): ln K̂ of 64 rows
@group(0) @binding(8) var<storage, read> assigned: array<u32>;   // cluster of each (row, head) of `keys`

fn logit_at(work: Work, g: u32, ty: u32) -> vec4f {
  return logits[((work.head * call.blocks + work.block) * call.features + g) * 16u + ty];
}

fn far_begin(work: Work, rows: vec4i, exact: vec4<bool>, t: u32, tx: u32, ty: u32) {
  let width = 1u + shape.v4 + 2u * shape.d4;
  let base = (work.state * call.kv_heads + work.kv) * call.unit;
  if (t < 16u) { top[t] = vec4f(NEGATIVE); }
  workgroupBarrier();
  for (var first = 0u; first < call.features; first += 32u) {
    let x = select(logit_at(work, first + tx, ty), vec4f(NEGATIVE), exact);
    let y = select(logit_at(work, first + tx + 16u, ty), vec4f(NEGATIVE), exact);
    raise_top(t, x, tx, ty, y, tx + 16u, ty);
    let px = weight_of(x, top[ty]);
    let py = weight_of(y, top[ty]);
    den = den * factor[ty] + px * sums[base + (first + tx) * width].x + py * sums[base + (first + tx + 16u) * width].x;
    acc = scaled(acc, factor[ty]);
    tile[tile_at(tx, ty)] = px;
    tile[tile_at(tx + 16u, ty)] = py;
    for (var half = 0u; half < 32u; half += 16u) {
      var v = vec4f(0.0);
      if (work.column + tx < shape.v4) { v = sums[base + (first + half + ty) * width + 1u + work.column + tx]; }
      a_rows[t] = v;
      workgroupBarrier();
      acc = accumulate(acc, half, tx, ty);
      workgroupBarrier();
    }
  }
}

fn far_reference(work: Work, v: u32) -> vec4f { return vec4f(0.0); }

fn far_shift() -> vec4f { return vec4f(0.0); }

fn far_part(work: Work, logit: vec4f, slot: u32, marks: Marks, exact: vec4<bool>, ty: u32) -> vec4f {
  let value = -weight_of(logit_at(work, assigned[slot_cell[slot]], ty), top[ty]);
  return select(vec4f(0.0), value, marks.near & !marks.own & !exact);
}
