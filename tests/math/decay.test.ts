/** Decay in states: slopes, falling exponents, and merging in order. */
import { describe, expect, test } from "bun:test";
import { scalar } from "../../src/backends/scalar.ts";
import { FEATURE_MAPS } from "../../src/feature_map.ts";
import type { Tile } from "../../src/tensor.ts";
import { alibiSlopes, decayRows } from "../../src/decay.ts";
import { copyState, mergeInto, mergeLater, type State } from "../../src/state.ts";
import { makeProblem, planFor, rowsOf } from "../conformance/harness.ts";

/** Float64 sums of some dozen terms, each rounded a few times; exponents of magnitude 30 make 30 u of each. */
const CLOSE = 1e-13;

describe("slopes of ALiBi", () => {
  test("powers of two: a geometric series from 2^(−8/H) to 2^−8", () => {
    expect(alibiSlopes(1)).toEqual([2 ** -8]);
    expect(alibiSlopes(8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((n) => 2 ** -n));
    const sixteen = alibiSlopes(16);
    expect(sixteen[0]).toBeCloseTo(Math.SQRT1_2, 15);
    expect(sixteen[15]).toBe(2 ** -8);
  });

  test("other numbers of heads: the lower power of two, then every other slope of twice that", () => {
    const halves = [0, 1, 2, 3].map((n) => Math.SQRT1_2 * 2 ** -n); // to the bit, on every runtime
    expect(alibiSlopes(12)).toEqual([...alibiSlopes(8), ...halves]);
    expect(alibiSlopes(3)).toEqual([2 ** -4, 2 ** -8, 2 ** -2]);
  });
});

test("rows of a tile: λ times them is at most 46, and they are whole chunks where that many fit", () => {
  expect(decayRows(Float64Array.of(1, 0.5), 2048)).toBe(46);
  expect(decayRows(Float64Array.of(Math.SQRT1_2), 2048)).toBe(64);
  expect(decayRows(Float64Array.of(2 ** -8), 2048)).toBe(2048);
  expect(decayRows(Float64Array.of(2 ** -4), 2048)).toBe(704);
  expect(decayRows(Float64Array.of(0, 0), 300)).toBe(300);
  expect(decayRows(Float64Array.of(1000), 300)).toBe(1);
});

test.each(FEATURE_MAPS.filter((map) => !map.angular).map((map) => map.name))(
  "%s: the last row sees what weights e^{−λ (i − j)} make of the keys",
  async (map) => {
    // Maps that only `scalar` computes (hybrid) are among these.
    const problem = makeProblem({ map, causal: true, keyRows: 40, features: 24, headDim: 6, decay: [0.3, 0.3] });
    const weights = Float64Array.from({ length: 40 }, (_, j) => Math.exp(-0.3 * (39 - j)));
    const backend = await scalar.open({ named: true });
    await using decayed = await backend.prepare(planFor(problem, 40));
    await using weighted = await backend.prepare(planFor({ ...problem, decay: undefined }, 40));
    const cols = problem.heads * problem.valueDim;
    const last = ({ data }: Tile) => [...data.subarray(39 * cols)];
    const [one, other] = [
      last(await decayed.emit(problem.q, problem)),
      last(await weighted.emit(problem.q, { ...problem, weights })),
    ];
    // Signed maps divide by sums that cancel: rounding is magnified by Σ|terms| / |Σ terms|, here below 1000.
    const reach = Math.max(...one.map(Math.abs));
    one.forEach((value, at) => expect(Math.abs(value - other[at])).toBeLessThan(1000 * CLOSE * (1 + reach)));
  },
);

describe("merging in order", () => {
  const problem = makeProblem({ causal: true, keyRows: 60, weighted: true, decay: [0.7, 0.01] });
  const decay = problem.decay!;
  const stateOf = async (from: number, to: number): Promise<State> => {
    const { k, v, weights } = problem;
    const backend = await scalar.open({ named: true });
    await using session = await backend.prepare(planFor(problem, 60));
    await session.absorb(rowsOf(k, from, to), rowsOf(v, from, to), weights!.slice(from, to));
    return await session.save();
  };
  const merged = (a: State, b: State, rows: number) => {
    const into = copyState(a);
    mergeLater(into, b, decay, rows);
    return into;
  };
  /** Largest distance of e^c z and e^c S, relative to what they are. */
  const apart = (a: State, b: State) => {
    let most = Math.abs(a.keys - b.keys);
    for (let f = 0; f < a.c.length; f++) {
      const shift = Math.exp(a.c[f] - b.c[f]);
      most = Math.max(most, Math.abs(a.z[f] * shift / b.z[f] - 1));
      const reach = b.z[f] * Math.max(...problem.v.data.map(Math.abs));
      for (let i = f * a.valueDim; i < (f + 1) * a.valueDim; i++) {
        most = Math.max(most, Math.abs(a.S[i] * shift - b.S[i]) / reach);
      }
    }
    return most;
  };

  test("shards merge to the state of one pass, whichever way they are bracketed", async () => {
    const [a, b, c] = await Promise.all([stateOf(0, 17), stateOf(17, 40), stateOf(40, 60)]);
    const whole = await stateOf(0, 60);
    const left = merged(merged(a, b, 23), c, 20);
    const right = merged(a, merged(b, c, 20), 43);
    expect(apart(left, whole)).toBeLessThan(CLOSE);
    expect(apart(right, whole)).toBeLessThan(CLOSE);
    // Order and lengths count.
    expect(apart(merged(b, a, 17), merged(a, b, 23))).toBeGreaterThan(1e-3);
    expect(apart(merged(a, b, 22), merged(a, b, 23))).toBeGreaterThan(1e-3);
  });

  test("without decay it is the merge of unordered states", async () => {
    const [a, b] = await Promise.all([stateOf(0, 17), stateOf(17, 40)]);
    const [later, plain] = [copyState(a), copyState(a)];
    mergeLater(later, b, null, 23);
    mergeInto(plain, b);
    expect(later).toEqual(plain);
  });
});
