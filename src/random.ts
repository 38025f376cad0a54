/**
 * Seeded random numbers, the same on every runtime and backend.
 *
 * Threefry-2x32-20 (Salmon et al. 2011, Random123; also JAX's default generator) is counter-based: any stream can be entered
 * anywhere, so a shard can draw the same matrix without shared state. `Math.log` and `Math.cos` differ by 1 ulp between
 * Bun and Deno, so normals use the polynomials below, which only add, multiply and divide.
 */

/**
 * Numbers come from loops that allocate nothing: functions with two results leave the second in an array of this module.
 * Prediction: a fresh page costs up to 15 µs on a virtual machine, so the tuples of 131,072 normals cost more than the
 * arithmetic. Measured on Bun from a cold start: 70 ms and 3,570 page faults before, 27 ms and 300 after.
 */
const secondWord = new Uint32Array(1);
const sine = new Float64Array(1);

const rotate = (word: number, by: number) => (word << by) | (word >>> (32 - by));

/** Threefry-2x32-20: the first word of a block; leaves the second in `secondWord`. */
function threefry(key0: number, key1: number, counter0: number, counter1: number): number {
  let a = key0 | 0, b = key1 | 0, c = (key0 ^ key1 ^ 0x1bd11bda) | 0; // the key schedule, turned after every 4 rounds
  let x = (counter0 + a) | 0;
  let y = (counter1 + b) | 0;
  for (let step = 1; step <= 5; step++) {
    const odd = step % 2 === 1;
    x = (x + y) | 0;
    y = rotate(y, odd ? 13 : 17) ^ x;
    x = (x + y) | 0;
    y = rotate(y, odd ? 15 : 29) ^ x;
    x = (x + y) | 0;
    y = rotate(y, odd ? 26 : 16) ^ x;
    x = (x + y) | 0;
    y = rotate(y, odd ? 6 : 24) ^ x;
    const first = a;
    a = b;
    b = c;
    c = first;
    x = (x + a) | 0;
    y = (y + b + step) | 0;
  }
  secondWord[0] = y;
  return x >>> 0;
}

/** One block: two 32-bit words from a 64-bit key and a 64-bit counter. Known answers: Random123 `kat_vectors`. */
export function threefry2x32(key: readonly [number, number], counter: readonly [number, number]): [number, number] {
  return [threefry(key[0], key[1], counter[0], counter[1]), secondWord[0]];
}

const double = new Float64Array(1);
/** Low and high word of `double`; every runtime here is little-endian. */
const words = new Uint32Array(double.buffer);

/** ln x for finite x > 0, within 2.5 ulp, from + − × ÷ alone. */
export function portableLog(x: number): number {
  double[0] = x;
  let exponent = (words[1] >>> 20) - 1023;
  if (exponent === -1023) return portableLog(x * 2 ** 54) - 54 * Math.LN2; // subnormal
  words[1] = (words[1] & 0xfffff) | (1023 << 20);
  let mantissa = double[0]; // 1 ≤ mantissa < 2
  if (mantissa > Math.SQRT2) {
    mantissa /= 2;
    exponent++;
  }
  // ln m = 2 artanh s, s = (m − 1)/(m + 1), |s| ≤ 0.172
  const s = (mantissa - 1) / (mantissa + 1);
  const s2 = s * s;
  let sum = 0;
  for (let n = 23; n >= 1; n -= 2) sum = sum * s2 + 1 / n;
  return exponent * Math.LN2 + 2 * s * sum;
}

/** cos 2πt for 0 ≤ t < 1; leaves sin 2πt in `sine`. */
function turn(t: number): number {
  const quarter = Math.round(t * 4);
  const x = (t - quarter / 4) * (2 * Math.PI); // |x| ≤ π/4
  const x2 = x * x;
  let cos = 0;
  let sin = 0;
  for (let n = 10; n >= 0; n--) {
    cos = 1 - cos * x2 / ((2 * n + 1) * (2 * n + 2));
    sin = 1 - sin * x2 / ((2 * n + 2) * (2 * n + 3));
  }
  sin *= x;
  switch (quarter % 4) {
    case 0:
      sine[0] = sin;
      return cos;
    case 1:
      sine[0] = cos;
      return -sin;
    case 2:
      sine[0] = -sin;
      return -cos;
    default:
      sine[0] = -cos;
      return sin;
  }
}

/** [cos 2πt, sin 2πt] for 0 ≤ t < 1, within 2.5 ulp, from + − × ÷ alone. */
export function portableTurn(t: number): [number, number] {
  return [turn(t), sine[0]];
}

