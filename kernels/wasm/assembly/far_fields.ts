/** What a block of 64 queries gets from a far field: sums over its keys, rescaled by e^{−M}, and the lines that tell single keys' K̂. */
import { exp2, LOG2E } from "./exponential";
import { multiply, tableProduct } from "./far_keys";
import * as far from "./far_plan";
import { BLOCK, LINE, MASKED, NONE } from "./pack";
import * as plan from "./plan";
import { Add, Columns, product } from "./product";
import { CONSTANT, FAR, LAST, SHIFT, TOP, TOTAL } from "./near_weights";
import { lines } from "./state";

/** Bytes of scratch memory: lines of products, scaled queries, and sums. */
export function taylorScratch(p: usize): usize {
  return lines(2 * plan.headDim(p) + 8);
}

/** out += splat(load(at)) · x, lines. */
// @ts-ignore: decorator
@inline
function addScaled(x: usize, at: usize, out: usize): void {
  const factor = v128.load32_splat(at);
  for (let i: usize = 0; i < LINE; i += 16) {
    v128.store(out + i, f32x4.add(v128.load(out + i), f32x4.mul(factor, v128.load(x + i))));
  }
}

/**
 * Taylor fields: `acc` (64 value rows) and the lines TOTAL, TOP, SHIFT, CONSTANT, FAR of `rows`. `own`: 0, or the logits of the block's own
 * `n` keys (a line each), which count from the diagonal on by their weights `omega`.
 */
export function taylorField(
  p: usize,
  state: usize,
  x: usize,
  scratch: usize,
  rows: usize,
  own: usize,
  omega: usize,
  n: i32,
  acc: usize,
): void {
  const d = plan.headDim(p), wide = plan.valueLine(p), padded = plan.paddedValueDim(p);
  const products = scratch, scaled = products + lines(d + 1);
  const offset = scaled + lines(d), sum = offset + LINE, squares = sum + LINE, weight = squares + LINE;
  const ordered = far.ofOrder2(p);
  memory.fill(offset, 0, 4 * LINE);
  for (let l = 0; l < d; l++) {
    const at = <usize> l << 2;
    addScaled(x + lines(l), state + at, offset);
    addScaled(x + lines(l), far.first(p, state) + at, sum);
  }
  memory.fill(acc, 0, <usize> BLOCK * wide);
  if (ordered) {
    let pair = 0;
    for (let a = 0; a < d; a++) {
      const some = d - a;
      for (let b = 0; b < some; b++) {
        const to = products + lines(b);
        multiply(x + lines(a), x + lines(a + b), to);
        if (b == 0) halve(to); // ½ x_a² once, x_a x_b for both orders
        addScaled(to, far.second(p, state) + (<usize> (pair + b) << 2), squares);
      }
      const values = far.secondValues(p, state) + <usize> pair * wide;
      product<Columns, Add>(products, LINE, values, wide, acc, wide, BLOCK, padded, some);
      pair += some;
    }
  }
  const keys = load<f32>(far.count(p, state));
  // So far these are the state's alone, squares halved; its part of the denominator needs them below.
  const stateSum = products, stateSquares = products + LINE;
  memory.copy(stateSum, sum, LINE);
  memory.copy(stateSquares, squares, LINE);
  for (let i: usize = 0; i < LINE; i += 16) v128.store(weight + i, f32x4.splat(keys));
  for (let j = 0; own && j < n; j++) addOwn(own + lines(j), j, omega, rows, offset, sum, squares, weight);
  const square = f32x4.splat(ordered ? 0.5 : 0);
  const constants = sum, slopes = squares; // they take the places of what they are made of
  for (let i: usize = 0; i < LINE; i += 16) {
    const total = v128.load(weight + i);
    const some = f32x4.gt(total, f32x4.splat(0));
    const share = f32x4.div(f32x4.splat(1), f32x4.max(total, f32x4.splat(1e-30)));
    const mean = v128.and(f32x4.mul(v128.load(sum + i), share), some);
    const second = f32x4.mul(f32x4.splat(2), v128.load(squares + i));
    const spread = f32x4.sub(f32x4.mul(second, share), f32x4.mul(mean, mean));
    const variance = v128.and(f32x4.max(spread, f32x4.splat(0)), some);
    let constant = f32x4.splat(1);
    if (far.kind(p) == far.HERMITE2) {
      const shrunk = f32x4.sub(constant, f32x4.mul(f32x4.splat(0.5), variance));
      constant = v128.bitselect(shrunk, constant, f32x4.le(variance, f32x4.splat(far.hermiteLimit(p))));
    }
    const zeroth = f32x4.add(f32x4.sub(constant, mean), f32x4.mul(square, f32x4.mul(mean, mean)));
    const slope = f32x4.sub(f32x4.splat(1), f32x4.mul(f32x4.splat(2), f32x4.mul(square, mean)));
    v128.store(rows + SHIFT + i, f32x4.add(v128.load(offset + i), mean));
    v128.store(rows + CONSTANT + i, constant);
    v128.store(rows + FAR + i, v128.and(f32x4.splat(1), some));
    v128.store(rows + TOP + i, v128.bitselect(f32x4.splat(0), f32x4.splat(NONE), some));
    const state0 = f32x4.mul(zeroth, f32x4.splat(keys));
    const state1 = f32x4.mul(slope, v128.load(stateSum + i));
    v128.store(rows + TOTAL + i, f32x4.add(f32x4.add(state0, state1), v128.load(stateSquares + i)));
    v128.store(constants + i, zeroth);
    v128.store(slopes + i, slope);
  }
  for (let l = 0; l < d; l++) multiply(x + lines(l), slopes, scaled + lines(l));
  product<Columns, Add>(scaled, LINE, far.firstValues(p, state), wide, acc, wide, BLOCK, padded, d);
  product<Columns, Add>(constants, LINE, far.values(p, state), wide, acc, wide, BLOCK, padded, 1);
}

