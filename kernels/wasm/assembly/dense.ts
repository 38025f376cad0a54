/**
 * A dense layer (kernels/README.md §8): y = f(W x + b) for blocks of 64 rows, bias and activation while a block's sums are hot.
 *
 * W lies in panels of 64 outputs, for each input one line of 64 numbers (a gated layer: 32 outputs and the 32 they gate). Per block
 * the rows are packed once, transposed like W; then every panel streams by, 64 inputs at a time, so that 16 KB of W, of the rows
 * and of the sums lie in the first-level cache together, whatever the sizes. W is read once per 64 rows: 32 operations a byte.
 *
 * A row's numbers are summed input by input, wherever it stands: no bit of them depends on the block, the panel or the thread.
 *
 * Versions (1,024 rows, AMD Zen 5, relaxed, Bun 1.4.5 / Deno 2.9.6; % of the backend's own product at that moment, as the host was shared):
 *   1  gelu of activations.ts, steps of 64. Predicted: 90 % without activation, as sums are loaded and stored once per 64 products,
 *      and 5 (640 inputs) to 15 % (200) for gelu. Measured, 2 threads: 640 → 2,560  81 / 84, with gelu 63–78 / 72–76;
 *      200 → 800  87 / 84, with gelu 62 / 65: gelu cost 11 ns per four numbers, twice what was predicted.
 *   2  (this)  gelu in 16 operations, no exponential; equal steps, so that 200 inputs are 3 × 67 and no rest of 8. In % and GFLOP/s:
 *                             1 thread, with gelu            2 threads                2 threads, with gelu
 *                640 → 2,560  86–92 (39) / 90–91 (40–44)     80–83 (70) / 86–87       75–79 (65) / 82–85
 *                200 → 800    85–86 (39) / 87–88 (39–44)     68–87 (70) / 85–86       74–82 (65) / 75–82
 *              Steps of 96 and 128 were no faster by more than the noise.
 *   Lesson: erfc by exp costs more than 100 products a number; the 16th power of a polynomial is enough where only u · erfc counts.
 */
import { positive } from "./activations";
import { BLOCK, LINE, packTransposed } from "./pack";
import { Add, Columns, madd, product, Set } from "./product";
import { ACCUMULATE, begin, EMIT, mark, PACK } from "./profile";
import { lines } from "./state";

/** Columns of a panel, as the host packs it (src/backends/wasm_dense.ts). */
const PANEL: i32 = 64;
/** Inputs per step, about: steps of a layer are equal. */
const STEP: i32 = 64;

/** Activations as the host numbers them. */
const RELU: i32 = 1;
const GELU: i32 = 2;
const GELU_GLU: i32 = 3;

/** Bytes of scratch memory for a layer of `inputs` inputs. */
export function denseScratch(inputs: i32): usize {
  return lines(inputs) + lines(BLOCK);
}

/**
 * Outputs of rows `from … to − 1` and panels `firstPanel … endPanel − 1`. `width`: outputs after the activation. `step`, `outStep`:
 * bytes between rows of `x` and of `out`, which begin at the layer's first input and output (one group's, of a grouped layer).
 * `weights`: panels of `inputs` lines; `biases`: one line per panel, in the panel's order. The last panel's outputs end early:
 * those of a gated layer's second half then follow at the next multiple of 16.
 */
export function dense(
  activation: i32,
  inputs: i32,
  width: i32,
  weights: usize,
  biases: usize,
  x: usize,
  step: usize,
  from: i32,
  to: i32,
  firstPanel: i32,
  endPanel: i32,
  out: usize,
  outStep: usize,
  scratch: usize,
): void {
  begin();
  const each = activation == GELU_GLU ? PANEL / 2 : PANEL;
  const sums = scratch + lines(inputs);
  const steps = max(1, (inputs + STEP / 2) / STEP), stride = (inputs + steps - 1) / steps;
  for (let row = from; row < to; row += BLOCK) {
    const n = min(BLOCK, to - row), even = (n + 1) & ~1;
    packTransposed(x + <usize> row * step, step, n, inputs, scratch);
    mark(PACK);
    for (let panel = firstPanel; panel < endPanel; panel++) {
      const first = panel * each, some = min(each, width - first), lanes = (some + 15) & ~15;
      const columns = activation == GELU_GLU ? 2 * lanes : lanes;
      const w = weights + <usize> panel * lines(inputs);
      product<Columns, Set>(scratch, LINE, w, LINE, sums, LINE, even, columns, stride);
      for (let l = stride; l < inputs; l += stride) {
        const at = lines(l);
        product<Columns, Add>(scratch + at, LINE, w + at, LINE, sums, LINE, even, columns, min(stride, inputs - l));
      }
      mark(ACCUMULATE);
      const bias = biases + lines(panel);
      finishBlock(activation, sums, bias, n, some, lanes, out + <usize> row * outStep + (<usize> first << 2), outStep);
      mark(EMIT);
    }
  }
}

