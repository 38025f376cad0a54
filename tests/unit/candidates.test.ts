/** What `tune` and `--features auto` choose from, how a setting is written as flags, and slices of inputs. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Attention, flopCount, parametersFor, type Sizes } from "../../src/attention.ts";
import { budgetOf, type Candidate, candidatesFor, TRIED_MAPS } from "../../src/candidates.ts";
import { attentionFrom } from "../../src/commands/attend_files.ts";
import type { Source, Terminal } from "../../src/commands/command.ts";
import { parseFar, parseShrink } from "../../src/commands/near_far_flags.ts";
import { parse } from "../../src/commands/parse.ts";
import { Inputs } from "../../src/inputs.ts";
import { sliceInputs } from "../../src/row_slice.ts";
import { settingFlags, settingName } from "../../src/setting_words.ts";
import { sliceOf } from "../../src/row_slice.ts";
import { memoryTensor } from "./memory_tensor.ts";

/** What a command line of `attend` asks for, through the real parser. */
async function attentionOf(...args: string[]): Promise<Attention> {
  const err: string[] = [];
  const terminal = { env: {}, columns: 100, out: () => {}, err: (text: string) => void err.push(text) };
  const parsed = parse(["attend", "x.npy", ...args], terminal as unknown as Terminal);
  if (typeof parsed === "number") throw new Error(err.join(""));
  const { invocation, given } = parsed;
  const names = Object.keys(invocation.flags);
  const sources = Object.fromEntries(
    names.map((name): [string, Source] => [name, given.has(name) ? "flag" : "default"]),
  );
  return await attentionFrom({ flags: invocation.flags, sources });
}

const SHAPES: readonly Sizes[] = [
  { queryRows: 2000, keyRows: 2000, heads: 4, kvHeads: 4, headDim: 64, valueDim: 64 },
  { queryRows: 30_000, keyRows: 30_000, heads: 4, kvHeads: 2, headDim: 16, valueDim: 8 },
  { queryRows: 300, keyRows: 300, heads: 1, kvHeads: 1, headDim: 128, valueDim: 128 },
  { queryRows: 50, keyRows: 900, heads: 2, kvHeads: 2, headDim: 32, valueDim: 32 },
];
const maps = TRIED_MAPS, numFeatures = [64, 256];

async function grid(sizes: Sizes, causal: boolean, budget?: number): Promise<Candidate[]> {
  const base = await attentionOf(...(causal ? ["--causal"] : []));
  return candidatesFor({ sizes, base, budget, tops: true, maps, numFeatures });
}

describe("candidates", () => {
  for (const sizes of SHAPES) {
    for (const causal of sizes.queryRows === sizes.keyRows ? [false, true] : [false]) {
      const name = `${sizes.queryRows} × ${sizes.keyRows}, d = ${sizes.headDim}${causal ? ", causal" : ""}`;

      test(`${name}: none costs more than exact attention or the budget, cheapest first, each once`, async () => {
        const base = await attentionOf(...(causal ? ["--causal"] : []));
        const exact = flopCount({ ...base, features: "softmax" }, sizes, null) / sizes.queryRows;
        const budget = budgetOf(256, sizes);
        const [all, some] = [await grid(sizes, causal), await grid(sizes, causal, budget)];
        expect(all.length).toBeGreaterThan(3);
        for (const { attention, flopsPerRow } of all) {
          const parameters = attention.nearFar ? null : parametersFor(attention, sizes);
          expect(flopsPerRow).toBe(flopCount(attention, sizes, parameters) / sizes.queryRows);
          expect(flopsPerRow).toBeLessThanOrEqual(exact);
        }
        expect(all.map(({ flopsPerRow }) => flopsPerRow)).toEqual(
          all.map((one) => one.flopsPerRow).sort((a, b) => a - b),
        );
        expect(some).toEqual(all.filter(({ flopsPerRow }) => flopsPerRow <= budget));
        expect(new Set(all.map(({ attention }) => settingName(attention))).size).toBe(all.length);
      });

      test(`${name}: the flags of every candidate ask for that candidate`, async () => {
        for (const { attention } of await grid(sizes, causal)) {
          const shrink = Array.from({ length: sizes.heads }, (_, h) => (h + 1) / 8);
          for (const given of [attention, { ...attention, shrink }]) {
            const parsed = await attentionOf(...(causal ? ["--causal"] : []), ...settingFlags(given));
            // One λ for all heads and a list of one say the same.
            const asked = sizes.heads === 1 && given.shrink ? { ...given, shrink: shrink[0] } : given;
            expect(parsed).toEqual(attention.nearFar ? { ...asked, numFeatures: 256 } : asked);
          }
        }
      });
    }
  }

  test("orthogonal positive features of that number are exactly the budget", async () => {
    for (const sizes of SHAPES) {
      const positive = await attentionOf("--features", "positive", "-m", "64");
      const flops = flopCount(positive, sizes, parametersFor(positive, sizes));
      expect(flops / sizes.queryRows).toBe(budgetOf(64, sizes));
    }
  });

  test("an exact prefix counts: where it is nearly all of the rows, nothing is cheaper than exact attention", async () => {
    const sizes = { queryRows: 320, keyRows: 320, heads: 1, kvHeads: 1, headDim: 64, valueDim: 64 };
    const options = { sizes, base: await attentionOf("--causal"), tops: false, maps: [], numFeatures: [] };
    const cheaper = candidatesFor(options).length;
    expect(cheaper).toBeGreaterThan(0);
    expect(candidatesFor({ ...options, exactRows: 64 }).length).toBeLessThanOrEqual(cheaper);
    expect(candidatesFor({ ...options, exactRows: 310 })).toEqual([]);
  });
});

