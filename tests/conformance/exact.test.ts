/** Laws of exact softmax as an online session, on every backend. */
import { expect, test } from "bun:test";
import { describeBackends } from "./backends.ts";
import { denseExact, expectNear } from "./dense.ts";
import { makeProblem, mapTile, type Problem, runExact } from "./harness.ts";

describeBackends("exact softmax", (backend, slow) => {
  const { precision } = backend.limits;
  const near = async (problem: Problem, tileRows?: number, queryRows?: number) => {
    expectNear(await runExact(backend, problem, tileRows, queryRows), denseExact(problem), precision);
  };
  const rows = slow ? 20 : 70;

  test("equals two dense passes, whatever the cuts of keys and queries", async () => {
    const problem = makeProblem({ keyRows: rows, queryRows: rows + 3 });
    for (const [tileRows, queryRows] of [[rows, rows + 3], [7, rows + 3], [rows, 8], [16, 5]]) {
      await near(problem, tileRows, queryRows);
    }
  });

  test("causal, by the positions of the held rows", async () => {
    const problem = makeProblem({ keyRows: rows, causal: true });
    await near(problem);
    await near(problem, 6, 4);
    await near({ ...problem, weights: Float32Array.from({ length: rows }, (_, j) => j < 2 ? 0 : 1 + j % 3) }, 9);
  });

  test("weights: 0 removes (whatever the row holds), others count", async () => {
    const problem = makeProblem({ keyRows: rows, weighted: true });
    await near(problem, 8);
    const hide = (tile: Problem["k"]) =>
      mapTile(tile, (x, at) => problem.weights![Math.floor(at / tile.cols)] ? x : NaN);
    const out = await runExact(backend, { ...problem, k: hide(problem.k), v: hide(problem.v) });
    expectNear(out, denseExact(problem), precision);
  });

  test("grouped queries, other value width, one row", async () => {
    await near(makeProblem({ heads: 6, kvHeads: 2, valueDim: 9, keyRows: 11, queryRows: 4 }));
    await near(makeProblem({ heads: 1, keyRows: 1, queryRows: 1, headDim: 1, valueDim: 1, features: 2 }));
  });

  test("large logits", async () => {
    await near(makeProblem({ spread: 12, keyRows: rows }));
    for (const spread of [60, 1e6, 1e10]) {
      const problem = makeProblem({ spread, keyRows: rows });
      const reach = 1.001 * Math.max(...problem.v.data.map(Math.abs));
      const out = await runExact(backend, problem);
      expect(out.every((value) => value !== 0 && Math.abs(value) <= reach)).toBeTrue();
    }
  });

  test("no keys at all: zeros", async () => {
    const problem = makeProblem({ keyRows: 3, queryRows: 4 });
    const out = await runExact(backend, { ...problem, weights: new Float32Array(3) });
    expect(out.every((value) => value === 0)).toBeTrue();
    const { heads, kvHeads, headDim, valueDim, scale } = problem;
    const plan = { heads, kvHeads, headDim, valueDim, scale, causal: false, tileRows: 3, queryRows: 4 };
    await using session = await backend.prepareExact(plan);
    await session.pose(problem.q, [0, 1, 2, 3]);
    expect(Array.from((await session.emit()).data).every((value) => value === 0)).toBeTrue();
  });

  test("absorbs in flight, tiles borrowed, and a second pose forgets the first", async () => {
    const problem = makeProblem({ keyRows: 12, queryRows: 6 });
    const { q, k, v, heads, kvHeads, headDim, valueDim, scale } = problem;
    const plan = { heads, kvHeads, headDim, valueDim, scale, causal: false, tileRows: 12, queryRows: 6 };
    await using session = await backend.prepareExact(plan);
    const positions = [0, 1, 2, 3, 4, 5];
    await session.pose({ ...q, data: q.data.map((x) => -x) }, positions);
    await session.absorb(k, v);
    const borrowed = { ...q, data: q.data.slice() };
    await session.pose(borrowed, positions);
    borrowed.data.fill(NaN);
    const keys = { ...k, data: k.data.slice() };
    const first = session.absorb(keys, v);
    keys.data.fill(NaN);
    const again = session.absorb(k, v); // every key twice: the same average
    await Promise.all([first, again]);
    expectNear((await session.emit()).data, denseExact(problem), precision);
  });
});
