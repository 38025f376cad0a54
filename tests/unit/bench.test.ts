/** The logic of `bench`: the plan of the sweep, sampling on a clock that only the fake backend moves, figures, comparison. */
import { describe, expect, test } from "bun:test";
import type { Backend } from "../../src/backend.ts";
import { BENCH_SCHEMA, type BenchPeak, type Measurement, type Setting, settingsOf } from "../../src/bench.ts";
import { compareReports, parseSaved } from "../../src/bench_compare.ts";
import { crossoversOf, resultsOf, slopesOf } from "../../src/bench_figures.ts";
import { type OpenBackend, sweep, type SweepOptions, takeSamples } from "../../src/bench_measure.ts";
import { BenchTensors, heldRows, syntheticTensors } from "../../src/bench_tensors.ts";
import { InputError, UnsupportedError, UsageError } from "../../src/errors.ts";
import { RandomStream } from "../../src/random.ts";
import { mannWhitney, quantile, slopeOf } from "../../src/statistics.ts";
import type { Tile } from "../../src/tensor.ts";

const SIZES = { heads: 2, kvHeads: 2, headDim: 4, valueDim: 4 };
const AXES = { features: ["hyperbolic"], numFeatures: [8], projections: ["orthogonal"], causal: [false] };
const HYPERBOLIC: Setting = { features: "hyperbolic", numFeatures: 8, projection: "orthogonal", causal: false };

/** Milliseconds that pass per row of keys or queries, and per pair of exact attention. */
interface Costs {
  readonly perRow: number;
  readonly perPair: number;
}

/** A backend whose calls take time on its own clock; `log` tells what was called. */
class FakeBackend implements Backend {
  readonly name = "scalar";
  readonly limits = { precision: "f32", preferredTileRows: 64, maxTileBytes: 1 << 20, inFlight: 2 } as const;
  readonly log: string[] = [];
  ms = 0;
  pending = 0;
  most = 0;

  readonly threads = 3;

  constructor(readonly costs: Costs, readonly device = "fake × 3 threads") {}

  readonly now = () => this.ms;

