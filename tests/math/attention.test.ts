/** Whole attentions on the float64 backend: symmetries, any cut, causality, heads, huge inputs, exact softmax. */
import { describe, expect, test } from "bun:test";
import { featureMap } from "../../src/feature_map.ts";
import { KERNEL_MAPS } from "../kernel_maps.ts";
import { RandomStream } from "../../src/random.ts";
import {
  ALL_MAPS,
  distance,
  gaussian,
  linear,
  parametersOf,
  POSITIVE_MAPS,
  type Problem,
  projectionRows,
  type Rows,
  softmax,
} from "./harness.ts";
import { denseAttention, dot, phi, softmaxMatrix } from "./oracles.ts";

const L = 40, D = 6, DV = 3, SCALE = 1 / Math.sqrt(D);

const problem = (seed: number, rows = L, sd = 0.8): Problem => ({
  Q: gaussian(seed, rows, D, sd),
  K: gaussian(seed + 1, rows, D, sd),
  V: gaussian(seed + 2, rows, DV),
});
const bound = (name: string, seed = 7) => parametersOf(name, { headDim: D, projections: 8, scale: SCALE, seed });

/** φ(q)·φ(k) of all pairs by definition. */
function kernelMatrix(name: string, { Q, K }: Problem, p = bound(name)): Rows {
  const W = projectionRows(p);
  const features = (row: number[]) => phi(p.map, W, row.map((x) => x * p.inputScale), p.epsilon);
  const keys = K.map(features);
  return Q.map((q) => {
    const query = features(q);
    return keys.map((key) => dot(query, key));
  });
}

/** Signed maps are ill-conditioned where a denominator nears 0; all that is exact elsewhere is exact to this there. */
const tolerance = (name: string) => featureMap(name).signed ? 1e-8 : 1e-12;

