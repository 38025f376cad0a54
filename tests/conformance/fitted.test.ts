/** Maps whose queries and keys are transformed on the way, on every backend: the dense evaluation of rows transformed in float64. */
import { expect, test } from "bun:test";
import type { Backend } from "../../src/backend.ts";
import type { Tile } from "../../src/tensor.ts";
import { prepareTransformed } from "../../src/transformed.ts";
import { describeBackends } from "./backends.ts";
import { expectNear } from "./dense.ts";
import { type Case, caseOf } from "./fitted_case.ts";
import { attend, mapTile, planFor, type Problem, rowsOf } from "./harness.ts";

const NAMES = [
  "hyperbolic",
  "trigonometric",
  "hyp-oprf",
  "sderf",
  "saderf",
  "hyp-saderf",
  "aderf",
  "hyp-aderf+sderf",
  "cosformer",
];

describeBackends("transformed rows", (backend, slow) => {
  const { precision } = backend.limits;
  const run = async (backend: Backend, { problem, transform }: Case, tileRows: number) => {
    await using session = await prepareTransformed(backend, planFor(problem, tileRows), transform);
    return await attend(session, problem, tileRows);
  };

  test.each(slow ? ["hyp-saderf", "aderf+sderf", "cosformer"] : NAMES)(
    "%s equals the dense evaluation",
    async (name) => {
      for (const causal of [false, true]) {
        const of = caseOf(name, { keyRows: slow ? 19 : 70, headDim: 6, causal, weighted: true });
        for (const tileRows of slow ? [19] : [70, 16]) {
          expectNear(await run(backend, of, tileRows), of.reference, precision);
        }
      }
    },
  );

  test("grouped queries are transformed as the key head they read; keys that stay where they are", async () => {
    for (const name of ["saderf", "aderf"]) {
      for (const centred of [true, false]) {
        const of = caseOf(name, { heads: 4, kvHeads: 2, keyRows: 20, headDim: 4 }, centred);
        expectNear(await run(backend, of, 20), of.reference, precision);
      }
    }
    const of = caseOf("cosformer", { heads: 4, kvHeads: 2, keyRows: 20, headDim: 4 });
    expectNear(await run(backend, of, 20), of.reference, precision);
  });

  test("calls on their way take effect in call order, and tiles are read before a call returns", async () => {
    for (const name of ["hyperbolic", "aderf"]) {
      const of = caseOf(name, { keyRows: 24, queryRows: 9, headDim: 4 });
      const { q, k, v } = of.problem;
      await using session = await prepareTransformed(backend, planFor(of.problem, 24), of.transform);
      const parts = [[0, 8], [8, 16], [16, 24]].map(([from, to]) => ({
        k: rowsOf(k, from, to),
        v: rowsOf(v, from, to),
      }));
      const asked = mapTile(q, (value) => value);
      const calls = [...parts.map((part) => session.absorb(part.k, part.v)), session.emit(asked)] as const;
      for (const { k, v } of parts) {
        k.data.fill(NaN);
        v.data.fill(NaN);
      }
      asked.data.fill(NaN);
      await Promise.all(calls);
      expectNear((await calls[3] as Tile).data, of.reference, precision);
      expect((await session.save()).keys).toBe(24);
    }
  });

  test("a saved state goes on elsewhere; reset forgets keys and counts", async () => {
    const of = caseOf("aderf", { keyRows: 24, headDim: 4 });
    const { q, k, v } = of.problem;
    await using session = await prepareTransformed(backend, planFor(of.problem, 24), of.transform);
    await session.absorb(rowsOf(k, 0, 10), rowsOf(v, 0, 10));
    const state = await session.save();
    session.reset();
    expect((await session.emit(q)).data.every((value) => value === 0)).toBe(true);
    expect(session.counts.emptyRows).toBe(q.rows * of.problem.heads);
    session.reset();
    await session.load(state);
    await session.absorb(rowsOf(k, 10, 24), rowsOf(v, 10, 24));
    expectNear((await session.emit(q)).data, of.reference, precision);
  });

  test("cosformer: denominators of at least 1e-6, so rows without a positive coordinate are 0, and tiny ones shrink", async () => {
    for (const causal of [false, true]) {
      const { problem, transform } = caseOf("cosformer", { heads: 1, keyRows: 12, headDim: 4, causal });
      const shrunk = (factor: number) => ({
        ...problem,
        q: mapTile(problem.q, (value) => factor * value),
        k: mapTile(problem.k, Math.abs),
      });
      const out = async (problem: Problem) => {
        await using session = await prepareTransformed(backend, planFor(problem, 12), transform);
        return await attend(session, problem, 12);
      };
      const none = { ...problem, q: mapTile(problem.q, (value) => -Math.abs(value)) };
      expect((await out(none)).every((value) => value === 0)).toBe(true);
      const positive = { ...shrunk(1), q: mapTile(problem.q, (value) => Math.abs(value) + 0.1) };
      const full = await out(positive);
      const tiny = await out({ ...positive, q: mapTile(positive.q, (value) => 2 ** -50 * value) });
      full.forEach((value, at) => expect(Math.abs(tiny[at])).toBeLessThan(1e-6 * Math.abs(value) + 1e-12));
      const half = await out({ ...positive, q: mapTile(positive.q, (value) => value / 2) });
      full.forEach((value, at) => expect(Math.abs(half[at] - value)).toBeLessThan(1e-5));
    }
  });
});
