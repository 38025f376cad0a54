/** Near-and-far attention in `bench`: a sample computes what `attend` computes over the same rows, and counts the same arithmetic. */
import { describe, expect, test } from "bun:test";
import { type Attention, logitScale, type NearFarSettings } from "../../src/attention.ts";
import type { Backend, KeyRows, NearFarSession } from "../../src/backend.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { wasm } from "../../src/backends/wasm.ts";
import { type BenchResult, type Measurement, pointKey, settingsOf } from "../../src/bench.ts";
import { compareReports } from "../../src/bench_compare.ts";
import { crossoversOf, resultsOf, slopesOf } from "../../src/bench_figures.ts";
import { sweep, type SweepOptions } from "../../src/bench_measure.ts";
import { BenchTensors, syntheticTensors } from "../../src/bench_tensors.ts";
import { UnsupportedError } from "../../src/errors.ts";
import { BLOCK_ROWS, type NearFarPlan, nearRows } from "../../src/near_far.ts";
import { attend } from "../../src/run.ts";
import type { FloatArray, TensorSink, Tile } from "../../src/tensor.ts";
import { tolerance, UNIT_ROUNDOFF } from "../tolerance.ts";

const SIZES = { heads: 4, kvHeads: 2, headDim: 6, valueDim: 5 };
/** Rows that are held; longer lengths run over the first of them again. */
const HELD = 200;
const SPREAD = 0.5;

const TAYLOR: NearFarSettings = { window: 20, heavy: 5, far: "taylor1", clusters: 0, top: 0 };
const TOP: NearFarSettings = { window: 0, heavy: 3, far: "clusters", clusters: 7, top: 2 };

/** A sink that keeps all rows. */
class Kept implements TensorSink {
  readonly path = "kept";
  readonly dtype = "f64";
  readonly shape: readonly number[] = [];
  readonly data: number[] = [];

  async write({ rows, cols, data }: Tile): Promise<void> {
    for (let i = 0; i < rows * cols; i++) this.data.push(data[i]);
  }

  async finish(): Promise<void> {}
  async [Symbol.asyncDispose](): Promise<void> {}
}

/** What the session of the last run was asked for, and what it answered. */
interface Seen {
  plan: NearFarPlan | null;
  near: (KeyRows | null)[];
  absorbed: number[];
  output: number[];
}