  async #spend(ms: number): Promise<void> {
    this.most = Math.max(this.most, ++this.pending);
    this.ms += ms;
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    this.pending--;
  }

  async prepare() {
    const { log, costs } = this;
    const tile = (q: Tile, into?: Tile["data"]): Tile => ({ ...q, data: into ?? q.data });
    let keys = 0;
    return {
      counts: { emptyRows: 0, nonPositive: 0, recomputed: 0 },
      absorb: async (k: Tile, v: Tile) => {
        expect([k.start, k.rows]).toEqual([v.start, v.rows]);
        expect(k.start).toBe(keys);
        keys += k.rows;
        await this.#spend(costs.perRow * k.rows);
      },
      emit: async (q: Tile, own?: { k: Tile } | null, into?: Tile["data"]) => {
        log.push(own ? "emit own" : "emit");
        expect(into!.length).toBeGreaterThanOrEqual(q.data.length);
        if (own) expect(own.k.start).toBe(keys);
        await this.#spend(costs.perRow * q.rows);
        return tile(q, into);
      },
      save: () => Promise.reject(new Error("not asked for")),
      load: () => Promise.reject(new Error("not asked for")),
      reset: () => {
        expect(this.pending).toBe(0);
        keys = 0;
        log.push("reset");
      },
      [Symbol.asyncDispose]: async () => void log.push("close"),
    };
  }

  async prepareExact() {
    let queries = 0;
    return {
      pose: async (q: Tile) => void (queries = q.rows),
      absorb: (k: Tile) => this.#spend(this.costs.perPair * k.rows * queries),
      emit: async () => ({ start: 0, rows: 0, cols: 0, data: new Float32Array() }),
      normalisers: async () => ({ top: new Float64Array(), total: new Float64Array() }),
      [Symbol.asyncDispose]: async () => {},
    };
  }

  prepareLinear(): Promise<never> {
    return Promise.reject(new Error("not asked for"));
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

async function measured(backend: FakeBackend, options: Partial<SweepOptions> = {}): Promise<Measurement[]> {
  const lengths = options.lengths ?? [100, 200];
  const points = sweep({
    backends: [{ label: "fake", backend }],
    settings: [HYPERBOLIC],
    lengths,
    tensors: syntheticTensors(SIZES, lengths.at(-1)!, 0, 0.5),
    seed: 0,
    samples: 10,
    seconds: 3,
    peakBytes: () => 123,
    now: backend.now,
    ...options,
  });
  const results: Measurement[] = [];
  for await (const point of points) results.push(point);
  return results;
}

describe("the plan", () => {
  test("is a product without repetitions", () => {
    const axes = { ...AXES, features: ["hyperbolic", "softmax", "elu"], numFeatures: [8, 16], causal: [false, true] };
    const settings = settingsOf({ ...axes, projections: ["orthogonal", "iid"] }, 4);
    const bidirectional = settings.filter(({ causal }) => !causal);
    expect(settings.length).toBe(2 * bidirectional.length);
    expect(bidirectional.map(({ features, numFeatures, projection }) => [features, numFeatures, projection])).toEqual([
      ["hyperbolic", 8, "orthogonal"],
      ["hyperbolic", 8, "iid"],
      ["hyperbolic", 16, "orthogonal"],
      ["hyperbolic", 16, "iid"],
      ["softmax", null, null],
      ["elu", 4, null],
    ]);
  });

  test("refuses what a map cannot have", () => {
    expect(() => settingsOf({ ...AXES, numFeatures: [7] }, 4)).toThrow(UsageError);
  });
});

describe("the rows", () => {
  test("are seeded, normal with the spread, and prefixes of longer ones", () => {
    const long = syntheticTensors(SIZES, 2000, 3, 0.5);
    const short = syntheticTensors(SIZES, 100, 3, 0.5);
    expect(long.data.k.subarray(0, short.data.k.length)).toEqual(short.data.k);
    expect(syntheticTensors(SIZES, 100, 4, 0.5).data.q).not.toEqual(short.data.q);
    const { q } = long.data;
    const variance = q.reduce((sum, x) => sum + x * x, 0) / q.length;
    expect(Math.sqrt(variance)).toBeCloseTo(0.5, 1);
    expect(new Set(q).size).toBeGreaterThan(0.99 * q.length);
  });

  test("are cut into tiles, in both precisions", () => {
    const tensors = syntheticTensors(SIZES, 100, 0, 0.5);
    const tiles = tensors.tiles("v", 90, 64, "f32");
    expect(tiles.map(({ start, rows, cols }) => [start, rows, cols])).toEqual([[0, 64, 8], [64, 26, 8]]);
    expect(tiles[1].data[0]).toBe(tensors.data.v[64 * 8]);
    const [double] = tensors.tiles("v", 90, 64, "f64");
    expect(double.data).toBeInstanceOf(Float64Array);
    expect(double.data[5]).toBe(tensors.data.v[5]);
  });

  test("run over what is held again where they are longer", () => {
    const data = Float32Array.from({ length: 100 * 8 }, (_, i) => Math.floor(i / 8));
    const tiles = new BenchTensors(SIZES, { q: data, k: data, v: data }).tiles("q", 250, 32, "f32");
    expect(tiles.map(({ rows }) => rows)).toEqual([32, 32, 32, 32, 32, 32, 32, 26]);
    expect(tiles.map((tile) => tile.data[0])).toEqual([0, 32, 64, 0, 32, 64, 0, 32]);
    expect(tiles.every((tile) => tile.data.length === tile.rows * 8)).toBe(true);
    expect(heldRows({ heads: 8, kvHeads: 8, headDim: 64, valueDim: 64 }, 2 ** 20)).toBe(2 ** 17);
  });
});

describe("sampling", () => {
  test("warms up, clears the state before every run and takes the samples asked for", async () => {
    const backend = new FakeBackend({ perRow: 1, perPair: 0 });
    const [point] = await measured(backend, { lengths: [100], seconds: 60 });
    expect(point.seconds).toEqual(new Array(10).fill(0.2));
    expect(backend.log.filter((call) => call === "reset").length).toBe(11);
    expect(backend.log.at(-1)).toBe("close");
    expect(point).toMatchObject({ backend: "fake", threads: 3, L: 100, peakBytes: 123, stages: null });
    // q, k, v and the output of 2 heads × 4 columns, 4 bytes each
    expect(point.bytes).toBe(100 * 4 * 8 * 4);
  });

  test("short runs are warmed up for longer, long ones end after three samples", async () => {
    const short = new FakeBackend({ perRow: 0.11, perPair: 0 });
    await measured(short, { lengths: [100], seconds: 60 });
    expect(short.log.filter((call) => call === "reset").length).toBe(10 + 10); // 0.2 s of 22 ms each
    const long = await measured(new FakeBackend({ perRow: 100, perPair: 0 }), { lengths: [100] });
    expect(long[0].seconds.length).toBe(3);
    const between = await measured(new FakeBackend({ perRow: 2.5, perPair: 0 }), { lengths: [100] });
    expect(between[0].seconds.length).toBe(6); // 0.5 s each, until 3 s have passed
  });

  test("keeps as many calls in flight as the backend allows", async () => {
    for (const causal of [false, true]) {
      const backend = new FakeBackend({ perRow: 1, perPair: 0 });
      await measured(backend, { lengths: [500], settings: [{ ...HYPERBOLIC, causal }] });
      expect(backend.most).toBe(2);
      expect(new Set(backend.log)).toEqual(new Set(["reset", causal ? "emit own" : "emit", "close"]));
    }
  });

  test("measures all settings at one L before the next", async () => {
    const backend = new FakeBackend({ perRow: 1, perPair: 0.01 });
    const settings = settingsOf({ ...AXES, features: ["hyperbolic", "softmax"] }, 4);
    const seen: string[] = [];
    const points = await measured(backend, {
      settings,
      progress: ({ L, features }, number, all, done) => done === 0 && seen.push(`${number}/${all} ${features} ${L}`),
    });
    expect(seen).toEqual(["1/4 hyperbolic 100", "2/4 softmax 100", "3/4 hyperbolic 200", "4/4 softmax 200"]);
    expect(points.map(({ features, L }) => [features, L])).toEqual([
      ["hyperbolic", 100],
      ["softmax", 100],
      ["hyperbolic", 200],
      ["softmax", 200],
    ]);
  });

  test("causal exact attention skips the tiles of later keys", async () => {
    const exact = { features: "softmax", numFeatures: null, projection: null };
    const time = async (causal: boolean) => {
      const points = await measured(new FakeBackend({ perRow: 0, perPair: 0.01 }), {
        settings: [{ ...exact, causal }],
        lengths: [256],
      });
      return points[0].seconds[0];
    };
    expect(await time(true) / await time(false)).toBeCloseTo(10 / 16, 10); // blocks of 64 on and below the diagonal
  });

  test("ends at an abort between samples", async () => {
    const abort = new AbortController();
    const found: Measurement[] = [];
    const backend = new FakeBackend({ perRow: 1, perPair: 0 });
    const points = sweep({
      ...await base(backend),
      lengths: [100, 200],
      signal: abort.signal,
      progress: ({ L }, _number, _all, done) => L === 200 && done === 1 && abort.abort(new Error("stop")),
    });
    const all = (async () => {
      for await (const point of points) found.push(point);
    })();
    await expect(all).rejects.toThrow("stop");
    expect(found.map(({ L }) => L)).toEqual([100]);
  });

  test("stages are seconds of one timed run, without the warm-up", async () => {
    const stages = { pack: 0, features: 0, exp: 0, accumulate: 0, emit: 0 };
    let ms = 0;
    const run = {
      stages,
      reset: () => {},
      run: async () => {
        ms += 250;
        stages.exp += 0.125;
      },
    };
    const found = await takeSamples(run, { samples: 4, seconds: 9, now: () => ms });
    expect(found.seconds).toEqual([0.25, 0.25, 0.25, 0.25]);
    expect(found.stages).toEqual({ pack: 0, features: 0, exp: 0.125, accumulate: 0, emit: 0 });
  });

  test("goes on where one backend cannot run a point", async () => {
    const good = new FakeBackend({ perRow: 1, perPair: 0 });
    const bad = new FakeBackend({ perRow: 1, perPair: 0 }, "bad");
    bad.prepare = () => Promise.reject(new UnsupportedError("bad", "too small"));
    const told: string[] = [];
    const backends = [{ label: "bad", backend: bad }, { label: "good", backend: good }];
    const points = await measured(good, {
      backends,
      refuse: ({ label }, { L }, error) => told.push(`${label} ${L} ${error.reason}`),
    });
    expect(points.map(({ backend }) => backend)).toEqual(["good", "good"]);
    expect(told).toEqual(["bad 100 too small", "bad 200 too small"]);
    await expect(measured(good, { backends })).rejects.toThrow(UnsupportedError);
  });
});

async function base(backend: FakeBackend): Promise<SweepOptions> {
  const backends: OpenBackend[] = [{ label: "fake", backend }];
  const tensors = syntheticTensors(SIZES, 200, 0, 0.5);
  const { now } = backend;
  return {
    backends,
    settings: [HYPERBOLIC],
    lengths: [100],
    tensors,
    seed: 0,
    samples: 3,
    seconds: 1,
    peakBytes: () => 0,
    now,
  };
}

describe("figures", () => {
  test("of one point, beside the peak and the faster copy", async () => {
    const points = await measured(new FakeBackend({ perRow: 1, perPair: 0 }), { lengths: [100] });
    const peak: BenchPeak = { backend: "fake", device: "fake × 3 threads", threads: 3, gflops: 1e-3, gbps: 1e-3 };
    const [result] = resultsOf(points, [peak], 0.5e-3);
    // 2 · 4 · m for W x (m = 4) and 2 · 8 · 5 for the sums, of 2 heads of queries and of keys
    expect(result.flops).toBe(100 * 4 * (2 * 4 * 4 + 2 * 8 * 5));
    expect(result).toMatchObject({ median: 0.2, p5: 0.2, p95: 0.2, tokensPerSecond: 500 });
    expect(result.gflops).toBeCloseTo(result.flops / 0.2e9, 12);
    expect(result.percentOfPeak).toBeCloseTo(100 * result.flops / 0.2 / 1e6, 8);
    expect(result.ceilingTokensPerSecond).toBeCloseTo(1e6 / 128, 8);
    expect(result.percentOfCeiling).toBeCloseTo(100 * 500 * 128 / 1e6, 8);
    const [bare] = resultsOf(points, [], null);
    expect([bare.percentOfPeak, bare.ceilingTokensPerSecond, bare.percentOfCeiling]).toEqual([null, null, null]);
  });

  test("slopes are 1 for features and 2 for exact attention, and they cross where their times are equal", async () => {
    const settings = settingsOf({ ...AXES, features: ["hyperbolic", "softmax"] }, 4);
    const backend = new FakeBackend({ perRow: 1, perPair: 0.01 });
    const results = resultsOf(await measured(backend, { settings, lengths: [100, 150, 300] }), [], null);
    const [linear, exact] = slopesOf(results);
    expect([linear.features, linear.from, linear.to]).toEqual(["hyperbolic", 100, 300]);
    expect(linear.slope).toBeCloseTo(1, 10);
    expect(exact.slope).toBeCloseTo(2, 10);
    const [crossover, ...others] = crossoversOf(results);
    expect(others).toEqual([]);
    expect(crossover).toMatchObject({
      features: "hyperbolic",
      kind: "interpolated",
      fasterAtEnd: "features",
      from: 100,
      to: 300,
    });
    expect(crossover.L).toBeCloseTo(200, 6); // 2 · L = 0.01 · L²
  });

  test("crossovers beyond the points are extrapolated, or told to be none", () => {
    const at = (linear: number, exact: number, lengths = [64, 128]) => {
      const point = (setting: Setting, L: number, ms: number) => ({
        ...POINT,
        ...setting,
        L,
        seconds: [ms / 1000],
      });
      const exactly = { features: "softmax", numFeatures: null, projection: null, causal: false };
      const points = lengths.flatMap((L) => [point(HYPERBOLIC, L, linear * L), point(exactly, L, exact * L * L)]);
      return crossoversOf(resultsOf(points, [], null))[0];
    };
    expect(at(1, 1 / 500)).toMatchObject({ kind: "extrapolated", fasterAtEnd: "softmax" });
    expect(at(1, 1 / 500).L).toBeCloseTo(500, 6);
    expect(at(1, 1 / 10)).toMatchObject({ kind: "extrapolated", fasterAtEnd: "features" });
    expect(at(1, 1 / 10).L).toBeCloseTo(10, 6);
    expect(at(1, 1e-6)).toMatchObject({ kind: "none", L: null, fasterAtEnd: "softmax" });
    expect(at(1, 10)).toMatchObject({ kind: "none", L: null, fasterAtEnd: "features" });
    expect(at(1, 1, [64])).toBeUndefined();
  });
});

const POINT: Measurement = {
  backend: "fake",
  device: "fake",
  threads: null,
  ...HYPERBOLIC,
  L: 64,
  heads: 2,
  headDim: 4,
  valueDim: 4,
  seconds: [1],
  flops: 1,
  bytes: 1,
  peakBytes: 1,
  stages: null,
};
const MACHINE = { processor: "p", threads: 2, memory: 1, runtime: "r", system: "s" };

describe("comparison", () => {
  const report = (points: Partial<Measurement>[]) => ({
    schema: BENCH_SCHEMA as typeof BENCH_SCHEMA,
    date: "2026-01-01T00:00:00.000Z",
    machine: MACHINE,
    results: resultsOf(points.map((point) => ({ ...POINT, ...point })), [], null),
  });
  const about = (seconds: number, n = 10) =>
    Array.from({ length: n }, (_, i) => seconds * (1 + (i % 5) / 1000 + i / 1e6));

  test("a slower row fails, a faster or equal one does not", () => {
    const saved = report([{ L: 1, seconds: about(1) }, { L: 2, seconds: about(1) }, { L: 3, seconds: about(1) }]);
    const now = report([{ L: 1, seconds: about(1.2) }, { L: 2, seconds: about(0.8) }, { L: 3, seconds: about(1.04) }]);
    const found = compareReports(saved, now, "saved.json", 0.05);
    expect(found.points.map(({ verdict }) => verdict)).toEqual(["slower", "faster", "same"]);
    expect(found.points[0].ratio).toBeCloseTo(1.2, 8);
    expect(found.points[0].p).toBeLessThan(1e-4);
    expect(found.points[2].p).toBeLessThan(0.05); // significant, but smaller than the threshold
    expect(found).toMatchObject({ regressions: 1, unmatched: 0, missing: 0, sameMachine: true });
    expect(found.meanRatio).toBeCloseTo(Math.cbrt(1.2 * 0.8 * 1.04), 8);
    expect(compareReports(saved, now, "saved.json", 0.03).regressions).toBe(2);
  });

  test("a large difference that chance explains does not count", () => {
    const saved = report([{ seconds: [1, 2, 3, 4, 5] }]);
    const now = report([{ seconds: [1.5, 2.5, 3.5, 4.5, 5.5] }]);
    expect(compareReports(saved, now, "saved.json", 0.05).points[0]).toMatchObject({ verdict: "same" });
  });

  test("three samples that all are slower count", () => {
    const found = compareReports(report([{ seconds: [1, 1.1, 1.2] }]), report([{ seconds: [2, 2.1, 2.2] }]), "f", 0.05);
    expect(found.regressions).toBe(1);
  });

  test("rows without a partner are counted, devices may be renamed", () => {
    const saved = report([{ L: 1, device: "old name" }, { L: 2 }, { L: 4, threads: 8 }]);
    const now = { ...report([{ L: 1 }, { L: 3 }]), machine: { ...MACHINE, runtime: "other" } };
    expect(compareReports(saved, now, "saved.json", 0)).toMatchObject({ unmatched: 1, missing: 2, sameMachine: false });
  });

  test("what is not a saved report is an input error that says so", () => {
    const parse = (value: unknown) => () =>
      parseSaved(typeof value === "string" ? value : JSON.stringify(value), "f.json");
    const good = report([{ L: 1 }]);
    expect(parse(good)().results.length).toBe(1);
    for (
      const bad of ["not json", {}, null, [], { ...good, schema: "performer-bench/1" }, {
        ...good,
        results: [{ L: 1 }],
      }, {
        ...good,
        results: [{ ...POINT, seconds: [0.1, "x"] }],
      }]
    ) {
      expect(parse(bad)).toThrow(InputError);
      expect(parse(bad)).toThrow("f.json");
    }
    expect(parse({ ...good, schema: "performer-bench/1" })).toThrow(BENCH_SCHEMA);
  });
});

describe("statistics", () => {
  test("slope of a line", () => {
    expect(slopeOf([0, 1, 2], [1, 3, 5])).toBeCloseTo(2, 12);
    expect(slopeOf([1, 1], [1, 2])).toBeNaN();
  });

  test("Mann–Whitney: exact tail probabilities", () => {
    expect(mannWhitney([1, 2, 3], [4, 5, 6])).toBeCloseTo(1 / 20, 12);
    expect(mannWhitney([4, 5, 6], [1, 2, 3])).toBeCloseTo(1, 12);
    expect(mannWhitney([1, 2, 3, 4], [5, 6, 7, 8])).toBeCloseTo(1 / 70, 12);
    expect(mannWhitney([1, 2, 3, 5.5, 4.5], [4, 5, 6, 7, 8])).toBeCloseTo(
      tail([1, 2, 3, 5.5, 4.5], [4, 5, 6, 7, 8]),
      12,
    );
    expect(mannWhitney([1, 3, 5, 7, 9, 11], [2, 4, 6, 8])).toBeCloseTo(tail([1, 3, 5, 7, 9, 11], [2, 4, 6, 8]), 12);
  });

  test("Mann–Whitney: ties, and the normal approximation beside the exact count", () => {
    expect(mannWhitney([1, 1, 1], [1, 1, 1])).toBe(1);
    const random = new RandomStream(5);
    const a = Array.from(random.normals(25));
    const b = Array.from(random.normals(25), (x) => x + 0.5);
    const exact = mannWhitney(a, b);
    expect(mannWhitney([...a, a[0]], [...b, b[0]])).toBeCloseTo(exact, 1);
    expect(exact).toBeLessThan(0.2);
  });

  test("Mann–Whitney: at most one in twenty samples of one distribution is called different", () => {
    const random = new RandomStream(6);
    const rounds = 4000;
    let called = 0;
    for (let round = 0; round < rounds; round++) {
      if (mannWhitney(Array.from(random.normals(8)), Array.from(random.normals(10))) <= 0.05) called++;
    }
    expect(called / rounds).toBeLessThan(0.06);
    expect(called / rounds).toBeGreaterThan(0.03);
  });
});

/** P(U ≥ observed) by going through all ways to name the samples. */
function tail(a: readonly number[], b: readonly number[]): number {
  const all = [...a, ...b];
  const wins = (first: readonly number[], second: readonly number[]) => {
    return first.reduce((sum, x) => sum + second.filter((y) => y > x).length, 0);
  };
  const observed = wins(a, b);
  let [hits, ways] = [0, 0];
  for (let mask = 0; mask < 2 ** all.length; mask++) {
    const [first, second] = [all.filter((_, i) => (mask >> i) % 2 === 0), all.filter((_, i) => (mask >> i) % 2 === 1)];
    if (first.length !== a.length) continue;
    ways++;
    if (wins(first, second) >= observed) hits++;
  }
  return hits / ways;
}

test("medians and quantiles are those of the samples", () => {
  const [result] = resultsOf([{ ...POINT, seconds: [5, 1, 4, 2, 3] }], [], null);
  expect([result.median, result.p5, result.p95]).toEqual([
    3,
    quantile([1, 2, 3, 4, 5], 0.05),
    quantile([1, 2, 3, 4, 5], 0.95),
  ]);
  expect(result.seconds).toEqual([5, 1, 4, 2, 3]); // as they were taken
});
