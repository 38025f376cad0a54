// Near-and-far attention (src/near_far.ts): one workgroup = (block of 64 query rows, head, 64 value columns).
//
// Joined behind one of far_none.wgsl, far_taylor.wgsl, far_clusters.wgsl, which start the sums with the far field and weigh K̂. Then an
// online softmax over near keys, 32 at a time as in exact.wgsl: the band of the window, then heavy keys by their list. num and den are
// linear, so a key's e^t and its −K̂ share one accumulator that is rescaled as the row maximum rises.
//
// Rows are counted from the call's first query. A causal block of 64 rows has the state and the heavy keys ahead of it (`state`), so all
// blocks run at once; bidirectional calls have one state.
// Predicted: compute-bound, 2·(d + dv) FLOP per near pair, the band's ends half masked.
// Measured (SwiftShader 5.0 on 2 shared cores, 512 rows × 2 heads, d = dv = 64, upload and read-back included): a window of 64 alone
// 83–90 ms, 0.56 GFLOP/s; errors of 1e-7 to 3e-7 relative. Not measured on a GPU yet.
// Lessons: a row without any key has top = NEGATIVE and e^−top = ∞, so what K̂ does not count for is selected away, not multiplied.

struct Call {
  rows: u32,
  heads: u32,
  kv_heads: u32,
  blocks: u32,
  near_rows: u32,     // rows of keys beside the queries; pool rows (heavy keys, each head its own) lie behind them
  pool_rows: u32,
  heavy: u32,         // longest list
  causal: u32,
  near_start: i32,    // row of the first near key
  window: i32,
  exact_rows: i32,    // rows below it have no far field
  scale: f32,
  dim: u32,           // d
  features: u32,      // far_taylor: rows of moments, padded; far_clusters: clusters, padded
  unit: u32,          // vec4s of one head's state
}

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> queries: array<vec4f>;
@group(0) @binding(2) var<storage, read> keys: array<vec4f>;
@group(0) @binding(3) var<storage, read> values: array<vec4f>;
// ω of near rows, ω of (pool row, head), row of (pool row, head); then per (state, head) a count and `heavy` pool rows.
@group(0) @binding(4) var<storage, read> numbers: array<u32>;
// rows × heads × v4, then denominators: (head, block, group of four rows).
@group(0) @binding(5) var<storage, read_write> outputs: array<vec4f>;

// What a workgroup does: the same in all its threads.
struct Work {
  block: u32,
  head: u32,
  kv: u32,
  state: u32,
  column: u32,   // first vec4 of values
  band: u32,     // first near row of the band
  near: u32,     // slots 0 … near − 1 are near rows
  slots: u32,    // near … slots − 1 are heavy keys
}

var<workgroup> slot_cell: array<u32, 32>;     // (row, head) in `keys` and `values`
var<workgroup> slot_row: array<i32, 32>;
var<workgroup> slot_weight: array<f32, 32>;   // 0: no key, nothing of it is read

// This thread's sums: four rows × four values, and its share of their denominators.
var<private> acc: Quad;
var<private> den: vec4f;

fn work_of(id: vec3u) -> Work {
  var work: Work;
  work.block = id.x;
  work.head = id.y;
  work.kv = id.y * call.kv_heads / call.heads;
  work.state = select(0u, id.x, call.causal != 0u);
  work.column = id.z * 16u;
  let row = i32(id.x * 64u);
  let back = max(call.window - 1, 0);
  let last = min(row + 63, i32(call.rows) - 1);
  let exact = call.causal != 0u && row < call.exact_rows;
  let ahead = select(back, 0, call.causal != 0u);
  let low = max(select(row - back, call.near_start, exact), call.near_start);
  let high = min(last + ahead, call.near_start + i32(call.near_rows) - 1);
  let near = select(0, high - low + 1, high >= low && (call.window > 0 || call.causal != 0u));
  work.band = u32(low - call.near_start);
  work.near = u32(near);
  var heavy = 0u;
  if (call.heavy > 0u) { heavy = numbers[list_at(work.state, work.kv)]; }
  work.slots = work.near + heavy;
  return work;
}

fn list_at(state: u32, kv: u32) -> u32 {
  return call.near_rows + 2u * call.pool_rows * call.kv_heads + (state * call.kv_heads + kv) * (call.heavy + 1u);
}

fn fill_slot(work: Work, slot: u32, s: u32) {
  var cell = 0u;
  var row = 0;
  var weight = 0.0;
  if (s < work.near) {
    let at = work.band + s;
    cell = at * call.kv_heads + work.kv;
    row = call.near_start + i32(at);
    weight = bitcast<f32>(numbers[at]);
  } else if (s < work.slots) {
    let at = numbers[list_at(work.state, work.kv) + 1u + s - work.near] * call.kv_heads + work.kv;
    cell = call.near_rows * call.kv_heads + at;
    weight = bitcast<f32>(numbers[call.near_rows + at]);
    row = bitcast<i32>(numbers[call.near_rows + call.pool_rows * call.kv_heads + at]);
  }
  slot_cell[slot] = cell;
  slot_row[slot] = row;
  slot_weight[slot] = weight;
}

