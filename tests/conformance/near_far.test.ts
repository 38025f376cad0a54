/** Laws of near-and-far attention, on every backend that has it. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { mergeFarStates } from "../../src/far_state.ts";
import { UnsupportedError } from "../../src/errors.ts";
import { FAR_FIELDS, type NearFarPlan, nearRows } from "../../src/near_far.ts";
import { describeBackends } from "./backends.ts";
import { denseExact, expectNear } from "./dense.ts";
import { makeProblem, mapTile, rowsOf } from "./harness.ts";
import { denseNearFar, type NearFar, nearFarPlan, runNearFar } from "./near_far_dense.ts";

const SETTINGS: readonly NearFar[] = [
  { far: "none", window: 5, heavy: 3 },
  { far: "taylor1" },
  { far: "taylor2" },
  { far: "hermite2", window: 3 },
  { far: "taylor1", window: 9, heavy: 6 },
  { far: "taylor2", window: 70, heavy: 2 },
  { far: "clusters" },
  { far: "clusters", window: 6, heavy: 4, clusters: 9 },
];

/** With clusters that are taken exactly, where the backend has them. */
const TOPS: readonly NearFar[] = [
  { far: "clusters", clusters: 6, top: 2 },
  { far: "clusters", clusters: 9, top: 3, window: 6, heavy: 4 },
];