function shuffled(n: number, seed: number): number[] {
  const random = new RandomStream(seed);
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

describe.each(ALL_MAPS)("%s", (name) => {
  const p = bound(name);
  const at = problem(600);

  test("D9 equals dense attention with the same features, both directions; row 0 is v₀", async () => {
    const A = kernelMatrix(name, at);
    const both = await linear(p, at);
    expect(distance(both.out, denseAttention(A, at.V))).toBeLessThan(tolerance(name));
    const causal = await linear(p, at, { causal: true });
    expect(distance(causal.out, denseAttention(A, at.V, { causal: true }))).toBeLessThan(tolerance(name));
    expect(distance([causal.out[0]], [at.V[0]])).toBeLessThan(tolerance(name) / 100);
    expect(distance(causal.out.slice(-1), both.out.slice(-1))).toBeLessThan(tolerance(name));
  });

  test("D6 permuting (k, v) changes nothing; permuting queries permutes outputs", async () => {
    const { out } = await linear(p, at);
    const keys = shuffled(L, 61), queries = shuffled(L, 62);
    const mixed = { Q: queries.map((i) => at.Q[i]), K: keys.map((j) => at.K[j]), V: keys.map((j) => at.V[j]) };
    expect(distance((await linear(p, mixed)).out, queries.map((i) => out[i]))).toBeLessThan(tolerance(name));
  });

  test("D7 linear in V; equal values give that value; positive maps stay in the hull of V", async () => {
    for (const causal of [false, true]) {
      const other = gaussian(71, L, DV);
      const V = at.V.map((v, j) => v.map((value, c) => 2 * value - 3 * other[j][c]));
      const [a, b, ab] = await Promise.all([at.V, other, V].map((V) => linear(p, { ...at, V }, { causal })));
      const expected = a.out.map((row, i) => row.map((value, c) => 2 * value - 3 * b.out[i][c]));
      expect(distance(ab.out, expected)).toBeLessThan(tolerance(name));
      const same = at.V.map(() => [0.1, -5, 1e6]);
      expect(distance((await linear(p, { ...at, V: same }, { causal })).out, same)).toBeLessThan(tolerance(name) / 100);
      if (!POSITIVE_MAPS.includes(name)) continue;
      for (let c = 0; c < DV; c++) {
        const column = at.V.map((v) => v[c]);
        const slack = 1e-14 * Math.max(...column.map(Math.abs));
        for (let i = 0; i < L; i++) {
          const visible = causal ? column.slice(0, i + 1) : column;
          expect(a.out[i][c]).toBeGreaterThanOrEqual(Math.min(...visible) - slack);
          expect(a.out[i][c]).toBeLessThanOrEqual(Math.max(...visible) + slack);
        }
      }
    }
  });

  test("D10 any tile size gives the same result, both directions", async () => {
    const long = problem(1000, 70);
    for (const causal of [false, true]) {
      const whole = await linear(p, long, { causal });
      for (const cuts of [[1], [7], [32], [64], [100], [3, 1, 40, 5]]) {
        const cut = await linear(p, long, { causal, cuts });
        expect(distance(cut.out, whole.out), `${cuts}`).toBeLessThan(tolerance(name));
        expect(cut.state.keys).toBe(70);
      }
    }
  });

  test("D11 rows ≤ t do not change by a bit when later tokens do, not even for a huge late key", async () => {
    const t = 22;
    const late = (value: number[], i: number, factor: number) => i > t ? value.map((x) => x * factor + 1) : value;
    const changed = {
      Q: at.Q.map((q, i) => late(q, i, -2)),
      K: at.K.map((k, i) => late(k, i, i === L - 1 ? 8 : 3)),
      V: at.V.map((v, i) => late(v, i, 1e6)),
    };
    for (const cuts of [[L], [9], [t + 1]]) {
      const before = await linear(p, at, { causal: true, cuts });
      const after = await linear(p, changed, { causal: true, cuts });
      expect(after.out.slice(0, t + 1)).toEqual(before.out.slice(0, t + 1));
      expect(after.out[t + 1]).not.toEqual(before.out[t + 1]);
    }
  });
});

test("D8 exact softmax: a vector added to every key changes nothing", async () => {
  const at = problem(810);
  const g = [3, -2, 1, 0, 5, -4];
  const moved = { ...at, K: at.K.map((k) => k.map((value, l) => value + g[l])) };
  expect(distance(await softmax(SCALE, moved), await softmax(SCALE, at))).toBeLessThan(1e-12);
});

describe("D15 inputs × 60", () => {
  const huge = problem(1500, 60, 60);

  test.each(["positive", "hyperbolic"])(
    "D15 %s: finite, 1 ≤ z ≤ n, and equal to the log-domain evaluation",
    async (name) => {
      const p = bound(name);
      const W = projectionRows(p);
      const x = (row: number[]) => row.map((value) => value * p.inputScale);
      // ln φ(q)·φ(k) per pair, by log-sum-exp over features: nothing can overflow.
      const signs = p.map.featuresPerProjection === 2 ? [1, -1] : [1];
      const logA = huge.Q.map((q) =>
        huge.K.map((k) => {
          const terms = W.flatMap((w) => signs.map((sign) => sign * (dot(w, x(q)) + dot(w, x(k)))));
          const top = Math.max(...terms);
          return top + Math.log(terms.reduce((sum, t) => sum + Math.exp(t - top), 0)) - dot(x(k), x(k)) / 2;
        })
      );
      for (const causal of [false, true]) {
        const { out, counts, state } = await linear(p, huge, { causal, cuts: [13] });
        const A = logA.map((row, i) => {
          const top = Math.max(...(causal ? row.slice(0, i + 1) : row));
          return row.map((t, j) => causal && j > i ? 0 : Math.exp(t - top));
        });
        expect(out.flat().every(Number.isFinite)).toBe(true);
        expect(distance(out, denseAttention(A, huge.V))).toBeLessThan(1e-9);
        expect(counts).toEqual({ emptyRows: 0, nonPositive: 0, recomputed: 0 });
        expect(Math.min(...state.z)).toBeGreaterThanOrEqual(1);
        expect(Math.max(...state.z)).toBeLessThanOrEqual(60);
      }
    },
  );

  // The plain e^u of generalised attention has no stabiliser: here it still fits into float64 (u < 355), beyond it cannot.
  const others = KERNEL_MAPS.filter((map) => map.family !== "exp");
  test.each(others.map((map) => map.name))("D15 %s: finite", async (name) => {
    for (const causal of [false, true]) {
      expect((await linear(bound(name), huge, { causal })).out.flat().every(Number.isFinite)).toBe(true);
    }
  });

  test("D15 exact softmax", async () => {
    const A = softmaxMatrix(huge.Q, huge.K, SCALE);
    expect(distance(await softmax(SCALE, huge, { cuts: [7] }), denseAttention(A, huge.V))).toBeLessThan(1e-11);
  });
});

describe("D18 grouped key heads", () => {
  const heads = 4, kvHeads = 2;
  const at = { Q: gaussian(180, 20, heads * D), K: gaussian(181, 20, kvHeads * D), V: gaussian(182, 20, kvHeads * DV) };
  const repeat = (rows: Rows, width: number) =>
    rows.map((row) => [0, 0, 1, 1].flatMap((h) => row.slice(h * width, (h + 1) * width)));
  const repeated = { Q: at.Q, K: repeat(at.K, D), V: repeat(at.V, DV) };

  test.each([1, 2])("D18 %d matrices: equals repeated key heads, and each head alone", async (matrices) => {
    const p = parametersOf("hyperbolic", { headDim: D, projections: 8, matrices, scale: SCALE, seed: 183 });
    const size = p.projections * D;
    const W = [0, 0, 1, 1].map((h) => p.weights.subarray((h % matrices) * size, (h % matrices + 1) * size));
    const biases = [0, 0, 1, 1].map((h) => {
      return p.bias.subarray((h % matrices) * p.projections, (h % matrices + 1) * p.projections);
    });
    const join = (parts: Float64Array[]) => Float64Array.from(parts.flatMap((part) => [...part]));
    const each = { ...p, matrices: 4, weights: join(W), bias: join(biases) };
    for (const causal of [false, true]) {
      const grouped = await linear(p, at, { causal, heads, kvHeads });
      expect(grouped.out).toEqual((await linear(each, repeated, { causal, heads })).out);
      for (let h = 0; h < heads; h++) {
        const alone = {
          Q: at.Q.map((row) => row.slice(h * D, (h + 1) * D)),
          K: repeated.K.map((row) => row.slice(h * D, (h + 1) * D)),
          V: repeated.V.map((row) => row.slice(h * DV, (h + 1) * DV)),
        };
        const { out } = await linear({ ...p, matrices: 1, weights: W[h], bias: biases[h] }, alone, { causal });
        expect(grouped.out.map((row) => row.slice(h * DV, (h + 1) * DV))).toEqual(out);
      }
    }
  });

  test("D18 exact softmax: equals repeated key heads", async () => {
    for (const causal of [false, true]) {
      expect(await softmax(SCALE, at, { causal, heads, kvHeads })).toEqual(
        await softmax(SCALE, repeated, { causal, heads }),
      );
    }
  });
});

describe("D20 the exact path", () => {
  const at = { ...problem(2000), weights: Array.from({ length: L }, (_, j) => [1, 0.25, 0, 3][j % 4]) };

  test("D20 online softmax = two passes: any cut, weights, both directions", async () => {
    const A = softmaxMatrix(at.Q, at.K, SCALE);
    for (const { weights, ...plain } of [at, { ...at, weights: at.weights.map((_, j) => j < 3 ? 0 : 1) }]) {
      for (const causal of [false, true]) {
        for (const cuts of [[L], [1], [7], [16, 3]]) {
          const run = { causal, cuts };
          expect(distance(await softmax(SCALE, plain, run), denseAttention(A, at.V, { causal }))).toBeLessThan(1e-12);
          const expected = denseAttention(A, at.V, { causal, weights });
          expect(distance(await softmax(SCALE, { ...plain, weights }, run), expected)).toBeLessThan(1e-12);
        }
      }
    }
  });

  test("D20 TV ≤ √(KL/2) for every row, and one-pass KL and squared distance are the dense ones", async () => {
    // Values e_j make outputs the attention rows themselves.
    const unit = { ...at, weights: undefined, V: at.K.map((_, j) => at.K.map((_, c) => c === j ? 1 : 0)) };
    const p = bound("hyperbolic");
    const exact = await softmax(SCALE, unit);
    const { out: approximate } = await linear(p, unit);
    const kernel = kernelMatrix("hyperbolic", at, p);
    let apart = 0;
    for (let i = 0; i < L; i++) {
      let tv = 0, kl = 0, squared = 0;
      for (let j = 0; j < L; j++) {
        tv += 0.5 * Math.abs(exact[i][j] - approximate[i][j]);
        kl += exact[i][j] * Math.log(exact[i][j] / approximate[i][j]);
        squared += (exact[i][j] - approximate[i][j]) ** 2;
      }
      apart = Math.max(apart, tv);
      expect(kl).toBeGreaterThan(0);
      expect(tv).toBeLessThanOrEqual(Math.sqrt(kl / 2));
      // KL = Σ_j A_ij (t_ij − ln â_ij) − LSE_i + ln Σ_j â_ij: the average of one more value column under exact attention.
      const logits = at.K.map((k) => SCALE * dot(at.Q[i], k));
      const columns = logits.map((t, j) => [t - Math.log(kernel[i][j]), kernel[i][j]]);
      const [[average, shared]] = await softmax(SCALE, { Q: [at.Q[i]], K: at.K, V: columns });
      const lse = Math.log(logits.reduce((sum, t) => sum + Math.exp(t), 0));
      const onePass = average - lse + Math.log(kernel[i].reduce((sum, a) => sum + a, 0));
      expect(Math.abs(onePass - kl)).toBeLessThan(1e-12);
      // Σ_j (A − Â)² = Σe^{2t} / Z² − 2 Σ_j A_ij â_ij / Ẑ + Σâ² / Ẑ²: three sums of one pass, rescaled as Z is.
      const doubled = logits.reduce((sum, t) => sum + Math.exp(2 * t), 0);
      const total = kernel[i].reduce((sum, a) => sum + a, 0);
      const squares = kernel[i].reduce((sum, a) => sum + a * a, 0);
      const oneSquared = doubled * Math.exp(-2 * lse) - 2 * shared / total + squares / total ** 2;
      expect(Math.abs(oneSquared - squared)).toBeLessThan(1e-12);
    }
    expect(apart).toBeGreaterThan(0.05); // the two differ: the inequality was not tested on zeros
  });
});