/** The backend, watched. */
function watched(backend: Backend): { backend: Backend; seen: Seen } {
  const seen: Seen = { plan: null, near: [], absorbed: [], output: [] };
  const watch = (session: NearFarSession): NearFarSession => ({
    counts: session.counts,
    absorb: (k, v) => {
      expect([v.start, v.rows]).toEqual([k.start, k.rows]);
      seen.absorbed.push(k.start);
      return session.absorb(k, v);
    },
    emit: async (q, near, into) => {
      seen.near.push(near);
      const tile = await session.emit(q, near, into);
      for (let i = 0; i < tile.rows * tile.cols; i++) seen.output[q.start * tile.cols + i] = tile.data[i];
      return tile;
    },
    save: () => session.save(),
    load: (state) => session.load(state),
    reset: () => {
      Object.assign(seen, { near: [], absorbed: [], output: [] });
      session.reset();
    },
    [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
  });
  const { name, device, limits } = backend;
  return {
    seen,
    backend: {
      ...{ name, device, limits },
      prepare: (plan) => backend.prepare(plan),
      prepareExact: (plan) => backend.prepareExact(plan),
      prepareLinear: (plan) => backend.prepareLinear(plan),
      prepareNearFar: async (plan) => {
        seen.plan = plan;
        return watch(await backend.prepareNearFar!(plan));
      },
      ...(backend.allocate && {
        allocate: (length: number) => backend.allocate!(length),
        release: (array: FloatArray) => backend.release!(array),
      }),
      [Symbol.asyncDispose]: async () => {},
    },
  };
}

/** One sweep of three samples, each 1 ms of a clock of its own. */
async function measured(backend: Backend, options: Pick<SweepOptions, "settings" | "tensors"> & Partial<SweepOptions>) {
  let ms = 0;
  const points = sweep({
    backends: [{ label: backend.name, backend }],
    lengths: [HELD],
    seed: 3,
    samples: 3,
    seconds: 1,
    peakBytes: () => 0,
    now: () => ms += 100,
    ...options,
  });
  const results: Measurement[] = [];
  for await (const point of points) results.push(point);
  return results;
}

const settingsFor = (nearFar: readonly NearFarSettings[], causal: boolean, features: readonly string[] = []) =>
  settingsOf({ features, numFeatures: [8], projections: ["iid"], causal: [causal], nearFar }, SIZES.headDim);

const attentionFor = (nearFar: NearFarSettings, causal: boolean): Attention => ({
  ...{ features: nearFar.far, numFeatures: 0, projection: "", norms: "chi", seed: 3 },
  ...{ causal, scale: null, given: null, compat: "exact", nearFar },
});

/** Outputs and operations of `attend` over the rows that `bench` holds. */
async function attended(
  backend: Backend,
  attention: Attention,
  tensors: BenchTensors,
  length: number,
  tileRows: number,
) {
  const sink = new Kept();
  const inputs = tensors.inputs(length, tileRows);
  const run = { inputs, attention, backend, refused: [], check: 0, redraws: 0, sink, encoding: null, tileRows };
  const { flops } = await attend({ ...run, peakBytes: () => 0 });
  return { output: sink.data, flops };
}

/** Rows of one role, each number once. */
const counting = (): BenchTensors => {
  const role = (cols: number, from: number) => Float32Array.from({ length: HELD * cols }, (_, i) => Math.sin(from + i));
  const { heads, kvHeads, headDim, valueDim } = SIZES;
  return new BenchTensors(SIZES, {
    q: role(heads * headDim, 1),
    k: role(kvHeads * headDim, 10_000),
    v: role(kvHeads * valueDim, 20_000),
  });
};

/** All of a tensor's rows as inputs deliver them. */
async function rowsAsRead(tensors: BenchTensors, role: "k" | "v", length: number, tileRows: number): Promise<number[]> {
  const all: number[] = [];
  for await (const { data } of tensors.inputs(length, tileRows)[role].tiles(37)) all.push(...data);
  return all;
}

describe("rows as inputs", () => {
  test("are those of the tiles, run over again where they are longer, in any pieces, ranges and precision", async () => {
    const tensors = counting();
    for (const length of [150, 512]) {
      const read = await rowsAsRead(tensors, "v", length, 64);
      const tiles = tensors.tiles("v", length, 64, "f32");
      expect(read).toEqual(tiles.flatMap(({ data }) => Array.from(data)));
      const { cols } = tiles[0];
      const memory = [new Float64Array(50 * cols), new Float64Array(50 * cols)];
      const starts: number[] = [];
      const range = { start: 33, end: 149 };
      for await (
        const tile of tensors.inputs(length, 64).v.tiles(50, { range, precision: "f64", memory })
      ) {
        expect(tile.data.buffer).toBe(memory[starts.length % 2].buffer);
        expect(Array.from(tile.data)).toEqual(read.slice(tile.start * cols, (tile.start + tile.rows) * cols));
        starts.push(tile.start);
      }
      expect(starts).toEqual([33, 83, 133]);
    }
  });
});

describe.each([false, true])("causal %p", (causal) => {
  // The reach of the largest window is more than all rows that are held before they are run over again.
  const windows = [0, 1, 20, 150, 400];
  test.each(windows)(
    "window %p: every call has the rows of the definition near, from one block of memory",
    async (window) => {
      const { backend, seen } = watched(await scalar.open({ named: true }));
      const tensors = counting();
      for (const length of [HELD, 470]) {
        const settings = settingsFor([{ ...TAYLOR, window, heavy: 0, far: "none" }], causal);
        if (window === 0) Object.assign(settings[0], { nearFar: { ...TAYLOR, window, heavy: 0 } });
        await measured(backend, { tensors, settings, lengths: [length], tileRows: 33 });
        const plan = seen.plan!;
        expect(plan.tileRows).toBe(BLOCK_ROWS);
        const starts = Array.from({ length: Math.ceil(length / BLOCK_ROWS) }, (_, i) => i * BLOCK_ROWS);
        expect(seen.absorbed).toEqual(starts);
        const read = { k: await rowsAsRead(tensors, "k", length, 64), v: await rowsAsRead(tensors, "v", length, 64) };
        const buffers = new Set<ArrayBufferLike>();
        for (const [i, near] of seen.near.entries()) {
          const { start, end } = nearRows(plan, starts[i], Math.min(length, starts[i] + BLOCK_ROWS), length);
          if (window === 0 && !causal) {
            expect(near).toBeNull();
            continue;
          }
          for (const role of ["k", "v"] as const) {
            const tile = near![role];
            expect([tile.start, tile.rows]).toEqual([start, end - start]);
            expect(Array.from(tile.data)).toEqual(read[role].slice(start * tile.cols, end * tile.cols));
            buffers.add(tile.data.buffer);
          }
        }
        expect(buffers.size).toBe(window === 0 && !causal ? 0 : 2);
      }
    },
  );

  test.each([TAYLOR, TOP, { ...TOP, top: 0, window: 9 }, { ...TAYLOR, window: 0, heavy: 0, far: "hermite2" } as const])(
    "a sample of %p computes what attend computes, held rows and longer lengths alike",
    async (nearFar) => {
      await using own = await scalar.open({ named: true });
      const { backend, seen } = watched(own);
      const tensors = syntheticTensors(SIZES, HELD, 1, SPREAD);
      const tileRows = 64;
      for (const length of [130, 460]) {
        const [point] = await measured(backend, {
          ...{ tensors, tileRows, lengths: [length] },
          settings: settingsFor([nearFar], causal),
        });
        const { output, flops } = await attended(own, attentionFor(nearFar, causal), tensors, length, tileRows);
        expect(seen.output).toEqual(output);
        expect(point.flops).toBe(flops);
      }
    },
  );

  test("in the memory that wasm lends, with calls in flight", async () => {
    await using own = await wasm.open({ named: true, threads: 2 });
    await using exactly = await scalar.open({ named: true });
    const { backend, seen } = watched(own);
    const tensors = syntheticTensors(SIZES, HELD, 1, SPREAD);
    for (const nearFar of [TAYLOR, { ...TOP, top: causal ? 0 : 2, window: 9 }]) {
      const length = 460, tileRows = 64;
      await measured(backend, { tensors, tileRows, lengths: [length], settings: settingsFor([nearFar], causal) });
      const { output } = await attended(exactly, attentionFor(nearFar, causal), tensors, length, tileRows);
      // |x·y| is at most √d_h·|q||k|/√d_h of normal entries: 4 standard deviations of each of d are beyond all of them.
      const exponent = logitScale(attentionFor(nearFar, causal), SIZES.headDim) * SIZES.headDim * (4 * SPREAD) ** 2;
      const limit = 4 * SPREAD * tolerance({ precision: "f32", exponent, terms: length });
      expect(seen.output.length).toBe(output.length);
      const off = seen.output.reduce((most, x, i) => Math.max(most, Math.abs(x - output[i])), 0);
      expect(off).toBeLessThan(limit);
      expect(off).toBeGreaterThan(UNIT_ROUNDOFF.f64); // it is another backend that answered
    }
  });
});

describe("a near-and-far curve", () => {
  const settings = settingsFor([TAYLOR, TAYLOR, TOP], false, ["positive", "softmax"]);

  test("is one mechanism of the plan, by its name, after the maps", () => {
    expect(settings.map(({ features, nearFar }) => [features, nearFar?.far])).toEqual([
      ["positive", undefined],
      ["softmax", undefined],
      ["window 20, heavy 5, taylor1", "taylor1"],
      ["heavy 3, clusters 7, top 2", "clusters"],
    ]);
    expect(new Set(settings.map(({ numFeatures, projection }) => `${numFeatures} ${projection}`))).toEqual(
      new Set(["8 iid", "null null"]),
    );
  });

  const point = (setting: typeof settings[number], L: number, ms: number): Measurement => ({
    ...{ backend: "fake", device: "fake", threads: null, ...setting, L, heads: 4, headDim: 6, valueDim: 5 },
    ...{ seconds: [ms / 1000], flops: 1, bytes: 1, peakBytes: 1, stages: null },
  });
  const ms = (features: string, L: number) =>
    features === "softmax" ? L * L / 100 : features === "positive" ? 5 * L : L;
  const results = resultsOf(
    [50, 150].flatMap((L) => settings.map((setting) => point(setting, L, ms(setting.features, L)))),
    [],
    null,
  );

  test("has a slope and a crossover of its own", () => {
    const slopes = slopesOf(results);
    expect(slopes.map(({ features }) => features)).toEqual(settings.map(({ features }) => features));
    expect(slopes[2]).toMatchObject({ nearFar: TAYLOR, from: 50, to: 150 });
    expect(slopes[2].slope).toBeCloseTo(1, 10);
    const crossovers = crossoversOf(results);
    expect(crossovers.map(({ features }) => features)).toEqual([
      "positive",
      "window 20, heavy 5, taylor1",
      "heavy 3, clusters 7, top 2",
    ]);
    expect(crossovers[1]).toMatchObject({ kind: "interpolated", fasterAtEnd: "features", nearFar: TAYLOR });
    expect(crossovers[1].L).toBeCloseTo(100, 6); // L = L²/100
    expect(crossovers[0].L).toBeCloseTo(500, 6);
  });

  test("is compared with its own points, also in reports of versions without near keys", () => {
    const machine = { processor: "p", threads: 2, memory: 1, runtime: "r", system: "s" };
    const saved = { date: "2026-01-01T00:00:00.000Z", machine, results };
    const found = compareReports(saved, { machine, results }, "saved.json", 0.05);
    expect(found.points.length).toBe(8);
    expect(found).toMatchObject({ unmatched: 0, missing: 0, regressions: 0 });
    expect(new Set(results.map(pointKey)).size).toBe(8);
    const older = results.filter(({ nearFar }) => !nearFar).map(({ nearFar: _, ...result }) => result as BenchResult);
    expect(compareReports({ ...saved, results: older }, { machine, results }, "saved.json", 0.05)).toMatchObject({
      unmatched: 4,
      missing: 0,
    });
  });
});

test("a backend without kernels refuses these points alone, and so do windows that attend refuses", async () => {
  await using own = await scalar.open({ named: true });
  const { backend } = watched(own);
  const { prepareNearFar: _, ...without } = backend;
  const tensors = syntheticTensors(SIZES, 64, 0, SPREAD);
  const told: string[] = [];
  const refuse: SweepOptions["refuse"] = (_open, { features }, { reason }) => told.push(`${features}: ${reason}`);
  const settings = settingsFor([TAYLOR], false, ["positive"]);
  const points = await measured(without, { tensors, settings, lengths: [64], refuse });
  expect(points.map(({ features }) => features)).toEqual(["positive"]);
  expect(told).toEqual([
    "window 20, heavy 5, taylor1: it has no kernels for near keys and far fields; webgpu, wasm, scalar have",
  ]);
  await expect(measured(without, { tensors, settings })).rejects.toThrow(UnsupportedError);
  // 64 rows and 4095 on either side, of 8192 columns of 8 bytes.
  const wide = { heads: 1, kvHeads: 1, headDim: 1, valueDim: 8192 };
  const rows = (cols: number) => new Float32Array(64 * cols);
  const few = new BenchTensors(wide, { q: rows(1), k: rows(1), v: rows(8192) });
  const window = { ...TAYLOR, window: 5000, heavy: 0 };
  const wider = settingsOf({ features: [], numFeatures: [], projections: [], causal: [false], nearFar: [window] }, 1);
  expect(await measured(backend, { tensors: few, settings: wider, lengths: [4096], tileRows: 64, refuse })).toEqual([]);
  expect(told.at(-1)).toBe(
    `window 5000, taylor1: --window 4096: the keys near a tile take ${
      Math.ceil((64 + 2 * 4095) * 8192 * 8 / 2 ** 20)
    } MiB, ` +
      "at most 512 are taken; use a smaller window, or --features softmax for exact attention",
  );
});
