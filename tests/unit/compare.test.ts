/** The logic of `compare`: the grid, the number of draws, the front, the best; and its measuring against the check of `attend`. */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import type { Backend } from "../../src/backend.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { doublings } from "../../src/commands/flags.ts";
import {
  bestOf,
  type CompareRow,
  compareWarnings,
  drawsFor,
  entrantsOf,
  paretoFront,
  ranked,
} from "../../src/compare.ts";
import { type CompareOptions, compareSettings } from "../../src/compare_measure.ts";
import { UnsupportedError, UsageError } from "../../src/errors.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { Inputs } from "../../src/inputs.ts";
import type { Refusal } from "../../src/report.ts";
import { attend, sizesOf } from "../../src/run.ts";
import { npyBytes, scratch, wave } from "../cli/process.ts";

const { path, remove } = scratch();
afterAll(remove);

const COMMON = { norms: "chi", seed: 3, causal: false, scale: null, given: null, compat: "exact" } as const;

describe("the grid", () => {
  test("every map with every length and projection, each once", () => {
    const axes = { features: ["hyperbolic", "elu"], numFeatures: [8, 16], projections: ["orthogonal", "iid"] };
    const entrants = entrantsOf(axes, 6, COMMON);
    expect(entrants.map(({ features, numFeatures, projection }) => [features, numFeatures, projection])).toEqual([
      ["hyperbolic", 8, "orthogonal"],
      ["hyperbolic", 8, "iid"],
      ["hyperbolic", 16, "orthogonal"],
      ["hyperbolic", 16, "iid"],
      ["elu", 6, null], // no projection: as many features as columns, whatever is asked for
    ]);
    expect(entrants[1].attention).toMatchObject({
      ...COMMON,
      features: "hyperbolic",
      numFeatures: 8,
      projection: "iid",
    });
  });

  test("a length that a map cannot have is refused with one that it can have", () => {
    const axes = { features: ["positive", "hyperbolic"], numFeatures: [15], projections: ["iid"] };
    expect(() => entrantsOf(axes, 6, COMMON)).toThrow(UsageError);
    expect(() => entrantsOf(axes, 6, COMMON)).toThrow("give an even number such as 16");
  });

  test("ranges double", () => {
    expect(doublings("64")).toEqual([64]);
    expect(doublings("64..1024")).toEqual([64, 128, 256, 512, 1024]);
    expect(doublings("64..1000")).toEqual([64, 128, 256, 512]);
    expect(doublings("96..96")).toEqual([96]);
    for (const text of ["", "64..", "..64", "1024..64", "64..x", "0..8", "64...256", "64..128..256"]) {
      expect(() => doublings(text)).toThrow(UsageError);
    }
  });

  test("three draws where they are affordable", () => {
    const axes = {
      features: ["hyperbolic", "positive", "trigonometric"],
      numFeatures: [64, 256],
      projections: ["iid"],
    };
    const sizes = (rows: number) => ({
      queryRows: rows,
      keyRows: rows,
      heads: 8,
      kvHeads: 8,
      headDim: 64,
      valueDim: 64,
    });
    const draws = (rows: number, causal: boolean, backends = 1) =>
      drawsFor(entrantsOf(axes, 64, { ...COMMON, causal }), sizes(rows), backends);
    expect(draws(100_000, false)).toBe(3);
    expect(draws(1_000_000, false)).toBe(1);
    // Causal passes answer every row on the way: twice the work. So do two backends.
    expect([draws(150_000, false), draws(150_000, true), draws(150_000, false, 2)]).toEqual([3, 1, 1]);
  });
});

/** A row with these draws and seconds; the mean of V has error 1. */
function row(
  features: string,
  samples: number[],
  seconds: number,
  more: Partial<CompareRow> = {},
): Omit<CompareRow, "pareto"> {
  const value = samples.reduce((product, sample) => product * sample, 1) ** (1 / samples.length);
  return {
    features,
    numFeatures: 64,
    projection: "iid",
    backend: "scalar",
    relativeL2: { value, low: value, high: value },
    intervalOver: "draws" as const,
    uniformBaseline: 1,
    skill: 1 - value ** 2,
    draws: { count: samples.length, samples },
    seconds,
    tokensPerSecond: 100 / seconds,
    flopsPerToken: 1000,
    stateBytes: 100,
    nearFar: null,
    flags: ["--features", features],
    nonPositive: 0,
    ...more,
  };
}

