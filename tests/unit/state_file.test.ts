/** States as files: the same bytes for the same state, the same state back, and nothing that is not one. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { InputError, PerformerError, UsageError } from "../../src/errors.ts";
import { FEATURE_MAPS } from "../../src/feature_map.ts";
import { readState, writeState } from "../../src/state_file.ts";
import {
  emptyLike,
  explainDifference,
  fingerprintOf,
  mergeStates,
  settingsText,
  type StoredState,
  storedState,
} from "../../src/stored_state.ts";
import { folder, rejection } from "../formats/support.ts";
import { attentionWith, fitWith, rowsWith, sizesWith, stateWith } from "../stored_states.ts";

const SIZES = sizesWith(9, 4);
const ROWS = rowsWith(SIZES);
const KEPT = FEATURE_MAPS.filter(({ angular }) => !angular).map(({ name }) => name);
const of = (name: string) => attentionWith({ features: name, numFeatures: name === "hybrid" ? 24 : 14 });
const W = { path: "w.npy", matrices: 1, headDim: 5, data: Float64Array.from({ length: 35 }, (_, at) => Math.sin(at)) };

const bytesOf = async (dir: { file(name: string): string }, stored: StoredState) => {
  await writeState(dir.file("x.safetensors"), stored);
  return readFileSync(dir.file("x.safetensors"));
};

describe("what is written", () => {
  test.each(KEPT)("%s comes back, number by number, and makes the same bytes again", async (name) => {
    await using dir = folder();
    const attention = of(name);
    const softmax = FEATURE_MAPS.find((map) => map.name === name)!;
    const fits = softmax.kernel === "softmax" && name !== "hybrid" ? [null, fitWith(attention, SIZES, ROWS)] : [null];
    for (const fit of fits) {
      const stored = await stateWith(attention, SIZES, ROWS, { fit });
      const path = dir.file("one.safetensors");
      const size = await writeState(path, stored);
      const bytes = readFileSync(path);
      expect(size).toBe(bytes.length);
      const back = await readState(path);
      expect(back.state).toEqual(stored.state);
      expect([back.rows, back.settings]).toEqual([9, stored.settings]);
      expect(explainDifference(back, stored)).toEqual([]);
      expect(back.fingerprint).toBe(fingerprintOf(stored));
      expect((await bytesOf(dir, back)).equals(bytes)).toBe(true);
    }
  });

  test("a given W is in it; a drawn one is drawn again", async () => {
    await using dir = folder();
    const given = await stateWith(attentionWith({ given: W }), SIZES, ROWS);
    await writeState(dir.file("w.safetensors"), given);
    const back = await readState(dir.file("w.safetensors"));
    expect(back.given!.data).toEqual(W.data);
    expect(back.settings).toMatchObject({ projection: "given", seed: null, norms: null, projections: 7 });
    expect(explainDifference(back, given)).toEqual([]);
    const other = { ...given, given: { ...W, data: W.data.map((value) => value + 1) } };
    expect(explainDifference(other, given)).toEqual(["the projection matrix holds other numbers"]);
  });

  test("a state without keys, and one that replaces the file it came from", async () => {
    await using dir = folder();
    const path = dir.file("s.safetensors");
    const one = await stateWith(attentionWith(), SIZES, ROWS);
    await writeState(path, emptyLike(one));
    const none = await readState(path);
    expect([none.rows, none.state.keys, none.state.c.every((c) => c === -Infinity)]).toEqual([0, 0, true]);
    await writeState(path, await mergeStates([none, one]));
    expect((await readState(path)).state).toEqual(one.state);
  });

  test("names that are none of a state's, and attention that has none, are refused", async () => {
    const one = await stateWith(attentionWith(), SIZES, ROWS);
    for (const path of ["s.npy", "-", "s.npz"]) {
      expect(await rejection(writeState(path, one))).toBeInstanceOf(UsageError);
    }
    for (const features of ["softmax", "cosformer", "none", "auto"]) {
      expect(() => storedState(attentionWith({ features }), SIZES, null, one)).toThrow(/Cannot keep a state/);
    }
    expect(() => storedState(attentionWith({ compat: "lucidrains" }), SIZES, null, one)).toThrow(/lucidrains/);
  });
});

describe("differences", () => {
  test("every setting that differs is named, with what was expected", async () => {
    const mine = await stateWith(attentionWith({ features: "positive", seed: 4 }), SIZES, ROWS);
    const theirs = await stateWith(attentionWith(), SIZES, ROWS);
    expect(explainDifference(mine, theirs)).toEqual([
      "features is positive, expected hyperbolic",
      "projections is 14, expected 7",
      "seed is 4, expected 3",
    ]);
    const decayed = await stateWith(attentionWith({ decay: [0.5, 0.25] }), SIZES, ROWS);
    expect(explainDifference(decayed, theirs)).toEqual(["decay is 0.5,0.25, expected none"]);
    const error = await rejection(mergeStates([{ ...theirs, path: "a" }, { ...mine, path: "b" }]));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain('Cannot merge "b": features is positive, expected hyperbolic');
    expect(error.message).toContain('as in "a"');
  });

  test("states of other fits are not the same, whatever their settings say", async () => {
    const attention = attentionWith({ features: "aderf" });
    const others = rowsWith(SIZES, 2);
    const mine = await stateWith(attention, SIZES, ROWS, { fit: fitWith(attention, SIZES, ROWS) });
    const theirs = await stateWith(attention, SIZES, ROWS, { fit: fitWith(attention, SIZES, others) });
    expect(settingsText(mine.settings)).toBe(settingsText(theirs.settings));
    expect(fingerprintOf(mine)).not.toBe(fingerprintOf(theirs));
    expect(explainDifference(mine, theirs)[0]).toContain(
      "fitted to other rows, so that shift, balance, inverse, exponents differ",
    );
  });

  test("query heads and what is seen of the past are no part of it: a state answers any of them", async () => {
    const [a, b] = await Promise.all([attentionWith(), attentionWith({ causal: false })].map((attention, i) => {
      return stateWith(attention, sizesWith(9, i === 0 ? 4 : 2), ROWS);
    }));
    expect(explainDifference(a, b)).toEqual([]);
  });
});

describe("merging", () => {
  test.each([["none", null], ["decay", [0.6, 0.05]]])("with %s: parts in order are the whole", async (_, decay) => {
    const attention = attentionWith({ decay });
    const whole = await stateWith(attention, SIZES, ROWS);
    const parts = [[0, 2], [2, 2], [2, 7], [7, 9]].map(([from, to]) => stateWith(attention, SIZES, ROWS, { from, to }));
    const merged = await mergeStates(await Promise.all(parts));
    expect([merged.rows, merged.state.keys]).toEqual([9, whole.state.keys]);
    // Sums of 9 terms in float64, each a product of exponentials.
    merged.state.c.forEach((c, f) => expect(Math.abs(c - whole.state.c[f])).toBeLessThan(1e-14));
    const off = (part: "z" | "S") =>
      Math.max(...merged.state[part].map((x, at) => Math.abs(x - whole.state[part][at])));
    expect(Math.max(off("z"), off("S"))).toBeLessThan(1e-13);
    expect(fingerprintOf(merged)).toBe(fingerprintOf(whole));
  });

  test("the states that are merged stay as they are", async () => {
    const [a, b] = await Promise.all([
      stateWith(attentionWith(), SIZES, ROWS),
      stateWith(attentionWith(), SIZES, ROWS),
    ]);
    const before = a.state.S.slice();
    await mergeStates([a, b]);
    expect(a.state.S).toEqual(before);
    expect(await rejection(mergeStates([]))).toBeInstanceOf(UsageError);
  });
});

describe("files that are no states", () => {
  /** A file whose header and numbers are changed; the header keeps its length. */
  async function changed(dir: { file(name: string): string }, stored: StoredState, change: (text: string) => string) {
    const bytes = await bytesOf(dir, stored);
    const length = Number(bytes.readBigUInt64LE(0));
    const text = change(bytes.subarray(8, 8 + length).toString()).trimEnd();
    expect(text.length).toBeLessThanOrEqual(length);
    bytes.write(text.padEnd(length), 8);
    writeFileSync(dir.file("changed.safetensors"), bytes);
    return (await rejection(readState(dir.file("changed.safetensors")))).message;
  }

  test("what was changed is named", async () => {
    await using dir = folder();
    const one = await stateWith(attentionWith({ decay: [0.5, 0.25] }), SIZES, ROWS);
    const cases: [from: string, to: string, words: string][] = [
      ["performer-state/1", "performer-state/9", "its schema is performer-state/9, expected performer-state/1"],
      ["performer-state/1", "anything", "its schema is anything"],
      ['"schema":"performer-state/1",', "", "it is no state but tensors"],
      ['\\"seed\\":3', '\\"seed\\":4', "its fingerprint is"],
      ['\\"seed\\":3', '\\"seed\\":-', "its settings are not JSON"],
      ["hyperbolic", "hyperbolik", 'Unknown feature map "hyperbolik"'],
      ["hyperbolic", "positive", "settings.projections is 7, expected 14 for 14 features"],
      ["orthogonal", "octagonal", 'settings.projection is "octagonal", expected given or one of orthogonal'],
      ['\\"numFeatures\\":14', '\\"numFeatures\\":16', "settings.projections is 7, expected 8"],
      ["0.5,0.25", "0.5", "settings.decay is [0.5]"],
      ['\\"valueDim\\":3', '\\"valueDim\\":4', 'tensor "S" is F64 [2, 14, 3], expected F64 [2, 14, 4]'],
      ['\\"compat\\":\\"exact\\"', '\\"compat\\":\\"huggi\\"', "settings.compat"],
      ['"rows":"9"', '"rows":"x"', "its rows are x, expected a whole number"],
      ['"rows":"9"', '"rows":"5"', "it has 7 keys of 5 rows"],
      ['"rows":"9"', '"rows":"8"', "its sums are not those that were written"],
      ['"z":', '"y":', 'it lacks tensor "z"'],
    ];
    for (const [from, to, words] of cases) {
      const message = await changed(dir, one, (text) => text.replace(from, to));
      expect(message).toContain("Cannot read state");
      expect(message).toContain(words);
    }
  });

  test("numbers that keys cannot have left", async () => {
    await using dir = folder();
    const one = await stateWith(attentionWith(), SIZES, ROWS);
    const broken = async (change: (state: StoredState["state"]) => void) => {
      const { state } = one;
      const copy = { ...state, c: state.c.slice(), z: state.z.slice(), S: state.S.slice() };
      change(copy);
      await writeState(dir.file("b.safetensors"), { ...one, state: copy });
      return (await rejection(readState(dir.file("b.safetensors")))).message;
    };
    expect(await broken(({ c }) => c[3] = NaN)).toContain('tensor "c" holds NaN at 3');
    expect(await broken(({ c }) => c[3] = Infinity)).toContain('tensor "c" holds Infinity at 3');
    expect(await broken(({ c }) => c[3] = -Infinity)).toContain("feature 3 has sums without a key");
    expect(await broken(({ z }) => z[5] = -1)).toContain('tensor "z" holds -1 at 5, expected 0 or more');
    expect(await broken(({ S }) => S[5] = Infinity)).toContain('tensor "S" holds Infinity at 5');
    expect(await broken((state) => state.keys = 0)).toContain("has sums, expected none of 0 keys");
  });

  test("fits that are not those of the map", async () => {
    await using dir = folder();
    const attention = attentionWith({ features: "aderf+sderf" });
    const fit = fitWith(attention, SIZES, ROWS);
    const one = await stateWith(attention, SIZES, ROWS, { fit });
    const broken = (change: (text: string) => string) => changed(dir, one, change);
    for (const part of ["shift", "balance", "inverse", "exponents", "directions"]) {
      const message = await broken((text) => text.replace(`"fit.${part}"`, `"fit.${"x".repeat(part.length)}"`));
      expect(message).toContain(`it lacks tensor "fit.${part}"`);
    }
    expect(await broken((text) => text.replace('\\"centred\\":true', '\\"centred\\":false').replace("  ", " ")))
      .toContain('it holds tensor "fit.shift"');
    const [first, ...rest] = fit.heads;
    const wild = { ...fit, heads: [{ ...first, exponents: first.exponents.map(() => 0.2) }, ...rest] };
    await writeState(dir.file("w.safetensors"), { ...one, fit: wild });
    expect((await rejection(readState(dir.file("w.safetensors")))).message).toContain("expected less than 1/8");
  });

  test("sizes that ask for more memory than the file is worth", async () => {
    await using dir = folder();
    const one = await stateWith(attentionWith(), SIZES, ROWS);
    const message = await changed(
      dir,
      one,
      (text) => text.replace('\\"headDim\\":5', '\\"headDim\\":99999999'),
    );
    expect(message).toContain("its projection would have");
    // 2^24 numbers: little memory, and minutes of making their rows orthogonal.
    const wide = await changed(dir, one, (text) => text.replace('\\"headDim\\":5', '\\"headDim\\":16777216'));
    expect(wide).toContain("its projection would have");
  });

  test("settings that are no texts and no numbers, and that are missing", async () => {
    await using dir = folder();
    const one = await stateWith(attentionWith(), SIZES, ROWS);
    const words: [from: string, to: string, why: string][] = [
      ['\\"projection\\":\\"orthogonal\\"', '\\"projection\\":{\\"toString\\":null}', "settings.projection is {"],
      ['\\"orthogonal\\"', "[[[[[[1]]]]]]", 'settings.projection is [[[["…"]]]]'],
      ['\\"kvHeads\\":2,', "", "settings.kvHeads is missing"],
    ];
    for (const [from, to, why] of words) {
      expect(await changed(dir, one, (text) => text.replace(from, () => to))).toContain(why);
    }
  });

  test("damage anywhere is a complaint or the very same state, never another", async () => {
    await using dir = folder();
    const one = await stateWith(attentionWith(), SIZES, ROWS);
    const bytes = await bytesOf(dir, one);
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), async (at, value, length) => {
        const damaged = Buffer.from(bytes);
        damaged[at] = value;
        const path = dir.file("d.safetensors");
        writeFileSync(path, length % 3 === 0 ? damaged.subarray(0, length) : damaged);
        try {
          const back = await readState(path);
          expect(explainDifference(back, one)).toEqual([]);
          expect([back.rows, back.state]).toEqual([one.rows, one.state]);
        } catch (error) {
          expect(error).toBeInstanceOf(PerformerError);
        }
      }),
      { numRuns: 300 },
    );
  });
});
