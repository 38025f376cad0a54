// Merge pass: the partial states of a call's key ranges → one state per head. One thread per (head, slot, values vec4).
//
// Predicted: bound by reading the partials once (12–17 kB per head, slot block and range), a few per cent of the keys pass.
// Lesson: a component of a storage vec4 must not be written by itself (neighbours race), so one thread in four writes c and z.

struct Call { splits: u32 }

@group(0) @binding(0) var<uniform> call: Call;
@group(0) @binding(1) var<storage, read> partials: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> merged: array<vec4f>;

@compute @workgroup_size(256)
fn merge_pass(
  @builtin(global_invocation_id) id: vec3u,
  @builtin(num_workgroups) count: vec3u,
) {
  if (id.x >= 4u * shape.r4 * shape.v4) { return; }
  let slot = id.x / shape.v4;
  let stride = count.y * shape.unit;
  let head = id.y * shape.unit;
  var highest = vec4f(NEGATIVE);
  for (var s = 0u; s < call.splits; s++) { highest = max(highest, partials[s * stride + head + slot / 4u]); }
  let at = head + 3u * shape.r4 + id.x;
  var sum = vec4f(0.0);
  for (var s = 0u; s < call.splits; s++) {
    let c = partials[s * stride + head + slot / 4u][slot & 3u];
    sum += exp(c - highest[slot & 3u]) * partials[s * stride + at];
  }
  merged[at] = sum;
  if (id.x % (4u * shape.v4) == 0u) {
    var z = vec4f(0.0);
    for (var s = 0u; s < call.splits; s++) {
      let base = s * stride + head + slot / 4u;
      z += exp(partials[base] - highest) * partials[base + shape.r4];
    }
    merged[head + slot / 4u] = highest;
    merged[head + shape.r4 + slot / 4u] = z;
  }
}
