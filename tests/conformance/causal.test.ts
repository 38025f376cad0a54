/** Laws of causal linear attention, on every backend. */
import { expect, test } from "bun:test";
import { KERNEL_MAPS } from "../kernel_maps.ts";
import { describeBackends } from "./backends.ts";
import { checkBiases } from "./biases.ts";
import { dense, expectNear } from "./dense.ts";
import { attend, makeProblem, mapTile, planFor, type Problem, rowsOf, run } from "./harness.ts";

describeBackends("causal attention", (backend, slow) => {
  const { precision } = backend.limits;
  const near = async (problem: Problem, tileRows?: number) => {
    expectNear(await run(backend, problem, tileRows), dense(problem), precision);
  };
  /** Over one chunk of 64 rows, so that prefixes matter. */
  const rows = slow ? 70 : 150;

  test.each(KERNEL_MAPS.map((map) => map.name))("%s equals the dense evaluation", async (map) => {
    await near(makeProblem({ map, causal: true, keyRows: rows, headDim: 6, features: 22, heads: slow ? 1 : 2 }));
  });

  test.each(["positive", "hyperbolic"])("%s: exponents of each projection, other ones per matrix", async (map) => {
    await checkBiases({ map, causal: true, keyRows: rows }, near, slow ? 66 : 100, precision);
  });

  test("tile cuts do not change the result, with weights", async () => {
    const problem = makeProblem({ causal: true, keyRows: rows, weighted: true });
    for (const tileRows of slow ? [66] : [1, 7, 64, 100, 150]) await near(problem, tileRows);
  });

  test("row 0 is the first value", async () => {
    const problem = makeProblem({ causal: true, keyRows: 9 });
    const out = await run(backend, problem);
    const first = dense({ ...problem, q: rowsOf(problem.q, 0, 1) });
    expectNear(first.out, { ...first, out: Float64Array.from(problem.v.data.subarray(0, 6)) }, precision);
    expectNear(out.subarray(0, 6), first, precision);
  });

  test("a row is blind to later rows, however large", async () => {
    const problem = makeProblem({ causal: true, keyRows: 80 });
    const cut = 70; // inside a chunk
    const later = (tile: Problem["k"], factor: number) =>
      mapTile(tile, (x, at) => at >= cut * tile.cols ? factor * x : x);
    const expected = dense(problem);
    const seen = cut * problem.heads * problem.valueDim;
    for (const factor of [-1, 40]) {
      const changed = { ...problem, k: later(problem.k, factor), v: later(problem.v, 1000 * factor) };
      const out = await run(backend, changed);
      const blind = {
        ...expected,
        out: expected.out.subarray(0, seen),
        condition: expected.condition.subarray(0, cut * 2),
      };
      // the reach of V must not hide a leak: it is that of the rows in sight
      const rounding = {
        ...expected.rounding,
        exponent: Math.max(expected.rounding.exponent, dense(changed).rounding.exponent),
      };
      expectNear(out.subarray(0, seen), { ...blind, rounding }, precision);
      if (precision === "f64") expect(out.subarray(0, seen)).toEqual((await run(backend, problem)).subarray(0, seen));
    }
  });

  test("queries without rows of their own see all that was absorbed, between others that have some", async () => {
    const problem = makeProblem({ causal: true, keyRows: 24 });
    await using session = await backend.prepare(planFor(problem, 24));
    const { q, k, v } = problem;
    const all = dense({ ...problem, causal: false });
    const some = (from: number, to: number) => [rowsOf(k, from, to), rowsOf(v, from, to)] as const;
    await session.absorb(...some(0, 10));
    const seen = dense({ ...problem, causal: false, k: rowsOf(k, 0, 10), v: rowsOf(v, 0, 10) });
    expectNear((await session.emit(q)).data, seen, precision);
    const [ownK, ownV] = some(10, 24);
    await session.emit(rowsOf(q, 10, 24), { k: ownK, v: ownV });
    await session.absorb(ownK, ownV);
    expectNear((await session.emit(q)).data, all, precision);
  });

  test("rows without a visible key are zero and counted, and the rest is unharmed", async () => {
    const problem = makeProblem({ causal: true, keyRows: 20 });
    const weights = Float32Array.from({ length: 20 }, (_, j) => j < 3 ? 0 : 1);
    await using session = await backend.prepare(planFor(problem, 20));
    expectNear(await attend(session, { ...problem, weights }, 20), dense({ ...problem, weights }), precision);
    expect(session.counts.emptyRows).toBe(3 * problem.heads);
  });

  test("whole tiles without a visible key: every row of them is counted", async () => {
    const problem = makeProblem({ causal: true, keyRows: 20 });
    const weights = Float32Array.from({ length: 20 }, (_, j) => j < 12 ? 0 : 1);
    await using session = await backend.prepare(planFor(problem, 5));
    expectNear(await attend(session, { ...problem, weights }, 5), dense({ ...problem, weights }), precision);
    expect(session.counts.emptyRows).toBe(12 * problem.heads);
  });

  test("grouped queries, one matrix per key head", async () => {
    await near(makeProblem({ causal: true, heads: 4, kvHeads: 2, matrices: 2, keyRows: 30 }), 16);
  });

  test("one row at a time equals one tile: decoding", async () => {
    await near(makeProblem({ causal: true, keyRows: slow ? 6 : 40, map: "positive", features: 9 }), 1);
  });

  test("goes on from a loaded state", async () => {
    const problem = makeProblem({ causal: true, keyRows: 40 });
    const { q, k, v } = problem;
    await using session = await backend.prepare(planFor(problem, 40));
    await session.absorb(rowsOf(k, 0, 25), rowsOf(v, 0, 25));
    const state = await session.save();
    session.reset();
    await session.load(state);
    const own = { k: rowsOf(k, 25, 40), v: rowsOf(v, 25, 40) };
    const out = await session.emit(rowsOf(q, 25, 40), own);
    const whole = dense(problem);
    const tail = { ...whole, out: whole.out.subarray(25 * 6), condition: whole.condition.subarray(25 * 2) };
    expectNear(out.data, tail, precision);
  });

  test("inputs times 60 give finite outputs within the reach of V", async () => {
    const problem = makeProblem({ causal: true, spread: 60, keyRows: 70 });
    const out = await run(backend, problem);
    const reach = Math.max(...problem.v.data.map(Math.abs));
    expect(out.every((value) => Math.abs(value) <= 1.001 * reach)).toBeTrue();
  });

  test("several tiles in flight", async () => {
    const problem = makeProblem({ causal: true, keyRows: 48 });
    const { q, k, v, heads, valueDim } = problem;
    await using session = await backend.prepare(planFor(problem, 16));
    const out = new Float64Array(48 * heads * valueDim);
    const calls: Promise<void>[] = [];
    for (const from of [0, 16, 32]) {
      const own = { k: rowsOf(k, from, from + 16), v: rowsOf(v, from, from + 16) };
      const answer = session.emit(rowsOf(q, from, from + 16), own);
      calls.push(answer.then((tile) => out.set(tile.data, from * heads * valueDim)), session.absorb(own.k, own.v));
    }
    await Promise.all(calls);
    expectNear(out, dense(problem), precision);
  });
});