/** The first `some` columns of `n` rows of sums with their bias through the activation to `out`. */
function finishBlock(
  activation: i32,
  sums: usize,
  bias: usize,
  n: i32,
  some: i32,
  lanes: i32,
  out: usize,
  outStep: usize,
): void {
  switch (activation) {
    case RELU:
      return finishRows<Relu>(sums, bias, n, some, lanes, out, outStep);
    case GELU:
      return finishRows<Gelu>(sums, bias, n, some, lanes, out, outStep);
    case GELU_GLU:
      return finishRows<Gated>(sums, bias, n, some, lanes, out, outStep);
    default:
      return finishRows<None>(sums, bias, n, some, lanes, out, outStep);
  }
}

/**
 * max(u, 0) − |u|/2 · erfc(|u|/√2), erfc(a/√2) ≈ 1/p(a)¹⁶ with a polynomial of degree 7 (the form of Abramowitz & Stegun 7.1.28,
 * fitted for the smallest |a · error|): absolute error 3.2e-7 at most, rounding included. Far out p¹⁶ is infinite and the tail 0.
 */
// @ts-ignore: decorator
@inline
function gelu(u: v128): v128 {
  const a = f32x4.abs(u);
  let p = madd(f32x4.splat(-2.074566054943716e-6), f32x4.splat(8.169864713636343e-7), a);
  p = madd(f32x4.splat(7.479064515791833e-5), p, a);
  p = madd(f32x4.splat(-5.158908606972545e-6), p, a);
  p = madd(f32x4.splat(3.3133113756775856e-3), p, a);
  p = madd(f32x4.splat(2.112751081585884e-2), p, a);
  p = madd(f32x4.splat(4.9869097769260406e-2), p, a);
  p = madd(f32x4.splat(1), p, a);
  p = f32x4.mul(p, p);
  p = f32x4.mul(p, p);
  p = f32x4.mul(p, p);
  p = f32x4.mul(p, p);
  return f32x4.sub(positive(u), f32x4.div(f32x4.mul(a, f32x4.splat(0.5)), p));
}

type None = f32;
type Relu = i32;
type Gelu = u32;
type Gated = f64;

// @ts-ignore: decorator
@inline
function finishRows<F>(sums: usize, bias: usize, n: i32, some: i32, lanes: i32, out: usize, outStep: usize): void {
  const end = <usize> some << 2, wide = end & ~15;
  const other = <usize> lanes << 2;
  for (let i = 0; i < n; i++) {
    let c: usize = 0;
    for (; c < wide; c += 16) v128.store(out + c, finished<F>(sums + c, bias + c, other));
    if (c < end) {
      let y = finished<F>(sums + c, bias + c, other);
      for (; c < end; c += 4) {
        store<f32>(out + c, f32x4.extract_lane(y, 0));
        y = v128.shuffle<f32>(y, y, 1, 2, 3, 0);
      }
    }
    sums += LINE;
    out += outStep;
  }
}

/** Four outputs. */
// @ts-ignore: decorator
@inline
function finished<F>(sums: usize, bias: usize, other: usize): v128 {
  const u = f32x4.add(v128.load(sums), v128.load(bias));
  if (isInteger<F>()) return isSigned<F>() ? positive(u) : gelu(u);
  if (sizeof<F>() == 4) return u;
  return f32x4.mul(gelu(u), f32x4.add(v128.load(sums + other), v128.load(bias + other)));
}
