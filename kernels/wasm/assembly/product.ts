/**
 * C = A·B or C += A·B on blocks that lie in the first-level cache: every pass is built on it.
 *
 * A is M × K, B is K × N, C is M × N, float32, N a multiple of 16, M of 2. B and C have contiguous rows; A comes in two layouts,
 * `Columns` (the numbers of one k side by side) and `Rows` (rows of 64 numbers). One tile of C stays in registers while k runs.
 *
 * Versions:
 *   1  (this)  2 × 4 vectors and 6 × 2 vectors, K not unrolled. Predicted from the design notes: 2 × 4 on JavaScriptCore,
 *              6 × 2 on V8, whose explicit bounds checks make every load dear.
 *              Measured, one thread, K = 64, in cache, AMD Zen 5 (GFLOP/s, Bun 1.4.5 / Deno 2.9.6):
 *                multiply + add   2×4 44 / 40   3×3 45 / 42   4×2 41 / 38   5×2 42 / 41   6×2 41 / 30   4×4 34 / 33
 *                relaxed_madd     2×4 45 / 45   3×3 45 / 50   4×2 42 / 44   5×2 41 / 46   6×2 42 / 52   4×4 34 / 32
 *              More than 16 live vectors spill (4×4, 8×2, 3×4: 28 to 34 on both).
 *   Lessons: relaxed_madd is one instruction on V8 only. The layout of A makes no difference.
 */

/** Multiply-add: fused where the module is built for relaxed SIMD and the engine fuses it. */
// @ts-ignore: decorator
@inline
export function madd(sum: v128, a: v128, b: v128): v128 {
  return RELAXED ? v128.relaxed_madd<f32>(a, b, sum) : f32x4.add(sum, f32x4.mul(a, b));
}

/** Layout of A as a type argument: element (m, k) at `a + m·4 + k·step`. */
export type Columns = f32;
/** Element (m, k) at `a + m·256 + k·step`. */
export type Rows = i32;
/** C is overwritten, or added to. */
export type Set = f32;
export type Add = i32;

/** Bytes between consecutive m of layout T. */
// @ts-ignore: decorator
@inline
function skip<T>(): usize {
  return isFloat<T>() ? 4 : 256;
}

// @ts-ignore: decorator
@inline
function start<S>(c: usize): v128 {
  return isFloat<S>() ? f32x4.splat(0) : v128.load(c);
}

/** 2 rows × 16 columns of C. */
// @ts-ignore: decorator
@inline
function tile2x4<T, S>(a: usize, stepA: usize, b: usize, stepB: usize, c: usize, stepC: usize, K: i32): void {
  let c00 = start<S>(c), c01 = start<S>(c + 16), c02 = start<S>(c + 32), c03 = start<S>(c + 48);
  const d = c + stepC;
  let c10 = start<S>(d), c11 = start<S>(d + 16), c12 = start<S>(d + 32), c13 = start<S>(d + 48);
  const end = b + <usize> K * stepB;
  while (b < end) {
    const b0 = v128.load(b), b1 = v128.load(b, 16), b2 = v128.load(b, 32), b3 = v128.load(b, 48);
    const a0 = v128.load32_splat(a);
    c00 = madd(c00, a0, b0);
    c01 = madd(c01, a0, b1);
    c02 = madd(c02, a0, b2);
    c03 = madd(c03, a0, b3);
    const a1 = v128.load32_splat(a, isFloat<T>() ? 4 : 256);
    c10 = madd(c10, a1, b0);
    c11 = madd(c11, a1, b1);
    c12 = madd(c12, a1, b2);
    c13 = madd(c13, a1, b3);
    a += stepA;
    b += stepB;
  }
  v128.store(c, c00);
  v128.store(c, c01, 16);
  v128.store(c, c02, 32);
  v128.store(c, c03, 48);
  v128.store(d, c10);
  v128.store(d, c11, 16);
  v128.store(d, c12, 32);
  v128.store(d, c13, 48);
}

/** 6 rows × 8 columns of C. */
// @ts-ignore: decorator
@inline
function tile6x2<T, S>(a: usize, stepA: usize, b: usize, stepB: usize, c: usize, stepC: usize, K: i32): void {
  const d1 = c + stepC, d2 = d1 + stepC, d3 = d2 + stepC, d4 = d3 + stepC, d5 = d4 + stepC;
  let c00 = start<S>(c), c01 = start<S>(c + 16), c10 = start<S>(d1), c11 = start<S>(d1 + 16);
  let c20 = start<S>(d2), c21 = start<S>(d2 + 16), c30 = start<S>(d3), c31 = start<S>(d3 + 16);
  let c40 = start<S>(d4), c41 = start<S>(d4 + 16), c50 = start<S>(d5), c51 = start<S>(d5 + 16);
  const end = b + <usize> K * stepB;
  while (b < end) {
    const b0 = v128.load(b), b1 = v128.load(b, 16);
    const a0 = v128.load32_splat(a);
    c00 = madd(c00, a0, b0);
    c01 = madd(c01, a0, b1);
    const a1 = v128.load32_splat(a, isFloat<T>() ? 4 : 256);
    c10 = madd(c10, a1, b0);
    c11 = madd(c11, a1, b1);
    const a2 = v128.load32_splat(a, isFloat<T>() ? 8 : 512);
    c20 = madd(c20, a2, b0);
    c21 = madd(c21, a2, b1);
    const a3 = v128.load32_splat(a, isFloat<T>() ? 12 : 768);
    c30 = madd(c30, a3, b0);
    c31 = madd(c31, a3, b1);
    const a4 = v128.load32_splat(a, isFloat<T>() ? 16 : 1024);
    c40 = madd(c40, a4, b0);
    c41 = madd(c41, a4, b1);
    const a5 = v128.load32_splat(a, isFloat<T>() ? 20 : 1280);
    c50 = madd(c50, a5, b0);
    c51 = madd(c51, a5, b1);
    a += stepA;
    b += stepB;
  }
  v128.store(c, c00);
  v128.store(c, c01, 16);
  v128.store(d1, c10);
  v128.store(d1, c11, 16);
  v128.store(d2, c20);
  v128.store(d2, c21, 16);
  v128.store(d3, c30);
  v128.store(d3, c31, 16);
  v128.store(d4, c40);
  v128.store(d4, c41, 16);
  v128.store(d5, c50);
  v128.store(d5, c51, 16);
}

/** Which tile suits this engine: 0 = 2 × 4, 1 = 6 × 2. Set once per instance by the host after timing both. */
let wide: bool = false;
export function chooseTile(tile: i32): void {
  wide = tile != 0;
}

/** C (+)= A·B with the chosen tile; steps in bytes, M even, N a multiple of 16. */
export function product<T, S>(
  a: usize,
  stepA: usize,
  b: usize,
  stepB: usize,
  c: usize,
  stepC: usize,
  M: i32,
  N: i32,
  K: i32,
): void {
  let m = 0;
  if (wide) {
    for (; m + 6 <= M; m += 6) {
      for (let n = 0; n < N; n += 8) {
        tile6x2<T, S>(a, stepA, b + <usize> (n << 2), stepB, c + <usize> (n << 2), stepC, K);
      }
      a += 6 * skip<T>();
      c += 6 * stepC;
    }
  }
  for (; m < M; m += 2) {
    for (let n = 0; n < N; n += 16) {
      tile2x4<T, S>(a, stepA, b + <usize> (n << 2), stepB, c + <usize> (n << 2), stepC, K);
    }
    a += 2 * skip<T>();
    c += 2 * stepC;
  }
}
