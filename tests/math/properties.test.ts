/** Properties of single parts that no other file of this folder looks at: transforms, rotary positions, metrics, float32 states, ε. */
import { describe, expect, test } from "bun:test";
import { scalar } from "../../src/backends/scalar.ts";
import { compareOutputs } from "../../src/metrics.ts";
import { frequenciesOf, rotateHalfTile, rotateInterleaved } from "../../src/model/rows.ts";
import { drawFactored, drawProjection, hadamardBlock, turnRows } from "../../src/projection.ts";
import { portableTurn, RandomStream } from "../../src/random.ts";
import { prepareRuled } from "../../src/rules.ts";
import { distance, gaussian, GivenNumbers, linear, parametersOf, rowsOf, Sample, softmax, tile } from "./harness.ts";
import { denseAttention, dot, norm2, series, sylvester } from "./oracles.ts";

describe("D5 fast Walsh–Hadamard transforms", () => {
  const block = (d: number, sign: (at: number) => number) => {
    const { directions } = hadamardBlock(new GivenNumbers(Array.from({ length: 3 * d }, (_, at) => sign(at))), d, d);
    return Array.from({ length: d }, (_, i) => Array.from(directions.subarray(i * d, i * d + d)));
  };

  test("D5 without changes of sign N N N is N, since N is its own inverse: the dense H/√d", () => {
    for (const d of [1, 2, 8, 64]) {
      const rows = block(d, () => 1); // `below(2)` = 1 is the sign +1
      for (let i = 0; i < d; i++) {
        const unit = Array.from({ length: d }, (_, l) => l === i ? 1 : 0);
        const expected = sylvester(unit).map((value) => value / Math.sqrt(d));
        rows[i].forEach((value, l) => expect(Math.abs(value - expected[l])).toBeLessThan(1e-15));
      }
    }
  });

  test("D5 with any signs the product keeps norms, and is orthogonal", () => {
    for (const d of [2, 16, 128]) {
      const random = new RandomStream(51, d);
      const rows = block(d, () => random.below(2));
      const [x] = gaussian(52, 1, d);
      expect(Math.abs(norm2(rows.map((row) => dot(row, x))) / norm2(x) - 1)).toBeLessThan(1e-13);
      for (let i = 1; i < d; i++) expect(Math.abs(dot(rows[i], rows[i - 1]))).toBeLessThan(1e-15);
    }
  });
});

describe("S12 how far products of rotations and of signs are from Haar directions, on an axis", () => {
  // E e^{ρ t u} over norms and both signs of u is ₁F₁(d/2; ½; (t u)²/2): the mean over directions needs no norms, and little luck.
  const d = 16, s = 1.44;
  const bias = (directions: Iterable<number>) => {
    const sample = new Sample();
    for (const u of directions) sample.add(series(s * u * u / 2, [d / 2], [0.5]) / Math.exp(s / 2));
    return sample;
  };

  for (const kind of ["givens", "hadamard", "orthogonal"]) {
    test(`S12 ${kind}: below 1 %`, () => {
      const all = function* () {
        for (let draw = 0; draw < 1600; draw++) {
          const W = drawProjection({
            kind,
            projections: d,
            headDim: d,
            matrices: 1,
            norms: "sqrtd",
            seed: 120,
            draw,
          });
          for (const w of W) yield w / Math.sqrt(d);
        }
      };
      const { mean, standardError } = bias(all());
      expect(Math.abs(mean - 1)).toBeLessThan(0.01);
      expect(standardError).toBeLessThan(0.0015); // entries of a row share its length: less free than this says
    });
  }

  test("S12 the d ln d rotations of other code would leave 25 %", () => {
    const all = function* () {
      for (let draw = 0; draw < 200; draw++) {
        const random = new RandomStream(121, draw);
        const U = new Float64Array(d * d);
        for (let i = 0; i < d; i++) U[i * d + i] = 1;
        for (let turn = 0; turn < Math.ceil(d * Math.log(d)); turn++) {
          const i = random.below(d);
          turnRows(U, d, i, (i + 1 + random.below(d - 1)) % d, portableTurn(random.uniform()));
        }
        yield* U;
      }
    };
    expect(Math.abs(bias(all()).mean - 1.25)).toBeLessThan(0.05);
  });
});

describe("D18 rotary positions", () => {
  const d = 8, heads = 2;
  const frequencies = frequenciesOf(d);
  const rotations = {
    "half-split": (at: ReturnType<typeof tile>) => rotateHalfTile(at, frequencies),
    interleaved: (at: ReturnType<typeof tile>) =>
      rotateInterleaved(at, d, (p) => {
        const angles = Array.from(frequencies, (f) => p * f);
        return [Float64Array.from([...angles.map(Math.sin), ...angles.map(Math.cos)]), 0];
      }),
  };
  const [q, k] = gaussian(180, 2, heads * d);

  for (const [name, rotate] of Object.entries(rotations)) {
    test(`D18 ${name}: norms stay, and logits depend on i − j`, () => {
      const at = (row: number[], position: number) => {
        const turned = tile([row], position);
        rotate(turned);
        return Array.from(turned.data);
      };
      const head = (row: number[], h: number) => row.slice(h * d, (h + 1) * d);
      for (let h = 0; h < heads; h++) {
        for (const position of [0, 1, 100]) {
          expect(Math.abs(norm2(head(at(q, position), h)) / norm2(head(q, h)) - 1)).toBeLessThan(1e-14);
        }
        const logit = (i: number, j: number) => dot(head(at(q, i), h), head(at(k, j), h));
        // Angles of the half-split layout are rounded to float32, at position 60 by up to 2⁻²⁰.
        const tolerance = name === "interleaved" ? 1e-12 : 1e-5;
        for (const [i, j] of [[5, 2], [3, 40]]) {
          for (const by of [1, 20]) expect(Math.abs(logit(i + by, j + by) - logit(i, j))).toBeLessThan(tolerance);
          expect(Math.abs(logit(i + 1, j) - logit(i, j))).toBeGreaterThan(1e-3);
        }
      }
    });
  }
});