const EXACT = {
  secondsEstimated: 10,
  backend: "scalar",
  flopsPerToken: 1,
  tokensPerSecond: 1,
  rowsTimed: 1,
  stateBytes: 1,
};

describe("the choice", () => {
  test("the front: nothing else is at least as good in both error and time", () => {
    const ways = [[0.1, 9], [0.2, 5], [0.3, 6], [0.4, 5], [0.2, 7], [0.5, 1], [NaN, 0]];
    expect(paretoFront(ways.map(([error, seconds]) => ({ error, seconds })))).toEqual(
      [true, true, false, false, false, true, false],
    );
  });

  test("rows by error; exact attention and the mean of V bar from the front what they beat in both", () => {
    const rows = ranked([
      row("slow", [0.1], 11), // exact attention has less error in less time
      row("worse", [1.5], 0.1), // so has the mean of V
      row("broken", [NaN], 0.1),
      row("good", [0.2], 2),
      row("fast", [0.3], 1),
    ], EXACT);
    expect(rows.map(({ features, pareto }) => [features, pareto])).toEqual([
      ["slow", false],
      ["good", true],
      ["fast", true],
      ["worse", false],
      ["broken", false],
    ]);
  });

  test("backends differ by rounding only: the fastest of a setting comes first, and the others are not on the front", () => {
    const rows = ranked([
      row("a", [0.2], 9, { backend: "slow" }),
      row("a", [0.2 + 1e-8], 1, { backend: "fast" }),
      row("a", [0.9], 0.5, { backend: "wrong" }), // no rounding does that: it stays where its error is
      row("b", [0.3], 2),
    ], EXACT);
    expect(rows.map(({ backend, pareto }) => [backend, pareto])).toEqual([
      ["fast", true],
      ["slow", false],
      ["scalar", false],
      ["wrong", true],
    ]);
  });

  test("the best, and in how many paired draws it is ahead of the next", () => {
    const rows = ranked([
      row("b", [0.3, 0.2, 0.5], 2),
      row("a", [0.2, 0.3, 0.4], 1),
      row("a", [0.2, 0.3, 0.4], 4, { backend: "wasm" }), // the same setting elsewhere is no rival
    ], EXACT);
    expect(bestOf(rows, EXACT)).toEqual({
      features: "a",
      numFeatures: 64,
      projection: "iid",
      backend: "scalar",
      relativeL2: rows[0].relativeL2.value,
      skill: rows[0].skill,
      betterThanUniform: true,
      flags: ["--features", "a"],
      speedup: 10,
      next: {
        features: "b",
        numFeatures: 64,
        projection: "iid",
        backend: "scalar",
        relativeL2: rows[2].relativeL2.value,
        wins: 2,
        draws: 3,
      },
    });
    expect(bestOf(ranked([row("broken", [NaN], 1)], EXACT), EXACT)).toBeNull();
    expect(bestOf([], EXACT)).toBeNull();
  });

  test("warnings: useless, own kernels, denominators", () => {
    const warnings = (rows: Parameters<typeof ranked>[0], phi: number) => {
      const all = ranked(rows, EXACT);
      return compareWarnings({ rows: all, best: bestOf(all, EXACT), phi, exact: EXACT });
    };
    const [useless, ...others] = warnings([row("hyperbolic", [1.2], 1), row("positive", [1.4], 1)], 16);
    expect(others).toEqual([]);
    expect(useless).toMatchObject({ code: "no-skill", message: expect.stringContaining("None of these is better") });
    expect(useless.remedy).toContain("= 16.0");
    expect(useless.remedy).toContain("-m 256");
    expect(warnings([row("hyperbolic", [0.1], 1)], 1)).toEqual([]);
    expect(
      warnings([row("relu", [0.1], 1), row("trigonometric", [0.2], 1, { nonPositive: 0.01 })], 1).map(({ code }) =>
        code
      ),
    )
      .toEqual(["own-kernel", "non-positive"]);
    expect(warnings([row("hyperbolic", [0.9], 1)], 1).map(({ code }) => code)).toEqual(["low-skill"]);
  });
});

