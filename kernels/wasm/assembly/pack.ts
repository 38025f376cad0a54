/**
 * Rows of a tile as the products want them: blocks of 64 rows of one head, queries and keys transposed (64 rows side by side, one
 * line of 256 bytes per column), values as they are but contiguous and padded. Packing costs a few per cent of a product and
 * saves its strided reads, which would fall on few cache sets.
 */

/** Rows in a block, and bytes of one line of 64 numbers. */
export const BLOCK: i32 = 64;
export const LINE: usize = 256;
/** Stands for −∞ where sums are taken: the state of a feature or row that has seen no key. */
export const NONE: f32 = -1e30;
/** Exponent of a masked key or a padding row: far below NONE, so that it never passes for a key. */
export const MASKED: f32 = -3e38;

/** `out[l][i] = rows[i][l]` for l < d, i < 64; rows from n on are 0. `step`: bytes between rows. */
export function packTransposed(rows: usize, step: usize, n: i32, d: i32, out: usize): void {
  const whole = n & ~3;
  const wide = d & ~3;
  for (let i = 0; i < whole; i += 4) {
    const r0 = rows + <usize> i * step;
    const r1 = r0 + step, r2 = r1 + step, r3 = r2 + step;
    const column = out + (<usize> i << 2);
    for (let l = 0; l < wide; l += 4) {
      const at = <usize> l << 2;
      const a = v128.load(r0 + at), b = v128.load(r1 + at), c = v128.load(r2 + at), e = v128.load(r3 + at);
      const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5), AB = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
      const ce = v128.shuffle<f32>(c, e, 0, 4, 1, 5), CE = v128.shuffle<f32>(c, e, 2, 6, 3, 7);
      const to = column + <usize> l * LINE;
      v128.store(to, v128.shuffle<f32>(ab, ce, 0, 1, 4, 5));
      v128.store(to, v128.shuffle<f32>(ab, ce, 2, 3, 6, 7), 256);
      v128.store(to, v128.shuffle<f32>(AB, CE, 0, 1, 4, 5), 512);
      v128.store(to, v128.shuffle<f32>(AB, CE, 2, 3, 6, 7), 768);
    }
  }
  for (let i = 0; i < whole; i++) {
    for (let l = wide; l < d; l++) copyOne(rows, step, i, l, out);
  }
  if (whole == BLOCK) return;
  for (let l = 0; l < d; l++) {
    memory.fill(out + <usize> l * LINE + (<usize> whole << 2), 0, <usize> (BLOCK - whole) << 2);
    for (let i = whole; i < n; i++) copyOne(rows, step, i, l, out);
  }
}

// @ts-ignore: decorator
@inline
function copyOne(rows: usize, step: usize, i: i32, l: i32, out: usize): void {
  store<f32>(out + <usize> l * LINE + (<usize> i << 2), load<f32>(rows + <usize> i * step + (<usize> l << 2)));
}

/** `out[j][c] = rows[j][c]` for c < width, 0 up to `padded` columns and for rows from n to 63. */
export function packValues(rows: usize, step: usize, n: i32, width: i32, padded: i32, out: usize): void {
  const bytes = <usize> width << 2, line = <usize> padded << 2;
  for (let j = 0; j < n; j++) {
    memory.copy(out, rows, bytes);
    if (width < padded) memory.fill(out + bytes, 0, line - bytes);
    rows += step;
    out += line;
  }
  if (n < BLOCK) memory.fill(out, 0, <usize> (BLOCK - n) * line);
}

/** Clears masked rows of a block, whatever they hold: keys `x` (d lines) and values (64 rows of `line` bytes). */
export function clearMasked(x: usize, d: i32, values: usize, line: usize, log2Weights: usize, n: i32): void {
  for (let j = 0; j < n; j++) {
    if (load<f32>(log2Weights + (<usize> j << 2)) > NONE) continue;
    memory.fill(values + <usize> j * line, 0, line);
    for (let l = 0; l < d; l++) store<f32>(x + <usize> l * LINE + (<usize> j << 2), 0);
  }
}

/** `out[j] = scale · Σ_l x[l][j]² + log2Weights[j]`; MASKED for rows from n on. `log2Weights` 0 = none. */
export function rowExponents(x: usize, d: i32, scale: f32, log2Weights: usize, n: i32, out: usize): void {
  if (scale == 0) d = 0; // squares of huge rows would be infinite, and 0 · ∞ is no number
  for (let i: usize = 0; i < LINE; i += 16) {
    let squares = f32x4.splat(0);
    let at = x + i;
    for (let l = 0; l < d; l++) {
      const v = v128.load(at);
      squares = f32x4.add(squares, f32x4.mul(v, v));
      at += LINE;
    }
    v128.store(out + i, f32x4.mul(squares, f32x4.splat(scale)));
  }
  if (log2Weights) {
    for (let j = 0; j < n; j++) {
      const at = <usize> j << 2;
      store<f32>(out + at, max(load<f32>(out + at) + load<f32>(log2Weights + at), MASKED));
    }
  }
  for (let j = n; j < BLOCK; j++) store<f32>(out + (<usize> j << 2), MASKED);
}
