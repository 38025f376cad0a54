/** Near-and-far attention on WebGPU, beside the laws of tests/conformance: odd sizes, small buffers, order of calls, refusals. */
import { afterAll, describe, expect, test } from "bun:test";
import { scalar } from "../../src/backends/scalar.ts";
import { webgpu, WebgpuBackend } from "../../src/backends/webgpu.ts";
import { createRoot, findAdapter } from "../../src/backends/webgpu_adapter.ts";
import { GpuDevice } from "../../src/backends/webgpu_device.ts";
import { UnsupportedError } from "../../src/errors.ts";
import { expectNear } from "../conformance/dense.ts";
import { makeProblem, mapTile, rowsOf, type Sizes } from "../conformance/harness.ts";
import { denseNearFar, type NearFar, nearFarPlan, runNearFar } from "../conformance/near_far_dense.ts";

/** SwiftShader compiles a kernel in 0.5 to 3 seconds. */
const SLOW = 120_000;

let backend: WebgpuBackend | undefined;
let reason = "";
try {
  backend = (await webgpu.open({ named: true })) as WebgpuBackend;
} catch (error) {
  if (!(error instanceof UnsupportedError)) throw error;
  reason = error.reason;
}
afterAll(async () => {
  await backend?.[Symbol.asyncDispose]();
});

async function compare(sizes: Sizes, settings: NearFar, tileRows = 128, on = backend!): Promise<void> {
  for (const causal of [false, true]) {
    const problem = makeProblem({ weighted: true, ...sizes, causal });
    const plan = nearFarPlan(problem, { ...settings, exactRows: causal ? settings.exactRows ?? 0 : 0 }, tileRows);
    expectNear(await runNearFar(on, problem, plan), denseNearFar(problem, plan), "f32");
  }
}

