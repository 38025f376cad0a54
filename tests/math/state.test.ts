/** The state (c, z, S): what it stands for, merging, weights, and rows that see nothing. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { emitQueries } from "../../kernels/scalar/queries.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { clearState, copyState, emptyState, mergeInto, type State } from "../../src/state.ts";
import {
  ALL_MAPS,
  distance,
  gaussian,
  linear,
  parametersOf,
  type Problem,
  projectionRows,
  rowsOf,
  softmax,
  tile,
} from "./harness.ts";
import { phi } from "./oracles.ts";

const L = 24, D = 4, DV = 3, HEADS = 2;
const WEIGHTS = Array.from({ length: L }, (_, j) => [1, 0.5, 0, 2, 1e-3][j % 5]);

const problem = (seed: number): Problem => ({
  Q: gaussian(seed, L, HEADS * D),
  K: gaussian(seed + 1, L, HEADS * D),
  V: gaussian(seed + 2, L, HEADS * DV),
});
const bound = (name: string) =>
  parametersOf(name, { headDim: D, projections: 6, matrices: HEADS, scale: 0.5, seed: 3 });
const run = (name: string, at: Problem, causal = false) => linear(bound(name), at, { heads: HEADS, causal });

const subset = ({ Q, K, V, weights }: Problem, keys: number[]): Problem => ({
  Q,
  K: keys.map((j) => K[j]),
  V: keys.map((j) => V[j]),
  weights: weights && keys.map((j) => weights[j]),
});
const stateOf = async (name: string, at: Problem, keys: number[]): Promise<State> =>
  keys.length ? (await run(name, subset(at, keys))).state : emptyState(HEADS, bound(name).features, DV);
const merged = (...states: State[]): State => {
  const into = copyState(states[0]);
  for (const state of states.slice(1)) mergeInto(into, state);
  return into;
};
/** Outputs of Q over a state. */
function answers(name: string, at: Problem, state: State): number[][] {
  const shape = { heads: HEADS, kvHeads: HEADS, headDim: D, valueDim: DV };
  const data = new Float64Array(L * HEADS * DV);
  emitQueries(bound(name), shape, state, tile(at.Q), data, { emptyRows: 0, nonPositive: 0 });
  return rowsOf({ start: 0, rows: L, cols: HEADS * DV, data });
}
const bits = ({ c, z, S, keys }: State) => ({ c: [...c], z: [...z], S: [...S], keys });
const apart = (a: State, b: State) => Math.max(distance([a.z], [b.z]), distance([a.S], [b.S]));

test.each(ALL_MAPS)("D13 %s: e^c z = Σ ω φ(k) and e^c S = Σ ω φ(k) vᵀ, per head", async (name) => {
  const p = bound(name);
  const at = { ...problem(300), weights: WEIGHTS };
  const { state } = await run(name, at);
  for (let h = 0; h < HEADS; h++) {
    const W = projectionRows(p, h);
    const z = new Array<number>(p.features).fill(0);
    const S = z.map(() => new Array<number>(DV).fill(0));
    for (let j = 0; j < L; j++) {
      const x = at.K[j].slice(h * D, (h + 1) * D).map((value) => value * p.inputScale);
      // The exp family absorbs 1/√m in its bias; a map without projection has no such factor.
      const gain = p.map.projection === "none" ? Math.sqrt(D) : 1;
      phi(p.map, W, x, p.epsilon).forEach((value, a) => {
        z[a] += WEIGHTS[j] * value * gain;
        for (let c = 0; c < DV; c++) S[a][c] += WEIGHTS[j] * value * gain * at.V[j][h * DV + c];
      });
    }
    const first = h * p.features;
    const scale = (f: number, value: number) => Math.exp(state.c[first + f]) * value;
    expect(distance([z.map((_, a) => scale(a, state.z[first + a]))], [z])).toBeLessThan(1e-12);
    const actual = S.map((row, a) => row.map((_, c) => scale(a, state.S[(first + a) * DV + c])));
    expect(distance(actual, S)).toBeLessThan(1e-12);
  }
  expect(state.keys).toBe(WEIGHTS.filter((w) => w > 0).length);
});

