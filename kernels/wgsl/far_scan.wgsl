// Sums of parts (ranges of keys, or causal blocks of rows) for far fields: one thread per vec4 of a state.
//
// Ranges: `running` becomes their sum. Blocks: each becomes the sum ahead of it, from `running` on, which ends behind the last.
// Predicted: bound by memory, partials read (and written) once; not measured by itself.

struct Call { parts: u32, stride: u32, prefix: u32 }   // stride: vec4s of all heads of a part

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read_write> partials: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> running: array<vec4f>;

@compute @workgroup_size(256)
fn far_scan_pass(
  @builtin(workgroup_id) id: vec3u,
  @builtin(num_workgroups) count: vec3u,
  @builtin(local_invocation_index) t: u32,
) {
  let at = (id.y * count.x + id.x) * 256u + t;
  if (at >= call.stride) { return; }
  var sum = vec4f(0.0);
  if (call.prefix != 0u) { sum = running[at]; }
  for (var part = 0u; part < call.parts; part++) {
    let own = partials[part * call.stride + at];
    if (call.prefix != 0u) { partials[part * call.stride + at] = sum; }
    sum += own;
  }
  running[at] = sum;
}
