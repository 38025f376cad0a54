/** Float32 sums must not drift with the number of rows: the state is merged in float64 after every tile. */
import { expect, test } from "bun:test";
import { emptyState, mergeInto, type State } from "../../src/state.ts";
import type { Tile } from "../../src/tensor.ts";
import { tolerance } from "../tolerance.ts";
import { describeBackends } from "./backends.ts";
import { dense } from "./dense.ts";
import { makeProblem, planFor } from "./harness.ts";

const WEIGHT = 1 + 2 ** -10; // sums of it are not exact in float32 for long

describeBackends("drift", (backend, slow) => {
  test("a million rows are as near to float64 as a thousand", async () => {
    const tileRows = slow ? 64 : 1000;
    const tiles = slow ? 30 : 1000;
    const problem = makeProblem({ keyRows: tileRows, queryRows: 4, heads: 1, headDim: 2, valueDim: 1, features: 4 });
    const v: Tile = { ...problem.v, data: problem.v.data.map((value) => WEIGHT + Math.abs(value)) };
    await using session = await backend.prepare(planFor(problem, tileRows));
    await session.absorb(problem.k, v);
    const one = await session.save();
    for (let tile = 1; tile < tiles; tile++) await session.absorb(problem.k, v);
    const many = await session.save();
    expect(many.keys).toBe(tiles * tileRows);
    // Every tile is the same, so all of them are `tiles` times one, but for the roundings of the running sum.
    const expected = times(one, tiles);
    const drift = (a: Float64Array, b: Float64Array) => Math.max(...a.map((x, at) => Math.abs(x / b[at] - 1)));
    const sums = { precision: "f64", exponent: 0, terms: tiles } as const;
    expect(many.c).toEqual(expected.c);
    expect(drift(many.z, expected.z)).toBeLessThan(tiles * tolerance(sums));
    expect(drift(many.S, expected.S)).toBeLessThan(tiles * tolerance(sums));
    // And outputs are within the rounding of one tile, and of a float64 sum of all.
    const reference = dense({ ...problem, v });
    const out = await session.emit(problem.q);
    const allowed = tolerance({ ...reference.rounding, precision: backend.limits.precision }) +
      tolerance({ ...reference.rounding, precision: "f64", terms: many.keys });
    expect(drift(Float64Array.from(out.data), reference.out)).toBeLessThan(2 * allowed * reference.reach);
  }, 60_000);
});

/** The state of the same keys `n` times. */
function times(state: State, n: number): State {
  const into = emptyState(state.heads, state.features, state.valueDim);
  mergeInto(into, state);
  return { ...into, z: into.z.map((x) => n * x), S: into.S.map((x) => n * x) };
}
