// Scan pass (causal): partial states of 64-row chunks → for each chunk the state ahead of it (exclusive, from the running state),
// and the state of the call's own keys. One thread per (head, slot, values vec4), chunks in order.
//
// In place: S and z become the prefix's, p the prefix's maxima; c stays the chunk's own, as the causal pass needs both.
// Predicted: bound by one read and one write of the partials. A log-depth scan would move them log(chunks) times for parallelism
// that heads × slots × values (8 × 256 × 16 = 32,768 threads) already gives.
// Measured: within causal.wgsl's figure.

struct Call { chunks: u32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> running: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> partials: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> own: array<vec4f>;

@compute @workgroup_size(256)
fn scan_pass(
  @builtin(global_invocation_id) id: vec3u,
  @builtin(num_workgroups) count: vec3u,
) {
  if (id.x >= 4u * shape.r4 * shape.v4) { return; }
  let slot4 = id.x / shape.v4 / 4u;
  let part = (id.x / shape.v4) & 3u;
  let leads = id.x % (4u * shape.v4) == 0u;
  let head = id.y * shape.unit;
  let at = head + 3u * shape.r4 + id.x;
  var prefix_top = running[head + slot4];
  var prefix_z = running[head + shape.r4 + slot4];
  var prefix_s = running[at];
  var own_top = vec4f(NEGATIVE);
  var own_z = vec4f(0.0);
  var own_s = vec4f(0.0);
  for (var chunk = 0u; chunk < call.chunks; chunk++) {
    let base = chunk * count.y * shape.unit;
    let c = partials[base + head + slot4];
    let s = partials[base + at];
    partials[base + at] = prefix_s;
    let top = max(prefix_top, c);
    let keep = exp(prefix_top - top);
    let add = exp(c - top);
    let own_next = max(own_top, c);
    let own_keep = exp(own_top - own_next);
    let own_add = exp(c - own_next);
    prefix_s = keep[part] * prefix_s + add[part] * s;
    own_s = own_keep[part] * own_s + own_add[part] * s;
    if (leads) {
      let z = partials[base + head + shape.r4 + slot4];
      partials[base + head + shape.r4 + slot4] = prefix_z;
      partials[base + head + 2u * shape.r4 + slot4] = prefix_top;
      prefix_z = keep * prefix_z + add * z;
      own_z = own_keep * own_z + own_add * z;
    }
    prefix_top = top;
    own_top = own_next;
  }
  own[at] = own_s;
  if (leads) {
    own[head + slot4] = own_top;
    own[head + shape.r4 + slot4] = own_z;
  }
}