describe("D12 merging", () => {
  const at = { ...problem(1200), weights: WEIGHTS };
  const all = Array.from({ length: L }, (_, j) => j);

  test.each(ALL_MAPS)("D12 %s: commutative bitwise, identity bitwise, associative", async (name) => {
    const [a, b, c] = await Promise.all(
      [all.slice(0, 5), all.slice(5, 17), all.slice(17)].map((keys) => stateOf(name, at, keys)),
    );
    expect(bits(merged(a, b))).toEqual(bits(merged(b, a)));
    const nothing = emptyState(HEADS, bound(name).features, DV);
    expect(bits(merged(a, nothing))).toEqual(bits(a));
    expect(bits(merged(nothing, a))).toEqual(bits(a));
    expect(bits(merged(nothing, nothing))).toEqual(bits(nothing));
    const left = merged(merged(a, b), c), right = merged(a, merged(b, c));
    expect([...left.c]).toEqual([...right.c]);
    expect(apart(left, right)).toBeLessThan(1e-14);
    expect(apart(left, await stateOf(name, at, all))).toBeLessThan(1e-14);
  });

  test("D12 any assignment of keys to shards and any merge order is the single pass", async () => {
    // Keys a thousand e-folds apart, so that rescaling goes both ways and shards vanish beside others.
    const wide = { ...at, K: at.K.map((k, j) => k.map((value) => value * (j % 3 === 0 ? 20 : 1))) };
    const whole = await stateOf("hyperbolic", wide, all);
    const assignment = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: L, maxLength: L });
    const order = fc.shuffledSubarray([0, 1, 2, 3, 4], { minLength: 5 });
    await fc.assert(
      fc.asyncProperty(assignment, order, async (shardOf, order) => {
        const shards = order.map((shard) => stateOf("hyperbolic", wide, all.filter((j) => shardOf[j] === shard)));
        const state = merged(...await Promise.all(shards));
        expect([...state.c]).toEqual([...whole.c]);
        expect(state.keys).toBe(whole.keys);
        expect(apart(state, whole)).toBeLessThan(1e-12);
        expect(distance(answers("hyperbolic", wide, state), answers("hyperbolic", wide, whole))).toBeLessThan(1e-12);
      }),
      { seed: 12, numRuns: 40 },
    );
  });

  test("D12 a saved state resumes: save, load elsewhere, go on", async () => {
    for (const causal of [false, true]) {
      const plan = {
        heads: HEADS,
        kvHeads: HEADS,
        headDim: D,
        valueDim: DV,
        causal,
        tileRows: L,
        parameters: bound("positive"),
      };
      const half = (rows: number[][], second: boolean) => second ? tile(rows.slice(11), 11) : tile(rows.slice(0, 11));
      const [first, second] = [false, true].map((which) => ({
        q: half(at.Q, which),
        k: half(at.K, which),
        v: half(at.V, which),
      }));
      await using backend = await scalar.open({ named: true });
      await using one = await backend.prepare(plan);
      await one.absorb(first.k, first.v);
      const saved = await one.save();
      const kept = bits(saved);
      await using two = await backend.prepare(plan);
      await two.absorb(second.k, second.v); // load forgets this
      await two.load(saved);
      const own = causal ? second : undefined;
      expect(await two.emit(second.q, own)).toEqual(await one.emit(second.q, own));
      await one.absorb(second.k, second.v);
      expect(bits(saved)).toEqual(kept); // save copied
    }
  });

  test("D12 a causal emit only asks: the state stays, and what is absorbed next is what is given", async () => {
    const plan = {
      heads: HEADS,
      kvHeads: HEADS,
      headDim: D,
      valueDim: DV,
      causal: true,
      tileRows: L,
      parameters: bound("positive"),
    };
    const part = (from: number, to: number) => ({
      q: tile(at.Q.slice(from, to), from),
      k: tile(at.K.slice(from, to), from),
      v: tile(at.V.slice(from, to), from),
    });
    await using backend = await scalar.open({ named: true });
    await using session = await backend.prepare(plan);
    await using plain = await backend.prepare(plan);
    const [first, second] = [part(0, 9), part(9, 20)];
    for (const each of [session, plain]) await each.absorb(first.k, first.v);
    const before = bits(await session.save());
    const answer = await session.emit(second.q, second);
    expect(bits(await session.save())).toEqual(before);
    expect(await session.emit(second.q, second)).toEqual(answer);
    const other = part(20, L); // not the rows that were asked about
    for (const each of [session, plain]) await each.absorb(other.k, other.v);
    expect(bits(await session.save())).toEqual(bits(await plain.save()));
  });

  test("D12 states of different shapes are refused", () => {
    expect(() => mergeInto(emptyState(2, 6, 3), emptyState(2, 12, 3))).toThrow(RangeError);
    expect(() => mergeInto(emptyState(2, 6, 3), emptyState(1, 6, 3))).toThrow(/1 × 6 × 3, expected 2 × 6 × 3/);
    expect(() => mergeInto(emptyState(2, 6, 3), emptyState(2, 6, 4))).toThrow(RangeError);
  });

  test("D12 clearing gives the identity back", async () => {
    const state = await stateOf("hyperbolic", at, all);
    clearState(state);
    expect(bits(state)).toEqual(bits(emptyState(HEADS, bound("hyperbolic").features, DV)));
  });
});