test("settings in words", async () => {
  const words = async (...args: string[]) => settingName(await attentionOf(...args));
  expect(await words("--window", "64", "--heavy", "8")).toBe("window 64, heavy 8, taylor1");
  expect(await words("--far", "clusters:32", "--top", "4", "--shrink", "0.5")).toBe("clusters 32, top 4, shrunk");
  expect(await words("-m", "64")).toBe("hyperbolic, m = 64, orthogonal");
});

test("flags of near keys and far fields: what they mean, and what is wrong with others", async () => {
  expect(parseFar("clusters:7")).toEqual({ far: "clusters", clusters: 7 });
  expect(parseFar("clusters")).toEqual({ far: "clusters", clusters: 128 });
  expect(parseFar("hermite2")).toEqual({ far: "hermite2", clusters: 0 });
  expect(parseShrink("auto")).toBe("auto");
  expect(parseShrink("0.25")).toBe(0.25);
  expect(parseShrink("1, 0,0.5")).toEqual([1, 0, 0.5]);
  for (const text of ["", "1.1", "-0.1", "0.5,", "x", "NaN"]) expect(() => parseShrink(text)).toThrow("expected auto");
  const near = { window: 0, heavy: 0, far: "taylor1", clusters: 0, top: 0 };
  expect((await attentionOf("--heavy", "3")).nearFar).toEqual({ ...near, heavy: 3 } as never);
  expect((await attentionOf("--features", "taylor2", "--window", "5")).nearFar).toEqual(
    { ...near, far: "taylor2", window: 5 } as never,
  );
  expect((await attentionOf("--far", "clusters:4", "--top", "9")).nearFar?.top).toBe(4);
  expect((await attentionOf()).nearFar).toBeNull();
  const wrong: [string[], string][] = [
    [["--far", "taylor3"], "did you mean taylor1?"],
    [["--far", "positive"], "random features are no far field"],
    [["--far", "clusters:0"], "at least 1"],
    [["--far", "clusters:4:5"], "expected clusters:C"],
    [["--far", "taylor1:3"], "expected taylor1"],
    [["--far", "none"], "no key would be seen"],
    [["--top", "3"], "give --far clusters:C"],
    [["--window", "8", "--features", "positive"], "random features are no far field"],
    [["--window", "8", "--features", "auto"], "it chooses near keys and the far field itself"],
    [["--window", "8", "--features", "softmax"], "there every key counts exactly"],
    [["--features", "taylor1", "--far", "taylor2"], "give the one or the other"],
    [["--window", "8", "--compat", "lucidrains"], "with --compat lucidrains"],
    [["--heavy", "8", "--redraws", "2"], "no random projection"],
    [["--heavy", "8", "--weights", "model.pt"], "a checkpoint's layer has its own attention"],
    [["--features", "softmax", "--shrink", "0.5"], "it has no error"],
  ];
  for (const [args, words] of wrong) await expect(attentionOf(...args)).rejects.toThrow(words);
});

describe("slices", () => {
  test("lie within the rows: at the beginning when causal, else in the middle from a whole block on", () => {
    fc.assert(
      fc.property(fc.nat(100_000), fc.integer({ min: 1, max: 20_000 }), fc.boolean(), (rows, most, causal) => {
        const { start, end } = sliceOf(rows, most, causal);
        expect(end - start).toBe(Math.min(rows, most));
        expect(start >= 0 && end <= rows && start % 64 === 0).toBeTrue();
        if (causal || rows <= most) expect(start).toBe(0);
        else expect(Math.abs(start - (rows - end))).toBeLessThan(130);
      }),
      { seed: 20200930 },
    );
  });

  test("hold the same rows of every tensor, count from 0, and are read once where one tensor plays several roles", async () => {
    const numbers = Float64Array.from({ length: 50 * 4 }, (_, i) => i);
    const k = memoryTensor(numbers, 2, 2), v = memoryTensor(numbers.map((x) => -x), 2, 2);
    const weights = memoryTensor(numbers.slice(0, 50), 1, 1);
    const part = sliceInputs(new Inputs(k, k, v, weights), { start: 7, end: 29 });
    expect(part.q).toBe(part.k);
    expect(part.k.info).toMatchObject({ rows: 22, firstRow: 7, heads: 2, width: 2, byteLength: 8 * 22 * 4 });
    let at = 0;
    for await (const tiles of part.tiles(5, "f64", part.q)) {
      expect(tiles.k.start).toBe(at);
      expect(tiles.q).toBe(tiles.k);
      expect(Array.from(tiles.k.data)).toEqual(Array.from(numbers.slice((7 + at) * 4, (7 + at + tiles.k.rows) * 4)));
      expect(tiles.v.data[1]).toBe(-tiles.k.data[1]);
      expect(tiles.weights![0]).toBe(7 + at);
      at += tiles.k.rows;
    }
    expect(at).toBe(22);
    expect(k.reads.reduce((sum, reads) => sum + reads)).toBe(22);
    const inner: number[] = [];
    for await (const { k } of part.tiles(3, "f64", null, undefined, { start: 4, end: 9 })) {
      inner.push(k.start, k.data[0]);
    }
    expect(inner).toEqual([4, 11 * 4, 7, 14 * 4]);
    await part.k[Symbol.asyncDispose]();
    for await (const { data } of k.tiles(1, { range: { start: 0, end: 1 } })) expect(data[3]).toBe(3); // still open
  });
});