/** Σ c_k x^k. */
function polynomial(c: readonly number[], x: number): number {
  let sum = 0;
  for (let k = c.length - 1; k >= 0; k--) sum = sum * x + c[k];
  return sum;
}

/** Numerator and denominator of each of the three rational functions of Wichura's PPND16. */
const CENTRE = [
  [
    3.3871328727963666080e0,
    1.3314166789178437745e+2,
    1.9715909503065514427e+3,
    1.3731693765509461125e+4,
    4.5921953931549871457e+4,
    6.7265770927008700853e+4,
    3.3430575583588128105e+4,
    2.5090809287301226727e+3,
  ],
  [
    1,
    4.2313330701600911252e+1,
    6.8718700749205790830e+2,
    5.3941960214247511077e+3,
    2.1213794301586595867e+4,
    3.9307895800092710610e+4,
    2.8729085735721942674e+4,
    5.2264952788528545610e+3,
  ],
];
const SHOULDER = [
  [
    1.42343711074968357734e0,
    4.63033784615654529590e0,
    5.76949722146069140550e0,
    3.64784832476320460504e0,
    1.27045825245236838258e0,
    2.41780725177450611770e-1,
    2.27238449892691845833e-2,
    7.74545014278341407640e-4,
  ],
  [
    1,
    2.05319162663775882187e0,
    1.67638483018380384940e0,
    6.89767334985100004550e-1,
    1.48103976427480074590e-1,
    1.51986665636164571966e-2,
    5.47593808499534494600e-4,
    1.05075007164441684324e-9,
  ],
];
const TAIL = [
  [
    6.65790464350110377720e0,
    5.46378491116411436990e0,
    1.78482653991729133580e0,
    2.96560571828504891230e-1,
    2.65321895265761230930e-2,
    1.24266094738807843860e-3,
    2.71155556874348757815e-5,
    2.01033439929228813265e-7,
  ],
  [
    1,
    5.99832206555887937690e-1,
    1.36929880922735805310e-1,
    1.48753612908506148525e-2,
    7.86869131145613259100e-4,
    1.84631831751005468180e-5,
    1.42151175831644588870e-7,
    2.04426310338993978564e-15,
  ],
];
const quotient = ([over, under]: readonly (readonly number[])[], x: number) =>
  polynomial(over, x) / polynomial(under, x);

/** Φ⁻¹(p), the standard normal quantile, for 0 < p < 1, to about 1e-15 relative (Wichura 1988, algorithm AS 241, PPND16). */
export function normalQuantile(p: number): number {
  const q = p - 0.5;
  if (Math.abs(q) <= 0.425) return q * quotient(CENTRE, 0.180625 - q * q);
  const r = Math.sqrt(-portableLog(q < 0 ? p : 1 - p));
  const size = r <= 5 ? quotient(SHOULDER, r - 1.6) : quotient(TAIL, r - 5);
  return q < 0 ? -size : size;
}

/** A stream of numbers named by a seed and a path of whole numbers (layer, head, draw, block …). */
export class RandomStream {
  readonly #key: [number, number];
  #at = 0;
  #spare = NaN;

  /** @param seed a whole number, 0 ≤ seed < 2⁵³ */
  constructor(seed: number, ...path: number[]) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new RangeError(`Cannot use seed ${seed}: expected a whole number from 0 to 2^53 − 1`);
    }
    this.#key = [Math.floor(seed / 2 ** 32), seed >>> 0];
    for (let level = 0; level < path.length; level++) this.#key = threefry2x32(this.#key, [level + 1, path[level]]);
  }

  /** Uniform in [0, 1) with 53 bits. */
  uniform(): number {
    const at = this.#at++;
    const high = threefry(this.#key[0], this.#key[1], Math.floor(at / 2 ** 32), at);
    return ((high >>> 5) * 2 ** 26 + (secondWord[0] >>> 6)) / 2 ** 53;
  }

  /** Uniform whole number in [0, n), n ≤ 2³². */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Standard normal (Box–Muller; both numbers of a pair are used). */
  normal(): number {
    const spare = this.#spare;
    if (spare === spare) {
      this.#spare = NaN;
      return spare;
    }
    const radius = Math.sqrt(-2 * portableLog(1 - this.uniform()));
    const cos = turn(this.uniform());
    this.#spare = radius * sine[0];
    return radius * cos;
  }

  /** `n` standard normals. */
  normals(n: number): Float64Array {
    const drawn = new Float64Array(n);
    for (let i = 0; i < n; i++) drawn[i] = this.normal();
    return drawn;
  }
}