describe("D13 weights", () => {
  const at = problem(1300);
  const signed = 1e-9; // denominators near 0 amplify rounding

  test.each([...ALL_MAPS, "softmax"])(
    "D13 %s: 0 removes a key, 2 doubles it, a common factor cancels",
    async (name) => {
      for (const causal of [false, true]) {
        const out = async (problem: Problem) =>
          name === "softmax"
            ? await softmax(0.5, problem, { heads: HEADS, causal })
            : (await run(name, problem, causal)).out;
        const weights: number[] = WEIGHTS.map((_, j) => j % 3 === 1 ? 2 : 1);
        weights[9] = 0;
        const weighted = await out({ ...at, weights });
        const scaled = await out({ ...at, weights: weights.map((w) => 7e5 * w) });
        expect(distance(scaled, weighted)).toBeLessThan(signed);
        if (causal) continue; // duplicating a row moves positions
        const keys = weights.flatMap((w, j) => new Array<number>(w).fill(j));
        expect(distance(weighted, await out(subset(at, keys)))).toBeLessThan(signed);
        expect(distance(weighted, await out(at))).toBeGreaterThan(1e-3); // the weights matter
      }
    },
  );

  test("D13 an infinite or NaN row of weight 0 leaves no trace", async () => {
    const spoilt = {
      ...at,
      K: at.K.map((k, j) => j === 4 ? k.map(() => NaN) : k),
      V: at.V.map((v, j) => j === 4 ? v.map(() => Infinity) : v),
    };
    const weights = at.K.map((_, j) => j === 4 ? 0 : 1);
    for (const causal of [false, true]) {
      const clean = await run("hyperbolic", { ...at, weights }, causal);
      expect((await run("hyperbolic", { ...spoilt, weights }, causal)).out).toEqual(clean.out);
      const exact = await softmax(0.5, { ...at, weights }, { heads: HEADS, causal });
      expect(await softmax(0.5, { ...spoilt, weights }, { heads: HEADS, causal })).toEqual(exact);
    }
  });

  test.each(ALL_MAPS)("D13 %s: rows that see no key are 0 and counted", async (name) => {
    const none = await run(name, { ...at, weights: at.K.map(() => 0) });
    expect(none.out.flat().every((value) => value === 0)).toBe(true);
    expect(none.counts.emptyRows).toBe(L * HEADS);
    const late = await run(name, { ...at, weights: at.K.map((_, j) => j < 5 ? 0 : 1) }, true);
    expect(late.out.slice(0, 5).flat().every((value) => value === 0)).toBe(true);
    expect(late.counts.emptyRows).toBe(5 * HEADS);
    expect(distance([late.out[5]], [at.V[5]])).toBeLessThan(1e-12);
  });
});

describe("D8 constants that cancel", () => {
  const at = problem(800);

  test.each(["positive", "hyperbolic"])("D8 %s: one constant on all log-features of queries and keys", async (name) => {
    const p = bound(name);
    const { out, state } = await run(name, at);
    for (const shift of [-700, -3, 250]) {
      const moved = await linear({ ...p, bias: p.bias.map((bias) => bias + shift) }, at, { heads: HEADS });
      expect(distance(moved.out, out)).toBeLessThan(1e-12);
    }
    const shifted = copyState(state);
    for (let f = 0; f < shifted.c.length; f++) shifted.c[f] += 1e4; // far beyond exp: only differences may enter
    expect(distance(answers(name, at, shifted), out)).toBeLessThan(1e-10);
    for (let f = 0; f < shifted.c.length; f += 2) shifted.c[f] += 1;
    expect(distance(answers(name, at, shifted), out)).toBeGreaterThan(1e-3); // not a common constant: it must show
  });

  test("D8 there is no ε: shrinking every feature by e^−300 keeps all digits of a row's weights", async () => {
    const p = bound("positive");
    const tiny = { ...at, weights: at.K.map(() => 1e-130) };
    expect(
      distance(
        (await linear({ ...p, bias: new Float64Array(p.bias.length).fill(-300) }, tiny, { heads: HEADS })).out,
        (await linear(p, at, { heads: HEADS })).out,
      ),
    )
      .toBeLessThan(1e-12);
  });
});