describe("D20 metrics", () => {
  test("D20 of an output that is exact all are 0, cosine and skill 1", async () => {
    const at = { Q: gaussian(201, 20, 6), K: gaussian(202, 20, 6), V: gaussian(203, 20, 4) };
    const exact = tile(await softmax(0.4, at));
    const uniform = tile(at.Q.map(() => at.V[0].map((_, c) => at.V.reduce((sum, v) => sum + v[c], 0) / 20)));
    const found = compareOutputs(exact, exact, uniform, 2, 20);
    const { mse, maxAbs, rowMedian, rowP95, rowMax, cosine, skill, relativeL2, uniformBaseline } = found;
    expect([mse, maxAbs, rowMedian, rowP95, rowMax, relativeL2.value]).toEqual([0, 0, 0, 0, 0, 0]);
    expect([cosine, skill]).toEqual([expect.closeTo(1, 14), 1]);
    expect(uniformBaseline).toBeGreaterThan(0.1);
    for (const head of found.perHead) expect([head.relativeL2, head.skill]).toEqual([0, 1]);
  });
});

test("D24 a state that is stored as float32 answers within 1e-5 of the one it was", async () => {
  const d = 6, dv = 3, L = 300;
  const at = { Q: gaussian(241, L, d), K: gaussian(242, L, d), V: gaussian(243, L, dv) };
  await using backend = await scalar.open({ named: true });
  for (const map of ["positive", "hyperbolic", "relu"]) {
    const p = parametersOf(map, { headDim: d, projections: 16, scale: d ** -0.5 });
    const { out, state } = await linear(p, at);
    const plan = { heads: 1, kvHeads: 1, headDim: d, valueDim: dv, causal: false, tileRows: L, parameters: p };
    await using session = await backend.prepare(plan);
    const rounded = (numbers: Float64Array) => numbers.map(Math.fround);
    await session.load({ ...state, c: rounded(state.c), z: rounded(state.z), S: rounded(state.S) });
    const found = rowsOf(await session.emit(tile(at.Q)));
    const error = Math.sqrt(norm2(found.flat().map((value, i) => value - out.flat()[i])) / norm2(out.flat()));
    expect(error).toBeLessThan(1e-5);
    expect(error).toBeGreaterThan(1e-9); // it was rounded
  }
});

describe("D25 google-research's numerics", () => {
  const d = 6, dv = 3, L = 40, m = 16, scale = d ** -0.5;
  const at = { Q: gaussian(251, L, d), K: gaussian(252, L, d), V: gaussian(253, L, dv) };
  const { weights } = drawFactored({
    kind: "orthogonal",
    projections: m,
    headDim: d,
    matrices: 1,
    norms: "chi",
    seed: 9,
    draw: 0,
  });
  const W = Array.from({ length: m }, (_, a) => Array.from(weights.subarray(a * d, a * d + d)));

  /** fast_attention.py: exp(w·x − ‖x‖²/2 − max) + ε, the maximum of w·x over features of a query, over everything of the keys. */
  function google(epsilon: number): number[][] {
    const scaled = (rows: number[][]) => rows.map((row) => row.map((value) => Math.sqrt(scale) * value));
    const project = (rows: number[][]) => rows.map((row) => W.map((w) => dot(w, row)));
    const [x, y] = [scaled(at.Q), scaled(at.K)];
    const [u, t] = [project(x), project(y)];
    const top = Math.max(...t.flat());
    const features = (u: number[], row: number[], most: number) =>
      u.map((value) => (Math.exp(value - norm2(row) / 2 - most) + epsilon) / Math.sqrt(m));
    const keys = t.map((row, j) => features(row, y[j], top));
    return denseAttention(
      u.map((row, i) => {
        const query = features(row, x[i], Math.max(...row));
        return keys.map((key) => dot(query, key));
      }),
      at.V,
    );
  }

  test("D25 with ε = 0 it is ours, and with its own ε it is the profile's", async () => {
    const p = parametersOf("positive", { headDim: d, scale, W });
    const ours = (await linear(p, at)).out;
    expect(distance(google(0), ours)).toBeLessThan(1e-10);

    await using backend = await scalar.open({ named: true });
    await using session = await prepareRuled(backend, {
      rules: "google",
      kernel: "softmax",
      activation: "relu",
      projection: weights,
      heads: 1,
      headDim: d,
      valueDim: dv,
      causal: false,
      tileRows: L,
    });
    if (session.surveys) await session.survey(tile(at.K));
    await session.absorb(tile(at.K), tile(at.V));
    const profile = rowsOf(await session.emit(tile(at.Q)));
    expect(distance(google(1e-6), profile)).toBeLessThan(1e-10);
    expect(distance(profile, ours)).toBeGreaterThan(1e-7); // ε is seen
    const mean = at.V[0].map((_, c) => at.V.reduce((sum, v) => sum + v[c], 0) / L);
    const uniform = at.Q.map(() => mean);
    expect(distance(google(1), uniform)).toBeLessThan(0.5 * distance(ours, uniform)); // and mixes in the mean of V
  });
});
