// φ = g · exp(e): the feature maps (src/feature_map.ts) of a thread's Pair of projections. Joined in front of a pass.
//
// PER = 2 (hyperbolic, trigonometric): one product makes both features, so `expand` reads u.x only.
// Lessons: WGSL's sin and cos may be off by 2⁻¹¹ and its tanh by more, so they are made here: sin and cos by Cody-Waite
// reduction and Cephes polynomials (measured absolute error 9e-8 up to |u| = 1e4, 1e-6 at 1e5), erf by N. Juffa's minimax
// polynomials (measured relative error 9e-8). All in float32 rounding on the host; devices may contract to fma.

override FAMILY: u32 = 0;              // 0 exp, 1 trig, 2 pointwise
override PER: u32 = 1;                 // features per projection
override PROJECTION_BLOCK: u32 = 64 / PER;   // projections per 64 features

struct Factors { gx: vec4f, gy: vec4f, ex: vec4f, ey: vec4f }

// (sin, cos)(u) by quadrant.
fn sine_of(u: vec4f, shift: i32) -> vec4f {
  let k = round(u * 0.636619772367581);
  let r = ((u - k * 1.5703125) - k * 4.837512969970703125e-4) - k * 7.54978995489188216e-8;
  let s = r * r;
  let sine = r + r * s * (-1.6666654611e-1 + s * (8.3321608736e-3 - 1.9515295891e-4 * s));
  let cosine = 1.0 - 0.5 * s + s * s * (4.166664568298827e-2 + s * (-1.388731625493765e-3 + s * 2.443315711809948e-5));
  let quadrant = (vec4i(k) + vec4i(shift)) & vec4i(3);
  let value = select(sine, cosine, (quadrant & vec4i(1)) == vec4i(1));
  return select(value, -value, quadrant >= vec4i(2));
}

fn erf(x: vec4f) -> vec4f {
  let t = min(abs(x), vec4f(4.0));
  let s = t * t;
  var r = (-1.72853470e-5 * t + 3.83197126e-4) * s + (-3.88396438e-3 * t + 2.42546219e-2);
  r = (r * t - 1.06777877e-1) * t - 6.34846687e-1;
  r = (r * t - 1.28717512e-1) * t - t;
  let far = sign(x) * (1.0 - exp(r));
  var n = (-5.96761703e-4 * s + 4.99119423e-3) * s - 2.67681349e-2;
  n = ((n * s + 1.12819925e-1) * s - 3.76125336e-1) * s + 1.28379166e-1;
  return select(n * x + x, far, t > vec4f(0.927734375));
}

fn activation(u: vec4f) -> vec4f {
  let zero = vec4f(0.0);
  switch (shape.activation) {
    case 0u: { return max(u, zero); }
    case 1u, 11u: { return select(exp(min(u, zero)), u + 1.0, u > zero); }
    case 2u: { return 1.0 / (1.0 + exp(min(-u, vec4f(87.0)))); }
    case 3u: { return exp(u); }
    case 4u: { return abs(u); }
    case 5u: { return 0.5 * u * (1.0 + erf(u * 0.70710678118654752)); }
    case 6u: { return sine_of(u, 1); }
    case 7u: { return sine_of(u, 0); }
    case 8u: { let e = exp(-2.0 * abs(u)); return sign(u) * (1.0 - e) / (1.0 + e); }
    case 10u: { let x = max(u, zero); return x * x; }
    case 12u: { return select(0.01 * u, u, u > zero); }
    case 13u: { return max(u, zero) + log(1.0 + exp(-abs(u))); }
    case 14u: { return u * u; }
    default: { return u; }
  }
}

// Factors of the features of two slots from their products with W, without the row's own exponent and without biases.
fn expand(sum: Pair) -> Factors {
  let x = sum.x * shape.input_scale;
  let y = select(sum.y * shape.input_scale, -x, PER == 2u);
  if (FAMILY == 0u) { return Factors(vec4f(1.0), vec4f(1.0), x, y); }
  if (FAMILY == 1u) { return Factors(shape.gain * sine_of(x, 0), shape.gain * sine_of(x, 1), vec4f(0.0), vec4f(0.0)); }
  return Factors(shape.gain * activation(x) + shape.epsilon, shape.gain * activation(y) + shape.epsilon, vec4f(0.0), vec4f(0.0));
}

// Exponent that a key gives all its features: ∓‖x‖²/2 + ln ω.
fn key_exponent(squares: f32, log_weight: f32) -> f32 {
  let half = 0.5 * squares * shape.input_scale * shape.input_scale;
  let norm = select(select(0.0, half, FAMILY == 1u), -half, FAMILY == 0u);
  return select(log_weight + norm, NEGATIVE, log_weight < MASKED);
}
