/** Random small shapes, on every backend: linear and exact attention against their dense evaluations. */
import { test } from "bun:test";
import fc from "fast-check";
import { featureMap } from "../../src/feature_map.ts";
import { describeBackends } from "./backends.ts";
import { dense, denseExact, expectNear } from "./dense.ts";
import { makeProblem, run, runExact } from "./harness.ts";

const shapes = fc.record({
  map: fc.constantFrom("hyperbolic", "positive", "trigonometric", "relu", "elu"),
  kvHeads: fc.integer({ min: 1, max: 3 }),
  group: fc.integer({ min: 1, max: 3 }),
  perHead: fc.boolean(),
  headDim: fc.integer({ min: 1, max: 20 }),
  valueDim: fc.integer({ min: 1, max: 18 }),
  projections: fc.integer({ min: 1, max: 19 }),
  keyRows: fc.integer({ min: 1, max: 80 }),
  queryRows: fc.integer({ min: 1, max: 40 }),
  tileRows: fc.integer({ min: 1, max: 90 }),
  causal: fc.boolean(),
  weighted: fc.boolean(),
  beta: fc.constantFrom(0, 2),
  seed: fc.integer({ min: 0, max: 1000 }),
});

describeBackends("random shapes", (backend, software) => {
  const { precision } = backend.limits;
  const slow = software || backend.name === "gpujs"; // gpu.js compiles every kernel of a new shape
  const options = { numRuns: slow ? 6 : 15, seed: 20200930 };

  test("linear attention equals the dense evaluation", async () => {
    await fc.assert(
      fc.asyncProperty(shapes, async ({ group, perHead, projections, queryRows, tileRows, ...sizes }) => {
        const problem = makeProblem({
          ...sizes,
          beta: featureMap(sizes.map).family === "exp" ? sizes.beta : 0,
          heads: sizes.kvHeads * group,
          matrices: perHead && sizes.map !== "elu" ? sizes.kvHeads : 1,
          features: 2 * projections,
          queryRows: sizes.causal ? undefined : queryRows,
        });
        expectNear(await run(backend, problem, software ? 90 : tileRows), dense(problem), precision);
      }),
      options,
    );
  }, 60_000);

  test("exact softmax equals two dense passes", async () => {
    await fc.assert(
      fc.asyncProperty(
        shapes,
        async ({ map: _, group, perHead: __, projections: ___, beta: ____, queryRows, tileRows, ...sizes }) => {
          const rows = sizes.causal ? undefined : queryRows;
          const problem = makeProblem({ ...sizes, heads: sizes.kvHeads * group, queryRows: rows });
          const out = await runExact(backend, problem, software ? 90 : tileRows, problem.q.rows);
          expectNear(out, denseExact(problem), precision);
        },
      ),
      options,
    );
  }, 60_000);
});
