// No far field: only near keys count (src/near_far.ts). Joined in front of near_far.wgsl.

const OWN_NEAR: bool = false;

fn far_begin(work: Work, rows: vec4i, exact: vec4<bool>, t: u32, tx: u32, ty: u32) {
  if (t < 16u) { top[t] = vec4f(NEGATIVE); }
  workgroupBarrier();
}

fn far_reference(work: Work, v: u32) -> vec4f { return vec4f(0.0); }

fn far_shift() -> vec4f { return vec4f(0.0); }

fn far_part(work: Work, logit: vec4f, slot: u32, marks: Marks, exact: vec4<bool>, ty: u32) -> vec4f { return vec4f(0.0); }