describe("the measuring", () => {
  const files = async () => {
    writeFileSync(path("x.npy"), npyBytes([200, 16], (i) => 0.9 * wave(i)));
    const container = await openContainer(path("x.npy"), {});
    const source = await container.open(undefined, { heads: 2 });
    return { container, inputs: new Inputs(source, source, source, null) };
  };

  const options = async (inputs: Inputs, backend: Backend, more: Partial<CompareOptions>): Promise<CompareOptions> => ({
    inputs,
    sizes: sizesOf(inputs, false),
    backends: [{ label: "scalar", backend }],
    entrants: [],
    check: 50,
    draws: 1,
    rowsTimed: 64,
    peakBytes: () => 0,
    refuse: ({ name, reason }) => {
      throw new Error(`${name}: ${reason}`);
    },
    ...more,
  });

  test.each([false, true])(
    "causal %p: draw i of every setting is what attend measures with that draw",
    async (causal) => {
      await using backend = await scalar.open({ named: true });
      const { container, inputs } = await files();
      await using _container = container;
      const axes = {
        features: ["hyperbolic", "hyp-aderf+sderf", "relu", "elu"],
        numFeatures: [8, 32],
        projections: ["orthogonal", "iid"],
      };
      const entrants = entrantsOf(axes, 8, { ...COMMON, causal });
      const passes: string[] = [];
      const found = await compareSettings(
        await options(inputs, backend, { entrants, draws: 3, progress: (stage) => void passes.push(stage) }),
      );
      // 12 settings in three draws and one in one: more sessions than one pass takes.
      expect(new Set(passes.filter((stage) => stage.includes("pass"))).size).toBe(5);
      expect(found.rows).toHaveLength(13);
      expect(found.sampling).toEqual({ rowsChecked: 50, draws: 3, rowsTimed: 64 });
      for (const { attention, features, numFeatures, projection } of entrants) {
        const row = found.rows.find((one) =>
          one.features === features && one.numFeatures === numFeatures && one.projection === projection
        )!;
        const { error, flops } = await attend({
          inputs,
          attention,
          backend,
          refused: [],
          check: 50,
          redraws: projection === null ? 0 : 2,
          sink: null,
          encoding: null,
          peakBytes: () => 0,
        });
        // The same numbers but for the order of sums: queries are asked one by one, or tile by tile.
        const wanted = [error!.relativeL2.value, ...(error!.redraws?.samples ?? [])];
        expect(row.draws.count).toBe(wanted.length);
        row.draws.samples.forEach((sample, i) => expect(Math.abs(sample / wanted[i] - 1)).toBeLessThan(1e-12));
        expect(row.intervalOver).toBe(projection === null ? "rows" : "draws");
        expect(row.uniformBaseline).toBe(error!.uniformBaseline);
        expect(row.flopsPerToken).toBe(flops / 200);
        if (features !== "elu") expect(found.phi / error!.phi).toBeCloseTo(1, 12);
        expect(row.skill).toBeCloseTo(1 - (row.relativeL2.value / row.uniformBaseline) ** 2, 12);
        if (projection !== null) continue;
        expect(row.skill).toBeCloseTo(error!.skill, 10);
        expect(row.relativeL2.high).toBeCloseTo(error!.relativeL2.high, 10);
      }
      expect(found.rows.map(({ relativeL2 }) => relativeL2.value)).toEqual(
        found.rows.map(({ relativeL2 }) => relativeL2.value).toSorted((a, b) => a - b),
      );
      expect(found.rows.every(({ seconds, tokensPerSecond }) => Math.abs(seconds * tokensPerSecond / 200 - 1) < 1e-12))
        .toBe(true);
    },
  );

  test.each([false, true])("causal %p: near keys and far fields are what attend makes of them", async (causal) => {
    await using backend = await scalar.open({ named: true });
    const { container, inputs } = await files();
    await using _container = container;
    const near = { window: 8, heavy: 4, far: "taylor1", clusters: 0, top: 0 } as const;
    const nearFar = [near, { ...near, window: 0, heavy: 0 }, near]; // each once
    const axes = { features: ["positive"], numFeatures: [8], projections: ["iid"], nearFar };
    const entrants = entrantsOf(axes, 8, { ...COMMON, causal });
    expect(entrants.map(({ features }) => features)).toEqual(["positive", "window 8, heavy 4, taylor1", "taylor1"]);
    const { rows } = await compareSettings(await options(inputs, backend, { entrants, draws: 2 }));
    expect(rows).toHaveLength(3);
    for (const { attention, features } of entrants.slice(1)) {
      const row = rows.find((one) => one.features === features)!;
      const what = { inputs, attention, backend, refused: [], check: 50, redraws: 0, sink: null, encoding: null };
      const { error, flops } = await attend({ ...what, peakBytes: () => 0 });
      expect(row.draws).toEqual({ count: 1, samples: [error!.relativeL2.value] });
      expect(row.relativeL2).toEqual(error!.relativeL2);
      expect(row).toMatchObject({
        numFeatures: null,
        projection: null,
        nearFar: attention.nearFar!,
        intervalOver: "rows",
      });
      expect(row.flopsPerToken).toBe(flops / 200);
      expect(row.seconds).toBeGreaterThan(0);
    }
    expect(rows.find(({ nearFar }) => nearFar && nearFar.window > 0)!.flags).toEqual(
      ["--window", "8", "--heavy", "4", "--far", "taylor1"],
    );
  });

  /** The scalar backend without a kind of maps. */
  const without = (backend: Backend, names: readonly string[]): Backend => ({
    ...backend,
    name: backend.name,
    device: backend.device,
    limits: backend.limits,
    prepare: (plan) => {
      if (names.includes(plan.parameters.map.name)) {
        throw new UnsupportedError("scalar", `no ${plan.parameters.map.name}`);
      }
      return backend.prepare(plan);
    },
    prepareExact: (plan) => backend.prepareExact(plan),
    prepareLinear: (plan) => backend.prepareLinear(plan),
    [Symbol.asyncDispose]: async () => {},
  });

  test("a setting that a backend cannot run is told and left out; without any other that ends it", async () => {
    await using whole = await scalar.open({ named: true });
    const { container, inputs } = await files();
    await using _container = container;
    const axes = { features: ["positive", "trigonometric"], numFeatures: [8], projections: ["iid"] };
    const entrants = entrantsOf(axes, 8, COMMON);
    const refused: Refusal[] = [];
    const refuse = (refusal: Refusal) => void refused.push(refusal);
    const some = await options(inputs, without(whole, ["positive"]), { entrants, draws: 2, refuse });
    const { rows } = await compareSettings(some);
    expect(rows.map(({ features }) => features)).toEqual(["trigonometric"]);
    expect(refused).toEqual([{ name: "scalar positive 8", reason: "no positive" }]);
    const none = await options(inputs, without(whole, ["positive", "trigonometric"]), { entrants, refuse });
    await expect(compareSettings(none)).rejects.toBeInstanceOf(UnsupportedError);
  });

  test("values that are all alike: the error is 0 and the skill 1", async () => {
    await using backend = await scalar.open({ named: true });
    writeFileSync(path("ones.npy"), npyBytes([40, 8], () => 1));
    await using container = await openContainer(path("ones.npy"), {});
    const source = await container.open(undefined, {});
    const inputs = new Inputs(source, source, source, null);
    const axes = { features: ["positive"], numFeatures: [8], projections: ["iid"] };
    const entrants = entrantsOf(axes, 8, COMMON);
    const { rows: [row] } = await compareSettings(await options(inputs, backend, { entrants, draws: 3 }));
    // Weighted means of ones, exact but for rounding: r terms in numerator and denominator.
    expect(row.relativeL2.value).toBeLessThan(8 * 2 ** -52);
    expect(Number.isNaN(row.relativeL2.low)).toBe(false);
  });

  test("an abort ends it", async () => {
    await using backend = await scalar.open({ named: true });
    const { container, inputs } = await files();
    await using _container = container;
    const entrants = entrantsOf({ features: ["positive"], numFeatures: [8], projections: ["iid"] }, 8, COMMON);
    const stop = new AbortController();
    const measuring = compareSettings(
      await options(inputs, backend, {
        entrants,
        signal: stop.signal,
        progress: () => stop.abort(new Error("stopped")),
      }),
    );
    await expect(measuring).rejects.toThrow("stopped");
  });
});