function halve(at: usize): void {
  for (let i: usize = 0; i < LINE; i += 16) v128.store(at + i, f32x4.mul(v128.load(at + i), f32x4.splat(0.5)));
}

/** Adds an own key's ω, ω t' and ½ ω t'² to the rows that see it. */
function addOwn(
  logit: usize,
  j: i32,
  omega: usize,
  rows: usize,
  offset: usize,
  sum: usize,
  squares: usize,
  weight: usize,
): void {
  const factor = v128.load32_splat(omega + (<usize> j << 2));
  const row = i32x4.splat(load<i32>(rows + LAST) + j);
  for (let i: usize = 0; i < LINE; i += 16) {
    const seen = i32x4.le_s(row, v128.load(rows + LAST + i));
    const w = v128.and(factor, seen);
    const t = f32x4.sub(v128.load(logit + i), v128.load(offset + i));
    const wt = f32x4.mul(w, t);
    v128.store(weight + i, f32x4.add(v128.load(weight + i), w));
    v128.store(sum + i, f32x4.add(v128.load(sum + i), wt));
    v128.store(squares + i, f32x4.add(v128.load(squares + i), f32x4.mul(f32x4.splat(0.5), f32x4.mul(wt, t))));
  }
}

/** Bytes of a clustered field: a line per cluster (K̂), 64 of quadratic terms, squared queries, and two tables. */
export function clusterScratch(p: usize): usize {
  return lines(far.paddedClusters(p) + BLOCK + plan.headDim(p)) + 2 * far.tableBytes(p);
}

/** Tables of means and of half variances. */
function tables(p: usize, field: usize): usize {
  return field + lines(far.paddedClusters(p) + BLOCK + plan.headDim(p));
}

/** Means and half variances of all clusters; empty ones have their centroid and 0. */
export function deriveClusters(p: usize, head: i32, state: usize, field: usize): void {
  memory.fill(tables(p, field), 0, 2 * far.tableBytes(p));
  for (let g = 0; g < far.clusters(p); g++) deriveCluster(p, head, g, state, field);
}