describeBackends("near and far", (backend, slow) => {
  const { precision } = backend.limits;
  if (!backend.prepareNearFar) {
    test.skip(`${backend.name} has no kernels for near keys and far fields`, () => {});
    return;
  }
  const near = async (problem: ReturnType<typeof makeProblem>, settings: NearFar, tileRows = 64) => {
    const plan = nearFarPlan(problem, settings, tileRows);
    expectNear(await runNearFar(backend, problem, plan), denseNearFar(problem, plan), precision);
  };

  /** Why the backend has no kernels for a plan, null where it has; it says so before anything is prepared. */
  const refusal = async (plan: NearFarPlan): Promise<string | null> => {
    const reason = (error: unknown) => {
      expect(error instanceof UnsupportedError).toBeTrue();
      return (error as UnsupportedError).reason;
    };
    let before: string | null = null, then: string | null = null;
    try {
      backend.checkNearFar?.(plan);
    } catch (error) {
      before = reason(error);
    }
    try {
      await (await backend.prepareNearFar!(plan))[Symbol.asyncDispose]();
    } catch (error) {
      then = reason(error);
    }
    expect(then).toBe(before);
    return before;
  };

  /** The same for clusters that are taken exactly; a refusal must name them. */
  const takes = async (plan: NearFarPlan) => {
    const reason = await refusal(plan);
    if (reason !== null) expect(/--top|top clusters/.test(reason)).toBeTrue();
    return reason === null;
  };

  test("a plan is refused before it is prepared, for the same reason as when it is, or not at all", async () => {
    const problem = makeProblem({ keyRows: 66 });
    for (const settings of SETTINGS) {
      const plan = nearFarPlan(problem, settings, 64);
      expect(await refusal(plan)).toBe(null);
      await refusal({ ...plan, window: 10 ** 8 });
    }
  });

  const taken = (causal: boolean): readonly NearFar[] => {
    try {
      for (const settings of TOPS) backend.checkNearFar?.(nearFarPlan(makeProblem({ causal }), settings, 64));
      return [...SETTINGS, ...TOPS];
    } catch {
      return SETTINGS;
    }
  };

  for (const causal of [false, true]) {
    for (const settings of taken(causal)) {
      test(`equals the definition: ${causal ? "causal" : "bidirectional"}, ${JSON.stringify(settings)}`, async () => {
        const problem = makeProblem({ keyRows: slow ? 70 : 150, causal, spread: 1.1, weighted: causal });
        await near(problem, settings, 64);
        if (!slow) await near(problem, settings, 192);
      });
    }
  }

  test("random shapes and settings equal the definition", async () => {
    const shapes = fc.record({
      kvHeads: fc.integer({ min: 1, max: 3 }),
      group: fc.integer({ min: 1, max: 2 }),
      headDim: fc.integer({ min: 1, max: 18 }),
      valueDim: fc.integer({ min: 1, max: 17 }),
      keyRows: fc.integer({ min: 1, max: slow ? 70 : 210 }),
      causal: fc.boolean(),
      weighted: fc.boolean(),
      seed: fc.integer({ min: 0, max: 1000 }),
    });
    const settings = fc.record({
      far: fc.constantFrom(...FAR_FIELDS),
      window: fc.integer({ min: 0, max: 90 }),
      heavy: fc.integer({ min: 0, max: 12 }),
      clusters: fc.integer({ min: 1, max: 20 }),
      exactRows: fc.constantFrom(0, 0, 20, 64),
      top: fc.integer({ min: 0, max: 4 }),
    });
    await fc.assert(
      fc.asyncProperty(shapes, settings, fc.integer({ min: 1, max: 200 }), async (sizes, some, tileRows) => {
        const problem = makeProblem({ ...sizes, heads: sizes.kvHeads * sizes.group });
        const top = some.far === "clusters" && taken(sizes.causal).length > SETTINGS.length ? some.top : 0;
        await near(problem, { ...some, top, exactRows: sizes.causal ? some.exactRows : 0 }, tileRows);
      }),
      { numRuns: slow ? 4 : 15, seed: 20200930 },
    );
  }, 60_000);

  test("queries and keys of different lengths, bidirectional", async () => {
    await near(makeProblem({ keyRows: 40, queryRows: 90 }), { far: "taylor1", window: 4, heavy: 2 });
    await near(makeProblem({ keyRows: 90, queryRows: 20 }), { far: "clusters", window: 4 });
  });

  for (const causal of [false, true]) {
    const kind = causal ? "causal" : "bidirectional";
    test(`${kind}: a window over everything, and every key heavy, are exact softmax`, async () => {
      const problem = makeProblem({ keyRows: 66, causal, weighted: true });
      for (const far of FAR_FIELDS) {
        const plan = nearFarPlan(problem, { far, window: 66 }, 64);
        const { condition } = denseNearFar(problem, plan);
        expectNear(await runNearFar(backend, problem, plan), { ...denseExact(problem), condition }, precision);
        if (causal) continue; // heavy keys of a row stand before its block
        const heavy = nearFarPlan(problem, { far, heavy: 66 }, 64);
        expectNear(await runNearFar(backend, problem, heavy), { ...denseExact(problem), condition }, precision);
      }
    });
  }

  test("every cluster taken exactly is exact softmax", async () => {
    const problem = makeProblem({ keyRows: 66 });
    const plan = nearFarPlan(problem, { far: "clusters", clusters: 5, top: 5 }, 64);
    if (!await takes(plan)) return;
    const { condition } = denseNearFar(problem, plan);
    expectNear(await runNearFar(backend, problem, plan), { ...denseExact(problem), condition }, precision);
    await near(problem, { far: "clusters", clusters: 6, top: 2, window: 3, heavy: 2 });
    await near(makeProblem({ keyRows: 90, weighted: true, heads: 4, kvHeads: 2 }), {
      far: "clusters",
      top: 3,
      heavy: 70,
    });
    const causal = makeProblem({ keyRows: 140, causal: true, weighted: true });
    const settings = { far: "clusters", clusters: 6, top: 2 } as const;
    if (await takes(nearFarPlan(causal, settings, 64))) await near(causal, settings);
  });

  test("huge rows, near keys alone: outputs within V", async () => {
    for (const causal of [false, true]) {
      const problem = makeProblem({ spread: 1e4, causal, keyRows: 40, heads: 1 });
      const out = await runNearFar(backend, problem, nearFarPlan(problem, { far: "none", window: 5, heavy: 2 }, 64));
      const reach = 1.001 * Math.max(...problem.v.data.map(Math.abs));
      expect(out.every((value) => value !== 0 && Math.abs(value) <= reach)).toBeTrue();
    }
  });

  test("causal rows are blind to later rows, even to a huge key", async () => {
    const problem = makeProblem({ keyRows: 100, causal: true });
    const changed = (tile: typeof problem.k) => mapTile(tile, (x, at) => at >= 90 * tile.cols ? 40 * x : x);
    const later = { ...problem, q: changed(problem.q), k: changed(problem.k), v: changed(problem.v) };
    for (const settings of taken(true)) {
      const plan = nearFarPlan(problem, settings, 64);
      const [before, after] = [await runNearFar(backend, problem, plan), await runNearFar(backend, later, plan)];
      const { out, condition, reach, rounding } = denseNearFar(problem, plan);
      const seen = 90 * problem.heads;
      const part = { out: out.slice(0, seen * problem.valueDim), condition: condition.slice(0, seen), reach, rounding };
      expectNear(after.slice(0, part.out.length), part, precision);
      expect(after.slice(0, part.out.length)).toEqual(before.slice(0, part.out.length));
    }
  });

  test("equal values come out as they are", async () => {
    const problem = makeProblem({ keyRows: 80, spread: 0.7 });
    const constant = { ...problem, v: mapTile(problem.v, () => 1.5) };
    for (const settings of taken(false)) await near(constant, settings);
  });

  test("weights: 0 removes (whatever the row holds); no key at all gives zeros", async () => {
    const problem = makeProblem({ keyRows: 80, weighted: true });
    const hide = (tile: typeof problem.k) =>
      mapTile(tile, (x, at) => problem.weights![Math.floor(at / tile.cols)] ? x : 1e30);
    for (const settings of taken(false)) {
      const plan = nearFarPlan(problem, settings, 64);
      const hidden = { ...problem, k: hide(problem.k), v: hide(problem.v) };
      expectNear(await runNearFar(backend, hidden, plan), denseNearFar(problem, plan), precision);
      const none = await runNearFar(backend, { ...problem, weights: new Float32Array(80) }, plan);
      expect(none.every((x) => x === 0)).toBeTrue();
    }
  });

  test("large logits stay finite", async () => {
    const problem = makeProblem({ keyRows: 80, spread: 25, causal: true });
    for (const settings of taken(true)) {
      const out = await runNearFar(backend, problem, nearFarPlan(problem, settings, 64));
      if (settings.far === "none" || settings.far === "clusters") expect(out.every(Number.isFinite)).toBeTrue();
      else expect(out.some(Number.isFinite)).toBeTrue();
    }
  });

  test("states merge: two shards, in either order, are one pass", async () => {
    const problem = makeProblem({ keyRows: 150 });
    for (const settings of SETTINGS) {
      const plan = nearFarPlan(problem, settings, 64);
      await using first = await backend.prepareNearFar!(plan);
      await using second = await backend.prepareNearFar!(plan);
      await first.absorb(rowsOf(problem.k, 0, 64), rowsOf(problem.v, 0, 64));
      await second.absorb(rowsOf(problem.k, 64, 128), rowsOf(problem.v, 64, 128));
      await second.absorb(rowsOf(problem.k, 128, 150), rowsOf(problem.v, 128, 150));
      const [a, b] = [await first.save(), await second.save()];
      mergeFarStates(b, a, plan);
      await first.load(b);
      const out: number[] = [];
      for (const from of [0, 64, 128]) {
        const to = Math.min(150, from + 64);
        const { start, end } = nearRows(plan, from, to, 150);
        const some = { k: rowsOf(problem.k, start, end), v: rowsOf(problem.v, start, end) };
        out.push(...(await first.emit(rowsOf(problem.q, from, to), plan.window > 0 ? some : null)).data);
      }
      expectNear(out, denseNearFar(problem, plan), precision);
    }
  });
});
