import { expect, test } from "bun:test";
import { bytesText, count, duration, figure, nearest, plain } from "../../src/words.ts";

test("numbers in words", () => {
  expect([0, 999, 1000, 4938920.4].map(count)).toEqual(["0", "999", "1,000", "4,938,920"]);
  expect([0, 0.03123, 0.00012, 12.345, 4321, 2.5e7].map(figure)).toEqual([
    "0",
    "0.0312",
    "1.2e-4",
    "12.3",
    "4,321",
    "2.50e+7",
  ]);
  expect([0.042, 61.04, 200].map(duration)).toEqual(["0.04 s", "61.0 s", "3 min 20 s"]);
  expect([12, 1234, 212e6, 16.1e9].map(bytesText)).toEqual(["12 B", "1.23 kB", "212 MB", "16.1 GB"]);
});

test("text from a file stays on its line", () => {
  expect(plain("a\x1b[2J\nb\u202e\x9b")).toBe("a?[2J?b??");
  expect(plain("näme 漢", 4)).toBe("näme…");
});

test("suggestions are near, or none", () => {
  expect(nearest("hyperbolc", ["hyperbolic", "positive"])).toBe("hyperbolic");
  expect(nearest("webgp", ["webgpu", "scalar"])).toBe("webgpu");
  expect(nearest("zzz", ["webgpu", "scalar"])).toBeNull();
  expect(nearest("to_k.weight", ["to_k.wieght", "to_k.weights", "to_v.weight"])).toBe("to_k.wieght");
  expect(nearest("abcdefgh", ["x".repeat(1e6), "abcdefhg"])).toBe("abcdefhg");
});