/** The same of the clusters that `n` keys have joined; `seen`: C bytes of scratch memory. */
export function deriveJoined(p: usize, head: i32, ids: usize, n: i32, state: usize, field: usize, seen: usize): void {
  memory.fill(seen, 0, far.clusters(p));
  for (let j = 0; j < n; j++) {
    const g = load<i32>(ids + (<usize> j << 2));
    if (load<u8>(seen + g)) continue;
    store<u8>(seen + g, 1);
    deriveCluster(p, head, g, state, field);
  }
}

function deriveCluster(p: usize, head: i32, g: i32, state: usize, field: usize): void {
  const d = plan.headDim(p), all = far.paddedClusters(p), row = <usize> g * far.rowBytes(p);
  const n = load<f32>(state + (<usize> g << 2));
  const share = f32x4.splat(n > 0 ? 1 / n : 0);
  const centroid = far.centroids(p, head) + row;
  const first = far.clusterFirst(p, state) + row, second = far.clusterSecond(p, state) + row;
  const none = f32x4.splat(0), half = f32x4.splat(0.5);
  // Rows are padded to 4 numbers of 0.
  for (let l = 0; l < d; l += 4) {
    const at = <usize> l << 2;
    const mean = f32x4.mul(v128.load(first + at), share);
    const variance = f32x4.sub(f32x4.mul(v128.load(second + at), share), f32x4.mul(mean, mean));
    const to = tables(p, field) + lines(l / BLOCK * all + g) + (at & (LINE - 1));
    v128.store(to, f32x4.add(v128.load(centroid + at), mean));
    v128.store(to + far.tableBytes(p), f32x4.mul(f32x4.max(variance, none), half));
  }
}

/** Clustered field: K̂e^{−M} of every cluster in the first lines of `field`, TOP, TOTAL and `acc`. */
export function clusterField(p: usize, state: usize, x: usize, field: usize, top: usize, total: usize, acc: usize): void {
  const d = plan.headDim(p), count = far.clusters(p), all = far.paddedClusters(p);
  const quadratics = field + lines(all), squared = quadratics + lines(BLOCK);
  const wide = plan.valueLine(p), limit = f32x4.splat(far.quadraticLimit(p));
  for (let l = 0; l < d; l++) multiply(x + lines(l), x + lines(l), squared + lines(l));
  for (let i: usize = 0; i < LINE; i += 16) v128.store(top + i, f32x4.splat(NONE));
  for (let first = 0; first < count; first += BLOCK) {
    const some = min(BLOCK, count - first), logs = field + lines(first);
    tableProduct(p, tables(p, field), first, some, x, logs);
    tableProduct(p, tables(p, field) + far.tableBytes(p), first, some, squared, quadratics);
    for (let i: usize = 0; i < LINE; i += 16) {
      let most = v128.load(top + i);
      for (let g = 0; g < some; g++) {
        const at = logs + lines(g) + i;
        const log = load<f32>(state + (<usize> (first + g) << 2)) > 0
          ? f32x4.add(v128.load(at), f32x4.min(v128.load(quadratics + lines(g) + i), limit))
          : f32x4.splat(MASKED);
        v128.store(at, log);
        most = f32x4.pmax(most, log);
      }
      v128.store(top + i, most);
    }
  }
  for (let i: usize = 0; i < LINE; i += 16) {
    const most = v128.load(top + i);
    let sum = f32x4.splat(0);
    for (let g = 0; g < count; g++) {
      const at = field + lines(g) + i;
      const e = exp2(f32x4.mul(f32x4.sub(v128.load(at), most), f32x4.splat(LOG2E)));
      v128.store(at, e);
      sum = f32x4.add(sum, f32x4.mul(e, v128.load32_splat(state + (<usize> g << 2))));
    }
    v128.store(total + i, sum);
  }
  memory.fill(acc, 0, <usize> BLOCK * wide);
  for (let g = 0; g < count; g += BLOCK) {
    const values = far.clusterValues(p, state) + <usize> g * wide, some = min(BLOCK, count - g);
    product<Columns, Add>(field + lines(g), LINE, values, wide, acc, wide, BLOCK, plan.paddedValueDim(p), some);
  }
}
