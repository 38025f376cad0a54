/** Laws of decay, the bias −λ (i − j), on every backend: linear and exact causal attention. */
import { expect, test } from "bun:test";
import { KERNEL_MAPS } from "../kernel_maps.ts";
import { describeBackends } from "./backends.ts";
import { dense, denseExact, expectNear } from "./dense.ts";
import { cuts, makeProblem, mapTile, planFor, type Problem, rowsOf, run, runExact } from "./harness.ts";

describeBackends("decay", (backend, slow) => {
  const { precision } = backend.limits;
  const near = async (problem: Problem, tileRows?: number) => {
    expectNear(await run(backend, problem, tileRows), dense(problem), precision);
  };
  const nearExact = async (problem: Problem, tileRows?: number, queryRows?: number) => {
    expectNear(await runExact(backend, problem, tileRows, queryRows), denseExact(problem), precision);
  };
  /** Over one chunk of 64 rows, and over one cut of the tile where λ is large. */
  const rows = slow ? 70 : 150;
  const base = { causal: true, keyRows: rows, headDim: 6, features: 22 };

  /** Where compiling takes seconds, one of each family. */
  const maps = slow ? ["hyperbolic", "trigonometric", "elu"] : KERNEL_MAPS.map((map) => map.name);

  test.each(maps)("%s equals the dense evaluation with the bias", async (map) => {
    await near(makeProblem({ ...base, map, decay: [0.5, 0.03] }));
  });

  test("λ = 0 is no decay", async () => {
    const problem = makeProblem({ ...base, decay: [0, 0] });
    const plain = { ...problem, decay: undefined };
    expectNear(await run(backend, problem), dense(plain), precision);
    expectNear(await runExact(backend, problem), denseExact(plain), precision);
    if (precision !== "f64") return;
    expect(await run(backend, problem)).toEqual(await run(backend, plain));
    expect(await runExact(backend, problem)).toEqual(await runExact(backend, plain));
  });

  test("it is another attention than none, and than that with the heads' λ exchanged", () => {
    const problem = makeProblem({ ...base, decay: [0.5, 0.03] });
    for (const decay of [undefined, Float64Array.of(0.03, 0.5)]) {
      expect(() => expectNear(dense({ ...problem, decay }).out, dense(problem), precision)).toThrow();
      expect(() => expectNear(denseExact({ ...problem, decay }).out, denseExact(problem), precision)).toThrow();
    }
  });

  test("tile cuts do not change the result, with weights and masked rows", async () => {
    const problem = makeProblem({ ...base, decay: [0.8, 0.01], weighted: true });
    for (const tileRows of slow ? [66] : [1, 7, 64, 100, 150]) {
      await near(problem, tileRows);
      await nearExact(problem, tileRows, 40);
    }
  });

  test("queries without rows of their own stand at the last row that was absorbed", async () => {
    const problem = makeProblem({ ...base, decay: [0.5, 0.03] });
    const last = rowsOf(problem.q, rows - 1, rows);
    const all = dense(problem);
    const [seen, judged] = [problem.heads * problem.valueDim, problem.heads];
    const expected = { ...all, out: all.out.subarray(-seen), condition: all.condition.subarray(-judged) };
    await using session = await backend.prepare(planFor(problem, rows));
    await session.absorb(problem.k, problem.v);
    expectNear((await session.emit(last)).data, expected, precision);
  });

  test("grouped queries: one λ per key head", async () => {
    const problem = makeProblem({ ...base, decay: [0.7, 0.1], heads: 4, kvHeads: 2, matrices: 2 });
    await near(problem, 64);
    await nearExact(problem, 64);
  });

  test("large λ in long tiles: no row loses its keys", async () => {
    // λ times the rows of the tile is far beyond what exponentials of float32 hold, so that most keys weigh 0 relative to the last row.
    const keyRows = slow ? 150 : 700;
    const problem = makeProblem({ ...base, keyRows, decay: [1, 30] });
    await near(problem);
    await nearExact(problem);
    await using session = await backend.prepare(planFor(problem, keyRows));
    await session.emit(problem.q, problem);
    // e^−46, the weight of the first row of a cut, is no underflow: float64 has nothing to repair.
    expect(session.counts).toEqual({ emptyRows: 0, nonPositive: 0, recomputed: 0 });
  });

  test("a gap of masked rows: what is seen before it is all there is after it", async () => {
    const problem = makeProblem({ ...base, decay: [1, 0.2] });
    const weights = Float32Array.from({ length: rows }, (_, j) => j < 5 ? 1 : 0);
    await near({ ...problem, weights }, 33);
    await nearExact({ ...problem, weights }, 33);
  });

  test("rows before the first key are empty and counted", async () => {
    const problem = makeProblem({ ...base, decay: [1, 0.2] });
    const weights = Float32Array.from({ length: rows }, (_, j) => j < 60 ? 0 : 1);
    await using session = await backend.prepare(planFor(problem, rows));
    const { data } = await session.emit(problem.q, { ...problem, weights });
    expectNear(data, dense({ ...problem, weights }), precision);
    expect(session.counts.emptyRows).toBe(60 * problem.heads);
  });

  test("keys without queries: a state decays by the rows that join it", async () => {
    const problem = makeProblem({ ...base, decay: [0.6, 0.05], weighted: true });
    const { q, k, v, weights, heads, valueDim } = problem;
    await using session = await backend.prepare(planFor(problem, rows));
    const from = rows - 10;
    for (const [start, end] of cuts(from, 55)) {
      await session.absorb(rowsOf(k, start, end), rowsOf(v, start, end), weights!.slice(start, end));
    }
    const own = { k: rowsOf(k, from, rows), v: rowsOf(v, from, rows), weights: weights!.slice(from) };
    const state = await session.save();
    session.reset();
    await session.load(state);
    const { data } = await session.emit(rowsOf(q, from, rows), own);
    const whole = dense(problem);
    const tail = {
      ...whole,
      out: whole.out.subarray(from * heads * valueDim),
      condition: whole.condition.subarray(from * heads),
    };
    expectNear(data, tail, precision);
  });

  test("one row at a time equals one tile: decoding", async () => {
    await near(makeProblem({ ...base, keyRows: slow ? 6 : 40, decay: [1, 0.01] }), 1);
  });

  test("a later row of any size is not seen before it", async () => {
    const problem = makeProblem({ ...base, decay: [0.9, 0.01] });
    const cut = 60; // inside a chunk
    const late = (tile: Problem["k"]) => mapTile(tile, (x, at) => at >= cut * tile.cols ? 20 * x : x);
    const changed = { ...problem, k: late(problem.k) };
    const seen = cut * problem.heads * problem.valueDim;
    const expected = dense(problem);
    const blind = {
      out: expected.out.subarray(0, seen),
      condition: expected.condition.subarray(0, cut * problem.heads),
    };
    const out = await run(backend, changed);
    expectNear(out.subarray(0, seen), { ...expected, ...blind, rounding: dense(changed).rounding }, precision);
  });

  test("inputs times 60 give finite outputs within the reach of V", async () => {
    const problem = makeProblem({ ...base, decay: [1, 0.02], spread: 60, keyRows: 70 });
    const reach = Math.max(...problem.v.data.map(Math.abs));
    const within = (out: Float64Array) => out.every((value) => Math.abs(value) <= 1.001 * reach);
    expect(within(await run(backend, problem))).toBeTrue();
    expect(within(await runExact(backend, problem))).toBeTrue();
  });

  test("exact normalisers: M is relative to the query's own row", async () => {
    const problem = makeProblem({ ...base, decay: [0.9, 0.2] });
    const { q, k, v, heads, headDim, kvHeads, scale, decay } = problem;
    await using session = await backend.prepareExact({ ...planFor(problem, rows), scale, queryRows: rows });
    await session.pose(q, Array.from({ length: rows }, (_, i) => i));
    await session.absorb(k, v);
    const { top, total } = await session.normalisers();
    const { rounding } = denseExact(problem);
    for (let cell = 0; cell < rows * heads; cell++) {
      const [i, h] = [Math.floor(cell / heads), cell % heads];
      const kv = Math.floor(h * kvHeads / heads);
      let sum = 0;
      for (let j = 0; j <= i; j++) {
        let dot = 0;
        for (let l = 0; l < headDim; l++) dot += q.data[cell * headDim + l] * k.data[(j * kvHeads + kv) * headDim + l];
        sum += Math.exp(scale * dot - decay![kv] * (i - j));
      }
      // ln Σ is as far off as Σ is relatively: rounding of exponents, as tests/tolerance.ts has it.
      const allowed = (2 * rounding.exponent + 2 * Math.sqrt(rows) + 16) * (precision === "f64" ? 2 ** -53 : 2 ** -24);
      expect(Math.abs(top[cell] + Math.log(total[cell]) - Math.log(sum))).toBeLessThan(
        allowed * (1 + Math.abs(Math.log(sum))),
      );
    }
  });

  test("plans that cannot be are refused", async () => {
    const plan = planFor(makeProblem({ ...base }), rows);
    const exact = { ...plan, scale: 1, queryRows: 4 };
    for (
      const wrong of [{ causal: false, decay: Float64Array.of(1, 1) }, { decay: Float64Array.of(1) }, {
        decay: Float64Array.of(1, -1),
      }]
    ) {
      await expect(backend.prepare({ ...plan, ...wrong })).rejects.toBeInstanceOf(RangeError);
      await expect(backend.prepareExact({ ...exact, ...wrong })).rejects.toBeInstanceOf(RangeError);
    }
  });
});
