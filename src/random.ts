/**
 * Seeded random numbers, the same on every runtime and backend.
 *
 * Threefry-2x32-20 (Salmon et al. 2011, Random123; also JAX's default generator) is counter-based: any stream can be entered
 * anywhere, so a shard can draw the same matrix without shared state. `Math.log` and `Math.cos` differ by 1 ulp between
 * Bun and Deno, so normals use the polynomials below, which only add, multiply and divide.
 */

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];

/** One block: two 32-bit words from a 64-bit key and a 64-bit counter. Known answers: Random123 `kat_vectors`. */
export function threefry2x32(key: readonly [number, number], counter: readonly [number, number]): [number, number] {
  const k = [key[0] | 0, key[1] | 0, (key[0] ^ key[1] ^ 0x1bd11bda) | 0];
  let x = (counter[0] + k[0]) | 0;
  let y = (counter[1] + k[1]) | 0;
  for (let round = 0; round < 20; round++) {
    const turn = ROTATIONS[round % 8];
    x = (x + y) | 0;
    y = (y << turn) | (y >>> (32 - turn));
    y ^= x;
    if (round % 4 === 3) {
      const step = (round + 1) / 4;
      x = (x + k[step % 3]) | 0;
      y = (y + k[(step + 1) % 3] + step) | 0;
    }
  }
  return [x >>> 0, y >>> 0];
}

const bits = new DataView(new ArrayBuffer(8));

/** ln x for finite x > 0, within 2.5 ulp, from + − × ÷ alone. */
export function portableLog(x: number): number {
  bits.setFloat64(0, x);
  let exponent = (bits.getUint32(0) >>> 20) - 1023;
  if (exponent === -1023) return portableLog(x * 2 ** 54) - 54 * Math.LN2; // subnormal
  bits.setUint32(0, (bits.getUint32(0) & 0xfffff) | (1023 << 20));
  let mantissa = bits.getFloat64(0); // 1 ≤ mantissa < 2
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

/** [cos 2πt, sin 2πt] for 0 ≤ t < 1, within 2.5 ulp, from + − × ÷ alone. */
export function portableTurn(t: number): [number, number] {
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
      return [cos, sin];
    case 1:
      return [-sin, cos];
    case 2:
      return [-cos, -sin];
    default:
      return [sin, -cos];
  }
}

/** A stream of numbers named by a seed and a path of whole numbers (layer, head, draw, block …). */
export class RandomStream {
  readonly #key: [number, number];
  #at = 0;
  #spare: number | null = null;

  /** @param seed a whole number, 0 ≤ seed < 2⁵³ */
  constructor(seed: number, ...path: number[]) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new RangeError(`Cannot use seed ${seed}: expected a whole number from 0 to 2^53 − 1`);
    }
    this.#key = [Math.floor(seed / 2 ** 32), seed >>> 0];
    for (let level = 0; level < path.length; level++) this.#key = threefry2x32(this.#key, [level + 1, path[level]]);
  }

  #words(): [number, number] {
    const at = this.#at++;
    return threefry2x32(this.#key, [Math.floor(at / 2 ** 32) | 0, at | 0]);
  }

  /** Uniform in [0, 1) with 53 bits. */
  uniform(): number {
    const [high, low] = this.#words();
    return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
  }

  /** Uniform whole number in [0, n), n ≤ 2³². */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Standard normal (Box–Muller; both numbers of a pair are used). */
  normal(): number {
    if (this.#spare !== null) {
      const value = this.#spare;
      this.#spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * portableLog(1 - this.uniform()));
    const [cos, sin] = portableTurn(this.uniform());
    this.#spare = radius * sin;
    return radius * cos;
  }

  /** `n` standard normals. */
  normals(n: number): Float64Array {
    return Float64Array.from({ length: n }, () => this.normal());
  }
}
