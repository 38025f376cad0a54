/** Remedies know which settings are in force. */
import { expect, test } from "bun:test";
import type { Attention } from "../../src/attention.ts";
import { warningsFor } from "../../src/warnings.ts";
import { PLAIN } from "../plain_attention.ts";

const ATTENTION: Attention = { ...PLAIN, features: "hyperbolic" };

const far = (name: string): Partial<Attention> => ({
  features: name,
  nearFar: { far: name as "none", window: 8, heavy: 0, clusters: 128, top: 0 },
});

test.each<[string, Partial<Attention>, string]>([
  ["trigonometric", { features: "trigonometric" }, "use a positive map such as --features hyperbolic"],
  ["hyperbolic", {}, "scale queries and keys down, or use --features softmax"],
  ["near keys alone", far("none"), "scale queries and keys down, or use --features softmax"],
  ["clusters", far("clusters"), "scale queries and keys down, or use --features softmax"],
  ["taylor2", far("taylor2"), "use --far clusters:128, whose weights are all positive"],
])("denominators that are none, %s: %#", (_, settings, remedy) => {
  const counts = { emptyRows: 0, nonPositive: 3, recomputed: 0 };
  const warnings = warningsFor({ ...ATTENTION, ...settings }, { queryRows: 9, keyRows: 9 }, null, counts);
  expect(warnings).toEqual([{
    code: "non-positive",
    message: "3 row-heads have a denominator ≤ 0 or beyond float range: their outputs are not averages of V",
    remedy,
  }]);
});