// x·(y − reference) of four rows and the keys of slots tx and tx + 16; fills the slots from `first`.
fn slot_logits(work: Work, first: u32, t: u32, tx: u32, ty: u32) -> Pair {
  if (t < 32u) { fill_slot(work, t, first + t); }
  let row = work.block * 64u;
  let r = t >> 2u;
  let v = t & 3u;
  var sum = Pair(vec4f(0.0), vec4f(0.0));
  for (var d = 0u; d < shape.d4; d += 4u) {
    workgroupBarrier();
    var q = vec4f(0.0);
    if (row + r < call.rows && d + v < shape.d4) { q = queries[((row + r) * call.heads + work.head) * shape.d4 + d + v]; }
    a_rows[row_vec(r, v)] = q;
    if (t < 128u) {
      var k = vec4f(0.0);
      if (slot_weight[r] > 0.0 && d + v < shape.d4) { k = keys[slot_cell[r] * shape.d4 + d + v] - far_reference(work, d + v); }
      b_rows[row_vec(r, v)] = k;
    }
    workgroupBarrier();
    sum = product(sum, ty, tx, tx + 16u, true);
  }
  return Pair(sum.x * call.scale, sum.y * call.scale);
}

struct Marks {
  near: vec4<bool>,   // counts exactly
  own: vec4<bool>,    // causal: of the rows' own block, so not in the state
}

// How the key of a slot stands to four rows.
fn marks_of(work: Work, slot: u32, s: u32, rows: vec4i) -> Marks {
  let away = rows - vec4i(slot_row[slot]);
  let causal = vec4<bool>(call.causal != 0u);
  let some = vec4<bool>(slot_weight[slot] > 0.0);
  let visible = !causal | (away >= vec4i(0));
  let inside = (abs(away) < vec4i(call.window)) & visible;
  let exact = rows < vec4i(call.exact_rows);
  if (s >= work.near) { return Marks(some & !inside & !exact, vec4<bool>(false)); }
  let own = some & causal & visible & vec4<bool>(slot_row[slot] >= i32(work.block * 64u));
  return Marks((some & visible & (inside | exact)) | (own & vec4<bool>(OWN_NEAR)), own);
}

// Adds 32 keys whose weights in the sums are in `tile`: rows of `values` by slot.
fn add_slots(work: Work, tx: u32, ty: u32, t: u32) {
  for (var half = 0u; half < 32u; half += 16u) {
    var v = vec4f(0.0);
    if (slot_weight[half + ty] > 0.0 && work.column + tx < shape.v4) {
      v = values[slot_cell[half + ty] * shape.v4 + work.column + tx];
    }
    a_rows[t] = v;
    workgroupBarrier();
    acc = accumulate(acc, half, tx, ty);
    workgroupBarrier();
  }
}

// Sum over the 16 threads of a group of rows.
fn over_columns(x: vec4f, t: u32) -> vec4f {
  workgroupBarrier();
  tile[t] = x;
  workgroupBarrier();
  var total = vec4f(0.0);
  for (var i = 0u; i < 16u; i++) { total += tile[(t & ~15u) + i]; }
  return total;
}

@compute @workgroup_size(256)
fn near_far_pass(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) t: u32) {
  let work = work_of(id);
  let tx = t & 15u;
  let ty = t >> 4u;
  let row = work.block * 64u + ty * 4u;
  let rows = vec4i(i32(row)) + vec4i(0, 1, 2, 3);
  let exact = rows < vec4i(call.exact_rows);

  acc = Quad(vec4f(0.0), vec4f(0.0), vec4f(0.0), vec4f(0.0));
  den = vec4f(0.0);
  far_begin(work, rows, exact, t, tx, ty);
  for (var first = 0u; first < work.slots; first += 32u) {
    let sum = slot_logits(work, first, t, tx, ty);
    let mx = marks_of(work, tx, first + tx, rows);
    let my = marks_of(work, tx + 16u, first + tx + 16u, rows);
    let lx = sum.x - far_shift();
    let ly = sum.y - far_shift();
    let x = select(vec4f(NEGATIVE), lx, mx.near);
    let y = select(vec4f(NEGATIVE), ly, my.near);
    raise_top(t, x, tx, ty, y, tx + 16u, ty);
    let kx = far_part(work, lx, tx, mx, exact, ty);
    let ky = far_part(work, ly, tx + 16u, my, exact, ty);
    let px = slot_weight[tx] * (weight_of(x, top[ty]) + kx);
    let py = slot_weight[tx + 16u] * (weight_of(y, top[ty]) + ky);
    den = den * factor[ty] + px + py;
    acc = scaled(acc, factor[ty]);
    tile[tile_at(tx, ty)] = px;
    tile[tile_at(tx + 16u, ty)] = py;
    add_slots(work, tx, ty, t);
  }

  var total = over_columns(den, t);
  let none = top[ty] < vec4f(MASKED);
  for (var i = 0u; i < 4u; i++) {
    if (row + i >= call.rows || work.column + tx >= shape.v4) { break; }
    let numerator = select(select(acc.a, acc.b, i == 1u), select(acc.c, acc.d, i == 3u), i >= 2u);
    let at = ((row + i) * call.heads + work.head) * shape.v4 + work.column + tx;
    if (none[i]) { outputs[at] = vec4f(0.0); } else { outputs[at] = numerator / total[i]; }
  }
  if (tx == 0u && work.column == 0u) {
    // 0 says "no key"; a sum that cancels to 0 is not that.
    total = select(total, vec4f(NEGATIVE), total == vec4f(0.0));
    let at = call.rows * call.heads * shape.v4 + (work.head * call.blocks + work.block) * 16u + ty;
    outputs[at] = select(total, vec4f(0.0), none);
  }
}