describe.skipIf(!backend)(backend ? `near and far on ${backend.device}` : `webgpu: skipped, ${reason}`, () => {
  test.each<[string, Sizes, NearFar]>([
    ["grouped heads, several tiles", { heads: 6, kvHeads: 2, keyRows: 300 }, { far: "taylor1", window: 40, heavy: 5 }],
    ["uneven groups, wide values", { heads: 5, kvHeads: 3, valueDim: 70, keyRows: 140 }, { far: "taylor2", window: 3 }],
    ["features of several workgroups", { headDim: 17, valueDim: 66, keyRows: 140 }, { far: "hermite2", heavy: 4 }],
    ["wide keys", { headDim: 67, keyRows: 140, heads: 1 }, { far: "taylor1", window: 2 }],
    ["clusters of several workgroups", { keyRows: 200, headDim: 18 }, {
      far: "clusters",
      clusters: 37,
      heavy: 9,
      window: 9,
    }],
    ["clusters, wide keys and values", { keyRows: 140, headDim: 70, valueDim: 129, heads: 1 }, {
      far: "clusters",
      window: 4,
    }],
    ["exact rows across tiles", { keyRows: 260 }, { far: "clusters", heavy: 4, exactRows: 150 }],
    ["exact rows, Taylor", { keyRows: 200 }, { far: "hermite2", window: 7, heavy: 4, exactRows: 70 }],
  ])("%s", async (_name, sizes, settings) => {
    await compare(sizes, settings);
  }, SLOW);

  test("keys far from 0 lose no more digits than their distances do", async () => {
    // Softmax does not see the shift, and neither must moments: they are about a mean, or in the first causal tile about its first key.
    for (const causal of [false, true]) {
      const problem = makeProblem({ keyRows: 140, causal });
      const far = { ...problem, k: mapTile(problem.k, (x) => Math.fround(Math.round(x * 64) / 64)) };
      const shifted = { ...far, k: mapTile(far.k, (x) => x + 64) }; // exact in float32
      const plan = nearFarPlan(far, { far: "hermite2", window: 6 }, 64);
      expectNear(await runNearFar(backend!, shifted, plan), denseNearFar(far, plan), "f32");
    }
  }, SLOW);

  test("without subgroups, and with buffers too small for a tile", async () => {
    const gpu = await GpuDevice.open(await findAdapter({ named: true }), { subgroups: false, maxBytes: 16 << 10 });
    await using small = new WebgpuBackend(gpu);
    // A row of 4 heads is 128 bytes: slices of 128 rows, or of 64 where the window wants the rest.
    const sizes = { keyRows: 250, heads: 4 };
    await compare(sizes, { far: "taylor1", window: 9, heavy: 3 }, 256, small);
    await compare(sizes, { far: "none", window: 30, heavy: 3 }, 256, small);
    await compare({ keyRows: 250 }, { far: "clusters", window: 9, clusters: 5 }, 256, small); // logits of 64 rows
    const problem = makeProblem({ headDim: 12, keyRows: 200 });
    const wide = makeProblem({ headDim: 40 });
    await expect(small.prepareNearFar(nearFarPlan(wide, { far: "taylor2" }, 64))).rejects.toThrow(
      "use far field taylor1",
    );
    await expect(small.prepareNearFar(nearFarPlan(problem, { far: "clusters", clusters: 99 }, 64))).rejects.toThrow(
      "fewer",
    );
    await expect(runNearFar(small, problem, nearFarPlan(problem, { window: 90 }, 64))).rejects.toThrow(
      "smaller window",
    );
  }, SLOW);

  test("tiles may be overwritten as soon as a call returns, and calls take effect in order", async () => {
    const reference = await scalar.open({ named: true });
    for (const causal of [false, true]) {
      for (const settings of [{ far: "taylor1", window: 5, heavy: 4 }, { far: "clusters", heavy: 4 }] as const) {
        const problem = makeProblem({ keyRows: 192, causal, weighted: true });
        const plan = nearFarPlan(problem, settings, 64);
        await using session = await backend!.prepareNearFar(plan);
        await using expected = await reference.prepareNearFar!(plan);
        const calls: Promise<unknown>[] = [];
        for (const from of [0, 64, 128]) {
          const first = Math.max(0, from - (causal ? 4 : 0));
          const last = Math.min(192, from + 64 + (causal ? 0 : 4));
          const tiles = () => {
            const near = { k: rowsOf(problem.k, first, last), v: rowsOf(problem.v, first, last) };
            const own = { k: rowsOf(problem.k, from, from + 64), v: rowsOf(problem.v, from, from + 64) };
            return { q: rowsOf(problem.q, from, from + 64), near, own };
          };
          const one = tiles();
          const want = tiles();
          const wants: ArrayLike<number>[] = [];
          const steps = causal ? ["emit", "absorb"] : ["absorb", "emit"];
          for (const step of steps) {
            if (step === "absorb") {
              calls.push(session.absorb(one.own.k, one.own.v));
              await expected.absorb(want.own.k, want.own.v);
            } else {
              const index = wants.push((await expected.emit(want.q, want.near)).data) - 1;
              calls.push(
                session.emit(one.q, one.near).then(({ data }) => {
                  Array.from(data).forEach((x, i) => expect(Math.abs(x - wants[index][i])).toBeLessThan(1e-5));
                }),
              );
            }
          }
          for (const tile of [one.q, one.near.k, one.near.v, one.own.k, one.own.v]) tile.data.fill(NaN);
        }
        await Promise.all(calls);
      }
    }
    await reference[Symbol.asyncDispose]();
  }, SLOW);

  test("counts, save, load and reset", async () => {
    const problem = makeProblem({ keyRows: 64 });
    const plan = nearFarPlan(problem, { far: "taylor2", heavy: 3 }, 64);
    await using one = await backend!.prepareNearFar(plan);
    expect(Math.max(...(await one.emit(problem.q, null)).data)).toBe(0);
    expect(one.counts).toEqual({ emptyRows: 128, nonPositive: 0, recomputed: 0 });
    await one.absorb(problem.k, problem.v);
    const state = await one.save();
    expect([state.keys, state.rows, state.heavy[1].length]).toEqual([64, 64, 3]);
    await using two = await backend!.prepareNearFar(plan);
    await two.load(state);
    expect((await two.emit(problem.q, null)).data).toEqual((await one.emit(problem.q, null)).data);
    two.reset();
    await two.emit(problem.q, null);
    expect(two.counts.emptyRows).toBe(128);
    const into = new Float32Array(64 * plan.heads * plan.valueDim + 7);
    const again = await one.emit(problem.q, null, into);
    expect(again.data.buffer).toBe(into.buffer);
    expect(again.data).toEqual((await one.emit(problem.q, null)).data as Float32Array);
  }, SLOW);

  test("heavy keys are those of the reference, ties included", async () => {
    const problem = makeProblem({ keyRows: 192, causal: true, weighted: true });
    const tied = { ...problem, k: mapTile(problem.k, (_, at) => Math.floor(at / problem.k.cols) % 7) };
    const plan = nearFarPlan(tied, { far: "none", heavy: 9 }, 64);
    const reference = await scalar.open({ named: true });
    const rows: number[][][] = [];
    for (const one of [backend!, reference]) {
      await using session = await one.prepareNearFar!(plan);
      for (const from of [0, 64, 128]) {
        await session.absorb(
          rowsOf(tied.k, from, from + 64),
          rowsOf(tied.v, from, from + 64),
          tied.weights!.slice(from),
        );
      }
      rows.push((await session.save()).heavy.map((keys) => keys.map(({ row }) => row).sort((a, b) => a - b)));
    }
    expect(rows[0]).toEqual(rows[1]);
    await reference[Symbol.asyncDispose]();
  }, SLOW);

  test("refused with a reason: top clusters; causal rows without their keys", async () => {
    const problem = makeProblem({ causal: true });
    const top = nearFarPlan(problem, { far: "clusters", top: 1 }, 64);
    await expect(backend!.prepareNearFar(top)).rejects.toThrow("0 top clusters");
    await using session = await backend!.prepareNearFar(nearFarPlan(problem, { far: "taylor1" }, 64));
    await expect(session.emit(problem.q, null)).rejects.toThrow("their own");
  }, SLOW);
});

test("kernels fit in the 16 KiB of workgroup memory that every device has, with and without subgroups", async () => {
  const root = await createRoot(["backend=null"]);
  for (const subgroups of [true, false]) {
    const gpu = await GpuDevice.open((await root.requestAdapter())!, { subgroups });
    for (const pass of ["near_far:none", "near_far:clusters", "far_moments", "far_assign"] as const) {
      await gpu.pipeline(pass);
    }
    for (const pass of ["far_sums", "far_logits", "far_scan"] as const) await gpu.pipeline(pass);
    for (const HERMITE of [0, 1]) await gpu.pipeline("near_far:taylor", { SQUARE: 0.5, HERMITE });
    gpu.dispose();
  }
}, SLOW);
