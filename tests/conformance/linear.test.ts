/** Laws of bidirectional linear attention, on every backend. */
import { expect, test } from "bun:test";
import { KeyPass } from "../../kernels/scalar/keys.ts";
import { KERNEL_MAPS } from "../kernel_maps.ts";
import { emptyState, mergeInto, type State } from "../../src/state.ts";
import { tolerance } from "../tolerance.ts";
import { describeBackends } from "./backends.ts";
import { checkBiases } from "./biases.ts";
import { dense, expectNear } from "./dense.ts";
import { attend, makeProblem, mapTile, planFor, type Problem, reorder, rowsOf, run, shuffled } from "./harness.ts";

describeBackends("linear attention", (backend, slow) => {
  const { precision } = backend.limits;
  const near = async (problem: Problem, tileRows?: number) => {
    expectNear(await run(backend, problem, tileRows), dense(problem), precision);
  };

  test.each(KERNEL_MAPS.map((map) => map.name))("%s equals the dense evaluation", async (map) => {
    await near(makeProblem({ map, keyRows: slow ? 19 : 70, headDim: 6, features: 22, weighted: true }));
  });

  test("Hadamard projections, by fast transforms or not, equal their dense W", async () => {
    const sizes = { projection: "hadamard", heads: 2, matrices: 2, keyRows: slow ? 20 : 90 };
    const widths = slow ? [5] : [1, 5, 16, 33, 64, 70];
    for (const headDim of widths) {
      for (const causal of [false, true]) {
        for (const features of [14, 2 * headDim + 10]) await near(makeProblem({ ...sizes, headDim, causal, features }));
      }
    }
  });

  test.each(["positive", "hyperbolic"])("%s: exponents of each projection, other ones per matrix", async (map) => {
    await checkBiases({ map, keyRows: slow ? 19 : 130 }, near, slow ? 19 : 70, precision);
  });

  test("exponents far apart: a state is saved, merged and loaded under its own", async () => {
    const problem = makeProblem({ beta: 12, matrices: 2, keyRows: 40 });
    const { k, v, q, kvHeads, valueDim, parameters } = problem;
    await using session = await backend.prepare(planFor(problem, 40));
    const whole = emptyState(kvHeads, parameters.features, valueDim);
    for (const [from, to] of [[0, 17], [17, 40]]) {
      session.reset();
      await session.absorb(rowsOf(k, from, to), rowsOf(v, from, to));
      mergeInto(whole, await session.save());
    }
    session.reset();
    await session.load(whole);
    const expected = dense(problem);
    expectNear((await session.emit(q)).data, expected, precision);
    // The state is the same on every backend: Σ_j φ_a(k_j) = e^c z, with the key's β and without the query's.
    const scalar = new KeyPass(parameters, problem, emptyState(kvHeads, parameters.features, valueDim), 40);
    scalar.absorb(k, v, undefined, 0, 40);
    const saved = await session.save();
    const most = tolerance({ precision, exponent: expected.rounding.exponent, terms: 40 });
    for (let f = 0; f < saved.c.length; f++) {
      const log = saved.c[f] + Math.log(saved.z[f]);
      expect(Math.abs(log - scalar.state.c[f] - Math.log(scalar.state.z[f]))).toBeLessThan(most);
    }
  });

  test("a row whose features all but vanish is still an average of values", async () => {
    const problem = makeProblem({ map: "elu", heads: 1, keyRows: 20, headDim: 4 });
    const out = await run(backend, { ...problem, q: mapTile(problem.q, () => -100) }); // e^−100 is below float32
    const { k, v, valueDim } = problem;
    const elu = (x: number) => x > 0 ? x + 1 : Math.exp(x);
    const weights = Array.from(
      { length: 20 },
      (_, j) => [0, 1, 2, 3].reduce((sum, l) => sum + elu(k.data[4 * j + l]), 0),
    );
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const allowed = tolerance({ precision, exponent: 100, terms: 20 }) * Math.max(...v.data.map(Math.abs));
    for (let c = 0; c < valueDim; c++) {
      const expected = weights.reduce((sum, weight, j) => sum + weight * v.data[valueDim * j + c], 0) / total;
      for (let i = 0; i < 20; i++) expect(Math.abs(out[valueDim * i + c] - expected)).toBeLessThan(allowed);
    }
  });

  test("outputs go where they are wanted, and tiles and outputs in the backend's own memory do as well", async () => {
    const problem = makeProblem({ keyRows: 30, queryRows: 30 });
    const { q, k, v, heads, valueDim } = problem;
    const length = 30 * heads * valueDim;
    const make = (n: number) => precision === "f64" ? new Float64Array(n) : new Float32Array(n);
    const expected = dense(problem);
    const lend = (n: number) => backend.allocate?.(n) ?? make(n);
    const lent = { q: lend(q.data.length), k: lend(k.data.length), v: lend(v.data.length), out: lend(length) };
    await using session = await backend.prepare(planFor(problem, 30));
    for (const role of ["q", "k", "v"] as const) lent[role].set(problem[role].data);
    await session.absorb({ ...k, data: lent.k }, { ...v, data: lent.v });
    for (const [from, into] of [[lent.q, lent.out], [q.data, make(length + 7)], [lent.q, make(length)]] as const) {
      const out = await session.emit({ ...q, data: from }, null, into);
      expect(out.data.buffer).toBe(into.buffer);
      expect(out.data.length).toBe(length);
      expectNear(out.data, expected, precision);
    }
    if (backend.allocate) { for (const array of Object.values(lent)) backend.release!(array); }
  });

  test("tile cuts do not change the result", async () => {
    const problem = makeProblem({ keyRows: slow ? 21 : 150, weighted: true });
    for (const tileRows of slow ? [4, 21] : [1, 7, 64, 149, 150]) await near(problem, tileRows);
  });

  test("shards merge in any order and grouping through save, mergeInto and load", async () => {
    const problem = makeProblem({ keyRows: 40, weighted: true });
    const { k, v, q, weights, kvHeads, parameters, valueDim } = problem;
    await using session = await backend.prepare(planFor(problem, 40));
    const shards: State[] = [];
    for (const [from, to] of [[0, 5], [5, 6], [6, 30], [30, 40]]) {
      session.reset();
      await session.absorb(rowsOf(k, from, to), rowsOf(v, from, to), weights?.slice(from, to));
      shards.push(await session.save());
    }
    const merge = (...states: State[]) => {
      const into = emptyState(kvHeads, parameters.features, valueDim);
      for (const state of states) mergeInto(into, state);
      return into;
    };
    const [a, b, c, d] = shards;
    for (const merged of [merge(a, b, c, d), merge(d, b, a, c), merge(merge(c, a), merge(b, d))]) {
      session.reset();
      await session.load(merged);
      expectNear((await session.emit(q)).data, dense(problem), precision);
      expect((await session.save()).keys).toBe(weights!.filter((weight) => weight > 0).length);
    }
  });

  test("a loaded state goes on absorbing, and save is independent of what follows", async () => {
    const problem = makeProblem({ keyRows: 24 });
    const { k, v, q } = problem;
    await using session = await backend.prepare(planFor(problem, 24));
    await session.absorb(rowsOf(k, 0, 10), rowsOf(v, 0, 10));
    const saved = await session.save();
    const before = saved.z.slice();
    await session.absorb(rowsOf(k, 10, 24), rowsOf(v, 10, 24));
    expect(saved.z).toEqual(before);
    await session.load(saved);
    await session.absorb(rowsOf(k, 10, 24), rowsOf(v, 10, 24));
    expectNear((await session.emit(q)).data, dense(problem), precision);
  });

  test("permuting (key, value) pairs leaves the output; permuting queries permutes it", async () => {
    const problem = makeProblem({ keyRows: 33, queryRows: 20 });
    const pairs = shuffled(33);
    await using session = await backend.prepare(planFor(problem, 33));
    const keys = { ...problem, k: reorder(problem.k, pairs), v: reorder(problem.v, pairs) };
    expectNear(await attend(session, keys, 33), dense(problem), precision);
    const queries = shuffled(20);
    const out = await session.emit(reorder(problem.q, queries));
    const expected = dense({ ...problem, q: reorder(problem.q, queries) });
    expectNear(out.data, expected, precision);
  });

  test("weight 0 removes, 2 duplicates, and a common factor changes nothing", async () => {
    const problem = makeProblem({ keyRows: 12 });
    const weights = Float32Array.from([1, 0, 2, 1, 1, 0, 2, 2, 1, 1, 0, 1]);
    const rows = Array.from(weights, (weight, j) => Array<number>(weight).fill(j)).flat();
    const pick = (tile: Problem["k"]) => {
      const data = Float32Array.from(
        rows.flatMap((j) => Array.from(tile.data.subarray(j * tile.cols, (j + 1) * tile.cols))),
      );
      return { ...tile, rows: rows.length, data };
    };
    const expected = dense({ ...problem, k: pick(problem.k), v: pick(problem.v) });
    expectNear(await run(backend, { ...problem, weights }), expected, precision);
    expectNear(await run(backend, { ...problem, weights: weights.map((weight) => 8 * weight) }), expected, precision);
    const garbage = (tile: Problem["k"]) =>
      mapTile(tile, (value, at) => weights[Math.floor(at / tile.cols)] ? value : NaN);
    expectNear(
      await run(backend, { ...problem, weights, k: garbage(problem.k), v: garbage(problem.v) }),
      expected,
      precision,
    );
  });

  test("grouped queries equal repeated key heads, also with a matrix per key head", async () => {
    await near(makeProblem({ heads: 6, kvHeads: 2, matrices: 2, keyRows: 20 }));
    await near(makeProblem({ heads: 4, kvHeads: 1, keyRows: 20 }));
    await near(makeProblem({ heads: 4, kvHeads: 4, matrices: 2, keyRows: 20, map: "relu" }));
  });

  test("cross attention: fewer and more queries than keys, other value width", async () => {
    await near(makeProblem({ queryRows: 3, keyRows: 30, valueDim: 7 }));
    await near(makeProblem({ queryRows: 30, keyRows: 3, valueDim: 1 }), 8);
  });

  test("a single key, a single query", async () => {
    const problem = makeProblem({ queryRows: 1, keyRows: 1, heads: 1 });
    const out = await run(backend, problem);
    expectNear(out, dense(problem), precision);
    await near(makeProblem({ queryRows: 1, keyRows: 1, headDim: 1, valueDim: 1, features: 2 }));
  });

  test("no visible key: zeros, and every row is counted", async () => {
    const problem = makeProblem({ queryRows: 5, keyRows: 4, heads: 3, kvHeads: 1 });
    await using session = await backend.prepare(planFor(problem, 5));
    const none = await session.emit(problem.q);
    expect(Array.from(none.data).every((value) => value === 0)).toBeTrue();
    expect(session.counts.emptyRows).toBe(15);
    await session.absorb(problem.k, problem.v, new Float32Array(4));
    const masked = await session.emit(problem.q);
    expect(Array.from(masked.data).every((value) => value === 0)).toBeTrue();
    expect(session.counts).toEqual({ emptyRows: 30, nonPositive: 0, recomputed: 0 });
    session.reset();
    expect(session.counts.emptyRows).toBe(0);
  });

  test.each(KERNEL_MAPS.filter((map) => !map.signed).map((map) => map.name))(
    "%s stays in the convex hull of V",
    async (map) => {
      const problem = makeProblem({ map, keyRows: 20 });
      const { kvHeads, valueDim } = problem;
      const reference = dense(problem);
      const out = await run(backend, problem);
      const slack = 1e-3; // expectNear below is the sharp test; this one must hold for any tolerance
      for (let at = 0; at < out.length; at++) {
        const column = at % (kvHeads * valueDim);
        const values = Array.from({ length: problem.v.rows }, (_, j) => problem.v.data[j * problem.v.cols + column]);
        expect(out[at]).toBeGreaterThanOrEqual(Math.min(...values) - slack);
        expect(out[at]).toBeLessThanOrEqual(Math.max(...values) + slack);
      }
      expectNear(out, reference, precision);
      const constant = { ...problem, v: mapTile(problem.v, (_, at) => 1 + at % problem.v.cols) };
      const same = { ...reference, reach: problem.v.cols, out: reference.out.map((_, at) => 1 + at % problem.v.cols) };
      expectNear(await run(backend, constant), same, precision);
    },
  );

  test.each(KERNEL_MAPS.filter((map) => map.name !== "exp").map((map) => map.name))(
    "%s: inputs times 60 give finite outputs", // but for e^{w·x} of `exp`, which no float holds
    async (map) => {
      const problem = makeProblem({ map, spread: 60, keyRows: 16, heads: 1 });
      const out = await run(backend, problem);
      expect(out.every(Number.isFinite)).toBeTrue();
      if (!problem.parameters.map.signed) {
        const reach = Math.max(...problem.v.data.map(Math.abs));
        expect(out.every((value) => Math.abs(value) <= 1.001 * reach)).toBeTrue();
      }
    },
  );

  // Exponents are squares of norms: at 10^8 a float32 of them is 10^9 off, and what is subtracted has to be as far off. Float64 goes on to 10^15.
  test.each(slow ? ["hyperbolic"] : ["hyperbolic", "positive", "relu"])(
    "%s: huge rows stay in the convex hull of V, each with keys",
    async (map) => {
      for (const spread of [1e4, 1e6, 1e8, ...(precision === "f64" ? [1e12, 1e15] : [])]) {
        for (const causal of [false, true]) {
          const problem = makeProblem({ map, spread, causal, keyRows: slow ? 9 : 40, heads: 1 });
          const { v, valueDim } = problem;
          const column = (c: number) => Array.from({ length: v.rows }, (_, j) => v.data[j * valueDim + c]);
          const bounds = Array.from({ length: valueDim }, (_, c) => [Math.min(...column(c)), Math.max(...column(c))]);
          const out = await run(backend, problem, 16);
          const inside = (value: number, at: number) => {
            const [least, most] = bounds[at % valueDim];
            return value !== 0 && value >= least - 1e-3 && value <= most + 1e-3;
          };
          expect(out.every(inside)).toBeTrue();
        }
      }
    },
  );

  test("calls in flight take effect in call order", async () => {
    const problem = makeProblem({ keyRows: 24, queryRows: 9 });
    const { k, v, q } = problem;
    await using session = await backend.prepare(planFor(problem, 24));
    const first = { ...problem, k: rowsOf(k, 0, 8), v: rowsOf(v, 0, 8) };
    const borrowed = { k: rowsOf(k, 8, 24), v: rowsOf(v, 8, 24) };
    const calls = [
      session.absorb(first.k, first.v),
      session.emit(q),
      session.absorb(borrowed.k, borrowed.v),
      session.emit(q),
    ] as const;
    borrowed.k.data.fill(NaN); // tiles are copied before the call returns
    borrowed.v.data.fill(NaN);
    const [, before, , after] = await Promise.all(calls);
    expectNear(before.data, dense(first), precision);
    expectNear(after.data, dense(problem), precision);
  });

  test("the state is as large after many rows as after few", async () => {
    const problem = makeProblem({ keyRows: 64 });
    await using session = await backend.prepare(planFor(problem, 64));
    const size = ({ c, z, S }: State) => [c.length, z.length, S.length];
    await session.absorb(rowsOf(problem.k, 0, 1), rowsOf(problem.v, 0, 1));
    const small = size(await session.save());
    await session.absorb(problem.k, problem.v);
    const { features } = problem.parameters;
    expect(small).toEqual([2 * features, 2 * features, 2 * features * problem.valueDim]);
    expect(size(await session.save())).toEqual(small);
    expect((await session.save()).keys).toBe(65);
  });
});
